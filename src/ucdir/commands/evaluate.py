"""`ucdir evaluate`: how often is what an encoder finds in the other domain of the same class?"""

from collections.abc import Sequence
from pathlib import Path

from ucdir.embedding.compute import Compute
from ucdir.errors import UcdirError, UsageError
from ucdir.images.domains import Domain, load_domains
from ucdir.images.pixel_cache import PixelCache, open_cache
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.model.encoder_folder import last_encoder_folder
from ucdir.progress import Progress, no_log, no_progress
from ucdir.retrieval.expansion import hits_of
from ucdir.run_folder import ALIGNED, CHOSEN, is_run_folder
from ucdir.run_folder import FROZEN as FROZEN_ENCODER
from ucdir.scoring.directions import (
    DEFAULT_KS,
    EvaluationReport,
)
from ucdir.scoring.encoders import FROZEN, check_classes, score_encoders
from ucdir.settings import DataSettings, stored_settings

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
) -> EvaluationReport:
    """Score both directions of every pair of domains: frozen, centred, smoothed and, if any, trained.

    encoder     a run folder, or an encoder folder; None with `backbone`
    sources     folders or manifests with classes, PATH or NAME=PATH; None = those of the run
    frozen      encoder folder of the frozen backbone, if it is not next to `encoder`
    backbone    torchvision/NAME or timm/NAME with `weights` at `image_size`: the training-free rows only
    classes     auto, folders or none; None = as the run was set, or auto
    split       rows of a manifest; None = as the run was set, or all
    resamples   bootstrap resamples over queries for the 95 % intervals, drawn from `seed`
    progress   shows how far the work is
    expand      hits that queries move toward in the rows called `+ expanded`; 0 = no such rows; None = what is best for each
                encoder, as in `search`
    cache_dir   where decoded views are kept, so that several encoders need an image decoded once: a folder, auto or none;
                None = where the run kept them, or auto
    """
    ks = DEFAULT_KS if ks is None else ks
    if not ks or min(ks) < 1:
        raise UsageError(f"k={min(ks, default=0)}: expected 1 or more. Give for example --k 1 --k 5.")
    if resamples < 0:
        raise UsageError(f"resamples={resamples}: expected 0 or more.")
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
            raise UsageError(f"{where} names no domains to score on. Give two or more folders or manifests with classes.")
        sources, split = settings.domains, split or settings.split
        classes = classes or settings.classes
    if len(sources) < 2:
        raise UsageError(f"cannot score a single domain: '{sources[0]}'. Give two or more folders or manifests.")
    return load_domains(sources, classes=classes or "auto", split=split)


def _run_data(encoder: Path | None) -> DataSettings | None:
    """The settings of the data of a run, when `encoder` is a run folder."""
    return stored_settings(encoder).data if encoder is not None and is_run_folder(encoder) else None


def _cache(encoder: Path | None, folder: str | None) -> PixelCache | None:
    """Where views and features are kept: in `folder`, where the run kept them, or in the user's cache."""
    data = _run_data(encoder) or DataSettings()
    return open_cache(folder or data.cache_dir, data.cache_gb, no_log)


def _encoders(
    encoder: Path | None, frozen: Path | None, backbone: str | None, weights: str, image_size: int
) -> dict[str, Encoder]:
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
    beside = folder.parent / FROZEN_ENCODER
    if frozen is None and not beside.is_dir():
        raise UcdirError(
            f"the frozen backbone of '{folder}' is not at '{beside}', and without it there is no baseline to "
            "compare with. "
            "Give its encoder folder (--frozen FOLDER)."
        )
    epochs = {name: folder.parent / part for name, part in OTHER_ENCODERS.items()} if folder != encoder else {}
    trained = {name: Encoder.load(path) for name, path in epochs.items() if path.is_dir()}
    return {FROZEN: Encoder.load(last_encoder_folder(frozen or beside)), **trained, last.config.rows or "trained": last}
