"""A run of align or tune: domains -> features of their views -> an encoder that knows them, and the run folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ucdir.embedding.compute import Compute
from ucdir.embedding.view_features import ViewFeatures, view_features
from ucdir.errors import ImageError, UsageError
from ucdir.images.domains import Domain
from ucdir.images.style_views import DEFAULT_VIEWS, KEEPING_STYLE, PLAIN
from ucdir.learn.align import Domain as Placed
from ucdir.learn.align import Seen, align
from ucdir.learn.align import smoothed as averaged
from ucdir.learn.calibration import calibrated
from ucdir.learn.domain_recognition import learn_recogniser, recognised
from ucdir.learn.groups import find_groups
from ucdir.learn.inputs import refuse_many_unreadable
from ucdir.learn.run_log import write_images
from ucdir.learn.tuning import Lesson, tuned
from ucdir.model.alignment import Alignment, DomainMemory, Recogniser
from ucdir.model.encoder import Encoder
from ucdir.progress import Progress
from ucdir.retrieval.expansion import hits_of
from ucdir.run_folder import ALIGNED, CENTRED, ENCODER, FROZEN, SMOOTHED, TUNING
from ucdir.scoring.collapse import is_collapsed
from ucdir.scoring.training_free import centred, smoothed
from ucdir.settings import Settings

MIN_IMAGES = 40  # images of a domain, so that groups can be found
MIN_IMAGES_SMOOTHED = 100  # with fewer, the neighbours that rows are averaged with show other kinds of things
MIN_AGREEMENT = 0.075  # of domains that are aligned, see `align.Aligned`


@dataclass(frozen=True)
class AlignedRun:
    """The inputs of a run and where it writes.

    out     the run folder
    frozen  the unchanged backbone
    """

    out: Path
    settings: Settings
    domains: Sequence[Domain]
    frozen: Encoder
    compute: Compute
    progress: Progress
    log: Callable[[str], None]


def learn_aligned(run: AlignedRun, begin: Callable[[], None] = lambda: None) -> tuple[ImageError, ...]:
    """Learn from the domains and write the encoders into the run folder; returns what was skipped.

    begin     called once all features are computed, before anything is written
    """
    seen = embed_views(run, run.frozen)
    skipped = tuple(error for part in seen for error in part.unreadable)
    for error in skipped:
        run.log(f"skipped: {error}")
    for domain, part in zip(run.domains, seen, strict=True):
        refuse_many_unreadable(domain.name, len(part.values), part.unreadable, run.settings.data.max_unreadable)
    begin()
    readable = [domain.subset(sorted(part.image_ids.tolist())) for domain, part in zip(run.domains, seen, strict=True)]
    write_images(run.out, readable, {d.name: part.unreadable for d, part in zip(run.domains, seen, strict=True)})
    unaligned = _Unaligned.of(run, seen, run.frozen)
    for kind, folder in (("frozen", FROZEN), ("centred", CENTRED), ("smoothed", SMOOTHED)):
        card = f"The unchanged backbone, {kind} embeddings: nothing is learned; for comparison."
        unaligned.encoder(kind).save(run.out / folder, card)
    encoder = aligned_encoder(run.settings, unaligned, seen, run.log)
    if run.settings.method.name == "tune":
        encoder, unaligned = tune(run, unaligned, seen, encoder)
    encoder.save(run.out / ENCODER, _card(unaligned, encoder))
    return skipped


def _card(unaligned: "_Unaligned", encoder: Encoder) -> str:
    """What an encoder is, in two sentences."""
    names = ", ".join(f"{name} ({len(rows)} images)" for name, rows in zip(unaligned.names, unaligned.features, strict=True))
    rows = encoder.config.rows
    how = {
        "aligned": "aligned in closed form",
        "tuned": "embedded by a backbone that was fine-tuned first on the groups that align found, then on its own",
    }.get(rows, f"made with {rows} rows, because there was no evidence for learning more")
    return f"Made by ucdir from {names} without labels: {how}. {unaligned.recognition}."


def tune(
    run: AlignedRun, unaligned: "_Unaligned", seen: Sequence[ViewFeatures], encoder: Encoder
) -> tuple[Encoder, "_Unaligned"]:
    """Train the backbone on the embeddings of the aligned `encoder`, which is kept; then one view per image is enough.

    Returns `encoder` and `unaligned` unchanged if nothing was learned, or if the tuned backbone hardly tells images apart.
    """
    if encoder.config.rows != "aligned":
        run.log("so there is nothing to tune the backbone on; keeping it as it was")
        return encoder, unaligned
    encoder.save(run.out / ALIGNED, _card(unaligned, encoder))
    lessons = _lessons(run.domains, unaligned, seen, encoder)
    learned = tuned(run.frozen, lessons, run.settings, run.compute, run.out / TUNING, run.progress, run.log)
    tuned_unaligned = _Unaligned.of(run, embed_views(run, learned.encoder, PLAIN), learned.encoder)
    run.log(tuned_unaligned.recognition)
    described = [F.normalize(rows @ learned.projection, dim=1) for rows in tuned_unaligned.features]
    if any(map(is_collapsed, described)):
        run.log("the tuned backbone hardly tells images apart; keeping the encoder from before tuning")
        return encoder, unaligned
    rows = [centred(part) for part in described]
    embeddings = [averaged(part, run.settings.align.neighbours, rounds=1) for part in rows]
    parts = zip(described, rows, embeddings, tuned_unaligned.contents, strict=True)
    memories = [DomainMemory(all_.mean(dim=0), own.half(), calm.half(), contents) for all_, own, calm, contents in parts]
    alignment = Alignment(torch.ones(1), learned.projection, memories, tuned_unaligned.recogniser)
    return with_confidence(tuned_unaligned.knowing(alignment, PLAIN, "tuned"), embeddings), tuned_unaligned


def _lessons(
    domains: Sequence[Domain], unaligned: "_Unaligned", seen: Sequence[ViewFeatures], encoder: Encoder
) -> list[Lesson]:
    """The training data of the backbone, in an order that depends on the images alone."""
    assert encoder.alignment is not None
    lessons = []
    for number in by_content(seen):
        part, memory = seen[number], encoder.alignment.memories[number]
        known = {content.tobytes(): row for row, content in enumerate(part.contents)}
        rows = [known[content.numpy().tobytes()] for content in memory.contents]
        targets = memory.embeddings.float().to(unaligned.features[number].device)
        lessons.append(Lesson(domains[number].subset(part.image_ids[rows].tolist()), unaligned.features[number][rows], targets))
    return lessons


def by_content(seen: Sequence[ViewFeatures]) -> list[int]:
    """The domains in the order of their images' contents, whatever their names."""
    return sorted(range(len(seen)), key=lambda number: seen[number].contents.tobytes())


