"""What results.json of a benchmark folder holds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from ucdir.documents import from_json
from ucdir.errors import UcdirError
from ucdir.report.epoch_choice import Choice

RESULTS = "results.json"
FORMAT_VERSION = 1
ALL = "all"


def _without_null(metrics: Any) -> Any:
    """NaN is null in a file: nothing counts."""
    return {name: value for name, value in metrics.items() if value is not None} if isinstance(metrics, Mapping) else metrics


@dataclass(frozen=True)
class BenchmarkRow:
    """One method in one direction with one seed; `epoch` None = nothing was trained. Figures in [0, 1]."""

    query: str
    gallery: str
    method: str
    epoch: str | None
    protocol: str
    seed: int
    metrics: Annotated[Mapping[str, float], BeforeValidator(_without_null)]


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

    name      of the data set; empty = that of the folder
    choice    what the label-free choice of epochs was worth; None where nothing was trained
    notes     sentences about the images that the figures are of
    """

    command: str
    date: str
    machine: str
    ks: tuple[int, ...]
    rows: tuple[BenchmarkRow, ...]
    published: tuple[PublishedFigure, ...] = ()
    choice: Choice | None = None
    notes: tuple[str, ...] = ()
    name: str = ""


def read_benchmark(folder: Path) -> BenchmarkFacts:
    """results.json of `folder`; UcdirError when it is not as `ucdir benchmark` writes it."""
    file = folder / RESULTS
    try:
        facts = from_json(BenchmarkFacts, file.read_text(encoding="utf-8"), FORMAT_VERSION, f"'{file}'")
    except (OSError, ValueError) as error:
        raise UcdirError(f"'{file}' is not a valid benchmark result ({error}). Run the benchmark again.") from error
    if not facts.rows:
        raise UcdirError(f"'{file}' has no rows, so there is nothing to report. Run the benchmark to its end.")
    return facts if facts.name else replace(facts, name=folder.absolute().name)
