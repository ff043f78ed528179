"""Every route through a client, over real galleries: what it answers, and what it refuses."""

import io
import json
import os
import re
import shutil
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="ucdir serve needs the extra 'serve'")
pytest.importorskip("prometheus_client", reason="ucdir serve needs the extra 'serve'")
pytest.importorskip("python_multipart", reason="ucdir serve needs the extra 'serve'")
pytest.importorskip("httpx2", reason="the test client needs httpx2")

from fastapi.testclient import TestClient

from ucdir.gallery.folder import Gallery
from ucdir.model.confidence import Confidence, Curve
from ucdir.model.runtime import load_query_encoder
from ucdir.web import galleries as catalogue
from ucdir.web.app import create_app
from ucdir.web.galleries import Served
from ucdir.web.request_limits import Limits
from ucdir.web.security import CONTENT_POLICY, LOOPBACK_NAMES, Rules
from ucdir.web.service import build_service
from ucdir.web.static_files import FOLDER

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder(encoder_folder):
    return load_query_encoder(encoder_folder, "cpu", "float32", "torch")


@contextmanager
def client_of(encoder, *folders, in_memory=catalogue.IN_MEMORY, **parts):
    served = [Served(folder.name, Gallery.load(folder), in_memory) for folder in folders]
    service = build_service(served, {encoder.fingerprint: encoder}, **parts)
    try:
        with TestClient(create_app(service)) as client:
            client.service = service
            yield client
    finally:
        service.close()


@pytest.fixture(scope="module")
def client(encoder, galleries):
    with client_of(encoder, *galleries, limits=Limits(max_bytes=2_000_000, max_pixels=1_000_000)) as client:
        yield client


@pytest.fixture
def own(encoder, own_gallery, monkeypatch):
    """A client of a gallery that may be changed; it looks for changes at every request."""
    monkeypatch.setattr(catalogue, "CHECK_SECONDS", 0)
    with client_of(encoder, own_gallery) as client:
        yield client


def picture(kind="PNG", size=(60, 40), **settings):
    content = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(content, kind, **settings)
    return content.getvalue()


def search(client, image=None, status=200, **fields):
    """The JSON that a search is answered with."""
    files = {"image": ("query.png", image, "image/png")} if image is not None else {"": ("", b"")}
    answer = client.post("/search", data=fields, files=files) if image is not None else form(client, fields)
    assert answer.status_code == status, answer.text
    return answer.json()


def form(client, fields):
    return client.post("/search", files={name: (None, str(value)) for name, value in fields.items()})


