"""`ucdir evaluate`: measure how many hits in the other domain have the class of the query."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ucdir.commands.command import command
from ucdir.commands.console import show, show_json
from ucdir.errors import UcdirError, UsageError, require_at_least
from ucdir.images.domains import Domain, load_domains
from ucdir.images.pixel_cache import PixelCache, open_cache
from ucdir.model.encoder_folder import last_encoder_folder
from ucdir.progress import Progress, no_log, no_progress
from ucdir.run_folder import ALIGNED, CHOSEN, is_run_folder
from ucdir.run_folder import FROZEN as FROZEN_ENCODER
from ucdir.settings import DataSettings, stored_settings

if TYPE_CHECKING:
    from ucdir.model.encoder import Encoder
    from ucdir.scoring.directions import EvaluationReport

OTHER_ENCODERS = {
    "trained (label-free epoch)": CHOSEN["label-free"],
    "trained (oracle epoch)": CHOSEN["oracle"],
    "aligned": ALIGNED,
}


def evaluate(
    encoder: Path | None = None,
    sources: Sequence[str] | None = None,
    ks: Sequence[int] | None = None,
    frozen: Path | None = None,
    backbone: str | None = None,
    weights: str = "default",
    image_size: int = 224,
    classes: str | None = None,
    split: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress = no_progress,
    expand: int | None = None,
    cache_dir: str | None = None,
) -> "EvaluationReport":
    """Score an encoder in both directions of every pair of domains, next to training-free baselines.

    encoder      Run or encoder folder; not with --backbone.
    sources      Two or more folders or manifests with classes. Default: those of the run.
    ks           Cut-offs. Repeat for several. Default: 1 5 15 50.
    frozen       Encoder folder of the frozen backbone, if RUN does not contain it.
    backbone     Score this backbone without training: torchvision/NAME, timm/NAME or module:FACTORY.
    weights      Weights of --backbone: default or PATH.
    image_size   Side length of the images for --backbone, in pixels.
    classes      Class folders: auto, folders or none. Default: as in the run, or auto.
    split        Use only the rows of a manifest with this split. Default: as in the run, or all.
    device       auto, cpu, cuda, cuda:1 or mps.
    precision    auto, float32 or bfloat16.
    batch_size   images per batch
    workers      Threads for reading images; 0 = one per core.
    resamples    Bootstrap resamples of the queries for the 95 % intervals; 0 = no intervals.
    seed         Seed of the bootstrap.
    progress     reports progress
    expand       Number of best hits toward which queries move in the rows `+ expanded`; 0 omits these rows.
                 Default: the best number for each encoder.
    cache_dir    Where to cache decoded views: a folder, auto or none. Default: as in the run, or auto.
    """
    from ucdir.embedding.compute import Compute
    from ucdir.retrieval.expansion import hits_of
    from ucdir.scoring.directions import DEFAULT_KS
    from ucdir.scoring.encoders import check_classes, score_encoders

    ks = DEFAULT_KS if ks is None else ks
    if not ks or min(ks) < 1:
        raise UsageError(f"k={min(ks, default=0)}: expected 1 or more. Give for example --k 1 --k 5.")
    for flag, value, least in (("--resamples", resamples, 0), ("--seed", seed, 0), ("--image-size", image_size, 16)):
        require_at_least(flag, value, least)
    if encoder is not None:
        last_encoder_folder(encoder)  # report a wrong name first
    domains = _domains(encoder, sources, classes, split)
    check_classes(domains)
    encoders = _encoders(encoder, frozen, backbone, weights, image_size)
    compute = Compute.named(device, precision, workers, batch_size, _cache(encoder, cache_dir))
    last = list(encoders)[-1]
    hits = {name: hits_of(each.config.rows, expand if name == last else None) for name, each in encoders.items()}
    return score_encoders(encoders, domains, ks, compute, resamples, seed, progress, expand=hits)


def _domains(encoder: Path | None, sources: Sequence[str] | None, classes: str | None, split: str | None) -> tuple[Domain, ...]:
    settings = _run_data(encoder)
    if not sources:
        if settings is None or not settings.domains:
            where = "--backbone" if encoder is None else f"'{encoder}'"
            raise UsageError(f"{where} has no domains to score on. Give two or more folders or manifests with classes.")
        sources, split = settings.domains, split or settings.split
        classes = classes or settings.classes
    if len(sources) < 2:
        raise UsageError(
            f"scoring needs at least two domains, found only '{sources[0]}'. Give two or more folders or manifests."
        )
    return load_domains(sources, classes=classes or "auto", split=split)


def _run_data(encoder: Path | None) -> DataSettings | None:
    """Return the data settings when `encoder` is a run folder."""
    return stored_settings(encoder).data if encoder is not None and is_run_folder(encoder) else None


def _cache(encoder: Path | None, folder: str | None) -> PixelCache | None:
    """Open the cache in `folder`, or that of the run, or that of the user."""
    data = _run_data(encoder) or DataSettings()
    return open_cache(folder or data.cache_dir, data.cache_gb, no_log)


def _encoders(
    encoder: Path | None, frozen: Path | None, backbone: str | None, weights: str, image_size: int
) -> "dict[str, Encoder]":
    from ucdir.model.encoder import Encoder, build_encoder
    from ucdir.scoring.encoders import FROZEN

    if backbone is not None:
        if encoder is not None or frozen is not None:
            raise UsageError(
                "--backbone scores a backbone without training, so it cannot be combined with an encoder or "
                "--frozen. Leave one out."
            )
        return {FROZEN: build_encoder(backbone, weights, image_size)}
    if encoder is None:
        raise UsageError("nothing to score: give a run folder, an encoder folder or --backbone torchvision/NAME.")
    folder = last_encoder_folder(encoder)
    last = Encoder.load(folder)
    if last.config.dim is None and frozen is None:
        return {FROZEN: last}
    expected = folder.parent / FROZEN_ENCODER
    if frozen is None and not expected.is_dir():
        raise UcdirError(
            f"the frozen backbone of '{folder}' is missing: expected it at '{expected}', as the baseline to compare with. "
            "Give its encoder folder (--frozen FOLDER)."
        )
    epochs = {name: folder.parent / part for name, part in OTHER_ENCODERS.items()} if folder != encoder else {}
    trained = {name: Encoder.load(path) for name, path in epochs.items() if path.is_dir()}
    return {FROZEN: Encoder.load(last_encoder_folder(frozen or expected)), **trained, last.config.rows or "trained": last}


def _folders_only(given: dict[str, Any]) -> None:
    """Treat the first argument as a source when --backbone is given."""
    if given.get("backbone") is not None and given.get("encoder") is not None:
        given["sources"] = [str(given.pop("encoder")), *given.get("sources", ())]


def show_scores(report: "EvaluationReport", figure: Literal["P", "capped", "mAP", "R"] = "P", json: bool = False) -> None:
    """Print the scores.

    figure   Score in the columns for each cut-off.
    json     Print one JSON document instead of a table.
    """
    from ucdir.report.terminal.scores import score_document, score_table

    if json:
        show_json(score_document(report))
    else:
        show(score_table(report, figure))


evaluate_command = command(evaluate, show_scores, optional=["encoder", "sources"], adapt=_folders_only)
