"""One training run: started, resumed or found finished, and what it keeps."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from pathlib import Path

import torch

from ucdir.embedding.compute import Compute
from ucdir.errors import ImageError, InterruptedRun, UcdirError, UsageError
from ucdir.images.domains import Domain, class_ids, load_domains
from ucdir.images.epoch_plan import key_groups
from ucdir.images.pixel_cache import PixelCache, open_cache
from ucdir.learn.aligned_run import AlignedRun, learn_aligned, refuse_too_few
from ucdir.learn.checkpoint import BestEpoch, load_checkpoint, save_checkpoint
from ucdir.learn.head_only import compute_features
from ucdir.learn.inputs import Inputs, Pictures
from ucdir.learn.run_log import RunLog, listed_images, restrict_to_images, skipped_images, write_images
from ucdir.learn.trainer import (
    EpochReport,
    Trainer,
    build_trainer,
    check_sizes,
    fill_banks,
    reference_of,
    restore,
    resume_state,
    run_epoch,
)
from ucdir.learn.tuning import require_sizes
from ucdir.model.device import choose_precision
from ucdir.model.encoder import Encoder, build_encoder, with_start
from ucdir.model.encoder_folder import CONFIG
from ucdir.model.pretrained import require_start
from ucdir.model.processes import ALONE, Processes, own_device
from ucdir.progress import Progress, no_log, no_progress
from ucdir.run_folder import (
    CHECKPOINT,
    CHOSEN,
    ENCODER,
    FROZEN,
    IMAGES,
    REPORT,
    SETTINGS,
    WEIGHTS,
    is_run_folder,
)
from ucdir.scoring.collapse import collapse_sentence
from ucdir.scoring.metrics import score
from ucdir.settings import Settings, differences, load_settings, stored_settings, value_of
from ucdir.storage import is_draft, write_text

NONE_CHOSEN = (
    "every epoch collapsed, so there is no label-free encoder, and the last one hardly tells images apart. "
    "Lower the learning rate (--learning-rate) and train again with --overwrite."
)
CHANGEABLE = {"data.domains", "data.cache_dir", "data.cache_gb", "data.workers", "run.device"}  # domains are compared


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    encoder      folder of the encoder after the last epoch
    chosen       epoch of each other kept encoder: `label-free`, and `oracle` where classes exist; none where all collapsed
    skipped      unreadable images that were left out
    seconds      of its epochs, resumed parts included; not of the first embedding and the report
    report       page about the run, or None
    was_finished nothing was left to resume
    can_be_scored   all domains have classes, and any two of them share one
    """

    folder: Path
    encoder: Path
    epochs: int
    chosen: Mapping[str, int]
    skipped: tuple[ImageError, ...]
    seconds: float
    report: Path | None = None
    was_finished: bool = False
    can_be_scored: bool = False


def resolve(
    sources: Sequence[str], out: Path, settings: Settings | None, resume: bool = False, overwrite: bool = False
) -> Settings:
    """The settings with absolute domains; those of the run folder when resuming."""
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other. Give only one.")
    if resume:
        return _stored_settings(out, sources, settings)
    if out.exists() and not overwrite and not _is_empty(out):
        raise UsageError(f"'{out}' already exists. Continue it (--resume), replace it (--overwrite), or give another --out.")
    if overwrite and out.exists() and not is_run_folder(out) and not _is_empty(out):
        raise UsageError(f"'{out}' is not a run folder (it has no {SETTINGS}); not deleting it. Give another --out.")
    if not sources:
        raise UsageError("no domains given. Name two or more folders: ucdir train DIR DIR --out run")
    wanted = settings or load_settings()
    require_start(wanted.encoder.weights)
    return with_domains(wanted, sources)


