"""What a method is: the terms of a step over all domains, and how much each weighs in an epoch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ucdir.learn.clusters import Clusters
from ucdir.settings import GradientSettings, Settings


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
    """Scalars of a step: each term has one value or several, for example one per domain, whose mean counts in `total`."""

    total: Tensor
    parts: Mapping[str, tuple[Tensor, ...]]

    @classmethod
    def weighted(cls, parts: Mapping[str, tuple[Tensor, ...]], weights: Mapping[str, float]) -> "Terms":
        """The sum of the means of all terms, each times its weight."""
        total = torch.stack([weights[name] * torch.stack(values).mean() for name, values in parts.items()]).sum()
        return cls(total, parts)

    def detach(self) -> "Terms":
        """The same without gradient."""
        return self._of([value.detach() for value in self._flat()])

    @classmethod
    def mean(cls, terms: Sequence["Terms"]) -> "Terms":
        """The mean of several."""
        return terms[0]._of(list(torch.stack([torch.stack(one._flat()) for one in terms]).mean(dim=0)))

    def _flat(self) -> list[Tensor]:
        return [self.total, *(value for values in self.parts.values() for value in values)]

    def _of(self, flat: Sequence[Tensor]) -> "Terms":
        rest = iter(flat[1:])
        return Terms(flat[0], {name: tuple(next(rest) for _ in values) for name, values in self.parts.items()})


class Objective(nn.Module, ABC):
    """A method. Its parameters learn with the encoder; parameters and buffers are part of a checkpoint.

    A class of your own derives from this one and is named `--method module:CLASS`; what it reads is its `settings`, a
    subclass of GradientSettings, set like those of our methods (`--set method.KEY=VALUE`).
    """

    settings: ClassVar[type[GradientSettings]] = GradientSettings
    method: GradientSettings

    def __init__(self, method: GradientSettings, epochs: int) -> None:
        super().__init__()
        self.method, self.epochs = method, epochs

    @classmethod
    def build(cls, settings: Settings, num_domains: int) -> Self:
        """The objective of a run over S domains."""
        return cls(settings.gradient, settings.optimiser.epochs)

    @property
    def first_cluster_epoch(self) -> int:
        """The epoch before which a step is given no clusters."""
        return 0

    @abstractmethod
    def weights(self, epoch: int) -> dict[str, float]:
        """Weight of each term in `epoch`, counted from 0. A term of weight 0 may still be computed, to be logged."""

    def begin_epoch(self, banks: Sequence[Tensor], clusterings: Sequence[tuple[Clusters, ...]]) -> None:
        """Told, before the steps of an epoch, the bank rows (M, D) and the clusters of each domain."""

    @abstractmethod
    def parts(self, steps: Sequence[DomainStep], weights: Mapping[str, float]) -> dict[str, tuple[Tensor, ...]]:
        """The terms of one step over S >= 2 domains, by the names that `weights` has."""

    def forward(self, steps: Sequence[DomainStep], weights: Mapping[str, float]) -> Terms:
        """All terms of one step and their weighted sum."""
        return Terms.weighted(self.parts(steps, weights), weights)


def mean(values: Sequence[Tensor], empty: Tensor) -> Tensor:
    """Mean of scalars; `empty` if there are none."""
    return torch.stack(tuple(values)).mean() if values else empty
