"""Features of views, kept image by image; and images as members of a domain that an encoder knows."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ucdir.embedding import view_features as module
from ucdir.embedding.compute import Compute
from ucdir.embedding.domain_members import Members, embed_members
from ucdir.embedding.view_features import view_features
from ucdir.errors import UsageError
from ucdir.images.pixel_cache import PixelCache
from ucdir.model.alignment import Alignment, DomainMemory
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.model.encoder_folder import EncoderConfig

CPU, VIEWS = torch.device("cpu"), ("plain", "crop-1")


@pytest.fixture(scope="module")
def frozen() -> Encoder:
    torch.manual_seed(0)
    return build_encoder("timm/test_resnet", "none", 32)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Five images, a file that is none, and one that is not there."""
    for number in range(5):
        pixels = np.random.default_rng(number).integers(256, size=(30, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return [tmp_path / f"{name}.png" for name in ("0", "1", "broken", "2", "gone", "3", "4")]


def digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def test_features_come_in_the_order_of_contents(frozen: Encoder, pictures: list[Path]) -> None:
    found = view_features(frozen, pictures, VIEWS, Compute(CPU, "float32"))
    assert found.values.shape == (5, 2, frozen.config.feature_dim)
    assert [content.tobytes() for content in found.contents] == sorted(digest(pictures[i]) for i in (0, 1, 3, 5, 6))
    assert [digest(pictures[i]) for i in found.image_ids] == [content.tobytes() for content in found.contents]
    assert {Path(error.path).name for error in found.unreadable} == {"broken.png", "gone.png"}


def test_renamed_files_in_another_order_have_the_same_features(frozen: Encoder, pictures: list[Path], tmp_path: Path) -> None:
    found = view_features(frozen, pictures, VIEWS, Compute(CPU, "float32"))
    renamed = []
    for number, path in enumerate(reversed([path for path in pictures if path.stem.isdigit()])):
        renamed.append(tmp_path / f"other-{number}.png")
        path.rename(renamed[-1])
    again = view_features(frozen, renamed, VIEWS, Compute(CPU, "float32"))
    assert np.array_equal(found.values, again.values)
    assert np.array_equal(found.contents, again.contents)


def test_no_feature_is_computed_twice(
    frozen: Encoder, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PixelCache(tmp_path, 10**9)
    first = view_features(frozen, pictures[:4], VIEWS, Compute(CPU, "float32", cache=cache))
    made: list[bytes] = []
    compute = module._Store.compute

    def noted(self: module._Store, content: bytes, views: np.ndarray) -> np.ndarray:
        made.append(content)
        return compute(self, content, views)

    monkeypatch.setattr(module._Store, "compute", noted)
    everything = view_features(frozen, pictures, VIEWS, Compute(CPU, "float32", cache=cache))
    assert sorted(made) == sorted(digest(path) for path in pictures[5:])
    rows = {content.tobytes(): values for content, values in zip(everything.contents, everything.values, strict=True)}
    for content, values in zip(first.contents, first.values, strict=True):
        assert np.array_equal(rows[content.tobytes()], values)


def test_features_of_many_images_lie_in_a_file(frozen: Encoder, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = view_features(frozen, pictures, VIEWS, Compute(CPU, "float32"))
    monkeypatch.setattr(module, "MAX_BYTES_IN_MEMORY", 0)
    mapped = view_features(frozen, pictures, VIEWS, Compute(CPU, "float32"))
    assert isinstance(mapped.values.base, np.memmap) or isinstance(mapped.values, np.memmap)
    assert np.array_equal(in_memory.values, mapped.values)


@pytest.fixture
def members(frozen: Encoder, pictures: list[Path]) -> Members:
    """Of an encoder that has learned from the first two pictures."""
    contents = torch.from_numpy(np.stack([np.frombuffer(digest(path), np.uint8) for path in pictures[:2]]).copy())
    memories = [DomainMemory(torch.zeros(4), torch.eye(4)[:2].half(), torch.eye(3)[:2].half(), contents) for _ in range(2)]
    from ucdir.learn.domain_recognition import learn_recogniser

    width = frozen.config.feature_dim
    alignment = Alignment(
        torch.tensor([0.5, 0.5]), torch.randn(width, 4), memories, learn_recogniser([torch.randn(9, width)] * 2)
    )
    fields = {**frozen.config.__dict__, "dim": 3, "domains": ("photo", "sketch"), "views": VIEWS, "rows": "aligned"}
    return Members.of(Encoder(frozen.backbone, EncoderConfig(**fields), alignment), "sketch")


def test_images_that_were_learned_from_have_the_embedding_of_then(members: Members, pictures: list[Path]) -> None:
    found = embed_members(members, pictures, Compute(CPU, "float32"))
    assert found.image_ids.tolist() == [0, 1, 3, 5, 6]
    assert torch.equal(found.rows[:2], torch.eye(3)[:2])
    assert torch.allclose(found.rows.norm(dim=1), torch.ones(5), atol=1e-3)
    assert {Path(error.path).name for error in found.unreadable} == {"broken.png", "gone.png"}


def test_new_images_can_be_seen_in_fewer_views(members: Members, pictures: list[Path]) -> None:
    all_views, one = (embed_members(members, pictures, Compute(CPU, "float32"), views=views).rows for views in (None, 1))
    assert torch.equal(all_views[:2], one[:2])
    assert not torch.allclose(all_views[2:], one[2:])


def test_a_domain_without_a_name_ends_in_a_sentence(members: Members) -> None:
    with pytest.raises(UsageError, match=r"trained on 'photo', 'sketch', not on domain 'painting'.*--as NAME"):
        Members.of(members.encoder, "painting")
