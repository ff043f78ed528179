"""What differs between a gallery and the folders it follows. Only that is embedded."""

import hashlib
import io
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ucdir.data.domain import Domain
from ucdir.data.evaluation import evaluation_view
from ucdir.data.image import open_rgb, read_file
from ucdir.data.reading import read_ahead
from ucdir.errors import ImageError, UcdirError
from ucdir.model.encoder import Encoder
from ucdir.retrieval.embed import encode, evaluating
from ucdir.retrieval.engines import SCHEMA, GalleryImage, Rows, gallery_image, image_id, image_table
from ucdir.retrieval.journal import Journal, Noted
from ucdir.retrieval.lookup import RowLookup

SETTLED_NS = 2_000_000_000
UNSETTLED = (0, 0)


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


class Before:
    """The gallery as it was, ready to be asked by path and by content."""

    def __init__(self, images: pa.Table, rows: Rows) -> None:
        self.images, self.rows = images, rows
        self._by_id, self._by_content = RowLookup(images["id"]), RowLookup(images["sha256"])

    @classmethod
    def nothing(cls) -> "Before":
        """No gallery yet."""
        return cls(SCHEMA.empty_table(), lambda positions: np.empty((0, 0), np.float32))

    def row_of(self, image: str) -> int | None:
        """Row of the image with this id."""
        return self._by_id.row(image)

    def row_with(self, sha256: str) -> int | None:
        """A row with this content."""
        return self._by_content.row(sha256)

    def image(self, row: int) -> GalleryImage:
        """What was known of a row."""
        (record,) = self.images.slice(row, 1).to_pylist()
        return gallery_image(record)


@dataclass(frozen=True)
class Item:
    """A file to look at."""

    path: Path
    domain: str
    class_name: str | None


@dataclass(frozen=True)
class Known:
    """A file whose embedding exists: at a row of the gallery as it was, or at `~position` of the journal."""

    image: GalleryImage
    source: int


@dataclass(frozen=True)
class Fresh:
    """A file to embed: `view` is (3, H, W) uint8."""

    image: GalleryImage
    view: np.ndarray


def update(
    domains: Sequence[Domain],
    before: Before,
    journal: Journal,
    encoder: Encoder,
    device: torch.device,
    precision: str,
    batch_size: int,
    workers: int,
    kept: Sequence[str] = (),
    progress: Callable[[int], None] = lambda count: None,
) -> Updated:
    """Look at every file of `domains`, embed those whose content is not known yet, and lay out the new gallery.

    kept    domains of the gallery as it was that stay as they are; they come first
    """
    parts, sources = _kept(before, kept)
    unreadable: list[tuple[str, ImageError]] = []
    embedded = 0
    look = partial(look_at, before=before, noted=journal.known, size=encoder.config.image_size)
    with evaluating(encoder, device):
        for domain in domains:
            for results in read_ahead(_items(domain), look, batch_size, workers):
                fresh = [result for result in results if isinstance(result, Fresh)]
                embedded += len(fresh)
                at = iter(_embed(fresh, journal, encoder, device, precision))
                good = [result for result in results if not isinstance(result, ImageError)]
                unreadable += [(domain.name, result) for result in results if isinstance(result, ImageError)]
                parts.append(image_table([result.image for result in good]))
                found = [result.source if isinstance(result, Known) else ~next(at) for result in good]
                sources.append(np.array(found, np.int64))
                progress(len(results))
    journal.flush()
    images, source = pa.concat_tables(parts).combine_chunks(), np.concatenate(sources)
    names = pc.unique(pa.concat_tables([before.images, images])["domain"]).to_pylist()
    looked_at = [name for name in names if name not in kept]
    changes = replace(compare(before.images, images, looked_at), embedded=embedded)
    return Updated(images, _rows_from(before, journal, source), changes, tuple(unreadable))


def look_at(item: Item, before: Before, noted: Mapping[str, Noted], size: int) -> Known | Fresh | ImageError:
    """Read as little of a file as shows what is to be done.

    The file is not read at all when its times of modification and change are those of the gallery; its content is
    hashed when they are not; it is decoded when nothing with that hash is known.
    """
    path = item.path.absolute()
    try:
        row = before.row_of(image_id(item.domain, str(path)))
        times, length = _times(path)
        if row is not None and times != UNSETTLED:
            image = before.image(row)
            if (image.mtime_ns, image.ctime_ns, image.bytes) == (*times, length):
                return Known(replace(image, class_name=item.class_name), row)
        return _by_content(item, read_file(path), times, before, noted, size)
    except UnicodeEncodeError:
        return ImageError(ascii(str(item.path)), "its name is not valid Unicode")
    except ImageError as error:
        return ImageError(item.path, error.reason)


def _times(path: Path) -> tuple[tuple[int, int], int]:
    """Times of modification and change, ns, and the size in bytes. A file touched just now may change unseen: `UNSETTLED`."""
    try:
        status = path.stat()
    except OSError:
        return UNSETTLED, 0  # reading it will say why
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return times if time.time_ns() - max(times) > SETTLED_NS else UNSETTLED, status.st_size


def _by_content(
    item: Item, content: bytes, times: tuple[int, int], before: Before, noted: Mapping[str, Noted], size: int
) -> Known | Fresh:
    digest = hashlib.sha256(content).hexdigest()

    def entry(width: int, height: int) -> GalleryImage:
        path = item.path.absolute()
        return GalleryImage(path, item.domain, digest, width, height, len(content), item.class_name, *times)

    row = before.row_with(digest)
    if row is not None:
        there = before.image(row)
        return Known(entry(there.width, there.height), row)
    if digest in noted:
        note = noted[digest]
        return Known(entry(note.width, note.height), ~note.position)
    pixels = open_rgb(io.BytesIO(content))
    return Fresh(entry(*pixels.size), evaluation_view(pixels, size))


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


def _items(domain: Domain) -> list[Item]:
    classes = domain.classes or (None,) * len(domain)
    return [Item(path, domain.name, name) for path, name in zip(domain.paths, classes, strict=True)]


def _kept(before: Before, domains: Sequence[str]) -> tuple[list[pa.Table], list[np.ndarray]]:
    """Rows of the gallery as it was, and where their embeddings lie."""
    mask = pc.is_in(before.images["domain"], pa.array(domains, pa.string()))
    return [before.images.filter(mask)], [np.flatnonzero(mask.to_numpy())]


def _embed(fresh: Sequence[Fresh], journal: Journal, encoder: Encoder, device: torch.device, precision: str) -> range:
    """Positions in the journal of the embeddings of `fresh`."""
    if not fresh:
        return range(0)
    rows = encode(encoder, np.stack([item.view for item in fresh]), device, precision)
    if not bool(rows.isfinite().all()):
        raise UcdirError(f"the encoder gives NaN or infinity, for example for '{fresh[0].image.path}'. Train it again.")
    return journal.add([item.image for item in fresh], rows.numpy())


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
