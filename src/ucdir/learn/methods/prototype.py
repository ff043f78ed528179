"""ProtoNCE in every domain: Li et al. 2021, Prototypical Contrastive Learning. Nothing aligns the domains."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ucdir.learn.clusters import Clusters
from ucdir.learn.losses import bank_logsumexp, concentration, instance_contrast, prototype_contrast
from ucdir.learn.methods.contrast import RampSettings, cluster_weight
from ucdir.learn.objective import DomainStep, Objective, mean


class Prototype(Objective):
    """Instance contrast, and contrast of each query with the prototypes of its domain, each at its own temperature.

    Negatives are all prototypes, where the paper draws some. The weight follows the same schedule as cluster contrast.
    """

    settings = RampSettings
    method: RampSettings

    def __init__(self, method: RampSettings, epochs: int) -> None:
        super().__init__(method, epochs)
        self.temperatures: list[list[Tensor]] = []  # per domain and cluster count (C,)

    @property
    def first_cluster_epoch(self) -> int:
        """Where the prototype term starts."""
        return round(self.method.cluster_start * self.epochs)

    def weights(self, epoch: int) -> dict[str, float]:
        """See `Objective`."""
        return {"instance": self.method.instance_weight, "prototype": cluster_weight(self.method, epoch, self.epochs)}

    def begin_epoch(self, banks: Sequence[Tensor], clusterings: Sequence[tuple[Clusters, ...]]) -> None:
        """See `Objective`."""
        self.temperatures = [
            [concentration(bank, c.prototypes, c.assignment, self.method.temperature) for c in found]
            for bank, found in zip(banks, clusterings, strict=True)
        ]

    def parts(self, steps: Sequence[DomainStep], weights: Mapping[str, float]) -> dict[str, tuple[Tensor, ...]]:
        """See `Objective`."""
        warm = self.method.temperature
        instance = tuple(
            instance_contrast(bank_logsumexp(s.query, s.key, s.bank, s.image_ids, warm), s.query, s.key, warm) for s in steps
        )
        zero = torch.zeros_like(instance[0])
        prototype = tuple(
            mean(
                [
                    prototype_contrast(s.query, c.prototypes, c.assignment[s.image_ids], own)
                    for c, own in zip(s.clusterings, temperatures, strict=True)
                ],
                zero,
            )
            for s, temperatures in zip(steps, self.temperatures, strict=True)
        )
        return {"instance": instance, "prototype": prototype}
