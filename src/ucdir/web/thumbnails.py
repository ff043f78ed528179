"""Small pictures, kept in memory up to a number of bytes: the ones asked for longest ago go first."""

import io
from collections import OrderedDict
from threading import Lock
from typing import BinaryIO

from PIL import Image

from ucdir.images.opening import decode

MAX_BYTES = 64 * 2**20
JPEG_SIDE = 65_535
QUALITY = 85
FULL_QUALITY = 95

FULL = 0
Key = tuple[str, int]
"""sha256 of an image and the longer side of its thumbnail, or FULL."""


class Thumbnails:
    """The cache. Safe in threads."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> bytes | None:
        """A picture that is kept; it counts as just asked for."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Key, content: bytes) -> None:
        """Keep a picture, unless it alone would take a quarter of the room."""
        if len(content) > self.max_bytes // 4:
            return
        with self._lock:
            self.size += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self.size > self.max_bytes:
                self.size -= len(self._kept.popitem(last=False)[1])


def make_thumbnail(file: BinaryIO, side: int) -> bytes:
    """A JPEG whose longer side is at most `side` pixels, never enlarged; ImageError if it is not an image."""
    pixels = decode(file).pixels
    pixels.thumbnail((side, side))
    return _saved(pixels, "JPEG", QUALITY)


def make_shown(file: BinaryIO) -> bytes:
    """A picture that every browser shows, in full size: a JPEG, or a PNG where a side is too long for that."""
    pixels = decode(file).pixels
    return _saved(pixels, "JPEG" if max(pixels.size) <= JPEG_SIDE else "PNG", FULL_QUALITY)


def _saved(pixels: Image.Image, kind: str, quality: int) -> bytes:
    content = io.BytesIO()
    pixels.save(content, kind, quality=quality)
    return content.getvalue()
