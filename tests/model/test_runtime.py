"""The exported encoder gives what the weights give, and never stands in for other weights."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from ucdir.errors import UcdirError, UsageError
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.model.export import export_onnx
from ucdir.model.runtime import OnnxEncoder, is_exported, load_query_encoder
from ucdir.model.torch_runtime import TorchEncoder

pytestmark = pytest.mark.slow

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


def views(count, size=32):
    return np.random.default_rng(count).integers(0, 256, (count, 3, size, size), np.uint8)


def made(folder, seed=0, backbone="timm/test_resnet"):
    torch.manual_seed(seed)
    encoder = build_encoder(backbone, "none", 32, dim=16, hidden=16)
    encoder.save(folder)
    return encoder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    made(folder)
    assert export_onnx(folder) < 1e-5
    return folder


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_export_gives_what_the_weights_give(exported, count):
    expected = TorchEncoder(exported, "cpu", "float32")(views(count)).rows
    found = OnnxEncoder(exported)(views(count)).rows
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_every_runtime_tells_the_same_fingerprint(exported):
    expected = Encoder.load(exported).fingerprint()
    for runtime in ("auto", "onnx", "torch"):
        loaded = load_query_encoder(exported, runtime=runtime)
        assert (loaded.fingerprint, loaded.image_size) == (expected, 32)
    assert isinstance(load_query_encoder(exported), OnnxEncoder)
    assert isinstance(load_query_encoder(exported, precision="bfloat16"), TorchEncoder)
    with pytest.raises(UsageError, match=r"--runtime 'fast' is unknown. Use one of: auto, torch, onnx"):
        load_query_encoder(exported, runtime="fast")


def test_an_export_of_other_weights_is_not_used(tmp_path):
    made(tmp_path / "e")
    export_onnx(tmp_path / "e")
    assert is_exported(tmp_path / "e")
    other = made(tmp_path / "e", seed=1)
    assert not is_exported(tmp_path / "e")
    assert load_query_encoder(tmp_path / "e").fingerprint == other.fingerprint()
    with pytest.raises(UcdirError, match=r"contains no export of its weights. Make one with: ucdir export"):
        load_query_encoder(tmp_path / "e", runtime="onnx")


def test_a_damaged_export_is_named(tmp_path):
    made(tmp_path / "e")
    export_onnx(tmp_path / "e")
    (tmp_path / "e" / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(UcdirError, match=r"model.onnx' is damaged. Recreate it with: ucdir export"):
        load_query_encoder(tmp_path / "e")
    (tmp_path / "e" / "model.onnx.json").write_text("[")
    assert isinstance(load_query_encoder(tmp_path / "e"), TorchEncoder)
    assert json.loads((tmp_path / "e" / "config.json").read_text())["image_size"] == 32


def test_searching_with_an_exported_encoder_needs_no_torch(exported, tmp_path):
    """In a process of its own: a gallery is opened and searched, and nothing that takes seconds is imported."""
    from PIL import Image

    from ucdir.commands.index import index

    for number in range(3):
        Image.new("RGB", (40, 40), (80 * number, 9, 9)).save(tmp_path / f"{number}.png")
    index(exported, [f"all={tmp_path}"], tmp_path / "g", device="cpu")
    script = (
        "import sys; from ucdir.cli import app; "
        f"app(['search', {str(tmp_path / 'g')!r}, {str(tmp_path / '1.png')!r}, '-k', '1'], result_action='return_none'); "
        "print([name for name in ('torch', 'torchvision', 'timm', 'pandas') if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "[]"
    assert "1.png" in finished.stdout


def test_an_exported_encoder_reports_to_nobody(exported, tmp_path):
    """onnxruntime leaves a session file of its reporting in the temporary folder as soon as it opens a model."""
    script = f"from pathlib import Path; from ucdir.model.runtime import OnnxEncoder; OnnxEncoder(Path({str(exported)!r}))"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", script], check=True, env={**environment, "TMPDIR": str(tmp_path)})
    assert not list((tmp_path).iterdir())
