"""A gallery in Milvus answers as one in a folder does: with a real Milvus Lite, in this process and in others."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw

pytest.importorskip("pymilvus", reason="pymilvus is not installed: pip install 'ucdir[milvus]'")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed: pip install 'ucdir[milvus]'")

from ucdir.commands.index import index
from ucdir.commands.search import search
from ucdir.documents import to_json
from ucdir.errors import UcdirError, UsageError
from ucdir.gallery.ask import SearchOptions, ask
from ucdir.gallery.folder import Gallery, GalleryFolder
from ucdir.gallery.interface import GalleryImage, GalleryInfo, Where, image_table
from ucdir.gallery.milvus import MilvusGallery, MilvusWriter
from ucdir.gallery.milvus_store import MAX_HITS, Address, Store, literal
from ucdir.model.confidence import Confidence, Curve
from ucdir.model.encoder import build_encoder

pytestmark = pytest.mark.slow

NASTY = (
    "a\"b'c",
    "back\\slash",
    "50%_off",
    "_",
    "%",
    "ünïcode \N{SNOWMAN} 図",
    "new\nline\ttab",
    "a",
    "a b",
    "a-b",
    "a.b",
    "A",
)


def save_picture(file, number, background="white"):
    picture = Image.new("RGB", (48, 36), background)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((number, number, 14 + 3 * number, 12 + 2 * number), fill=(20 * number, 250 - 20 * number, 128))
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoders") / "run" / "encoder"
    build_encoder("torchvision/mobilenet_v2", "none", 48).save(folder)
    return folder


@pytest.fixture
def collection(tmp_path):
    """Two domains: left with six images in two class folders, right with three; one of left is broken."""
    for number in range(6):
        save_picture(tmp_path / "left" / ("cat" if number < 3 else "dog") / f"{number}.png", number)
    for number in range(3):
        save_picture(tmp_path / "right" / f"{number}.png", number, background="navy")
    (tmp_path / "left" / "dog" / "broken.png").write_bytes(b"no image at all")
    return tmp_path


@pytest.fixture
def both(collection, encoder):
    """both(*sources, **settings) indexes the same into a folder and into Milvus, and gives both results."""

    def run(*sources, **settings):
        exactly = {"device": "cpu", "precision": "float32", **settings}
        given = [str(collection / source) for source in sources]
        folder = index(encoder, given, collection / "gallery", **exactly)
        return folder, index(encoder, given, Path("gallery"), engine=f"milvus:{collection / 'shop.db'}", **exactly)

    return run


def opened(collection):
    return Gallery.load(collection / "gallery"), MilvusGallery.load(str(collection / "shop.db"), "gallery")


def same_answers(one, other):
    """The same hits with the same similarities, in the same order."""
    assert [[hit.image for hit in hits] for hits in one.hits] == [[hit.image for hit in hits] for hits in other.hits]
    for hits, others in zip(one.hits, other.hits, strict=True):
        np.testing.assert_allclose([hit.similarity for hit in hits], [hit.similarity for hit in others], rtol=0, atol=1e-12)
    assert one.searched == other.searched


def same_galleries(collection):
    """Everything an engine answers is that of the folder; returns both."""
    folder, milvus = opened(collection)
    assert (len(milvus), milvus.name, milvus.domains()) == (len(folder), folder.name, folder.domains())
    assert replace(milvus.info, created="", updated="") == replace(folder.info, created="", updated="")
    there = MilvusWriter(milvus.uri, "gallery").read()
    assert there is not None
    _, images, rows = there
    by_id = np.argsort(folder.images["id"].to_pylist())  # Milvus keeps no order of its own
    assert images["path"].to_pylist() == folder.images["path"].take(by_id).to_pylist()
    assert images["sha256"].to_pylist() == folder.images["sha256"].take(by_id).to_pylist()
    np.testing.assert_allclose(rows(np.arange(len(folder))), folder.embeddings[by_id], rtol=0, atol=1e-6)
    queries = rng_rows(5, milvus.info.dim)
    for k in (1, 3, 100):
        assert [[hit.image.path for hit in hits] for hits in milvus.search(queries, k).hits] == [
            [hit.image.path for hit in hits] for hits in folder.search(queries, k).hits
        ]
    return folder, milvus


def rng_rows(count, dim, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def drawn_images(count, domain="left", folder="/pictures/left"):
    return [
        GalleryImage(
            Path(f"{folder}/{row // 10}/{row}.png"), domain, f"{row:064x}", 20, 10, 99, "cat" if row % 2 else None, row
        )
        for row in range(count)
    ]


def drawn_info(count, dim, sources=("left",)):
    named = {name: f"/pictures/{name}" for name in sources}
    return GalleryInfo("3f9c" * 8, "run/encoder", "float32", dim, count, "2026-01-01", "2026-01-02", named, ())


def write(place, images, rows, sources=("left",)):
    with place.lock():
        place.write(drawn_info(len(images), rows.shape[1], sources), image_table(images), lambda positions: rows[positions])


@pytest.fixture
def pair(tmp_path):
    """pair(images, rows, sources) writes them into a folder and into Milvus, and opens both."""

    def make(images, rows, sources=("left",)):
        write(GalleryFolder(tmp_path / "gallery"), images, rows, sources)
        write(MilvusWriter(str(tmp_path / "shop.db"), "gallery"), images, rows, sources)
        return opened(tmp_path)

    return make


def in_a_process(code, *arguments):
    """A Python that runs this code; GLIBC and the others as here."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ucdir(*arguments):
    return subprocess.run([sys.executable, "-m", "ucdir", *map(str, arguments)], capture_output=True, text=True, check=False)


