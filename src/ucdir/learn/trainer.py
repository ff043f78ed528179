"""The training loop: views -> encode -> terms -> backward -> step -> momentum -> bank; once per epoch embed, cluster, score.

Labels never enter here except in the oracle's scores, which do not influence what is learned.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ucdir.embedding.embed import Embeddings
from ucdir.errors import UsageError
from ucdir.images.domains import Domain
from ucdir.images.epoch_plan import count_steps, key_groups
from ucdir.learn.bank import MemoryBank
from ucdir.learn.checkpoint import BestEpoch, ResumeState
from ucdir.learn.clusters import Clusters, kmeans
from ucdir.learn.inputs import Inputs, refuse_many_unreadable
from ucdir.learn.label_free import LabelFreeScores, Reference, label_free_scores, make_reference, sampled_images
from ucdir.learn.methods import build_objective
from ucdir.learn.objective import Objective, Terms
from ucdir.learn.schedules import cosine, stepped
from ucdir.learn.step import training_step
from ucdir.model.batch_norm import synchronise
from ucdir.model.device import avoid_slow_kernels, reuse_buffers
from ucdir.model.encoder import Encoder
from ucdir.model.momentum_encoder import MomentumEncoder
from ucdir.model.processes import ALONE, Processes
from ucdir.progress import Progress, no_progress
from ucdir.scoring.collapse import is_collapsed
from ucdir.settings import OptimiserSettings, Settings


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did.

    terms        means over the steps: `total`, then each term of the method, which is also a mean over its values
    weights      of each term in this epoch
    rising       names of the terms that weigh more than in the epoch before: the total rises with them
    embeddings   (M, D) per domain, of its end
    collapsed    names of the domains whose images all have almost the same embedding
    """

    epoch: int
    terms: Mapping[str, float]
    weights: Mapping[str, float]
    rising: tuple[str, ...]
    learning_rate: float
    label_free: LabelFreeScores
    embeddings: tuple[Tensor, ...]
    collapsed: tuple[str, ...]
    train_seconds: float
    embed_seconds: float
    images_per_second: float


@dataclass
class Trainer:
    """Everything that changes during a run.

    network    the encoder as a step calls it: itself, or wrapped for several processes
    """

    settings: Settings
    inputs: Inputs
    device: torch.device
    precision: str
    encoder: Encoder
    network: nn.Module
    momentum_encoder: MomentumEncoder
    objective: Objective
    optimiser: torch.optim.Optimizer
    processes: Processes = ALONE
    banks: list[MemoryBank] = field(default_factory=list)
    clusterings: list[tuple[Clusters, ...]] = field(default_factory=list)
    reference: Reference | None = None
    best: dict[str, BestEpoch] = field(default_factory=dict)
    epoch: int = 0
    seconds: float = 0.0

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The domains with the images that are learned from."""
        return self.inputs.domains

    @property
    def searcher(self) -> Encoder:
        """The encoder that embeds for banks, clusters and searches: the momentum encoder's."""
        encoder = self.momentum_encoder.encoder
        assert isinstance(encoder, Encoder)
        return encoder


def build_trainer(
    settings: Settings,
    inputs: Inputs,
    encoder: Encoder,
    device: torch.device,
    precision: str,
    processes: Processes = ALONE,
) -> Trainer:
    """A trainer before its first epoch, with empty banks."""
    reuse_buffers(device)
    encoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    avoid_slow_kernels(encoder, device, precision)
    method = settings.gradient
    head_only = settings.optimiser.train == "head"
    encoder.backbone.requires_grad_(not head_only)
    groups = key_groups(method.batch_norm_splits, processes.count)
    splits = 1 if head_only else groups // processes.count  # a head has no batch norm
    momentum_encoder = MomentumEncoder(encoder, method.encoder_momentum, splits)
    if processes.count > 1:
        synchronise(encoder)
    objective = build_objective(settings, len(inputs.domains)).to(device)
    return Trainer(
        settings=settings,
        inputs=inputs,
        device=device,
        precision=precision,
        encoder=encoder,
        network=processes.parallel(encoder, device),
        momentum_encoder=momentum_encoder,
        objective=objective,
        optimiser=build_optimiser(settings.optimiser, [*encoder.parameters(), *objective.parameters()]),
        processes=processes,
    )