def detail(answer, status):
    """The sentence of a refusal."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert list(content) == ["detail"]
    assert "\n" not in content["detail"]
    assert content["detail"].endswith(".")
    return content["detail"]


def some_id(client, **fields):
    return search(client, picture(), k=1, **fields)["hits"][0]["id"]


# What is there


def test_health_and_galleries(client, galleries):
    assert client.get("/health").json() == {
        "status": "ok",
        "version": __import__("ucdir").__version__,
        "galleries": 2,
        "token_required": False,
        "problems": [],
    }
    listed = client.get("/galleries").json()
    assert [entry["name"] for entry in listed["galleries"]] == ["everything", "photos"]
    everything = listed["galleries"][0]
    assert everything["count"] == 40
    assert everything["domains"] == [{"name": "photo", "count": 20}, {"name": "drawing", "count": 20}]
    assert everything["encoder"] == Gallery.load(galleries[0]).info.fingerprint
    assert listed["limits"] == {"max_bytes": 2_000_000, "max_pixels": 1_000_000, "max_k": 200}


@pytest.mark.skipif(not (FOLDER / "index.html").exists(), reason="the page is not in this tree")
def test_the_page_and_its_parts(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    again = client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/static/no.js", "/static/../app.py", "/static/..%2fapp.py", "/static/a%00b", "/docs", "/redoc"]
)
def test_nothing_else_is_served(client, path):
    assert detail(client.get(path), 404) == "there is nothing at this address."


def test_every_answer_carries_the_headers_that_bind_browsers(client):
    for answer in (client.get("/health"), client.get("/nothing"), client.post("/search"), client.get("/images/x")):
        assert answer.headers["content-security-policy"] == CONTENT_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_metrics_name_routes_and_never_ids(client):
    known = some_id(client)
    client.get(f"/images/{known}")
    client.request("BREW", "/coffee")
    text = client.get("/metrics").text
    assert 'ucdir_requests_total{method="GET",route="/images/{id}",status="200"}' in text
    assert 'method="other",route="other",status="405"' in text or 'method="other",route="other",status="404"' in text
    assert known not in text
    assert "ucdir_searches_in_progress 0.0" in text


# Searching


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_an_upload_finds_what_the_gallery_finds(client, encoder, galleries, kind):
    content = picture(kind)
    answer = search(client, content, k=3)
    assert (answer["gallery"], answer["searched"]) == ("everything", 40)
    assert answer["query"] == {
        "kind": "upload",
        "image_id": None,
        "width": 60,
        "height": 40,
        "domain": None,
        "is_strange": False,
    }
    from ucdir.images.evaluation_view import evaluation_view
    from ucdir.images.opening import open_rgb

    row = encoder(evaluation_view(open_rgb(io.BytesIO(content)), encoder.image_size)[None]).rows
    expected = Gallery.load(galleries[0]).search(row, 3).hits[0]
    assert [hit["id"] for hit in answer["hits"]] == [hit.image.id for hit in expected]
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
    assert [hit["similarity"] for hit in answer["hits"]] == pytest.approx([hit.similarity for hit in expected], abs=1e-5)


def test_an_indexed_file_finds_itself_with_its_facts(client, drawn):
    path = drawn / "photo" / "fish" / "0002.jpg"
    (hit,) = search(client, path.read_bytes(), k=1)["hits"]
    assert hit["similarity"] == pytest.approx(1, abs=1e-4)
    facts = {"domain": "photo", "class": "fish", "name": "0002.jpg", "folder": "fish", "width": 96, "height": 96}
    assert {name: hit[name] for name in facts} == facts
    assert hit["bytes"] == path.stat().st_size
    assert hit["image"] == f"/images/{hit['id']}?gallery=everything"
    assert client.get(hit["image"]).content == path.read_bytes()
    assert client.get(hit["thumbnail"]).headers["content-type"] == "image/jpeg"


def test_more_like_this_leaves_the_image_out(client, galleries):
    known = some_id(client)
    answer = search(client, image_id=known, k=200)
    assert answer["query"]["kind"] == "image"
    assert answer["query"]["image_id"] == known
    assert len(answer["hits"]) == 39
    assert known not in [hit["id"] for hit in answer["hits"]]
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, 40))
    other = "drawing" if answer["hits"][0]["domain"] == "photo" else "photo"
    assert len(search(client, image_id=known, k=2, domain=other)["hits"]) == 2


def test_gallery_domain_and_folder_narrow_the_search(client):
    assert search(client, picture(), gallery="photos")["searched"] == 20
    assert len(search(client, picture())["hits"]) == 24
    answer = search(client, picture(), domain="drawing", k=50)
    assert {hit["domain"] for hit in answer["hits"]} == {"drawing"}
    answer = search(client, picture(), under="fish", k=50)
    assert {(hit["domain"], hit["folder"]) for hit in answer["hits"]} == {("photo", "fish"), ("drawing", "fish")}
    assert answer["searched"] == len(answer["hits"])


def test_empty_fields_count_as_not_given(client):
    """As a browser sends a form that was not filled in."""
    files = {"image": ("q.png", picture()), "domain": (None, ""), "under": (None, ""), "image_id": (None, ""), "k": (None, "")}
    assert client.post("/search", files=files).status_code == 200
    files = {"image": ("", b"", "application/octet-stream"), "image_id": (None, some_id(client))}
    assert client.post("/search", files=files).status_code in (200, 422)


# Refusals of a search


@pytest.mark.parametrize("k", ["0", "-1", "201", "1000000000", "NaN", "1e1", "٣", "1.0", " 5", "0x10", "\0"])
def test_k_out_of_range(client, k):
    assert "expected a whole number from 1 to 200" in search(client, picture(), 422, k=k)["detail"]


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"gallery": "gone"}, 404, "no gallery is called 'gone'. Choose one of: 'everything', 'photos'."),
        ({"gallery": "../photos"}, 404, "no gallery is called"),
        ({"domain": "clay"}, 404, "this gallery has no domain 'clay', only 'photo', 'drawing'."),
        ({"domain": "photo\0"}, 404, "this gallery has no domain"),
        ({"under": "nowhere"}, 404, "has no image below 'nowhere'"),
        ({"under": "猫 🐈"}, 404, "has no image below"),
        ({"under": "../.."}, 422, "is not a folder within a domain"),
        ({"under": "/etc"}, 422, "is not a folder within a domain"),
        ({"under": "a\0b"}, 422, "is not a folder within a domain"),
        ({"image_id": "0" * 24}, 422, "both of image and image_id given"),
        ({"galery": "photos"}, 422, "field 'galery' is unknown"),
        ({"under": "x" * 5000}, 400, "the form cannot be read: part exceeded maximum size"),
    ],
)
def test_fields_that_cannot_be_used(client, fields, status, sentence):
    assert sentence in search(client, picture(), status, **fields)["detail"]


@pytest.mark.parametrize(
    "wanted", ["0" * 24, "..", "../../etc/passwd", "é", "\0", "a" * 4000, "-1", "0x" + "0" * 22, "' or 1=1"]
)
def test_ids_that_are_not_there(client, wanted):
    assert "has no image" in search(client, None, 404, image_id=wanted)["detail"]


def png_header(width, height):
    """A PNG that promises so many pixels and holds none."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        chunk(kind, data) for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zip_bomb():
    """A small PNG with a text of 300 MB in 300 KB."""
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 300_000_000, 9))
    plain = picture()
    return plain[:33] + text + plain[33:]


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        (b"hello", 415, "not an image"),
        (b"", 415, "empty file"),
        (b"\xff\xd8\xff\xe0 no more", 415, "truncated"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "an SVG drawing"),
        (b"<!doctype html><p>hello", 415, "a web page"),
        (picture()[:100], 415, "the image cannot be used"),
        (png_header(50_000, 50_000), 422, "more pixels than the limit"),
        (png_header(1001, 1000), 422, "1001 x 1000 pixels is more than the limit of 1,000,000"),
        (png_header(100, 100), 415, "the image cannot be used"),
        (b"\0" * 2_000_001, 413, "more than 2,000,000 bytes"),
        (b"\0" * 3_000_000, 413, "more than 2,000,000 bytes"),
    ],
)
def test_uploads_that_cannot_be_used(client, content, status, sentence):
    assert sentence in search(client, content, status)["detail"]
    assert client.get("/health").json()["status"] == "ok"


