"""The backbone in less time: the same features."""

import numpy as np
import pytest
import torch

from ucdir.model import fast_backbone as module
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.model.fast_backbone import QuickBackbone

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return build_encoder("timm/test_resnet", "none", 32)


@pytest.fixture
def views() -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(3, 3, 32, 32), dtype=np.uint8)


def by_torch(encoder: Encoder, views: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return encoder.features(torch.from_numpy(views)).numpy()


def test_folded_batch_norms_leave_the_features_as_they_were(encoder: Encoder, views: np.ndarray) -> None:
    quick = QuickBackbone(encoder, CPU, "float32")
    assert quick.runtime == "torch"
    np.testing.assert_allclose(quick(views), by_torch(encoder, views), rtol=2e-3, atol=1e-3)


def test_the_exported_backbone_gives_the_same_features_for_any_number_of_views(encoder: Encoder, views: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    quick = QuickBackbone(encoder, CPU, "float32", exported=True)
    assert quick.runtime == "onnxruntime"
    for count in (3, 1, 2):
        np.testing.assert_allclose(quick(views[:count]), by_torch(encoder, views[:count]), rtol=2e-3, atol=1e-3)
    assert quick._session is not None
    assert np.array_equal(quick(views), quick(views))


def test_a_backbone_that_cannot_be_exported_runs_in_torch(
    encoder: Encoder, views: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("unsupported operator")

    monkeypatch.setattr("ucdir.model.export._export", refuse)
    quick = QuickBackbone(encoder, CPU, "float32", exported=True)
    np.testing.assert_allclose(quick(views), by_torch(encoder, views), rtol=2e-3, atol=1e-3)
    assert np.array_equal(quick(views), QuickBackbone(encoder, CPU, "float32")(views))


def test_without_onnxruntime_and_in_bfloat16_torch_computes(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert QuickBackbone(encoder, CPU, "bfloat16", exported=True).runtime == "torch"
    monkeypatch.setattr(module, "can_export", lambda: False)
    assert QuickBackbone(encoder, CPU, "float32", exported=True).runtime == "torch"
