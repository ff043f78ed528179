"""The encoder as searching needs it: views in, unit rows out. Exported encoders run without torch and start at once."""

import hashlib
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ucdir.errors import UcdirError, UsageError
from ucdir.model.folder import WEIGHTS, encoder_folder, read_config

EXPORTED = "model.onnx"
RUNTIMES = ("auto", "torch", "onnx")


class QueryEncoder(Protocol):
    """Evaluation views -> embeddings."""

    @property
    def fingerprint(self) -> str:
        """Of the encoder; the same for every runtime."""

    @property
    def image_size(self) -> int:
        """Side of the views in pixels."""

    def __call__(self, views: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) uint8 -> (N, D) float32 unit rows."""


def load_query_encoder(path: Path, device: str = "auto", precision: str = "auto", runtime: str = "auto") -> QueryEncoder:
    """Load an encoder for searching.

    path       run or encoder folder
    runtime    onnx: the exported encoder, on the CPU in float32; torch: the weights; auto: the exported one where it is
               there, up to date, its runtime installed and no other device or precision asked for
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"--runtime '{runtime}' is unknown. Use one of: {', '.join(RUNTIMES)}.")
    folder = encoder_folder(path)
    if runtime == "onnx":
        return OnnxEncoder(folder)
    light = device in ("auto", "cpu") and precision in ("auto", "float32") and find_spec("onnxruntime") is not None
    if runtime == "auto" and light and is_exported(folder):
        return OnnxEncoder(folder)
    from ucdir.model.torch_runtime import TorchEncoder

    return TorchEncoder(folder, device, precision)


def is_exported(folder: Path) -> bool:
    """Whether an export of the weights that lie there now is in an encoder folder."""
    return _note(folder).get("weights") == weights_digest(folder)


def weights_digest(folder: Path) -> str:
    """Hex digest of the file of weights."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class OnnxEncoder:
    """An exported encoder in onnxruntime."""

    def __init__(self, folder: Path) -> None:
        """Open the export in an encoder folder; UcdirError when it is missing, outdated or damaged."""
        config = read_config(folder)
        if find_spec("onnxruntime") is None:
            raise UcdirError("onnxruntime is not installed. Run: pip install 'ucdir[onnx]', or use --runtime torch.")
        if not is_exported(folder):
            raise UcdirError(f"'{folder}' holds no export of its weights. Make one with: ucdir export {folder}")
        try:
            self._session = _silent_onnxruntime().InferenceSession(folder / EXPORTED, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises types of its own
            raise UcdirError(f"'{folder / EXPORTED}' is damaged. Make it again with: ucdir export {folder}") from error
        self.fingerprint: str = _note(folder)["fingerprint"]
        self.image_size = config.image_size

    def __call__(self, views: np.ndarray) -> np.ndarray:
        """See `QueryEncoder`."""
        (rows,) = self._session.run(None, {"pixels": views})
        return np.asarray(rows)


def _silent_onnxruntime() -> Any:
    """onnxruntime, which since 1.32 reports its use over the network unless this is said before it is imported."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def write_note(folder: Path, fingerprint: str) -> str:
    """What lies beside an export as JSON text: which weights and which encoder it was made from."""
    return json.dumps({"weights": weights_digest(folder), "fingerprint": fingerprint}, indent=2) + "\n"


def _note(folder: Path) -> dict[str, Any]:
    try:
        note = json.loads((folder / f"{EXPORTED}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and (folder / EXPORTED).is_file() else {}
