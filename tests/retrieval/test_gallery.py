"""A gallery folder: written whole, read back as it was, and never mistaken for something else."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ucdir.errors import UcdirError, UsageError
from ucdir.retrieval.gallery import Gallery, GalleryImage

FINGERPRINT = "3f9c" * 8


def rows(count=4, dim=3):
    drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(0))
    return drawn / drawn.norm(dim=1, keepdim=True)


def entries(count=4):
    return [
        GalleryImage(Path(f"/pictures/bild-ü{row}.png"), "left" if row < 3 else "right", "ab" * 32, 20, 10, 99, None)
        for row in range(count)
    ]


@pytest.fixture
def gallery(tmp_path):
    skipped = [{"path": "/pictures/bad.png", "domain": "left", "reason": "truncated"}]
    return Gallery.create(tmp_path / "shop", rows(), entries(), FINGERPRINT, Path("run/encoder"), skipped)


def test_what_is_written_is_read_back(gallery):
    read = Gallery.load(gallery.folder)
    assert torch.equal(torch.from_numpy(np.array(read.embeddings)), rows())
    assert isinstance(read.embeddings, np.memmap)
    assert [read.image(row) for row in range(len(read))] == entries()
    assert read.info.unreadable[0]["reason"] == "truncated"
    assert read.info.fingerprint == FINGERPRINT
    assert Path(read.info.encoder_path).is_absolute()
    assert sorted(file.name for file in gallery.folder.iterdir()) == [
        "embeddings.npy",
        "gallery.json",
        "images.parquet",
    ]


def test_rows_of_a_domain(gallery):
    assert gallery.domains() == {"left": 3, "right": 1}
    assert gallery.rows_of("left").tolist() == [0, 1, 2]
    with pytest.raises(UsageError, match="no domain 'middle': it holds 'left', 'right'"):
        gallery.rows_of("middle")


def test_another_encoder_is_refused(gallery):
    gallery.require_encoder(FINGERPRINT, Path("run/encoder"))
    with pytest.raises(UcdirError, match=r"indexed with encoder 3f9c3f9c..., but 'other' is 81aa.*ucdir index other"):
        gallery.require_encoder("81aa" * 8, Path("other"))


def test_an_existing_gallery_is_replaced_only_when_asked(gallery):
    with pytest.raises(UcdirError, match="--overwrite"):
        Gallery.create(gallery.folder, rows(2), entries(2), FINGERPRINT, Path("e"))
    replaced = Gallery.create(gallery.folder, rows(2), entries(2), FINGERPRINT, Path("e"), overwrite=True)
    assert len(replaced) == len(Gallery.load(gallery.folder)) == 2
    assert len(gallery.embeddings) == 4  # a reader keeps what it opened
    assert [path.name for path in gallery.folder.parent.iterdir()] == ["shop"]


def test_anything_else_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    with pytest.raises(UcdirError, match="exists and is no gallery"):
        Gallery.create(tmp_path / "photos", rows(), entries(), FINGERPRINT, Path("e"), overwrite=True)
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert len(Gallery.create(tmp_path / "empty", rows(), entries(), FINGERPRINT, Path("e"))) == 4


def test_an_empty_or_uneven_gallery_is_refused(tmp_path):
    for count in (0, 3):
        with pytest.raises(UcdirError, match=f"would hold {count} embeddings for 4 images"):
            Gallery.create(tmp_path / "g", rows(count), entries(), FINGERPRINT, Path("e"))
    assert not list(tmp_path.iterdir())


def cut_embeddings(folder):
    content = (folder / "embeddings.npy").read_bytes()
    (folder / "embeddings.npy").write_bytes(content[:-9])


def empty_embeddings(folder):
    (folder / "embeddings.npy").write_bytes(b"")


def fewer_rows(folder):
    np.save(folder / "embeddings.npy", rows(3).numpy())


def other_type(folder):
    np.save(folder / "embeddings.npy", rows().double().numpy())


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


def part_missing(folder):
    (folder / "embeddings.npy").unlink()


DAMAGES = [
    cut_embeddings, empty_embeddings, fewer_rows, other_type, pickled, fewer_images, no_parquet, other_columns,
    no_json, json_without_count, json_list, part_missing,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_gallery_is_named(gallery, damage):
    damage(gallery.folder)
    with pytest.raises(UcdirError, match=r"^gallery '.*shop' is damaged: .*Index it again with: ucdir index") as caught:
        Gallery.load(gallery.folder)
    assert "\n" not in str(caught.value)


def test_a_newer_format_a_missing_folder_and_another_folder_are_named(gallery, tmp_path):
    content = json.loads((gallery.folder / "gallery.json").read_text())
    (gallery.folder / "gallery.json").write_text(json.dumps({**content, "format_version": 99}))
    with pytest.raises(UcdirError, match="format 99, this ucdir reads up to 1"):
        Gallery.load(gallery.folder)
    with pytest.raises(UcdirError, match="gallery not found"):
        Gallery.load(tmp_path / "nowhere")
    with pytest.raises(UcdirError, match=r"no gallery folder: it has no gallery.json"):
        Gallery.load(tmp_path)
