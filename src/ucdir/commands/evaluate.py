"""`ucdir evaluate`: how often is what an encoder finds in the other domain of the same class?"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from ucdir.config import DataSettings, stored_settings
from ucdir.data.cache import PixelCache, open_cache
from ucdir.data.domain import Domain, class_ids, load_domains
from ucdir.errors import UcdirError, UsageError
from ucdir.model.device import choose_device, choose_precision
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.model.folder import last_encoder_folder
from ucdir.progress import Bars, no_bars, no_words
from ucdir.retrieval.embed import Embeddings
from ucdir.retrieval.evaluate import (
    DEFAULT_KS,
    DomainCount,
    EmbeddedDomain,
    EvaluationReport,
    evaluate_methods,
    smoothed_domains,
    training_free,
)
from ucdir.retrieval.expansion import hits_of
from ucdir.retrieval.features import embed_with
from ucdir.run_folder import ALIGNED, CHOSEN, is_run_folder
from ucdir.run_folder import FROZEN as FROZEN_ENCODER

FROZEN, SMOOTHED = "frozen", "smoothed"
OTHER_ENCODERS = {
    "trained (label-free epoch)": CHOSEN["label-free"],
    "trained (oracle epoch)": CHOSEN["oracle"],
    "aligned": ALIGNED,
}


def evaluate(
    encoder: Path | None = None,
    sources: Sequence[str] | None = None,
    ks: Sequence[int] = DEFAULT_KS,
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
    bars: Bars = no_bars,
    expand: int | None = None,
    cache_dir: str | None = None,
) -> EvaluationReport:
    """Score both directions of every pair of domains: frozen, centred, smoothed and, if any, trained.

    encoder     a run folder, or an encoder folder; None with `backbone`
    sources     folders or manifests with classes, PATH or NAME=PATH; None = those of the run
    frozen      encoder folder of the frozen backbone, where it does not lie beside `encoder`
    backbone    torchvision/NAME or timm/NAME with `weights` at `image_size`: the training-free rows only
    classes     auto, folders or none; None = as the run was set, or auto
    split       rows of a manifest; None = as the run was set, or all
    resamples   bootstrap resamples over queries for the 95 % intervals, drawn from `seed`
    bars        show progress
    expand      hits that queries move toward in the rows called `+ expanded`; 0 = no such rows; None = what is best for each
                encoder, as in `search`
    cache_dir   where decoded views are kept, so that several encoders need an image decoded once: a folder, auto or none;
                None = where the run kept them, or auto
    """
    if not ks or min(ks) < 1:
        raise UsageError(f"k={min(ks, default=0)}: expected 1 or more. Give for example --k 1 --k 5.")
    if resamples < 0:
        raise UsageError(f"resamples={resamples}: expected 0 or more.")
    if encoder is not None:
        last_encoder_folder(encoder)  # a name that is wrong is told first
    domains = _domains(encoder, sources, classes, split)
    check_classes(domains)
    encoders = _encoders(encoder, frozen, backbone, weights, image_size)
    place = choose_device(device)
    exactness = choose_precision(precision, place)
    last = list(encoders)[-1]
    hits = {name: hits_of(each.config.rows, expand if name == last else None) for name, each in encoders.items()}
    cache = _cache(encoder, cache_dir)
    return score_encoders(
        encoders, domains, ks, place, exactness, batch_size, workers, resamples, seed, bars, cache=cache, expand=hits
    )


def score_encoders(
    encoders: Mapping[str, Encoder],
    domains: Sequence[Domain],
    ks: Sequence[int],
    device: torch.device,
    precision: str,
    batch_size: int = 64,
    workers: int = 0,
    resamples: int = 1000,
    seed: int = 0,
    bars: Bars = no_bars,
    cache: PixelCache | None = None,
    also_smoothed: Sequence[str] = (),
    expand: Mapping[str, int] | None = None,
) -> EvaluationReport:
    """Embed domains that have classes with several encoders and score all directions.

    encoders        by the name of their row; the one called `frozen` also gives the rows centred and smoothed
    also_smoothed   names of encoders that also give a row `NAME + smoothed`
    expand          name of an encoder -> hits that queries move toward in its row `NAME + expanded`; 0 = no such row
    cache           where views and what backbones give are looked for and kept
    """
    class_names, labels = class_ids(domains)
    with bars("embedding", len(encoders) * sum(len(domain) for domain in domains)) as advance:
        embedded = [
            embed_with(encoders, domain.paths, device, precision, batch_size, workers, advance, cache, domain.name)
            for domain in domains
        ]
    named = {name: _named(domains, labels, [found[name] for found in embedded]) for name in encoders}
    counts = tuple(_count(*parts) for parts in zip(domains, labels, (next(iter(f.values())) for f in embedded), strict=True))
    frozen = named.pop(FROZEN, None)
    methods = (training_free(frozen) if frozen is not None else {}) | named
    methods |= {f"{name} + {SMOOTHED}": smoothed_domains(named[name]) for name in also_smoothed}
    moving = {name: hits for name, hits in (expand or {}).items() if hits}
    with bars("scoring", (len(methods) + len(moving)) * len(domains) * (len(domains) - 1)) as advance:
        return evaluate_methods(methods, class_names, counts, ks, resamples, seed, advance, moving)


def _domains(encoder: Path | None, sources: Sequence[str] | None, classes: str | None, split: str | None) -> tuple[Domain, ...]:
    settings = _run_data(encoder)
    if not sources:
        if settings is None or not settings.domains:
            where = "--backbone" if encoder is None else f"'{encoder}'"
            raise UsageError(f"{where} names no domains to score on. Give two or more folders or manifests with classes.")
        sources, split = settings.domains, split or settings.split
        classes = classes or settings.classes
    if len(sources) < 2:
        raise UsageError(f"one domain alone cannot be scored: '{sources[0]}'. Give two or more folders or manifests.")
    return load_domains(sources, classes=classes or "auto", split=split)


def _run_data(encoder: Path | None) -> DataSettings | None:
    """The settings of the data of a run, when `encoder` is a run folder."""
    return stored_settings(encoder).data if encoder is not None and is_run_folder(encoder) else None


def _cache(encoder: Path | None, folder: str | None) -> PixelCache | None:
    """Where views and features are kept: in `folder`, where the run kept them, or in the user's cache."""
    data = _run_data(encoder) or DataSettings()
    return open_cache(folder or data.cache_dir, data.cache_gb, no_words)


