"""What a backbone gave is kept where there is room for it, and a run without room is as good."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ucdir.data.cache import PixelCache
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.retrieval.features import backbone_features

CPU = torch.device("cpu")


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


def test_a_full_disk_ends_nothing(encoder: Encoder, pictures: list[Path], small_disk: Path) -> None:
    (small_disk / "rest").write_bytes(bytes(60_000))
    plain = backbone_features(encoder, pictures, CPU, "float32")
    found = backbone_features(encoder, pictures, CPU, "float32", cache=PixelCache(small_disk, 10**9))
    assert torch.equal(found.rows, plain.rows)
    assert not list((small_disk / "features").iterdir())
