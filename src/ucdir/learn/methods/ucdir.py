"""Hu & Lee 2022, and its first two terms alone: instance and cluster contrast."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import torch
from pydantic import Field
from torch import Tensor

from ucdir.learn.clusters import Clusters
from ucdir.learn.losses import assignment_entropy, cluster_contrast, confident, distance_of_distance
from ucdir.learn.methods.contrast import Instance, RampSettings, cluster_weight
from ucdir.learn.objective import DomainStep, mean

Pairs = Sequence[tuple[Tensor, DomainStep]]
Levels = Sequence[tuple[Clusters, ...]]  # per cluster count, the clusters of every domain


class ClusterSettings(RampSettings):
    """Of cluster contrast."""

    confidence: float = Field(0.2, ge=0.0, lt=1.0)  # a sample counts in cluster contrast above this probability


class UcdirSettings(ClusterSettings):
    """Of all four terms."""

    entropy_weight: float = Field(1.0, ge=0.0)
    entropy_temperature: float = Field(0.01, gt=0.0)
    distance_weight: float = Field(0.5, ge=0.0)
    distance_temperature: float = Field(0.01, gt=0.0)
    alignment_start: float = Field(0.5, ge=0.0, le=1.0)  # fraction of the run at which entropy and distance terms start


class Cluster(Instance):
    """Instance and cluster contrast inside each domain. Several cluster counts are independent terms, averaged."""

    settings = ClusterSettings
    method: ClusterSettings

    @property
    def first_cluster_epoch(self) -> int:
        """Where cluster contrast starts."""
        return round(self.method.cluster_start * self.epochs)

    def weights(self, epoch: int) -> dict[str, float]:
        """See `Objective`."""
        return super().weights(epoch) | {"cluster": cluster_weight(self.method, epoch, self.epochs)}

    def _parts(self, pairs: Pairs, weights: Mapping[str, float]) -> dict[str, tuple[Tensor, ...]]:
        parts = super()._parts(pairs, weights)
        zero = torch.zeros_like(parts["instance"][0])
        cluster = tuple(mean([self._cluster_term(total, s, each) for each in s.clusterings], zero) for total, s in pairs)
        return parts | {"cluster": cluster}

    def _cluster_term(self, logsumexp: Tensor, step: DomainStep, clusters: Clusters) -> Tensor:
        method = self.method
        assignment = clusters.assignment[step.image_ids]
        counted = confident(step.key, clusters.prototypes, assignment, method.temperature, method.confidence)
        means = clusters.bank_means(step.bank)
        return cluster_contrast(logsumexp, step.query, means, assignment, counted, method.temperature)


class Ucdir(Cluster):
    """The four terms of the paper.

    Entropy runs over every pair of feature domain and prototype domain; distance over every feature domain and every pair of
    prototype domains.
    """

    settings = UcdirSettings
    method: UcdirSettings

    @property
    def first_cluster_epoch(self) -> int:
        """The earlier of the starts of cluster contrast and of alignment."""
        return min(super().first_cluster_epoch, self._alignment_epoch)

    @property
    def _alignment_epoch(self) -> int:
        return round(self.method.alignment_start * self.epochs)

    def weights(self, epoch: int) -> dict[str, float]:
        """The paper's epochs 20 and 100 of 200 are the fractions 0.1 and 0.5."""
        method, aligned = self.method, epoch >= self._alignment_epoch
        weights = {"entropy": method.entropy_weight, "distance": method.distance_weight}
        return super().weights(epoch) | {name: weight if aligned else 0.0 for name, weight in weights.items()}

    def _parts(self, pairs: Pairs, weights: Mapping[str, float]) -> dict[str, tuple[Tensor, ...]]:
        """Entropy and distance are computed only where one of them weighs something."""
        parts = super()._parts(pairs, weights)
        zero = torch.zeros_like(parts["instance"][0])
        steps = [step for _, step in pairs]
        aligned = weights["entropy"] or weights["distance"]
        levels = list(zip(*(s.clusterings for s in steps), strict=True)) if aligned else []
        entropy, distance = mean(self._entropies(steps, levels), zero), mean(self._distances(steps, levels), zero)
        return parts | {"entropy": (entropy,), "distance": (distance,)}

    def _entropies(self, steps: Sequence[DomainStep], levels: Levels) -> list[Tensor]:
        warm = self.method.entropy_temperature
        return [assignment_entropy(s.query, each.prototypes, warm) for level in levels for s, each in product(steps, level)]

    def _distances(self, steps: Sequence[DomainStep], levels: Levels) -> list[Tensor]:
        warm = self.method.distance_temperature
        return [
            distance_of_distance(s.query, one.prototypes, other.prototypes, warm)
            for level in levels
            for s, (one, other) in product(steps, combinations(level, 2))
        ]