# index and search


def test_index_and_search_answer_as_the_folder_does(collection, both, encoder):
    folder_result, milvus_result = both("left", "right")
    assert (milvus_result.count, milvus_result.domains, milvus_result.changes) == (
        folder_result.count,
        folder_result.domains,
        folder_result.changes,
    )
    assert [error.path for error in milvus_result.unreadable] == [error.path for error in folder_result.unreadable]
    same_galleries(collection)
    for settings in (
        {},
        {"k": 3},
        {"domain": "right"},
        {"under": "cat"},
        {"domain": "left", "under": str(collection / "left/dog")},
    ):
        at = {"device": "cpu", "precision": "float32", "k": 50, **settings}
        answered = search(collection / "gallery", collection / "left", **at)
        again = search(Path("gallery"), collection / "left", engine=f"milvus:{collection / 'shop.db'}", **at)
        assert again.searched == answered.searched
        for one, other in zip(answered.queries, again.queries, strict=True):
            assert [hit.image.path for hit in other.hits] == [hit.image.path for hit in one.hits]
            similarities = [hit.similarity for hit in one.hits]
            np.testing.assert_allclose([hit.similarity for hit in other.hits], similarities, rtol=0, atol=1e-6)


def test_what_was_added_changed_moved_removed_and_dropped_is_followed(collection, both):
    both("left", "right")
    save_picture(collection / "left" / "ant" / "9.png", 9)
    save_picture(collection / "left" / "cat" / "1.png", 11)
    (collection / "left" / "cat" / "0.png").rename(collection / "left" / "dog" / "moved.png")
    (collection / "right" / "2.png").unlink()
    folder_result, milvus_result = both()
    assert milvus_result.changes == folder_result.changes
    assert (milvus_result.changes.added, milvus_result.changes.changed, milvus_result.changes.moved) == (1, 1, 1)
    assert (milvus_result.changes.removed, milvus_result.changes.embedded) == (1, 2)
    same_galleries(collection)
    (collection / "left" / "cat" / "2.png").unlink()
    both("left")
    same_galleries(collection)
    both(drop=["left"])
    _, milvus = same_galleries(collection)
    assert milvus.domains() == {"right": 2}
    assert not list(collection.glob(".*journal"))


def test_files_that_exchange_their_content_exchange_their_embeddings(collection, both):
    both("left", "right")
    one, other = collection / "left" / "cat" / "0.png", collection / "right" / "1.png"
    one.rename(collection / "aside"), other.rename(one), (collection / "aside").rename(other)
    _, result = both()
    assert (result.changes.changed, result.changes.embedded) == (2, 0)
    same_galleries(collection)


def test_an_index_without_changes_writes_nothing_and_an_open_gallery_sees_the_next(collection, both):
    both("left")
    _, milvus = opened(collection)
    for file in collection.rglob("*.png"):
        os.utime(file, (1, 1))
    time.sleep(2.1)  # what was touched just now is not trusted, and noted again
    both("left")
    first = milvus.current()
    assert first is not milvus
    both("left")
    assert first.current() is first
    save_picture(collection / "left" / "new.png", 8)
    both("left")
    second = first.current()
    assert (len(first), len(second)) == (6, 7)
    assert second.current() is second


