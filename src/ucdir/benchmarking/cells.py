"""The cells of a benchmark: one training and its scores each, run one after the other or side by side."""

import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path

import torch

from ucdir.documents import from_json, to_json
from ucdir.embedding.compute import Compute
from ucdir.errors import ImageError, InterruptedRun, UcdirError, UsageError
from ucdir.images.domains import load_domains
from ucdir.images.held_out import TEST
from ucdir.images.partial_classes import PARTIAL
from ucdir.images.pixel_cache import open_cache
from ucdir.learn.inputs import refuse_many_unreadable
from ucdir.learn.run import carry_out, resolve
from ucdir.model.encoder import Encoder, build_encoder, in_plain_view
from ucdir.progress import Progress, no_log, no_progress
from ucdir.report.benchmark_facts import BenchmarkRow
from ucdir.report.benchmark_tables import CHANCE
from ucdir.retrieval.expansion import hits_of
from ucdir.run_folder import CHOSEN, ENCODER, SETTINGS, is_run_folder
from ucdir.scoring.directions import EvaluationReport
from ucdir.scoring.encoders import FROZEN, check_classes, score_encoders
from ucdir.settings import CLOSED_FORM, METHODS, Settings
from ucdir.storage import locked, write_text

LABEL_FREE = "label-free"
TRAINING_FREE = ("frozen", "centred", "smoothed")
TRAINED = (*CLOSED_FORM, *METHODS)
SCORES_FILE = "scores.json"
FORMAT_VERSION = 1  # of scores.json


@dataclass(frozen=True)
class Cell:
    """One training and its scores; the training-free methods of a pair share one."""

    pair: tuple[str, str]
    protocol: str
    method: str
    seed: int

    @property
    def place(self) -> Path:
        """Its folder inside the benchmark."""
        draw = [f"draw{self.seed}"] if self.protocol in PARTIAL else []  # each has images of its own
        return Path("cells", *self.pair, self.protocol, *draw, f"{self.method}-seed{self.seed}")

    @property
    def is_trained(self) -> bool:
        """Whether the method is trained."""
        return self.method in TRAINED

    def __str__(self) -> str:
        return f"{' - '.join(self.pair)}, {self.protocol}, {self.method}, seed {self.seed}"


@dataclass(frozen=True)
class Task:
    """Everything needed to run a cell in any process.

    sources   the two domains, as NAME=PATH
    methods   the rows to take from it
    """

    cell: Cell
    folder: Path
    sources: tuple[str, str]
    settings: Settings
    methods: tuple[str, ...]
    ks: tuple[int, ...]


Rows = list[BenchmarkRow]


@dataclass(frozen=True)
class Outcome:
    """The outcome of `planned` cells: the rows of finished ones, and why others failed."""

    planned: int
    found: dict[Cell, Rows]
    failures: dict[Cell, UcdirError]

    def refuse_nothing(self) -> None:
        """As `refuse_failures`, but only if there is not a single row."""
        if not self.found:
            self.refuse_failures()

    def refuse_failures(self) -> None:
        """Raise a UcdirError with the first failure, if there is one."""
        if not self.failures:
            return
        first = next(iter(self.failures.values()))
        more = f" {len(self.failures) - 1} others failed too." if len(self.failures) > 1 else ""
        done = f"{len(self.found)} of {self.planned} cells are finished; run the same command again to retry the others."
        raise type(first)(f"{first}{more} {done}") from first.__cause__


def run_cells(
    tasks: Sequence[Task],
    devices: Sequence[str],
    progress: Progress,
    log: Callable[[str], None],
    report: Callable[[Mapping[Cell, Rows]], None],
) -> Outcome:
    """Run all cells that are not finished. A failure is reported immediately and the others continue.

    report    is given what is finished, after each cell
    """
    found = {task.cell: rows for task in tasks if (rows := finished(task)) is not None}
    waiting = [task for task in tasks if task.cell not in found]
    failures: dict[Cell, UcdirError] = {}
    if found:
        log(f"{len(found)} of {len(tasks)} cells are already finished")
    trained: list[float] = []  # seconds of each cell with a training; the others say nothing about what is left

    def done(task: Task, rows: Rows, seconds: float) -> None:
        found[task.cell] = rows
        trained.extend([seconds] if task.cell.is_trained else [])
        rest = sum(cell.is_trained and cell not in found and cell not in failures for cell in (t.cell for t in waiting))
        left = time_left(trained, rest, len(devices))
        log(f"cell {len(found)} of {len(tasks)}: {task.cell}: {_headline(rows)}{left}")
        report(found)

    def failed(task: Task, error: Exception) -> None:
        failures[task.cell] = _told(task, error)
        log(f"failed: {failures[task.cell]}")

    try:
        if len(devices) == 1:
            _run_in_turn(waiting, devices[0], progress, done, failed)
        else:
            _run_side_by_side(waiting, devices, done, failed)
    except (KeyboardInterrupt, InterruptedRun) as error:
        raise InterruptedRun(
            f"stopped with {len(found)} of {len(tasks)} cells finished. Run the same command again to continue."
        ) from error
    return Outcome(len(tasks), found, failures)