def test_a_zip_bomb_is_not_unpacked(client):
    answer = client.post("/search", files={"image": ("bomb.png", zip_bomb())})
    assert answer.status_code in (200, 415)


def test_an_image_of_one_row(client):
    """Scaled to its shorter side it would have 55 x 55 million pixels."""
    content = io.BytesIO()
    Image.new("RGB", (1_000_000, 1)).save(content, "PNG")
    assert search(client, content.getvalue(), k=1)["query"]["width"] == 1_000_000


def test_the_first_picture_of_an_animation_counts(client):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue", "green")]
    content = io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    still = io.BytesIO()
    frames[0].save(still, "PNG")
    moving, resting = (search(client, each.getvalue(), k=5)["hits"] for each in (content, still))
    assert [hit["id"] for hit in moving] == [hit["id"] for hit in resting]


def raw(client, body, kind):
    return client.post("/search", content=body, headers={"Content-Type": kind} if kind else {})


def test_bodies_that_are_no_form(client):
    assert "is not a form" in detail(raw(client, b"{}", "application/json"), 415)
    assert "is not a form" in detail(raw(client, b"", None), 415)
    assert "is not a form" in detail(raw(client, b"image_id=1", "application/x-www-form-urlencoded"), 415)
    assert "is not a form" in detail(raw(client, b"x", "image/png"), 415)
    assert "boundary" in detail(raw(client, b"--x\r\n", "multipart/form-data"), 400)
    assert detail(raw(client, b"no form at all", "multipart/form-data; boundary=x"), 400)
    assert "ends before its last boundary" in detail(raw(client, b"", "multipart/form-data; boundary=x"), 400)
    half = b'--x\r\nContent-Disposition: form-data; name="image_id"\r\n\r\nabc\r\n--x\r\n'
    assert "ends before its last boundary" in detail(raw(client, half, "multipart/form-data; boundary=x"), 400)