def _is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but the draft of a run that was killed while it wrote its first file."""
    return folder.is_dir() and all(is_draft(file, SETTINGS) for file in folder.iterdir())


def _stored_settings(out: Path, sources: Sequence[str], settings: Settings | None) -> Settings:
    if not is_run_folder(out):
        raise UsageError(f"there is nothing to resume: '{out / SETTINGS}' does not exist. Leave out --resume to start a run.")
    stored = stored_settings(out)
    if sources and with_domains(stored, sources).data.domains != stored.data.domains:
        raise UsageError(
            f"--resume with other domains than those the run started with ({', '.join(stored.data.domains)}). Leave them out."
        )
    if settings is not None:
        differing = [key for key in differences(settings, stored) if key not in CHANGEABLE]
        if differing:
            key = differing[0]
            raise UsageError(
                f"--resume with another {key} ({value_of(settings, key)}) than the run started with "
                f"({value_of(stored, key)}). Leave the setting out, or start another run."
            )
        data = {name: getattr(settings.data, name) for name in ("cache_dir", "cache_gb", "workers")}
        run = stored.run.model_copy(update={"device": settings.run.device})
        return stored.model_copy(update={"data": stored.data.model_copy(update=data), "run": run})
    return stored


def with_domains(settings: Settings, sources: Sequence[str]) -> Settings:
    """The settings of a run on these sources; UcdirError where one cannot be used."""
    return on_domains(settings, load_domains(sources, classes=settings.data.classes, split=settings.data.split))


def on_domains(settings: Settings, domains: Sequence[Domain]) -> Settings:
    """The settings of a run on these domains, named and absolute."""
    named = tuple(f"{domain.name}={domain.source.absolute()}" for domain in domains)
    for text in named:
        if text != text.encode("utf-8", "replace").decode("utf-8"):
            raise UsageError(f"the path {text!r} is not UTF-8, so settings cannot name it. Rename the folder.")
    return settings.model_copy(update={"data": settings.data.model_copy(update={"domains": named})})


def carry_out(
    out: Path,
    settings: Settings,
    processes: Processes = ALONE,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
    log: Callable[[str], None] = no_log,
) -> TrainResult:
    """Do what is left to do of the run in `out`. settings: what `resolve` gave; the rest as in `ucdir train`."""
    if settings.aligns and processes.count > 1:
        raise UsageError(f"method {settings.method.name} runs in one process. Start it without torchrun.")
    result = processes.first(lambda: _finished(out, settings) if resume else None)
    if result is None:
        begun = _Begun(
            out, settings, processes, open_cache(settings.data.cache_dir, settings.data.cache_gb, log), progress, log
        )
        if settings.aligns:
            result = _aligned(begun, overwrite)
        elif processes.first(lambda: resume and (out / CHECKPOINT).is_file()):
            result = _resumed(begun)
        else:
            result = _started(begun, overwrite)
    return replace(result, can_be_scored=_can_be_scored(result.folder))


def _can_be_scored(folder: Path) -> bool:
    """Whether images.csv gives every domain classes, of which any two domains share one."""
    classes: dict[str, set[str]] = {}
    for image in listed_images(folder):
        classes.setdefault(image.domain, set()).update([image.class_name] if image.class_name else [])
    return all(one & other for one, other in combinations(classes.values(), 2))


def _finished(out: Path, settings: Settings) -> TrainResult | None:
    """The finished run in `out`; None if something is left to do."""
    page = out / REPORT if (out / REPORT).is_file() else None
    if settings.aligns:
        is_done = (out / ENCODER / CONFIG).is_file()
        return TrainResult(out, out / ENCODER, 0, {}, skipped_images(out), 0.0, page, was_finished=True) if is_done else None
    if not (out / CHECKPOINT).is_file():
        return None
    state, epochs = load_checkpoint(out / CHECKPOINT), settings.optimiser.epochs
    if state.epoch < epochs:
        return None
    chosen = {kind: best.epoch for kind, best in state.best.items()}
    return TrainResult(out, out / ENCODER, epochs, chosen, skipped_images(out), state.seconds, page, was_finished=True)


@dataclass(frozen=True)
class _Begun:
    """What is known of a run before its first step. Only the first process shows progress and logs."""

    out: Path
    settings: Settings
    processes: Processes
    cache: PixelCache | None
    progress: Progress
    log: Callable[[str], None]

    def domains(self) -> tuple[Domain, ...]:
        """The domains as they are on disk now."""
        data = self.settings.data
        return self.processes.first(lambda: load_domains(data.domains, classes=data.classes, split=data.split))

    def trainer(self, domains: tuple[Domain, ...], encoder: Encoder) -> Trainer:
        """A trainer before its first epoch."""
        run = self.settings.run
        device = own_device(run.device, self.processes)
        precision = self.processes.first(lambda: choose_precision(run.precision, device))
        pictures = Pictures(domains, self.settings, device, precision, self.cache, self.processes)
        inputs: Inputs = pictures
        if self.settings.optimiser.train == "head":
            inputs = compute_features(pictures, encoder, self.progress)
        return build_trainer(self.settings, inputs, encoder, device, precision, self.processes)


def _started(begun: _Begun, overwrite: bool) -> TrainResult:
    out, settings, processes = begun.out, begun.settings, begun.processes
    domains = begun.domains()
    processes.first(lambda: check_sizes(settings, domains, processes))
    begun.log(f"settings of '{out}'\n\n{settings.to_toml()}")
    torch.manual_seed(settings.run.seed)
    encoder = processes.first(lambda: _start_encoder(settings))
    begun.log(f"started from {encoder.config.start}")
    if processes.count > 1:
        begun.log(_together(settings, processes))
    trainer = begun.trainer(domains, encoder)
    found = fill_banks(trainer, begun.progress)
    skipped = tuple(error for embeddings in found for error in embeddings.unreadable)
    for error in skipped:
        begun.log(f"skipped: {error}")
    if processes.is_first:
        if overwrite and out.exists():
            shutil.rmtree(out)
        write_text(out / SETTINGS, settings.to_toml())
        if encoder.loaded is not None:
            write_text(out / WEIGHTS, encoder.loaded.table())
        write_images(out, trainer.domains, {d.name: f.unreadable for d, f in zip(domains, found, strict=True)})
        _frozen(trainer).save(out / FROZEN, "The backbone before training, to compare with.")
        save_checkpoint(out / CHECKPOINT, resume_state(trainer))
    return _run(begun, trainer, skipped)


def _aligned(begun: _Begun, overwrite: bool) -> TrainResult:
    """Bring the domains together. Features are kept by content, so that a run that was stopped computes none of them twice."""
    out, settings, started = begun.out, begun.settings, time.monotonic()
    domains = begun.domains()
    if not overwrite and (out / IMAGES).is_file():
        domains = restrict_to_images(out, domains, also_skipped=True)
    refuse_too_few(domains)
    if settings.method.name == "tune":
        require_sizes(settings.encoder, settings.tune)
    begun.log(f"settings of '{out}'\n\n{settings.to_toml()}")
    torch.manual_seed(settings.run.seed)  # of weights that are random numbers
    wanted = settings.encoder
    frozen = build_encoder(wanted.backbone, wanted.weights, wanted.image_size)
    begun.log(f"started from {frozen.config.start}")
    is_theirs = overwrite and out.exists()

    def begin() -> None:
        """From here on the folder is this run's."""
        nonlocal is_theirs
        if is_theirs:
            shutil.rmtree(out)
            is_theirs = False
        write_text(out / SETTINGS, settings.to_toml())
        if frozen.loaded is not None:
            write_text(out / WEIGHTS, frozen.loaded.table())

    if not is_theirs:
        begin()  # so that it can be resumed
    device = own_device(settings.run.device, begun.processes)
    compute = Compute(device, choose_precision(settings.run.precision, device), settings.data.workers, cache=begun.cache)
    try:
        run = AlignedRun(out, settings, domains, frozen, compute, begun.progress, begun.log)
        skipped = learn_aligned(run, begin if is_theirs else lambda: None)
    except KeyboardInterrupt as error:
        again = "the same command" if is_theirs else f"ucdir train --out {out} --resume"
        raise InterruptedRun(f"stopped; results so far are kept. Continue with: {again}") from error
    return TrainResult(out, out / ENCODER, 0, {}, skipped, time.monotonic() - started)


