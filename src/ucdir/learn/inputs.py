"""What a run learns from: the views of its images, and what is embedded once per epoch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from ucdir.embedding.backbone_features import backbone_features
from ucdir.embedding.compute import Compute
from ucdir.embedding.embed import Embeddings, embed
from ucdir.errors import ImageError, UcdirError
from ucdir.images.domains import Domain
from ucdir.images.epoch_plan import StepPlan, key_groups, plan_epoch
from ucdir.images.pixel_cache import PixelCache
from ucdir.images.step_batches import StepBatch, batches
from ucdir.model.encoder import Encoder
from ucdir.model.processes import ALONE, Processes
from ucdir.settings import Settings

Advance = Callable[[int], None]


class Inputs(Protocol):
    """Where views come from."""

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The domains with the images that are learned from."""

    def steps(self, epoch: int) -> Iterator[list[StepBatch]]:
        """The steps of an epoch for this process, each as a list of its parts."""

    def embed(self, encoder: Encoder, advance: Advance) -> list[Embeddings]:
        """Embed every image of every domain; the processes share the work and all get the result."""

    def features(self, encoder: Encoder, advance: Advance) -> list[Embeddings]:
        """What the backbone gives for every image of every domain: rows (M, feature_dim)."""

    def only(self, image_ids: Sequence[Sequence[int]]) -> "Inputs":
        """The same with some images of each domain, for example the readable ones."""


@dataclass(frozen=True)
class Pictures:
    """Views made of image files, new ones in every epoch."""

    domains: tuple[Domain, ...]
    settings: Settings
    device: torch.device
    precision: str
    cache: PixelCache | None = None
    processes: Processes = ALONE

    def steps(self, epoch: int) -> Iterator[list[StepBatch]]:
        """See `Inputs`."""
        plans = plan_steps(self.settings, self.domains, epoch, self.processes)
        made = self.views([part for step in plans for part in step], (self.settings.run.seed, epoch))
        for step in plans:
            yield [next(made) for _ in step]

    def views(self, plans: Sequence[StepPlan], seed: Sequence[int]) -> Iterator[StepBatch]:
        """The views of `plans`, in order."""
        data, size = self.settings.data, self.settings.encoder.image_size
        place = self.device if views_on_device(data.views, self.device) else None
        return batches(self.domains, plans, size, seed, data.workers, data.max_blur_sigma, self.cache, place)

    def embed(self, encoder: Encoder, advance: Advance) -> list[Embeddings]:
        """See `Inputs`."""
        return [self._embed(encoder, domain, advance, embed) for domain in self.domains]

    def features(self, encoder: Encoder, advance: Advance) -> list[Embeddings]:
        """See `Inputs`."""
        return [self._embed(encoder, domain, advance, backbone_features) for domain in self.domains]

    def only(self, image_ids: Sequence[Sequence[int]]) -> "Pictures":
        """See `Inputs`."""
        return replace(self, domains=tuple(d.subset(ids) for d, ids in zip(self.domains, image_ids, strict=True)))

    def _embed(self, encoder: Encoder, domain: Domain, advance: Advance, run: Callable[..., Embeddings]) -> Embeddings:
        share = self.processes.share(len(domain))
        compute = Compute(self.device, self.precision, self.settings.data.workers, cache=self.cache)
        mine = run(encoder, domain.paths[share], compute, lambda count: advance(count * self.processes.count))
        return together(self.processes.each(mine))


def views_on_device(wanted: str, device: torch.device) -> bool:
    """Whether `device` renders the training views; auto: a CUDA device does, others are slower at it than the CPU."""
    return wanted == "device" or (wanted == "auto" and device.type == "cuda")


def plan_steps(settings: Settings, domains: Sequence[Domain], epoch: int, processes: Processes) -> list[list[StepPlan]]:
    """This process's plan of an epoch."""
    return plan_epoch(
        [len(domain) for domain in domains],
        settings.optimiser.batch_size,
        (settings.run.seed, epoch),
        settings.optimiser.accumulation_steps,
        key_groups(settings.gradient.batch_norm_splits, processes.count),
        processes.rank,
        processes.count,
    )


def refuse_many_unreadable(name: str, readable: int, unreadable: Sequence[ImageError], allowed: float) -> None:
    """UcdirError when more than the fraction `allowed` of the images of the domain `name` cannot be read."""
    images = readable + len(unreadable)
    if len(unreadable) / max(images, 1) > allowed:
        first = "; ".join(f"{error.path}: {error.reason}" for error in unreadable[:3])
        raise UcdirError(
            f"{len(unreadable)} of the {images} images of domain '{name}' cannot be read "
            f"({len(unreadable) / images:.1%}, allowed {allowed:.1%}): {first}. List all with ucdir check, repair or remove "
            "them, or allow more (--set data.max_unreadable=FRACTION)."
        )


def together(shares: Sequence[Embeddings]) -> Embeddings:
    """Put the embeddings of a whole list together from those of its shares, as split by `Processes.share`."""
    if len(shares) == 1:
        return shares[0]
    ids = torch.cat([rank + len(shares) * part.image_ids for rank, part in enumerate(shares)])
    order = ids.argsort()
    unreadable: tuple[ImageError, ...] = tuple(error for part in shares for error in part.unreadable)
    return Embeddings(torch.cat([part.rows for part in shares])[order], ids[order], unreadable)
