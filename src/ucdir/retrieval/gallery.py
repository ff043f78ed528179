"""A gallery: the folder in which indexed images wait to be searched."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ucdir.errors import ImageError, UcdirError, UsageError
from ucdir.storage import atomic_folder

FORMAT_VERSION = 1
PARTS = ("gallery.json", "embeddings.npy", "images.parquet")
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("class", pa.string()),
    ]
)


@dataclass(frozen=True)
class GalleryImage:
    """One indexed image, as it was when it was indexed.

    sha256         hex digest of the file
    width, height  pixels, upright
    class_name     where the source had classes; never used to search
    """

    path: Path
    domain: str
    sha256: str
    width: int
    height: int
    bytes: int
    class_name: str | None


@dataclass(frozen=True)
class Hit:
    """One answer: gallery image `row`, with its cosine similarity in [-1, 1]."""

    path: Path
    domain: str
    similarity: float
    row: int


@dataclass(frozen=True)
class QueryHits:
    """The answers to one query image, best first."""

    query: Path
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class SearchResult:
    """The answers to all query images, in the order of their paths.

    gallery     the folder searched
    size        images in it that were looked at
    unreadable  query images that were skipped
    """

    gallery: Path
    size: int
    queries: tuple[QueryHits, ...]
    unreadable: tuple[ImageError, ...]


@dataclass(frozen=True)
class GalleryInfo:
    """gallery.json: what the gallery was made with.

    fingerprint   of the encoder whose embeddings lie here; no other encoder's queries mean anything to them
    encoder_path  where that encoder lay
    created       UTC, ISO 8601
    unreadable    files that were skipped: {"path", "domain", "reason"}
    """

    fingerprint: str
    encoder_path: str
    dim: int
    count: int
    created: str
    unreadable: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Gallery:
    """An indexed collection of G images.

    embeddings  (G, D) float32 unit rows, memory-mapped
    images      G rows of path, domain, sha256, width, height, bytes and class
    """

    folder: Path
    info: GalleryInfo
    embeddings: np.ndarray
    images: pa.Table

    def __len__(self) -> int:
        return self.info.count

    def image(self, row: int) -> GalleryImage:
        """What is known of one row."""
        (record,) = self.images.slice(row, 1).to_pylist()
        class_name = record.pop("class")
        return GalleryImage(**{**record, "path": Path(record["path"])}, class_name=class_name)

    def domains(self) -> dict[str, int]:
        """Domain name -> number of its images, in the order in which they were indexed."""
        return {count["values"]: count["counts"] for count in self.images["domain"].value_counts().to_pylist()}

    def rows_of(self, domain: str) -> Tensor:
        """(n,) rising rows of one domain; UsageError naming the domains there are when it is none of them."""
        rows = np.flatnonzero(np.asarray(self.images["domain"]) == domain)
        if len(rows) == 0:
            names = ", ".join(f"'{name}'" for name in self.domains())
            raise UsageError(
                f"gallery '{self.folder}' has no domain '{domain}': it holds {names}. Give one of them to --domain."
            )
        return torch.from_numpy(rows)

    def require_encoder(self, fingerprint: str, encoder: Path) -> None:
        """Refuse an encoder other than the one this gallery was indexed with."""
        if fingerprint != self.info.fingerprint:
            raise UcdirError(
                f"gallery '{self.folder}' was indexed with encoder {self.info.fingerprint[:8]}..., but "
                f"'{encoder}' is "
                f"{fingerprint[:8]}.... Run: ucdir index {encoder} DIR --out {self.folder} --overwrite"
            )

    @classmethod
    def create(
        cls,
        folder: Path,
        embeddings: Tensor,
        images: Sequence[GalleryImage],
        fingerprint: str,
        encoder_path: Path,
        unreadable: Sequence[Mapping[str, str]] = (),
        overwrite: bool = False,
    ) -> "Gallery":
        """Write a gallery folder, whole or not at all, and load it.

        embeddings  (G, D) unit rows of `images`, in their order
        overwrite   an existing gallery is replaced; anything else at `folder` never is
        """
        check_place(folder, overwrite)
        if len(embeddings) == 0 or len(embeddings) != len(images):
            raise UcdirError(
                f"gallery '{folder}' would hold {len(embeddings)} embeddings for {len(images)} images. Give one of each."
            )
        info = GalleryInfo(
            fingerprint=fingerprint,
            encoder_path=str(encoder_path.absolute()),
            dim=embeddings.shape[1],
            count=len(images),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            unreadable=tuple(unreadable),
        )
        with atomic_folder(folder) as draft:
            np.save(draft / "embeddings.npy", embeddings.cpu().float().numpy())
            pq.write_table(_table(images), draft / "images.parquet")
            document = json.dumps({"format_version": FORMAT_VERSION, **asdict(info)}, indent=2, ensure_ascii=False)
            (draft / "gallery.json").write_text(document + "\n", encoding="utf-8")
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> "Gallery":
        """Open a gallery folder; UcdirError when it is none, incomplete, damaged or too new."""
        _check_parts(folder)
        info = _read_info(folder)
        embeddings, images = _read_embeddings(folder), _read_images(folder)
        counts = {len(embeddings), images.num_rows, info.count}
        if len(counts) > 1 or embeddings.shape[1] != info.dim:
            raise _damaged(
                folder,
                f"gallery.json tells of {info.count} x {info.dim}, embeddings.npy holds "
                f"{len(embeddings)} x {embeddings.shape[1]} and images.parquet {images.num_rows} rows",
            )
        return cls(folder, info, embeddings, images)


def check_place(folder: Path, overwrite: bool) -> None:
    """Refuse to write a gallery over anything but a gallery, and over that only when asked to."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not (folder / "gallery.json").is_file():
        if folder.is_dir() and not any(folder.iterdir()):
            return
        raise UcdirError(f"'{folder}' exists and is no gallery, so it is left alone. Give another place to --out.")
    if not overwrite:
        raise UcdirError(f"gallery '{folder}' exists. Add --overwrite to replace it, or give another place to --out.")


