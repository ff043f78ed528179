"""Decoded pixels on disk, found by the content of the image file they come from. Needs no torch.

Runs and threads may share a folder: an entry is written under another name and renamed, and one that is truncated, foreign
or deleted is only a miss. What is in the cache never decides what is learned: a hit holds what would have been computed.
"""

import hashlib
import io
import math
import os
import re
import shutil
import struct
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from ucdir.errors import ImageError
from ucdir.images.opening import open_rgb, read_file
from ucdir.storage import user_cache

GIGABYTE = 10**9
MIN_CACHE_BYTES = GIGABYTE  # a limit below is not worth a cache
MAX_FREE_DIVISOR = 4  # at most this part of the free space
FORMAT = f"ucdir pixels 1, Pillow {PIL.__version__}"  # another Pillow may decode or scale a bit differently
HEADER = struct.Struct("<8s3I4xQ")  # magic, three lengths, sum of the 8-byte words
MAGIC = b"ucdirpx1"
FEATURES = "features"  # where embedding/backbone_features.py keeps what backbones gave, within the same limit
NAMES = re.compile(r"[0-9a-f]{38}|[0-9a-f]{40}\.safetensors")
DRAFTS = re.compile(r"\.([0-9a-f]{32}|[0-9a-f]{40}\.safetensors\.\w+)\.tmp")
ABANDONED = 3600.0  # seconds after which nobody writes a draft any more


def default_folder() -> Path:
    """Where pixels are cached if no folder is named."""
    return user_cache() / "pixels"