def embed_views(run: AlignedRun, encoder: Encoder, views: tuple[str, ...] = DEFAULT_VIEWS) -> list[ViewFeatures]:
    """Features of these views of all images."""
    with run.progress("features", sum(map(len, run.domains))) as advance:
        return [
            view_features(encoder, domain.paths, views, run.compute, advance, run.settings.align.draw) for domain in run.domains
        ]


@dataclass(frozen=True)
class _Unaligned:
    """What the domains are before anything is learned.

    features    S x (N, F) float32 unit rows of plain views
    contents    S x (N, 32) uint8, SHA-256 of the image files
    recogniser  tells the domain of an image, right for the fraction `accuracy` of images that it has not learned from
    """

    names: tuple[str, ...]
    features: tuple[Tensor, ...]
    contents: tuple[Tensor, ...]
    backbone: Encoder
    recogniser: Recogniser
    accuracy: float

    @classmethod
    def of(cls, run: AlignedRun, seen: Sequence[ViewFeatures], backbone: Encoder) -> "_Unaligned":
        device = run.compute.device
        features = [F.normalize(torch.from_numpy(np.array(part.values[:, 0])).to(device).float(), dim=1) for part in seen]
        names = tuple(domain.name for domain in run.domains)
        contents = tuple(torch.from_numpy(part.contents.copy()) for part in seen)
        return cls(names, tuple(features), contents, backbone, learn_recogniser(features), recognised(features))

    @property
    def recognition(self) -> str:
        """A sentence about the recogniser."""
        return f"The domain is recognised from the image alone for {100 * self.accuracy:.1f} % of them"

    def encoder(self, kind: str) -> Encoder:
        """An encoder that gives frozen, centred or smoothed rows."""
        memories = [_unlearned(kind, *part) for part in zip(self.features, self.contents, strict=True)]
        return self.knowing(Alignment(torch.ones(1), None, memories, self.recogniser), PLAIN, kind)

    def knowing(self, alignment: Alignment, views: tuple[str, ...], rows: str) -> Encoder:
        """The backbone with what is known of the domains."""
        config = replace(self.backbone.config, dim=alignment.length, domains=self.names, views=views, rows=rows)
        return Encoder(self.backbone.backbone, config, alignment.cpu()).eval()


