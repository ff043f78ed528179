"""Weights from elsewhere: every layout is recognised, a poor match is refused, nothing falls back to random numbers."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ucdir.errors import UcdirError
from ucdir.model.backbones import build_backbone
from ucdir.model.encoder import build_encoder
from ucdir.model.pretrained import load_weights

pytestmark = pytest.mark.slow

RESNET = "torchvision/resnet18"
HIDDEN, DIM = 512, 16


def fresh(name: str = RESNET) -> nn.Module:
    return build_backbone(name, 64).module


def head(hidden: int = HIDDEN, dim: int = DIM) -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, hidden), nn.ReLU(), nn.Linear(hidden, dim))


def equal(module: nn.Module, tensors: dict[str, Tensor], prefix: str = "") -> bool:
    return all(torch.equal(value, tensors[prefix + name]) for name, value in module.state_dict().items())


def wanted(module: nn.Module) -> int:
    return sum(not name.endswith("num_batches_tracked") for name in module.state_dict())


def moco_file(file: Path, network: nn.Module, top: nn.Module) -> dict[str, Tensor]:
    """A MoCo v2 checkpoint in its full layout, drawn at random; gives its state dict."""
    query = {f"module.encoder_q.{name}": value for name, value in network.state_dict().items()}
    query |= {f"module.encoder_q.fc.{name}": value for name, value in top.state_dict().items()}
    key = {name.replace("encoder_q", "encoder_k"): value * 0.5 for name, value in query.items()}
    queue = {"module.queue": torch.randn(DIM, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    optimizer = torch.optim.SGD(network.parameters(), 0.03, momentum=0.9)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones_like(group["params"][0])
    optimizer.step()
    state = {name: value.clone() for name, value in (query | key | queue).items()}
    torch.save({"epoch": 800, "arch": "resnet", "state_dict": state, "optimizer": optimizer.state_dict()}, file)
    return state


@pytest.fixture
def moco(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    torch.manual_seed(1)
    file = tmp_path / "moco.pth.tar"
    return file, moco_file(file, fresh(), head())


# MoCo v2


def test_moco_v2_with_its_head(moco: tuple[Path, dict[str, Tensor]]) -> None:
    file, state = moco
    backbone, top = fresh(), head()
    report = load_weights(file, backbone, top)
    assert equal(backbone, state, "module.encoder_q.")
    assert equal(top, state, "module.encoder_q.fc.")
    assert (report.matched, report.wanted) == (wanted(backbone), wanted(backbone))
    assert (report.head_matched, report.head_wanted) == (4, 4)
    assert (report.unused, report.prefix, report.source) == ((), "module.encoder_q.", "moco.pth.tar")
    assert report.sentence() == "weights 'moco.pth.tar': 100 of 100 backbone tensors, projection head 4 of 4"
    rows = [line.split(",") for line in report.table().splitlines()]
    assert rows[0] == ["ours", "in_file", "shape"]
    assert ["backbone.conv1.weight", "module.encoder_q.conv1.weight", "64 x 3 x 7 x 7"] in rows
    assert ["head.2.bias", "module.encoder_q.fc.2.bias", "16"] in rows
    assert {name for name, _, _ in rows[1:]} == {
        *(f"backbone.{name}" for name in backbone.state_dict()),
        *(f"head.{name}" for name in top.state_dict()),
    }


@pytest.mark.parametrize(("hidden", "dim"), [(HIDDEN, 8), (64, DIM)])
def test_a_head_of_another_shape_starts_at_random_and_says_so(
    moco: tuple[Path, dict[str, Tensor]], hidden: int, dim: int
) -> None:
    top = head(hidden, dim)
    before = {name: value.clone() for name, value in top.state_dict().items()}
    report = load_weights(moco[0], fresh(), top)
    assert equal(top, before)
    assert report.head_matched == 0
    assert "it starts from random numbers" in report.sentence()
    assert len(report.unused) == 4
    assert ",module.encoder_q.fc.0.weight," in report.table()


def test_without_a_head(moco: tuple[Path, dict[str, Tensor]]) -> None:
    report = load_weights(moco[0], fresh(), None)
    assert report.head_wanted == 0
    assert "no projection head wanted" in report.sentence()


def test_the_papers_start_resnet50(tmp_path: Path) -> None:
    """Through `build_encoder`, as the presets do: 265 tensors of the backbone and the 2048-2048-128 head."""
    torch.manual_seed(2)
    network = fresh("torchvision/resnet50")
    top = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 128))
    state = moco_file(tmp_path / "moco_v2_800ep_pretrain.pth.tar", network, top)
    encoder = build_encoder("torchvision/resnet50", str(tmp_path / "moco_v2_800ep_pretrain.pth.tar"), 64, 128)
    assert equal(encoder.backbone, state, "module.encoder_q.")
    assert equal(encoder.head, state, "module.encoder_q.fc.")
    assert "265 of 265 backbone tensors, projection head 4 of 4" in encoder.config.start
    assert encoder.loaded is not None
    assert len(encoder.loaded.filled) == 265 + 53 + 4  # with the counters of batch norm


# Other layouts


def plain(state: dict[str, Tensor]) -> dict[str, object]:
    return state


def with_classifier(state: dict[str, Tensor]) -> dict[str, object]:
    return state | {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}


def wrapped(state: dict[str, Tensor]) -> dict[str, object]:
    return {"epoch": 3, "state_dict": state}


def parallel(state: dict[str, Tensor]) -> dict[str, object]:
    return {"model": {f"module.{name}": value for name, value in state.items()}}


def lightly(state: dict[str, Tensor]) -> dict[str, object]:
    return {f"backbone.{name}": value for name, value in state.items()}


def without_counters(state: dict[str, Tensor]) -> dict[str, object]:
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("layout", [plain, with_classifier, wrapped, parallel, lightly, without_counters])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_state_dicts(layout: Callable[[dict[str, Tensor]], dict[str, object]], suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = fresh()
    torch.save(layout(source.state_dict()), tmp_path / f"weights{suffix}")
    backbone = fresh()
    report = load_weights(tmp_path / f"weights{suffix}", backbone, head())
    assert equal(backbone, source.state_dict())
    assert report.matched == wanted(source)
    assert report.head_matched == 0


@pytest.mark.parametrize("name", [RESNET, "timm/test_resnet", "torchvision/mobilenet_v2"])
def test_safetensors(name: str, tmp_path: Path) -> None:
    torch.manual_seed(4)
    source, backbone = fresh(name), fresh(name)
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, tmp_path / "w.safetensors")
    report = load_weights(tmp_path / "w.safetensors", backbone, None)
    assert equal(backbone, source.state_dict())
    assert report.matched == report.wanted


def test_torchvision_weights_fit_the_same_network_of_timm(tmp_path: Path) -> None:
    source = fresh("torchvision/resnet18")
    torch.save(source.state_dict(), tmp_path / "resnet18.pth")
    backbone = fresh("timm/resnet18")
    load_weights(tmp_path / "resnet18.pth", backbone, None)
    assert equal(backbone, source.state_dict())


def test_our_own_encoder_folder_with_its_head(tmp_path: Path) -> None:
    torch.manual_seed(5)
    source = build_encoder("timm/test_resnet", "none", 32, 8)
    source.save(tmp_path / "encoder")
    encoder = build_encoder("timm/test_resnet", str(tmp_path / "encoder"), 32, 8)
    assert encoder.fingerprint() == source.fingerprint()
    assert "projection head 4 of 4" in encoder.config.start


def test_our_own_encoder_folder_of_another_length_or_without_head(tmp_path: Path) -> None:
    source = build_encoder("timm/test_resnet", "none", 32, 8)
    source.save(tmp_path / "encoder")
    other = build_encoder("timm/test_resnet", str(tmp_path / "encoder"), 32, 4)
    assert "it starts from random numbers" in other.config.start
    bare = build_encoder("timm/test_resnet", str(tmp_path / "encoder"), 32)
    assert bare.head is None
    assert equal(bare.backbone, source.backbone.state_dict())


# Refusals: nothing is filled, and the reason is said


def unchanged(path: Path, match: str, name: str = RESNET) -> None:
    """Loading `path` fails with `match` and leaves the network as it was."""
    backbone, top = fresh(name), head()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(UcdirError, match=match):
        load_weights(path, backbone, top)
    assert equal(backbone, before)


def test_the_weights_of_another_network_are_refused_with_counts(moco: tuple[Path, dict[str, Tensor]]) -> None:
    file = re.escape(str(moco[0]))
    unchanged(moco[0], rf"weights '{file}' fill only \d+ of the 260 tensors of the backbone \(no ", "torchvision/mobilenet_v2")
    unchanged(moco[0], r"fill only \d+ of the 180 tensors .*matching --backbone", "torchvision/resnet34")


def test_another_shape_is_shown(tmp_path: Path) -> None:
    torch.save(fresh().state_dict() | {"conv1.weight": torch.ones(64, 1, 7, 7)}, tmp_path / "grey.pth")
    unchanged(tmp_path / "grey.pth", r"99 of the 100 .*conv1.weight \(64, 1, 7, 7\) where \(64, 3, 7, 7\) is needed")


def test_one_missing_tensor_is_refused(tmp_path: Path) -> None:
    state = fresh().state_dict()
    del state["layer4.1.bn2.running_var"]
    torch.save(state, tmp_path / "short.pth")
    unchanged(tmp_path / "short.pth", r"99 of the 100 .*no layer4.1.bn2.running_var")


@pytest.mark.parametrize("name", ["nowhere.pth", "nowhere.safetensors", "deep/er"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    unchanged(tmp_path / name, r"pretrained weights not found: '.*nowhere|deep/er'")


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".safetensors", ".bin"])
@pytest.mark.parametrize("content", [b"", b"garbage, no weights at all", bytes(5000), b"PK\x03\x04broken", b"\x80\x04."])
def test_garbage(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"w{suffix}").write_bytes(content)
    unchanged(tmp_path / f"w{suffix}", r"weights '.*' (cannot be read|hold no state dict)")


@pytest.mark.parametrize("name", ["weights", "weights.bin", "weights.pth"])
def test_safetensors_are_known_by_what_they_hold(tmp_path: Path, name: str) -> None:
    """Model hubs and links call them anything."""
    save_file(fresh().state_dict(), tmp_path / name)
    assert load_weights(tmp_path / name, fresh(), None).matched == 100


def test_a_pickle_of_something_else_is_told_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"\x80\x02garbage")
    unchanged(tmp_path / "w.pth", r"w\.pth' cannot be read: the pickle contains more than tensors; .* can run code\. Download")


def test_a_truncated_file(moco: tuple[Path, dict[str, Tensor]]) -> None:
    file = moco[0]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    unchanged(file, "cannot be read")


@pytest.mark.parametrize("content", [{}, [], 3, {"a": 1}, {"state_dict": {}}, torch.ones(3), {"state_dict": None}])
def test_a_file_without_named_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    unchanged(tmp_path / "w.pth", "contain no state dict")


def test_a_folder_that_is_no_encoder(tmp_path: Path) -> None:
    unchanged(tmp_path, "contains no model.safetensors")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.file), "w")


def test_code_in_a_weights_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": fresh().state_dict(), "more": Bomb(tmp_path / "fired")}, tmp_path / "w.pth")
    unchanged(tmp_path / "w.pth", "cannot be read")
    assert not (tmp_path / "fired").exists()
