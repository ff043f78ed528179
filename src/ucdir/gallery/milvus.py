"""A gallery in Milvus: a database that outgrows one machine's memory, or that others use as well.

The collection has the columns of `interface.SCHEMA` and the embedding. Its index is FLAT: every embedding is compared, so the
answers are those of a gallery folder. That serves some millions of images; on a cluster beyond, drop the index of `embedding`
and make an HNSW one (with M = 16 some 140 bytes an image more in memory, and most of the exact answers) or IVF_FLAT (no more
memory, less exact), metric IP. Nothing here has to change for that.

Milvus has no transactions. An `index` writes only what differs, says before its first row that it writes and after its last
that it has ended. In between, opening the gallery is refused in a sentence; who has it open gets old and new images mixed.
An `index` that was killed is completed by the next one. Two must not write the same gallery at once: on one machine a lock
sees to that; from two machines nothing does.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ucdir.documents import from_json, to_json
from ucdir.errors import UcdirError, UsageError
from ucdir.gallery.interface import (
    EVERYWHERE,
    SCHEMA,
    GalleryHits,
    GalleryImage,
    GalleryInfo,
    Hit,
    Rows,
    Where,
    gallery_image,
    nothing_there,
    path_prefixes,
)
from ucdir.gallery.milvus_store import FORMAT_VERSION, MAX_HITS, Address, Head, Store, below, collection_name, rows_at_once
from ucdir.retrieval.exact_search import exact_rows
from ucdir.retrieval.expansion import Neighbourhood
from ucdir.storage import clear_write_errors, locked, user_cache

SPARE = 6
FLOAT32_ERROR = 4e-6
READING_TRIES = 5
ID = re.compile("[0-9a-f]{24}")


@dataclass(frozen=True)
class Contents:
    """What is known of a gallery: `domains` counts the images of each."""

    info: GalleryInfo
    domains: dict[str, int]


@dataclass(frozen=True)
class MilvusGallery:
    """A gallery in Milvus, open for searching.

    name    of its collection
    counts  domain -> number of its images, in the order in which they were indexed
    stamp   changes whenever an index ends
    """

    uri: str
    name: str
    info: GalleryInfo
    counts: Mapping[str, int]
    stamp: str
    store: Store

    def __len__(self) -> int:
        return self.info.count

    def domains(self) -> dict[str, int]:
        """Domain -> number of its images, in the order in which they were indexed."""
        return dict(self.counts)

    def find(self, wanted: str) -> GalleryImage | None:
        """The image with this id."""
        records, _ = self.store.fetch([wanted] if ID.fullmatch(wanted) else [], SCHEMA.names)
        return _image(records[0]) if records else None

    def embedding(self, wanted: str) -> np.ndarray | None:
        """(D,) float32 unit row of the image with this id."""
        _, rows = self.store.fetch([wanted] if ID.fullmatch(wanted) else [])
        return rows[0] if len(rows) else None

    def search(self, queries: np.ndarray, k: int, where: Where = EVERYWHERE) -> GalleryHits:
        """The k images most similar to each query: exact cosine, equal ones by id. See `interface.Engine.search`.

        Milvus picks candidates in float32, some more than k, and all that could equal the k-th; they are ranked by their
        cosines in float64. Where more than MOST_HITS images could, Milvus picks which of them are ranked.
        """
        if k < 1:
            raise UsageError(f"k={k}: expected 1 or more. Give --k 10, say.")
        which, searched = self._looked_at(where)
        k = min(k, searched)
        if k > MAX_HITS:
            raise UsageError(f"k={k}: Milvus finds {MAX_HITS} images at most. Give --k {MAX_HITS} or less.")
        most = min(searched, MAX_HITS)
        return GalleryHits(searched, tuple(self._search(queries, k, min(k + SPARE, most), most, which)))

    def neighbourhood(self, queries: np.ndarray, k: int, where: Where = EVERYWHERE) -> Neighbourhood:
        """The embeddings of what `search` finds."""
        found = self.search(queries, k, where).hits
        records, rows = self.store.fetch(sorted({hit.image.id for hits in found for hit in hits}))
        row_of = {record["id"]: row for row, record in enumerate(records)}
        there = [[hit for hit in hits if hit.image.id in row_of] for hits in found]
        least = min(map(len, there), default=0)  # fewer where an index removes images meanwhile
        which = np.array([[row_of[hit.image.id] for hit in hits[:least]] for hits in there])
        return Neighbourhood(np.array([[hit.similarity for hit in hits[:least]] for hits in there]), rows[which])

    def current(self) -> "MilvusGallery":
        """Itself, or the gallery reopened if an index has finished since."""
        head = self.store.head()
        if head is not None and (head.writing or head.stamp == self.stamp):
            return self
        return MilvusGallery.load(self.uri, self.name)

    def _search(self, queries: np.ndarray, k: int, limit: int, most: int, which: str) -> list[tuple[Hit, ...]]:
        """The k best of `limit` candidates for each query; of more where the last candidate is as good as the k-th."""
        at_once = max(1, MAX_HITS // limit)
        ranked: list[tuple[Hit, ...]] = []
        for start in range(0, len(queries), at_once):
            ranked += self._candidates(queries[start : start + at_once], limit, which)
        crowded = [row for row, hits in enumerate(ranked) if limit < most and _crowded(hits, k)]
        best = [hits[:k] for hits in ranked]
        if crowded:
            wider = self._search(queries[crowded], k, min(4 * limit, most), most, which)
            for row, hits in zip(crowded, wider, strict=True):
                best[row] = hits
        return best

    def _candidates(self, queries: np.ndarray, limit: int, which: str) -> Iterator[tuple[Hit, ...]]:
        """The candidates of Milvus for each query, ranked exactly."""
        near = self.store.nearest(queries, limit, which)
        records, rows = self.store.fetch(sorted({image for ids in near for image in ids}), SCHEMA.names)
        found = {record["id"]: number for number, record in enumerate(records)}
        names = np.array(list(found))
        images = [_image(record) for record in records]
        exact = exact_rows(rows.reshape(len(records), queries.shape[1]))
        for query, ids in zip(exact_rows(queries), near, strict=True):
            numbers = np.array([found[image] for image in ids if image in found], np.int64)
            similarity = (exact[numbers] @ query).clip(-1, 1)
            order = np.lexsort((names[numbers], -similarity))
            yield tuple(Hit(images[numbers[at]], float(similarity[at])) for at in order)

    def _looked_at(self, where: Where) -> tuple[str, int]:
        """The filter that lets through what `where` does, "" for all, and how many images it lets through."""
        if where == EVERYWHERE:
            return "", self.info.count
        prefixes = path_prefixes(self.info, where)
        which = " or ".join(below(domain, prefix) for domain, prefix in prefixes)
        whole = all(prefix == "" for _, prefix in prefixes)
        count = sum(self.counts.get(domain, 0) for domain, _ in prefixes) if whole else self._count(which)
        if count == 0:
            raise nothing_there(self.name, where)
        return which, count

    @cached_property
    def _count(self) -> Any:
        return lru_cache(maxsize=1024)(self.store.count)

    @classmethod
    def load(cls, uri: str, name: str) -> "MilvusGallery":
        """Open a gallery; UcdirError when the database or the gallery is not there, not whole, or too new.

        uri   a file that ends in .db (Milvus Lite), or http(s)://HOST:PORT of a server, its token in UCDIR_MILVUS_TOKEN
        name  of the collection
        """
        address = Address.read(uri)
        collection_name(name)
        if address.is_empty():
            raise _missing(uri, name, f"there is no '{address}'")
        store = Store.connect(address, name)
        head, text = _finished(store, uri)
        contents = _read_text(text, name)
        info = contents.info
        there = store.count() if store.exists() else 0
        if there != info.count:
            raise UcdirError(
                f"gallery '{name}' in '{address}' is damaged: it should have {info.count} images and has {there}. "
                "Run the same ucdir index again."
            )
        return cls(uri, name, info, contents.domains, head.stamp, store)


@dataclass(frozen=True)
class MilvusWriter:
    """The collection that `index` writes a gallery to; made when it is not there.

    uri, name   see `MilvusGallery.load`
    overwrite   throw away a gallery that is there, whatever encoder made it; other collections are never touched
    """

    uri: str
    name: str
    overwrite: bool = False

    @property
    def journal(self) -> Path:
        """Beside the file, hidden; for a server in the user's cache."""
        work = self._work
        return work.parent / f".{work.name}.{self.name}.journal"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer on this machine. From another one nobody must write the same gallery."""
        with locked(self._work, "being written by another ucdir index"):
            yield
            self._accept()

    def check(self) -> None:
        """Refuse a name, a file or a collection that cannot be a gallery."""
        collection_name(self.name)
        head = None if self._address.is_empty() else self._head()
        if head is not None and head.format_version < FORMAT_VERSION and not self.overwrite:
            raise UcdirError(
                f"gallery '{self.name}' in '{self._address}' was written by an earlier ucdir: it can be searched, but not "
                "updated. Run the same ucdir index with --overwrite."
            )

    def read(self) -> tuple[GalleryInfo, pa.Table, Rows] | None:
        """The existing gallery, including images that a killed index left; None if there is none or it is to be replaced."""
        if self.overwrite or self._address.is_empty():
            return None
        head = self._head()
        text = None if head is None else self._store.text(head)
        if not text or not self._store.exists():
            return None
        info = _read_text(text, self.name).info
        images = self._images()
        return replace(info, count=images.num_rows), images, self._rows_of(images)

    def write(self, info: GalleryInfo, images: pa.Table, rows: Rows) -> None:
        """Add what is new, replace what is different, remove what is gone; then the info, in one step."""
        self.check()
        store, old = self._store, self._head()
        fresh = self.overwrite or old is None or old.fingerprint != info.fingerprint or not store.exists()
        head = old if old is not None and not fresh else self._renewed(info, old)
        store.begin(head)
        there = self._images()
        new, changed = _difference(there, images)
        _put(store, images, new, info.dim, rows)
        with _aside(self.journal, changed, info.dim, rows) as kept:
            _put(store, images, changed, info.dim, kept)
        store.remove(there["id"].filter(pc.invert(pc.is_in(there["id"], images["id"]))).to_pylist())
        store.settle()
        store.finish(head, _text(info, images["domain"]))

    def _renewed(self, info: GalleryInfo, old: Head | None) -> Head:
        """Empty the collection, or make it; until that is done, its contents belong to no encoder."""
        self._store.begin(Head("", True, "", 0))
        self._store.create(info.dim)
        if old is not None:
            self._store.forget(old)
        return Head(info.fingerprint, True, "", 0)

    @property
    def _address(self) -> Address:
        return Address.read(self.uri)

    @property
    def _store(self) -> Store:
        return Store.connect(self._address, self.name)

    @property
    def _work(self) -> Path:
        """The path next to which the journal and the lock are."""
        address = self._address
        if address.file is not None:
            return address.file
        return user_cache() / f"milvus-{blake2b(str(address).encode(), digest_size=6).hexdigest()}-{self.name}"

    def _head(self) -> Head | None:
        """State of the gallery; None if there is none. UcdirError for a collection of another program."""
        head = self._store.head()
        if head is None and self._store.exists():
            raise _foreign(self._store, "Give another name to --out.")
        return head

    def _images(self) -> pa.Table:
        """The images that are there, by id."""
        parts = [pa.Table.from_pylist(page, SCHEMA) for page in self._store.pages(SCHEMA.names)]
        return pa.concat_tables(parts).combine_chunks().sort_by("id")

    def _rows_of(self, images: pa.Table) -> Rows:
        def rows(positions: np.ndarray) -> np.ndarray:
            ids = images["id"].take(pa.array(positions)).to_pylist()
            records, found = self._store.fetch(ids)
            at = {record["id"]: row for row, record in enumerate(records)}
            if not at.keys() >= set(ids):
                raise UcdirError(
                    f"gallery '{self.name}' in '{self._address}' was changed by another program meanwhile. Run again."
                )
            return found[np.array([at[image] for image in ids], np.int64)]

        return rows

    def _accept(self) -> None:
        """An index that ended well found nothing to write: what a killed one left is then the gallery."""
        head = None if self._address.is_empty() else self._store.head()
        text = self._store.text(head) if head is not None and head.writing else None
        if head is None or not text:
            return
        info = _read_text(text, self.name).info
        images = self._images()
        self._store.settle()
        self._store.finish(head, _text(replace(info, count=images.num_rows), images["domain"]))


def _difference(there: pa.Table, images: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """What to write so that `there` becomes `images`: rows of `images` that are new; rows that are there but different."""
    old = pc.index_in(images["id"], there["id"]).combine_chunks()
    known = old.is_valid().to_numpy(zero_copy_only=False)
    rows = old.fill_null(0).to_numpy()
    both = np.flatnonzero(known)
    before, after = there.take(pa.array(rows[both])), images.take(pa.array(both))
    differs = np.zeros(len(both), bool)
    for name in SCHEMA.names:
        one, other = before[name], after[name]
        unlike = pc.fill_null(pc.not_equal(one, other), True) if name != "class" else _unlike(one, other)
        differs |= unlike.to_numpy()
    return np.flatnonzero(~known), both[differs]


def _unlike(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where two columns differ, or one has a value and the other has none."""
    return pc.fill_null(pc.not_equal(one, other), pc.xor(pc.is_null(one), pc.is_null(other)))


