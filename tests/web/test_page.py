"""The page in a real browser against a running service: draw, drop, look, go on from a hit."""

import base64
import json
import math
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the page is served by the extra 'serve'")
pytest.importorskip("selenium", reason="the page is tested in a browser driven by selenium")
pytest.importorskip("multipart", reason="the service reads forms with python-multipart")

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.interaction import POINTER_MOUSE, POINTER_PEN, POINTER_TOUCH
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from ucdir.drawing.collection import draw_collections

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
TOKEN = "correct-horse-battery-staple"
PATIENCE = 20.0  # s for anything the page should do

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and chromedriver on the PATH"),
]

GalleryWriter = tuple[float, float]  # share of the paper's side


@dataclass(frozen=True)
class Screen:
    """What the browser pretends to be."""

    name: str
    width: int
    height: int
    scale: float
    touch: bool
    dark: bool = False


WIDE = Screen("1280", 1280, 900, 1.0, touch=False)
NARROW = Screen("390", 390, 844, 3.0, touch=True)
DARK = Screen("1280-dark", 1280, 900, 1.0, touch=False, dark=True)
NARROW_DARK = Screen("390-dark", 390, 844, 3.0, touch=True, dark=True)
BOTH = pytest.mark.parametrize("page", [WIDE, NARROW], indirect=True, ids=lambda screen: screen.name)


def circle(x: float, y: float, radius: float) -> list[GalleryWriter]:
    angles = [2 * math.pi * step / 20 for step in range(21)]
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


FACE, EYES, MOUTH = circle(0.5, 0.5, 0.3), circle(0.4, 0.42, 0.04), [(0.38, 0.6), (0.5, 0.68), (0.62, 0.6)]


