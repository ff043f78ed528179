"""From methods, pairs and seeds to cells, and from cells to one table."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from ucdir.benchmarking.cells import TRAINED, TRAINING_FREE, Cell, Outcome, Task, run_cells
from ucdir.benchmarking.folder import Tables, refuse_other_images, refuse_other_settings, tell_rows_left_out
from ucdir.datasets.prepared_set import DOCUMENT, PreparedSet, load_prepared
from ucdir.errors import UsageError, require_at_least
from ucdir.images.domains import Domain, load_domains
from ucdir.images.held_out import TRAIN, split_source
from ucdir.images.partial_classes import PARTIAL, partial_sources
from ucdir.learn.aligned_run import refuse_too_few
from ucdir.learn.run import on_domains
from ucdir.learn.trainer import check_sizes
from ucdir.model.device import choose_device
from ucdir.model.pretrained import WITHOUT_FILE, require_start
from ucdir.progress import Progress
from ucdir.report.benchmark_facts import BenchmarkFacts
from ucdir.scoring.directions import DEFAULT_KS
from ucdir.scoring.encoders import check_classes
from ucdir.settings import DEFAULT_PRESET, PAPER, Settings, did_you_mean, is_read_by, load_settings, value_of
from ucdir.storage import locked

FREE = "training-free"
LAPTOP_PRESET = "head"  # of folders of one's own
PROTOCOLS = ("paper", "held-out", *PARTIAL)
GIVEN_ELSEWHERE = {"run.seed": "--seeds", "method.name": "--methods", "data.split": "--protocol held-out"}

DECIDED_BY_PRESETS = ("align", "ucdir")  # names of methods

Load = Callable[[str, str | None], Domain]


@dataclass(frozen=True)
class Plan:
    """What to compare; see `ucdir.benchmark`.

    settings   of each trained method, and of FREE for the training-free ones
    command    how it can be run again, for the tables
    """

    sources: Sequence[str]
    out: Path
    methods: Sequence[str]
    pairs: Sequence[str]
    seeds: int
    protocols: Sequence[str]
    ks: Sequence[int]
    settings: Mapping[str, Settings]
    devices: Sequence[str]
    command: str


def run_plan(
    plan: Plan, progress: Progress, log: Callable[[str], None], show: Callable[[BenchmarkFacts], None]
) -> tuple[BenchmarkFacts, Outcome]:
    """Train and score what is not there yet; `show` gets the results after each cell. The last cells may have failed."""
    prepared = _prepared(plan.sources)
    settings = {method: _with_weights(each) for method, each in plan.settings.items()}
    chosen = settings[FREE]
    _refuse_given_elsewhere(chosen)
    out = plan.out
    manifests = [f"{name}={manifest}" for name, manifest in prepared.domains] if prepared else plan.sources
    domains = load_domains(manifests, classes=chosen.data.classes)
    check_classes(domains)
    wanted = _known(plan.methods, (*TRAINING_FREE, *TRAINED), "method")
    cells = [
        Cell(pair, protocol, method, seed)
        for pair in _pairs(plan.pairs, [domain.name for domain in domains], prepared)
        for protocol in _known(plan.protocols, PROTOCOLS, "protocol")
        for method, count in _groups(wanted, plan.seeds, protocol)
        for seed in range(count)
    ]
    cutoffs = _cutoffs(plan.ks or (prepared.ks if prepared else DEFAULT_KS))
    workers = _workers(plan.devices)
    places = _places(domains, out)
    free = tuple(method for method in wanted if method in TRAINING_FREE)

    @cache  # each is in many cells, and may be a slow disk's
    def load(source: str, split: str | None) -> Domain:
        return load_domains([source], classes=chosen.data.classes, split=split)[0]

    tasks = [_task(cell, out, settings.get(cell.method, chosen), free, cutoffs, places(cell), load) for cell in cells]
    for task in tasks:
        refuse_other_settings(task)
    for task in _one_of_each_kind([task for task in tasks if task.cell.is_trained]):
        trained_on = [load(source, task.settings.data.split) for source in task.sources]
        if task.settings.aligns:
            refuse_too_few(trained_on)
        else:
            check_sizes(task.settings, trained_on)
    with locked(out, "being written by another ucdir benchmark"):
        for task in _one_of_each_pair(tasks):
            refuse_other_images(task, [load(source, None) for source in task.sources], out)
        tell_rows_left_out(out, tasks, log)
        tables = Tables(out, tasks, cutoffs, prepared, plan.command)
        outcome = run_cells(tasks, workers, progress, log, lambda found: show(tables.write(found)))
        outcome.refuse_nothing()
        return tables.write(outcome.found), outcome


def _one_of_each_pair(tasks: Sequence[Task]) -> list[Task]:
    """One task for each pair and protocol."""
    return list({task.folder.parent: task for task in tasks}.values())


def _one_of_each_kind(tasks: Sequence[Task]) -> list[Task]:
    """For each pair and protocol, one task that brings domains together (align, tune) and one of the other methods."""
    return list({(task.folder.parent, task.settings.aligns): task for task in tasks}.values())


# Resolving the arguments


def settings_of_methods(
    sources: Sequence[str],
    settings: Settings | Mapping[str, Any] | None,
    preset: str | None,
    file: Path | None,
    methods: Sequence[str],
) -> dict[str, Settings]:
    """The settings of each trained method and of FREE; `settings`: see `ucdir.benchmark`.

    Given, file and preset, in this order; of a prepared data set its own preset; else `head`, which fits a laptop, with as many
    clusters as there are classes, as in the papers' protocols; training-free rows then see whole images, as method align does.
    Each given setting must be read by a trained method, or if there is none by the method of the preset.
    """
    trained = [method for method in methods if method in TRAINED]
    if isinstance(settings, Settings):
        return {FREE: settings, **{method: settings.of_method(method) for method in trained}}
    prepared = _prepared(sources)
    own = preset or (prepared.preset if prepared is not None else None)
    if own is not None:
        free = load_settings(own, file, settings, methods=trained)
        return {FREE: free, **{name: load_settings(own, file, settings, methods=trained, method=name) for name in trained}}
    readers = trained or [PAPER]
    given = _as_many_clusters_as_classes(sources, prepared, readers) | dict(settings or {})
    names = {FREE: str(given.get("method.name", DEFAULT_PRESET)), **{name: name for name in trained}}
    return {key: load_settings(LAPTOP_PRESET, file, given, methods=readers, method=name) for key, name in names.items()}


def _as_many_clusters_as_classes(
    sources: Sequence[str], prepared: PreparedSet | None, methods: Sequence[str]
) -> dict[str, int]:
    """The setting; empty if there are no classes, or if no method reads it."""
    if not any(is_read_by(method, "method.num_clusters") for method in methods):
        return {}
    if prepared is not None:
        return {"method.num_clusters": prepared.num_clusters}
    names = {name for domain in load_domains(sources) for name in domain.classes or ()} - {None}
    return {"method.num_clusters": len(names)} if len(names) > 1 else {}


def _prepared(sources: Sequence[str]) -> PreparedSet | None:
    if len(sources) != 1:
        if not sources:
            raise UsageError("nothing to compare: give a folder that ucdir data prepare wrote, or two or more folders.")
        return None
    folder = Path(sources[0])
    if not (folder / DOCUMENT).is_file():
        raise UsageError(
            f"cannot compare '{folder}' alone: it has no {DOCUMENT}. Give a folder that ucdir data prepare wrote "
            f"(ucdir data prepare NAME --source DIR --out {folder}), or two or more folders."
        )
    return load_prepared(folder)


def _with_weights(settings: Settings) -> Settings:
    """The same with an absolute path of the weights, checked before sixty cells fail without them."""
    weights = settings.encoder.weights
    if weights in WITHOUT_FILE:
        return settings
    require_start(weights)
    absolute = os.path.abspath(weights)  # noqa: PTH100 (keeps the name of a link, resolve() would not)
    return settings.model_copy(update={"encoder": settings.encoder.model_copy(update={"weights": absolute})})


def _refuse_given_elsewhere(settings: Settings) -> None:
    """A setting that the benchmark itself decides is not thrown away silently."""
    for key, flag in GIVEN_ELSEWHERE.items():
        if value_of(settings, key) not in (value_of(Settings(), key), *DECIDED_BY_PRESETS):
            raise UsageError(f"{key}={value_of(settings, key)} is set by {flag} here. Leave the setting out.")


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


def _groups(methods: Sequence[str], seeds: int, protocol: str) -> list[tuple[str, int]]:
    """What needs a cell, with its number of seeds: the training-free methods together, once for each draw of images, and each
    trained one.
    """
    require_at_least("--seeds", seeds, 1)
    free = [("training-free", seeds if protocol in PARTIAL else 1)] if set(methods) & set(TRAINING_FREE) else []
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


def _places(domains: Sequence[Domain], out: Path) -> Callable[[Cell], Mapping[str, str]]:
    """Where the domains of a cell are loaded from, as NAME=PATH."""
    named = {domain.name: domain for domain in domains}

    @cache
    def held_out(name: str) -> str:
        return split_source(named[name], out / "splits")

    @cache
    def partial(pair: tuple[str, str], protocol: str, seed: int) -> Mapping[str, str]:
        folder = out / "splits" / protocol / "-".join(pair) / f"seed{seed}"
        return partial_sources((named[pair[0]], named[pair[1]]), protocol, seed, folder)

    def places(cell: Cell) -> Mapping[str, str]:
        if cell.protocol in PARTIAL:
            return partial(cell.pair, cell.protocol, cell.seed)
        if cell.protocol == "held-out":
            return {name: held_out(name) for name in cell.pair}
        return {name: f"{name}={named[name].source}" for name in cell.pair}

    return places


def _task(
    cell: Cell,
    out: Path,
    settings: Settings,
    free: tuple[str, ...],
    ks: tuple[int, ...],
    sources: Mapping[str, str],
    load: Load,
) -> Task:
    pair = (sources[cell.pair[0]], sources[cell.pair[1]])
    split = TRAIN if cell.protocol == "held-out" else None
    update: dict[str, Any] = {
        "data": settings.data.model_copy(update={"split": split}),
        "run": settings.run.model_copy(update={"seed": cell.seed}),
    }
    resolved = on_domains(settings.model_copy(update=update), [load(source, split) for source in pair])
    return Task(cell, out / cell.place, pair, resolved, (cell.method,) if cell.is_trained else free, ks)