def test_parts_that_are_no_fields(client):
    nameless = b"--x\r\nContent-Type: text/plain\r\n\r\nhello\r\n--x--\r\n"
    assert "the form cannot be read" in detail(raw(client, nameless, "multipart/form-data; boundary=x"), 400)
    assert "neither" in detail(raw(client, b"--x--\r\n", "multipart/form-data; boundary=x"), 422)
    twice = [("k", (None, "1")), ("k", (None, "2")), ("image", ("a.png", picture()))]
    assert detail(client.post("/search", files=twice), 422) == "field 'k' is given twice. Give it once."
    images = [("image", ("a.png", picture())), ("image", ("b.png", picture()))]
    assert "too many files" in detail(client.post("/search", files=images), 400)
    assert "is text, expected a file" in detail(form(client, {"image": "hello"}), 422)
    assert "is a file, expected text" in detail(client.post("/search", files={"image_id": ("a.png", picture())}), 422)
    assert "neither" in detail(form(client, {"k": 3}), 422)


def test_a_full_queue_asks_to_come_back(encoder, galleries):
    with client_of(encoder, galleries[0], queue=1) as client:
        assert search(client, picture())["hits"]
        with client.service.places.place():
            refused = client.post("/search", files={"image": ("a.png", picture())})
            assert "too many searches" in detail(refused, 503)
            assert int(refused.headers["retry-after"]) >= 1
            assert client.get("/health").status_code == 200
        assert search(client, picture())["hits"]


def test_many_at_once_get_the_answers_of_one_at_a_time(client, drawn):
    contents = [path.read_bytes() for path in sorted(drawn.rglob("*.png"))] * 2
    alone = [search(client, content, k=3)["hits"][0]["id"] for content in contents]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda content: search(client, content, k=3)["hits"][0]["id"], contents))
    assert together == alone


# Images


def find(client, name, folder):
    hits = search(client, picture(), k=200, under=folder)["hits"]
    return next(hit for hit in hits if hit["name"] == name)


def test_an_image_is_sent_as_it_lies_there(client, drawn):
    hit = find(client, "0001.png", "boat")
    content = (drawn / "drawing" / "boat" / "0001.png").read_bytes()
    answer = client.get(hit["image"])
    assert answer.content == content
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["content-disposition"] == "inline; filename*=UTF-8''0001.png"
    assert "no-cache" in answer.headers["cache-control"]
    known = client.get(hit["image"], headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
    assert (known.status_code, known.content) == (304, b"")
    head = client.head(hit["image"])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(content))
    assert head.headers["etag"] == answer.headers["etag"]


def test_thumbnails_are_small_and_kept(client):
    hit = find(client, "0001.jpg", "boat")
    for side in (64, 96, 1024):
        answer = client.get(f"{hit['thumbnail']}&side={side}")
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == (min(side, 96),) * 2
        assert client.get(f"{hit['thumbnail']}&side={side}").content == answer.content
        known = client.get(f"{hit['thumbnail']}&side={side}", headers={"If-None-Match": answer.headers["etag"]})
        assert known.status_code == 304
    assert client.service.thumbnails.size > 0
    for side in ("63", "1025", "NaN", "", "1e9", "9" * 400):
        assert "'side'" in detail(client.get(f"{hit['thumbnail']}&side={side}"), 422)


@pytest.mark.parametrize(
    "path",
    ["x", "0" * 24, "%00", "..%2f..%2fetc%2fpasswd", "%2e%2e", "é", "0" * 4000, "0x" + "0" * 22],
)
def test_images_that_are_not_there(client, path):
    assert detail(client.get(f"/images/{path}"), 404)
    assert detail(client.get(f"/images/{path}/thumbnail"), 404)


def test_images_of_a_gallery_that_is_not_there(client):
    known = some_id(client)
    assert "no gallery is called" in detail(client.get(f"/images/{known}?gallery=../x"), 404)
    other = find(client, "0001.png", "boat")["id"]
    assert "gallery 'photos' has no image" in detail(client.get(f"/images/{other}?gallery=photos"), 404)


def test_formats_that_browsers_do_not_show_are_converted(encoder, make_gallery, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.linear_gradient("L").resize((90, 60)).convert("RGB").save(folder / "Zoë 猫.tiff")
    (folder / "lies.png").write_bytes(picture("JPEG"))
    with client_of(encoder, make_gallery(tmp_path / "g", folder)) as client:
        hits = {hit["name"]: hit for hit in search(client, picture())["hits"]}
        shown = client.get(hits["Zoë 猫.tiff"]["image"])
        assert shown.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(shown.content)).size == (90, 60)
        assert shown.headers["content-disposition"] == "inline; filename*=UTF-8''Zo%C3%AB%20%E7%8C%AB.jpeg"
        assert client.get(hits["Zoë 猫.tiff"]["image"]).content == shown.content
        assert client.get(hits["lies.png"]["image"]).headers["content-type"] == "image/jpeg"


