"""A run of the closed-form method: domains -> features of their views -> an encoder that knows them, and the run folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ucdir.config import Settings
from ucdir.data.cache import PixelCache
from ucdir.data.domain import Domain
from ucdir.data.style_views import DEFAULT_VIEWS, KEEPING_STYLE
from ucdir.errors import ImageError, UsageError
from ucdir.learn.align import Aligned, Seen, align
from ucdir.learn.inputs import refuse_many_unreadable
from ucdir.learn.recognise import learn_recogniser, recognised
from ucdir.learn.run import ENCODER, FROZEN, write_images
from ucdir.model.alignment import Alignment, DomainMemory
from ucdir.model.encoder import Encoder
from ucdir.progress import Bars
from ucdir.retrieval.view_features import ViewFeatures, view_features


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
) -> tuple[ImageError, ...]:
    """Learn from `domains` and write the encoders into the run folder `out`; returns what was skipped.

    frozen    the backbone, which stays as it is
    """
    seen = look(settings, domains, frozen, compute, bars)
    skipped = tuple(error for part in seen for error in part.unreadable)
    for error in skipped:
        say(f"skipped: {error}")
    for domain, part in zip(domains, seen, strict=True):
        refuse_many_unreadable(domain.name, len(part.image_ids), part.unreadable, settings.data.max_unreadable)
    readable = [domain.subset(sorted(part.image_ids.tolist())) for domain, part in zip(domains, seen, strict=True)]
    write_images(out, readable, {d.name: part.unreadable for d, part in zip(domains, seen, strict=True)})
    frozen.save(out / FROZEN, "The backbone as it came, to compare with.")
    encoder, accuracy = bring_together(settings, domains, seen, frozen, compute.device, say)
    names = ", ".join(f"{domain.name} ({len(domain)} images)" for domain in readable)
    encoder.save(
        out / ENCODER,
        f"Brought together by ucdir from {names}, without labels. An image's domain is recognised from the image alone "
        f"for {100 * accuracy:.1f} % of them.",
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


def bring_together(
    settings: Settings,
    domains: Sequence[Domain],
    seen: Sequence[ViewFeatures],
    frozen: Encoder,
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[Encoder, float]:
    """The encoder that knows the domains, and how often it tells the domain of an image right.

    What is learned depends on the images alone: domains come in the order of their contents, whatever their names.
    """
    order = sorted(range(len(domains)), key=lambda number: seen[number].contents.tobytes())
    parts = [Seen(domains[number].name, seen[number].values, device) for number in order]
    found = align(parts, [name in KEEPING_STYLE for name in DEFAULT_VIEWS], settings.align, settings.run.seed)
    back = np.argsort(order)
    plain = [torch.from_numpy(np.array(part.values[:, 0])).to(device) for part in seen]
    accuracy = recognised(plain)
    say(f"the domain of an image is recognised from the image alone for {100 * accuracy:.1f} % of them")
    memories = [_memory(found, int(back[number]), part) for number, part in enumerate(seen)]
    alignment = Alignment(found.map.weights, found.map.projection, memories, learn_recogniser(plain))
    config = replace(
        frozen.config,
        dim=alignment.length,
        domains=tuple(domain.name for domain in domains),
        views=DEFAULT_VIEWS,
        rows="aligned",
    )
    return Encoder(frozen.backbone, config, alignment.cpu()).eval(), accuracy


def _memory(found: Aligned, number: int, seen: ViewFeatures) -> DomainMemory:
    part = found.domains[number]
    contents = torch.from_numpy(seen.contents.copy())
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