def test_more_like_this(collection, both):
    both("left", "right")
    folder, milvus = opened(collection)
    wanted = folder.image(4)
    assert milvus.find(wanted.id) == milvus.search(np.array(folder.embeddings[4:5]), 1).hits[0][0].image
    assert milvus.find(wanted.id).path == wanted.path
    row = milvus.embedding(wanted.id)
    assert (row.shape, row.dtype) == ((milvus.info.dim,), np.float32)
    np.testing.assert_allclose(row, folder.embedding(wanted.id), rtol=0, atol=1e-6)
    for nobody in ("0" * 24, "", "zz", '" or id != "', "\0"):
        assert milvus.find(nobody) is None
        assert milvus.embedding(nobody) is None


# search


def test_random_rows_duplicates_and_ties(pair):
    rows = rng_rows(400, 16)
    rows[100:140] = rows[7]
    folder, milvus = pair(drawn_images(400), rows)
    queries = np.concatenate([rng_rows(30, 16, seed=1), rows[5:9]])
    for k in (1, 10, 399, 400, 5000):
        same_answers(milvus.search(queries, k), folder.search(queries, k))
    with pytest.raises(UsageError, match="k=0: expected 1 or more"):
        milvus.search(queries, 0)


def test_queries_that_ask_again_get_the_answers_of_a_folder(pair):
    folder, milvus = pair(drawn_images(200), rng_rows(200, 16))
    queries = rng_rows(5, 16, seed=1)
    near, there = (gallery.neighbourhood(queries, 7) for gallery in (milvus, folder))
    np.testing.assert_allclose(near.similarity, there.similarity, rtol=0, atol=1e-6)
    np.testing.assert_allclose(near.rows, there.rows, rtol=0, atol=1e-6)
    way = SearchOptions(50, Confidence(Curve(0.3, 0.1), Curve(0.4, 0.1)))
    found, expected = (ask(gallery, queries, 10, way=way) for gallery in (milvus, folder))
    assert found.confidence == pytest.approx(expected.confidence, abs=1e-5)
    for one, other in zip(found.hits, expected.hits, strict=True):
        assert [hit.image.id for hit in one] == [hit.image.id for hit in other]
        assert [hit.confidence for hit in one] == pytest.approx([hit.confidence for hit in other], abs=1e-5)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_equal_hits_are_ordered_by_id(pair, k):
    rows, images = rng_rows(100, 8), drawn_images(100)
    rows[40:] = rows[40]
    _, milvus = pair(images, rows)
    found = [hit.image.id for hit in milvus.search(rows[40:41], k).hits[0]]
    assert found == sorted(image.id for image in images[40:])[:k]


def test_many_queries_go_in_batches(pair):
    folder, milvus = pair(drawn_images(300), rng_rows(300, 8))
    queries = rng_rows(130, 8, seed=2)
    assert MAX_HITS // 300 < 130
    same_answers(milvus.search(queries, 300), folder.search(queries, 300))


def test_more_than_milvus_finds_at_once_is_refused(tmp_path):
    count = MAX_HITS + 10
    place = MilvusWriter(str(tmp_path / "shop.db"), "gallery")
    write(place, drawn_images(count), rng_rows(count, 4))
    milvus = MilvusGallery.load(str(tmp_path / "shop.db"), "gallery")
    with pytest.raises(UsageError, match=rf"k={count}: Milvus finds {MAX_HITS} images at most\. Give --k {MAX_HITS}"):
        milvus.search(rng_rows(1, 4), 10**6)
    assert len(milvus.search(rng_rows(1, 4), MAX_HITS).hits[0]) == MAX_HITS


def test_names_that_mean_something_in_a_filter(pair):
    images = [
        GalleryImage(Path(f"/pictures/{domain}/{folder}/{name}.png"), domain, "ab" * 32, 20, 10, 99, folder)
        for domain in ('le"ft\\', "r%_t")
        for folder in NASTY
        for name in ("1", folder)
    ]
    sources = tuple(dict.fromkeys(image.domain for image in images))
    folder, milvus = pair(images, rng_rows(len(images), 8), sources)
    queries = rng_rows(2, 8, seed=3)
    for under in NASTY:
        for domain in (None, *sources):
            found = milvus.search(queries, 100, Where(domain, under))
            assert found.searched == (2 if domain else 4)
            same_answers(found, folder.search(queries, 100, Where(domain, under)))
    for domain in sources:
        same_answers(milvus.search(queries, 9, Where(domain)), folder.search(queries, 9, Where(domain)))
    same_answers(milvus.search(queries, 9, Where(None, ".")), folder.search(queries, 9, Where(None, ".")))
    for image in images:
        assert milvus.find(image.id) == image


