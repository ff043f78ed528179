"""Score several encoders on the same images, in every direction."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch

from ucdir.embedding.backbone_features import embed_with
from ucdir.embedding.compute import Compute
from ucdir.embedding.embed import Embeddings
from ucdir.errors import UcdirError
from ucdir.images.domains import Domain, class_ids
from ucdir.model.encoder import Encoder
from ucdir.progress import Progress, no_progress
from ucdir.scoring.directions import (
    DomainCount,
    EmbeddedDomain,
    EvaluationReport,
    evaluate_methods,
    smoothed_domains,
    training_free,
)

FROZEN, SMOOTHED = "frozen", "smoothed"


def score_encoders(
    encoders: Mapping[str, Encoder],
    domains: Sequence[Domain],
    ks: Sequence[int],
    compute: Compute,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress = no_progress,
    also_smoothed: Sequence[str] = (),
    expand: Mapping[str, int] | None = None,
) -> EvaluationReport:
    """Embed domains that have classes with several encoders and score all directions.

    encoders        by the name of their row; the one called `frozen` also gives the rows centred and smoothed
    also_smoothed   names of encoders that also give a row `NAME + smoothed`
    expand          name of an encoder -> hits that queries move toward in its row `NAME + expanded`; 0 = no such row
    """
    class_names, labels = class_ids(domains)
    with progress("embedding", len(encoders) * sum(len(domain) for domain in domains)) as advance:
        embedded = [embed_with(encoders, domain.paths, compute, advance, domain.name) for domain in domains]
    named = {name: _named(domains, labels, [found[name] for found in embedded]) for name in encoders}
    counts = tuple(_count(*parts) for parts in zip(domains, labels, (next(iter(f.values())) for f in embedded), strict=True))
    frozen = named.pop(FROZEN, None)
    methods = (training_free(frozen) if frozen is not None else {}) | named
    methods |= {f"{name} + {SMOOTHED}": smoothed_domains(named[name]) for name in also_smoothed}
    moving = {name: hits for name, hits in (expand or {}).items() if hits}
    with progress("scoring", (len(methods) + len(moving)) * len(domains) * (len(domains) - 1)) as advance:
        return evaluate_methods(methods, class_names, counts, ks, resamples, seed, advance, moving)


def check_classes(domains: Sequence[Domain]) -> None:
    """UcdirError when a domain has no classes, or two share none."""
    names = [{name for name in domain.classes or () if name is not None} for domain in domains]
    for domain, own in zip(domains, names, strict=True):
        if not own:
            raise UcdirError(
                f"domain '{domain.name}' has no classes, and scoring needs them to tell right hits from wrong "
                "ones: looked in "
                f"'{domain.source}'. Sort its images into class folders, or give a manifest with a class "
                "column."
            )
    for (first, left), (second, right) in combinations(zip(domains, names, strict=True), 2):
        if not left & right:
            raise UcdirError(
                f"domains '{first.name}' and '{second.name}' have no class names in common: {_listed(left)} "
                f"against {_listed(right)}. "
                "Use the same class names in both domains."
            )


def _listed(names: set[str], most: int = 8) -> str:
    shown = ", ".join(sorted(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


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
