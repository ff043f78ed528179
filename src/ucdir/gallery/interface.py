"""Where a gallery lives: a folder on this machine (`Gallery`), or Milvus. Both answer the same questions."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from ucdir.errors import UcdirError, UsageError
from ucdir.retrieval.expansion import Neighbourhood

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("ctime_ns", pa.int64(), nullable=False),
        pa.field("class", pa.string()),
    ]
)
"""One row per image of a gallery, in the order of its embeddings."""

Rows = Callable[[np.ndarray], np.ndarray]
"""int64 positions (n,) of a table of images -> their embeddings (n, D) float32."""


@dataclass(frozen=True)
class GalleryImage:
    """One indexed image, as it was when it was indexed.

    sha256              hex digest of the file
    width, height       pixels, upright
    class_name          where the source had classes; never used to search
    mtime_ns, ctime_ns  of the file when it was read, to see at once that it is still the same; 0 = hash it again
    """

    path: Path
    domain: str
    sha256: str
    width: int
    height: int
    bytes: int
    class_name: str | None
    mtime_ns: int = 0
    ctime_ns: int = 0

    @property
    def id(self) -> str:
        """24 hex digits that stay the same as long as the domain and the path do, whatever the picture shows."""
        return image_id(self.domain, str(self.path))


@dataclass(frozen=True)
class Where:
    """Which images of a gallery to look at.

    domain  only this domain
    under   only images below this folder: absolute, or relative to the folder of each domain
    """

    domain: str | None = None
    under: str | None = None


EVERYWHERE = Where()


@dataclass(frozen=True)
class Hit:
    """One answer: a gallery image with its cosine similarity in [-1, 1].

    confidence  probability that it is such a thing as was looked for; None where the encoder has not learned that
    """

    image: GalleryImage
    similarity: float
    confidence: float | None = None


@dataclass(frozen=True)
class GalleryHits:
    """The answers to Q queries.

    searched    gallery images that were looked at
    hits        for each query its hits, best first
    confidence  for each query the probability that anything like it is there; None where the encoder has not learned that
    """

    searched: int
    hits: tuple[tuple[Hit, ...], ...]
    confidence: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class GalleryInfo:
    """What a gallery was made with.

    fingerprint       of the encoder that made the embeddings; queries of another encoder are meaningless here
    encoder_path      where that encoder was
    precision         float32 or bfloat16, in which the images were embedded last
    created, updated  UTC, ISO 8601
    sources           domain -> folder or manifest it was read from, absolute
    unreadable        files that were skipped: {"path", "domain", "reason"}
    seen_as           domain -> as what an encoder that knows domains saw its images, see `embedder.ImageEmbedder.seen_as`
    """

    fingerprint: str
    encoder_path: str
    precision: str
    dim: int
    count: int
    created: str
    updated: str
    sources: Mapping[str, str]
    unreadable: tuple[Mapping[str, str], ...]
    seen_as: Mapping[str, str] = field(default_factory=dict)

    def require_encoder(self, fingerprint: str, encoder: Path, gallery: str, engine_flag: str = "") -> None:
        """Refuse an encoder other than the one this gallery was indexed with. engine_flag: see `locate.engine_flag`."""
        if fingerprint != self.fingerprint:
            raise UcdirError(
                f"gallery '{gallery}' was indexed with encoder {self.fingerprint[:8]}..., but '{encoder}' is "
                f"{fingerprint[:8]}.... Run: ucdir index {encoder} DIR --out {gallery}{engine_flag} --overwrite"
            )


class Engine(Protocol):
    """An opened gallery. What it answers does not change while it is open; `current` sees updates."""

    @property
    def name(self) -> str:
        """Short, for people and addresses."""

    @property
    def info(self) -> GalleryInfo: ...

    def __len__(self) -> int: ...

    def domains(self) -> dict[str, int]:
        """Domain -> number of its images."""

    def search(self, queries: np.ndarray, k: int, where: Where = EVERYWHERE) -> GalleryHits:
        """The k images most similar to each query, best first, equal ones by id: no order of files or classes decides.

        queries   (Q, D) float32 unit rows
        k         >= 1; more than there is gives all
        raises    UsageError for an unknown domain, a folder without images, or k < 1
        """

    def neighbourhood(self, queries: np.ndarray, k: int, where: Where = EVERYWHERE) -> Neighbourhood:
        """The embeddings of what `search` finds."""

    def find(self, wanted: str) -> GalleryImage | None:
        """The image with this id."""

    def embedding(self, wanted: str) -> np.ndarray | None:
        """(D,) float32 unit row of the image with this id."""

    def current(self) -> "Engine":
        """Itself, or the gallery reopened if it was updated since."""


class GalleryWriter(Protocol):
    """Where `index` writes a gallery."""

    @property
    def journal(self) -> Path:
        """Folder for the embeddings of an unfinished `index`; survives its death."""

    def lock(self) -> AbstractContextManager[None]:
        """Be the only writer; UcdirError when there is another."""

    def check(self) -> None:
        """Refuse a place that holds something else, before any work is done."""

    def read(self) -> tuple[GalleryInfo, pa.Table, Rows] | None:
        """The existing gallery, with a table in `SCHEMA`; None if there is none yet."""

    def write(self, info: GalleryInfo, images: pa.Table, rows: Rows) -> None:
        """Put this gallery there instead of what `read` gave; `rows` takes positions of `images`."""


def image_id(domain: str, path: str) -> str:
    """See `GalleryImage.id`."""
    return blake2b(f"{domain}\0{path}".encode(), digest_size=12).hexdigest()


def image_table(images: Sequence[GalleryImage]) -> pa.Table:
    """Images as a table in `SCHEMA`."""
    columns = {
        "id": [image.id for image in images],
        "path": [str(image.path) for image in images],
        "class": [image.class_name for image in images],
    }
    same = [name for name in SCHEMA.names if name not in columns]
    columns |= {name: [getattr(image, name) for image in images] for name in same}
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def gallery_image(record: Mapping[str, object]) -> GalleryImage:
    """One row of such a table."""
    given = {name: value for name, value in record.items() if name not in ("id", "class")}
    return GalleryImage(**{**given, "path": Path(str(record["path"]))}, class_name=record["class"])  # type: ignore[arg-type]


def base_folder(source: str) -> Path:
    """The folder that relative folders of a domain count from: its source, or the folder of its manifest."""
    path = Path(source)
    return path.parent if path.suffix.lower() in (".csv", ".parquet") else path


def folder_of(image: GalleryImage, sources: Mapping[str, str]) -> str:
    """The folder of an image relative to its domain's, with slashes; "" at its top or outside of it."""
    source = sources.get(image.domain)
    folder = image.path.parent
    if source is None or not folder.is_relative_to(base_folder(source)):
        return ""
    relative = folder.relative_to(base_folder(source)).as_posix()
    return "" if relative == "." else relative