@pytest.mark.parametrize("where", [Where("up"), Where("left", "no such"), Where(None, "no such"), Where(None, "../left")])
def test_what_is_not_there_is_refused_as_in_a_folder(pair, where):
    folder, milvus = pair(drawn_images(20), rng_rows(20, 8))
    with pytest.raises(UsageError) as expected:
        folder.search(rng_rows(1, 8), 3, where)
    with pytest.raises(UsageError) as caught:
        milvus.search(rng_rows(1, 8), 3, where)
    assert str(caught.value) == str(expected.value)


def test_literals():
    assert literal('a"b\\c\n%_') == '"a\\"b\\\\c\\n%_"'


# writing


def test_only_the_difference_is_sent(tmp_path, monkeypatch):
    images, rows = drawn_images(50), rng_rows(50, 8)
    place = MilvusWriter(str(tmp_path / "shop.db"), "gallery")
    write(place, images[:40], rows[:40])
    sent = []
    put = Store.put
    monkeypatch.setattr(Store, "put", lambda store, records, part: (sent.extend(records), put(store, records, part)))
    write(place, [*images[45:], *images[:40]], np.concatenate([rows[45:], rows[:40]]))
    assert len(sent) == 5
    _, there, found = place.read()
    expected = image_table([*images[45:], *images[:40]])
    by_id = np.argsort(expected["id"].to_pylist())
    assert there.equals(expected.take(by_id))
    assert np.array_equal(found(np.arange(45)), np.concatenate([rows[45:], rows[:40]])[by_id])
    sent.clear()
    write(place, images[2:40], rows[2:40])
    assert sent == []
    _, there, found = place.read()
    assert there.equals(image_table(images[2:40]).sort_by("id"))
    by_id = 2 + np.argsort(image_table(images[2:40])["id"].to_pylist())
    assert np.array_equal(found(np.array([3, 0, 3])), rows[by_id[[3, 0, 3]]])


def test_overwrite_takes_another_encoder_and_other_lengths(collection, encoder, both):
    both("left")
    torch.manual_seed(1)
    build_encoder("torchvision/mobilenet_v2", "none", 48, dim=16).save(collection / "other")
    sources, engine = [str(collection / "right")], f"milvus:{collection / 'shop.db'}"
    with pytest.raises(UcdirError, match=r"'gallery' was indexed with encoder .*--engine milvus:.*shop.db --overwrite"):
        index(collection / "other", sources, Path("gallery"), engine=engine, device="cpu")
    index(collection / "other", sources, Path("gallery"), engine=engine, device="cpu", overwrite=True)
    milvus = MilvusGallery.load(str(collection / "shop.db"), "gallery")
    assert (milvus.domains(), milvus.info.sources) == ({"right": 3}, {"right": str(collection / "right")})


def test_embeddings_of_another_encoder_are_never_kept(tmp_path, monkeypatch):
    """Not even when the index that was to throw them away ended before it could."""
    old, new, images = rng_rows(5, 8), rng_rows(5, 8, seed=1), drawn_images(5)
    place = MilvusWriter(str(tmp_path / "shop.db"), "gallery")
    write(place, images, old)
    info = replace(drawn_info(5, 8), fingerprint="81aa" * 8)
    with monkeypatch.context() as broken:
        broken.setattr(Store, "create", lambda store, dim: (_ for _ in ()).throw(UcdirError("the power went")))
        with pytest.raises(UcdirError, match="the power went"):
            replace(place, overwrite=True).write(info, image_table(images), lambda positions: new[positions])
    with pytest.raises(UcdirError, match="is being written"):
        MilvusGallery.load(place.uri, "gallery")
    assert place.read() is None
    place.write(info, image_table(images), lambda positions: new[positions])
    milvus = MilvusGallery.load(place.uri, "gallery")
    assert [milvus.embedding(image.id).tolist() for image in images] == new.tolist()