def _together(settings: Settings, processes: Processes) -> str:
    """How several processes share a step."""
    groups = key_groups(settings.gradient.batch_norm_splits, processes.count)
    return (
        f"{processes.count} processes share each step of {settings.optimiser.batch_size} images of each domain; "
        f"keys are normalised in {groups} groups, where one process alone would have {settings.gradient.batch_norm_splits}"
    )


def _resumed(begun: _Begun) -> TrainResult:
    out, wanted = begun.out, begun.settings.encoder
    state = load_checkpoint(out / CHECKPOINT)
    started = Encoder.load(out / FROZEN)
    encoder = build_encoder(wanted.backbone, "none", wanted.image_size, wanted.dim, wanted.hidden)
    encoder.backbone.load_state_dict(started.backbone.state_dict())  # a backbone that does not learn is needed now
    domains = restrict_to_images(out, begun.domains())
    trainer = begun.trainer(domains, with_start(encoder, started.config.start))
    if [len(domain) for domain in trainer.domains] != [len(rows) for rows in state.banks]:
        raise UcdirError(f"'{out / IMAGES}' lists other images than the checkpoint. Start again with --overwrite.")
    if state.reference is None:  # of a checkpoint from before there was one; the backbone is still the frozen one
        trainer.reference = reference_of(trainer, begun.progress)
    restore(trainer, state)
    if state.reference is None:
        trainer.best.pop("label-free", None)  # chosen by another score
    begun.log(f"resumed after epoch {trainer.epoch} of {begun.settings.optimiser.epochs}")
    return _run(begun, trainer, skipped_images(out))


