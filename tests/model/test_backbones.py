"""Networks of torchvision and timm: one vector per image, or a clear refusal."""

from pathlib import Path

import pytest
import torch

from ucdir.errors import UcdirError, UsageError
from ucdir.model.backbones import IMAGENET_MEAN, build_backbone

POOLED = {
    "torchvision/resnet18": 512,
    "torchvision/mobilenet_v2": 1280,
    "torchvision/mobilenet_v3_small": 576,
    "torchvision/shufflenet_v2_x0_5": 1024,
    "torchvision/squeezenet1_1": 512,
    "torchvision/convnext_tiny": 768,
    "torchvision/regnet_y_400mf": 440,
    "timm/test_resnet": 96,
    "timm/test_efficientnet": 256,
    "timm/test_convnext": 64,
    "timm/test_byobnet": 256,
}


@pytest.mark.parametrize("name", POOLED)
def test_gives_one_pooled_vector_per_image(name: str) -> None:
    """Its length does not depend on the size of the image."""
    backbone = build_backbone(name, 64)
    assert backbone.feature_dim == POOLED[name]
    with torch.no_grad():
        assert backbone.module.eval()(torch.zeros(2, 3, 96, 96)).shape == (2, POOLED[name])


@pytest.mark.parametrize("name", ["torchvision/inception_v3", "torchvision/googlenet", "timm/test_resnet"])
def test_gives_a_vector_in_training_mode_too(name: str) -> None:
    """Networks with auxiliary classifiers answer differently while they train."""
    backbone = build_backbone(name, 96)
    rows = backbone.module.train()(torch.randn(2, 3, 96, 96))
    assert rows.shape == (2, backbone.feature_dim)


def test_no_classifier_is_left() -> None:
    """All parameters take part in the features."""
    for name in ("torchvision/mobilenet_v2", "timm/test_resnet", "torchvision/squeezenet1_1"):
        module = build_backbone(name, 64).module.train()
        module(torch.randn(2, 3, 64, 64)).sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_the_scale_of_pixels() -> None:
    assert build_backbone("torchvision/resnet18", 32).mean == IMAGENET_MEAN
    timm = build_backbone("timm/test_resnet", 32)
    assert len(timm.mean) == len(timm.std) == 3


@pytest.mark.parametrize(
    ("name", "near"),
    [("torchvision/resnet5", "resnet50"), ("torchvision/mobilnet_v2", "mobilenet_v2"), ("timm/test_resnett", "test_resnet")],
)
def test_an_unknown_name_suggests_near_ones(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean .*{near}"):
        build_backbone(name, 64)


def test_a_name_like_no_other() -> None:
    with pytest.raises(UsageError, match="has no classification network 'qqqqqq'"):
        build_backbone("torchvision/qqqqqq", 64)


@pytest.mark.parametrize("name", ["resnet50", "keras/resnet50", "torchvision", "timm", "", "/"])
def test_a_name_without_library(name: str) -> None:
    with pytest.raises(UsageError, match="Write torchvision/NAME or timm/NAME"):
        build_backbone(name, 64)


@pytest.mark.parametrize(
    "name",
    [
        "torchvision/fasterrcnn_resnet50_fpn",
        "torchvision/maskrcnn_resnet50_fpn",
        "torchvision/deeplabv3_resnet50",
        "torchvision/r3d_18",
        "torchvision/raft_small",
        "torchvision/quantized_resnet18",
        "torchvision/",
        "timm/",
    ],
)
def test_networks_that_do_not_classify_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"has no (classification )?network"):
        build_backbone(name, 64)


@pytest.mark.parametrize(("name", "size"), [("torchvision/squeezenet1_1", 16), ("timm/test_vit", 40)])
def test_an_image_size_that_the_network_refuses(name: str, size: int) -> None:
    with pytest.raises(UsageError, match=f"refuses images of {size} px .*Use another --image-size"):
        build_backbone(name, size)


# The libraries' own weights


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and nothing fetched before."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # it remembers the proxies of the first who asked: put back afterwards
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # without it five retries take half a minute


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "timm/test_resnet"])
def test_weights_that_cannot_be_fetched(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UcdirError, match=r"could not be downloaded.*--weights PATH, or --weights none"):
        build_backbone(name, 64, pretrained=True)


def test_a_network_that_comes_without_weights() -> None:
    with pytest.raises(UsageError, match=r"timm has no weights for 'lcnet_035'.*--weights PATH.*--weights none"):
        build_backbone("timm/lcnet_035", 64, pretrained=True)
