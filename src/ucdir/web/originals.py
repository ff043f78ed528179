"""Files of gallery images: found by their entry in the gallery, and only while their content is what was indexed."""

import os
import stat
from collections.abc import Iterator
from hashlib import sha256
from typing import BinaryIO
from urllib.parse import quote

from ucdir.errors import UcdirError
from ucdir.gallery.interface import GalleryImage
from ucdir.images.opening import read_header

CHUNK_BYTES = 256 * 1024
BROWSER_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
}


class Gone(UcdirError):
    """A file that changed since the gallery was made."""


def open_indexed(image: GalleryImage) -> BinaryIO:
    """Open the file of a gallery image at its start; Gone when it is away, or its content another than was indexed."""
    try:
        handle = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError):
        raise Gone(f"'{image.path.name}' is gone. Run ucdir index again.") from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size != image.bytes:
        os.close(handle)
        raise _changed(image)
    file = os.fdopen(handle, "rb")
    try:
        if _digest(file, image.bytes) != image.sha256:
            raise _changed(image)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def is_untouched(image: GalleryImage) -> bool:
    """Whether the file system says that the file is as it was; False may also mean that it does not know."""
    try:
        status = image.path.stat()
    except (OSError, ValueError):
        return False
    seen = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return image.ctime_ns != 0 and seen == (image.bytes, image.mtime_ns, image.ctime_ns)


def require_indexed(image: GalleryImage) -> None:
    """`open_indexed` without the file, and without reading it where the file system vouches for it."""
    if not is_untouched(image):
        open_indexed(image).close()


def browser_type(file: BinaryIO) -> str | None:
    """Content type of an opened image that browsers show as it is, from its content; None for other images."""
    found = read_header(file).format
    file.seek(0)
    return BROWSER_TYPES.get(found)


def content_of(file: BinaryIO, image: GalleryImage) -> Iterator[bytes]:
    """Send an opened file piece by piece and close it; the last piece only when all of it is still what was indexed."""
    with file:
        digest, last, left = sha256(), b"", image.bytes
        while left and (chunk := file.read(min(CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
            if last:
                yield last
            last = chunk
        if digest.hexdigest() != image.sha256:
            raise _changed(image)
        yield last


def disposition(name: str) -> str:
    """Content-Disposition that shows a picture in the page and proposes its name for saving."""
    return f"inline; filename*=UTF-8''{quote(name, safe='')}"


def _digest(file: BinaryIO, expected: int) -> str:
    """Of a file, of which at most `expected` + 1 bytes are read."""
    digest, left = sha256(), expected + 1
    while left and (chunk := file.read(min(CHUNK_BYTES, left))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def _changed(image: GalleryImage) -> Gone:
    return Gone(f"'{image.path.name}' has changed since it was indexed. Run ucdir index again.")
