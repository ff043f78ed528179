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

from ucdir.embedding.domain_members import Members
from ucdir.embedding.embed import encode, evaluating
from ucdir.errors import ImageError, UcdirError, UsageError
from ucdir.gallery.interface import SCHEMA, GalleryImage, Rows, gallery_image, image_id
from ucdir.gallery.journal import Noted
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


class Before:
    """The old gallery, indexed by path and by content."""

    def __init__(self, images: pa.Table, rows: Rows) -> None:
        self.images, self.rows = images, rows
        self._by_id, self._by_content = RowLookup(images["id"]), RowLookup(images["sha256"])

    @classmethod
    def nothing(cls) -> "Before":
        """No gallery yet."""
        return cls(SCHEMA.empty_table(), _no_rows)

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
    """A file to embed: `view` is uint8, what the encoder sees of it."""

    image: GalleryImage
    view: np.ndarray


@dataclass(frozen=True)
class Embedded:
    """A file that has been embedded: `row` is (D,) float32 of unit length."""

    image: GalleryImage
    row: np.ndarray


Seen = Known | Embedded | ImageError


@dataclass(frozen=True)
class Task:
    """What several processes are to look at."""

    items: Sequence[Item]
    images: pa.Table
    noted: Mapping[str, Noted]


@dataclass(frozen=True)
class Next:
    """The next batch is wanted of every process."""


@dataclass(frozen=True)
class Done(Generic[Outcome]):
    """The work is over, and what came of it."""

    outcome: Outcome