def test_files_that_changed_or_went_away(own, own_pictures):
    path = own_pictures / "photo" / "boat" / "0001.jpg"
    hit = find(own, "0001.jpg", "boat")
    content, etag = path.read_bytes(), own.get(hit["thumbnail"]).headers["etag"]
    path.write_bytes(content[:-1] + b"x")
    for address in (hit["image"], hit["thumbnail"]):
        assert "has changed since it was indexed. Run ucdir index again." in detail(own.get(address), 410)
    assert own.get(hit["thumbnail"], headers={"If-None-Match": etag}).status_code == 410
    path.write_bytes(content * 100)
    assert detail(own.get(hit["image"]), 410)
    path.unlink()
    assert "is gone" in detail(own.get(hit["image"]), 410)
    elsewhere = path.with_name("elsewhere.jpg")
    elsewhere.write_bytes(content)
    path.symlink_to(elsewhere)
    assert own.get(hit["image"]).content == content
    path.unlink()
    os.mkfifo(path)
    assert detail(own.get(hit["image"]), 410)
    path.unlink()
    path.mkdir()
    assert detail(own.get(hit["image"]), 410)


def test_all_images_moved_away(own, own_pictures):
    known = find(own, "0001.jpg", "boat")
    own_pictures.rename(own_pictures.with_name("moved"))
    assert detail(own.get(known["image"]), 410)
    assert detail(own.get(known["thumbnail"]), 410)
    assert len(search(own, picture())["hits"]) == 24
    assert len(search(own, image_id=known["id"])["hits"]) == 24


# Galleries that change


def test_an_update_is_seen(own, own_pictures, own_gallery, make_gallery):
    (own_pictures / "photo" / "new").mkdir()
    (own_pictures / "photo" / "new" / "new.png").write_bytes(picture())
    assert search(own, picture(), k=1)["searched"] == 40
    make_gallery(own_gallery)
    answer = search(own, picture(), k=1)
    assert answer["searched"] == 41
    assert answer["hits"][0]["name"] == "new.png"
    assert own.get("/galleries").json()["galleries"][0]["domains"][0] == {"name": "photo", "count": 21}
    assert own.get("/health").json()["status"] == "ok"


def spoil(gallery, how):
    """Replace the gallery by one that cannot be served, as a careless copy would."""
    spoiled = Path(shutil.copytree(gallery, gallery.with_name("spoiled")))
    document = json.loads((spoiled / "gallery.json").read_text())
    if how == "newer":
        document["format_version"] = 99
    elif how == "other encoder":
        document["fingerprint"] = "f" * 32
    elif how == "no list":
        (spoiled / "images.parquet").unlink()
    (spoiled / "gallery.json").write_text(json.dumps(document))
    gallery.rename(gallery.with_name("before"))
    spoiled.rename(gallery)


@pytest.mark.parametrize("how", ["newer", "other encoder", "no list", "removed"])
def test_a_gallery_that_was_spoiled_is_served_as_it_was(own, own_gallery, how, caplog):
    if how == "removed":
        own_gallery.rename(own_gallery.with_name("before"))
    else:
        spoil(own_gallery, how)
    assert search(own, picture())["searched"] == 40
    health = own.get("/health").json()
    assert health["status"] == "degraded"
    assert [problem["gallery"] for problem in health["problems"]] == ["own"]
    assert str(own_gallery) not in json.dumps(health)
    assert len([record for record in caplog.records if "its last good version is served" in record.message]) == 1
    shutil.rmtree(own_gallery, ignore_errors=True)
    own_gallery.with_name("before").rename(own_gallery)
    assert search(own, picture())["searched"] == 40
    assert own.get("/health").json()["status"] == "ok"


def truncate(gallery):
    with (gallery / "embeddings.npy").open("r+b") as file:
        file.truncate(200)


def test_embeddings_in_memory_outlive_their_file(own, own_gallery):
    before = search(own, picture())["hits"]
    truncate(own_gallery)
    assert search(own, picture())["hits"] == before
    assert own.get("/health").json()["status"] == "degraded"


