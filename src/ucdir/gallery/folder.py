"""A gallery in a folder: written whole, replaced in one step, memory-mapped for reading."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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
from ucdir.gallery.row_lookup import RowLookup
from ucdir.retrieval.exact_search import Neighbours, are_unit, nearest
from ucdir.retrieval.expansion import Neighbourhood
from ucdir.storage import atomic_folder, locked, restore_folder

FORMAT_VERSION = 1
PARTS = ("gallery.json", "embeddings.npy", "images.parquet")
ROWS_PER_BLOCK = 8192
OPENING_TRIES = 20


@dataclass(frozen=True)
class Gallery:
    """An indexed collection of G images, open for searching.

    embeddings  (G, D) float32 unit rows, memory-mapped
    images      G rows in the columns of `interface.SCHEMA`
    stamp       changes whenever the gallery is written
    """

    folder: Path
    info: GalleryInfo
    embeddings: np.ndarray
    images: pa.Table
    stamp: bytes

    def __len__(self) -> int:
        return self.info.count

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.absolute().name

    @cached_property
    def _lookup(self) -> RowLookup:
        try:
            return RowLookup(self.images["id"])
        except ValueError as error:
            raise _damaged(self.folder, f"images.parquet contains an invalid id ({error})") from error

    @cached_property
    def _ranks(self) -> np.ndarray:
        """(G,) int64 place of each row in the order of the ids."""
        ranks = np.empty(len(self), np.int64)
        ranks[pc.sort_indices(self.images["id"]).to_numpy()] = np.arange(len(self))
        return ranks

    @cached_property
    def _unit(self) -> bool:
        return are_unit(self.embeddings)

    def domains(self) -> dict[str, int]:
        """Domain -> number of its images, in the order in which they were indexed."""
        return {count["values"]: count["counts"] for count in self.images["domain"].value_counts().to_pylist()}

    def image(self, row: int) -> GalleryImage:
        """What is known of one row."""
        (record,) = self.images.slice(row, 1).to_pylist()
        return gallery_image(record)

    def find(self, wanted: str) -> GalleryImage | None:
        """The image with this id."""
        row = self._lookup.row(wanted)
        return None if row is None else self.image(row)

    def embedding(self, wanted: str) -> np.ndarray | None:
        """(D,) float32 unit row of the image with this id."""
        row = self._lookup.row(wanted)
        return None if row is None else np.array(self.embeddings[row])

    def rows_of(self, where: Where) -> np.ndarray | None:
        """(n,) rising rows that `where` lets through; None = all. UsageError if there are none."""
        if where == EVERYWHERE:
            return None
        domains, paths = self.images["domain"], self.images["path"]
        masks = [
            pc.and_(pc.equal(domains, domain), pc.starts_with(paths, prefix))
            for domain, prefix in path_prefixes(self.info, where)
        ]
        rows = np.flatnonzero(np.logical_or.reduce([mask.to_numpy() for mask in masks]))
        if len(rows) == 0:
            raise nothing_there(self.name, where)
        return rows

    def search(self, queries: np.ndarray, k: int, where: Where = EVERYWHERE) -> GalleryHits:
        """The k images most similar to each query: exact cosine, equal ones by id. See `interface.Engine.search`."""
        candidates = self.rows_of(where)
        near = self._nearest(queries, k, candidates)
        images = {row: self.image(row) for row in np.unique(near.rows).tolist()}
        hits = tuple(
            tuple(Hit(images[row], value) for row, value in zip(rows, values, strict=True))
            for rows, values in zip(near.rows.tolist(), near.similarity.tolist(), strict=True)
        )
        return GalleryHits(len(self) if candidates is None else len(candidates), hits)

    def neighbourhood(self, queries: np.ndarray, k: int, where: Where = EVERYWHERE) -> Neighbourhood:
        """The embeddings of what `search` finds."""
        near = self._nearest(queries, k, self.rows_of(where))
        return Neighbourhood(near.similarity, self.embeddings[near.rows])

    def _nearest(self, queries: np.ndarray, k: int, candidates: np.ndarray | None) -> Neighbours:
        if k < 1:
            raise UsageError(f"k={k}: expected 1 or more. Give --k 10, say.")
        return nearest(queries, self.embeddings, k, candidates, unit=self._unit, rank=lambda rows: self._ranks[rows])

    def current(self) -> "Gallery":
        """Itself, or the gallery reopened if it was written since."""
        return self if _stamp(self.folder) == self.stamp else Gallery.load(self.folder)

    @classmethod
    def load(cls, folder: Path) -> "Gallery":
        """Open a gallery folder; UcdirError if it is not one, is incomplete, damaged or too new.

        A gallery that is replaced while it is opened is opened again: all parts are always of one writing.
        """
        for _ in range(OPENING_TRIES):
            before = _stamp(folder)
            try:
                opened = _open(folder, before)
            except UcdirError:
                if _stamp(folder) == before:
                    raise
            else:
                if _stamp(folder) == before:
                    return opened
            time.sleep(0.05)
        raise UcdirError(f"gallery '{folder}' is being replaced again and again. Wait until it is written, then try again.")


@dataclass(frozen=True)
class GalleryFolder:
    """The folder that `index` writes a gallery to.

    overwrite  throw away a gallery that is there, whatever encoder made it; anything else is never touched
    """

    folder: Path
    overwrite: bool = False

    @property
    def journal(self) -> Path:
        """Beside the gallery, hidden."""
        return self.folder.parent / f".{self.folder.name}.journal"

    def lock(self) -> AbstractContextManager[None]:
        """Be the only writer, and tidy up after one that was killed."""
        return _sole_writer(self.folder)

    def check(self) -> None:
        """Refuse a place that holds anything but a gallery."""
        folder = self.folder
        if not folder.exists() and not folder.is_symlink():
            return
        if folder.is_dir() and ((folder / "gallery.json").is_file() or not any(folder.iterdir())):
            return
        raise UcdirError(f"'{folder}' exists and is not a gallery; not overwriting it. Give another --out.")

    def read(self) -> tuple[GalleryInfo, pa.Table, Rows] | None:
        """The existing gallery; None if there is none or it is to be replaced."""
        if self.overwrite or not (self.folder / "gallery.json").is_file():
            return None
        there = Gallery.load(self.folder)
        return there.info, there.images, lambda positions: np.array(there.embeddings[positions])

    def write(self, info: GalleryInfo, images: pa.Table, rows: Rows) -> None:
        """Replace the gallery in one step; a reader sees the old one or the new one."""
        self.check()
        with atomic_folder(self.folder) as draft:
            write_rows(draft / "embeddings.npy", rows, info.count, info.dim)
            pq.write_table(images, draft / "images.parquet")
            (draft / "gallery.json").write_text(to_json(info, FORMAT_VERSION), encoding="utf-8")


def write_rows(file: Path, rows: Rows, count: int, dim: int) -> None:
    """Write (count, dim) float32 as an .npy file, block by block."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": (count, dim)}
    with file.open("wb") as opened:  # not a memory map: a full disk would kill the process
        np.lib.format.write_array_header_1_0(opened, header)
        for start in range(0, count, ROWS_PER_BLOCK):
            block = rows(np.arange(start, min(start + ROWS_PER_BLOCK, count)))
            opened.write(np.ascontiguousarray(block, np.float32).tobytes())


@contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    with locked(folder, "being written by another ucdir index"):
        restore_folder(folder)
        yield


def _stamp(folder: Path) -> bytes:
    """Identifies the current version of the files, including damage done to them since; missing parts count as damage."""
    try:
        found = [(folder / part).stat() for part in PARTS]
    except OSError:
        return b""
    return repr([(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size) for status in found]).encode()


def _open(folder: Path, stamp: bytes) -> Gallery:
    _check_parts(folder)
    info = _read_info(folder)
    embeddings, images = _read_embeddings(folder), _read_images(folder)
    counts = {len(embeddings), images.num_rows, info.count}
    if len(counts) > 1 or embeddings.shape[1] != info.dim:
        raise _damaged(
            folder,
            f"gallery.json says {info.count} x {info.dim}, embeddings.npy has "
            f"{len(embeddings)} x {embeddings.shape[1]} and images.parquet {images.num_rows} rows",
        )
    return Gallery(folder, info, embeddings, images, stamp)


def _check_parts(folder: Path) -> None:
    if not folder.exists():
        raise UcdirError(f"gallery not found: '{folder}'. Make one with: ucdir index RUN DIR --out {folder}")
    missing = [part for part in PARTS if not (folder / part).is_file()]
    if len(missing) == len(PARTS) or "gallery.json" in missing:
        raise UcdirError(f"'{folder}' is not a gallery folder: it has no gallery.json. Give one that ucdir index wrote.")
    if missing:
        raise _damaged(folder, f"{' and '.join(missing)} is missing")


def _read_info(folder: Path) -> GalleryInfo:
    try:
        text = (folder / "gallery.json").read_text(encoding="utf-8")
        return from_json(GalleryInfo, text, FORMAT_VERSION, f"gallery '{folder}'")
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"gallery.json is invalid ({error})") from error


def _read_embeddings(folder: Path) -> np.ndarray:
    try:
        embeddings = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy reads the header as a piece of Python
        raise _damaged(folder, f"embeddings.npy cannot be read ({error})") from error
    if not isinstance(embeddings, np.ndarray) or embeddings.ndim != 2 or embeddings.dtype != np.float32:
        raise _damaged(folder, "embeddings.npy is not a two-dimensional float32 array")
    return embeddings


def _read_images(folder: Path) -> pa.Table:
    try:
        images = pq.ParquetFile(folder / "images.parquet").read()
        images.validate(full=True)  # otherwise text that is not UTF-8 would be noticed only by the search that finds it
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise _damaged(folder, f"images.parquet cannot be read ({reason})") from error
    if not images.schema.equals(SCHEMA):
        raise _damaged(folder, f"images.parquet has other columns ({', '.join(images.schema.names)})")
    return images


def _damaged(folder: Path, reason: str) -> UcdirError:
    return UcdirError(
        f"gallery '{folder}' is damaged: {reason}. Index it again with: ucdir index ... --out {folder} --overwrite"
    )
