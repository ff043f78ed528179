"""`ucdir report` on real runs: what it says, what it refuses, and the page in a real browser from a file."""

import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image
from small_run import GRADIENT

from ucdir.commands.report import write_report
from ucdir.commands.train import train
from ucdir.drawing.collection import draw_collections
from ucdir.errors import UcdirError, UsageError
from ucdir.learn.label_free import LabelFreeScores
from ucdir.progress import no_progress
from ucdir.report import write as module
from ucdir.report.page.curves import MEANINGS
from ucdir.report.rendering import printable
from ucdir.settings import Settings, load_settings

pytestmark = pytest.mark.slow


def escaped(text: str) -> str:
    return str(escape(printable(text)))


SMALL = GRADIENT | {
    "method.cluster_start": 0.0,
    "method.alignment_start": 0.5,
    "method.entropy_temperature": 0.1,
    "optimiser.epochs": 2,
    "optimiser.batch_size": 4,
}
HOSTILE = "<img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
WIDTHS = (1280, 390)


def small(**changes: object) -> Settings:
    return load_settings(assignments=SMALL | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Photographs and drawings of ten kinds, one of which has a name that is HTML; one file is no image."""
    drawn = draw_collections(tmp_path_factory.mktemp("drawn") / "d", images_per_class=3, size=40)
    for folder in (drawn.photo, drawn.drawing):
        (folder / "boat").rename(folder / HOSTILE)
    (drawn.photo / "fish" / "broken.jpg").write_bytes(b"no image")
    return [str(drawn.photo), str(drawn.drawing)]


@pytest.fixture(scope="module")
def run(sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its report, as train leaves it."""
    result = train(sources, tmp_path_factory.mktemp("labelled") / "run", small(data__max_unreadable=0.5))
    assert result.report == result.folder / "report.html"
    return result.folder


@pytest.fixture(scope="module")
def unlabelled(sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = small(data__classes="none", optimiser__epochs=1, data__max_unreadable=0.5)
    return train(sources, tmp_path_factory.mktemp("unlabelled") / "run", settings).folder


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two directions, four ways, two seeds; one published figure."""
    folder = tmp_path_factory.mktemp("benchmark")
    epochs = ("last", "oracle", "label-free + smoothed")
    methods = (("frozen", None, 0.20), *(("ours", epoch, base) for epoch, base in zip(epochs, (0.40, 0.45, 0.42), strict=True)))
    rows = [
        {"query": a, "gallery": b, "method": name, "epoch": epoch, "protocol": "paper", "seed": seed}
        | {"metrics": {"P@50": base + 0.1 * seed, "mAP@All": base / 2}}
        for a, b in (("photo", "sketch"), ("sketch", "photo"))
        for name, epoch, base in methods
        for seed in ((0,) if epoch is None else (0, 1))
    ]
    published = [
        {"query": "photo", "gallery": "sketch", "method": "CDS", "metric": "P@50", "value": 0.33, "source": "Table 1 <b>"}
    ]
    content = {"command": "ucdir benchmark DATA", "date": "2026-11-24", "machine": "2 cores", "ks": [50], "rows": rows}
    (folder / "results.json").write_text(json.dumps({**content, "published": published}), encoding="utf-8")
    return folder


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def copy_of(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "run"))


# What it says


def test_names_of_folders_are_inert(run: Path, tmp_path: Path) -> None:
    """They stand in the commands to run again."""
    page = text_of(write_report(copy_of(run, tmp_path / HOSTILE), device="cpu").page)
    assert HOSTILE not in page
    assert page.count(escaped(HOSTILE)) > text_of(run / "report.html").count(escaped(HOSTILE))


def test_a_run_tells_all_there_is(run: Path) -> None:
    page = text_of(run / "report.html")
    for heading in ("What was run", "Data", "Over the epochs", "Scores", "Answers", "What changed", "Map", "Class by class"):
        assert f"<h2>{heading}</h2>" in page
    assert "--config" in page
    assert "random numbers: no labels of any kind" in page
    assert "broken.jpg" in page
    for names in json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]).values():
        for name in names if isinstance(names, dict) else ():
            assert name.replace("_", " ") in page
    for row in ("frozen", "centred", "smoothed", "trained (label-free epoch)", "trained (oracle epoch)"):
        assert row in page


def test_nothing_leads_outside(run: Path, unlabelled: Path, benchmark: Path) -> None:
    write_report(benchmark)
    for folder in (run, unlabelled, benchmark):
        page = text_of(folder / "report.html")
        assert "default-src 'none'" in page
        assert HOSTILE not in page
        assert set(addresses(page)) <= {"data:", "#"}
        assert "url(" not in page
        assert page.count("<script") == page.count("</script>") <= 2


def addresses(page: str) -> list[str]:
    """How each address of an element begins: data:, # or more of it."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert not any(name.startswith("on") or name == "style" for name, _ in attrs)
            values = [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "poster")]
            found.extend("data:" if value.startswith("data:image/jpeg;") else value[:1] for value in values)

    Reader().feed(page)
    return found


def test_without_classes_the_rule_is_said_and_nothing_is_scored(unlabelled: Path) -> None:
    page = text_of(unlabelled / "report.html")
    assert "queries are picked by the similarity of their first hit" in page
    assert "nothing tells right hits from wrong ones" in page
    assert "Class by class" not in page
    assert 'class="hit right"' not in page


def test_every_plot_is_also_a_file(run: Path, tmp_path: Path) -> None:
    result = write_report(run, tmp_path / "page.html", tmp_path / "plots", device="cpu", precision="float32")
    names = {file.stem for file in result.plots if file.suffix == ".svg"}
    assert names >= {"curve-terms-total", "curve-oracle-mAP@All", "map-trained", "classes-photo-drawing"}
    assert names >= {"confusion-drawing-photo-frozen"}
    pictures = [file for file in result.plots if file.suffix == ".png"]
    assert (len(pictures) == len(names)) != ("ucdir[plot]" in result.no_png)


def test_a_benchmark_has_spreads_seeds_and_published_figures(benchmark: Path, tmp_path: Path) -> None:
    result = write_report(benchmark, tmp_path / "page.html", tmp_path / "plots")
    page = text_of(result.page)
    assert "45.0 ± 7.1" in page  # 40 and 50
    assert 'frozen <span class="tag">training-free</span>' in page
    assert "Table 1 &lt;b&gt;" in page
    assert page.count("ours, last, seed 1: 50.0 %") == 4  # in each direction, wide and narrow
    assert "ucdir benchmark DATA" in page
    assert {file.name for file in result.plots} >= {"P@50-photo-sketch-paper.svg", "mAP@All-sketch-photo-paper.svg"}


def test_a_benchmark_names_its_rows_as_the_terminal_does(benchmark: Path, tmp_path: Path) -> None:
    page = text_of(write_report(benchmark, tmp_path / "page.html").page)
    tables = re.findall(r"<tbody>(.*?)</tbody>", page)
    assert len(tables) == 3
    for body in tables:  # the means too
        names = re.findall(r'<th scope="row">(.*?)</th>', body)
        assert names[:4] == [
            'frozen <span class="tag">training-free</span>',
            "ours, last",
            "ours, label-free + smoothed",
            'ours, oracle <span class="tag oracle">uses labels</span>',
        ]
    labels = re.findall(r">(ours, [^<]*)</text>", page)
    assert labels[:3] == ["ours, last", "ours, label-free + smoothed", "ours, oracle"]


def test_a_benchmark_explains_its_figures_and_protocols(benchmark: Path, tmp_path: Path) -> None:
    content = json.loads((benchmark / "results.json").read_text())
    held = [{**row, "protocol": "held-out"} for row in content["rows"]]
    (tmp_path / "results.json").write_text(json.dumps({**content, "rows": [*content["rows"], *held]}))
    page = text_of(write_report(tmp_path).page)
    assert page.count("Paper protocol: all images are trained on without labels") == 1
    assert page.count("Held-out protocol: the images that ask and are searched were not trained on.") == 1
    assert "Capped P@k: hits among the first min(k, relevant), over min(k, relevant), over all queries." in page


def test_an_epoch_of_another_version_is_still_shown(benchmark: Path, tmp_path: Path) -> None:
    text = (benchmark / "results.json").read_text().replace("label-free + smoothed", "first")
    (tmp_path / "results.json").write_text(text)
    assert "ours, first" in text_of(write_report(tmp_path).page)


def test_a_run_says_what_its_rows_and_curves_are(run: Path) -> None:
    page = text_of(run / "report.html")
    assert '<th scope="row">trained (last epoch)</th>' in page
    assert '<th scope="row">trained</th>' not in page
    assert '<th scope="row">oracle <span class="tag oracle">uses labels</span></th>' in page
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    for name, value in last["oracle"].items():
        assert f'aria-label="{name}, last value {100 * value:.1f} %"' in page
    for name, meaning in MEANINGS.items():
        assert f"{name.replace('_', ' ')}, last value" in page
        assert page.count(f'<p class="meaning">{escaped(meaning)}</p>') == 1


def test_every_label_free_score_has_its_line() -> None:
    assert list(MEANINGS) == [field.name for field in fields(LabelFreeScores)]
    assert {name for name, line in MEANINGS.items() if "Larger is better" in line} == {
        "cycle_agreement",
        "cluster_information",
        "score",
    }


def test_what_scrolls_can_be_reached_and_has_a_name(run: Path, benchmark: Path, tmp_path: Path) -> None:
    for page in (text_of(run / "report.html"), text_of(write_report(benchmark, tmp_path / "page.html").page)):
        assert len(
            re.findall(r'<div class="scroll" tabindex="0" role="region" aria-label="[^"]+"><table>', page)
        ) == page.count("<table>")
        assert 'aria-label="table"' not in page
        assert 'aria-label="photo → ' in page


def test_of_very_many_images_a_part_is_taken_and_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ucdir.report.gather import run as gathering

    monkeypatch.setattr(gathering, "MOST_IMAGES", 20)
    page = text_of(write_report(run, tmp_path / "page.html", device="cpu", precision="float32").page)
    assert re.search(r"cover 20 of \d+ images, drawn with seed 0", page)


# What it meets


def test_images_that_have_moved_are_counted(run: Path, tmp_path: Path) -> None:
    own = copy_of(run, tmp_path)
    images = own / "images.csv"
    images.write_text(images.read_text().replace("/drawing/fish/", "/drawing/moved/"))
    page = text_of(write_report(own, device="cpu", precision="float32").page)
    gone = images.read_text().count("/drawing/moved/")
    assert f"{gone} of the" in page
    assert f"<b>{gone}</b> gone since" in page


def test_when_all_images_are_gone_the_curves_remain(run: Path, tmp_path: Path) -> None:
    own = copy_of(run, tmp_path)
    images = own / "images.csv"
    images.write_text(re.sub(r",/[^,]*/d/", ",/nowhere/d/", images.read_text()))
    page = text_of(write_report(own, device="cpu", precision="float32").page)
    assert "no image that is still there" in page
    assert "<h2>Over the epochs</h2>" in page
    assert "<h2>Map</h2>" not in page


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither a run nor a benchmark: no config\.toml .* no results\.json"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", '{"epoch": 1, "ter'])
def test_a_run_without_a_finished_epoch(run: Path, tmp_path: Path, text: str) -> None:
    own = copy_of(run, tmp_path)
    (own / "metrics.jsonl").write_text(text)
    with pytest.raises(UcdirError, match="has no finished epoch"):
        write_report(own)


