"""The folder of a benchmark: what earlier runs left there, and the tables that are written."""

import hashlib
import json
import multiprocessing
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path

import torch

from ucdir.benchmarking.cells import SCORES_FILE, Cell, Rows, Task, unreadable
from ucdir.datasets.catalogue import dataset
from ucdir.datasets.prepared_set import DOCUMENT, PreparedSet
from ucdir.documents import to_json
from ucdir.errors import UcdirError, UsageError
from ucdir.images.domains import Domain
from ucdir.images.held_out import steady_name
from ucdir.report.benchmark_facts import FORMAT_VERSION, RESULTS, BenchmarkFacts, PublishedFigure, read_benchmark
from ucdir.report.benchmark_tables import benchmark_latex, benchmark_markdown
from ucdir.report.epoch_choice import EpochScores, choice_of
from ucdir.report.published import published_figures
from ucdir.run_folder import is_run_folder, read_epochs
from ucdir.settings import differences, stored_settings, value_of
from ucdir.storage import write_text

FREE_TO_DIFFER = {"data.cache_dir", "data.cache_gb", "data.workers", "run.device"}
TRAINING_FREE_KEYS = {
    "data.domains",
    "data.classes",
    "encoder.backbone",
    "encoder.weights",
    "encoder.image_size",
    "method.name",  # align sees whole images, the others their middle
    "run.precision",
}
MAX_LISTED = 10  # unreadable images of a domain in a note
IMAGES = "images.json"  # next to the cells of a pair: the images they were computed from


def refuse_other_settings(task: Task) -> None:
    """A cell that was begun with other settings is not mixed into this table."""
    if not is_run_folder(task.folder):
        return
    stored = stored_settings(task.folder)
    matters = TRAINING_FREE_KEYS.__contains__ if not task.cell.is_trained else (lambda key: key not in FREE_TO_DIFFER)
    differing = [key for key in differences(task.settings, stored) if matters(key)]
    if differing:
        key = differing[0]
        raise UsageError(
            f"'{task.folder}' was started with another {key} ({value_of(stored, key)}) than requested now "
            f"({value_of(task.settings, key)}). Give another --out, or use the same setting as before."
        )


def refuse_other_images(task: Task, domains: Sequence[Domain], out: Path) -> None:
    """Cells of a pair are all about the same images: what they are is noted before the first."""
    file = task.folder.parent / IMAGES
    found = {domain.name: {"images": len(domain), "digest": _digest(domain)} for domain in domains}
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else found
    for name, now in found.items():
        if known.get(name) != now:
            raise UsageError(
                f"domain '{name}' has other images or classes ({now['images']:,}) than the cells in '{out}' were computed from "
                f"({known.get(name, {}).get('images', 0):,}). Give another --out, or put them back."
            )
    if not file.is_file():
        write_text(file, json.dumps(found, indent=1) + "\n")