def time_left(trained: Sequence[float], rest: int, workers: int) -> str:
    """`; about 5 min left`, from the seconds of trained cells; empty if there are none yet, or no training is left."""
    if not trained or not rest:
        return ""
    minutes = statistics.fmean(trained) * rest / min(workers, rest) / 60
    return f"; about {minutes:.0f} min left" if minutes >= 1 else "; less than a minute left"


def _told(task: Task, error: Exception) -> UcdirError:
    """The error with the name of its cell."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    told = (UsageError if isinstance(error, UsageError) else UcdirError)(f"cell {task.cell}: {reason}")
    told.__cause__ = error
    return told


Done = Callable[[Task, Rows, float], None]
Failed = Callable[[Task, Exception], None]


def _run_in_turn(tasks: Sequence[Task], device: str, progress: Progress, done: Done, failed: Failed) -> None:
    for task in tasks:
        started = time.monotonic()
        try:
            rows = run_cell(task, device, progress)
        except InterruptedRun:
            raise
        except Exception as error:  # whatever ends one training, memory that is full or a file that is damaged
            failed(task, error)
        else:
            done(task, rows, time.monotonic() - started)


def _run_side_by_side(tasks: Sequence[Task], devices: Sequence[str], done: Done, failed: Failed) -> None:
    """One process for each device; each takes the next cell when it has finished one."""
    waiting, running = list(tasks), dict[Future[Rows], tuple[Task, str, float]]()
    with leashed_workers(len(devices)) as pool:
        free = list(devices)
        while waiting or running:
            while free and waiting:
                task, device = waiting.pop(0), free.pop()
                running[pool.submit(run_cell, task, device)] = (task, device, time.monotonic())
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, device, started = running.pop(future)
                free.append(device)
                try:
                    rows = future.result()
                except InterruptedRun:
                    raise
                except BrokenProcessPool as error:
                    reason = "a worker was killed, perhaps because memory ran out. Run the same command again to continue."
                    raise _told(task, UcdirError(reason)) from error
                except Exception as error:  # as above
                    failed(task, error)
                else:
                    done(task, rows, time.monotonic() - started)


@contextmanager
def leashed_workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end at once, whatever they do, when this one is killed or the block ends with an error.

    They must not hold a device, or write what another run now writes; what a cell has finished is safe at any moment.
    """
    context = multiprocessing.get_context("spawn")
    leash, held = context.Pipe(duplex=False)
    with held, leash, ProcessPoolExecutor(count, mp_context=context, initializer=_on_leash, initargs=(leash,)) as pool:
        try:
            yield pool
        except BaseException:
            held.close()
            raise


def _on_leash(leash: Connection) -> None:
    """End this process when the other end of `leash` is closed, which the system does for one that is killed."""

    def watch() -> None:
        wait_for([leash])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class CellScores:
    """scores.json of a cell: its rows at the cut-offs `ks`, and of each domain (path, reason) of what was left out."""

    ks: tuple[int, ...]
    rows: tuple[BenchmarkRow, ...]
    unreadable: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)


def run_cell(task: Task, device: str = "auto", progress: Progress = no_progress) -> Rows:
    """Train, or continue training, and score; the scores are written last, in one step."""
    settings = task.settings.model_copy(update={"run": task.settings.run.model_copy(update={"device": device})})
    with locked(task.folder, "being run by another ucdir benchmark"):
        if task.cell.is_trained:
            begun = is_run_folder(task.folder)
            resolved = resolve([] if begun else task.sources, task.folder, settings, resume=begun)
            carry_out(task.folder, resolved, resume=begun, progress=progress)
        report = _score(task, settings, progress)
        if not task.cell.is_trained:  # a training has refused them already
            _refuse_many_unreadable(report, settings.data.max_unreadable)
        rows = [_row(task.cell, report, name, *direction) for direction in report.directions for name in report.methods]
        if not task.cell.is_trained:
            write_text(task.folder / SETTINGS, settings.to_toml())
        left_out = {domain.name: domain.unreadable for domain in report.domains}
        write_text(task.folder / SCORES_FILE, to_json(CellScores(task.ks, tuple(rows), left_out), FORMAT_VERSION))
    return _wanted(task, rows)