def _put(store: Store, images: pa.Table, which: np.ndarray, dim: int, rows: Rows) -> None:
    """Send these rows of `images`, some at a time."""
    at_once = rows_at_once(dim)
    for start in range(0, len(which), at_once):
        part = which[start : start + at_once]
        store.put(images.take(pa.array(part)).to_pylist(), np.ascontiguousarray(rows(part), np.float32))


@contextmanager
def _aside(folder: Path, which: np.ndarray, dim: int, rows: Rows) -> Iterator[Rows]:
    """Copy embeddings to a file before the first is replaced: images may have exchanged theirs."""
    if len(which) == 0:
        yield rows
        return
    with clear_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as opened:
            for start in range(0, len(which), rows_at_once(dim)):
                opened.write(np.ascontiguousarray(rows(which[start : start + rows_at_once(dim)]), np.float32).tobytes())
            opened.flush()
            copy = np.memmap(opened, np.float32, "r", shape=(len(which), dim))
            yield lambda positions: np.array(copy[np.searchsorted(which, positions)])


def _crowded(hits: Sequence[Hit], k: int) -> bool:
    """Whether an image beyond these could be as similar as the k-th: Milvus compares in float32."""
    return len(hits) > 0 and hits[:k][-1].similarity - hits[-1].similarity < FLOAT32_ERROR


