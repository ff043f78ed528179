"""A gallery folder: written whole, read back as it was, and never mistaken for something else."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ucdir.errors import UcdirError, UsageError
from ucdir.gallery import folder as module
from ucdir.gallery.folder import Gallery, GalleryFolder
from ucdir.gallery.interface import GalleryImage, GalleryInfo, Where, image_table
from ucdir.gallery.locate import engine_flag

FINGERPRINT = "3f9c" * 8


SOURCES = {"left": "/pictures", "right": "/other"}


def rows(count=4, dim=3):
    drawn = np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def entries(count=4):
    return [
        GalleryImage(
            Path(f"/pictures/{'cats' if row else ''}/bild-ü{row}.png") if row < 3 else Path("/other/x_%.png"),
            "left" if row < 3 else "right", "ab" * 32, 20, 10, 99, None, 5, 6,
        )
        for row in range(count)
    ]  # fmt: skip


def info(count=4, **changed):
    made = GalleryInfo(FINGERPRINT, "/run/encoder", "float32", 3, count, "2026-11-23", "2026-11-23", SOURCES, ())
    return replace(made, **changed)


def write(folder, count=4, overwrite=False):
    written = rows(count)
    GalleryFolder(folder, overwrite).write(info(count), image_table(entries(count)), lambda positions: written[positions])
    return Gallery.load(folder)


@pytest.fixture
def gallery(tmp_path):
    return write(tmp_path / "shop")


def test_what_is_written_is_read_back(gallery):
    read = Gallery.load(gallery.folder)
    assert np.array_equal(read.embeddings, rows())
    assert isinstance(read.embeddings, np.memmap)
    assert [read.image(row) for row in range(len(read))] == entries()
    assert read.info == info()
    assert read.name == "shop"
    assert sorted(file.name for file in gallery.folder.iterdir()) == ["embeddings.npy", "gallery.json", "images.parquet"]


def test_images_are_found_by_id(gallery):
    for row, image in enumerate(entries()):
        assert gallery.find(image.id) == image
        assert np.array_equal(gallery.embedding(image.id), rows()[row])
    for wrong in ("", "0" * 24, "no digest", "../../etc/passwd", "ü", entries()[0].id[:-1], "f" * 500):
        assert gallery.find(wrong) is None
        assert gallery.embedding(wrong) is None


def test_an_id_depends_on_domain_and_path_alone():
    first, second = entries()[:2]
    assert first.id == replace(first, sha256="cd" * 32, width=1, mtime_ns=9).id
    assert len({first.id, second.id, replace(first, domain="right").id}) == 3
    assert len(first.id) == 24


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), None),
        (Where("left"), [0, 1, 2]),
        (Where("left", "cats"), [1, 2]),
        (Where(None, "cats"), [1, 2]),
        (Where(None, "/pictures/cats/"), [1, 2]),
        (Where(None, "."), [0, 1, 2, 3]),
        (Where("right", ""), [3]),
    ],
)
def test_rows_of_a_part(gallery, where, expected):
    rows = gallery.rows_of(where)
    assert expected == (None if rows is None else rows.tolist())


def test_a_part_that_is_not_there_is_named(gallery):
    assert gallery.domains() == {"left": 3, "right": 1}
    with pytest.raises(UsageError, match="this gallery has no domain 'middle', only 'left', 'right'"):
        gallery.rows_of(Where("middle"))
    for under in ("cat", "_", "%", "cats/deeper", "/etc"):
        with pytest.raises(UsageError, match="has no image below"):
            gallery.rows_of(Where(None, under))
    with pytest.raises(UsageError, match=r"contains '\.\.'"):
        gallery.rows_of(Where(None, "cats/../.."))


def test_hits_are_the_nearest_rows(gallery):
    found = gallery.search(rows()[[2, 0]], 2)
    assert found.searched == 4
    expected = np.sort(rows()[[2, 0]].astype(np.float64) @ rows().T.astype(np.float64), axis=1)[:, ::-1][:, :2]
    assert [[hit.similarity for hit in hits] for hits in found.hits] == pytest.approx(expected, abs=1e-6)
    assert [hits[0].image for hits in found.hits] == [entries()[2], entries()[0]]
    assert [len(hits) for hits in gallery.search(rows()[:1], 99, Where("left")).hits] == [3]
    with pytest.raises(UsageError, match="k=0"):
        gallery.search(rows()[:1], 0)


@pytest.mark.parametrize("k", [1, 2, 7, 12])
def test_equal_hits_are_ordered_by_id_whatever_the_order_of_the_gallery(tmp_path, k):
    """Nine of twelve images have the same embedding; the cut falls among them."""
    images = [GalleryImage(Path(f"/pictures/{row}.png"), "left", "ab" * 32, 20, 10, 99, None) for row in range(12)]
    same = rows(12)
    same[3:] = same[3]
    query, found = same[[3]], []
    for order in (np.arange(12), np.arange(12)[::-1], np.random.default_rng(1).permutation(12)):
        table = image_table([images[row] for row in order])
        GalleryFolder(tmp_path / "shop", True).write(info(12), table, lambda at, order=order: same[order[at]])
        found.append(Gallery.load(tmp_path / "shop").search(query, k).hits[0])
    expected = sorted(image.id for image in images[3:])[:k]
    assert [hit.image.id for hit in found[0][:9]] == expected
    assert found[0] == found[1] == found[2]


def test_another_encoder_is_refused(gallery):
    gallery.info.require_encoder(FINGERPRINT, Path("run/encoder"), "shop")
    with pytest.raises(UcdirError, match=r"indexed with encoder 3f9c3f9c..., but 'other' is 81aa.*ucdir index other"):
        gallery.info.require_encoder("81aa" * 8, Path("other"), "shop")
    with pytest.raises(UcdirError, match=r"ucdir index other DIR --out shop --engine milvus:http://host:19530 --overwrite"):
        gallery.info.require_encoder("81aa" * 8, Path("other"), "shop", engine_flag("milvus:http://me:secret@host:19530"))


def test_a_replaced_gallery_is_seen_by_those_who_ask_and_kept_by_those_who_read(gallery):
    assert gallery.current() is gallery
    write(gallery.folder, 2)
    assert np.array_equal(gallery.embeddings, rows())
    assert len(gallery.current()) == len(Gallery.load(gallery.folder)) == 2
    assert [path.name for path in gallery.folder.parent.iterdir()] == ["shop"]


def test_readers_see_the_old_or_the_new_while_it_is_replaced(gallery):
    """Never parts of both, whenever they open it."""
    done, sizes = threading.Event(), []

    def read():
        while not done.is_set():
            opened = Gallery.load(gallery.folder)
            sizes.append((len(opened), len(opened.embeddings), opened.images.num_rows))

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for turn in range(60):
            write(gallery.folder, 2 + turn % 3)
        done.set()
        for reader in readers:
            reader.result()
    assert {size[0] for size in sizes} <= {2, 3, 4}
    assert all(len(set(size)) == 1 for size in sizes)


def test_a_gallery_that_is_replaced_between_two_of_its_parts_is_opened_again(gallery, monkeypatch):
    read, first = module._read_images, iter([True])

    def replaced_first(folder):
        if next(first, False):
            GalleryFolder(folder).write(info(), image_table(entries()[::-1]), lambda positions: rows()[::-1][positions])
        return read(folder)

    monkeypatch.setattr(module, "_read_images", replaced_first)
    opened = Gallery.load(gallery.folder)
    assert np.array_equal(opened.embeddings, rows()[::-1])
    assert [opened.image(row) for row in range(len(opened))] == entries()[::-1]


def test_a_gallery_is_thrown_away_only_when_asked(gallery):
    assert GalleryFolder(gallery.folder).read() is not None
    assert GalleryFolder(gallery.folder, overwrite=True).read() is None
    assert GalleryFolder(gallery.folder.parent / "none").read() is None


def test_anything_else_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    for step in (GalleryFolder(tmp_path / "photos", overwrite=True).check, lambda: write(tmp_path / "photos", overwrite=True)):
        with pytest.raises(UcdirError, match="exists and is not a gallery"):
            step()
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert len(write(tmp_path / "empty")) == 4


def test_two_writers_are_refused_and_a_dead_one_is_tidied_up(gallery):
    place = GalleryFolder(gallery.folder)
    (gallery.folder.parent / ".shop.abc.tmp").mkdir()
    with place.lock():
        assert not (gallery.folder.parent / ".shop.abc.tmp").exists()
        with pytest.raises(UcdirError, match=r"being written by another ucdir index. Wait until"), place.lock():
            pass
    with place.lock():
        assert len(Gallery.load(gallery.folder)) == 4
    assert [path.name for path in gallery.folder.parent.iterdir()] == ["shop"]


def cut_embeddings(folder):
    content = (folder / "embeddings.npy").read_bytes()
    (folder / "embeddings.npy").write_bytes(content[:-9])


def empty_embeddings(folder):
    (folder / "embeddings.npy").write_bytes(b"")


def fewer_rows(folder):
    np.save(folder / "embeddings.npy", rows(3))


def other_type(folder):
    np.save(folder / "embeddings.npy", rows().astype(np.float64))


def pickled(folder):
    np.save(folder / "embeddings.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def fewer_images(folder):
    pq.write_table(pq.read_table(folder / "images.parquet").slice(1), folder / "images.parquet")


def no_parquet(folder):
    (folder / "images.parquet").write_bytes(b"PAR1nothing")


def other_columns(folder):
    table = pq.read_table(folder / "images.parquet")
    pq.write_table(table.drop_columns(["domain"]), folder / "images.parquet")


def no_json(folder):
    (folder / "gallery.json").write_text("{")


def json_without_count(folder):
    content = json.loads((folder / "gallery.json").read_text())
    del content["count"]
    (folder / "gallery.json").write_text(json.dumps(content))


def json_list(folder):
    (folder / "gallery.json").write_text("[1]")


def header_that_does_not_end(folder):
    content = (folder / "embeddings.npy").read_bytes()
    (folder / "embeddings.npy").write_bytes(content.replace(b"}", b"[", 1))


def with_column(folder, name, values):
    table = pq.read_table(folder / "images.parquet")
    at = table.schema.get_field_index(name)
    pq.write_table(table.set_column(at, table.schema.field(at), values), folder / "images.parquet")


def text_that_is_none(folder):
    with_column(folder, "path", pa.array([b"\xff.png"] * 4, pa.binary()).view(pa.string()))


def part_missing(folder):
    (folder / "embeddings.npy").unlink()


DAMAGES = [
    cut_embeddings, empty_embeddings, fewer_rows, other_type, pickled, fewer_images, no_parquet, other_columns,
    no_json, json_without_count, json_list, part_missing, header_that_does_not_end, text_that_is_none,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_gallery_is_named(gallery, damage):
    damage(gallery.folder)
    with pytest.raises(UcdirError, match=r"^gallery '.*shop' is damaged: .*Index it again with: ucdir index") as caught:
        Gallery.load(gallery.folder)
    assert "\n" not in str(caught.value)


def test_ids_that_are_none_are_named_when_one_is_looked_for(gallery):
    with_column(gallery.folder, "id", pa.array(["no hex digest at all"] * 4))
    with pytest.raises(UcdirError, match=r"is damaged: images.parquet contains an invalid id"):
        Gallery.load(gallery.folder).find("0" * 24)


def test_a_newer_format_a_missing_folder_and_another_folder_are_named(gallery, tmp_path):
    content = json.loads((gallery.folder / "gallery.json").read_text())
    (gallery.folder / "gallery.json").write_text(json.dumps({**content, "format_version": 99}))
    with pytest.raises(UcdirError, match="format 99, this ucdir reads up to 1"):
        Gallery.load(gallery.folder)
    with pytest.raises(UcdirError, match="gallery not found"):
        Gallery.load(tmp_path / "nowhere")
    with pytest.raises(UcdirError, match=r"is not a gallery folder: it has no gallery.json"):
        Gallery.load(tmp_path)
