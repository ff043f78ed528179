"""The backbone learns by gradient what its images became when they were brought together.

Any crop of an image, in any colours, has to belong to the same soft groups as the embedding that `align` gave the image. So one
small view of a new image tells what all views told before. ARCHITECTURE.md, "How tune works", says why each part is there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ucdir.embedding.compute import Compute
from ucdir.embedding.view_features import view_features
from ucdir.errors import UcdirError, UsageError
from ucdir.images.domains import Domain
from ucdir.images.epoch_plan import StepPlan, count_steps, epoch_rows
from ucdir.images.step_batches import StepBatch, batches
from ucdir.images.style_views import PLAIN
from ucdir.learn.align import Scatter, groupings, smoothed, student
from ucdir.learn.checkpoint import write_content
from ucdir.learn.inputs import views_on_device
from ucdir.learn.schedules import cosine
from ucdir.model.backbones import build_backbone
from ucdir.model.device import autocast, reuse_buffers
from ucdir.model.encoder import Encoder
from ucdir.progress import Progress
from ucdir.settings import EncoderSettings, Settings, TuneSettings

SHRINKAGE = 0.02  # of the regression that the linear layer starts as
WARM_UP = 0.1  # fraction of all steps in which the learning rate rises
PAPER_SIZE = 224  # px, for which `data.max_blur_sigma` is meant


@dataclass(frozen=True)
class Lesson:
    """What is to be learned of one domain.

    features  (N, F) unit rows, of the plain views of its images before anything is learned
    targets   (N, E) unit rows: what the images are to become
    """

    domain: Domain
    features: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Tuned:
    """What was learned: one plain view of an image tells what the image is.

    encoder     a bare backbone that sees images at `tune.image_size`
    projection  (F, E) map of its unit features to embeddings
    """

    encoder: Encoder
    projection: Tensor


def require_sizes(encoder: EncoderSettings, wanted: TuneSettings) -> None:
    """UsageError where the backbone does not take images of the sizes that it is to learn from and to see."""
    for name in ("crop_size", "image_size"):
        size = getattr(wanted, name)
        try:
            build_backbone(encoder.backbone, size)
        except UsageError as error:
            raise UsageError(
                f"tune.{name}={size}: backbone '{encoder.backbone}' does not accept images of {size} px. Give "
                f"sizes that it accepts: "
                f"--set tune.crop_size={encoder.image_size} --set tune.image_size={encoder.image_size}."
            ) from error


def tuned(
    frozen: Encoder,
    lessons: Sequence[Lesson],
    settings: Settings,
    compute: Compute,
    state_file: Path,
    progress: Progress,
    log: Callable[[str], None],
) -> Tuned:
    """A backbone like `frozen` that has learned its lessons.

    lessons     in an order that does not depend on names
    state_file  is written after each epoch; epochs that it has are not learned again
    raises      UcdirError if the loss becomes NaN or infinite, or `state_file` is damaged
    """
    reuse_buffers(compute.device)
    wanted = settings.tune
    learner = _Learner.start(frozen, lessons, settings, compute)
    done = learner.resume(state_file) if state_file.is_file() else 0
    images = learner.steps * wanted.batch_size * len(lessons)
    with progress("tuning", wanted.epochs * images) as advance:
        advance(done * images)
        for epoch in range(done, wanted.epochs):
            targets = [lesson.targets for lesson in lessons] if epoch < wanted.taught else learner.found(lessons)
            aim = Aim.of(targets, settings, epoch, compute.device)
            made = enumerate(learner.views(lessons, epoch, advance))
            losses = [learner.step(batch, aim, epoch, step) for step, batch in made]
            learner.keep(state_file, epoch + 1)
            log(f"tuning, epoch {epoch + 1}/{wanted.epochs}: loss {np.mean(losses):.3f}")
    return Tuned(learner.encoder, learner.layer.weight.detach().T.contiguous())


@dataclass(frozen=True)
class Aim:
    """What is to be reached in an epoch.

    targets    S x (N, E) unit rows
    groupings  prototypes (C, E) of several groupings of all of them
    """

    targets: tuple[Tensor, ...]
    groupings: tuple[Tensor, ...]
    temperature: float

    @classmethod
    def of(cls, targets: Sequence[Tensor], settings: Settings, epoch: int, device: torch.device) -> "Aim":
        once, rng = settings.align.model_copy(update={"groupings": 1}), np.random.default_rng((settings.run.seed, epoch))
        there = tuple(part.to(device) for part in targets)
        return cls(there, tuple(groupings(there, once, rng)), settings.align.temperature)

    def missed(self, rows: Tensor, image_ids: Sequence[Tensor]) -> Tensor:
        """How far (Kullback-Leibler) memberships of rows (n, E) are from those of their targets, mean over groupings."""
        targets = torch.cat([own[ids.to(rows.device)] for own, ids in zip(self.targets, image_ids, strict=True)])
        apart = [
            F.kl_div(
                F.log_softmax(rows @ grouping.T / self.temperature, dim=1),
                F.softmax(targets @ grouping.T / self.temperature, dim=1),
                reduction="batchmean",
            )
            for grouping in self.groupings
        ]
        return torch.stack(apart).mean()


@dataclass(frozen=True)
class _Learner:
    """The backbone, and a linear layer from its unit features to embeddings.

    steps    of an epoch
    """

    encoder: Encoder
    layer: nn.Linear
    optimiser: torch.optim.AdamW
    steps: int
    settings: Settings
    compute: Compute

    @classmethod
    def start(cls, frozen: Encoder, lessons: Sequence[Lesson], settings: Settings, compute: Compute) -> "_Learner":
        wanted = settings.tune
        encoder = _copy(frozen, wanted.image_size).to(compute.device)
        layer = regression(lessons).to(compute.device)
        optimiser = torch.optim.AdamW(
            [*encoder.backbone.parameters(), *layer.parameters()], wanted.learning_rate, weight_decay=wanted.weight_decay
        )
        steps = max(count_steps([len(lesson.domain) for lesson in lessons], wanted.batch_size), wanted.fewest_steps)
        return cls(encoder, layer, optimiser, steps, settings, compute)

    def found(self, lessons: Sequence[Lesson]) -> list[Tensor]:
        """S x (N, E) unit rows: what the plain views of all images show now, averaged over their neighbours."""
        return [smoothed(self._rows(lesson.domain), self.settings.align.neighbours) for lesson in lessons]

    def _rows(self, domain: Domain) -> Tensor:
        device = self.compute.device
        seen = view_features(self.encoder, domain.paths, PLAIN, replace(self.compute, cache=None))
        if seen.unreadable:
            raise seen.unreadable[0]
        rows = torch.empty(len(domain), self.layer.out_features, device=device)
        with torch.no_grad():
            own = F.normalize(torch.from_numpy(np.array(seen.values[:, 0])).to(device).float(), dim=1)
            rows[torch.from_numpy(seen.image_ids)] = self.layer(own)
        return F.normalize(rows, dim=1)

    def views(self, lessons: Sequence[Lesson], epoch: int, advance: Callable[[int], None]) -> Iterator[StepBatch]:
        """The training views of an epoch."""
        wanted, data, compute = self.settings.tune, self.settings.data, self.compute
        domains, seed = [lesson.domain for lesson in lessons], (self.settings.run.seed, epoch)
        rows = epoch_rows([len(domain) for domain in domains], wanted.batch_size, np.random.default_rng(seed), self.steps)
        every, none = np.arange(wanted.batch_size * len(domains)), np.arange(0)
        plans = [StepPlan(step, 0, ids, every, none) for step, ids in enumerate(rows)]
        place = compute.device if views_on_device(data.views, compute.device) else None
        blur = max(0.1, data.max_blur_sigma * wanted.crop_size / PAPER_SIZE)
        for batch in batches(domains, plans, wanted.crop_size, seed, data.workers, blur, compute.cache, place):
            yield batch
            advance(len(every))

    def step(self, batch: StepBatch, aim: Aim, epoch: int, step: int) -> float:
        """Learn from a batch; returns the loss."""
        wanted, device = self.settings.tune, self.compute.device
        now, end = epoch * self.steps + step, wanted.epochs * self.steps
        for group in self.optimiser.param_groups:
            group["lr"] = min(1.0, (now + 1) / (WARM_UP * end)) * cosine(wanted.learning_rate, now, end)
        with autocast(device, self.compute.precision):
            features = self.encoder.features(batch.query_views.to(device))
        rows = F.normalize(self.layer(F.normalize(features.float(), dim=1)), dim=1)
        loss = aim.missed(rows, batch.image_ids)
        if not bool(loss.isfinite()):
            raise UcdirError(
                "the loss became NaN or infinite. Lower the learning rate: "
                f"--set tune.learning_rate={wanted.learning_rate / 4:g}."
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return float(loss.detach())

    def keep(self, file: Path, epoch: int) -> None:
        """Write all that the next epoch depends on."""
        content = {
            "epoch": epoch,
            "backbone": self.encoder.backbone.state_dict(),
            "layer": self.layer.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_content(file, content)

    def resume(self, file: Path) -> int:
        """Take what `keep` wrote; returns how many epochs it has."""
        try:
            content = torch.load(file, map_location=self.compute.device, weights_only=True)
            self.encoder.backbone.load_state_dict(content["backbone"])
            self.layer.load_state_dict(content["layer"])
            self.optimiser.load_state_dict(content["optimiser"])
            return int(content["epoch"])
        except Exception as error:  # torch and pickle raise many kinds for a damaged file
            raise UcdirError(
                f"checkpoint '{file}' is damaged ({type(error).__name__}). Delete it to tune from the start, or start again "
                "with --overwrite."
            ) from error


def _copy(frozen: Encoder, image_size: int) -> Encoder:
    """The same backbone in evaluation mode, so that batch norm keeps its statistics."""
    backbone = build_backbone(frozen.config.backbone, image_size).module
    backbone.load_state_dict(frozen.backbone.state_dict())
    return Encoder(backbone, replace(frozen.config, image_size=image_size, hidden=None, dim=None)).eval()


def regression(lessons: Sequence[Lesson]) -> nn.Linear:
    """The best linear guess from features to targets, so that there is something right to hold on to from the first step on."""
    size = lessons[0].features.shape[1]
    nothing = torch.zeros(size, size, device=lessons[0].features.device)
    scatters = [Scatter(nothing, lesson.features) for lesson in lessons]
    weight = student(scatters, [lesson.targets for lesson in lessons], SHRINKAGE)
    layer = nn.Linear(len(weight), weight.shape[1], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight.T)
    return layer