def _unlearned(kind: str, features: Tensor, contents: Tensor) -> DomainMemory:
    """A domain as it is without learning: features (N, F), contents (N, 32)."""
    centre = torch.zeros_like(features[0]) if kind == "frozen" else features.mean(dim=0)
    if kind != "smoothed":
        return DomainMemory(centre, features[:0].half(), features[:0].half(), contents[:0])
    return DomainMemory(centre, centred(features).half(), smoothed(features).half(), contents)


def aligned_encoder(
    settings: Settings, unaligned: _Unaligned, seen: Sequence[ViewFeatures], log: Callable[[str], None]
) -> Encoder:
    """The encoder that knows the domains. Without evidence for more it gives training-free rows, and the log says why.

    The result depends on the images alone: domains come in the order of their contents, whatever their names.
    """
    log(unaligned.recognition)
    fewest = min(map(len, unaligned.features))
    free = "smoothed" if fewest >= MIN_IMAGES_SMOOTHED else "centred"
    if fewest < MIN_IMAGES:
        log(
            f"a domain has {fewest} images, fewer than the {MIN_IMAGES} needed to find groups. Nothing is learned; the "
            f"embeddings are {free}"
        )
        return unaligned.encoder(free)
    device = unaligned.features[0].device
    order = by_content(seen)
    parts = [Seen(unaligned.names[number], seen[number].values, device) for number in order]
    found = align(parts, [name in KEEPING_STYLE for name in DEFAULT_VIEWS], settings.align, settings.run.seed)
    if found.agreement < MIN_AGREEMENT:
        log(
            f"the domains seem to have nothing in common: the mean cosine of an image to its nearest ones of another domain is "
            f"{found.agreement:.3f}, and {MIN_AGREEMENT} is the least. Rows are {free}, nothing is learned"
        )
        return unaligned.encoder(free)
    log(f"the mean cosine of an image to its nearest ones of another domain is {found.agreement:.3f} before pairing")
    placed = [found.domains[int(place)] for place in np.argsort(order)]
    memories = [_memory(*parts) for parts in zip(placed, unaligned.contents, strict=True)]
    alignment = Alignment(found.map.weights, found.map.projection, memories, unaligned.recogniser)
    return with_confidence(unaligned.knowing(alignment, DEFAULT_VIEWS, "aligned"), [part.embeddings for part in placed])


def _memory(domain: Placed, contents: Tensor) -> DomainMemory:
    return DomainMemory(domain.centre, domain.rows.half(), domain.embeddings.half(), contents[torch.from_numpy(domain.images)])


def with_confidence(encoder: Encoder, rows: Sequence[Tensor]) -> Encoder:
    """The same encoder with the confidence learned from these rows, S x (N, E)."""
    sure = calibrated(rows, find_groups(rows), hits_of(encoder.config.rows))
    encoder.config = replace(encoder.config, confidence=sure.numbers())
    return encoder


def refuse_too_few(domains: Sequence[Domain], least: int = 4) -> None:
    """UsageError if a domain has too few images."""
    for domain in domains:
        if len(domain) < least:
            raise UsageError(
                f"domain '{domain.name}' has {len(domain)} images; aligning needs at least {least} in each. Add images."
            )
    if len(domains) < 2:
        raise UsageError(f"cannot align a single domain: '{domains[0].name}'. Name two or more folders.")