def _image(record: Mapping[str, object]) -> GalleryImage:
    return gallery_image({name: record[name] for name in SCHEMA.names})


def _text(info: GalleryInfo, domains: pa.ChunkedArray) -> str:
    """All that is known of a gallery, in ASCII: a slice of it takes as many bytes as it has characters."""
    counts = {count["values"]: count["counts"] for count in domains.value_counts().to_pylist()}
    return to_json(Contents(info, counts), FORMAT_VERSION, ensure_ascii=True)


def _read_text(text: str, name: str) -> Contents:
    return from_json(Contents, text, FORMAT_VERSION, f"gallery '{name}'")


def _finished(store: Store, uri: str) -> tuple[Head, str]:
    """Head and text of a gallery that no index is writing."""
    for _ in range(READING_TRIES):  # an index that ends between the two questions takes the text away
        head = store.head()
        if head is None:
            raise _no_gallery(store, uri)
        text = None if head.writing else store.text(head)
        if text is not None:
            return head, text
    raise UcdirError(
        f"gallery '{store.name}' in '{store.milvus.address}' is being written by an index, or one was killed while it wrote. "
        "Wait until it has finished, or run the same ucdir index again."
    )


def _no_gallery(store: Store, uri: str) -> UcdirError:
    there: Sequence[str] = store.galleries()
    if store.exists():
        return _foreign(store, f"Give one that ucdir index wrote{f': {_quoted(there)}' if there else ''}.")
    return _missing(uri, store.name, f"'{store.milvus.address}' holds {_quoted(there) if there else 'none'}")


def _foreign(store: Store, advice: str) -> UcdirError:
    return UcdirError(f"collection '{store.name}' in '{store.milvus.address}' was not made by ucdir; not changing it. {advice}")


def _missing(uri: str, name: str, there: str) -> UcdirError:
    engine = f"milvus:{Address.read(uri)}"
    return UcdirError(f"gallery '{name}' not found: {there}. Make one with: ucdir index RUN DIR --out {name} --engine {engine}")


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
