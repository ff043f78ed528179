"""Look at files: what is known of them already, and an embedding of what is not. By one process, or by several that share them.

Of several processes the first leads (`with_helpers`): it alone knows the gallery, its journal and what is to be written. The
others wait for what it says next, and look at their share of the files.
"""

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ucdir.embedding.compute import Compute
from ucdir.embedding.domain_members import Members
from ucdir.embedding.embed import encode, evaluating
from ucdir.errors import ImageError, UcdirError, UsageError
from ucdir.gallery.interface import SCHEMA, GalleryImage, Rows, gallery_image, image_id
from ucdir.gallery.journal import JournalEntry
from ucdir.gallery.row_lookup import RowLookup
from ucdir.images.domains import Domain
from ucdir.images.evaluation_view import Viewing
from ucdir.images.opening import open_rgb, read_file
from ucdir.images.reading import read_ahead
from ucdir.model.device import choose_precision
from ucdir.model.encoder import Encoder
from ucdir.model.processes import ALONE, Processes, own_device

SETTLED_NS = 2_000_000_000
UNSETTLED = (0, 0)

Outcome = TypeVar("Outcome")


class OldGallery:
    """The old gallery, indexed by path and by content."""

    def __init__(self, images: pa.Table, rows: Rows) -> None:
        self.images, self.rows = images, rows
        self._by_id, self._by_content = RowLookup(images["id"]), RowLookup(images["sha256"])

    @classmethod
    def empty(cls) -> "OldGallery":
        """No gallery yet."""
        return cls(SCHEMA.empty_table(), _no_rows)

    def row_of(self, image: str) -> int | None:
        """Row of the image with this id."""
        return self._by_id.row(image)

    def row_with(self, sha256: str) -> int | None:
        """A row with this content."""
        return self._by_content.row(sha256)

    def image(self, row: int) -> GalleryImage:
        """The entry of a row."""
        (record,) = self.images.slice(row, 1).to_pylist()
        return gallery_image(record)


@dataclass(frozen=True)
class Item:
    """A file to embed, unless it is known."""

    path: Path
    domain: str
    class_name: str | None


@dataclass(frozen=True)
class GalleryRow:
    """An embedding in the old gallery."""

    row: int


@dataclass(frozen=True)
class JournalRow:
    """An embedding in the journal."""

    row: int


@dataclass(frozen=True)
class KnownImage:
    """A file whose embedding exists already."""

    image: GalleryImage
    source: GalleryRow | JournalRow


@dataclass(frozen=True)
class NewImage:
    """A file to embed: `view` is uint8, what the encoder sees of it."""

    image: GalleryImage
    view: np.ndarray


@dataclass(frozen=True)
class EmbeddedImage:
    """A file that has been embedded: `row` is (D,) float32 of unit length."""

    image: GalleryImage
    row: np.ndarray


LookedAt = KnownImage | EmbeddedImage | ImageError


@dataclass(frozen=True)
class Task:
    """The files that several processes share, and what is known of them."""

    items: Sequence[Item]
    images: pa.Table
    journalled: Mapping[str, JournalEntry]


@dataclass(frozen=True)
class NextBatch:
    """Every process is to send its next batch."""


@dataclass(frozen=True)
class Finished(Generic[Outcome]):
    """The work is finished, with this outcome."""

    outcome: Outcome


