"""A run of the closed-form method: domains -> features of their views -> an encoder that knows them, and the run folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ucdir.config import Settings
from ucdir.data.cache import PixelCache
from ucdir.data.domain import Domain
from ucdir.data.style_views import DEFAULT_VIEWS, KEEPING_STYLE
from ucdir.errors import ImageError, UsageError
from ucdir.learn.align import Aligned, Seen, align
from ucdir.learn.inputs import refuse_many_unreadable
from ucdir.learn.recognise import learn_recogniser, recognised
from ucdir.learn.run import CENTRED, ENCODER, FROZEN, SMOOTHED, write_images
from ucdir.model.alignment import Alignment, DomainMemory, Recogniser
from ucdir.model.encoder import Encoder
from ucdir.progress import Bars
from ucdir.retrieval.calibrate import calibrated
from ucdir.retrieval.expansion import hits_of
from ucdir.retrieval.groups import find_groups
from ucdir.retrieval.training_free import centred, smoothed
from ucdir.retrieval.view_features import ViewFeatures, view_features

PLAIN = DEFAULT_VIEWS[:1]
FEWEST = 40  # images of a domain that groups can be found among
FEWEST_SMOOTHED = 100  # below it, the neighbours that rows are averaged with are of other kinds
LEAST_AGREEMENT = 0.075  # of domains that are brought together, see `align.Aligned`


@dataclass(frozen=True)
class Compute:
    """Where and how features are computed."""

    device: torch.device
    precision: str
    cache: PixelCache | None


def learn_aligned(
    out: Path,
    settings: Settings,
    domains: Sequence[Domain],
    frozen: Encoder,
    compute: Compute,
    bars: Bars,
    say: Callable[[str], None],
    begin: Callable[[], None] = lambda: None,
) -> tuple[ImageError, ...]:
    """Learn from `domains` and write the encoders into the run folder `out`; returns what was skipped.

    frozen    the backbone, which stays as it is
    begin     is called when all features are there and nothing has been written yet
    """
    seen = look(settings, domains, frozen, compute, bars)
    skipped = tuple(error for part in seen for error in part.unreadable)
    for error in skipped:
        say(f"skipped: {error}")
    for domain, part in zip(domains, seen, strict=True):
        refuse_many_unreadable(domain.name, len(part.values), part.unreadable, settings.data.max_unreadable)
    begin()
    readable = [domain.subset(sorted(part.image_ids.tolist())) for domain, part in zip(domains, seen, strict=True)]
    write_images(out, readable, {d.name: part.unreadable for d, part in zip(domains, seen, strict=True)})
    plain = _Plain.of(domains, seen, frozen, compute.device)
    say(f"the domain of an image is recognised from the image alone for {100 * plain.accuracy:.1f} % of them")
    for kind, folder in (("frozen", FROZEN), ("centred", CENTRED), ("smoothed", SMOOTHED)):
        plain.encoder(kind).save(out / folder, f"The backbone as it came, rows {kind}: nothing is learned, to compare with.")
    encoder = bring_together(settings, plain, seen, say)
    names = ", ".join(f"{domain.name} ({len(domain)} images)" for domain in readable)
    rows = encoder.config.rows
    done = "Brought together" if rows == "aligned" else f"Made with {rows} rows, because nothing spoke for learning more,"
    encoder.save(
        out / ENCODER,
        f"{done} by ucdir from {names}, without labels. An image's domain is recognised from the image alone "
        f"for {100 * plain.accuracy:.1f} % of them.",
    )
    return skipped


def look(settings: Settings, domains: Sequence[Domain], frozen: Encoder, compute: Compute, bars: Bars) -> list[ViewFeatures]:
    """Features of all views of all images."""
    with bars("features", sum(map(len, domains))) as advance:
        return [
            view_features(
                frozen,
                domain.paths,
                DEFAULT_VIEWS,
                compute.device,
                compute.precision,
                settings.data.workers,
                advance,
                compute.cache,
                settings.align.draw,
            )
            for domain in domains
        ]


@dataclass(frozen=True)
class _Plain:
    """What the domains are before anything is learned.

    features    S x (N, F) float32 unit rows of plain views
    contents    S x (N, 32) uint8, SHA-256 of the image files
    recogniser  tells the domain of an image, right for the fraction `accuracy` of images that it has not learned from
    """

    names: tuple[str, ...]
    features: tuple[Tensor, ...]
    contents: tuple[Tensor, ...]
    frozen: Encoder
    recogniser: Recogniser
    accuracy: float

    @classmethod
    def of(cls, domains: Sequence[Domain], seen: Sequence[ViewFeatures], frozen: Encoder, device: torch.device) -> "_Plain":
        features = [F.normalize(torch.from_numpy(np.array(part.values[:, 0])).to(device).float(), dim=1) for part in seen]
        names = tuple(domain.name for domain in domains)
        contents = tuple(torch.from_numpy(part.contents.copy()) for part in seen)
        return cls(names, tuple(features), contents, frozen, learn_recogniser(features), recognised(features))

    def encoder(self, kind: str) -> Encoder:
        """An encoder that gives frozen, centred or smoothed rows."""
        memories = [_unlearned(kind, *part) for part in zip(self.features, self.contents, strict=True)]
        return self.knowing(Alignment(torch.ones(1), None, memories, self.recogniser), PLAIN, kind)

    def knowing(self, alignment: Alignment, views: tuple[str, ...], rows: str) -> Encoder:
        """The backbone with what is known of the domains."""
        config = replace(self.frozen.config, dim=alignment.length, domains=self.names, views=views, rows=rows)
        return Encoder(self.frozen.backbone, config, alignment.cpu()).eval()


def _unlearned(kind: str, features: Tensor, contents: Tensor) -> DomainMemory:
    """A domain as it is without learning: features (N, F), contents (N, 32)."""
    centre = torch.zeros_like(features[0]) if kind == "frozen" else features.mean(dim=0)
    if kind != "smoothed":
        return DomainMemory(centre, features[:0].half(), features[:0].half(), contents[:0])
    return DomainMemory(centre, centred(features).half(), smoothed(features).half(), contents)


def bring_together(settings: Settings, plain: _Plain, seen: Sequence[ViewFeatures], say: Callable[[str], None]) -> Encoder:
    """The encoder that knows the domains; with training-free rows, and said, where nothing speaks for more.

    What is learned depends on the images alone: domains come in the order of their contents, whatever their names.
    """
    fewest = min(map(len, plain.features))
    free = "smoothed" if fewest >= FEWEST_SMOOTHED else "centred"
    if fewest < FEWEST:
        say(f"a domain has {fewest} images, and {FEWEST} are needed to find groups: rows are {free}, nothing is learned")
        return plain.encoder(free)
    device = plain.features[0].device
    order = sorted(range(len(seen)), key=lambda number: seen[number].contents.tobytes())
    parts = [Seen(plain.names[number], seen[number].values, device) for number in order]
    found = align(parts, [name in KEEPING_STYLE for name in DEFAULT_VIEWS], settings.align, settings.run.seed)
    if found.agreement < LEAST_AGREEMENT:
        say(
            f"the domains seem to share nothing: the mean cosine of an image to its nearest ones of another domain is "
            f"{found.agreement:.3f}, and {LEAST_AGREEMENT} is the least. Rows are {free}, nothing is learned"
        )
        return plain.encoder(free)
    say(f"the mean cosine of an image to its nearest ones of another domain is {found.agreement:.3f} before any are paired")
    back = np.argsort(order)
    memories = [_memory(found, int(back[number]), part) for number, part in enumerate(seen)]
    alignment = Alignment(found.map.weights, found.map.projection, memories, plain.recogniser)
    encoder = plain.knowing(alignment, DEFAULT_VIEWS, "aligned")
    rows = [found.domains[int(number)].embeddings for number in back]
    sure = calibrated(rows, find_groups(rows), hits_of("aligned"))
    encoder.config = replace(encoder.config, confidence=sure.numbers())
    return encoder


def _memory(found: Aligned, number: int, seen: ViewFeatures) -> DomainMemory:
    part = found.domains[number]
    contents = torch.from_numpy(seen.contents[part.images])
    return DomainMemory(part.centre, part.rows.half(), part.embeddings.half(), contents)


def refuse_too_few(domains: Sequence[Domain], least: int = 4) -> None:
    """UsageError where a domain has too few images to say anything about it."""
    for domain in domains:
        if len(domain) < least:
            raise UsageError(
                f"domain '{domain.name}' has {len(domain)} images; bringing domains together needs at least {least} in each. "
                "Add images."
            )
    if len(domains) < 2:
        raise UsageError(f"one domain alone cannot be brought together: '{domains[0].name}'. Name two or more folders.")
