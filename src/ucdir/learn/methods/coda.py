"""After Wang et al. 2023, Correspondence-free Domain Alignment (CoDA): over-clustered self-matching, aligned classifiers.

It needs no number of classes: each domain has its own classifiers with many more outputs than there are classes. Both views of
an image must get the same outputs, all outputs must be used, and the classifiers of two domains must agree on each image, so
that output c means the same in both. The published code was not available: the terms follow the paper's description and
are not a reproduction.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ucdir.learn.losses import classifier_distance, self_matching, unevenness
from ucdir.learn.objective import DomainStep, Objective
from ucdir.settings import Counts, GradientSettings, Settings

SHARPNESS = 0.1  # temperature of the classifiers


class CodaSettings(GradientSettings):
    """Of the three terms."""

    over_clusters: Counts = (100, 200, 300, 400)  # outputs of the classifiers of each domain
    matching_weight: float = Field(1.0, ge=0.0)
    evenness_weight: float = Field(2.0, ge=0.0)
    alignment_weight: float = Field(1.0, ge=0.0)


class Coda(Objective):
    """Classifiers (C, D) for each domain and each of the over-cluster counts; they learn with the encoder."""

    settings = CodaSettings
    method: CodaSettings

    def __init__(self, method: CodaSettings, num_domains: int, dim: int, seed: int = 0, epochs: int = 1) -> None:
        super().__init__(method, epochs)
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(count, dim, generator=generator) for count in method.over_clusters]
        # all domains start from the same directions: the outputs begin with the same meaning
        self.classifiers = nn.ParameterList(
            nn.Parameter(F.normalize(rows, dim=1)) for _ in range(num_domains) for rows in drawn
        )

    @classmethod
    def build(cls, settings: Settings, num_domains: int) -> Self:
        """See `Objective`."""
        assert isinstance(settings.method, CodaSettings)
        return cls(settings.method, num_domains, settings.encoder.dim, settings.run.seed, settings.optimiser.epochs)

    def weights(self, epoch: int) -> dict[str, float]:
        """See `Objective`."""
        method = self.method
        return {"matching": method.matching_weight, "evenness": method.evenness_weight, "alignment": method.alignment_weight}

    def parts(self, steps: Sequence[DomainStep], weights: Mapping[str, float]) -> dict[str, tuple[Tensor, ...]]:
        """See `Objective`."""
        domains = self._by_domain(len(steps))
        own = [(s, rows) for s, found in zip(steps, domains, strict=True) for rows in found]
        levels = list(zip(*domains, strict=True))
        return {
            "matching": tuple(self_matching(s.query, s.key, rows, SHARPNESS) for s, rows in own),
            "evenness": tuple(unevenness(s.query, rows, SHARPNESS) for s, rows in own),
            "alignment": tuple(
                classifier_distance(s.query, one, other, SHARPNESS)
                for s in steps
                for level in levels
                for one, other in combinations(level, 2)
            ),
        }

    def _by_domain(self, count: int) -> list[list[Tensor]]:
        """Unit rows of the classifiers of each domain."""
        rows = [F.normalize(parameter, dim=1) for parameter in self.classifiers]
        each = len(rows) // count
        return [rows[start : start + each] for start in range(0, len(rows), each)]