@dataclass(frozen=True)
class Page:
    """The page as a person meets it. `shown` is what the grid says: (image id, similarity) of each card."""

    driver: webdriver.Chrome
    url: str
    screen: Screen

    def open(self, tail: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(self.url + tail)

    def start(self) -> None:
        self.open()
        self.reaches("empty")

    def __getitem__(self, element_id: str) -> WebElement:
        return self.driver.find_element(By.ID, element_id)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def script(self, text: str, *values: Any) -> Any:
        return self.driver.execute_script(text, *values)

    def each(self, selector: str, value: str) -> list[Any]:
        """A JavaScript value of every such element `e`, read at one moment."""
        read: list[Any] = self.script(f"return [...document.querySelectorAll(`{selector}`)].map(e => {value})")
        return read

    def folders(self) -> set[str]:
        return {Path(title).parent.name for title in self.each(".card", "e.title")}

    def until(self, true: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, f"{what}: not within {PATIENCE} s"
            time.sleep(0.05)

    def reaches(self, state: str) -> None:
        self.until(lambda: self.state() == state and not self.is_searching(), f"state {state!r} (is {self.state()!r})")

    def state(self) -> str | None:
        return self["results"].get_attribute("data-state")

    def is_searching(self) -> bool:
        return self["results"].get_attribute("data-searching") is not None

    def shown(self) -> list[tuple[str, str]]:
        read = self.each(".card", "[e.dataset.id, e.querySelector('.similarity').textContent]")
        return [(image_id, similarity) for image_id, similarity in read]

    def settles(self, former: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The hits once they differ from the former ones."""
        self.until(lambda: self.shown() and self.shown() != former, "other hits")
        self.rests()
        return self.shown()

    def rests(self) -> None:
        """No search is planned or under way: longer than the page waits after a change."""
        quiet = time.monotonic()
        while time.monotonic() - quiet < 0.8:
            if self.is_searching():
                quiet = time.monotonic()
            time.sleep(0.05)

    def draw(self, places: list[GalleryWriter], kind: str = POINTER_MOUSE, release: bool = True, **properties: Any) -> None:
        canvas = self["canvas"]
        pointer = PointerInput(kind, kind)
        actions = ActionChains(self.driver, duration=10, devices=[pointer])
        moves = actions.w3c_actions.pointer_action
        side = canvas.size["width"]
        for number, (x, y) in enumerate(places):
            moves.move_to(canvas, round((x - 0.5) * side), round((y - 0.5) * side), **properties)
            if number == 0:
                moves.pointer_down(**properties)
        if release:
            moves.pointer_up()
        actions.w3c_actions.perform()

    def drawn(self, *strokes: list[GalleryWriter]) -> list[tuple[str, str]]:
        for stroke in strokes:
            self.draw(stroke)
        self.reaches("hits")
        self.rests()
        return self.shown()

    def ink(self) -> int:
        """Dark pixels on the paper."""
        return int(
            self.script(
                "const c = document.getElementById('canvas');"
                "const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
                "let n = 0; for (let i = 0; i < p.length; i += 4) n += p[i] + p[i + 1] + p[i + 2] < 300; return n;"
            )
        )

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def control(self, key: str) -> None:
        ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(key).key_up(Keys.CONTROL).perform()

    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element

    def filters(self) -> None:
        """Unfolds the fields where the page is narrow."""
        button = self["filters-open"]
        if button.is_displayed() and button.get_attribute("aria-expanded") == "false":
            button.click()

    def shoot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SHOTS / f"{name}-{self.screen.name}.png"))

    def refusals(self) -> list[str]:
        """Console errors since last asked, the browser's own lines about refused requests too."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield started
    started.quit()


def emulate(driver: webdriver.Chrome, screen: Screen) -> None:
    metrics = {"width": screen.width, "height": screen.height, "deviceScaleFactor": screen.scale, "mobile": screen.touch}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": screen.touch})
    scheme = {"name": "prefers-color-scheme", "value": "dark" if screen.dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Domains `photo` and `drawing` with class folders; `photo/lost` holds one image alone."""
    root = tmp_path_factory.mktemp("page") / "collection"
    draw_collections(root, images_per_class=6)
    first = min((root / "photo").rglob("*.jpg"))
    (root / "photo" / "lost").mkdir()
    shutil.copy(first, root / "photo" / "lost" / "0001.jpg")
    return root


@pytest.fixture(scope="module")
def page_galleries(collection: Path, make_gallery: Callable[..., Path]) -> list[Path]:
    """Two galleries over `collection`, the first with both domains."""
    both = make_gallery(collection.parent / "both", collection / "photo", collection / "drawing")
    return [both, make_gallery(collection.parent / "photos", collection / "photo")]


@pytest.fixture(scope="module")
def page_url(launch: Callable[..., Any], page_galleries: list[Path]) -> str:
    """Address of a real service, with a slash at the end."""
    return f"{launch(*page_galleries).url}/"


@pytest.fixture(scope="module")
def locked_url(launch: Callable[..., Any], page_galleries: list[Path]) -> str:
    """The same behind `TOKEN`."""
    return f"{launch(*page_galleries, UCDIR_TOKEN=TOKEN).url}/"


@pytest.fixture
def page(driver: webdriver.Chrome, page_url: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, freshly opened. Afterwards: no console error, nothing asked of another origin, nothing remembered."""
    opened = Page(driver, page_url, getattr(request, "param", WIDE))
    emulate(driver, opened.screen)
    opened.start()
    opened.refusals()
    yield opened
    assert opened.refusals() == []
    asked = opened.script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in asked if not name.startswith((opened.url, f"blob:{opened.url}", "data:"))] == []
    assert opened.script("return [document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]


@pytest.fixture
def locked(driver: webdriver.Chrome, locked_url: str) -> Page:
    emulate(driver, WIDE)
    return Page(driver, locked_url, WIDE)


def picture(collection: Path, number: int = 0) -> Path:
    return sorted((collection / "drawing").rglob("*.png"))[number]


def answer(url: str, file: Path, **fields: str) -> list[str]:
    """Ids that the service itself gives for a file."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()
    ]
    head = f'--edge\r\nContent-Disposition: form-data; name="image"; filename="{file.name}"\r\nContent-Type: image/png\r\n\r\n'
    body = b"".join([*parts, head.encode(), file.read_bytes(), b"\r\n--edge--\r\n"])
    request = urllib.request.Request(f"{url}search", body, {"Content-Type": "multipart/form-data; boundary=edge"})
    with urllib.request.urlopen(request) as response:
        return [hit["id"] for hit in json.load(response)["hits"]]


def galleries(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}galleries") as response:
        listed: list[dict[str, Any]] = json.load(response)["galleries"]
    return listed


# ---- draw


@BOTH
def test_hits_follow_a_drawing_stroke_by_stroke(page: Page) -> None:
    page.shoot("empty")
    face = page.drawn(FACE)
    assert len(face) == 24
    eyed = page.drawn(EYES)
    assert eyed != face
    smiling = page.drawn(MOUTH)
    assert smiling != eyed
    page.until(lambda: page["live"].text.startswith("24 hits, best "), "the hits read out")
    page.shoot("hits")
    page["undo"].click()
    assert page.settles(smiling) == eyed
    page["redo"].click()
    assert page.settles(eyed) == smiling
    page["clear"].click()
    page.reaches("empty")
    assert page.shown() == []
    assert page.ink() == 0
    page["undo"].click()
    assert page.settles([]) == smiling


def test_undo_and_redo_by_keyboard(page: Page) -> None:
    face = page.drawn(FACE)
    both = page.drawn(MOUTH)
    page.control("z")
    assert page.settles(both) == face
    page.control("Z")
    assert page.settles(face) == both
    page.control("z")
    page.control("z")
    page.reaches("empty")
    assert page["undo"].get_attribute("disabled")


def test_hits_come_while_the_pen_is_still_down(page: Page) -> None:
    page.draw(FACE * 3, release=False)
    page.until(page.shown, "hits during a stroke")
    page.driver.execute(webdriver.remote.command.Command.W3C_CLEAR_ACTIONS)
    page.reaches("hits")


@pytest.mark.parametrize("kind", [POINTER_MOUSE, POINTER_TOUCH, POINTER_PEN])
def test_mouse_finger_and_stylus_draw(page: Page, kind: str) -> None:
    page.draw(FACE, kind=kind)
    assert page.ink() > 500
    page.reaches("hits")


def test_a_stylus_that_presses_draws_a_wider_line(page: Page) -> None:
    page.draw(FACE, kind=POINTER_PEN, pressure=0.1)
    light = page.ink()
    page["clear"].click()
    page.draw(FACE, kind=POINTER_PEN, pressure=1.0)
    assert page.ink() > 1.5 * light


def test_the_eraser_takes_ink_away_and_the_slider_sets_the_width(page: Page) -> None:
    page.draw(FACE)
    thin = page.ink()
    page["eraser"].click()
    page.draw(MOUTH)
    assert page.ink() == thin
    page.draw(FACE[:8])
    assert 0 < page.ink() < 0.8 * thin
    page["clear"].click()
    page["pen"].click()
    page["width"].send_keys(Keys.END)
    page.draw(FACE)
    assert page.ink() > 2 * thin


@BOTH
def test_the_paper_is_as_sharp_as_the_screen(page: Page) -> None:
    width, shown, ratio = page.script(
        "const c = document.getElementById('canvas'); return [c.width, c.clientWidth, devicePixelRatio]"
    )
    assert ratio == page.screen.scale
    assert width == round(shown * ratio)


@pytest.mark.parametrize("page", [DARK, NARROW_DARK], indirect=True, ids=lambda screen: screen.name)
def test_the_paper_stays_white_in_the_dark(page: Page) -> None:
    page.drawn(FACE)
    corner = page.script("return [...document.getElementById('canvas').getContext('2d').getImageData(3, 3, 1, 1).data]")
    assert corner == [255, 255, 255, 255]
    ground = page.script("return getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(20, 21, 24)"
    page.shoot("hits")
    page.all(".card .open")[0].click()
    page.until(lambda: page["view"].get_attribute("data-state") == "shown", "full size")
    page.shoot("view")


# ---- pictures


@BOTH
def test_a_chosen_file_is_searched_as_it_is(page: Page, collection: Path) -> None:
    file = picture(collection)
    page["file"].send_keys(str(file))
    page.reaches("hits")
    assert [image_id for image_id, _ in page.shown()] == answer(page.url, file, k="24")
    assert file.name in page["asked"].text
    assert page.ink() > 0


def test_a_picture_can_be_drawn_over_and_replaced(page: Page, collection: Path) -> None:
    page["file"].send_keys(str(picture(collection)))
    plain = page.settles([])
    over = page.drawn(MOUTH)
    assert over != plain
    assert not page["asked"].is_displayed()
    page["file"].send_keys(str(picture(collection, 1)))
    assert page.settles(over) != plain
    assert picture(collection, 1).name in page["asked"].text
    page["undo"].click()
    page.until(lambda: page.shown() == over, "the drawing over the first picture")


BRING = """
const [name, bytes, event] = arguments;
const files = new DataTransfer();
files.items.add(new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], name, { type: 'image/png' }));
const of = { bubbles: true, cancelable: true };
if (event === 'paste') document.body.dispatchEvent(new ClipboardEvent('paste', { ...of, clipboardData: files }));
else document.querySelector('h1').dispatchEvent(new DragEvent(event, { ...of, dataTransfer: files }));
"""


def test_pictures_can_be_dropped_and_pasted_anywhere(page: Page, collection: Path) -> None:
    dropped, pasted = picture(collection), picture(collection, 1)
    page.script(BRING, dropped.name, base64.b64encode(dropped.read_bytes()).decode(), "dragenter")
    assert page["drop"].is_displayed()
    page.shoot("drop")
    page.script(BRING, dropped.name, base64.b64encode(dropped.read_bytes()).decode(), "drop")
    first = page.settles([])
    assert not page["drop"].is_displayed()
    assert [image_id for image_id, _ in first] == answer(page.url, dropped, k="24")
    page.script(BRING, pasted.name, base64.b64encode(pasted.read_bytes()).decode(), "paste")
    assert [image_id for image_id, _ in page.settles(first)] == answer(page.url, pasted, k="24")


# ---- hits


@BOTH
def test_a_hit_in_full_size(page: Page) -> None:
    page.drawn(FACE)
    third = page.all(".card")[2]
    name, similarity = third.find_element(By.CLASS_NAME, "name").text, third.find_element(By.CLASS_NAME, "similarity").text
    third.find_element(By.CLASS_NAME, "open").click()
    page.until(lambda: page["view"].get_attribute("data-state") == "shown", "full size")
    page.shoot("view")
    facts = page["view-facts"].text
    assert page["view-name"].text == name
    assert f"{float(similarity):.3f}"[:4] in facts
    assert "3 of 24" in facts
    assert "96 × 96 px" in facts
    assert page.script(
        "return fetch(document.getElementById('view-original').href).then(r => r.headers.get('Content-Type'))"
    ).startswith("image/")
    page.press(Keys.ARROW_RIGHT)
    page.until(lambda: "4 of 24" in page["view-facts"].text, "the next hit")
    page.press(Keys.ARROW_LEFT)
    page.press(Keys.ARROW_LEFT)
    page.until(lambda: "2 of 24" in page["view-facts"].text, "the previous hit")
    page["previous"].click()
    page.until(lambda: "1 of 24" in page["view-facts"].text, "the first hit")
    assert page["previous"].get_attribute("disabled")
    page.press(Keys.ESCAPE)
    page.until(lambda: not page["view"].is_displayed(), "closed")
    page.until(lambda: page.focused() == page.all(".card .open")[0], "focus on the hit last seen")


@BOTH
def test_more_like_this(page: Page) -> None:
    former = page.drawn(FACE)
    card = page.all(".card")[1]
    image_id = former[1][0]
    name = card.find_element(By.CLASS_NAME, "name").text
    card.find_element(By.CLASS_NAME, "more").click()
    hits = page.settles(former)
    assert image_id not in [other for other, _ in hits]
    assert page["asked"].text == f"Like {name}"
    page.until(lambda: page.focused() == page.all(".card .open")[0], "focus on the first new hit")
    page.shoot("more")
    page.all(".card .open")[0].click()
    page["view-more"].click()
    third = page.settles(hits)
    assert hits[0][0] not in [other for other, _ in third]
    page["undo"].click()
    assert page.settles(third) == hits
    page["undo"].click()
    assert page.settles(hits) == former


def test_a_hit_of_one_gallery_searches_another(page: Page) -> None:
    other = galleries(page.url)[1]
    former = page.drawn(FACE)
    page.all(".card .more")[0].click()
    former = page.settles(former)
    Select(page["gallery"]).select_by_value(other["name"])
    page.until(lambda: f"{other['count']:,} images" in page["searched"].text, "the other gallery")
    page.reaches("hits")
    assert page.shown() != former


def test_pictures_far_below_are_asked_for_when_they_come_near(page: Page) -> None:
    Select(page["count"]).select_by_value("96")
    page.drawn(FACE)
    last = page.all(".card")[95]
    assert "drawn" not in (last.get_attribute("class") or "")
    page.script("arguments[0].scrollIntoView()", last)
    page.until(lambda: "drawn" in (last.get_attribute("class") or ""), "the last picture")


def test_old_hits_stay_until_the_new_ones_are_there(page: Page) -> None:
    page.drawn(FACE)
    top = page.each(".card", "e.getBoundingClientRect().top")[0]
    page.script(
        "window.least = 99; window.tops = new Set(); new MutationObserver(() => {"
        "const cards = document.querySelectorAll('.card');"
        "window.tops.add(cards[0]?.getBoundingClientRect().top);"
        "window.least = Math.min(window.least, cards.length); }).observe("
        "document.getElementById('results'), { childList: true, subtree: true, attributes: true });"
    )
    page.drawn(EYES, MOUTH)
    assert page.script("return window.least") == 24
    assert page.script("return [...window.tops]") == [top]


def test_a_stale_answer_is_dropped(page: Page) -> None:
    page.drawn(FACE)
    page.script(
        "const real = window.fetch; let slow = true; window.answers = 0;"
        "const late = () => new Promise(then => setTimeout(() => then(window.answers += 1), 1500));"
        "window.fetch = async (to, how) => {"
        "  if (String(to).endsWith('/search') && slow) { slow = false; await late(); }"
        "  return real(to, how); };"
    )
    Select(page["count"]).select_by_value("48")
    Select(page["count"]).select_by_value("12")
    page.until(lambda: len(page.shown()) == 12, "12 hits")
    page.until(lambda: page.script("return window.answers") == 1, "the slow search")
    page.rests()
    assert len(page.shown()) == 12


@BOTH
def test_gallery_domain_number_and_folder(page: Page) -> None:
    served = galleries(page.url)
    page.filters()
    assert [option.get_attribute("value") for option in Select(page["gallery"]).options] == [
        gallery["name"] for gallery in served
    ]
    hits = page.drawn(FACE)
    Select(page["count"]).select_by_value("48")
    page.until(lambda: len(page.shown()) == min(48, served[0]["count"]), "48 hits")
    assert page.shown()[:24] == hits
    Select(page["domain"]).select_by_value("drawing")
    page.until(lambda: set(page.each(".card .domain", "e.textContent")) == {"drawing"}, "drawings only")
    Select(page["domain"]).select_by_value("")
    page.until(lambda: len(set(page.each(".card .domain", "e.textContent"))) == 2, "both domains")
    folder = min(page.folders())
    page["under"].send_keys(folder)
    page.until(lambda: page.folders() == {folder}, "one folder")
    page["under"].clear()
    page["under"].send_keys("no such folder", Keys.ENTER)
    page.reaches("none")
    assert "no such folder" in page["none-why"].text
    assert all("404" in line for line in page.refusals())
    page.shoot("none")
    page["none-action"].click()
    page.reaches("hits")
    Select(page["gallery"]).select_by_value(served[1]["name"])
    page.until(lambda: f"{served[1]['count']:,} images" in page["searched"].text, "the other gallery")


def test_arrow_keys_go_from_card_to_card(page: Page) -> None:
    page.drawn(FACE)
    page.press("h")
    openers = page.all(".card .open")
    columns = len([card for card in page.all(".card") if card.location["y"] == page.all(".card")[0].location["y"]])
    assert page.focused() == openers[0]
    page.press(Keys.ARROW_RIGHT)
    assert page.focused() == openers[1]
    page.press(Keys.ARROW_DOWN)
    assert page.focused() == openers[1 + columns]
    page.press(Keys.ARROW_LEFT, Keys.ARROW_UP)
    assert page.focused() == openers[0]
    page.press(Keys.END)
    assert page.focused() == openers[23]
    page.press(Keys.ENTER)
    page.until(lambda: page["view"].is_displayed(), "full size")
    page.press(Keys.ESCAPE)
    page.until(lambda: not page["view-image"].get_attribute("src"), "closed: the focus is set after the picture is let go")
    page.until(lambda: page.focused() == openers[23], "focus back")
    page.press(Keys.TAB)
    assert page.focused() == page.all(".card .more")[23]
    former = page.shown()
    page.press("m")
    assert former[23][0] not in [image_id for image_id, _ in page.settles(former)]


# ---- keys, names, sizes


@BOTH
def test_shortcuts(page: Page) -> None:
    page.press("?")
    assert page["help"].is_displayed()
    page.shoot("help")
    page.press(Keys.ESCAPE)
    page.until(lambda: not page["help"].is_displayed(), "the help is closed")
    page.press("e")
    assert page["eraser"].get_attribute("aria-pressed") == "true"
    page.press("d")
    assert page["pen"].get_attribute("aria-pressed") == "true"
    assert page.focused() == page["canvas"]
    page.press("]")
    assert page["width"].get_attribute("value") == "4"
    page.script(
        "document.getElementById('file').addEventListener('click', event => { event.preventDefault(); window.asked = true; })"
    )
    page.press("u")
    assert page.script("return window.asked") is True
    page.press("g")
    assert page.focused() == page["gallery"]
    page["canvas"].click()
    page.press("/")
    assert page.focused() == page["under"]
    page.press("d/e")
    assert page["under"].get_attribute("value") == "d/e"


def test_every_control_has_a_name_and_can_be_reached(page: Page) -> None:
    page.drawn(FACE)
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "combobox", "textbox", "slider", "link", "image", "dialog", "list", "main", "MenuListPopup"}
    unnamed = [
        node for node in nodes if node["role"]["value"] in roles - {"main", "MenuListPopup"} and not node["name"]["value"]
    ]
    assert [node["role"]["value"] for node in unnamed if not node["ignored"]] == []
    assert {"main", "banner", "search", "group"} <= {node["role"]["value"] for node in nodes}
    reached = set()
    page.script("document.activeElement.blur()")
    for _ in range(25):
        page.press(Keys.TAB)
        reached.add(page.focused().get_attribute("id") or page.focused().get_attribute("class"))
    wanted = {
        "help-open",
        "canvas",
        "pen",
        "eraser",
        "width",
        "undo",
        "clear",
        "choose",
        "gallery",
        "domain",
        "count",
        "under",
        "open",
        "more",
    }
    assert wanted <= reached


@pytest.mark.parametrize("page", [NARROW], indirect=True, ids=["390"])
def test_a_narrow_page_fits_and_its_controls_suit_a_thumb(page: Page) -> None:
    page.drawn(FACE)
    page.filters()
    assert page.script("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    controls = ":is(button, select, input, a[href]):not([tabindex='-1'], .skip)"
    sizes = page.each(controls, "[e.id || e.className, e.offsetWidth, e.offsetHeight]")
    small = [size for size in sizes if 0 < min(size[1:]) < 44]
    assert small == []
    paper, results = page["paper"].rect, page["results"].rect
    assert paper["y"] + paper["height"] <= results["y"]


def test_a_wide_page_has_the_paper_beside_the_hits(page: Page) -> None:
    page.drawn(FACE)
    assert page["paper"].rect["width"] == 380
    assert page["results"].rect["x"] > 412
    page.script("window.scrollTo(0, 600)")
    assert page.script("return document.getElementById('paper').getBoundingClientRect().top") >= 0


# ---- when it does not work


@BOTH
def test_a_file_that_is_no_image_is_refused_in_the_services_words(page: Page, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("no image", encoding="utf-8")
    page["file"].send_keys(str(note))
    page.reaches("error")
    assert len(page["notice-text"].text) > 20
    assert page["notice-action"].text == "Try again"
    page.shoot("error")
    page["notice-action"].click()
    page.reaches("error")
    page["undo"].click()
    page.reaches("empty")
    assert not page["notice"].is_displayed()
    assert all("/search" in line for line in page.refusals())


def test_a_file_above_the_services_limit_is_not_sent(page: Page, tmp_path: Path) -> None:
    with urllib.request.urlopen(f"{page.url}galleries") as response:
        most = json.load(response)["limits"]["max_bytes"]
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(most + 1)
    page["file"].send_keys(str(large))
    page.reaches("error")
    assert "at most" in page["notice-text"].text
    assert page.script("return performance.getEntriesByName(document.baseURI + 'search').length") == 0


BUSY = """
const real = window.fetch;
let left = arguments[0];
window.fetch = async (to, how) => String(to).endsWith('/search') && left-- > 0
  ? new Response('{"detail": "The queue is full."}', { status: 503, headers: { 'Retry-After': '2' } }) : real(to, how);
"""


def test_a_busy_service_is_asked_again_by_itself(page: Page) -> None:
    page.script(BUSY, 2)
    page.draw(FACE)
    page.until(lambda: page["notice"].is_displayed(), "the notice")
    assert "The queue is full." in page["notice-text"].text
    page.shoot("busy")
    page.reaches("hits")
    page.until(lambda: not page["notice"].is_displayed(), "the notice gone")
    assert len(page.shown()) == 24


def test_a_service_that_is_away_is_asked_again(page: Page) -> None:
    former = page.drawn(FACE)
    page.driver.set_network_conditions(offline=True, latency=0, throughput=1)
    try:
        page.draw(MOUTH)
        page.until(lambda: page["notice"].is_displayed(), "the notice")
        assert "does not answer" in page["notice-text"].text
        assert page.shown() == former
        page.shoot("away")
    finally:
        page.driver.delete_network_conditions()
    page["notice-action"].click()
    page.settles(former)
    assert not page["notice"].is_displayed()
    assert [line for line in page.refusals() if "ERR_INTERNET_DISCONNECTED" not in line] == []


@pytest.fixture
def lost(collection: Path) -> Iterator[str]:
    """A folder whose only image is away for a while."""
    image = collection / "photo" / "lost" / "0001.jpg"
    image.rename(collection.parent / "away.jpg")
    yield image.parent.name
    (collection.parent / "away.jpg").rename(image)


def test_an_image_that_is_gone_says_so(page: Page, lost: str) -> None:
    page["under"].send_keys(lost)
    page.drawn(FACE)
    assert len(page.shown()) == 1
    page.until(lambda: page.all(".card .gone"), "the card's words")
    assert page.all(".card .gone")[0].text.startswith("Picture gone")
    page.all(".card .open")[0].click()
    page.until(lambda: page["view"].get_attribute("data-state") == "gone", "the view's words")
    assert page["view-gone"].text.startswith("Picture gone")
    page.shoot("gone")
    assert all("410" in line for line in page.refusals())


def test_a_token_is_asked_for_and_kept_in_memory_only(locked: Page) -> None:
    locked.open()
    locked.until(lambda: locked["token"].is_displayed(), "the form")
    locked.shoot("token")
    assert locked.refusals() == []
    locked["token"].send_keys("wrong", Keys.ENTER)
    locked.until(lambda: "refused" in locked["token-problem"].text, "the refusal")
    assert all("401" in line for line in locked.refusals())
    locked["token"].clear()
    locked["token"].send_keys(TOKEN, Keys.ENTER)
    locked.reaches("empty")
    assert not locked["token-form"].is_displayed()
    see_hits_behind_a_token(locked)
    assert locked.script("return [document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]
    locked.open()
    locked.until(lambda: locked["token"].is_displayed(), "the form again")


def test_a_token_in_the_address_is_taken_and_removed(locked: Page) -> None:
    locked.open("#token=" + TOKEN)
    locked.reaches("empty")
    assert locked.driver.current_url == locked.url
    see_hits_behind_a_token(locked)


def see_hits_behind_a_token(locked: Page) -> None:
    locked.drawn(FACE)
    locked.until(lambda: len(locked.all(".card.drawn")) >= 8, "thumbnails")
    assert all(source.startswith("blob:") for source in locked.each(".card.drawn img", "e.src"))
    locked.all(".card .open")[0].click()
    locked.until(lambda: locked["view"].get_attribute("data-state") == "shown", "full size")
    assert (locked["view-original"].get_attribute("href") or "").startswith("blob:")
    locked.press(Keys.ESCAPE)
    former = locked.shown()
    locked.until(lambda: not locked["view"].is_displayed(), "closed")
    locked.all(".card .more")[0].click()
    locked.settles(former)
    assert locked.ink() > 0
    assert locked.refusals() == []
