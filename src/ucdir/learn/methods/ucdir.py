"""Hu & Lee 2022, and its parts alone: instance contrast; instance and cluster contrast."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import torch
from torch import Tensor

from ucdir.learn.clusters import Clusters
from ucdir.learn.losses import (
    assignment_entropy,
    bank_logsumexp,
    cluster_contrast,
    confident,
    distance_of_distance,
    instance_contrast,
)
from ucdir.learn.objective import DomainStep, Objective, cluster_weight, mean
from ucdir.settings import MethodSettings

TERMS = {
    "instance": ("instance",),
    "cluster": ("instance", "cluster"),
    "ucdir": ("instance", "cluster", "entropy", "distance"),
}


class Ucdir(Objective):
    """The four terms of the paper, or the first of them.

    Instance and cluster contrast stay inside a domain. Entropy runs over every pair of feature domain and prototype domain;
    distance over every feature domain and every pair of prototype domains. Several cluster counts are independent terms,
    averaged.
    """

    def __init__(self, method: MethodSettings, epochs: int) -> None:
        super().__init__()
        self.method, self.epochs, self.terms = method, epochs, TERMS[method.name]

    @property
    def first_cluster_epoch(self) -> int:
        """The earlier of the starts of cluster contrast and of alignment."""
        return min(round(self.method.cluster_start * self.epochs), round(self.method.alignment_start * self.epochs))

    def weights(self, epoch: int) -> dict[str, float]:
        """The paper's epochs 20 and 100 of 200 are the shares 0.1 and 0.5."""
        method = self.method
        aligned = epoch >= round(method.alignment_start * self.epochs)
        weights = {
            "instance": method.instance_weight,
            "cluster": cluster_weight(method, epoch, self.epochs),
            "entropy": method.entropy_weight if aligned else 0.0,
            "distance": method.distance_weight if aligned else 0.0,
        }
        return {name: weights[name] for name in self.terms}

    def parts(self, steps: Sequence[DomainStep], weights: Mapping[str, float]) -> dict[str, tuple[Tensor, ...]]:
        """See `Objective`. Entropy and distance are computed only where one of them weighs something."""
        method = self.method
        sums = [bank_logsumexp(s.query, s.key, s.bank, s.image_ids, method.temperature) for s in steps]
        pairs = list(zip(sums, steps, strict=True))
        instance = tuple(instance_contrast(total, s.query, s.key, method.temperature) for total, s in pairs)
        zero = torch.zeros_like(instance[0])
        parts = {"instance": instance}
        if "cluster" in weights:
            parts["cluster"] = tuple(
                mean([_cluster_term(total, s, clusters, method) for clusters in s.clusterings], zero) for total, s in pairs
            )
        if "entropy" in weights:
            aligned = weights["entropy"] or weights["distance"]
            levels = list(zip(*(s.clusterings for s in steps), strict=True)) if aligned else []
            parts["entropy"] = (mean(_entropies(steps, levels, method), zero),)
            parts["distance"] = (mean(_distances(steps, levels, method), zero),)
        return parts


Levels = Sequence[tuple[Clusters, ...]]  # per cluster count, the clusters of every domain


def _entropies(steps: Sequence[DomainStep], levels: Levels, method: MethodSettings) -> list[Tensor]:
    return [
        assignment_entropy(s.query, clusters.prototypes, method.entropy_temperature)
        for level in levels
        for s, clusters in product(steps, level)
    ]


def _distances(steps: Sequence[DomainStep], levels: Levels, method: MethodSettings) -> list[Tensor]:
    return [
        distance_of_distance(s.query, one.prototypes, other.prototypes, method.distance_temperature)
        for level in levels
        for s, (one, other) in product(steps, combinations(level, 2))
    ]


def _cluster_term(logsumexp: Tensor, step: DomainStep, clusters: Clusters, method: MethodSettings) -> Tensor:
    assignment = clusters.assignment[step.image_ids]
    counted = confident(step.key, clusters.prototypes, assignment, method.temperature, method.confidence)
    means = clusters.bank_means(step.bank)
    return cluster_contrast(logsumexp, step.query, means, assignment, counted, method.temperature)