def test_a_damaged_encoder(run: Path, tmp_path: Path) -> None:
    own = copy_of(run, tmp_path)
    weights = own / "encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UcdirError, match=r"encoder '.*encoder' is damaged"):
        write_report(own)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"rows": []}', '{"command": "", "date": "", "machine": "", "ks": [1], "rows": []}']
)
def test_a_damaged_benchmark(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UcdirError, match=r"results\.json.* Run the benchmark"):
        write_report(tmp_path)


def test_a_run_is_done_even_where_its_report_fails(sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UcdirError("the disk is full.")

    monkeypatch.setattr(module, "gather_run", fail)
    said: list[str] = []
    settings = small(optimiser__epochs=1, data__max_unreadable=0.5)
    result = train(sources, tmp_path / "run", settings, False, False, no_progress, said.append)
    assert result.report is None
    assert (result.encoder / "model.safetensors").is_file()
    assert said[-1] == "no report: the disk is full."


def test_the_command(benchmark: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ucdir", "report", benchmark, "--out", tmp_path / "b.html", "--plots", tmp_path / "plots"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert f"Wrote {tmp_path / 'b.html'}" in finished.stdout
    assert (tmp_path / "plots" / "P@50-photo-sketch-paper.svg").is_file()


# The page


def wide_benchmark(folder: Path) -> Path:
    """Nine methods, four epochs of each trained one, three seeds: the widest table without published figures."""
    free = [(name, None) for name in ("frozen", "centred", "smoothed")]
    trained = ("instance", "cluster", "ucdir", "prototype", "coda", "protoot")
    lines = [*free, *((name, epoch) for name in trained for epoch in ("last", "label-free", "label-free + smoothed", "oracle"))]
    ks = (1, 5, 15, 50)
    names = [*(f"P@{k}" for k in ks), *(f"capped P@{k}" for k in ks), "mAP@All"]
    rows = [
        {"query": a, "gallery": b, "method": name, "epoch": epoch, "protocol": "paper", "seed": seed}
        | {"metrics": dict.fromkeys(names, 0.5 + 0.02 * seed + (0.4 if name == "smoothed" else 0))}
        for a, b in (("photo", "sketch"), ("sketch", "photo"))
        for name, epoch in lines
        for seed in ((0,) if epoch is None else (0, 1, 2))
    ]
    content = {"command": "ucdir benchmark DATA", "date": "2026-11-24", "machine": "2 cores", "ks": ks, "rows": rows}
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return write_report(folder).page


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs Chromium and chromedriver on the PATH")
    webdriver = pytest.importorskip("selenium.webdriver", reason="the page is tested in a browser driven by selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield started
    started.quit()


def opened(driver: Any, page: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for log in ("browser", "performance"):
        driver.get_log(log)
    driver.get(page.as_uri())


def asked_for(driver: Any) -> list[str]:
    """Addresses that the browser asked for, the page itself and data: apart."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:") and not url.endswith(".html")]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["run", "unlabelled", "benchmark"])
def test_a_page_is_quiet_and_fits(driver: Any, request: pytest.FixtureRequest, kind: str, width: int) -> None:
    folder: Path = request.getfixturevalue(kind)
    if kind == "benchmark":
        write_report(folder)
    opened(driver, folder / "report.html", width)
    assert driver.execute_script("return document.documentElement.scrollWidth") == width
    assert driver.get_log("browser") == []
    assert asked_for(driver) == []
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert driver.execute_script(broken) == 0
    SHOTS.mkdir(parents=True, exist_ok=True)
    driver.save_screenshot(str(SHOTS / f"report-{kind}-{width}.png"))


CUT = """return [...document.querySelectorAll(arguments[0])].filter(box => box.clientWidth && box.scrollWidth > box.clientWidth)
  .length"""


def test_nothing_of_a_wide_benchmark_is_cut(driver: Any, tmp_path: Path) -> None:
    page = wide_benchmark(tmp_path)
    opened(driver, page, 1280)
    assert driver.execute_script(CUT, ".scroll") == 0
    assert driver.execute_script("return document.querySelectorAll('table').length") == 3


def test_dots_fit_a_telephone_and_tables_show_that_they_go_on(driver: Any, tmp_path: Path) -> None:
    page = wide_benchmark(tmp_path)
    opened(driver, page, 390)
    outside = """const seen = [...document.querySelectorAll('.drawing svg')].filter(svg => svg.clientWidth);
      const marks = seen.flatMap(svg => [...svg.querySelectorAll('.mark, text')].map(mark => [svg.parentElement, mark]));
      return [seen.length, marks.filter(([box, mark]) => mark.getBoundingClientRect().right > box.getBoundingClientRect().right
        || mark.getBoundingClientRect().left < box.getBoundingClientRect().left).length]"""
    assert driver.execute_script(outside) == [4, 0]
    assert driver.execute_script(CUT, ".scroll:has(table)") == 3  # the shades at their edges say so
    row = "const c = getComputedStyle(document.querySelector('tbody th')); return [c.borderTopWidth, c.position]"
    assert driver.execute_script(row) == ["1px", "sticky"]
    # Collapsed borders belong to the table and do not stay with a cell that does.
    assert driver.execute_script("return getComputedStyle(document.querySelector('table')).borderCollapse") == "separate"


def edges(driver: Any, selector: str) -> tuple[float, float]:
    """How far a pixel at the right edge of a box is from one of its ground: before and after it was scrolled to its end."""
    found = []
    for place in (0, 10_000):
        look = """const box = document.querySelector(arguments[0]); box.scrollLeft = arguments[1];
          box.scrollIntoView({block: 'center'}); const r = box.getBoundingClientRect();
          return [Math.floor(r.right) - 4, Math.floor(r.top) + 14]"""
        x, y = driver.execute_script(look, selector, place)
        with Image.open(io.BytesIO(driver.get_screenshot_as_png())) as shot:
            found.append(float(np.abs(np.array(shot.convert("L"))[y, x - 20 : x : 19].astype(float) @ [1, -1])))
    return found[0], found[1]


def test_an_edge_is_shaded_until_all_is_seen(driver: Any, run: Path) -> None:
    opened(driver, run / "report.html", 390)
    before, after = edges(driver, "#scores .scroll")
    assert before > 20
    assert after < 2


def test_pointing_at_a_map_shows_the_image_in_both(driver: Any, run: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    opened(driver, run / "report.html", 1280)
    first, second = driver.find_elements(By.CSS_SELECTOR, ".map")
    mark = first.find_element(By.CSS_SELECTOR, "[data-i]")
    number = mark.get_attribute("data-i")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", first)
    settled = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
    driver.execute_async_script(settled)  # scrolling, which is told a frame later, hides what is pointed at
    ActionChains(driver).move_to_element(mark).perform()
    tip = driver.find_element(By.CSS_SELECTOR, ".tip")
    WebDriverWait(driver, 10).until(lambda _: tip.is_displayed())
    assert len(driver.find_elements(By.CSS_SELECTOR, ".mark.on")) == 2
    points = json.loads(driver.find_element(By.ID, "map-points").get_attribute("textContent"))["points"]
    assert points[int(driver.find_element(By.CSS_SELECTOR, ".mark.on").get_attribute("data-i"))][2] in tip.text
    ink = (
        "const c = document.querySelector('.tip canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return new Set(d.filter((_, i) => i % 4 < 3)).size"
    )
    assert driver.execute_script(ink) > 2, number  # a picture, not a blank
    driver.execute_script("arguments[0].focus()", second)
    ActionChains(driver).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    assert tip.is_displayed()
    assert driver.find_element(By.ID, "map-said").text
    ActionChains(driver).send_keys(Keys.ESCAPE).perform()
    assert not tip.is_displayed()


def test_colouring_by_class_and_looking_at_one(driver: Any, run: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    opened(driver, run / "report.html", 1280)
    choice = Select(driver.find_element(By.ID, "map-colour"))
    choice.select_by_value("class")
    assert len(driver.find_elements(By.CSS_SELECTOR, "#class-keys .key")) == 10
    choice.select_by_value("3")
    dimmed = len(driver.find_elements(By.CSS_SELECTOR, ".map .dim"))
    assert 0 < dimmed < len(driver.find_elements(By.CSS_SELECTOR, ".map [data-i]"))


def test_an_epoch_is_read_in_all_curves_and_commands_are_copied(driver: Any, run: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(driver, run / "report.html", 1280)
    curves = driver.find_elements(By.CSS_SELECTOR, ".curve")
    driver.execute_script("arguments[0].focus()", curves[0])
    ActionChains(driver).send_keys(Keys.ARROW_RIGHT).perform()
    read = {curve.find_element(By.CSS_SELECTOR, ".value").get_attribute("textContent").split(":")[0] for curve in curves}
    assert read == {"epoch 1"}
    button = driver.find_element(By.CSS_SELECTOR, ".copy")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    end = time.monotonic() + 5
    while button.text == "Copy" and time.monotonic() < end:
        time.sleep(0.02)
    assert button.text in ("Copied", "Selected")


def test_it_can_be_read_without_scripts(driver: Any, run: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    page = tmp_path / "plain.html"
    page.write_text(re.sub(r"<script.*?</script>", "", text_of(run / "report.html"), flags=re.S), encoding="utf-8")
    opened(driver, page, 1280)
    assert driver.execute_script("return document.documentElement.scrollWidth") == 1280
    assert not any(button.is_displayed() for button in driver.find_elements(By.CSS_SELECTOR, ".copy, .choice"))
    assert all(
        drawn.size["height"] > 100 for drawn in driver.find_elements(By.CSS_SELECTOR, "main > section > .plots svg, .map svg")
    )