def build_optimiser(wanted: OptimiserSettings, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of those parameters that learn."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    fused = learning[0].device.type in ("cpu", "cuda")
    if wanted.name == "adamw":
        return torch.optim.AdamW(learning, wanted.learning_rate, weight_decay=wanted.weight_decay, fused=fused)
    if wanted.name == "amsgrad":
        return torch.optim.Adam(learning, wanted.learning_rate, weight_decay=wanted.weight_decay, amsgrad=True, fused=fused)
    return torch.optim.SGD(
        learning, wanted.learning_rate, momentum=wanted.momentum, weight_decay=wanted.weight_decay, fused=fused
    )


def check_sizes(settings: Settings, domains: Sequence[Domain], processes: Processes = ALONE) -> None:
    """Refuse, before anything costly, what cannot be trained with these settings."""
    if len(domains) < 2:
        raise UsageError(f"training needs at least two domains, found {len(domains)}. Give two or more folders.")
    for domain in domains:
        clusters = max(settings.gradient.num_clusters)
        if clusters > len(domain):
            raise UsageError(
                f"num_clusters={clusters} is more than the {len(domain)} images of domain '{domain.name}'. "
                f"Use at most {len(domain)}, about as many as there are kinds of things: --set method.num_clusters=N."
            )
    _check_shares(settings.optimiser, settings.gradient.batch_norm_splits, len(domains), processes.count)
    largest = max(domains, key=len)
    if settings.optimiser.batch_size > len(largest):
        raise UsageError(
            f"--batch-size {settings.optimiser.batch_size} is more than the {len(largest)} images of the largest domain "
            f"'{largest.name}'. Use at most {len(largest)}: --set optimiser.batch_size=N."
        )


def _check_shares(optimiser: OptimiserSettings, splits: int, domains: int, processes: int) -> None:
    """Refuse steps that cannot be cut into parts and groups."""
    if optimiser.batch_size % optimiser.accumulation_steps:
        raise UsageError(
            f"--batch-size {optimiser.batch_size} is not a multiple of optimiser.accumulation_steps="
            f"{optimiser.accumulation_steps}. Change one of them."
        )
    keys, groups = optimiser.batch_size // optimiser.accumulation_steps * domains, key_groups(splits, processes)
    if keys // groups < 2:
        raise UsageError(
            f"batch_norm_splits={groups} leaves groups of fewer than 2 of the {keys} keys of a step. Use at most {keys // 2}."
        )
    if processes > 1 and keys % groups:
        raise UsageError(
            f"{processes} processes cannot share {keys} keys a step evenly in {groups} batch norm groups "
            f"({optimiser.batch_size} images of each of {domains} domains, {optimiser.accumulation_steps} parts). "
            f"Make the batch size times the domains a multiple of {groups * optimiser.accumulation_steps}."
        )


def fill_banks(trainer: Trainer, progress: Progress = no_progress) -> list[Embeddings]:
    """Embed every image once, leave unreadable ones out of their domains, and start the banks from the rest."""
    embedded = embed_all(trainer, progress)
    for domain, found in zip(trainer.domains, embedded, strict=True):
        refuse_many_unreadable(domain.name, len(found.rows), found.unreadable, trainer.settings.data.max_unreadable)
    trainer.inputs = trainer.inputs.only([found.image_ids.tolist() for found in embedded])
    trainer.banks = [MemoryBank(found.rows.to(trainer.device)) for found in embedded]
    check_sizes(trainer.settings, trainer.domains, trainer.processes)
    trainer.clusterings = cluster_domains(trainer, [found.rows for found in embedded], epoch=0)
    trainer.reference = reference_of(trainer, progress)
    return embedded


def reference_of(trainer: Trainer, progress: Progress = no_progress) -> Reference:
    """What is found without training, with the backbone as it is before the first epoch."""
    seed = trainer.settings.run.seed
    ids = [
        sampled_images(len(domain), torch.Generator().manual_seed(_mixed(seed, 4, number)))
        for number, domain in enumerate(trainer.domains)
    ]
    few = trainer.inputs.only([found.tolist() for found in ids])
    with progress("what the backbone finds", sum(map(len, ids))) as advance:
        features = few.features(trainer.searcher, advance)
    for found in features:
        if found.unreadable:
            raise found.unreadable[0]
    return trainer.processes.first(lambda: make_reference([found.rows for found in features], ids))


def run_epoch(trainer: Trainer, progress: Progress = no_progress) -> EpochReport:
    """Train one epoch, embed every image, cluster for the next one. A function of the trainer's state and the seed only."""
    settings, epoch = trainer.settings, trainer.epoch
    epochs, seed = settings.optimiser.epochs, settings.run.seed
    weights = trainer.objective.weights(epoch)
    rate = learning_rate(settings, epoch)
    for group in trainer.optimiser.param_groups:
        group["lr"] = rate
    torch.manual_seed(_mixed(seed, epoch, 1))
    clustered = epoch >= trainer.objective.first_cluster_epoch
    clusterings = trainer.clusterings if clustered else [() for _ in trainer.domains]
    trainer.objective.begin_epoch([bank.rows for bank in trainer.banks], clusterings)

    started = time.perf_counter()
    trainer.encoder.train()
    trainer.searcher.train()
    exactness = torch.float64 if trainer.device.type == "cpu" else torch.float32
    sums = torch.zeros(1 + len(weights), device=trainer.device, dtype=exactness)
    steps = count_steps([len(domain) for domain in trainer.domains], settings.optimiser.batch_size)
    with progress(f"epoch {epoch + 1}/{epochs}", steps) as advance:
        for parts in trainer.inputs.steps(epoch):
            terms = training_step(
                trainer.network,
                trainer.encoder,
                trainer.momentum_encoder,
                trainer.banks,
                clusterings,
                parts,
                trainer.objective,
                weights,
                trainer.optimiser,
                trainer.device,
                trainer.precision,
                trainer.processes,
            )
            sums += summary(terms, weights)
            advance(1)
    trainer.processes.average(list(trainer.searcher.buffers()))
    means = dict(zip(("total", *weights), (sums / steps).tolist(), strict=True))
    trained = time.perf_counter()

    embeddings = [found.rows for found in embed_all(trainer, progress, same=True)]
    previous = [clusters[0] for clusters in trainer.clusterings]
    trainer.clusterings = cluster_domains(trainer, embeddings, epoch + 1)
    now = [clusters[0].to("cpu") for clusters in trainer.clusterings]
    reference = trainer.reference
    assert reference is not None
    label_free = trainer.processes.first(lambda: label_free_scores(embeddings, now, [c.to("cpu") for c in previous], reference))
    trainer.epoch += 1
    ended = time.perf_counter()
    trainer.seconds += ended - started
    images = steps * settings.optimiser.batch_size * len(trainer.domains)
    return EpochReport(
        epoch=trainer.epoch,
        terms=means,
        weights=weights,
        rising=_rising(trainer.objective, trainer.epoch - 1),
        learning_rate=rate,
        label_free=label_free,
        embeddings=tuple(embeddings),
        collapsed=tuple(d.name for d, rows in zip(trainer.domains, embeddings, strict=True) if is_collapsed(rows)),
        train_seconds=trained - started,
        embed_seconds=ended - trained,
        images_per_second=images / (trained - started),
    )


def _rising(objective: Objective, epoch: int) -> tuple[str, ...]:
    """Terms with a larger weight in `epoch`, counted from 0, than in the one before."""
    if epoch == 0:
        return ()
    before = objective.weights(epoch - 1)
    return tuple(name for name, weight in objective.weights(epoch).items() if weight > before[name])


def embed_all(trainer: Trainer, progress: Progress, same: bool = False) -> list[Embeddings]:
    """Embed every image of every domain with the momentum encoder.

    same    an image that could be read before and cannot now ends the run
    """
    with progress("embedding", sum(len(domain) for domain in trainer.domains)) as advance:
        embedded = trainer.inputs.embed(trainer.searcher, advance)
    for found in embedded:
        if same and found.unreadable:
            raise found.unreadable[0]
    return embedded


def cluster_domains(trainer: Trainer, embeddings: Sequence[Tensor], epoch: int) -> list[tuple[Clusters, ...]]:
    """One clustering per domain and cluster count, the same in all processes."""
    found = trainer.processes.first(lambda: _cluster_domains(trainer, embeddings, epoch))
    return [tuple(clusters.to(trainer.device) for clusters in domain) for domain in found]


def _cluster_domains(trainer: Trainer, embeddings: Sequence[Tensor], epoch: int) -> list[tuple[Clusters, ...]]:
    method, seed = trainer.settings.gradient, trainer.settings.run.seed
    nothing = [(None,) * len(method.num_clusters)] * len(embeddings)
    last = [[c.assignment for c in domain] for domain in trainer.clusterings] if method.kmeans_warm_start else []
    return [
        tuple(
            kmeans(
                rows.to(trainer.device),
                count,
                method.kmeans_iterations,
                method.kmeans_restarts,
                torch.Generator().manual_seed(_mixed(seed, epoch, 3, number, count)),
                start,
            ).to("cpu")
            for count, start in zip(method.num_clusters, starts, strict=True)
        )
        for number, (rows, starts) in enumerate(zip(embeddings, last or nothing, strict=True))
    ]


def learning_rate(settings: Settings, epoch: int) -> float:
    """Rate of `epoch`, counted from 0."""
    rate = settings.optimiser
    if rate.schedule == "cosine":
        return cosine(rate.learning_rate, epoch, rate.epochs)
    return stepped(rate.learning_rate, epoch, [round(milestone * rate.epochs) for milestone in rate.milestones])


def summary(terms: Terms, names: Iterable[str]) -> Tensor:
    """(1 + T,) the total and the mean of each of T terms, detached and still on the device."""
    return torch.stack([terms.total, *(torch.stack(terms.parts[name]).mean() for name in names)]).detach()


def resume_state(trainer: Trainer) -> ResumeState:
    """What a checkpoint holds."""
    return ResumeState(
        epoch=trainer.epoch,
        encoder=trainer.encoder.state_dict(),
        momentum_encoder=trainer.searcher.state_dict(),
        objective=trainer.objective.state_dict(),
        optimiser=trainer.optimiser.state_dict(),
        banks=tuple(bank.rows for bank in trainer.banks),
        clusterings=tuple(trainer.clusterings),
        reference=trainer.reference,
        best=trainer.best,
        seconds=trainer.seconds,
    )


def restore(trainer: Trainer, state: ResumeState) -> None:
    """Put a trainer where `state` was taken."""
    trainer.encoder.load_state_dict(state.encoder)
    trainer.searcher.load_state_dict(state.momentum_encoder)
    trainer.objective.load_state_dict(state.objective)
    trainer.optimiser.load_state_dict(dict(state.optimiser))
    trainer.banks = [MemoryBank(rows.to(trainer.device)) for rows in state.banks]
    trainer.clusterings = [tuple(clusters.to(trainer.device) for clusters in domain) for domain in state.clusterings]
    trainer.reference = state.reference or trainer.reference
    trainer.best = dict(state.best)
    trainer.epoch = state.epoch
    trainer.seconds = state.seconds


def _mixed(*numbers: int) -> int:
    """One seed from several numbers, the same on every machine."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 0x9E3779B9) % (2**63 - 1)
    return mixed