def _score(task: Task, settings: Settings, progress: Progress) -> EvaluationReport:
    """Both directions: of the three training-free methods, or of the kept epochs of one that was trained."""
    split = TEST if task.cell.protocol == "held-out" else None
    domains = load_domains(task.sources, classes=settings.data.classes, split=split)
    check_classes(domains)
    cache = open_cache(settings.data.cache_dir, settings.data.cache_gb, no_log)
    compute = Compute.named(settings.run.device, settings.run.precision, settings.data.workers, cache=cache)
    encoders = _encoders(task, settings, [domain.name for domain in domains])
    return score_encoders(
        encoders,
        domains,
        task.ks,
        compute,
        resamples=0,
        progress=progress,
        also_smoothed=[name for name in encoders if name == LABEL_FREE],
        expand={name: hits_of(encoder.config.rows) for name, encoder in encoders.items()},
    )


def _encoders(task: Task, settings: Settings, domains: Sequence[str]) -> dict[str, Encoder]:
    if not task.cell.is_trained:
        wanted = settings.encoder
        torch.manual_seed(settings.run.seed)  # of weights that are random numbers
        frozen = build_encoder(wanted.backbone, wanted.weights, wanted.image_size)
        return {FROZEN: in_plain_view(frozen, domains) if settings.aligns else frozen}
    folders = {"last": ENCODER, **CHOSEN}
    return {epoch: Encoder.load(task.folder / name) for epoch, name in folders.items() if (task.folder / name).is_dir()}


def _refuse_many_unreadable(report: EvaluationReport, allowed: float) -> None:
    for domain in report.domains:
        errors = [ImageError(path, reason) for path, reason in domain.unreadable]
        refuse_many_unreadable(domain.name, domain.images, errors, allowed)


def _row(cell: Cell, report: EvaluationReport, name: str, query: str, gallery: str) -> BenchmarkRow:
    """`name` is a training-free method, or an epoch of the method of the cell."""
    scores = report.scores(name, query, gallery)
    kept = (f"{figure}@{k}" for figure in ("P", "capped P") for k in report.ks)
    metrics = {metric: scores[metric].value for metric in (*kept, "mAP@All")} | {CHANCE: scores.chance}
    method, epoch = (cell.method, name) if cell.is_trained else (name, None)
    return BenchmarkRow(query, gallery, method, epoch, cell.protocol, cell.seed, metrics)


def finished(task: Task) -> Rows | None:
    """The rows of a cell that was scored at these cut-offs; None when it must be run."""
    try:
        scores = _scores_of(task)
    except (OSError, ValueError):
        return None
    return _wanted(task, scores.rows) if set(task.ks) <= set(scores.ks) else None


def unreadable(task: Task) -> dict[str, list[str]]:
    """Of each domain, why images were left out of the scores of a finished cell, as PATH: REASON."""
    left_out = _scores_of(task).unreadable
    return {name: [f"{path}: {reason}" for path, reason in found] for name, found in left_out.items()}


def _scores_of(task: Task) -> CellScores:
    file = task.folder / SCORES_FILE
    return from_json(CellScores, file.read_text(encoding="utf-8"), FORMAT_VERSION, f"'{file}'")


def _wanted(task: Task, rows: Sequence[BenchmarkRow]) -> Rows:
    return [row for row in rows if row.method in task.methods]


def _headline(rows: Sequence[BenchmarkRow]) -> str:
    """The last P@k both ways, of each training-free method or of the last epoch."""
    name = [metric for metric in rows[0].metrics if metric.startswith("P@")][-1]
    shown = [row for row in rows if row.epoch in (None, "last")]
    ways = dict.fromkeys((row.query, row.gallery) for row in shown)
    figures: dict[str, list[str]] = {}
    for row in shown:
        figures.setdefault(row.method, []).append(f"{100 * row.metrics[name]:.1f}")
    values = ", ".join(f"{method} {' / '.join(found)}" for method, found in figures.items())
    return f"{name} {' / '.join(f'{query} → {gallery}' for query, gallery in ways)}: {values}"
