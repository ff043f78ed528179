"""Instance contrast, the first term of most methods, and a term whose weight rises after a while."""

from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator
from torch import Tensor

from ucdir.learn.losses import bank_logsumexp, instance_contrast
from ucdir.learn.objective import DomainStep, Objective
from ucdir.learn.schedules import ramp
from ucdir.settings import GradientSettings

FIRST_CLUSTERS = 0.1  # fraction of the run after which label-free scores have clusters to look at


class InstanceSettings(GradientSettings):
    """Of instance contrast."""

    temperature: float = Field(0.2, gt=0.0)  # of instance and cluster contrast
    instance_weight: float = Field(1.0, ge=0.0)


class RampSettings(InstanceSettings):
    """Of a term inside the clusters. Starts are fractions of the run: 0.1 of 200 epochs is epoch 20."""

    cluster_weight: float = Field(0.5, ge=0.0)  # its final value
    cluster_start: float = Field(0.1, ge=0.0, le=1.0)  # fraction of the run at which the term starts, with weight 0
    cluster_full: float = Field(0.5, ge=0.0, le=1.0)  # fraction of the run at which it reaches its final value

    @model_validator(mode="after")
    def ramp_goes_forward(self) -> "RampSettings":
        if self.cluster_full < self.cluster_start:
            raise ValueError(f"cluster_full={self.cluster_full} is before cluster_start={self.cluster_start}")
        return self


def cluster_weight(method: RampSettings, epoch: int, epochs: int) -> float:
    """The weight that a term inside the clusters has in `epoch`: 0 at its start, then rising linearly."""
    start, full = round(method.cluster_start * epochs), round(method.cluster_full * epochs)
    return ramp(0.0, method.cluster_weight, epoch, start, full)


class Instance(Objective):
    """Instance contrast inside each domain."""

    settings = InstanceSettings
    method: InstanceSettings

    @property
    def first_cluster_epoch(self) -> int:
        """See `Objective`; no term needs them."""
        return round(FIRST_CLUSTERS * self.epochs)

    def weights(self, epoch: int) -> dict[str, float]:
        """See `Objective`."""
        return {"instance": self.method.instance_weight}

    def parts(self, steps: Sequence[DomainStep], weights: Mapping[str, float]) -> dict[str, tuple[Tensor, ...]]:
        """See `Objective`."""
        warm = self.method.temperature
        return self._parts([(bank_logsumexp(s.query, s.key, s.bank, s.image_ids, warm), s) for s in steps], weights)

    def _parts(self, pairs: Sequence[tuple[Tensor, DomainStep]], weights: Mapping[str, float]) -> dict[str, tuple[Tensor, ...]]:
        """The terms, from the log-sum-exp over the bank (N,) and the step of each domain."""
        return {"instance": tuple(instance_contrast(total, s.query, s.key, self.method.temperature) for total, s in pairs)}
