"""What a backbone gave is kept where there is room for it, and a run without room is as good."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ucdir.embedding import backbone_features as features
from ucdir.embedding.backbone_features import backbone_features, embed_with, feature_file, keep
from ucdir.embedding.compute import Compute
from ucdir.embedding.embed import Embeddings
from ucdir.images.pixel_cache import PixelCache
from ucdir.model.encoder import Encoder, build_encoder

CPU = torch.device("cpu")
LIMIT = 100_000


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return build_encoder("timm/test_resnet", "none", 32)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Six files of 20 x 20 px."""
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path in paths:
        Image.fromarray(np.random.default_rng(int(path.stem)).integers(256, size=(20, 20, 3), dtype=np.uint8)).save(path)
    return paths


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in files(folder))


def test_a_full_disk_ends_nothing(encoder: Encoder, pictures: list[Path], small_disk: Path) -> None:
    (small_disk / "rest").write_bytes(bytes(60_000))
    plain = backbone_features(encoder, pictures, Compute(CPU, "float32"))
    cache = PixelCache(small_disk, 10**9)
    found = backbone_features(encoder, pictures, Compute(CPU, "float32", cache=cache))
    assert torch.equal(found.rows, plain.rows)
    assert not list((small_disk / "features").iterdir())
    assert cache.held == size(small_disk) - 60_000


def test_features_and_pixels_have_one_limit(encoder: Encoder, pictures: list[Path], tmp_path: Path) -> None:
    """Also where pixels of this run have filled the cache: features spare both them and the backbone."""
    folder = tmp_path / "cache"
    folder.mkdir()
    cache = PixelCache(folder, LIMIT)
    (folder / "00").mkdir()
    (folder / "00" / ("0" * 38)).write_bytes(bytes(LIMIT))  # as if another run filled it meanwhile
    found = backbone_features(encoder, pictures, Compute(CPU, "float32", cache=cache))
    (kept,) = (folder / "features").iterdir()
    assert size(folder) <= LIMIT
    assert size(folder) <= cache.held
    assert PixelCache(folder, LIMIT).held == size(folder)
    cache = PixelCache(folder, LIMIT)
    assert torch.equal(backbone_features(encoder, pictures, Compute(CPU, "float32", cache=cache)).rows, found.rows)
    assert kept.exists()


def test_features_take_a_quarter_at_most(tmp_path: Path) -> None:
    """What was used longest ago goes, and what is larger than that is not kept."""
    cache = PixelCache(tmp_path, 120_000)
    places = [tmp_path / "features" / f"{letter * 40}.safetensors" for letter in "abcd"]
    for days, file in zip((3, 5, 0), places, strict=False):
        keep(file, {"rows": torch.zeros(2_500)}, cache)
        used = time.time() - 86_400 * days
        os.utime(file, (used, used))
    keep(places[3], {"rows": torch.zeros(8_000)}, cache)
    assert files(tmp_path) == [places[0], places[2]]


# Images that cannot be read

SPOILERS: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "corrupt": lambda path: path.write_bytes(b"no image at all"),
    "gone": lambda path: path.unlink(),
}


@pytest.fixture
def cache(tmp_path: Path) -> PixelCache:
    (tmp_path / "cache").mkdir()
    return PixelCache(tmp_path / "cache", 10**9)


def told(found: Embeddings) -> list[tuple[str, str]]:
    return [(error.path, error.reason) for error in found.unreadable]


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_an_unreadable_image_is_told_and_left_out(
    encoder: Encoder,
    pictures: list[Path],
    cache: PixelCache,
    spoil: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a cache as without one, and again when the features of the others are taken from it."""
    spoil(pictures[2])
    plain = backbone_features(encoder, pictures, Compute(CPU, "float32"))
    found = backbone_features(encoder, pictures, Compute(CPU, "float32", cache=cache))
    monkeypatch.setattr(features, "embed", None)
    taken = backbone_features(encoder, pictures, Compute(CPU, "float32", cache=PixelCache(cache.folder, 10**9)))
    assert plain.image_ids.tolist() == [0, 1, 3, 4, 5]
    for other in (found, taken):
        assert told(other) == told(plain)
        assert torch.equal(other.rows, plain.rows)
        assert torch.equal(other.image_ids, plain.image_ids)


def test_only_unreadable_images(encoder: Encoder, pictures: list[Path], cache: PixelCache) -> None:
    for path, spoil in zip(pictures, 2 * list(SPOILERS.values()), strict=True):
        spoil(path)
    for _ in range(2):
        found = backbone_features(encoder, pictures, Compute(CPU, "float32", cache=cache))
        assert (len(found.rows), len(found.unreadable)) == (0, 6)


def test_where_the_unreadable_image_is_decides_the_name(encoder: Encoder, pictures: list[Path], cache: PixelCache) -> None:
    names = {feature_file(encoder, pictures, cache, 0)}
    for spoiled in (pictures[0], pictures[5]):
        content = spoiled.read_bytes()
        spoiled.unlink()
        names.add(feature_file(encoder, pictures, cache, 0))
        spoiled.write_bytes(content)
    assert len(names) == 3
    assert feature_file(encoder, pictures, cache, 0) in names


@pytest.mark.parametrize("vanishes", [True, False], ids=["vanishes", "appears"])
def test_nothing_is_kept_of_images_that_come_or_go_meanwhile(
    encoder: Encoder, pictures: list[Path], cache: PixelCache, vanishes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is of the contents before: what was embedded are others."""
    there, away = pictures[2], pictures[2].with_name("away.png")
    if not vanishes:
        there.rename(away)

    def embed(*args: Any, **kwargs: Any) -> Embeddings:
        there.rename(away) if vanishes else away.rename(there)
        return whole(*args, **kwargs)

    whole = features.embed
    with monkeypatch.context() as patched:
        patched.setattr(features, "embed", embed)
        found = backbone_features(encoder, pictures, Compute(CPU, "float32", cache=cache))
    assert len(found.unreadable) == vanishes
    assert not list(cache.folder.glob("features/*"))
    again = backbone_features(encoder, pictures, Compute(CPU, "float32", cache=cache))
    assert told(again) == told(found)
    assert torch.equal(again.rows, found.rows)


def test_an_image_that_vanishes_between_two_encoders_is_left_out_of_both(
    encoder: Encoder, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    other = build_encoder("timm/test_resnet", "none", 32)
    whole = features.embed

    def embed(*args: Any, **kwargs: Any) -> Embeddings:
        found = whole(*args, **kwargs)
        pictures[4].unlink(missing_ok=True)
        return found

    before = whole(encoder, pictures, Compute(CPU, "float32"))
    monkeypatch.setattr(features, "embed", embed)
    found = embed_with({"one": encoder, "other": other}, pictures, Compute(CPU, "float32"))
    assert told(found["one"]) == told(found["other"]) == [(str(pictures[4]), "file not found")]
    for embeddings in found.values():
        assert embeddings.image_ids.tolist() == [0, 1, 2, 3, 5]
    assert torch.equal(found["one"].rows, before.rows[[0, 1, 2, 3, 5]])
    assert not torch.equal(found["one"].rows, found["other"].rows)