def test_embeddings_that_are_mapped_are_not_read_once_their_file_shrank(encoder, own_gallery, make_gallery, own_pictures):
    with client_of(encoder, own_gallery, in_memory=0) as client:
        known = some_id(client)
        truncate(own_gallery)
        for answer in (client.post("/search", files={"image": ("a", picture())}), form(client, {"image_id": known})):
            assert "gallery 'own' is damaged on disk" in detail(answer, 503)
            assert "retry-after" in answer.headers
        assert client.get("/health").json()["status"] == "degraded"
        assert client.get(f"/images/{known}").status_code == 200
        shutil.rmtree(own_gallery)
        make_gallery(own_gallery, own_pictures / "photo")
        assert search(client, picture())["searched"] == 20
        assert client.get("/health").json()["status"] == "ok"


def test_a_request_keeps_the_gallery_it_began_with(encoder, own_gallery, make_gallery, own_pictures, monkeypatch):
    monkeypatch.setattr(catalogue, "CHECK_SECONDS", 0)
    served = Served("own", Gallery.load(own_gallery))
    begun = served.engine()
    (own_pictures / "photo" / "boat" / "0001.jpg").unlink()
    make_gallery(own_gallery)
    assert len(served.engine()) == 39
    row = np.array(begun.embeddings[:1])
    assert served.search(begun, row, 100).searched == 40


# Who may ask


@pytest.fixture(scope="module")
def guarded(encoder, galleries):
    with client_of(encoder, galleries[0], rules=Rules("s3cret", (*LOOPBACK_NAMES, "search.example"))) as client:
        client.base_url = "http://localhost"
        yield client


@pytest.mark.parametrize(
    "given", [None, "Bearer wrong", "Basic s3cret", "s3cret", "Bearer", "Bearer s3cretx", b"Bearer \xff\xfe"]
)
def test_without_the_token_only_the_page_and_health_answer(guarded, given):
    headers = {} if given is None else {"Authorization": given}
    for method, path in (("GET", "/galleries"), ("POST", "/search"), ("GET", "/images/x"), ("GET", "/metrics"), ("GET", "/no")):
        answer = guarded.request(method, path, headers=headers)
        assert "needs its token" in detail(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.get("/openapi.json", headers=headers).status_code == 401
    assert guarded.get("/health", headers=headers).json()["token_required"] is True
    assert guarded.get("/static/none.js", headers=headers).status_code == 404


def test_with_the_token_everything_answers(guarded):
    headers = {"Authorization": "bearer s3cret"}
    assert guarded.get("/galleries", headers=headers).status_code == 200
    described = guarded.get("/openapi.json", headers=headers).json()
    assert described["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    assert described["paths"]["/search"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in described["paths"]["/health"]["get"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("SEARCH.example", 200), ("evil.example", 421), ("", 421)],
)
def test_only_names_of_this_service_are_answered(guarded, host, status):
    assert guarded.get("/health", headers={"Host": host}).status_code == status


def test_a_page_of_another_site_cannot_search(client):
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert "another site" in detail(client.post("/search", headers=headers), 403)
    assert client.get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("origin", "site", "status"),
    [
        ("http://evil.example", None, 403),
        ("null", None, 403),
        ("http://testserver.evil.example", None, 403),
        ("http://testserver:1", None, 403),
        ("http://TestServer", None, 415),
        ("https://behind.a.proxy", "same-origin", 415),
        ("http://testserver", "same-site", 403),
        (None, None, 415),
    ],
)
def test_a_browser_that_tells_only_the_origin_is_understood(client, origin, site, status):
    """Over plain HTTP in a local network no browser sends Sec-Fetch-Site."""
    given = {"Origin": origin, "Sec-Fetch-Site": site}
    answer = client.post("/search", headers={name: value for name, value in given.items() if value is not None})
    assert answer.status_code == status


def test_a_long_method_is_neither_logged_nor_answered_whole(client, caplog):
    with caplog.at_level("INFO", "ucdir.web"):
        assert detail(client.request("A" * 2000, "/health"), 405) == f"{'A' * 20} is not for this address."
    assert all(len(record.getMessage()) < 100 for record in caplog.records)


