"""The training loop: views -> encode -> terms -> backward -> step -> momentum -> bank; once per epoch embed, cluster, score.

Labels never enter here, but for the oracle's scores, which change nothing that is learned.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ucdir.config import OptimiserSettings, Settings
from ucdir.data.batches import DomainBatch, batches, count_steps
from ucdir.data.cache import PixelCache
from ucdir.data.domain import Domain
from ucdir.errors import UcdirError, UsageError
from ucdir.learn.bank import MemoryBank
from ucdir.learn.checkpoint import BestEpoch, ResumeState
from ucdir.learn.clusters import Clusters, kmeans
from ucdir.learn.label_free import LabelFreeScores, label_free_scores
from ucdir.learn.objective import DomainStep, Terms, TermWeights, first_cluster_epoch, objective, term_weights
from ucdir.learn.schedules import cosine, stepped
from ucdir.model.device import autocast, avoid_slow_kernels, choose_device, choose_precision
from ucdir.model.encoder import Encoder
from ucdir.model.momentum import MomentumEncoder
from ucdir.progress import Bars, no_bars
from ucdir.retrieval.embed import Embeddings, embed


@dataclass(frozen=True)
class TermMeans:
    """Means of the terms over the steps of an epoch; instance and cluster are also means over the domains."""

    total: float
    instance: float
    cluster: float
    entropy: float
    distance: float


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did. `embeddings` (M, D) per domain are of its end."""

    epoch: int
    terms: TermMeans
    weights: TermWeights
    learning_rate: float
    label_free: LabelFreeScores
    embeddings: tuple[Tensor, ...]
    train_seconds: float
    embed_seconds: float
    images_per_second: float


@dataclass
class Trainer:
    """All that changes while a run goes on."""

    settings: Settings
    domains: tuple[Domain, ...]
    device: torch.device
    precision: str
    encoder: Encoder
    momentum_encoder: MomentumEncoder
    optimiser: torch.optim.Optimizer
    banks: list[MemoryBank] = field(default_factory=list)
    clusterings: list[tuple[Clusters, ...]] = field(default_factory=list)
    best: dict[str, BestEpoch] = field(default_factory=dict)
    epoch: int = 0
    seconds: float = 0.0
    cache: PixelCache | None = None

    @property
    def searcher(self) -> Encoder:
        """The encoder that embeds for banks, clusters and searches: the momentum encoder's."""
        encoder = self.momentum_encoder.encoder
        assert isinstance(encoder, Encoder)
        return encoder


def build_trainer(settings: Settings, domains: Sequence[Domain], encoder: Encoder, cache: PixelCache | None = None) -> Trainer:
    """A trainer before its first epoch, with empty banks."""
    device = choose_device(settings.run.device)
    precision = choose_precision(settings.run.precision, device)
    encoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    avoid_slow_kernels(encoder, device, precision)
    method = settings.method
    return Trainer(
        settings=settings,
        domains=tuple(domains),
        device=device,
        precision=precision,
        encoder=encoder,
        momentum_encoder=MomentumEncoder(encoder, method.encoder_momentum, method.batch_norm_splits),
        optimiser=build_optimiser(settings.optimiser, encoder),
        cache=cache,
    )


