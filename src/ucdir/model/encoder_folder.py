"""The encoder folder: its files, read without torch."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ucdir.documents import from_json
from ucdir.errors import UcdirError, UsageError
from ucdir.run_folder import ENCODER, LABEL_FREE

FORMAT_VERSION = 2  # 2: encoders that know their domains
WEIGHTS, CONFIG = "model.safetensors", "config.json"
ROWS = ("frozen", "centred", "smoothed", "aligned", "tuned")  # what embeddings of an encoder that knows domains can be


@dataclass(frozen=True)
class EncoderConfig:
    """What is needed to rebuild an encoder around its weights.

    hidden, dim   widths of the projection head; both None for a bare backbone. With domains: dim is the length of an
                  embedding, and there is no head
    start         in words, where training started from
    domains       that the encoder was trained on and knows by name; empty for one that treats all images the same
    views         in which it sees an image (`images/style_views.py`), the plain one first; none = the evaluation view
    rows          what its embeddings are: one of ROWS; empty without domains
    confidence    what similarities mean (`model.confidence.Confidence.numbers`); empty where that was not learned
    """

    backbone: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    feature_dim: int
    hidden: int | None
    dim: int | None
    start: str
    domains: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    rows: str = ""
    confidence: tuple[float, ...] = ()

    @property
    def length(self) -> int:
        """Numbers in an embedding."""
        return self.dim or self.feature_dim

    def deciding(self) -> dict[str, Any]:
        """What decides an embedding besides the weights. Fields of later formats are left out where they say nothing."""
        later = {"domains", "views", "rows"}
        silent = {"start", "confidence"}
        return {k: v for k, v in asdict(self).items() if k not in silent and (v or k not in later)}


def encoder_folder(path: Path) -> Path:
    """The encoder folder at `path`: itself, or in a run folder the epoch chosen without labels, else the last.

    raises    UcdirError when it is neither
    """
    chosen = path / LABEL_FREE
    return chosen if not (path / WEIGHTS).is_file() and (chosen / WEIGHTS).is_file() else last_encoder_folder(path)


def chosen_encoder(encoder: Path, rows: str | None, log: Callable[[str], None]) -> Path:
    """The encoder folder at a path; logs which one if a run has several. rows: one of ROWS, or None = as `encoder_folder`."""
    if rows is not None:
        return rows_folder(encoder, rows)
    folder = encoder_folder(encoder)
    if folder.name == LABEL_FREE != encoder.name:
        log(f"encoder: {folder}, the epoch chosen without labels ({encoder / ENCODER} is the last)")
    return folder


def last_encoder_folder(path: Path) -> Path:
    """The encoder folder at `path`: itself, or the last encoder of a run folder; else UcdirError."""
    if (path / WEIGHTS).is_file():
        return path
    if (path / ENCODER / WEIGHTS).is_file():
        return path / ENCODER
    if not path.exists():
        raise UcdirError(f"encoder not found: '{path}'. Give a run folder or an encoder folder that ucdir train wrote.")
    raise UcdirError(
        f"'{path}' is neither a run nor an encoder folder: no model.safetensors in it or in its encoder/. "
        "Give a folder that ucdir train wrote."
    )


def rows_folder(path: Path, rows: str) -> Path:
    """The encoder folder in the run folder `path` that gives these `rows`, one of ROWS.

    raises    UsageError for an unknown name, or where the run has no such encoder
    """
    if rows not in ROWS:
        raise UsageError(f"--rows '{rows}' is unknown. Use one of: {', '.join(ROWS)}.")
    there = {name: folder for name in ROWS if (folder := path / f"{ENCODER}-{name}").joinpath(WEIGHTS).is_file()}
    there[read_config(last_encoder_folder(path)).rows] = last_encoder_folder(path)
    if rows not in there:
        found = ", ".join(name for name in ROWS if name in there) or "none of them"
        raise UsageError(f"--rows {rows}: '{path}' has {found}. Give a run of method align or tune.")
    return there[rows]


def read_config(folder: Path) -> EncoderConfig:
    """Read config.json of an encoder folder; UcdirError if it is missing, damaged or too new."""
    file = folder / CONFIG
    if not file.is_file() or not (folder / WEIGHTS).is_file():
        raise UcdirError(
            f"'{folder}' is not an encoder folder: expected model.safetensors and config.json. Give one that ucdir train wrote."
        )
    try:
        return from_json(EncoderConfig, file.read_text(encoding="utf-8"), FORMAT_VERSION, f"encoder '{folder}'")
    except ValueError as error:
        raise UcdirError(f"encoder '{folder}' is damaged: config.json is invalid ({error}). Train or copy it again.") from error
