"""Encoders: what they give, that saving and loading is the identity, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from ucdir.errors import UcdirError, UsageError
from ucdir.model.encoder import Encoder, build_encoder, with_start

SMALL = "timm/test_resnet"


def images(n: int = 3, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def drawn(dim: int | None = 8, seed: int = 0, hidden: int | None = None) -> Encoder:
    torch.manual_seed(seed)
    return build_encoder(SMALL, "none", 32, dim, hidden)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "encoder"
    drawn().save(folder, "A note.")
    return folder


# What an encoder gives


@pytest.mark.parametrize(("dim", "length"), [(8, 8), (None, 96)])
def test_unit_rows(dim: int | None, length: int) -> None:
    rows = drawn(dim)(images())
    assert rows.shape == (3, length)
    assert rows.dtype == torch.float32
    assert_close(rows.norm(dim=1), torch.ones(3))


def test_the_head_is_as_wide_as_the_features_unless_told() -> None:
    assert drawn(8).config.hidden == 96
    encoder = drawn(8, hidden=20)
    assert [tuple(p.shape) for p in encoder.head.parameters()] == [(20, 96), (20,), (8, 20), (8,)]
    assert drawn(None).head is None


def test_an_image_is_embedded_alone() -> None:
    """In evaluation mode the rest of the batch does not matter."""
    encoder = drawn()
    assert not encoder.training
    assert_close(encoder(images(5))[2:3], encoder(images(5)[2:3]), rtol=1e-4, atol=1e-5)


def test_pixels_are_normalised_inside() -> None:
    """The mean colour of the training set is the zero of the network."""
    encoder = drawn(None)
    seen = []
    encoder.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    encoder(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    encoder(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    mean, std = encoder.config.mean, encoder.config.std
    assert_close(seen[0][0, :, 0, 0], torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]))
    assert_close(seen[1][0, :, 0, 0], torch.tensor([(1 - m) / s for m, s in zip(mean, std, strict=True)]))


def test_rows_are_float32_under_mixed_precision() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = drawn()(images())
    assert rows.dtype == torch.float32
    assert_close(rows.norm(dim=1), torch.ones(3))


def test_the_same_seed_gives_the_same_encoder() -> None:
    assert drawn(seed=4).fingerprint() == drawn(seed=4).fingerprint() != drawn(seed=5).fingerprint()


# Save and load


@pytest.mark.parametrize("dim", [8, None])
def test_load_gives_back_what_was_saved(dim: int | None, tmp_path: Path) -> None:
    encoder = drawn(dim)
    encoder.train()
    encoder(images(8))  # running statistics move
    encoder.eval()
    encoder.save(tmp_path / "deep" / "encoder")
    loaded = Encoder.load(tmp_path / "deep" / "encoder")
    assert loaded.config == encoder.config
    assert loaded.fingerprint() == encoder.fingerprint()
    assert torch.equal(loaded(images()), encoder(images()))
    assert not loaded.training
    assert sorted(path.name for path in (tmp_path / "deep" / "encoder").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_saving_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    encoder = drawn()
    for name in ("one", "two"):
        encoder.save(tmp_path / name)
    for file in ("model.safetensors", "config.json", "README.md"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_saving_over_an_encoder_replaces_it(saved: Path) -> None:
    other = drawn(seed=1)
    other.save(saved)
    assert Encoder.load(saved).fingerprint() == other.fingerprint()
    assert len(list(saved.iterdir())) == 3


def test_saving_does_not_change_the_encoder(tmp_path: Path) -> None:
    encoder = drawn().train()
    before = encoder.fingerprint()
    encoder.save(tmp_path / "encoder")
    assert encoder.fingerprint() == before
    assert encoder.training


def test_memory_format_does_not_matter(tmp_path: Path) -> None:
    encoder = drawn()
    before = encoder.fingerprint()
    encoder.to(memory_format=torch.channels_last)
    assert encoder.fingerprint() == before
    encoder.save(tmp_path / "encoder")
    assert Encoder.load(tmp_path / "encoder").fingerprint() == before


def test_the_card_tells_what_it_is(saved: Path) -> None:
    card = (saved / "README.md").read_text()
    for text in (SMALL, "32 px", "96 -> 96 -> 8", "random numbers", Encoder.load(saved).fingerprint(), "A note."):
        assert text in card


# Fingerprints


def all_tensors() -> list[str]:
    return [name for name, value in drawn().state_dict().items() if value.is_floating_point()]


@pytest.mark.parametrize(
    "name", ["backbone.conv1.0.weight", "backbone.bn1.running_mean", "head.2.bias", "backbone.layer1.0.bn1.bias"]
)
def test_the_fingerprint_changes_with_any_tensor(name: str) -> None:
    encoder = drawn()
    before = encoder.fingerprint()
    assert name in all_tensors()
    encoder.state_dict()[name].view(-1)[-1].add_(1e-3)
    assert encoder.fingerprint() != before


@pytest.mark.parametrize(
    "change", [{"image_size": 64}, {"mean": (0.0, 0.0, 0.0)}, {"std": (1.0, 1.0, 1.0)}, {"backbone": "timm/other"}]
)
def test_the_fingerprint_changes_with_what_decides_an_embedding(change: dict[str, object]) -> None:
    encoder = drawn()
    before = encoder.fingerprint()
    encoder.config = replace(encoder.config, **change)
    assert encoder.fingerprint() != before


def test_the_fingerprint_does_not_depend_on_where_training_started() -> None:
    encoder = drawn()
    before = encoder.fingerprint()
    assert with_start(encoder, "elsewhere").fingerprint() == before
    assert encoder.config.start == "elsewhere"


# Damaged folders


@pytest.mark.parametrize("absent", ["config.json", "model.safetensors"])
def test_a_missing_file(saved: Path, absent: str) -> None:
    (saved / absent).unlink()
    with pytest.raises(UcdirError, match=r"is not an encoder folder: expected model.safetensors and config.json"):
        Encoder.load(saved)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UcdirError, match="nowhere' is not an encoder folder"):
        Encoder.load(tmp_path / "nowhere")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(saved: Path, share: float) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(UcdirError, match="is damaged"):
        Encoder.load(saved)


@pytest.mark.parametrize("content", [b"garbage", bytes(10_000)])
def test_garbage_weights(saved: Path, content: bytes) -> None:
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(UcdirError, match="is damaged"):
        Encoder.load(saved)


def without_a_tensor(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["head.0.weight"]


def with_another_tensor(tensors: dict[str, torch.Tensor]) -> None:
    tensors["more"] = torch.ones(1)


def with_another_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["head.0.weight"] = torch.ones(2, 2)


@pytest.mark.parametrize("change", [without_a_tensor, with_another_tensor, with_another_shape])
def test_weights_of_another_network(saved: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(saved / "model.safetensors")
    change(tensors)
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(UcdirError, match="is damaged"):
        Encoder.load(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"text"', "{}", '{"format_version": 1}', "\udce4"])
def test_a_config_that_is_none(saved: Path, text: str) -> None:
    (saved / "config.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UcdirError, match=r"config\.json is invalid"):
        Encoder.load(saved)


def edited(folder: Path, **change: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": "one"},
        {"format_version": None},
        {"mean": 3},
        {"mean": [0.5, 0.5]},
        {"mean": ["a", "b", "c"]},
        {"std": None},
        {"image_size": "32"},
        {"image_size": -1},
        {"backbone": 7},
        {"dim": "8"},
        {"dim": -8},
        {"hidden": 2.5},
        {"feature_dim": 95},
    ],
    ids=str,
)
def test_a_config_with_wrong_values(saved: Path, change: dict[str, object]) -> None:
    edited(saved, **change)
    with pytest.raises(UcdirError, match=r"is damaged|refuses images"):
        Encoder.load(saved)


def test_a_newer_format(saved: Path) -> None:
    edited(saved, format_version=3)
    with pytest.raises(UcdirError, match=r"has format 3, this ucdir reads up to 2\. Update ucdir"):
        Encoder.load(saved)


def test_a_network_that_the_library_no_longer_has(saved: Path) -> None:
    edited(saved, backbone="timm/test_resnett")
    with pytest.raises(UcdirError, match="Did you mean"):
        Encoder.load(saved)


# Places that cannot be written


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "encoder").write_text("mine")
    with pytest.raises(UcdirError, match="could not write"):
        drawn().save(tmp_path / "encoder")
    assert (tmp_path / "encoder").read_text() == "mine"


def test_a_full_disk_is_said(small_disk: Path) -> None:
    with pytest.raises(UcdirError, match=r"could not write .*model\.safetensors.*Is the disk full"):
        build_encoder("timm/test_resnet", "none", 32).save(small_disk / "encoder")
    assert not list(small_disk.iterdir())


def test_unknown_start_is_refused_before_anything_is_built() -> None:
    with pytest.raises(UcdirError, match=r"pretrained weights not found: 'nowhere\.pth'"):
        build_encoder(SMALL, "nowhere.pth", 32, 8)


def test_unknown_library() -> None:
    with pytest.raises(UsageError, match="unknown backbone 'keras/resnet50'"):
        build_encoder("keras/resnet50", "none", 32, 8)
