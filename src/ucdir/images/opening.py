"""The only place that opens an image file. Whatever it holds, the answer is RGB pixels or an ImageError."""

import contextlib
import errno
import io
import logging
import os
import re
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from ucdir.errors import ImageError, TooManyPixels

MAX_PIXELS = 89_000_000  # below the number at which Pillow itself starts to warn
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}
STRANGERS = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<?xml": "XML text",
    b"<svg": "an SVG drawing",
    b"%pdf": "a PDF document",
    b"version https://git-lfs": "a git-lfs pointer, the image itself was not fetched",
}
MAX_SCANS = 100  # as many as libtiff allows; encoders write some ten
MAX_COMMENTS = 100
JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
START_OF_SCAN, END_OF_IMAGE, WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)
AT_ONCE = 2**20  # deep values scaled at a time
PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class DecodedImage:
    """An image and what its content says it is, whatever its suffix."""

    pixels: Image.Image  # RGB, upright
    format: str  # one of FORMATS


@dataclass(frozen=True)
class ImageHeader:
    """What the beginning of an image file says: its format (one of FORMATS) and its pixels, before any EXIF turn."""

    format: str
    width: int
    height: int


def open_rgb(source: str | Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open one image as RGB, upright, fully loaded; the same file always gives the same pixels.

    source      a path, or an open binary file such as an upload (read from its current position)
    max_pixels  width x height above which the image is refused before any pixel is decoded
    raises      ImageError with a short reason, TooManyPixels among them; nothing else

    Transparency is laid on white, an animation gives its first frame, an embedded colour profile is ignored.
    16-bit values 0..65535 are scaled to 0..255. Wider values (32-bit, floating point) have no agreed white:
    the values decide. If all are in 0..1 (floating point only), 0..255 or 0..65535, that range is scaled to
    0..255; otherwise the range from the smallest to the largest finite value is.
    """
    return decode(source, max_pixels).pixels


def decode(source: str | Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """`open_rgb`, and the format found."""
    name = _shown_name(source)
    try:
        with _opened(source) as file:
            _quieten_pillow()
            return _decode(file, max_pixels)
    except ImageError as error:
        raise type(error)(name, error.reason) from None
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise ImageError(name, _plain_reason(error)) from error


def read_header(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """What an image says it is, without decoding it.

    file     seekable, at its start
    raises   ImageError, also when it has more than max_pixels
    """
    try:
        _quieten_pillow()
        image = _identify(file, max_pixels)
        return ImageHeader(image.format or "", *image.size)
    except ImageError as error:
        raise type(error)(_shown_name(file), error.reason) from None
    except Exception as error:  # as in `decode`
        raise ImageError(_shown_name(file), _plain_reason(error)) from error


def _shown_name(source: str | Path | BinaryIO) -> object:
    name = source if isinstance(source, str | Path) else getattr(source, "name", None)
    return name if isinstance(name, str | Path) else "upload"


@contextlib.contextmanager
def _opened(source: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    """A seekable file that is not empty."""
    if isinstance(source, str | Path):
        with _open_regular_file(Path(source)) as file:
            yield file
        return
    data = source.read()
    if not data:
        raise _refusal("empty file")
    yield io.BytesIO(data)


def read_file(path: Path) -> bytes:
    """The content of an image file, whatever it is; ImageError when it cannot be read or is empty."""
    try:
        with _open_regular_file(path) as file:
            return file.read()
    except ImageError as error:
        raise ImageError(path, error.reason) from None
    except (OSError, MemoryError) as error:
        raise ImageError(path, _plain_reason(error)) from error


def _open_regular_file(path: Path) -> BinaryIO:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise _refusal("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise _refusal("not a regular file")
        if status.st_size == 0:
            raise _refusal("empty file")
        return path.open("rb")
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise _refusal("broken link" if os.path.islink(path) else "file not found") from error  # noqa: PTH114
        if isinstance(error, PermissionError):
            raise _refusal("no permission to read it") from error
        raise _refusal(error.strerror or "cannot be read") from error


def _refusal(reason: str) -> ImageError:
    return ImageError("", reason)


def _quieten_pillow() -> None:
    """Keep Pillow's warnings about odd files off the terminal.

    `warnings.catch_warnings` swaps global state and is not safe in threads; one filter for Pillow's modules,
    put in front whenever it is not there, is.
    """
    if not warnings.filters or warnings.filters[0] != PILLOW_WARNINGS:
        warnings.filterwarnings("ignore", module=r"PIL\.")


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decode(file: BinaryIO, max_pixels: int) -> DecodedImage:
    image = _identify(file, max_pixels)
    image.load()
    turn = TURNS.get(_orientation(image))
    rgb = _to_rgb(image)
    rgb.info.clear()
    return DecodedImage(rgb if turn is None else rgb.transpose(turn), image.format or "")


def _identify(file: BinaryIO, max_pixels: int) -> Image.Image:
    """Read the header; refuse what is too large or has no pixels."""
    beginning = file.read(64)
    file.seek(0)
    _refuse_traps(file, beginning)
    try:
        image = Image.open(file, formats=_formats())
    except UnidentifiedImageError as error:
        raise _refusal(_what_it_is(beginning)) from error
    except Image.DecompressionBombError as error:
        pillows_limit = 2 * (Image.MAX_IMAGE_PIXELS or max_pixels)
        limit = min(max_pixels, pillows_limit)
        raise TooManyPixels("", f"far more pixels than the limit of {limit:,}") from error
    width, height = image.size
    if width < 1 or height < 1:
        raise _refusal(f"{width} x {height} pixels: there is nothing to see")
    if width * height > max_pixels:
        raise TooManyPixels("", f"{width} x {height} pixels is more than the limit of {max_pixels:,}")
    return image


def _refuse_traps(file: BinaryIO, beginning: bytes) -> None:
    """Refuse small files that keep a decoder busy for hours; leaves the file at its start."""
    if beginning.startswith(b"\xff\xd8") and _has_many_scans(file.read()):
        raise _refusal(f"damaged: it is a JPEG in more than {MAX_SCANS} scans")
    if beginning[:2] in (b"P1", b"P2", b"P3") and file.read().count(b"#") > MAX_COMMENTS:
        raise _refusal(f"damaged: it has more than {MAX_COMMENTS} comments")
    file.seek(0)


def _has_many_scans(data: bytes) -> bool:
    """Whether a JPEG has more than MAX_SCANS: each may be of ten bytes, and goes over all pixels once more."""
    at = scans = 0
    while scans <= MAX_SCANS and (marker := JPEG_MARKER.search(data, at)):
        at, kind = marker.end(), marker[1][0]
        if kind == END_OF_IMAGE:
            break
        if kind not in WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2])
        scans += kind == START_OF_SCAN
    return scans > MAX_SCANS


def _what_it_is(beginning: bytes) -> str:
    for sign, name in BEGINNINGS.items():
        if beginning.startswith(sign):
            return f"damaged: it begins like {name}, but the rest of the header is broken"
    if beginning[4:8] == b"ftyp":
        is_avif = beginning[8:12] in (b"avif", b"avis")
        return "damaged AVIF" if is_avif else "HEIC or a video; convert it to JPEG"
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    found = [name for sign, name in STRANGERS.items() if text.startswith(sign)]
    return f"not an image but {found[0]}" if found else "not an image"


def _orientation(image: Image.Image) -> int:
    """The EXIF turn, 1 = upright. Damaged EXIF data says nothing about the pixels and counts as upright."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_to_grey(image).convert("RGB")
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", image.size, "white")
    page.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return page


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise _refusal("its LAB colours cannot be converted")
    return converted


def _deep_to_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point values as 8-bit grey, by the rule in `open_rgb`."""
    sixteen_bit = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    values = np.asarray(image)
    low, high = (0.0, 65535.0) if sixteen_bit else _range(values, floating=image.mode == "F")
    grey, deep = np.empty(values.size, np.uint8), values.reshape(-1)
    for start in range(0, len(deep), AT_ONCE):  # float64 of all values at once would take 3 GB of the largest images
        scaled = (deep[start : start + AT_ONCE].astype(np.float64) - low) / (high - low)
        scaled = np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0)
        grey[start : start + AT_ONCE] = np.rint(scaled.clip(0, 1) * 255)
    return Image.fromarray(grey.reshape(values.shape))


def _range(values: np.ndarray, floating: bool) -> tuple[float, float]:
    """The values that become black and white."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    agreed = (1.0, 255.0, 65535.0) if floating else (255.0, 65535.0)
    if low >= 0 and high <= agreed[-1]:
        return 0.0, next(white for white in agreed if high <= white)
    return low, max(high, low + 1.0)


def _plain_reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "too large for the memory"
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return "truncated"
    return f"damaged: {text[:80]}" if text else "damaged"