def _digest(domain: Domain) -> str:
    """Tells lists of images and classes apart."""
    digest = hashlib.blake2b(digest_size=16)
    for path, name in zip(domain.paths, domain.classes or [None] * len(domain), strict=True):
        digest.update(f"{steady_name(path, domain)}\0{name}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def tell_rows_left_out(out: Path, tasks: Sequence[Task], log: Callable[[str], None]) -> None:
    """Log when the tables in `out` have rows that were not requested now."""
    with suppress(UcdirError):
        asked = {(frozenset(task.cell.pair), task.cell.protocol, method) for task in tasks for method in task.methods}
        rows = read_benchmark(out).rows
        others = sum((frozenset((row.query, row.gallery)), row.protocol, row.method) not in asked for row in rows)
        if others:
            log(
                f"{others} rows of the tables in '{out}' were not requested now and are removed; their cells are kept for later"
            )


@dataclass(frozen=True)
class Tables:
    """Where and of what the tables are.

    command   how they can be made again
    """

    out: Path
    tasks: Sequence[Task]
    ks: tuple[int, ...]
    prepared: PreparedSet | None
    command: str

    def write(self, found: Mapping[Cell, Rows]) -> BenchmarkFacts:
        """The results so far, as a document and as tables."""
        done = [task for task in self.tasks if task.cell in found]
        facts = BenchmarkFacts(
            name=self.prepared.name if self.prepared else self.out.absolute().name,
            command=self.command,
            date=str(date.today()),
            machine=_machine(),
            ks=self.ks,
            rows=tuple(chain.from_iterable(found[task.cell] for task in done)),
            published=self._published(done),
            choice=choice_of([_epochs(task.folder) for task in done if task.cell.is_trained]),
            notes=(
                *self._unfinished(done),
                *_collapsed(done),
                *self._images(),
                *_left_out(done),
                *self._clusters(),
                *self._differences(),
            ),
        )
        write_text(self.out / RESULTS, to_json(facts, FORMAT_VERSION))
        write_text(self.out / "results.md", benchmark_markdown(facts))
        write_text(self.out / "results.tex", benchmark_latex(facts))
        return facts

    def _published(self, done: Sequence[Task]) -> tuple[PublishedFigure, ...]:
        """Published figures for the entries of the tables: averages only next to averages over the same whole data set."""
        paper = {frozenset(task.cell.pair) for task in done if task.cell.protocol == "paper"}
        if self.prepared is None or not paper:
            return ()
        whole = len(done) == len(self.tasks) and paper == set(map(frozenset, dataset(self.prepared.name).pairs))
        return published_figures(self.prepared.name, self.prepared.num_clusters, paper, whole)

    def _unfinished(self, done: Sequence[Task]) -> list[str]:
        if len(done) == len(self.tasks):
            return []
        return [
            f"UNFINISHED: {len(done)} of {len(self.tasks)} cells. Means cover only these; run the command again to continue."
        ]

    def _images(self) -> list[str]:
        """How many images of each domain the figures are of."""
        counts: dict[str, int] = {}
        for folder in {task.folder.parent for task in self.tasks}:
            noted = json.loads((folder / IMAGES).read_text(encoding="utf-8"))
            counts |= {name: found["images"] for name, found in noted.items()}
        return [f"Images: {', '.join(f'{name} {count:,}' for name, count in sorted(counts.items()))}."]

    def _clusters(self) -> list[str]:
        """How many clusters were looked for: a number that may come from counting classes."""
        by_gradient = [task for task in self.tasks if task.cell.is_trained and not task.settings.aligns]
        counts = {task.settings.gradient.num_clusters for task in by_gradient}
        return [f"Trained with {' and '.join(map(str, numbers))} clusters of each domain." for numbers in sorted(counts)]

    def _differences(self) -> list[str]:
        """What differs from the data set as it is known."""
        if self.prepared is None or not self.prepared.differences:
            return []
        return [
            f"NOT {self.prepared.name} as it is known: {self.prepared.differences} counts differ, listed in its {DOCUMENT}. "
            "These figures are not those of the data set."
        ]


def _collapsed(done: Sequence[Task]) -> list[str]:
    """A sentence for each cell whose last epoch collapsed, or all of whose epochs did."""
    notes = []
    for task in done:
        epochs = [bool(epoch.get("collapsed")) for epoch in read_epochs(task.folder)] if task.cell.is_trained else []
        if epochs and all(epochs):
            notes.append(f"{task.cell}: every epoch collapsed. Means of label-free and oracle rows cover the other seeds.")
        elif epochs and epochs[-1]:
            notes.append(f"{task.cell}: the last epoch collapsed.")
    return notes


def _left_out(done: Sequence[Task]) -> list[str]:
    """Which images of each domain could not be read when cells were scored."""
    found: dict[str, dict[str, None]] = {}
    for task in done:
        for name, reasons in unreadable(task).items():
            found.setdefault(name, {}).update(dict.fromkeys(reasons))
    return [_left_out_of(name, list(reasons)) for name, reasons in sorted(found.items()) if reasons]


def _left_out_of(name: str, reasons: Sequence[str]) -> str:
    more = (
        f"; and {len(reasons) - MAX_LISTED:,} more, listed in {SCORES_FILE} of the cells" if len(reasons) > MAX_LISTED else ""
    )
    return f"Left out as unreadable: {len(reasons):,} of {name} ({'; '.join(reasons[:MAX_LISTED])}{more})."


def _epochs(run: Path) -> list[EpochScores]:
    """The label-free score and the oracle's of each epoch of a finished run; none where classes were not scored."""
    scored = [epoch for epoch in read_epochs(run) if "oracle" in epoch]
    return [
        EpochScores(epoch["label_free"]["score"], epoch["oracle"]["mAP@All"], bool(epoch.get("collapsed"))) for epoch in scored
    ]


def _machine() -> str:
    """The machine in one line."""
    cards = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())) or "no GPU"
    cores = f"{multiprocessing.cpu_count()} cores, {cards}"
    return f"{platform.system()} {platform.machine()}, {cores}; Python {platform.python_version()}, torch {torch.__version__}"
