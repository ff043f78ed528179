"""What differs between a gallery and the folders it follows. Only that is embedded."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ucdir.errors import ImageError, UcdirError
from ucdir.gallery.embedder import EmbeddedImage, GalleryRow, ImageEmbedder, JournalRow, KnownImage, OldGallery, items_of
from ucdir.gallery.interface import Rows, image_table
from ucdir.gallery.journal import Journal
from ucdir.images.domains import Domain


@dataclass(frozen=True)
class Changes:
    """What an `index` found, in images.

    added       new paths whose content was not in the gallery under a path that is gone
    changed     the same path, other content
    moved       content whose old path is gone
    removed     paths that are gone, and their content with them
    unchanged   the same path, the same content
    embedded    images the encoder had to look at
    """

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    embedded: int = 0


@dataclass(frozen=True)
class Updated:
    """The new gallery.

    images      in the columns of `interface.SCHEMA`
    rows        gives the embeddings of positions in `images`
    unreadable  (domain, error) of what was skipped
    """

    images: pa.Table
    rows: Rows
    changes: Changes
    unreadable: tuple[tuple[str, ImageError], ...]


@dataclass(frozen=True)
class IndexResult:
    """What `index` did.

    gallery     the gallery
    count       images in it
    domains     (name, images in the gallery), in its order
    changes     differences from the old gallery
    unreadable  skipped files, also listed in gallery.json
    """

    gallery: str
    count: int
    domains: tuple[tuple[str, int], ...]
    changes: Changes
    unreadable: tuple[ImageError, ...]


def update(
    domains: Sequence[Domain],
    before: OldGallery,
    journal: Journal,
    embedder: ImageEmbedder,
    kept: Sequence[str] = (),
    advance: Callable[[int], None] = lambda count: None,
) -> Updated:
    """Go through the files of `domains`, embed those whose content is not known yet, and put the new gallery together.

    kept    domains of the old gallery that stay as they are; they come first
    """
    parts, sources = _kept(before, kept)
    unreadable: list[tuple[str, ImageError]] = []
    embedded = 0
    try:
        for items, results in embedder.look(items_of(domains), before, journal.known):
            fresh = [result for result in results if isinstance(result, EmbeddedImage)]
            embedded += len(fresh)
            added = iter(_journalled(fresh, journal))
            good = [result for result in results if not isinstance(result, ImageError)]
            seen = zip(items, results, strict=True)
            unreadable += [(item.domain, result) for item, result in seen if isinstance(result, ImageError)]
            parts.append(image_table([result.image for result in good]))
            sources.append(_Sources.of([_source(result, added) for result in good]))
            advance(len(results))
    finally:
        journal.flush()
    images, source = pa.concat_tables(parts).combine_chunks(), _Sources.joined(sources)
    names = pc.unique(pa.concat_tables([before.images, images])["domain"]).to_pylist()
    looked_at = [name for name in names if name not in kept]
    changes = replace(compare(before.images, images, looked_at), embedded=embedded)
    return Updated(images, _rows_from(before, journal, source), changes, tuple(unreadable))


@dataclass(frozen=True)
class _Sources:
    """Where the embeddings of N images are.

    rows        (N,) int64, rows of the old gallery or of the journal
    in_journal  (N,) bool, of which of the two
    """

    rows: np.ndarray
    in_journal: np.ndarray

    @classmethod
    def of(cls, sources: Sequence[GalleryRow | JournalRow]) -> "_Sources":
        in_journal = np.array([isinstance(source, JournalRow) for source in sources], bool)
        return cls(np.array([source.row for source in sources], np.int64), in_journal)

    @classmethod
    def joined(cls, parts: Sequence["_Sources"]) -> "_Sources":
        return cls(np.concatenate([part.rows for part in parts]), np.concatenate([part.in_journal for part in parts]))


def _source(result: KnownImage | EmbeddedImage, added: Iterator[int]) -> GalleryRow | JournalRow:
    """added: rows of the journal for images that were embedded just now."""
    return result.source if isinstance(result, KnownImage) else JournalRow(next(added))


def _journalled(fresh: Sequence[EmbeddedImage], journal: Journal) -> range:
    """Rows of the journal with the embeddings of `fresh`."""
    return journal.add([item.image for item in fresh], np.stack([item.row for item in fresh])) if fresh else range(0)


def compare(before: pa.Table, after: pa.Table, looked_at: Sequence[str]) -> Changes:
    """Count the differences between two tables of images; `embedded` stays 0.

    looked_at   domains that count; the others did not change
    """
    old, new = (_contents(table, looked_at) for table in (before, after))
    unchanged = sum(old.get(image) == content for image, content in new.items())
    changed = sum(image in old for image in new) - unchanged
    gone = Counter(content for image, content in old.items() if image not in new)
    come = Counter(content for image, content in new.items() if image not in old)
    moved = (gone & come).total()
    return Changes(come.total() - moved, changed, moved, gone.total() - moved, unchanged)


def _contents(images: pa.Table, domains: Sequence[str]) -> dict[str, str]:
    """Id -> content hash of the images of these domains."""
    ours = images.filter(pc.is_in(images["domain"], pa.array(domains, pa.string())))
    return dict(zip(ours["id"].to_pylist(), ours["sha256"].to_pylist(), strict=True))


def _kept(before: OldGallery, domains: Sequence[str]) -> tuple[list[pa.Table], list[_Sources]]:
    """Rows of the old gallery, and where their embeddings are."""
    mask = pc.is_in(before.images["domain"], pa.array(domains, pa.string()))
    rows = np.flatnonzero(mask.to_numpy())
    return [before.images.filter(mask)], [_Sources(rows, np.zeros(len(rows), bool))]


def _rows_from(before: OldGallery, journal: Journal, source: _Sources) -> Rows:
    """Embeddings by position, from the old gallery and from the journal."""

    def rows(positions: np.ndarray) -> np.ndarray:
        wanted, in_journal = source.rows[positions], source.in_journal[positions]
        embedded = journal.rows(wanted[in_journal])
        gathered = np.empty((len(wanted), embedded.shape[1]), np.float32)
        gathered[in_journal] = embedded
        if not in_journal.all():
            gathered[~in_journal] = before.rows(wanted[~in_journal])
        return gathered

    return rows


def refuse_empty(updated: Updated, domains: Sequence[Domain]) -> None:
    """End when no image could be read."""
    if updated.images.num_rows:
        return
    _, first = updated.unreadable[0]
    raise UcdirError(
        f"none of the {len(updated.unreadable)} images can be read (the first: '{first.path}': {first.reason}), "
        f"so nothing was written. Run ucdir check {' '.join(str(domain.source) for domain in domains)} to see why."
    )