def open_cache(setting: str, limit_gb: float, log: Callable[[str], None]) -> "PixelCache | None":
    """The cache that `setting` asks for, and a sentence about it; None if it asks for none.

    setting     auto, none or a folder
    limit_gb    its size at most, but never more than a quarter of what is free, its own entries counted as free
    """
    if setting == "none":
        return None
    folder = default_folder() if setting == "auto" else Path(setting).expanduser().absolute()
    wanted = int(limit_gb * GIGABYTE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        cache = PixelCache(folder, wanted, log)
        share = (shutil.disk_usage(folder).free + cache.held) // MAX_FREE_DIVISOR
    except OSError as error:
        log(f"no pixel cache: cannot use '{folder}' ({error.strerror or error}); decoding images again each time.")
        return None
    limit = min(wanted, share)
    if limit < MIN_CACHE_BYTES:
        reason = (
            "data.cache_gb is below 1"
            if wanted < MIN_CACHE_BYTES
            else f"a quarter of the free space is {share / GIGABYTE:.1f} GB"
        )
        log(f"no pixel cache in '{folder}': {reason}, need at least 1 GB; decoding images again each time.")
        return None
    cache.limit = limit
    cache.make_room(0)
    lowered = " (a quarter of the free space)" if limit < wanted else ""
    log(f"pixel cache: '{folder}', at most {limit / GIGABYTE:.1f} GB{lowered}")
    return cache


class PixelCache:
    """Arrays (A, B, C) uint8 in 256 folders, one file each; a folder more for what backbones gave.

    folder    exists
    limit     bytes; entries that nobody has used since this object was made go, those used longest ago first, to make
              room for new ones. When only used ones are left, nothing is added any more.
    log       called once when writing fails; the run continues, nothing more is added
    """

    def __init__(self, folder: Path, limit: int, log: Callable[[str], None] = lambda sentence: None) -> None:
        self.folder = folder
        self.limit = limit
        self.log = log
        self.adding = True
        self._opened = time.time() - 1  # clocks of file systems are coarse
        self._lock = threading.Lock()
        self._contents: dict[tuple[str, int, int], bytes] = {}
        self._count()

    def pixels(self, path: Path, what: str, make: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
        """`make` of the image in a file, from disk if any run has made it before.

        what      tells apart what is made of the same image
        raises    ImageError, exactly as `open_rgb`; nothing is kept of an error
        """
        stamp = _stamp(path)
        known = self._contents.get(stamp) if stamp else None
        if known is not None:
            found = _load(self._entry(known, what))
            if found is not None:
                return found
        content, known = self._read(path, stamp)
        found = self.get(known, what)
        if found is not None:
            return found
        made = make(_decoded(path, content))
        self.put(known, what, made)
        return made

    def content(self, path: Path) -> bytes:
        """A digest of what is in a file, which is read unless this object has read it as it is now; raises ImageError."""
        stamp = _stamp(path)
        known = self._contents.get(stamp) if stamp else None
        return self._read(path, stamp)[1] if known is None else known

    def get(self, content: bytes, what: str) -> np.ndarray | None:
        """The array that an earlier `put` stored for the image with this digest, or None."""
        entry = self._entry(content, what)
        found = _load(entry)
        if found is not None:
            with suppress(OSError):
                os.utime(entry)
        return found

    def put(self, content: bytes, what: str, values: np.ndarray) -> None:
        """Keep an array (A, B, C) uint8 for the image with this digest, if there is room."""
        self._add(self._entry(content, what), values)

    def make_room(self, size: int) -> bool:
        """Whether `size` more bytes fit, after entries that are not in use have gone for them. If so, they count as held.

        Fewer than none are room given back.
        """
        with self._lock:
            return self._make_room(size, self._opened)

    def displace(self, size: int) -> bool:
        """Make room for data worth more than pixels: entries used in this run go too. Measures the folder again."""
        with self._lock:
            self._count()
            return self._make_room(size, math.inf)

    def _count(self) -> None:
        found = sorted(_entries(self.folder, self._opened))
        self.held = sum(size for _, size, _ in found)
        self._old = deque(found)

    def _make_room(self, size: int, before: float) -> bool:
        while self.held + size > self.limit and self._old:
            _, freed, entry = self._old.popleft()
            with suppress(OSError):
                if _last_use(entry) < before:
                    entry.unlink(missing_ok=True)
                    self.held -= freed
        fits = self.held + size <= self.limit
        self.held += size if fits else 0
        return fits

    def _read(self, path: Path, stamp: tuple[str, int, int] | None) -> tuple[bytes, bytes]:
        """What is in a file, and its digest."""
        content = read_file(path)
        known = hashlib.blake2b(content, digest_size=20).digest()
        if stamp:
            self._contents[stamp] = known
        return content, known

    def _entry(self, content: bytes, what: str) -> Path:
        name = hashlib.blake2b(content + f"{what}, {FORMAT}".encode(), digest_size=20).hexdigest()
        return self.folder / name[:2] / name[2:]

    def _add(self, entry: Path, pixels: np.ndarray) -> None:
        size = HEADER.size + pixels.nbytes
        if not self.adding or not self.make_room(size):
            return
        try:
            _write(entry, pixels)
        except OSError as error:
            self._stop(error, size)

    def _stop(self, error: OSError, size: int) -> None:
        with self._lock:
            self.held -= size
            told, self.adding = not self.adding, False
        if not told:
            reason = error.strerror or str(error)
            self.log(f"pixel cache: '{self.folder}' could not be written ({reason}); nothing more is added in this run.")


def _entries(folder: Path, now: float) -> Iterator[tuple[float, int, Path]]:
    """Time of last use, size and path of every entry. Drafts of killed runs are removed on the way."""
    for name in (*(f"{number:02x}" for number in range(256)), FEATURES):
        with suppress(FileNotFoundError), os.scandir(folder / name) as found:
            for file in found:
                with suppress(FileNotFoundError):
                    status = file.stat(follow_symlinks=False)
                    if NAMES.fullmatch(file.name):
                        yield status.st_mtime, status.st_size, Path(file.path)
                    elif DRAFTS.fullmatch(file.name) and status.st_mtime < now - ABANDONED:
                        Path(file.path).unlink()


def _last_use(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0  # another run made room


def _stamp(path: Path) -> tuple[str, int, int] | None:
    """What tells within one process that a file is still the one that was read."""
    try:
        status = path.stat()
    except OSError:
        return None  # reading it will say why
    return str(path), status.st_mtime_ns, status.st_size


def _decoded(path: Path, content: bytes) -> Image.Image:
    try:
        return open_rgb(io.BytesIO(content))
    except ImageError as error:
        raise type(error)(path, error.reason) from None


def _load(entry: Path) -> np.ndarray | None:
    """The array in a file, or None if it is not there or not whole."""
    try:
        with entry.open("rb", buffering=0) as file:
            content = np.empty(os.fstat(file.fileno()).st_size, np.uint8)
            read = file.readinto(content.data)
    except OSError:
        return None
    if read != content.size or content.size < HEADER.size:
        return None
    magic, *shape, total = HEADER.unpack_from(content.data)
    values = content[HEADER.size :]
    if magic != MAGIC or values.size != prod(shape) or _sum(values) != total:
        return None
    return values.reshape(shape)


def _write(entry: Path, pixels: np.ndarray) -> None:
    """Not flushed to the disk: a crash of the machine may leave zeros, which the sum in the header gives away."""
    entry.parent.mkdir(exist_ok=True)
    draft = entry.with_name(f".{uuid.uuid4().hex}.tmp")
    values = np.ascontiguousarray(pixels)
    try:
        with draft.open("wb", buffering=0) as file:
            for part in (HEADER.pack(MAGIC, *values.shape, _sum(values.reshape(-1))), values.data.cast("B")):
                while part:
                    part = part[file.write(part) :]
        draft.replace(entry)
    finally:
        draft.unlink(missing_ok=True)


def _sum(values: np.ndarray) -> int:
    """Of the 8-byte words, modulo 2**64; the last 1 to 7 bytes stay out."""
    return int(values[: values.size // 8 * 8].view("<u8").sum(dtype=np.uint64))