def test_the_log_holds_no_queries_and_cannot_be_forged(client, caplog):
    with caplog.at_level("INFO", "ucdir.web"):
        client.get("/images/%0a2026%20POST%20forged?gallery=private")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "ucdir.web"]
    assert re.fullmatch(r"GET /images/%0a2026%20POST%20forged 404 \d+ ms", line)


# Encoders that know domains


@pytest.fixture(scope="module")
def knowing(drawn, tmp_path_factory):
    """A client of a gallery of photographs, whose encoder knows the domains photo and drawing."""
    from ucdir.commands.index import index
    from ucdir.commands.train import train
    from ucdir.settings import load_settings

    folder = tmp_path_factory.mktemp("knowing")
    small = {"encoder.backbone": "timm/test_resnet", "encoder.weights": "none", "encoder.image_size": 32}
    settings = load_settings(assignments={**small, "run.device": "cpu", "run.precision": "float32"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ucdir.learn.aligned_run.MIN_IMAGES", 4)
        patch.setattr("ucdir.learn.aligned_run.MIN_AGREEMENT", -1.0)
        train([str(drawn / "photo"), str(drawn / "drawing")], folder / "run", settings, report=False)
    index(folder / "run", [str(drawn / "photo")], folder / "photos", device="cpu", precision="float32", export=False)
    encoder = load_query_encoder(folder / "run", "cpu", "float32", "torch")
    encoder.confidence = Confidence(Curve(0.3, 0.2), Curve(0.5, 0.2))
    with client_of(encoder, folder / "photos") as client:
        yield client


def test_an_upload_is_searched_as_the_domain_that_it_looks_like_or_is_said_to_be(knowing, drawn):
    assert knowing.get("/galleries").json()["galleries"][0]["known_domains"] == ["photo", "drawing"]
    content = next((drawn / "drawing").rglob("*.png")).read_bytes()
    told = {name: search(knowing, content, **{"as": name}) for name in ("photo", "drawing")}
    assert all(answer["query"]["domain"] == name for name, answer in told.items())
    assert told["photo"]["hits"] != told["drawing"]["hits"]
    free = search(knowing, content)
    assert free["hits"] == told[free["query"]["domain"]]["hits"]
    assert "not on domain 'print'" in search(knowing, content, status=404, **{"as": "print"})["detail"]


def test_a_domain_is_refused_where_the_encoder_knows_none(client):
    assert "does not distinguish domains" in search(client, picture(), status=404, **{"as": "photo"})["detail"]


def test_a_query_moves_toward_its_hits_unless_this_very_object_is_looked_for(knowing, drawn):
    (gallery,) = knowing.get("/galleries").json()["galleries"]
    content = next((drawn / "drawing").rglob("*.png")).read_bytes()
    moved, still = (search(knowing, content, **{"as": "drawing", **fields}) for fields in ({}, {"expand": "0"}))
    assert (moved["expand"], still["expand"]) == (gallery["expand"], 0)
    assert gallery["expand"] > 0
    assert moved["hits"][0]["similarity"] > still["hits"][0]["similarity"]
    for wrong in ("-1", "201", "x"):
        assert "expected a whole number from 0 to 200" in search(knowing, content, status=422, expand=wrong)["detail"]


def test_hits_have_a_confidence_and_unsure_ones_can_be_left_out(knowing, drawn):
    assert knowing.get("/galleries").json()["galleries"][0]["knows_confidence"] is True
    content = next((drawn / "drawing").rglob("*.png")).read_bytes()
    answer = search(knowing, content, **{"as": "drawing"})
    chances = [hit["confidence"] for hit in answer["hits"]]
    assert all(0 <= chance <= answer["confidence"] <= 1 for chance in chances)
    least = sorted(chances)[len(chances) // 2]
    found = search(knowing, content, **{"as": "drawing", "min_confidence": f"{least:.6f}"})
    assert len(found["hits"]) < len(answer["hits"])
    for wrong in ("1.1", "-0.1", "half"):
        assert "expected a number from 0 to 1" in search(knowing, content, status=422, min_confidence=wrong)["detail"]


def test_a_confidence_that_nobody_knows_is_null_and_cannot_be_asked_for(client):
    answer = search(client, picture())
    assert answer["confidence"] is None
    assert {hit["confidence"] for hit in answer["hits"]} == {None}
    assert "no calibrated confidence" in search(client, picture(), status=422, min_confidence="0.5")["detail"]
