"""A gallery that follows its folders: only what changed is embedded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from ucdir.errors import ImageError, UcdirError, UsageError
from ucdir.gallery.embedder import ImageEmbedder, OldGallery
from ucdir.gallery.interface import GalleryInfo, GalleryWriter
from ucdir.gallery.journal import Journal
from ucdir.gallery.update import IndexResult, Updated, refuse_empty, update
from ucdir.images.domains import Domain, load_domains
from ucdir.model.export import can_export, export_onnx
from ucdir.model.runtime import is_exported
from ucdir.progress import Progress
from ucdir.scoring.collapse import collapse_sentence, is_collapsed
from ucdir.scoring.picks import evenly_spread

COLLAPSE_SAMPLE = 1000


@dataclass(frozen=True)
class Wanted:
    """What a gallery should follow. `flag` is how a command names the engine."""

    encoder: Path
    sources: Sequence[str]
    classes: str
    split: str | None
    drop: Sequence[str]
    out: str
    flag: str


def bring_up_to_date(
    writer: GalleryWriter, wanted: Wanted, embedder: ImageEmbedder, progress: Progress, log: Callable[[str], None]
) -> IndexResult:
    """Embed what is new or changed, follow what moved, drop what is gone; write the gallery in one step."""
    writer.check()
    model, drop = embedder.encoder, wanted.drop
    fingerprint = model.fingerprint()
    with writer.lock():
        there = writer.read()
        info = None if there is None else there[0]
        if info is not None:
            info.require_encoder(fingerprint, wanted.encoder, wanted.out, wanted.flag)
        domains = load_domains(_sources(wanted.sources, info, drop), classes=wanted.classes, split=wanted.split)
        kept = _kept_domains(info, domains, drop)
        seen_as = embedder.seen_as([domain.name for domain in domains])
        if info is not None:
            _refuse_other_views(info, seen_as, wanted)
        before = OldGallery.empty() if there is None else OldGallery(there[1], there[2])
        made_with = " ".join(
            [fingerprint, embedder.compute.precision, *(f"{name} {how}" for name, how in sorted(seen_as.items()))]
        )
        journal = Journal(writer.journal, made_with, model.config.length)
        with progress("embedding", sum(len(domain) for domain in domains)) as advance:
            updated = update(domains, before, journal, embedder, kept, advance)
        refuse_empty(updated, domains)
        _warn_of_collapse(updated, log)
        named = _named(domains, kept, info)
        if not _same_images(updated.images, before.images) or info is None or named != info.sources:
            made = _info(
                info,
                updated,
                fingerprint,
                wanted.encoder,
                embedder.compute.precision,
                model.config.length,
                named,
                kept,
                seen_as,
            )
            writer.write(made, updated.images, updated.rows)
        journal.remove()
    return _result(wanted.out, updated)


def _same_images(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables have the same images, in whatever order."""
    return bool(one.sort_by("id").equals(other.sort_by("id")))


def export_once(folder: Path, log: Callable[[str], None]) -> None:
    """Export the encoder unless that is done or cannot be done; the gallery is as good without."""
    if not can_export() or is_exported(folder):
        return
    try:
        export_onnx(folder)
    except UcdirError as error:
        log(f"Not exported: {error}")


def _sources(given: Sequence[str], info: GalleryInfo | None, drop: Sequence[str]) -> list[str]:
    if given:
        return list(given)
    if info is None:
        raise UsageError("no folders given, and no gallery exists yet to take them from. Name them: ucdir index RUN DIR...")
    stay = [f"{name}={source}" for name, source in info.sources.items() if name not in drop]
    if not stay:
        raise UsageError(f"--drop {' --drop '.join(drop)} would leave an empty gallery. Name a folder to put there instead.")
    return stay


def _refuse_other_views(info: GalleryInfo, seen_as: Mapping[str, str], wanted: Wanted) -> None:
    """Images that are there already would keep embeddings of another make."""
    for name, how in seen_as.items():
        then = info.seen_as.get(name, how)
        if then != how:
            raise UsageError(
                f"domain '{name}' of gallery '{wanted.out}' was embedded as {then}, not as {how}. "
                "Use the same --as and --views as before, or start over with --overwrite."
            )


def _kept_domains(info: GalleryInfo | None, domains: Sequence[Domain], drop: Sequence[str]) -> tuple[str, ...]:
    """Domains of the gallery that stay untouched; refuses to drop what is not there and to put one folder for another."""
    there = {} if info is None else dict(info.sources)
    for name in drop:
        if name not in there:
            raise UsageError(f"--drop {name}: the gallery holds {', '.join(there) or 'nothing yet'}. Give one of them.")
    for domain in domains:
        old = there.get(domain.name)
        if old is not None and domain.name not in drop and Path(old) != domain.source.absolute() and Path(old).exists():
            raise UsageError(
                f"domain '{domain.name}' of the gallery follows '{old}', which still exists; found '{domain.source}'. "
                f"Give the new one another name (NAME={domain.source}), or replace the old one (--drop {domain.name})."
            )
    named = {domain.name for domain in domains}
    return tuple(name for name in there if name not in named and name not in drop)


def _named(domains: Sequence[Domain], kept: Sequence[str], info: GalleryInfo | None) -> dict[str, str]:
    """Domain -> source of the gallery to be, in its order."""
    stay = {name: info.sources[name] for name in kept} if info is not None else {}
    return stay | {domain.name: str(domain.source.absolute()) for domain in domains}


def _warn_of_collapse(updated: Updated, log: Callable[[str], None]) -> None:
    """Warn about domains whose embeddings cannot be told apart; looks at COLLAPSE_SAMPLE images of each."""
    of_image = updated.images["domain"].to_numpy(zero_copy_only=False)
    for name in dict.fromkeys(of_image.tolist()):
        own = np.flatnonzero(of_image == name)
        if is_collapsed(torch.from_numpy(updated.rows(own[evenly_spread(len(own), COLLAPSE_SAMPLE)]))):
            log(f"warning: {collapse_sentence([name])}: hits among them are arbitrary. Use another encoder.")


def _info(
    before: GalleryInfo | None,
    updated: Updated,
    fingerprint: str,
    encoder: Path,
    precision: str,
    dim: int,
    sources: dict[str, str],
    kept: Sequence[str],
    seen_as: Mapping[str, str],
) -> GalleryInfo:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    still = [] if before is None else [entry for entry in before.unreadable if entry["domain"] in kept]
    return GalleryInfo(
        fingerprint=fingerprint,
        encoder_path=str(encoder.absolute()),
        precision=precision,
        dim=dim,
        count=updated.images.num_rows,
        created=now if before is None else before.created,
        updated=now,
        sources=sources,
        unreadable=(*still, *(_skipped(name, error) for name, error in updated.unreadable)),
        seen_as={name: how for name, how in (before.seen_as if before else {}).items() if name in kept} | dict(seen_as),
    )


def _skipped(domain: str, error: ImageError) -> dict[str, str]:
    return {"path": str(Path(error.path).absolute()), "domain": domain, "reason": error.reason}


def _result(gallery: str, updated: Updated) -> IndexResult:
    counts = updated.images["domain"].value_counts().to_pylist()
    domains = tuple((count["values"], count["counts"]) for count in counts)
    unreadable = tuple(error for _, error in updated.unreadable)
    return IndexResult(gallery, updated.images.num_rows, domains, updated.changes, unreadable)