def test_galleries_share_a_database(tmp_path):
    for number, name in enumerate(("one", "two"), start=3):
        write(MilvusWriter(str(tmp_path / "shop.db"), name), drawn_images(number), rng_rows(number, number))
    for number, name in enumerate(("one", "two"), start=3):
        assert len(MilvusGallery.load(str(tmp_path / "shop.db"), name)) == number
    with pytest.raises(UcdirError, match=r"gallery 'three' not found: '.*shop.db' holds 'one', 'two'\. Make one with: ucdir"):
        MilvusGallery.load(str(tmp_path / "shop.db"), "three")


def test_a_long_list_of_unreadable_files_is_kept(tmp_path):
    skipped = tuple({"path": f"/pictures/ü{row}.png", "domain": "left", "reason": "truncated"} for row in range(2000))
    place = MilvusWriter(str(tmp_path / "shop.db"), "gallery")
    for count in (3, 4):
        info = replace(drawn_info(count, 8), unreadable=skipped)
        with place.lock():
            place.write(info, image_table(drawn_images(count)), lambda positions: rng_rows(4, 8)[positions])
        assert MilvusGallery.load(str(tmp_path / "shop.db"), "gallery").info == info


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
import pyarrow.parquet as pq
from ucdir.gallery import milvus_store
from ucdir.gallery.milvus import MilvusWriter
from ucdir.gallery.interface import GalleryInfo
uri, folder, step, calls = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
rows = np.load(folder / "rows.npy")

def write(part, count):
    images = pq.read_table(folder / f"{part}.parquet")
    info = GalleryInfo("3f9c" * 8, "e", "float32", rows.shape[1], count, "", part, {"left": "/pictures/left"}, ())
    place = MilvusWriter(uri, "gallery")
    with place.lock():
        place.read()
        place.write(info, images, lambda positions: rows[images["width"].to_numpy()[positions]])

def killed(*given):
    global calls
    calls -= 1
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given)

for part in ("before", "after"):
    if part == "after":
        milvus_store.MESSAGE_BYTES = 1
        original = getattr(milvus_store.Store, step)
        setattr(milvus_store.Store, step, killed)
    if (folder / f"{part}.parquet").exists():
        write(part, pq.read_table(folder / f"{part}.parquet").num_rows)