def check_classes(domains: Sequence[Domain]) -> None:
    """UcdirError when a domain has no classes, or two share none."""
    names = [{name for name in domain.classes or () if name is not None} for domain in domains]
    for domain, own in zip(domains, names, strict=True):
        if not own:
            raise UcdirError(
                f"domain '{domain.name}' has no classes, and only classes tell right hits from wrong "
                "ones: looked in "
                f"'{domain.source}'. Sort its images into class folders, or give a manifest with a class "
                "column."
            )
    for (first, left), (second, right) in combinations(zip(domains, names, strict=True), 2):
        if not left & right:
            raise UcdirError(
                f"domains '{first.name}' and '{second.name}' share no class by name: {_listed(left)} "
                f"against {_listed(right)}. "
                "Give equal classes equal names."
            )


def _listed(names: set[str], most: int = 8) -> str:
    shown = ", ".join(sorted(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _encoders(
    encoder: Path | None, frozen: Path | None, backbone: str | None, weights: str, image_size: int
) -> dict[str, Encoder]:
    if backbone is not None:
        if encoder is not None or frozen is not None:
            raise UsageError("--backbone scores a backbone without training, so it takes no encoder and no --frozen. Drop one.")
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
            f"the frozen backbone of '{folder}' is not at '{beside}', and without it there is nothing to "
            "compare with. "
            "Give its encoder folder with --frozen."
        )
    epochs = {name: folder.parent / part for name, part in OTHER_ENCODERS.items()} if folder != encoder else {}
    trained = {name: Encoder.load(path) for name, path in epochs.items() if path.is_dir()}
    return {FROZEN: Encoder.load(last_encoder_folder(frozen or beside)), **trained, last.config.rows or "trained": last}


def _named(
    domains: Sequence[Domain], labels: Sequence[np.ndarray], embedded: Sequence[Embeddings]
) -> tuple[EmbeddedDomain, ...]:
    return tuple(
        EmbeddedDomain(domain.name, part.rows, torch.from_numpy(ids)[part.image_ids])
        for domain, ids, part in zip(domains, labels, embedded, strict=True)
    )


def _count(domain: Domain, labels: np.ndarray, embedded: Embeddings) -> DomainCount:
    if len(embedded.rows) == 0:
        first = embedded.unreadable[0]
        raise UcdirError(
            f"none of the {len(domain)} images of domain '{domain.name}' can be read (the first: "
            f"'{first.path}': {first.reason}). "
            f"Run ucdir check {domain.source} to see why."
        )
    with_class = int((labels[embedded.image_ids.numpy()] >= 0).sum())
    unreadable = tuple((error.path, error.reason) for error in embedded.unreadable)
    return DomainCount(domain.name, len(embedded.rows), with_class, unreadable)