def build_optimiser(wanted: OptimiserSettings, encoder: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of all parameters of `encoder`."""
    if wanted.name == "adamw":
        return torch.optim.AdamW(encoder.parameters(), wanted.learning_rate, weight_decay=wanted.weight_decay)
    return torch.optim.SGD(
        encoder.parameters(), wanted.learning_rate, momentum=wanted.momentum, weight_decay=wanted.weight_decay
    )


def check_sizes(settings: Settings, domains: Sequence[Domain]) -> None:
    """Refuse, before anything costly, what cannot be trained with these settings."""
    if len(domains) < 2:
        raise UsageError(f"training needs at least two domains, found {len(domains)}. Give two or more folders.")
    for domain in domains:
        clusters = max(settings.method.num_clusters)
        if clusters > len(domain):
            raise UsageError(
                f"num_clusters={clusters} is more than the {len(domain)} images of domain '{domain.name}'. "
                f"Use at most {len(domain)}."
            )
    keys, splits = settings.optimiser.batch_size * len(domains), settings.method.batch_norm_splits
    if keys // splits < 2:
        raise UsageError(
            f"batch_norm_splits={splits} leaves groups of fewer than 2 of the {keys} keys of a step. Use at most {keys // 2}."
        )
    largest = max(domains, key=len)
    if settings.optimiser.batch_size > len(largest):
        raise UsageError(
            f"--batch-size {settings.optimiser.batch_size} is more than the {len(largest)} images of the largest domain "
            f"'{largest.name}'. Use at most {len(largest)}."
        )


def fill_banks(trainer: Trainer, bars: Bars = no_bars) -> list[Embeddings]:
    """Embed every image once, leave unreadable ones out of their domains, and start the banks from the rest."""
    embedded = embed_domains(trainer, bars)
    refuse_many_unreadable(trainer, embedded)
    trainer.domains = tuple(
        domain.subset(found.image_ids.tolist()) for domain, found in zip(trainer.domains, embedded, strict=True)
    )
    trainer.banks = [MemoryBank(found.rows.to(trainer.device)) for found in embedded]
    check_sizes(trainer.settings, trainer.domains)
    trainer.clusterings = cluster_domains(trainer, [found.rows for found in embedded], epoch=0)
    return embedded


def refuse_many_unreadable(trainer: Trainer, embedded: Sequence[Embeddings]) -> None:
    """End the run when a larger share of a domain than `max_unreadable` cannot be read."""
    allowed = trainer.settings.data.max_unreadable
    for domain, found in zip(trainer.domains, embedded, strict=True):
        share = len(found.unreadable) / len(domain)
        if share > allowed:
            first = "; ".join(f"{error.path}: {error.reason}" for error in found.unreadable[:3])
            raise UcdirError(
                f"{len(found.unreadable)} of the {len(domain)} images of domain '{domain.name}' cannot be read "
                f"({share:.1%}, allowed {allowed:.1%}): {first}. See all with ucdir check, mend or remove them, or allow "
                "more with --set data.max_unreadable=SHARE."
            )


def run_epoch(trainer: Trainer, bars: Bars = no_bars) -> EpochReport:
    """Train one epoch, embed every image, cluster for the next one. A function of the trainer's state and the seed only."""
    settings, epoch = trainer.settings, trainer.epoch
    epochs, seed = settings.optimiser.epochs, settings.run.seed
    weights = term_weights(settings.method, epoch, epochs)
    rate = learning_rate(settings, epoch)
    for group in trainer.optimiser.param_groups:
        group["lr"] = rate
    torch.manual_seed(_mixed(seed, epoch, 1))
    shuffler = torch.Generator().manual_seed(_mixed(seed, epoch, 2))
    clustered = epoch >= first_cluster_epoch(settings.method, epochs)
    clusterings = trainer.clusterings if clustered else [() for _ in trainer.domains]

    started = time.perf_counter()
    trainer.encoder.train()
    trainer.searcher.train()
    sums = torch.zeros(5, device=trainer.device, dtype=torch.float64 if trainer.device.type == "cpu" else torch.float32)
    steps = count_steps([len(domain) for domain in trainer.domains], settings.optimiser.batch_size)
    with bars(f"epoch {epoch + 1}/{epochs}", steps) as advance:
        for batch in batches(
            trainer.domains,
            settings.optimiser.batch_size,
            settings.encoder.image_size,
            (seed, epoch),
            settings.data.workers,
            settings.data.strongest_blur,
            trainer.cache,
            trainer.device if views_on_device(settings.data.views, trainer.device) else None,
        ):
            order = torch.randperm(sum(len(part.image_ids) for part in batch), generator=shuffler)
            terms = training_step(
                trainer.encoder,
                trainer.momentum_encoder,
                trainer.banks,
                clusterings,
                batch,
                weights,
                settings,
                trainer.optimiser,
                order,
                trainer.device,
                trainer.precision,
            )
            sums += summary(terms)
            advance(1)
    means = TermMeans(*(sums / steps).tolist())
    trained = time.perf_counter()

    embeddings = [found.rows for found in embed_domains(trainer, bars, same=True)]
    previous = [clusters[0] for clusters in trainer.clusterings]
    trainer.clusterings = cluster_domains(trainer, embeddings, epoch + 1)
    label_free = label_free_scores(
        embeddings,
        [clusters[0].to("cpu") for clusters in trainer.clusterings],
        [c.to("cpu") for c in previous],
    )
    trainer.epoch += 1
    ended = time.perf_counter()
    trainer.seconds += ended - started
    images = steps * settings.optimiser.batch_size * len(trainer.domains)
    return EpochReport(
        epoch=trainer.epoch,
        terms=means,
        weights=weights,
        learning_rate=rate,
        label_free=label_free,
        embeddings=tuple(embeddings),
        train_seconds=trained - started,
        embed_seconds=ended - trained,
        images_per_second=images / (trained - started),
    )


def training_step(
    encoder: nn.Module,
    momentum_encoder: MomentumEncoder,
    banks: Sequence[MemoryBank],
    clusterings: Sequence[tuple[Clusters, ...]],
    batch: Sequence[DomainBatch],
    weights: TermWeights,
    settings: Settings,
    optimiser: torch.optim.Optimizer,
    order: Tensor,
    device: torch.device,
    precision: str,
) -> Terms:
    """One step on all domains at once.

    batch    one per domain
    order    (sum of N,) a permutation: how key views are shuffled before the momentum encoder sees them
    """
    sizes = [len(part.image_ids) for part in batch]
    query_views = torch.cat([part.query_view for part in batch]).to(device, non_blocking=True)
    key_views = torch.cat([part.key_view for part in batch]).to(device, non_blocking=True)
    with autocast(device, precision):
        queries = encoder(query_views)
    momentum_encoder.update(encoder)
    with autocast(device, precision):
        keys = momentum_encoder.keys(key_views, order.to(device))

    steps = []
    for query, key, part, bank, clusters in zip(
        torch.split(queries, sizes), torch.split(keys, sizes), batch, banks, clusterings, strict=True
    ):
        image_ids = part.image_ids.to(device)
        bank.write(image_ids, key)
        steps.append(DomainStep(query, key, image_ids, bank.rows, clusters))
    terms = objective(steps, weights, settings.method)

    optimiser.zero_grad(set_to_none=True)
    terms.total.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return terms


def embed_domains(trainer: Trainer, bars: Bars, same: bool = False) -> list[Embeddings]:
    """Embed every image of every domain with the momentum encoder.

    same    an image that could be read before and cannot now ends the run
    """
    settings = trainer.settings
    with bars("embedding", sum(len(domain) for domain in trainer.domains)) as advance:
        embedded = [
            embed(
                trainer.searcher,
                domain.paths,
                trainer.device,
                trainer.precision,
                workers=settings.data.workers,
                progress=advance,
                cache=trainer.cache,
            )
            for domain in trainer.domains
        ]
    for found in embedded:
        if same and found.unreadable:
            raise found.unreadable[0]
    return embedded


def cluster_domains(trainer: Trainer, embeddings: Sequence[Tensor], epoch: int) -> list[tuple[Clusters, ...]]:
    """One clustering per domain and cluster count."""
    method, seed = trainer.settings.method, trainer.settings.run.seed
    return [
        tuple(
            kmeans(
                rows.to(trainer.device),
                count,
                method.kmeans_iterations,
                method.kmeans_restarts,
                torch.Generator().manual_seed(_mixed(seed, epoch, 3, number, count)),
            )
            for count in method.num_clusters
        )
        for number, rows in enumerate(embeddings)
    ]


def views_on_device(wanted: str, device: torch.device) -> bool:
    """Whether `device` renders the training views; auto: a CUDA device does, others are slower at it than the CPU."""
    return wanted == "device" or (wanted == "auto" and device.type == "cuda")


def learning_rate(settings: Settings, epoch: int) -> float:
    """Rate of `epoch`, counted from 0."""
    rate = settings.optimiser
    if rate.schedule == "cosine":
        return cosine(rate.learning_rate, epoch, rate.epochs)
    return stepped(rate.learning_rate, epoch, rate.milestones)


def summary(terms: Terms) -> Tensor:
    """(5,) total, instance, cluster, entropy, distance, detached and still on the device."""
    parts = (
        terms.total,
        torch.stack(terms.instance).mean(),
        torch.stack(terms.cluster).mean(),
        terms.entropy,
        terms.distance,
    )
    return torch.stack(parts).detach()


def resume_state(trainer: Trainer) -> ResumeState:
    """What a checkpoint holds."""
    return ResumeState(
        epoch=trainer.epoch,
        encoder=trainer.encoder.state_dict(),
        momentum_encoder=trainer.searcher.state_dict(),
        optimiser=trainer.optimiser.state_dict(),
        banks=tuple(bank.rows for bank in trainer.banks),
        clusterings=tuple(trainer.clusterings),
        best=trainer.best,
        seconds=trainer.seconds,
    )


def restore(trainer: Trainer, state: ResumeState) -> None:
    """Put a trainer where `state` was taken."""
    trainer.encoder.load_state_dict(state.encoder)
    trainer.searcher.load_state_dict(state.momentum_encoder)
    trainer.optimiser.load_state_dict(dict(state.optimiser))
    trainer.banks = [MemoryBank(rows.to(trainer.device)) for rows in state.banks]
    trainer.clusterings = [tuple(clusters.to(trainer.device) for clusters in domain) for domain in state.clusterings]
    trainer.best = dict(state.best)
    trainer.epoch = state.epoch
    trainer.seconds = state.seconds


def _mixed(*numbers: int) -> int:
    """One seed from several numbers, the same on every machine."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 0x9E3779B9) % (2**63 - 1)
    return mixed