def describe(content: bytes, path: Path, domain: str, class_name: str | None, size: tuple[int, int]) -> GalleryImage:
    """The entry of an image file with these bytes; `size` is its width and height in pixels."""
    digest = hashlib.sha256(content).hexdigest()
    return GalleryImage(path.absolute(), domain, digest, *size, len(content), class_name)


def unreadable_entry(error: ImageError, domain: str) -> dict[str, str]:
    """How a skipped image is listed in gallery.json."""
    return {"path": str(Path(error.path).absolute()), "domain": domain, "reason": error.reason}


def _table(images: Sequence[GalleryImage]) -> pa.Table:
    columns = {
        "path": [str(image.path) for image in images],
        "domain": [image.domain for image in images],
        "sha256": [image.sha256 for image in images],
        "width": [image.width for image in images],
        "height": [image.height for image in images],
        "bytes": [image.bytes for image in images],
        "class": [image.class_name for image in images],
    }
    return pa.table(columns, schema=SCHEMA)


def _check_parts(folder: Path) -> None:
    if not folder.exists():
        raise UcdirError(f"gallery not found: '{folder}'. Make one with: ucdir index RUN DIR --out {folder}")
    missing = [part for part in PARTS if not (folder / part).is_file()]
    if len(missing) == len(PARTS) or "gallery.json" in missing:
        raise UcdirError(f"'{folder}' is no gallery folder: it has no gallery.json. Give one that ucdir index wrote.")
    if missing:
        raise _damaged(folder, f"{' and '.join(missing)} is missing")


def _read_info(folder: Path) -> GalleryInfo:
    try:
        content: dict[str, Any] = json.loads((folder / "gallery.json").read_text(encoding="utf-8"))
        version = int(content.pop("format_version"))
        if version > FORMAT_VERSION:
            raise UcdirError(f"gallery '{folder}' has format {version}, this ucdir reads up to {FORMAT_VERSION}. Update ucdir.")
        return GalleryInfo(**{**content, "unreadable": tuple(content["unreadable"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"gallery.json is not as written ({error})") from error


def _read_embeddings(folder: Path) -> np.ndarray:
    try:
        embeddings = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder, f"embeddings.npy cannot be read ({error})") from error
    if not isinstance(embeddings, np.ndarray) or embeddings.ndim != 2 or embeddings.dtype != np.float32:
        raise _damaged(folder, "embeddings.npy is no two-dimensional float32 array")
    return embeddings


def _read_images(folder: Path) -> pa.Table:
    try:
        images = pq.read_table(folder / "images.parquet")
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
