"""The encoder as searching needs it: views in, unit rows out. Exported encoders run without torch and start at once."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ucdir.errors import UcdirError, UsageError
from ucdir.model.confidence import Confidence
from ucdir.model.encoder_folder import WEIGHTS, encoder_folder, read_config

EXPORTED = "model.onnx"
RUNTIMES = ("auto", "torch", "onnx")


@dataclass(frozen=True)
class Encoded:
    """Embedded images.

    rows        (N, D) float32 unit rows
    domains     of each image the domain that it was taken for, given or recognised; None where the encoder knows no domains
    is_strange  of each image whether it looks like no image of that domain
    """

    rows: np.ndarray
    domains: tuple[str | None, ...]
    is_strange: tuple[bool, ...]


class QueryEncoder(Protocol):
    """Views of images -> embeddings."""

    @property
    def fingerprint(self) -> str:
        """Of the encoder; the same for every runtime."""

    @property
    def image_size(self) -> int:
        """Side of a view in pixels."""

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the style views in which it sees an image; none = the evaluation view."""

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that it knows by name."""

    @property
    def rows(self) -> str:
        """What its embeddings are, see `encoder_folder.EncoderConfig`."""

    @property
    def confidence(self) -> Confidence | None:
        """What similarities mean under it; None where that was not learned."""

    def __call__(self, views: np.ndarray, domains: Sequence[str | None] = ()) -> Encoded:
        """Embed N images.

        views    uint8: (N, 3, H, W) evaluation views, or (N, V, 3, H, W) the first V of `views`
        domains  of each image, one of `domains` or None = recognise it; empty = recognise all
        """


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Batches as one."""
    rows = np.concatenate([part.rows for part in parts]) if parts else np.empty((0, 0), np.float32)
    domains = tuple(domain for part in parts for domain in part.domains)
    return Encoded(rows, domains, tuple(strange for part in parts for strange in part.is_strange))


def domain_numbers(known: Sequence[str], domains: Sequence[str | None], count: int) -> NDArray[np.int64]:
    """(count,) positions in `known`, -1 = recognise; UsageError for a name that the encoder does not know."""
    for name in domains:
        if name is not None and name not in known:
            raise UsageError(_unknown(name, known))
    return np.array([-1 if name is None else known.index(name) for name in domains or (None,) * count], np.int64)


def _unknown(name: str, known: Sequence[str]) -> str:
    if not known:
        return f"--as {name}: this encoder does not distinguish domains. Leave out --as."
    listed = ", ".join(f"'{domain}'" for domain in known)
    return f"the encoder was trained on {listed}, not on domain '{name}'. Say which of them the images belong to (--as NAME)."


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
    """Whether an encoder folder contains an export of its current weights."""
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
            raise UcdirError(f"'{folder}' contains no export of its weights. Make one with: ucdir export {folder}")
        try:
            self._session = open_session(folder / EXPORTED)
        except Exception as error:  # onnxruntime raises types of its own
            raise UcdirError(f"'{folder / EXPORTED}' is damaged. Recreate it with: ucdir export {folder}") from error
        self.fingerprint: str = _note(folder)["fingerprint"]
        self.image_size, self.views, self.domains, self.rows = config.image_size, config.views, config.domains, config.rows
        self.confidence = Confidence.of_numbers(config.confidence)

    def __call__(self, views: np.ndarray, domains: Sequence[str | None] = ()) -> Encoded:
        """See `QueryEncoder`."""
        numbers = domain_numbers(self.domains, domains, len(views))
        if not self.domains:
            (rows,) = self._session.run(None, {"pixels": views})
            return unplaced(np.asarray(rows))
        rows, chosen, is_strange = self._session.run(None, {"pixels": views, "domain": numbers})
        return Encoded(np.asarray(rows), tuple(self.domains[number] for number in chosen), tuple(is_strange.tolist()))


def unplaced(rows: np.ndarray) -> Encoded:
    """Embeddings of an encoder that does not tell domains apart."""
    return Encoded(rows, (None,) * len(rows), (False,) * len(rows))


def open_session(file: Path, threads: int = 0) -> Any:
    """A session of onnxruntime on the CPU; threads = 0 leaves their number to it."""
    onnxruntime = _silent_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _silent_onnxruntime() -> Any:
    """onnxruntime, which since 1.32 reports its use over the network unless this is set before it is imported."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def write_note(folder: Path, fingerprint: str) -> str:
    """The JSON note next to an export: which weights and which encoder it was made from."""
    return json.dumps({"weights": weights_digest(folder), "fingerprint": fingerprint}, indent=2) + "\n"


def _note(folder: Path) -> dict[str, Any]:
    try:
        note = json.loads((folder / f"{EXPORTED}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and (folder / EXPORTED).is_file() else {}
