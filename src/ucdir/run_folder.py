"""The run folder of `train`: the names of its files, and the figures in it. Needs no torch."""

import json
from pathlib import Path
from typing import Any

SETTINGS = "config.toml"
IMAGES = "images.csv"  # which image has which id
WEIGHTS = "weights.csv"  # which tensor of a weights file filled which tensor of the encoder
METRICS = "metrics.jsonl"  # a line of figures for each epoch
LOG = "train.log"
TENSORBOARD = "tensorboard"
REPORT = "report.html"
CHECKPOINT = Path("checkpoints") / "last.pt"
TUNING = Path("checkpoints") / "tuning.pt"

ENCODER = "encoder"  # after the last epoch, or the one that aligning gave
LABEL_FREE, ORACLE = "encoder-label-free", "encoder-oracle"
CHOSEN = {"label-free": LABEL_FREE, "oracle": ORACLE}
FROZEN = "encoder-frozen"  # the backbone before training, without a head
CENTRED, SMOOTHED = "encoder-centred", "encoder-smoothed"  # the training-free rows of align and tune
ALIGNED = "encoder-aligned"  # what the backbone of method tune learns from


def is_run_folder(folder: Path) -> bool:
    """Whether `train` wrote this folder."""
    return (folder / SETTINGS).is_file()


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, one for each finished epoch; empty if there is no such file."""
    file = folder / METRICS
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [line for line in map(_parsed, lines) if isinstance(line.get("epoch"), int)]


def _parsed(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:  # half a line of a killed run
        return {}
    return content if isinstance(content, dict) else {}
