"""`ucdir benchmark`: methods x pairs x seeds of a data set, cell by cell, into one table."""

import csv
import hashlib
import io
import json
import multiprocessing
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import torch

from ucdir.commands.benchmark_cells import TRAINED, TRAINING_FREE, Cell, Rows, Task, run_cells
from ucdir.commands.evaluate import check_classes
from ucdir.commands.report import write_report
from ucdir.commands.train import with_domains
from ucdir.config import Settings, did_you_mean, differences, load_settings, value_of
from ucdir.data.datasets import DOCUMENT, PreparedSet, load_prepared
from ucdir.data.domain import Domain, load_domains
from ucdir.errors import UcdirError, UsageError
from ucdir.learn.run import read_epochs
from ucdir.learn.trainer import check_sizes
from ucdir.model.device import choose_device
from ucdir.progress import Bars, no_bars, no_words
from ucdir.report.benchmark_facts import RESULTS, BenchmarkFacts, benchmark_document, read_benchmark
from ucdir.report.benchmark_tables import benchmark_latex, benchmark_markdown
from ucdir.report.choice import EpochScores, choice_of
from ucdir.report.published import published_figures
from ucdir.storage import locked, write_text

DEFAULT_METHODS = (*TRAINING_FREE, "instance", "ucdir", "protoot")
PROTOCOLS = ("paper", "held-out")
HELD_OUT = 5  # one image of so many is held out, where a data set has no split of its own
DEFAULT_KS = (1, 5, 15, 50)
FREE_TO_DIFFER = {"data.cache_dir", "data.cache_gb", "data.workers", "run.device"}
TRAINING_FREE_KEYS = {
    "data.domains",
    "data.classes",
    "encoder.backbone",
    "encoder.weights",
    "encoder.image_size",
    "run.precision",
}
GIVEN_ELSEWHERE = {"run.seed": "--seeds", "method.name": "--methods", "data.split": "--protocol held-out"}
IMAGES = "images.json"  # beside the cells of a pair: which images they are about


def benchmark(
    sources: Sequence[str],
    out: Path = Path("benchmark"),
    methods: Sequence[str] = DEFAULT_METHODS,
    pairs: Sequence[str] = (),
    seeds: int = 3,
    protocols: Sequence[str] = ("paper",),
    ks: Sequence[int] = (),
    settings: Settings | None = None,
    devices: Sequence[str] = ("auto",),
    command: str = "",
    bars: Bars = no_bars,
    say: Callable[[str], None] = no_words,
    show: Callable[[BenchmarkFacts], None] = lambda facts: None,
) -> BenchmarkFacts:
    """Train and score every method on every pair of domains with every seed; what is finished is not run again.

    sources    a folder that `ucdir data prepare` wrote, or two or more folders or manifests with classes
    out        results.json, results.md, results.tex, report.html and a run folder for each cell
    methods    training-free: frozen, centred, smoothed; trained: ucdir, instance, cluster, prototype, coda, protoot
    pairs      NAME-NAME; default: those of the data set, or all
    seeds      how many: 0, 1, ...
    protocols  paper: train, query and gallery images are the same; held-out: queries and gallery were not trained on
    ks         cut-offs; default: those of the data set, or 1 5 15 50
    settings   of every training; default: see `default_settings`
    devices    one worker for each; auto = every CUDA device there is, or the CPU
    command    how it can be run again, for the tables
    show       is given the results after each cell
    raises     UsageError for what does not exist or contradicts what `out` holds, UcdirError at the end when cells failed,
               InterruptedRun on Ctrl-C
    """
    prepared = _prepared(sources)
    chosen = settings or default_settings(sources)
    _refuse_given_elsewhere(chosen)
    manifests = [f"{name}={manifest}" for name, manifest in prepared.domains] if prepared else sources
    domains = load_domains(manifests, classes=chosen.data.classes)
    check_classes(domains)
    wanted = _known(methods, (*TRAINING_FREE, *TRAINED), "method")
    plan = [
        Cell(pair, protocol, method, seed)
        for pair in _pairs(pairs, [domain.name for domain in domains], prepared)
        for protocol in _known(protocols, PROTOCOLS, "protocol")
        for method, count in _groups(wanted, seeds)
        for seed in range(count)
    ]
    cutoffs = _cutoffs(ks or (prepared.ks if prepared else DEFAULT_KS))
    workers = _workers(devices)
    whole = {domain.name: f"{domain.name}={domain.source}" for domain in domains}
    held = {domain.name: _split(out, domain) for domain in domains} if "held-out" in protocols else {}
    free = tuple(method for method in wanted if method in TRAINING_FREE)
    tasks = [_task(cell, out, chosen, free, cutoffs, held if cell.protocol == "held-out" else whole) for cell in plan]
    for task in tasks:
        _refuse_other_settings(task)
    for task in {task.folder.parent: task for task in tasks if task.cell.is_trained}.values():
        check_sizes(task.settings, load_domains(task.sources, classes="none", split=task.settings.data.split))
    with locked(out, "being written by another ucdir benchmark"):
        for task in {task.folder.parent: task for task in tasks}.values():
            _refuse_other_images(task, out)
        _tell_rows_left_out(out, tasks, say)

        def written(found: Mapping[Cell, Rows]) -> BenchmarkFacts:
            return _written(out, found, tasks, cutoffs, prepared, command)

        facts = written(run_cells(tasks, workers, bars, say, lambda found: show(written(found))))
        try:
            write_report(out)
        except UcdirError as error:
            say(f"no report: {error}")
        return facts