def path_prefixes(info: GalleryInfo, where: Where) -> list[tuple[str, str]]:
    """(domain, prefix of the paths to look at) for each domain that `where` lets through; UsageError when it names none."""
    if where.domain is not None and where.domain not in info.sources:
        there = ", ".join(f"'{name}'" for name in info.sources)
        raise UsageError(f"this gallery has no domain '{where.domain}', only {there}. Give one of those.")
    if where.under is not None and ".." in Path(where.under).parts:
        raise UsageError(f"folder '{where.under}' contains '..'. Give a folder within a domain.")
    names = [where.domain] if where.domain is not None else list(info.sources)
    return [(name, _prefix(info.sources[name], where.under)) for name in names]


def nothing_there(gallery: str, where: Where) -> UsageError:
    """For a part of a gallery that holds no image."""
    return UsageError(
        f"gallery '{gallery}' has no image below '{where.under or '.'}'"
        f"{f' in domain {where.domain!r}' if where.domain else ''}. Give a folder as it was called when indexed."
    )


def _prefix(source: str, under: str | None) -> str:
    """Of all paths of a domain below `under`; "" when every path counts."""
    if under is None or under.strip("/. ") == "":
        return ""
    return f"{(base_folder(source) / under).as_posix().rstrip('/')}/"