"""


def killed_at(tmp_path, step, calls, before, after):
    """A process that writes `before`, where there is one, and is killed while it writes `after`; `width` gives the row."""
    for name, images in (("before", before), ("after", after)):
        if images:
            pq.write_table(image_table(images), tmp_path / f"{name}.parquet")
    process = in_a_process(KILLED, tmp_path / "shop.db", tmp_path, step, calls)
    said = process.communicate()[1]
    assert (process.returncode, said) == (-signal.SIGKILL, "")


@pytest.mark.parametrize(
    ("first", "step", "calls"),
    [
        (True, "create", 0),
        (True, "put", 2),
        (True, "finish", 0),
        (False, "put", 0),
        (False, "put", 4),
        (False, "remove", 0),
        (False, "finish", 0),
    ],
)
def test_a_write_that_was_killed_is_noticed_and_completed(tmp_path, first, step, calls):
    """Rows 0 to 7, then 3 to 10, of which two have exchanged their embeddings."""
    rows = rng_rows(11, 8)
    np.save(tmp_path / "rows.npy", rows)
    old = [replace(image, width=row) for row, image in enumerate(drawn_images(8))]
    new = [replace(image, width=row, mtime_ns=5) for row, image in enumerate(drawn_images(11))][3:]
    new[0], new[1] = replace(new[0], width=4, sha256=new[1].sha256), replace(new[1], width=3, sha256=new[0].sha256)
    killed_at(tmp_path, step, calls, [] if first else old, new)
    place = MilvusWriter(str(tmp_path / "shop.db"), "gallery")
    with pytest.raises(UcdirError, match="is being written by an index, or one was killed while it wrote") as caught:
        MilvusGallery.load(place.uri, "gallery")
    assert "\n" not in str(caught.value)
    with place.lock():
        left = place.read()
        assert (left is None) == first
        if left is not None:
            _, images, there = left
            assert np.array_equal(there(np.arange(len(images))), rows[images["width"].to_numpy()])
        place.write(drawn_info(8, 8), image_table(new), lambda positions: rows[[image.width for image in new]][positions])
    milvus = MilvusGallery.load(place.uri, "gallery")
    assert (len(milvus), milvus.domains(), milvus.info) == (8, {"left": 8}, drawn_info(8, 8))
    for image in new:
        assert milvus.find(image.id) == image
        assert np.array_equal(milvus.embedding(image.id), rows[image.width])


WRITTEN = """
import sys
from pathlib import Path
import numpy as np
import pyarrow.parquet as pq
from ucdir.gallery.interface import GalleryInfo
from ucdir.gallery.milvus import MilvusWriter
folder = Path(sys.argv[1])
rows, images = np.load(folder / "rows.npy"), pq.read_table(folder / "images.parquet")
info = GalleryInfo("3f9c" * 8, "e", "float32", rows.shape[1], len(rows), "", "", {"left": "/pictures/left"}, ())
MilvusWriter(str(folder / "shop.db"), "gallery").write(info, images, lambda positions: rows[positions])
"""


@pytest.mark.parametrize("index", ["embedding", "domain"])
def test_half_an_index_is_made_anew(tmp_path, index):
    """Milvus Lite writes its indexes in place; a process that is killed meanwhile leaves one that it refuses for ever."""
    rows, images = rng_rows(8, 8), drawn_images(8)
    np.save(tmp_path / "rows.npy", rows)
    pq.write_table(image_table(images), tmp_path / "images.parquet")
    process = in_a_process(WRITTEN, tmp_path)
    assert (process.communicate()[1], process.returncode) == ("", 0)
    (sidecar,) = (tmp_path / "shop.db" / "collections" / "gallery").rglob(f"indexes/*.{index}.*")
    sidecar.write_bytes(sidecar.read_bytes()[:7])
    milvus = MilvusGallery.load(str(tmp_path / "shop.db"), "gallery")
    (hits,) = milvus.search(rows[3:4], 2).hits
    assert hits[0].image.id == images[3].id
    assert len(milvus.search(rows, 8, Where("left")).hits[0]) == 8
    assert sidecar.stat().st_size > 7


def test_what_milvus_refuses_ends_in_a_sentence(tmp_path):
    """pymilvus raises errors that are their own cause: looking for the first cause must end."""
    store = Store.connect(Address.read(str(tmp_path / "shop.db")), "gallery")
    with pytest.raises(UcdirError, match=r"^Milvus at '.*shop.db' refused: .*gallery.* See its log, or index into another"):
        store.count()


INDEXED = """
import os, signal, sys
from pathlib import Path
from ucdir.commands.index import index
from ucdir.gallery.milvus_store import Store
Store.settle = lambda store: os.kill(os.getpid(), signal.SIGKILL)
index(Path(sys.argv[1]), sys.argv[3:], Path("gallery"), engine=sys.argv[2], device="cpu", precision="float32")
"""


def test_an_index_after_a_killed_one_embeds_nothing_again(collection, encoder, both):
    engine, sources = f"milvus:{collection / 'shop.db'}", [collection / "left", collection / "right"]
    process = in_a_process(INDEXED, encoder, engine, *sources)
    said = process.communicate()[1]
    assert (process.returncode, said) == (-signal.SIGKILL, "")
    assert [file.name for file in collection.glob(".*journal")] == [".shop.db.gallery.journal"]
    _, result = both("left", "right")
    assert (result.changes.added, result.changes.embedded) == (9, 0)
    same_galleries(collection)


def test_an_undone_change_after_a_killed_index_is_settled(tmp_path):
    """What the killed one left is what the folders hold: nothing is written, and the gallery can be opened again."""
    place = MilvusWriter(str(tmp_path / "shop.db"), "gallery")
    write(place, drawn_images(5), rng_rows(5, 8))
    store = Store.connect(Address.read(place.uri), "gallery")
    store.begin(store.head())
    store.remove([drawn_images(5)[4].id])
    with pytest.raises(UcdirError, match="is being written"):
        MilvusGallery.load(place.uri, "gallery")
    with place.lock():
        info, images, _ = place.read()
        assert (info.count, images.num_rows) == (4, 4)
    milvus = MilvusGallery.load(place.uri, "gallery")
    assert (len(milvus), milvus.domains()) == (4, {"left": 4})


# what is refused


@pytest.mark.parametrize(
    ("name", "better"), [("my shop", "my_shop"), ("a/b-c", "b_c"), ("2025", "gallery_2025"), ("ü", "gallery"), ("", "gallery")]
)
def test_names_no_collection_can_have(tmp_path, name, better):
    for refuse in (
        MilvusWriter(str(tmp_path / "shop.db"), name).check,
        lambda: MilvusGallery.load(f"{tmp_path}/shop.db", name),
    ):
        with pytest.raises(UsageError, match=rf"cannot name a Milvus collection.*for example {better}\.$"):
            refuse()
    assert not list(tmp_path.iterdir())


def test_the_collection_of_the_galleries_is_not_theirs(tmp_path):
    with pytest.raises(UsageError, match="for example gallery_ucdir_galleries"):
        MilvusWriter(str(tmp_path / "shop.db"), "ucdir_galleries").check()


@pytest.mark.parametrize("uri", ["shop", "ftp://host/x.db", "http://", ":19530", "shop.sqlite"])
def test_what_is_no_address(uri):
    with pytest.raises(UsageError, match=r"is not a Milvus database\. Give milvus:FILE\.db"):
        MilvusGallery.load(uri, "gallery")


def test_a_database_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(UcdirError, match=r"gallery 'gallery' not found: there is no '.*shop.db'\. Make one with: ucdir index"):
        MilvusGallery.load(str(tmp_path / "sub" / "shop.db"), "gallery")
    assert not list(tmp_path.iterdir())


def test_other_files_and_folders_are_left_alone(tmp_path):
    (tmp_path / "old.db").write_bytes(b"SQLite format 3\0")
    (tmp_path / "photos.db").mkdir()
    (tmp_path / "photos.db" / "a.txt").write_text("mine")
    for name, reason in (("old.db", "is a file, but Milvus Lite 3"), ("photos.db", "is not a Milvus Lite database")):
        with pytest.raises(UcdirError, match=reason):
            MilvusWriter(str(tmp_path / name), "gallery", overwrite=True).check()
        with pytest.raises(UcdirError, match=reason):
            MilvusGallery.load(str(tmp_path / name), "gallery")
    assert [file.name for file in (tmp_path / "photos.db").iterdir()] == ["a.txt"]


def test_a_collection_of_somebody_else_is_left_alone(tmp_path):
    place = MilvusWriter(str(tmp_path / "shop.db"), "gallery")
    write(place, drawn_images(3), rng_rows(3, 8))
    Store.connect(Address.read(place.uri), "theirs").create(8)
    with pytest.raises(UcdirError, match=r"collection 'theirs' in .*not made by ucdir.*Give another name to --out"):
        MilvusWriter(place.uri, "theirs", overwrite=True).check()
    with pytest.raises(UcdirError, match=r"not made by ucdir.*Give one that ucdir index wrote: 'gallery'\.$"):
        MilvusGallery.load(place.uri, "theirs")


def test_images_that_were_taken_away_by_hand_are_noticed(tmp_path):
    place = MilvusWriter(str(tmp_path / "shop.db"), "gallery")
    write(place, drawn_images(5), rng_rows(5, 8))
    Store.connect(Address.read(place.uri), "gallery").remove([drawn_images(5)[2].id])
    with pytest.raises(UcdirError, match="is damaged: it should have 5 images and has 4"):
        MilvusGallery.load(place.uri, "gallery")


def test_a_newer_format_is_named(tmp_path):
    place = MilvusWriter(str(tmp_path / "shop.db"), "gallery")
    write(place, drawn_images(2), rng_rows(2, 8))
    store = Store.connect(Address.read(place.uri), "gallery")
    store.begin(replace(store.head(), format_version=99))
    with pytest.raises(UcdirError, match="has format 99, this ucdir reads up to 2"):
        MilvusGallery.load(place.uri, "gallery")


def test_a_gallery_with_the_layout_of_an_earlier_version_is_searched_but_not_updated(tmp_path):
    place = MilvusWriter(str(tmp_path / "shop.db"), "gallery")
    write(place, drawn_images(2), rng_rows(2, 8))
    store = Store.connect(Address.read(place.uri), "gallery")
    head = store.head()
    store._put({"gallery": to_json(replace(head, format_version=1), 1)})
    assert len(MilvusGallery.load(place.uri, "gallery")) == 2
    with pytest.raises(UcdirError, match=r"earlier ucdir: it can be searched, but not updated\. .* --overwrite"):
        write(place, drawn_images(3), rng_rows(3, 8))
    write(replace(place, overwrite=True), drawn_images(3), rng_rows(3, 8))
    assert len(MilvusGallery.load(place.uri, "gallery")) == 3


HOLDER = """
import sys
from ucdir.gallery.milvus import MilvusGallery
MilvusGallery.load(sys.argv[1], "gallery")
print("open", flush=True)
sys.stdin.read()
"""


def test_two_processes_and_one_file(collection, encoder):
    """Whole commands: index, search while another process has the file open, search again."""
    engine, exactly = ("--engine", f"milvus:{collection / 'shop.db'}"), ("--device", "cpu", "--precision", "float32")
    query = collection / "left" / "cat" / "1.png"
    made = ucdir("index", encoder, collection / "left", "--out", "gallery", *engine, *exactly)
    assert made.returncode == 0, made.stderr
    told = f"ucdir search gallery --engine milvus:{collection / 'shop.db'} QUERY.png"
    assert told in made.stdout
    arguments = [sys.executable, "-c", HOLDER, str(collection / "shop.db")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "open\n"
        refused = ucdir("search", "gallery", query, *engine, *exactly)
        with pytest.raises(UcdirError, match=r"Milvus Lite serves one at a time\. Wait .* stop it if it is ucdir serve"):
            index(encoder, [str(collection / "left")], Path("gallery"), engine=engine[1], device="cpu")
        holder.communicate("")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1), refused.stderr
    assert refused.stderr.startswith("ucdir: '")
    assert "is open in another process" in refused.stderr
    found = ucdir("search", "gallery", query, *engine, "-k", 1, "--json", *exactly)
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout)["queries"][0]["hits"][0]["path"] == str(query)


# a server


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


OTHER = """
import sys
from pathlib import Path
from ucdir.commands.index import index
result = index(Path(sys.argv[1]), (), Path("gallery"), engine=sys.argv[2], device="cpu", precision="float32")
print(result.count)
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Address of a Milvus server: Milvus Lite in a process of its own, which speaks the same protocol."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    port = free_port()
    code = (
        f"from milvus_lite.adapter.grpc.server import run_server; run_server({str(tmp_path / 'server')!r}, '127.0.0.1', {port})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert "listening" in process.stdout.readline()
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.communicate()


def test_a_server_serves_many_processes(collection, encoder, server):
    sources, exactly = [str(collection / "left"), str(collection / "right")], {"device": "cpu", "precision": "float32"}
    index(encoder, sources, Path("gallery"), engine=f"milvus:{server}", **exactly)
    index(encoder, sources, collection / "gallery", **exactly)
    milvus, folder = MilvusGallery.load(server, "gallery"), Gallery.load(collection / "gallery")
    queries = rng_rows(4, milvus.info.dim)
    same = [[hit.image.path for hit in hits] for hits in folder.search(queries, 5, Where(None, "cat")).hits]
    assert [[hit.image.path for hit in hits] for hits in milvus.search(queries, 5, Where(None, "cat")).hits] == same
    save_picture(collection / "left" / "new.png", 8)
    other = in_a_process(OTHER, encoder, f"milvus:{server}")
    assert other.communicate() == ("10\n", "")
    assert milvus.current().domains() == {"left": 7, "right": 3}
    assert not list((collection / "cache" / "ucdir").iterdir())


def test_a_server_that_is_not_there_or_goes_away(tmp_path, monkeypatch, server):
    nobody = f"http://user:secret@127.0.0.1:{free_port()}"
    with pytest.raises(UcdirError, match=r"no Milvus server answers at 'http://127\.0\.0\.1:\d+'") as caught:
        MilvusGallery.load(nobody, "gallery")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UcdirError, match="no Milvus server answers"):
        MilvusWriter(nobody, "gallery").check()


def test_a_wrong_token_is_refused():
    """Milvus Lite asks for no token: a service that refuses as a server does stands in for one."""
    from concurrent import futures

    import grpc
    from pymilvus.grpc_gen import milvus_pb2_grpc

    class Refusing(milvus_pb2_grpc.MilvusServiceServicer):
        def Connect(self, request, context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check api key is correct")

    service = grpc.server(futures.ThreadPoolExecutor(1))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(Refusing(), service)
    port = service.add_insecure_port("127.0.0.1:0")
    service.start()
    with pytest.raises(UcdirError, match=r"refuses the token\. Give its token, or USER:PASSWORD, in UCDIR_MILVUS_TOKEN\.$"):
        MilvusGallery.load(f"http://127.0.0.1:{port}", "gallery")
    service.stop(None)


def test_pymilvus_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    place = MilvusWriter(str(tmp_path / "shop.db"), "gallery")
    with pytest.raises(UcdirError, match=r"pymilvus is not installed .*Run: pip install 'ucdir\[milvus\]'"):
        write(place, drawn_images(2), rng_rows(2, 8))