# What is asked for


def default_settings(
    sources: Sequence[str], preset: str | None = None, file: Path | None = None, given: Mapping[str, Any] | None = None
) -> Settings:
    """What a benchmark trains with: given < file < preset; of a prepared data set its own preset; else, as in the
    papers' protocols, as many clusters as there are classes.
    """
    prepared = load_prepared(Path(sources[0])) if len(sources) == 1 and (Path(sources[0]) / DOCUMENT).is_file() else None
    if preset is not None or (prepared is not None and prepared.preset is not None):
        return load_settings(preset or (prepared.preset if prepared else None), file, given)
    if prepared is not None:
        return load_settings(None, file, given, {"method.num_clusters": prepared.num_clusters})
    names = (
        {name for domain in load_domains(sources) for name in domain.classes or () if name is not None} if sources else set()
    )
    return load_settings(None, file, given, {"method.num_clusters": len(names)} if len(names) > 1 else None)


def _prepared(sources: Sequence[str]) -> PreparedSet | None:
    if len(sources) != 1:
        if not sources:
            raise UsageError("nothing to compare: give a folder that ucdir data prepare wrote, or two or more folders.")
        return None
    folder = Path(sources[0])
    if not (folder / DOCUMENT).is_file():
        raise UsageError(
            f"'{folder}' alone cannot be compared: it holds no {DOCUMENT}. Give a folder that ucdir data prepare wrote "
            f"(ucdir data prepare NAME --source DIR --out {folder}), or two or more folders."
        )
    return load_prepared(folder)


def _refuse_given_elsewhere(settings: Settings) -> None:
    """A setting that the benchmark itself decides is not thrown away silently."""
    for key, flag in GIVEN_ELSEWHERE.items():
        if value_of(settings, key) != value_of(Settings(), key):
            raise UsageError(f"{key}={value_of(settings, key)} is decided by {flag} here. Leave the setting away.")


