"""Li et al. 2024, Prototypical Optimal Transport (ProtoOT): prototypes and assignments by Sinkhorn, inside and across domains.

Three choices are settings, so that both ways can be compared. With all three at `published` the terms are those of the
released code, whose numbers `tests/learn/test_golden_protoot.py` compares:

- `ot_similarity`: published (the default), the cosines of an image to all prototypes are brought to unit length before the
  image is divided among them, and so are the negatives across domains; cosine leaves them as they are, which
  divides an image among fewer prototypes. With 65 clear clusters (`tests/learn/test_rivals.py`) its largest share is .16 on
  average as published, and .99 with cosine.
- `ot_prototypes`: published, prototypes drift on from step to step while their shares of the images come from a fresh k-means,
  whose clusters have another order; renewed (the default), an epoch starts from the prototypes that the shares belong to.
- `ot_shares`: published, the images of a domain are divided among the prototypes of another domain by their own domain's
  shares; target (the default), by those of the domain whose prototypes they are.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise, permutations, product
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ucdir.learn.clusters import Clusters
from ucdir.learn.losses import (
    contrast_across_domains,
    contrast_with_prototypes,
    normalised_rows,
    prototype_contrast,
    transport,
)
from ucdir.learn.methods.contrast import InstanceSettings
from ucdir.learn.objective import DomainStep, Objective
from ucdir.settings import Settings


class ProtoOTSettings(InstanceSettings):
    """Of the four terms."""

    neighbour_weight: float = Field(0.5, ge=0.0)
    prototype_weight: float = Field(0.1, ge=0.0)
    cross_weight: float = Field(0.01, ge=0.0)
    alignment_start: float = Field(0.5, ge=0.0, le=1.0)  # fraction of the run at which the cross-domain term starts
    ot_smoothing: float = Field(0.05, gt=0.0)
    ot_iterations: int = Field(3, ge=1)
    ot_similarity: Literal["published", "cosine"] = "published"
    ot_prototypes: Literal["renewed", "published"] = "renewed"
    ot_shares: Literal["target", "published"] = "target"


class ProtoOT(Objective):
    """Own key, nearest bank neighbour and assigned prototype against the other prototypes; then the prototypes elsewhere."""

    prototypes: Tensor
    shares: Tensor

    settings = ProtoOTSettings
    method: ProtoOTSettings

    def __init__(self, method: ProtoOTSettings, epochs: int, num_domains: int, dim: int) -> None:
        super().__init__(method, epochs)
        self.ends = [0, *torch.tensor(method.num_clusters).cumsum(0).tolist()]  # of each count among the rows below
        self.register_buffer("prototypes", torch.zeros(num_domains, self.ends[-1], dim))  # zero: not begun
        self.register_buffer("shares", torch.zeros(num_domains, self.ends[-1]))  # of the images, adding up to 1 in a count

    @classmethod
    def build(cls, settings: Settings, num_domains: int) -> Self:
        """See `Objective`."""
        assert isinstance(settings.method, ProtoOTSettings)
        return cls(settings.method, settings.optimiser.epochs, num_domains, settings.encoder.dim)

    def weights(self, epoch: int) -> dict[str, float]:
        """See `Objective`. The cross-domain term starts with alignment; the published run starts it at epoch 100 of 200."""
        method = self.method
        aligned = epoch >= round(method.alignment_start * self.epochs)
        return {
            "instance": method.instance_weight,
            "neighbour": method.neighbour_weight,
            "prototype": method.prototype_weight,
            "cross": method.cross_weight if aligned else 0.0,
        }

    def begin_epoch(self, banks: Sequence[Tensor], clusterings: Sequence[tuple[Clusters, ...]]) -> None:
        """See `Objective`."""
        renew = self.method.ot_prototypes == "renewed" or not bool(self.prototypes.any())
        for domain, found in enumerate(clusterings):
            sizes = [torch.bincount(c.assignment, minlength=len(c.prototypes)) / len(c.assignment) for c in found]
            self.shares[domain] = torch.cat(sizes)
            if renew:
                self.prototypes[domain] = torch.cat([c.prototypes for c in found])

    def parts(self, steps: Sequence[DomainStep], weights: Mapping[str, float]) -> dict[str, tuple[Tensor, ...]]:
        """See `Objective`. The prototypes of a domain move after its own terms and before those across domains."""
        inside = [self._inside(steps[domain], domain, count) for domain, count in product(range(len(steps)), self._counts())]
        instance, neighbour, prototype = zip(*inside, strict=True)
        crossing = self._crossing(steps) if weights["cross"] else [torch.zeros_like(instance[0])]
        return {"instance": instance, "neighbour": neighbour, "prototype": prototype, "cross": tuple(crossing)}

    def _counts(self) -> list[slice]:
        """The rows of each cluster count."""
        return [slice(start, end) for start, end in pairwise(self.ends)]

    def _inside(self, step: DomainStep, domain: int, count: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The three terms of a domain; the plan that assigns its images also moves its prototypes."""
        rows, warm = self.prototypes[domain, count].clone(), self.method.temperature
        plan = self._transport(step.bank, domain, domain, count)
        assigned = plan[step.image_ids].argmax(dim=1)
        self.prototypes[domain, count] = F.normalize(plan.T @ step.bank, dim=1)
        near = step.bank[nearest_others(step.key, step.bank, step.image_ids)]
        return (
            contrast_with_prototypes(step.query, step.key, rows, assigned, warm),
            contrast_with_prototypes(step.query, near, rows, assigned, warm),
            prototype_contrast(step.query, rows, assigned, torch.full_like(rows[:, 0], warm)),
        )

    def _crossing(self, steps: Sequence[DomainStep]) -> list[Tensor]:
        found = []
        for (domain, other), count in product(permutations(range(len(steps)), 2), self._counts()):
            step, rows = steps[domain], self.prototypes[other, count].clone()
            assigned = self._transport(step.bank, domain, other, count)[step.image_ids].argmax(dim=1)
            found.append(self._contrast_across(step.query, rows, assigned))
        return found

    def _contrast_across(self, query: Tensor, rows: Tensor, assigned: Tensor) -> Tensor:
        warm = self.method.temperature
        if self.method.ot_similarity == "published":
            return contrast_across_domains(query, rows, assigned, warm)
        return prototype_contrast(query, rows, assigned, torch.full_like(rows[:, 0], warm))

    def _transport(self, bank: Tensor, domain: int, other: int, count: slice) -> Tensor:
        """(M, C) plan between the images of `domain` and the prototypes of `other`."""
        shares = self.shares[other if self.method.ot_shares == "target" else domain, count]
        similarity = bank @ self.prototypes[other, count].T
        if self.method.ot_similarity == "published":
            similarity = normalised_rows(similarity)
        return transport(similarity, shares, self.method.ot_smoothing, self.method.ot_iterations)


def nearest_others(key: Tensor, bank: Tensor, image_ids: Tensor) -> Tensor:
    """Row of the bank image most similar to each key, itself left out: (N, D), (M, D), (N,) -> (N,)."""
    similarity = key @ bank.T
    return similarity.scatter_(1, image_ids[:, None], -torch.inf).argmax(dim=1)
