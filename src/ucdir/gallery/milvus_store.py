"""The rows of galleries in a Milvus database, a local file or a server. Nothing else of ucdir talks to pymilvus.

Each gallery is a collection of its name. How it was made is recorded in one more collection, `ucdir_galleries`, for all
galleries of the database. A gallery has a head row there, replaced in one step when an `index` begins to write and when it
has ended, and rows with its text, which a head names by the stamp they share. (Values of a collection's properties would
not do: servers keep them where a megabyte is the limit, and a list of unreadable files can be longer.)
"""

import logging
import os
import re
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ucdir.documents import from_json, to_json
from ucdir.errors import UcdirError, UsageError

GALLERIES = "ucdir_galleries"
TOKEN = "UCDIR_MILVUS_TOKEN"
MAX_HITS = 16_384
TEXT_BYTES = 65_535
SLICE = 60_000
CONNECT_SECONDS, CALL_SECONDS, PUT_SECONDS, WAIT_SECONDS = 5.0, 20.0, 60.0, 900.0
FETCHED_AT_ONCE = 1_000
MESSAGE_BYTES = 8 << 20
ROW_BYTES = 1_000
FORMAT_VERSION = 2  # 1: with a column `position`


@dataclass(frozen=True)
class Head:
    """The state of a gallery.

    fingerprint  of the encoder whose embeddings are in its collection; "" while the collection is rebuilt
    writing      an index writes it, or was killed while it did
    stamp        of the last index that ended; "" = none did yet
    parts        rows that hold its text
    """

    fingerprint: str
    writing: bool
    stamp: str
    parts: int
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Address:
    """Where a database is.

    uri   a file that ends in .db, or http(s)://HOST:PORT, optionally with /DATABASE
    file  of Milvus Lite; None for a server
    """

    uri: str
    file: Path | None

    @classmethod
    def read(cls, uri: str) -> "Address":
        """Tell a file from a server; UsageError for anything else."""
        if re.match(r"(https?|tcp)://.|unix:.", uri):
            return cls(uri, None)
        if uri.endswith(".db") and "://" not in uri:
            return cls(uri, Path(uri))
        raise UsageError(f"'{uri}' is not a Milvus database. Give milvus:FILE.db (Milvus Lite) or milvus:http://HOST:19530.")

    def __str__(self) -> str:
        """For messages: without user and password."""
        if self.file is not None:
            return str(self.file)
        parts = urlsplit(self.uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def is_empty(self) -> bool:
        """A file that is not there yet; UcdirError when something else has its name."""
        if self.file is None:
            return False
        if self.file.is_file():
            raise UcdirError(
                f"'{self.file}' is a file, but Milvus Lite 3 keeps a database in a folder of that name. "
                "Give another name; databases of older versions must be indexed again."
            )
        if not self.file.exists():
            return True
        if not (self.file / "collections").is_dir() and any(self.file.iterdir()):
            raise UcdirError(f"'{self.file}' exists and is not a Milvus Lite database; not overwriting it. Give another file.")
        return False


class Milvus:
    """pymilvus's client, each call of which ends in time, and in one sentence when it fails."""

    def __init__(self, address: Address) -> None:
        """Connect; UcdirError within some five seconds when that is not possible."""
        self.address = address
        self._ready: set[str] = set()
        self._kinds, client = _pymilvus()
        uri = address.uri
        if address.file is not None:  # the server of Milvus Lite lives here, and logs the questions it does not know
            uri = str(address.file.absolute())
            logging.getLogger("grpc._server").setLevel(logging.CRITICAL + 1)
        try:
            self._client = client(uri, token=os.environ.get(TOKEN, ""), timeout=CONNECT_SECONDS)
        except Exception as error:  # whatever its servers, gRPC and files raise
            raise _no_connection(address, error) from error

    def __call__(self, method: str, *given: object, seconds: float = CALL_SECONDS, **named: object) -> Any:
        """Call a method of the client. A server that is silent for `seconds` is given up; Milvus Lite lives here and is not."""
        limit = seconds if self.address.file is None else WAIT_SECONDS
        try:
            return getattr(self._client, method)(*given, timeout=limit, **named)
        except Exception as error:
            raise _failed(self.address, error) from error

    def ready(self, name: str) -> bool:
        """Load a collection so that it can be searched; False if there is none."""
        if name not in self._ready:
            if not self("has_collection", name):
                return False
            self._load(name)
            self._ready.add(name)
        return True

    def _load(self, name: str) -> None:
        """Load a collection, with new indexes where Milvus Lite refuses those that a killed process left half-written."""
        try:
            self("load_collection", name, seconds=WAIT_SECONDS)
        except UcdirError:
            if self.address.file is None:
                raise
            self._index_anew(name)
            self("load_collection", name, seconds=WAIT_SECONDS)

    def _index_anew(self, name: str) -> None:
        """Make the indexes of a collection again; they hold nothing that its rows do not."""
        known = [self("describe_index", name, index) for index in self("list_indexes", name)]
        indexes = self._client.prepare_index_params()
        for index in known:
            metric = {} if index["metric_type"] == "NONE" else {"metric_type": index["metric_type"]}
            indexes.add_index(index["field_name"], index_type=index["index_type"], **metric)
        self("release_collection", name)
        while left := self("list_indexes", name):  # Milvus Lite drops all at once
            self("drop_index", name, left[0])
        self("create_index", name, indexes)

    def create(self, name: str, dim: int, texts: Sequence[str] = (), numbers: Mapping[str, str] | None = None) -> None:
        """Make an empty collection; one of that name that is `ready` goes.

        Columns: `id`, `embedding` (dim,), these texts, of which `class` may be absent, and numbers (name -> type).
        """
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", self._kinds.VARCHAR, is_primary=True, max_length=512)
        schema.add_field("embedding", self._kinds.FLOAT_VECTOR, dim=dim)
        for text in texts:
            schema.add_field(text, self._kinds.VARCHAR, max_length=TEXT_BYTES, nullable=text == "class")
        for number, kind in (numbers or {}).items():
            schema.add_field(number, self._kinds[kind])
        indexes = self._client.prepare_index_params()
        indexes.add_index("embedding", index_type="FLAT", metric_type="IP")
        if "domain" in texts:
            indexes.add_index("domain", index_type="INVERTED")
        if name in self._ready:
            self._ready.discard(name)
            self("drop_collection", name, seconds=WAIT_SECONDS)
        self(
            "create_collection",
            name,
            schema=schema,
            index_params=indexes,
            consistency_level="Strong",
            seconds=WAIT_SECONDS,
        )
        self._ready.add(name)


def collection_name(name: str) -> str:
    """`name` where it can be that of a collection; UsageError with one that can."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", name) and name != GALLERIES:
        return name
    better = re.sub(r"[^A-Za-z0-9_]", "_", Path(name).name)[:254].strip("_") or "gallery"
    better = better if re.match(r"[A-Za-z_]", better) and better != GALLERIES else f"gallery_{better}"
    raise UsageError(
        f"'{name}' cannot name a Milvus collection: use letters, digits and underscores, and do not start with a "
        f"digit, for example {better}."
    )


@dataclass(frozen=True)
class Store:
    """One gallery in a database."""

    milvus: Milvus
    name: str

    @classmethod
    def connect(cls, address: Address, name: str) -> "Store":
        """The gallery `name`, which need not be there. Connections last as long as the process."""
        return cls(_connected(address.file.absolute().as_posix() if address.file else address.uri), name)

    # what the gallery was made with

    def head(self) -> Head | None:
        """Its state; None when this database holds no such gallery of ucdir."""
        rows = self._texts([self.name])
        if not rows:
            return None
        return from_json(Head, rows[0], FORMAT_VERSION, f"gallery '{self.name}'")

    def text(self, head: Head) -> str | None:
        """What `finish` was given; None when a newer index has replaced it meanwhile."""
        slices = self._texts(self._parts(head))
        return "".join(slices) if len(slices) == head.parts else None

    def begin(self, head: Head) -> None:
        """Say that the gallery is being written. What `text` gives stays."""
        if not self.milvus.ready(GALLERIES):
            self.milvus.create(GALLERIES, 2, ["text"])
        self._put({self.name: to_json(replace(head, writing=True), FORMAT_VERSION)})

    def finish(self, head: Head, text: str) -> None:
        """Everything is written: let readers see it, in one step."""
        slices = [text[start : start + SLICE] for start in range(0, len(text), SLICE)]
        done = Head(head.fingerprint, False, uuid.uuid4().hex, len(slices))
        self._put(dict(zip(self._parts(done), slices, strict=True)))
        self._put({self.name: to_json(done, FORMAT_VERSION)})
        self.forget(head)

    def forget(self, head: Head) -> None:
        """Remove the text of a head that is replaced."""
        if head.parts:
            self.milvus("delete", GALLERIES, ids=self._parts(head))

    def galleries(self) -> list[str]:
        """Names of all galleries of ucdir in this database."""
        if not self.milvus.ready(GALLERIES):
            return []
        rows = self.milvus("query", GALLERIES, filter='id != ""', output_fields=["id"])
        return sorted(row["id"] for row in rows if "/" not in row["id"])

    def _parts(self, head: Head) -> list[str]:
        return [f"{self.name}/{head.stamp}/{part}" for part in range(head.parts)]

    def _put(self, texts: Mapping[str, str]) -> None:
        rows = [{"id": key, "embedding": [1.0, 0.0], "text": text} for key, text in texts.items()]
        for row in rows:
            self.milvus("upsert", GALLERIES, [row], seconds=PUT_SECONDS)

    def _texts(self, keys: Sequence[str]) -> list[str]:
        """Texts of these rows, in order, without those that are not there."""
        if not keys or not self.milvus.ready(GALLERIES):
            return []
        rows = [self.milvus("query", GALLERIES, filter=one_of([key]), output_fields=["id", "text"]) for key in keys]
        return [row["text"] for found in rows for row in found]

    # its images

    def exists(self) -> bool:
        """Whether a collection of its name exists, whatever program made it; it is then ready to be searched."""
        return self.milvus.ready(self.name)

    def create(self, dim: int) -> None:
        """Make its collection, empty; one that is there goes."""
        self.exists()
        numbers = dict.fromkeys(("width", "height"), "INT32")
        numbers |= dict.fromkeys(("bytes", "mtime_ns", "ctime_ns"), "INT64")
        self.milvus.create(self.name, dim, ["path", "domain", "sha256", "class"], numbers)

    def count(self, which: str = "") -> int:
        """Number of images that a filter lets through."""
        if which and self.milvus.address.file is not None:  # Milvus Lite would build all rows in memory to count them
            return sum(len(page) for page in self.pages(["id"], which))
        (row,) = self.milvus("query", self.name, filter=which, output_fields=["count(*)"])
        return int(row["count(*)"])

    def pages(self, columns: Sequence[str], which: str = "") -> Iterator[list[dict[str, Any]]]:
        """All images that a filter lets through, some thousands at a time, in no order."""
        size = 50_000 if self.milvus.address.file is not None else 6_000
        pages = self.count() // size + 1
        starts = [f"{page * 16**8 // pages:08x}" for page in range(pages)]  # ids are spread evenly
        for start, stop in zip(starts, [*starts[1:], "g"], strict=True):
            part = f'id >= "{start}" and id < "{stop}"'
            whole = f"{part} and ({which})" if which else part
            yield list(self.milvus("query", self.name, filter=whole, output_fields=list(columns)))

    def fetch(self, ids: Sequence[str], columns: Sequence[str] = ()) -> tuple[list[dict[str, Any]], np.ndarray]:
        """The images with these ids, if present, in no particular order: n records and (n, D) float32."""
        records: list[dict[str, Any]] = []
        rows: list[np.ndarray] = []
        for start in range(0, len(ids), FETCHED_AT_ONCE):
            which = one_of(ids[start : start + FETCHED_AT_ONCE])
            found = self.milvus("query", self.name, filter=which, output_fields=["id", *columns, "embedding"])
            rows += [np.array([record.pop("embedding") for record in found], np.float32)] if found else []
            records += found
        return records, np.concatenate(rows) if rows else np.empty((0, 0), np.float32)

    def nearest(self, queries: np.ndarray, limit: int, which: str = "") -> list[list[str]]:
        """Ids of the `limit` images with the largest inner product to each of (Q, D) float32, best first."""
        found = self.milvus(
            "search",
            self.name,
            data=list(queries),
            anns_field="embedding",
            limit=limit,
            filter=which,
            search_params={"metric_type": "IP"},
        )
        return [[hit["id"] for hit in hits] for hits in found]

    def put(self, records: Sequence[Mapping[str, object]], rows: np.ndarray) -> None:
        """Add images, or replace those with the same id. rows (n, D) float32."""
        given = [{**record, "embedding": row} for record, row in zip(records, rows, strict=True)]
        self.milvus("upsert", self.name, given, seconds=PUT_SECONDS)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove the images with these ids."""
        for start in range(0, len(ids), FETCHED_AT_ONCE):
            self.milvus("delete", self.name, ids=list(ids[start : start + FETCHED_AT_ONCE]), seconds=PUT_SECONDS)

    def settle(self) -> None:
        """Let the database lay out for searching what was put into it."""
        self.milvus("flush", self.name, seconds=WAIT_SECONDS)


def rows_at_once(dim: int) -> int:
    """How many images to send in one message."""
    return max(1, MESSAGE_BYTES // (4 * dim + ROW_BYTES))


def literal(text: str) -> str:
    """`text` as a string of a filter expression."""
    for sign, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(sign, escaped)
    return f'"{text}"'


def one_of(ids: Sequence[str]) -> str:
    """The filter for these ids."""
    return f"id in [{', '.join(map(literal, ids))}]"


def below(domain: str, prefix: str) -> str:
    """The filter for the images of a domain whose path starts with `prefix`, which is "" or ends in a slash.

    A range of paths instead of LIKE: what escapes % and _ differs between versions.
    """
    ours = f"domain == {literal(domain)}"
    if not prefix:
        return ours
    after = f"{prefix[:-1]}{chr(ord('/') + 1)}"
    return f"({ours} and path >= {literal(prefix)} and path < {literal(after)})"


@cache
def _connected(uri: str) -> Milvus:
    return Milvus(Address.read(uri))


def _pymilvus() -> tuple[Any, Any]:
    """The column types and the client of pymilvus, which says nothing on stderr."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pymilvus import DataType, MilvusClient
    except ImportError as error:
        raise UcdirError(f"pymilvus is not installed ({error}). Run: pip install 'ucdir[milvus]'.") from error
    for name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite"):  # what they log is raised as well
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return DataType, MilvusClient


def _no_connection(address: Address, error: Exception) -> UcdirError:
    if address.file is not None:
        return _no_file(address.file, error)
    if _grpc_code(error) in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return _refused(address)
    return UcdirError(
        f"no Milvus server answers at '{address}' ({_reason(error)}). Start it, or give the address of its gRPC port, "
        "often 19530."
    )


def _no_file(file: Path, error: Exception) -> UcdirError:
    """Open the file once more without pymilvus, which keeps the reason to itself."""
    try:
        from milvus_lite.db import DataDirLockedError, MilvusLite
    except ImportError:
        return UcdirError(f"milvus-lite 3 is needed for '{file}'. Run: pip install 'ucdir[milvus]', or use a Milvus server.")
    try:
        MilvusLite(str(file)).close()
    except DataDirLockedError:
        return UcdirError(
            f"'{file}' is open in another process, and Milvus Lite serves one at a time. "
            "Wait until it has finished, stop it if it is ucdir serve, or use a Milvus server."
        )
    except Exception as reason:
        error = reason
    return UcdirError(f"Milvus Lite cannot open '{file}' ({_reason(error)}). Index into another file.")


def _failed(address: Address, error: Exception) -> UcdirError:
    code = _grpc_code(error)
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return _refused(address)
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return UcdirError(f"the Milvus server at '{address}' no longer answers. Check that it is running, then try again.")
    return UcdirError(f"Milvus at '{address}' refused: {_reason(error)}. See its log, or index into another database.")


def _refused(address: Address) -> UcdirError:
    return UcdirError(f"the Milvus server at '{address}' refuses the token. Give its token, or USER:PASSWORD, in {TOKEN}.")


def _grpc_code(error: BaseException | None) -> str:
    """Name of the first gRPC status among the causes of an error, or ""."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:  # pymilvus makes errors that are their own cause
        code: Any = getattr(error, "code", None)
        code = code() if callable(code) else code
        if hasattr(code, "name"):
            return str(code.name)
        seen.append(error)
        error = error.__cause__
    return ""


def _reason(error: Exception) -> str:
    """The first line of what went wrong."""
    lines = str(getattr(error, "message", "") or error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
