"""What results.json of a benchmark folder holds."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ucdir.errors import UcdirError
from ucdir.report.epoch_choice import Choice

RESULTS = "results.json"
ALL = "all"


@dataclass(frozen=True)
class BenchmarkRow:
    """One method in one direction with one seed; `epoch` None = nothing was trained. Figures in [0, 1]."""

    query: str
    gallery: str
    method: str
    epoch: str | None
    protocol: str
    seed: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class PublishedFigure:
    """A figure that others report, and where. `query` and `gallery` are ALL where it is a mean of all directions."""

    query: str
    gallery: str
    method: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class BenchmarkFacts:
    """A whole benchmark.

    choice    what the label-free choice of epochs was worth; None where nothing was trained
    notes     sentences about the images that the figures are of
    """

    name: str
    command: str
    date: str
    machine: str
    ks: tuple[int, ...]
    rows: tuple[BenchmarkRow, ...]
    published: tuple[PublishedFigure, ...]
    choice: Choice | None = None
    notes: tuple[str, ...] = ()


def read_benchmark(folder: Path) -> BenchmarkFacts:
    """results.json of `folder`; UcdirError when it is not as `ucdir benchmark` writes it."""
    file = folder / RESULTS
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        rows = tuple(row_of(row) for row in content["rows"])
        published = tuple(PublishedFigure(**{**row, "value": float(row["value"])}) for row in content.get("published", ()))
        facts = BenchmarkFacts(
            name=str(content.get("name") or folder.absolute().name),
            command=str(content["command"]),
            date=str(content["date"]),
            machine=str(content["machine"]),
            ks=tuple(int(k) for k in content["ks"]),
            rows=rows,
            published=published,
            choice=Choice(**content["choice"]) if content.get("choice") else None,
            notes=tuple(map(str, content.get("notes", ()))),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UcdirError(f"'{file}' is not a valid benchmark result ({reason}). Run the benchmark again.") from error
    if not rows:
        raise UcdirError(f"'{file}' has no rows, so there is nothing to report. Run the benchmark to its end.")
    return facts


def row_of(row: Mapping[str, Any]) -> BenchmarkRow:
    """A row from its part of results.json."""
    metrics = {str(name): float(value) for name, value in row["metrics"].items() if value is not None}
    query, gallery, method, protocol = (str(row[name]) for name in ("query", "gallery", "method", "protocol"))
    epoch = None if row["epoch"] is None else str(row["epoch"])
    return BenchmarkRow(query, gallery, method, epoch, protocol, int(row["seed"]), metrics)


def row_document(row: BenchmarkRow) -> dict[str, Any]:
    """A row as plain data; null where nothing counts."""
    metrics = {name: None if math.isnan(value) else value for name, value in row.metrics.items()}
    return {**asdict(row), "metrics": metrics}


def benchmark_document(facts: BenchmarkFacts) -> dict[str, Any]:
    """What results.json holds: command, date, machine, ks, rows, published figures, the label-free choice, notes."""
    return {
        "name": facts.name,
        "command": facts.command,
        "date": facts.date,
        "machine": facts.machine,
        "ks": list(facts.ks),
        "rows": [row_document(row) for row in facts.rows],
        "published": [asdict(figure) for figure in facts.published],
        "choice": None if facts.choice is None else asdict(facts.choice),
        "notes": list(facts.notes),
    }
