"""The terms of the method over all domains -> one total and its named parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor

from ucdir.config import MethodSettings
from ucdir.learn.clusters import Clusters
from ucdir.learn.losses import (
    assignment_entropy,
    bank_logsumexp,
    cluster_contrast,
    confident,
    distance_of_distance,
    instance_contrast,
)
from ucdir.learn.schedules import ramp


@dataclass(frozen=True)
class TermWeights:
    """Weight of each term in one epoch. A term of weight 0 is still computed when its clusters exist."""

    instance: float
    cluster: float
    entropy: float
    distance: float


@dataclass(frozen=True)
class DomainStep:
    """What one domain brings to a step.

    query, key    (N, D) unit rows of two views; only `query` carries a gradient
    image_ids     (N,) int64, rows in `bank`
    bank          (M, D) unit rows, already holding the keys
    clusterings   one per cluster count, of all M images; empty before clustering starts
    """

    query: Tensor
    key: Tensor
    image_ids: Tensor
    bank: Tensor
    clusterings: tuple[Clusters, ...]


@dataclass(frozen=True)
class Terms:
    """Scalars of a step; instance and cluster have one per domain, in order."""

    total: Tensor
    instance: tuple[Tensor, ...]
    cluster: tuple[Tensor, ...]
    entropy: Tensor
    distance: Tensor

    def detach(self) -> "Terms":
        """The same without gradient."""
        return self._of(*(value.detach() for value in self._flat()))

    @classmethod
    def mean(cls, terms: Sequence["Terms"]) -> "Terms":
        """The mean of several."""
        return terms[0]._of(*torch.stack([torch.stack(one._flat()) for one in terms]).mean(dim=0))

    def _flat(self) -> tuple[Tensor, ...]:
        return (self.total, *self.instance, *self.cluster, self.entropy, self.distance)

    def _of(self, total: Tensor, *rest: Tensor) -> "Terms":
        count = len(self.instance)
        return Terms(total, rest[:count], rest[count : 2 * count], rest[-2], rest[-1])


def first_cluster_epoch(method: MethodSettings, epochs: int) -> int:
    """The epoch before which nothing needs clusters."""
    return min(round(method.cluster_start * epochs), round(method.alignment_start * epochs))


def term_weights(method: MethodSettings, epoch: int, epochs: int) -> TermWeights:
    """Weights in `epoch` of a run of `epochs`; the paper's 20 and 100 of 200 are the shares 0.1 and 0.5."""
    start, full = round(method.cluster_start * epochs), round(method.cluster_full * epochs)
    aligned = epoch >= round(method.alignment_start * epochs)
    return TermWeights(
        instance=method.instance_weight,
        cluster=ramp(0.0, method.cluster_weight, epoch, start, full),
        entropy=method.entropy_weight if aligned else 0.0,
        distance=method.distance_weight if aligned else 0.0,
    )


def objective(steps: Sequence[DomainStep], weights: TermWeights, method: MethodSettings) -> Terms:
    """All terms of one step over S >= 2 domains.

    Instance and cluster contrast stay inside a domain and are averaged over the S domains. Entropy runs over every pair
    of feature domain and prototype domain; distance over every feature domain and every pair of prototype domains.
    Several cluster counts are independent terms, averaged.
    """
    sums = [bank_logsumexp(s.query, s.key, s.bank, s.image_ids, method.temperature) for s in steps]
    instance = tuple(
        instance_contrast(logsumexp, s.query, s.key, method.temperature) for logsumexp, s in zip(sums, steps, strict=True)
    )
    zero = torch.zeros_like(instance[0])
    cluster = tuple(
        mean([_cluster_term(logsumexp, s, clusters, method) for clusters in s.clusterings], zero)
        for logsumexp, s in zip(sums, steps, strict=True)
    )
    levels = list(zip(*(s.clusterings for s in steps), strict=True)) if weights.entropy or weights.distance else []
    entropy = mean(
        [
            assignment_entropy(s.query, clusters.prototypes, method.entropy_temperature)
            for level in levels
            for s, clusters in product(steps, level)
        ],
        zero,
    )
    distance = mean(
        [
            distance_of_distance(s.query, one.prototypes, other.prototypes, method.distance_temperature)
            for level in levels
            for s, (one, other) in product(steps, combinations(level, 2))
        ],
        zero,
    )
    total = (
        weights.instance * mean(instance, zero)
        + weights.cluster * mean(cluster, zero)
        + weights.entropy * entropy
        + weights.distance * distance
    )
    return Terms(total, instance, cluster, entropy, distance)


def mean(terms: Sequence[Tensor], empty: Tensor) -> Tensor:
    """Mean of scalars; `empty` where there are none."""
    return torch.stack(tuple(terms)).mean() if terms else empty


def _cluster_term(logsumexp: Tensor, step: DomainStep, clusters: Clusters, method: MethodSettings) -> Tensor:
    assignment = clusters.assignment[step.image_ids]
    counted = confident(step.key, clusters.prototypes, assignment, method.temperature, method.confidence)
    means = clusters.bank_means(step.bank)
    return cluster_contrast(logsumexp, step.query, means, assignment, counted, method.temperature)