@dataclass(frozen=True)
class ImageEmbedder:
    """Embeds files that are not known yet: in one process, or in the first of several with the help of the others.

    compute        of each process; its cache is not used
    as_domain      the domain of the encoder to which all images belong; None = the one with the same name as theirs
    views          views of each new image that the encoder sees; None = all
    """

    encoder: Encoder
    compute: Compute
    processes: Processes = ALONE
    as_domain: str | None = None
    views: int | None = None

    @property
    def viewing(self) -> Viewing:
        """What the encoder sees of an image."""
        return Viewing(self.encoder.config.image_size, self.encoder.config.views[: self.views])

    def members(self, domain: str) -> Members | None:
        """The domain of the encoder to which images of this domain belong; None where it knows no domains."""
        if not self.encoder.config.domains and self.as_domain is None:
            return None
        return Members.of(self.encoder, self.as_domain or domain)

    def seen_as(self, domains: Sequence[str]) -> dict[str, str]:
        """Domain -> as which domain of the encoder its images are embedded, and from how many views. Empty if it knows none."""
        members = {domain: self.members(domain) for domain in domains}
        views = len(self.viewing.names)
        return {
            domain: f"'{part.name}' in {views} view{'s' * (views > 1)}" for domain, part in members.items() if part is not None
        }

    def look(
        self, items: Sequence[Item], before: OldGallery, journalled: Mapping[str, JournalEntry]
    ) -> Iterator[tuple[Sequence[Item], list[LookedAt]]]:
        """Batches of items, in order, with their results. With several processes, called by the first inside `with_helpers`."""
        count = self.processes.count
        if count > 1:
            self.processes.first(lambda: Task(items, before.images, journalled))
        mine = self.share(items, before, journalled)
        for start in range(0, len(items), count * self.compute.batch_size):
            yield items[start : start + count * self.compute.batch_size], self._all(mine)

    def share(
        self, items: Sequence[Item], before: OldGallery, journalled: Mapping[str, JournalEntry]
    ) -> Iterator[list[LookedAt]]:
        """The results of this process for its share of the items, batch by batch."""
        members = {name: self.members(name) for name in {item.domain for item in items}}
        look = partial(look_at, before=before, journalled=journalled, viewing=self.viewing, members=members)
        mine = items[self.processes.share(len(items))]
        with evaluating(self.encoder, self.compute.device):
            for results in read_ahead(mine, look, self.compute.batch_size, self.compute.workers):
                yield self._embedded(results, members)

    def _all(self, mine: Iterator[list[LookedAt]]) -> list[LookedAt]:
        """The next batch of all processes, in the order of the items."""
        if self.processes.count == 1:
            return next(mine)
        self.processes.first(NextBatch)
        parts = [_whole(part) for part in self.processes.to_first(_next(mine))]
        return [seen for turn in zip_longest(*parts) for seen in turn if seen is not None]

    def _rows(self, new: Sequence[NewImage], members: Mapping[str, Members | None]) -> Tensor:
        """(n, D) of files that fit one batch."""
        seen, own = np.stack([item.view for item in new]), [members[item.image.domain] for item in new]
        if not self.encoder.config.domains:
            return encode(self.encoder, seen, self.compute.device, self.compute.precision)
        domain = torch.tensor([part.number for part in own if part is not None], device=self.compute.device)
        return encode(lambda views: self.encoder.placed(views, domain).rows, seen, self.compute.device, self.compute.precision)

    def _embedded(self, results: Sequence[LookedAt | NewImage], members: Mapping[str, Members | None]) -> list[LookedAt]:
        new = [result for result in results if isinstance(result, NewImage)]
        if not new:
            return [result for result in results if not isinstance(result, NewImage)]
        step = max(1, self.compute.batch_size // max(1, len(self.viewing.names)))
        rows = torch.cat([self._rows(new[start : start + step], members) for start in range(0, len(new), step)])
        if not bool(rows.isfinite().all()):
            raise UcdirError(f"the encoder gives NaN or infinity, for example for '{new[0].image.path}'. Train it again.")
        found = iter(rows.numpy())
        return [EmbeddedImage(result.image, next(found)) if isinstance(result, NewImage) else result for result in results]


def image_embedder(
    encoder: Encoder,
    device: str,
    precision: str,
    batch_size: int,
    workers: int,
    processes: Processes,
    as_domain: str | None = None,
    views: int | None = None,
) -> ImageEmbedder:
    """The embedder of this process on this device at this precision; UsageError, reported once, for unknown ones."""
    if views is not None and not encoder.config.views:
        raise UsageError(f"--views {views}: this encoder embeds an image from one view. Leave out --views.")
    own = own_device(device, processes)
    exactness = processes.first(lambda: choose_precision(precision, own))
    return ImageEmbedder(encoder, Compute(own, exactness, workers, batch_size), processes, as_domain, views)


def with_helpers(embedder: ImageEmbedder, work: Callable[[], Outcome]) -> Outcome:
    """Do `work` in the first process while the others help to embed files; all get its outcome, or its error."""
    processes = embedder.processes
    if processes.count == 1:
        return work()
    if processes.is_first:
        return processes.first(lambda: Finished(work())).outcome
    mine: Iterator[list[LookedAt]] = iter(())
    while True:
        message: Task | NextBatch | Finished[Outcome] = processes.first(_unasked)
        if isinstance(message, Finished):
            return message.outcome
        if isinstance(message, Task):
            mine = embedder.share(message.items, OldGallery(message.images, _no_rows), message.journalled)
        else:
            processes.to_first(_next(mine))


def _unasked() -> Any:
    """Stands for an answer that only the first process can give."""
    raise AssertionError("only the first process knows this")


def _no_rows(positions: np.ndarray) -> np.ndarray:
    return np.empty((0, 0), np.float32)


def _next(mine: Iterator[list[LookedAt]]) -> list[LookedAt] | UcdirError:
    """The next batch, None if there is none, or the error that the first process is to raise."""
    try:
        return next(mine, [])
    except UcdirError as error:
        return error


def _whole(part: list[LookedAt] | UcdirError) -> list[LookedAt]:
    if isinstance(part, UcdirError):
        raise part
    return part


def items_of(domains: Sequence[Domain]) -> list[Item]:
    """The files of all domains, one after the other."""
    return list(chain.from_iterable(_items(domain) for domain in domains))


def _items(domain: Domain) -> list[Item]:
    classes = domain.classes or (None,) * len(domain)
    return [Item(path, domain.name, name) for path, name in zip(domain.paths, classes, strict=True)]


def look_at(
    item: Item,
    before: OldGallery,
    journalled: Mapping[str, JournalEntry],
    viewing: Viewing,
    members: Mapping[str, Members | None],
) -> KnownImage | EmbeddedImage | NewImage | ImageError:
    """Read only as much of a file as is needed to decide what to do with it.

    It is not read at all if its times of modification and change are those in the gallery; else it is hashed; it is decoded
    only if no image with that hash is known.
    """
    path = item.path.absolute()
    try:
        row = before.row_of(image_id(item.domain, str(path)))
        times, length = _times(path)
        if row is not None and times != UNSETTLED:
            image = before.image(row)
            if (image.mtime_ns, image.ctime_ns, image.bytes) == (*times, length):
                return KnownImage(replace(image, class_name=item.class_name), GalleryRow(row))
        return _by_content(item, read_file(path), times, before, journalled, viewing, members[item.domain])
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
    item: Item,
    content: bytes,
    times: tuple[int, int],
    before: OldGallery,
    journalled: Mapping[str, JournalEntry],
    viewing: Viewing,
    members: Members | None,
) -> KnownImage | EmbeddedImage | NewImage:
    hashed = hashlib.sha256(content)
    digest = hashed.hexdigest()

    def entry(width: int, height: int) -> GalleryImage:
        path = item.path.absolute()
        return GalleryImage(path, item.domain, digest, width, height, len(content), item.class_name, *times)

    row = before.row_with(digest)
    there = None if row is None else before.image(row)
    if row is not None and there is not None and (members is None or there.domain == item.domain):
        return KnownImage(entry(there.width, there.height), GalleryRow(row))
    note = journalled.get(digest)
    if note is not None and (members is None or note.domain == item.domain):
        return KnownImage(entry(note.width, note.height), JournalRow(note.position))
    pixels = open_rgb(io.BytesIO(content))
    learned = None if members is None else members.remembered(hashed.digest())
    if learned is not None:
        return EmbeddedImage(entry(*pixels.size), learned.numpy())
    return NewImage(entry(*pixels.size), viewing(pixels, hashed.digest()))
