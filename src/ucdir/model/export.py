"""An encoder folder gets a `model.onnx`, so that searching starts without torch."""

import io
import logging
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ucdir.errors import UcdirError
from ucdir.model.encoder import Encoder
from ucdir.model.runtime import EXPORTED, OnnxEncoder, open_session, write_note
from ucdir.storage import atomic_file, write_text

TOLERANCE = 1e-4
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def can_export() -> bool:
    """Whether the extra `onnx` is installed."""
    return all(find_spec(name) is not None for name in PACKAGES)


def export_onnx(folder: Path) -> float:
    """Write `model.onnx` into an encoder folder; UcdirError when the export does not agree with the weights.

    returns    largest difference of a number of an embedding, export against weights, on 4 random views
    """
    if not can_export():
        missing = [name for name in PACKAGES if find_spec(name) is None]
        raise UcdirError(f"not installed: {', '.join(missing)}. Install the export tools: pip install 'ucdir[onnx]'.")
    encoder = Encoder.load(folder)
    size, names = encoder.config.image_size, encoder.config.views
    shape = (4, len(names), 3, size, size) if names else (4, 3, size, size)
    views = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with atomic_file(folder / EXPORTED) as draft:
        _write(encoder, torch.from_numpy(views), draft)
    write_text(folder / f"{EXPORTED}.json", write_note(folder, encoder.fingerprint()))
    with torch.no_grad():
        expected = _expected(encoder, torch.from_numpy(views)).numpy()
    difference = float(np.abs(OnnxEncoder(folder)(views).rows - expected).max())
    if not difference <= TOLERANCE:
        (folder / EXPORTED).unlink()
        raise UcdirError(
            f"the export of '{folder}' differs from its weights by {difference:.1e}, allowed {TOLERANCE:.0e}, so it was "
            "removed. Search with --runtime torch."
        )
    return difference


class _Placing(torch.nn.Module):
    """An encoder that knows domains as a graph: see `Encoder.placed`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: torch.Tensor, domain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows, chosen, is_strange = self.encoder.placed(pixels, domain)
        return rows, chosen, is_strange


def _expected(encoder: Encoder, views: torch.Tensor) -> torch.Tensor:
    if not encoder.config.domains:
        rows: torch.Tensor = encoder(views)
        return rows
    return encoder.placed(views, torch.full((len(views),), -1)).rows


def _write(encoder: Encoder, views: torch.Tensor, file: Path) -> None:
    images = torch.export.Dim("images", min=1)
    if not encoder.config.domains:
        return _export(encoder, (views,), file, ["pixels"], ["rows"], ({0: images},))
    shapes = ({0: images, 1: torch.export.Dim("views", min=1)}, {0: images})
    inputs = (views, torch.full((len(views),), -1))
    return _export(_Placing(encoder), inputs, file, ["pixels", "domain"], ["rows", "domains", "is_strange"], shapes)


def _export(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    file: Path,
    input_names: list[str],
    output_names: list[str],
    shapes: tuple[Any, ...],
) -> None:
    """Export quietly: the exporter speaks on every channel there is."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            inputs,
            file,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
        )


class _Features(torch.nn.Module):
    """The backbone of an encoder as a graph."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.encoder.features(pixels)


def feature_session(encoder: Encoder) -> Any:
    """A session on one thread, `pixels` (N, 3, H, W) uint8 -> (N, F); None where the backbone cannot be exported."""
    size = encoder.config.image_size
    views = np.random.default_rng(0).integers(0, 256, (4, 3, size, size), dtype=np.uint8)
    shapes = ({0: torch.export.Dim("views", min=1)},)
    try:
        with tempfile.TemporaryDirectory() as folder:
            _export(_Features(encoder), (torch.from_numpy(views),), Path(folder) / EXPORTED, ["pixels"], ["features"], shapes)
            session = open_session(Path(folder) / EXPORTED, threads=1)
        (found,) = session.run(None, {"pixels": views})
    except Exception:  # whatever a network, its exporter and onnxruntime raise
        return None
    with torch.no_grad():
        expected = encoder.features(torch.from_numpy(views)).numpy()
    return session if float(np.abs(found - expected).max()) <= TOLERANCE * max(1.0, float(np.abs(expected).max())) else None