def _run(begun: _Begun, trainer: Trainer, skipped: tuple[ImageError, ...]) -> TrainResult:
    out, epochs, safe = begun.out, trainer.settings.optimiser.epochs, trainer.epoch
    rising: tuple[str, ...] = ()
    try:
        with RunLog(out, trainer.epoch) if begun.processes.is_first else nullcontext() as run_log:
            if run_log is not None:
                for error in skipped:
                    run_log.line(f"skipped: {error}")
            while trainer.epoch < epochs:
                report = run_epoch(trainer, begun.progress)
                if run_log is not None:
                    oracle = oracle_scores(report, trainer.domains) if trainer.settings.run.oracle else None
                    run_log.epoch(report, oracle)  # before the checkpoint: a resumed run drops a line too many, none is lost
                    _keep(out, trainer, report, oracle)
                safe = trainer.epoch
                lines = [*epoch_lines(report, epochs), *rising_lines(report.rising, rising)]
                rising = report.rising
                for line in lines:
                    if run_log is not None:
                        run_log.line(line)
                    begun.log(line)
    except KeyboardInterrupt as error:
        raise InterruptedRun(
            f"stopped after epoch {safe} of {epochs}; everything learned so far is in '{out}'. "
            f"Continue with: ucdir train --out {out} --resume"
        ) from error
    if not trainer.best:
        begun.log(NONE_CHOSEN)
    chosen = {kind: best.epoch for kind, best in trainer.best.items()}
    return TrainResult(out, out / ENCODER, epochs, chosen, skipped, trainer.seconds)


def _keep(out: Path, trainer: Trainer, report: EpochReport, oracle: Mapping[str, float] | None) -> None:
    """Save the encoders that this epoch changes, then the checkpoint that says so. A collapsed epoch is never chosen."""
    names = ", ".join(f"{domain.name} ({len(domain)} images)" for domain in trainer.domains)
    card = f"Learned by ucdir from {names} without labels, epoch {report.epoch} of {trainer.settings.optimiser.epochs}."
    trainer.searcher.save(out / ENCODER, card)
    scores = {"label-free": report.label_free.score}
    if oracle is not None:
        scores["oracle"] = oracle["mAP@All"]
    for kind, value in scores.items() if not report.collapsed else ():
        if kind not in trainer.best or value > trainer.best[kind].score:
            trainer.best[kind] = BestEpoch(report.epoch, value)
            trainer.searcher.save(out / CHOSEN[kind], f"{card} Chosen as the {kind} epoch.")
    save_checkpoint(out / CHECKPOINT, resume_state(trainer))


def oracle_scores(report: EpochReport, domains: Sequence[Domain]) -> dict[str, float] | None:
    """mAP@All of the epoch's embeddings, mean over both directions of every pair; None where classes are not known."""
    if any(domain.classes is None for domain in domains):
        return None
    names, ids = class_ids(domains)
    if not names:
        return None
    classes = [torch.from_numpy(found) for found in ids]
    scores = [
        score(report.embeddings[a], report.embeddings[b], classes[a], classes[b], ks=(50,), resamples=1)
        for a, b in permutations(range(len(domains)), 2)
    ]
    return {name: sum(found[name].value for found in scores) / len(scores) for name in ("mAP@All", "P@50")}


def epoch_lines(report: EpochReport, epochs: int) -> list[str]:
    """What an epoch did, in a line for people, and in another that it collapsed, if so."""
    line = _epoch_line(report, epochs)
    return [line, _collapsed_line(report)] if report.collapsed else [line]


def _epoch_line(report: EpochReport, epochs: int) -> str:
    """The terms with their weights, where these are not 1, add up to the loss."""
    active = [f"{_factor(weight)}{name} {report.terms[name]:.3f}" for name, weight in report.weights.items() if weight]
    seconds = report.train_seconds + report.embed_seconds
    return (
        f"epoch {report.epoch}/{epochs}  loss {report.terms['total']:.3f} = {' + '.join(active)}  "
        f"label-free score {report.label_free.score:.3f}  {seconds:.0f} s, {report.images_per_second:.0f} images/s"
    )


def rising_lines(rising: Sequence[str], before: Sequence[str]) -> list[str]:
    """Why the loss rises from here on, where a weight begins to rise that did not in the epoch before."""
    begun = [name for name in rising if name not in before]
    if not begun:
        return []
    named = f"the weight of {begun[0]} is" if len(begun) == 1 else f"the weights of {' and '.join(begun)} are"
    return [f"{named} rising, and the loss with it: compare single terms, not the loss, with earlier epochs."]


def _collapsed_line(report: EpochReport) -> str:
    return (
        f"epoch {report.epoch}: {collapse_sentence(report.collapsed)}, so it is not chosen as label-free or oracle epoch. "
        "If later epochs stay like that, lower the learning rate (--learning-rate)."
    )


def _factor(weight: float) -> str:
    return "" if weight == 1 else f"{weight:.3g} x "


def _start_encoder(settings: Settings) -> Encoder:
    wanted = settings.encoder
    return build_encoder(wanted.backbone, wanted.weights, wanted.image_size, wanted.dim, wanted.hidden)


def _frozen(trainer: Trainer) -> Encoder:
    """The backbone as it is before the first step, without a head."""
    wanted = trainer.settings.encoder
    frozen = build_encoder(wanted.backbone, "none", wanted.image_size)
    frozen.backbone.load_state_dict(trainer.encoder.backbone.state_dict())
    return with_start(frozen, trainer.encoder.config.start)