def _known(given: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    for name in given:
        if name not in known:
            raise UsageError(f"unknown {what} '{name}'. {did_you_mean(name, known)}")
    if not given:
        raise UsageError(f"no {what} is named. Choose from: {', '.join(known)}.")
    return tuple(dict.fromkeys(given))


def _pairs(given: Sequence[str], names: Sequence[str], prepared: PreparedSet | None) -> tuple[tuple[str, str], ...]:
    every = {f"{a}-{b}": (a, b) for a, b in combinations(names, 2)}
    turned = {f"{b}-{a}": (a, b) for a, b in combinations(names, 2)}
    wanted = _known(given, (*every, *turned), "pair") if given else ()
    if wanted:
        return tuple(dict.fromkeys((turned | every)[name] for name in wanted))
    return prepared.pairs if prepared else tuple(every.values())


def _groups(methods: Sequence[str], seeds: int) -> list[tuple[str, int]]:
    """What needs a cell, with its number of seeds: the training-free methods together, once, and each trained one."""
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: expected 1 or more.")
    free = [("training-free", 1)] if set(methods) & set(TRAINING_FREE) else []
    return [*free, *((method, seeds) for method in methods if method in TRAINED)]


def _cutoffs(ks: Sequence[int]) -> tuple[int, ...]:
    if min(ks) < 1:
        raise UsageError(f"k={min(ks)}: expected 1 or more. Give for example --k 1 --k 5.")
    return tuple(sorted(set(ks)))


def _workers(devices: Sequence[str]) -> tuple[str, ...]:
    """One device for each worker."""
    if tuple(devices) == ("auto",) and torch.cuda.device_count() > 1:
        return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    for device in devices:
        choose_device(device)
    return tuple(devices)


def _task(
    cell: Cell, out: Path, settings: Settings, free: tuple[str, ...], ks: tuple[int, ...], sources: Mapping[str, str]
) -> Task:
    pair = (sources[cell.pair[0]], sources[cell.pair[1]])
    update: dict[str, Any] = {
        "data": settings.data.model_copy(update={"split": None if cell.protocol == "paper" else "train"}),
        "run": settings.run.model_copy(update={"seed": cell.seed}),
    }
    if cell.is_trained:
        update["method"] = settings.method.model_copy(update={"name": cell.method})
    resolved = with_domains(settings.model_copy(update=update), pair)
    return Task(cell, out / cell.place, pair, resolved, (cell.method,) if cell.is_trained else free, ks)


# What is there already


def _refuse_other_settings(task: Task) -> None:
    """A cell that was begun with other settings is not mixed into this table."""
    file = task.folder / "config.toml"
    if not file.is_file():
        return
    stored = load_settings(file=file)
    matters = TRAINING_FREE_KEYS.__contains__ if not task.cell.is_trained else (lambda key: key not in FREE_TO_DIFFER)
    differing = [key for key in differences(task.settings, stored) if matters(key)]
    if differing:
        key = differing[0]
        raise UsageError(
            f"'{task.folder}' was begun with another {key} ({value_of(stored, key)}) than is asked for "
            f"({value_of(task.settings, key)}). Give another --out, or leave the setting as it was."
        )


def _refuse_other_images(task: Task, out: Path) -> None:
    """Cells of a pair are all about the same images: what they are is noted before the first."""
    file = task.folder.parent / IMAGES
    domains = load_domains(task.sources, classes=task.settings.data.classes)
    found = {domain.name: {"images": len(domain), "digest": _digest(domain)} for domain in domains}
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else found
    for name, now in found.items():
        if known.get(name) != now:
            raise UsageError(
                f"domain '{name}' has other images or classes ({now['images']:,}) than the cells in '{out}' were begun with "
                f"({known.get(name, {}).get('images', 0):,}). Give another --out, or put them back."
            )
    if not file.is_file():
        write_text(file, json.dumps(found, indent=1) + "\n")


def _digest(domain: Domain) -> str:
    """Tells lists of images and classes apart."""
    digest = hashlib.blake2b(digest_size=16)
    for path, name in zip(domain.paths, domain.classes or [None] * len(domain), strict=True):
        digest.update(f"{_name_of(path, domain)}\0{name}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _name_of(path: Path, domain: Domain) -> str:
    """What an image is called wherever the data lies: its place in the folder, or its last two parts in a manifest."""
    return str(path.relative_to(domain.source)) if domain.source.is_dir() else "/".join(path.parts[-2:])


def _tell_rows_left_out(out: Path, tasks: Sequence[Task], say: Callable[[str], None]) -> None:
    """Say when the tables that lie in `out` have rows that were not asked for now."""
    with suppress(UcdirError):
        asked = {(frozenset(task.cell.pair), task.cell.protocol, method) for task in tasks for method in task.methods}
        rows = read_benchmark(out).rows
        others = sum((frozenset((row.query, row.gallery)), row.protocol, row.method) not in asked for row in rows)
        if others:
            say(f"{others} rows of the tables in '{out}' were not asked for now and go; their cells stay, for when they are")


# Held-out images


def _split(out: Path, domain: Domain) -> str:
    """A domain as a manifest with the splits train and test: its own where it has them, or one that is drawn here."""
    own = f"{domain.name}={domain.source}"
    if domain.source.is_file() and _has_splits(own):
        return own
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("path", "class", "split"))
    for path, name in zip(domain.paths, domain.classes or [None] * len(domain), strict=True):
        rows.writerow((path.absolute(), name or "", "test" if _is_held_out(path, domain) else "train"))
    file = out / "splits" / f"{domain.name}.csv"
    if file.is_file() and file.read_text(encoding="utf-8") != table.getvalue():
        raise UsageError(f"the images of domain '{domain.name}' are no longer those of '{file}'. Give another --out.")
    try:
        write_text(file, table.getvalue())
    except UnicodeEncodeError as error:
        raise UcdirError(f"domain '{domain.name}' holds a file name that is no UTF-8. Rename it.") from error
    return f"{domain.name}={file}"


def _has_splits(source: str) -> bool:
    try:
        return all(load_domains([source], classes="none", split=split) for split in ("train", "test"))
    except UcdirError:
        return False


def _is_held_out(path: Path, domain: Domain) -> bool:
    """By the name of the image alone: the same on every machine, and images that are added later move no other."""
    name = _name_of(path, domain).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) % HELD_OUT == 0


