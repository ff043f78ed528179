"""A gallery follows its folders: only what changed is embedded, and a killed run costs nothing."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ucdir.commands.embed import embed
from ucdir.commands.index import index
from ucdir.errors import UcdirError, UsageError
from ucdir.gallery.folder import Gallery
from ucdir.gallery.journal import Journal
from ucdir.gallery.update import Changes
from ucdir.model.encoder import build_encoder

pytestmark = pytest.mark.slow


def picture(file, seed):
    """A small picture that no other seed gives."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((40, 30), Image.Resampling.BILINEAR).save(file)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoders") / "encoder"
    build_encoder("tiny_network:tiny", "none", 32, dim=16, hidden=16).save(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    for number in range(8):
        picture(tmp_path / "photos" / ("a" if number < 4 else "b") / f"{number}.png", number)
    return tmp_path / "photos"


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once: the tests cannot wait two seconds after each change."""
    monkeypatch.setattr("ucdir.gallery.embedder.SETTLED_NS", -(10**18))


def run(encoder, photos, *more, **options):
    return index(encoder, [str(photos), *map(str, more)], photos.parent / "g", device="cpu", precision="float32", **options)


def from_scratch(encoder, photos, tmp_path, *more):
    """What a gallery made anew would hold: path -> row."""
    index(encoder, [str(photos), *map(str, more)], tmp_path / "fresh", device="cpu", precision="float32", overwrite=True)
    return contents(tmp_path / "fresh")


def contents(folder):
    gallery = Gallery.load(folder)
    return {gallery.image(row).path: gallery.embeddings[row].copy() for row in range(len(gallery))}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for path, row in expected.items():
        np.testing.assert_allclose(found[path], row, atol=1e-5)


def test_only_the_difference_is_embedded(photos, encoder, tmp_path):
    assert run(encoder, photos).changes == Changes(added=8, embedded=8)
    assert run(encoder, photos).changes == Changes(unchanged=8)
    picture(photos / "a" / "new.png", 100)
    picture(photos / "a" / "1.png", 101)
    (photos / "a" / "2.png").rename(photos / "b" / "moved.png")
    shutil.copy(photos / "a" / "3.png", photos / "b" / "copy.png")
    (photos / "b" / "7.png").unlink()
    result = run(encoder, photos)
    assert result.changes == Changes(added=2, changed=1, moved=1, removed=1, unchanged=5, embedded=2)
    assert_same(contents(tmp_path / "g"), from_scratch(encoder, photos, tmp_path))


def test_a_file_that_did_not_change_is_not_even_read(photos, encoder, settled, monkeypatch):
    run(encoder, photos)
    monkeypatch.setattr("ucdir.gallery.embedder.read_file", lambda path: pytest.fail(f"{path} was read"))
    assert run(encoder, photos).changes == Changes(unchanged=8)


@pytest.mark.parametrize("times", ["kept", "new"])
def test_other_content_of_the_same_size_is_seen(photos, encoder, settled, times):
    file = photos / "a" / "0.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(file, compress_level=0)
    run(encoder, photos)
    before = file.stat()
    Image.fromarray(np.full((9, 9, 3), 9, np.uint8)).save(file, compress_level=0)
    assert file.stat().st_size == before.st_size
    if times == "kept":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run(encoder, photos).changes == Changes(changed=1, unchanged=7, embedded=1)


def test_a_file_changed_just_now_is_looked_at_again(photos, encoder):
    run(encoder, photos)
    gallery = Gallery.load(photos.parent / "g")
    assert {gallery.image(row).mtime_ns for row in range(8)} == {0}


def test_nothing_is_written_when_nothing_changed(photos, encoder, settled):
    run(encoder, photos)
    stamp = Gallery.load(photos.parent / "g").stamp
    run(encoder, photos)
    assert Gallery.load(photos.parent / "g").stamp == stamp


def test_domains_not_named_stay_and_dropped_ones_go(photos, encoder, tmp_path):
    for number in range(3):
        picture(tmp_path / "drawings" / f"{number}.png", 50 + number)
    (tmp_path / "drawings" / "bad.png").write_bytes(b"x")
    run(encoder, photos)
    assert index(encoder, [str(tmp_path / "drawings")], tmp_path / "g", device="cpu").domains == (
        ("photos", 8),
        ("drawings", 3),
    )
    picture(photos / "a" / "new.png", 99)
    assert run(encoder, photos).changes == Changes(added=1, unchanged=8, embedded=1)
    gallery = Gallery.load(tmp_path / "g")
    assert gallery.domains() == {"drawings": 3, "photos": 9}
    assert [entry["domain"] for entry in gallery.info.unreadable] == ["drawings"]
    everything = index(encoder, (), tmp_path / "g", device="cpu")
    assert everything.changes.unchanged == 12
    dropped = index(encoder, (), tmp_path / "g", device="cpu", drop=["drawings"])
    assert dropped.changes == Changes(removed=3, unchanged=9)
    assert list(Gallery.load(tmp_path / "g").info.sources) == ["photos"]
    with pytest.raises(UsageError, match="--drop drawings: the gallery holds photos"):
        index(encoder, (), tmp_path / "g", device="cpu", drop=["drawings"])


def test_dropping_all_there_is_is_refused(photos, encoder, tmp_path):
    run(encoder, photos)
    with pytest.raises(UsageError, match=r"--drop photos would leave an empty gallery\. Name a folder"):
        index(encoder, (), tmp_path / "g", device="cpu", drop=["photos"])
    assert len(Gallery.load(tmp_path / "g")) == 8


def test_a_moved_folder_is_followed_and_another_of_its_name_refused(photos, encoder, tmp_path):
    run(encoder, photos)
    shutil.copytree(photos, tmp_path / "elsewhere" / "photos")
    with pytest.raises(UsageError, match=r"domain 'photos' of the gallery follows '.*/photos', which still exists"):
        index(encoder, [str(tmp_path / "elsewhere" / "photos")], tmp_path / "g", device="cpu")
    shutil.rmtree(photos)
    moved = index(encoder, [str(tmp_path / "elsewhere" / "photos")], tmp_path / "g", device="cpu")
    assert moved.changes == Changes(moved=8)


def test_an_emptied_folder_leaves_the_gallery_alone(photos, encoder, tmp_path):
    """An unmounted disk looks like this."""
    run(encoder, photos)
    shutil.rmtree(photos)
    photos.mkdir()
    with pytest.raises(UcdirError, match="has no images"):
        run(encoder, photos)
    assert len(Gallery.load(tmp_path / "g")) == 8


def test_an_image_that_became_unreadable_leaves_and_comes_back(photos, encoder):
    run(encoder, photos)
    content = (photos / "a" / "0.png").read_bytes()
    (photos / "a" / "0.png").write_bytes(content[:-30])
    result = run(encoder, photos)
    assert result.changes == Changes(removed=1, unchanged=7)
    assert [error.reason for error in result.unreadable] == ["truncated"]
    (photos / "a" / "0.png").write_bytes(content)
    assert run(encoder, photos).changes == Changes(added=1, unchanged=7, embedded=1)


def test_another_encoder_is_refused_but_for_overwrite(photos, encoder, tmp_path):
    run(encoder, photos)
    torch.manual_seed(1)
    build_encoder("tiny_network:tiny", "none", 32, dim=16, hidden=16).save(tmp_path / "other")
    with pytest.raises(UcdirError, match=r"indexed with encoder .* but '.*other' is .*--overwrite"):
        run(tmp_path / "other", photos)
    assert run(tmp_path / "other", photos, overwrite=True).changes == Changes(added=8, embedded=8)


def test_without_folders_there_must_be_a_gallery(encoder, tmp_path):
    with pytest.raises(UsageError, match="no folders given, and no gallery exists yet"):
        index(encoder, (), tmp_path / "g", device="cpu")


def test_a_second_writer_waits_its_turn(photos, encoder, tmp_path):
    from ucdir.gallery.folder import GalleryFolder

    run(encoder, photos)
    with GalleryFolder(tmp_path / "g").lock(), pytest.raises(UcdirError, match="being written by another ucdir index"):
        run(encoder, photos)
    assert run(encoder, photos).changes == Changes(unchanged=8)


# Killed


def index_in_child(encoder, photos, out):
    torch.set_num_threads(1)
    index(encoder, [str(photos)], out, device="cpu", precision="float32", batch_size=4, workers=1)


def test_kill_9_at_any_moment_leaves_a_gallery_that_opens(photos, encoder, tmp_path):
    """Twenty times: something changes, an index begins, dies; the gallery opens, and holds the old or the new images."""
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["torch", "timm", "ucdir.gallery.indexing"])
    out, moment = tmp_path / "g", random.Random(0)

    def start():
        child = forkserver.Process(target=index_in_child, args=(encoder, photos, out))
        child.start()
        return child

    start().join()  # the first one imports
    started = time.monotonic()
    start().join()
    whole = time.monotonic() - started
    killed = 0
    for turn in range(20):
        before = set(contents(out))
        for number in range(6):
            picture(photos / "c" / f"{turn}-{number}.png", 1000 + 10 * turn + number)
        (photos / "c" / f"{turn - 1}-0.png").unlink(missing_ok=True)
        child = start()
        child.join(moment.uniform(0.1, 1.1) * whole)
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            killed += 1
        assert set(contents(out)) in (before, set(photos.rglob("*.png")))
    assert killed >= 5
    assert run(encoder, photos).count == len(set(photos.rglob("*.png")))
    assert_same(contents(out), from_scratch(encoder, photos, tmp_path))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_a_killed_run_embedded_is_not_embedded_again(photos, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("ucdir.gallery.journal.FLUSH_EVERY", 1)
    monkeypatch.setattr("ucdir.gallery.indexing.GalleryInfo", None)  # dies when all is embedded and nothing is written
    with pytest.raises(TypeError):
        run(encoder, photos)
    assert not (tmp_path / "g").exists()
    monkeypatch.undo()
    assert run(encoder, photos).changes == Changes(added=8)
    assert_same(contents(tmp_path / "g"), from_scratch(encoder, photos, tmp_path))


def test_a_torn_journal_is_cut_to_what_is_whole(photos, encoder, tmp_path):
    images = [Gallery.load(Path(run(encoder, photos).gallery)).image(row) for row in range(8)]
    rows = np.arange(8 * 16, dtype=np.float32).reshape(8, 16)
    journal = Journal(tmp_path / "j", "encoder", 16)
    assert journal.add(images, rows) == range(8)
    journal.flush()
    for name, lost, left in (("rows.f32", 3, 7), ("images.jsonl", 2, 6), ("rows.f32", 5 * 64, 1)):
        os.truncate(tmp_path / "j" / name, (tmp_path / "j" / name).stat().st_size - lost)
        journal = Journal(tmp_path / "j", "encoder", 16)
        assert [noted.position for noted in journal.known.values()] == list(range(left))
        assert np.array_equal(journal.rows(np.arange(left)), rows[:left])
    assert journal.add(images[:2], rows[:2]) == range(1, 3)
    journal.flush()
    assert np.array_equal(journal.rows(np.array([2, 0])), rows[[1, 0]])
    assert Journal(tmp_path / "j", "another encoder", 16).known == {}


# Embeddings for other tools


def test_embeddings_for_other_tools(photos, encoder, tmp_path):
    result = embed(encoder, [str(photos)], tmp_path / "out" / "e", device="cpu", precision="float32")
    table = pq.read_table(result.table).to_pylist()
    rows = np.load(result.array)
    run(encoder, photos)
    assert_same({Path(entry["path"]): row for entry, row in zip(table, rows, strict=True)}, contents(tmp_path / "g"))
    assert {entry["class"] for entry in table} == {"a", "b"}
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["e.npy", "e.parquet"]
    with pytest.raises(UsageError, match="Add --overwrite"):
        embed(encoder, [str(photos)], tmp_path / "out" / "e", device="cpu")
    assert embed(encoder, [str(photos)], tmp_path / "out" / "e", device="cpu", overwrite=True).count == 8


def test_embedding_nothing_readable_writes_nothing(encoder, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_bytes(b"x")
    with pytest.raises(UcdirError, match=r"none of the 1 images can be read .*, so nothing was written"):
        embed(encoder, [str(tmp_path / "bad")], tmp_path / "e", device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]