@dataclass(frozen=True)
class Looker:
    """Who looks at files: one process, or the first of several with the help of the others.

    precision      of the encoder: float32 or bfloat16
    batch_size     images embedded at a time, by each process
    workers        threads that read, in each process; 0 = one per core
    as_domain      the domain of the encoder to which all images belong; None = the one with the name of theirs
    views          how many of its views the encoder is shown of an image that is new to it; None = all
    """

    encoder: Encoder
    device: torch.device
    precision: str
    batch_size: int
    workers: int = 0
    processes: Processes = ALONE
    as_domain: str | None = None
    views: int | None = None

    @property
    def viewing(self) -> Viewing:
        """What the encoder is shown of an image."""
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
        self, items: Sequence[Item], before: Before, noted: Mapping[str, Noted]
    ) -> Iterator[tuple[Sequence[Item], list[Seen]]]:
        """Batches of items, in order, with their results. With several processes, called by the first inside `with_helpers`."""
        count = self.processes.count
        if count > 1:
            self.processes.first(lambda: Task(items, before.images, noted))
        mine = self.share(items, before, noted)
        for start in range(0, len(items), count * self.batch_size):
            yield items[start : start + count * self.batch_size], self._all(mine)

    def share(self, items: Sequence[Item], before: Before, noted: Mapping[str, Noted]) -> Iterator[list[Seen]]:
        """What this process sees of its share of the items, batch by batch."""
        members = {name: self.members(name) for name in {item.domain for item in items}}
        look = partial(look_at, before=before, noted=noted, viewing=self.viewing, members=members)
        mine = items[self.processes.share(len(items))]
        with evaluating(self.encoder, self.device):
            for results in read_ahead(mine, look, self.batch_size, self.workers):
                yield self._embedded(results, members)

    def _all(self, mine: Iterator[list[Seen]]) -> list[Seen]:
        """The next batch of all processes, in the order of the items."""
        if self.processes.count == 1:
            return next(mine)
        self.processes.first(Next)
        parts = [_whole(part) for part in self.processes.to_first(_next(mine))]
        return [seen for turn in zip_longest(*parts) for seen in turn if seen is not None]

    def _rows(self, fresh: Sequence[Fresh], members: Mapping[str, Members | None]) -> Tensor:
        """(n, D) of files that fit one batch."""
        seen, own = np.stack([item.view for item in fresh]), [members[item.image.domain] for item in fresh]
        if not self.encoder.config.domains:
            return encode(self.encoder, seen, self.device, self.precision)
        domain = torch.tensor([part.number for part in own if part is not None], device=self.device)
        return encode(lambda views: self.encoder.placed(views, domain).rows, seen, self.device, self.precision)

    def _embedded(self, results: Sequence[Seen | Fresh], members: Mapping[str, Members | None]) -> list[Seen]:
        fresh = [result for result in results if isinstance(result, Fresh)]
        if not fresh:
            return [result for result in results if not isinstance(result, Fresh)]
        step = max(1, self.batch_size // max(1, len(self.viewing.names)))
        rows = torch.cat([self._rows(fresh[start : start + step], members) for start in range(0, len(fresh), step)])
        if not bool(rows.isfinite().all()):
            raise UcdirError(f"the encoder gives NaN or infinity, for example for '{fresh[0].image.path}'. Train it again.")
        found = iter(rows.numpy())
        return [Embedded(result.image, next(found)) if isinstance(result, Fresh) else result for result in results]


def looker_of(
    encoder: Encoder,
    device: str,
    precision: str,
    batch_size: int,
    workers: int,
    processes: Processes,
    as_domain: str | None = None,
    views: int | None = None,
) -> Looker:
    """This process as one that looks, with the device and the precision called so; UsageError, told once, for others."""
    if views is not None and not encoder.config.views:
        raise UsageError(f"--views {views}: this encoder sees an image in one view. Leave --views out.")
    own = own_device(device, processes)
    exactness = processes.first(lambda: choose_precision(precision, own))
    return Looker(encoder, own, exactness, batch_size, workers, processes, as_domain, views)


def with_helpers(looker: Looker, work: Callable[[], Outcome]) -> Outcome:
    """Do `work` in the first process while the others help it to look at files; all get its outcome, or its error."""
    processes = looker.processes
    if processes.count == 1:
        return work()
    if processes.is_first:
        return processes.first(lambda: Done(work())).outcome
    mine: Iterator[list[Seen]] = iter(())
    while True:
        said: Task | Next | Done[Outcome] = processes.first(_unasked)
        if isinstance(said, Done):
            return said.outcome
        if isinstance(said, Task):
            mine = looker.share(said.items, Before(said.images, _no_rows), said.noted)
        else:
            processes.to_first(_next(mine))


def _unasked() -> Any:
    """What the first process says is never made by another."""
    raise AssertionError("only the first process knows this")


def _no_rows(positions: np.ndarray) -> np.ndarray:
    return np.empty((0, 0), np.float32)


def _next(mine: Iterator[list[Seen]]) -> list[Seen] | UcdirError:
    """The next batch, None if there is none, or the error that the first process is to raise."""
    try:
        return next(mine, [])
    except UcdirError as error:
        return error


def _whole(part: list[Seen] | UcdirError) -> list[Seen]:
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
    before: Before,
    noted: Mapping[str, Noted],
    viewing: Viewing,
    members: Mapping[str, Members | None],
) -> Known | Embedded | Fresh | ImageError:
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
        return _by_content(item, read_file(path), times, before, noted, viewing, members[item.domain])
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
    before: Before,
    noted: Mapping[str, Noted],
    viewing: Viewing,
    members: Members | None,
) -> Known | Embedded | Fresh:
    hashed = hashlib.sha256(content)
    digest = hashed.hexdigest()

    def entry(width: int, height: int) -> GalleryImage:
        path = item.path.absolute()
        return GalleryImage(path, item.domain, digest, width, height, len(content), item.class_name, *times)

    row = before.row_with(digest)
    there = None if row is None else before.image(row)
    if row is not None and there is not None and (members is None or there.domain == item.domain):
        return Known(entry(there.width, there.height), row)
    note = noted.get(digest)
    if note is not None and (members is None or note.domain == item.domain):
        return Known(entry(note.width, note.height), ~note.position)
    pixels = open_rgb(io.BytesIO(content))
    learned = None if members is None else members.remembered(hashed.digest())
    if learned is not None:
        return Embedded(entry(*pixels.size), learned.numpy())
    return Fresh(entry(*pixels.size), viewing(pixels, hashed.digest()))
