"""What a backbone gave is kept where there is room for it, and a run without room is as good."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ucdir.data.cache import PixelCache
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.retrieval.features import backbone_features, keep

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
    plain = backbone_features(encoder, pictures, CPU, "float32")
    cache = PixelCache(small_disk, 10**9)
    found = backbone_features(encoder, pictures, CPU, "float32", cache=cache)
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
    found = backbone_features(encoder, pictures, CPU, "float32", cache=cache)
    (kept,) = (folder / "features").iterdir()
    assert size(folder) <= LIMIT
    assert size(folder) <= cache.held
    assert PixelCache(folder, LIMIT).held == size(folder)
    cache = PixelCache(folder, LIMIT)
    assert torch.equal(backbone_features(encoder, pictures, CPU, "float32", cache=cache).rows, found.rows)
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
