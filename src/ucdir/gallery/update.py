"""What differs between a gallery and the folders it follows. Only that is embedded."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ucdir.errors import ImageError, UcdirError
from ucdir.gallery.embedder import Before, Embedded, Known, Looker, items_of
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
    """A gallery as it is to be.

    images      in the columns of `engines.SCHEMA`
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
    changes     what differs from the gallery as it was
    unreadable  skipped files, also listed in gallery.json
    """

    gallery: str
    count: int
    domains: tuple[tuple[str, int], ...]
    changes: Changes
    unreadable: tuple[ImageError, ...]


def update(
    domains: Sequence[Domain],
    before: Before,
    journal: Journal,
    looker: Looker,
    kept: Sequence[str] = (),
    advance: Callable[[int], None] = lambda count: None,
) -> Updated:
    """Look at every file of `domains`, embed those whose content is not known yet, and lay out the new gallery.

    kept    domains of the gallery as it was that stay as they are; they come first
    """
    parts, sources = _kept(before, kept)
    unreadable: list[tuple[str, ImageError]] = []
    embedded = 0
    try:
        for items, results in looker.look(items_of(domains), before, journal.known):
            fresh = [result for result in results if isinstance(result, Embedded)]
            embedded += len(fresh)
            at = iter(_noted(fresh, journal))
            good = [result for result in results if not isinstance(result, ImageError)]
            seen = zip(items, results, strict=True)
            unreadable += [(item.domain, result) for item, result in seen if isinstance(result, ImageError)]
            parts.append(image_table([result.image for result in good]))
            found = [result.source if isinstance(result, Known) else ~next(at) for result in good]
            sources.append(np.array(found, np.int64))
            advance(len(results))
    finally:
        journal.flush()
    images, source = pa.concat_tables(parts).combine_chunks(), np.concatenate(sources)
    names = pc.unique(pa.concat_tables([before.images, images])["domain"]).to_pylist()
    looked_at = [name for name in names if name not in kept]
    changes = replace(compare(before.images, images, looked_at), embedded=embedded)
    return Updated(images, _rows_from(before, journal, source), changes, tuple(unreadable))


def _noted(fresh: Sequence[Embedded], journal: Journal) -> range:
    """Positions in the journal of the embeddings of `fresh`."""
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


def _kept(before: Before, domains: Sequence[str]) -> tuple[list[pa.Table], list[np.ndarray]]:
    """Rows of the old gallery, and where their embeddings are."""
    mask = pc.is_in(before.images["domain"], pa.array(domains, pa.string()))
    return [before.images.filter(mask)], [np.flatnonzero(mask.to_numpy())]


def _rows_from(before: Before, journal: Journal, source: np.ndarray) -> Rows:
    """Embeddings by position, from the gallery as it was and from the journal."""

    def rows(positions: np.ndarray) -> np.ndarray:
        where = source[positions]
        embedded = journal.rows(~where[where < 0])
        gathered = np.empty((len(where), embedded.shape[1]), np.float32)
        gathered[where < 0] = embedded
        if (where >= 0).any():
            gathered[where >= 0] = before.rows(where[where >= 0])
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