# What is written


def _written(
    out: Path,
    found: Mapping[Cell, Rows],
    tasks: Sequence[Task],
    ks: tuple[int, ...],
    prepared: PreparedSet | None,
    command: str,
) -> BenchmarkFacts:
    """The results so far, as a document and as tables."""
    done = [task for task in tasks if task.cell in found]
    rows = tuple(chain.from_iterable(found[task.cell] for task in done))
    choice = choice_of([_epochs(task.folder) for task in done if task.cell.is_trained])
    whole = prepared is not None and {task.cell.pair for task in tasks} == set(prepared.pairs)
    published = published_figures(prepared.name, prepared.num_clusters, whole) if prepared else ()
    name = prepared.name if prepared else out.absolute().name
    notes = _notes(tasks, prepared)
    facts = BenchmarkFacts(name, command, str(date.today()), _machine(), ks, rows, published, choice, notes)
    write_text(out / RESULTS, json.dumps(benchmark_document(facts), indent=1, ensure_ascii=False) + "\n")
    write_text(out / "results.md", benchmark_markdown(facts))
    write_text(out / "results.tex", benchmark_latex(facts))
    return facts


def _notes(tasks: Sequence[Task], prepared: PreparedSet | None) -> tuple[str, ...]:
    """Which images the figures are of, and what differs from the data set as it is known."""
    counts: dict[str, int] = {}
    for folder in {task.folder.parent for task in tasks}:
        noted = json.loads((folder / IMAGES).read_text(encoding="utf-8"))
        counts |= {name: found["images"] for name, found in noted.items()}
    notes = [f"Images: {', '.join(f'{name} {count:,}' for name, count in sorted(counts.items()))}."]
    if prepared is not None and prepared.differences:
        notes.append(
            f"NOT {prepared.name} as it is known: {prepared.differences} counts differ, listed in its {DOCUMENT}. These "
            "figures are not those of the data set."
        )
    return tuple(notes)


def _epochs(run: Path) -> list[EpochScores]:
    """The label-free score and the oracle's of each epoch of a finished run; none where classes were not scored."""
    scored = [epoch for epoch in read_epochs(run) if "oracle" in epoch]
    return [EpochScores(epoch["label_free"]["score"], epoch["oracle"]["mAP@All"]) for epoch in scored]


def _machine() -> str:
    """The machine in one line."""
    cards = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())) or "no GPU"
    cores = f"{multiprocessing.cpu_count()} cores, {cards}"
    return f"{platform.system()} {platform.machine()}, {cores}; Python {platform.python_version()}, torch {torch.__version__}"
