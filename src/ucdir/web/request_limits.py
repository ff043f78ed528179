"""How much of a request is taken in, and for how long; a search form comes out, or a refusal."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import BinaryIO

from fastapi import HTTPException, Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ucdir.images.opening import MAX_PIXELS

MAX_K = 200
MAX_TEXT = 4096
TEXT_FIELDS = ("image_id", "gallery", "domain", "under", "k", "as", "expand", "min_confidence")
OVERHEAD = 64 * 1024
LINGER = 3.0
HANG_UP = {"Connection": "close"}
SHOWN = 80
NO_ROOM_SECONDS = "10"

log = logging.getLogger("ucdir.web")


MAX_EXPANDED = 200  # hits that a query may move toward


@dataclass(frozen=True)
class Limits:
    """What the service takes.

    max_bytes   of an uploaded image
    max_pixels  width x height of an uploaded image
    max_k       hits of one search
    seconds     in which a request must have arrived whole
    """

    max_bytes: int = 20_000_000
    max_pixels: int = MAX_PIXELS
    max_k: int = MAX_K
    seconds: float = 60.0


@dataclass(frozen=True)
class SearchForm:
    """One search as asked for: either `image` or `image_id` is there.

    image    the upload, at its start; it is closed with the form
    gallery  its name; None = the first
    as_domain  of the encoder's domains the one that the upload belongs to; None = the one it looks like
    expand     hits that the query moves toward before it is answered; None = what is best for the encoder
    min_confidence  hits that are less sure to be right are left out
    """

    image: BinaryIO | None
    image_id: str | None
    gallery: str | None
    domain: str | None
    under: str | None
    k: int
    as_domain: str | None = None
    expand: int | None = None
    min_confidence: float = 0.0
    close: Callable[[], None] = field(default=lambda: None, repr=False)


class WholeForm(MultiPartParser):
    """A parser that keeps little of a file in memory, and knows whether the last boundary has come."""

    spool_max_size = 256 * 1024
    ended = False

    def on_end(self) -> None:
        """The last boundary."""
        self.ended = True


class TooLarge(Exception):
    """More bytes than allowed have come."""


async def read_form(request: Request, limits: Limits) -> SearchForm:
    """Receive the form of POST /search; HTTPException with status 400, 408, 413, 415, 422 or 503 when it cannot be used."""
    stream = request.stream()
    try:
        _check_head(request.headers, limits)
        async with asyncio.timeout(limits.seconds):
            form = await _parse(request, _counted(stream, limits.max_bytes + OVERHEAD))
    except TooLarge:
        await _let_it_end(request, stream)
        raise _too_large(limits) from None
    except TimeoutError:
        sentence = f"the upload did not arrive within {limits.seconds:g} seconds. Send it again, or a smaller image."
        raise HTTPException(408, sentence, HANG_UP) from None
    except ClientDisconnect:
        raise HTTPException(400, "the upload broke off.") from None
    except HTTPException:
        await _let_it_end(request, stream)
        raise
    except OSError as error:
        log.error("an upload could not be kept: %s", error)
        await _let_it_end(request, stream)
        sentence = "the service has no room for uploads at the moment; its log says why."
        raise HTTPException(503, sentence, {"Retry-After": NO_ROOM_SECONDS, **HANG_UP}) from None
    except MultiPartException as error:
        await _let_it_end(request, stream)
        raise HTTPException(400, f"the form cannot be read: {_said(error.message)}", HANG_UP) from None
    try:
        return _search_form(form, limits)
    except BaseException:
        _close(form)
        raise


def _check_head(headers: Mapping[str, str], limits: Limits) -> None:
    kind = headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise HTTPException(
            415, f"'{_shown(kind)}' is not a form: send multipart/form-data with a field 'image' or 'image_id'.", HANG_UP
        )
    if _declared_length(headers) > limits.max_bytes + OVERHEAD:
        raise TooLarge


def _declared_length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0


async def _counted(stream: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    received = 0
    async for chunk in stream:
        received += len(chunk)
        if received > limit:
            raise TooLarge
        yield chunk


async def _parse(request: Request, stream: AsyncIterator[bytes]) -> FormData:
    parser = WholeForm(request.headers, stream, max_files=1, max_fields=len(TEXT_FIELDS))  # type: ignore[arg-type]
    parser.max_part_size = MAX_TEXT
    form = await parser.parse()
    if not parser.ended:
        _close(form)
        raise MultiPartException("it ends before its last boundary")
    return form


async def _let_it_end(request: Request, stream: AsyncIterator[bytes]) -> None:
    """Throw away what a client still sends, for a moment: one that is cut off while it sends never reads the refusal."""
    if "expect" in request.headers:
        return
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(LINGER):
            async for _ in stream:
                pass


def _search_form(form: FormData, limits: Limits) -> SearchForm:
    names = [name for name, _ in form.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise HTTPException(422, f"field '{_shown(name)}' is given twice. Give it once.")
        if name != "image" and name not in TEXT_FIELDS:
            raise HTTPException(422, f"field '{_shown(name)}' is unknown. Use image, {', '.join(TEXT_FIELDS)}.")
    texts = {name: _text(form, name) for name in TEXT_FIELDS}
    image = _image(form, limits)
    if (image is None) == (texts["image_id"] is None):
        given = "neither" if image is None else "both"
        raise HTTPException(422, f"{given} of image and image_id given: search with exactly one of them.")
    return SearchForm(
        image=image,
        image_id=texts["image_id"],
        gallery=texts["gallery"],
        domain=texts["domain"],
        under=_folder(texts["under"]),
        as_domain=texts["as"],
        expand=_expand(texts["expand"]),
        min_confidence=_fraction(texts["min_confidence"]),
        k=_count(texts["k"], limits.max_k),
        close=lambda: _close(form),
    )


def _text(form: FormData, name: str) -> str | None:
    """A text field; an empty one counts as not given."""
    value = form.get(name)
    if isinstance(value, UploadFile):
        raise HTTPException(422, f"field '{name}' is a file, expected text.")
    return value or None


def _image(form: FormData, limits: Limits) -> BinaryIO | None:
    value = form.get("image")
    if isinstance(value, str):
        raise HTTPException(422, "field 'image' is text, expected a file.")
    if value is None or (value.size == 0 and not value.filename):
        return None
    if (value.size or 0) > limits.max_bytes:
        raise _too_large(limits)
    return value.file


def _folder(text: str | None) -> str | None:
    if text is None:
        return None
    if text.startswith("/") or ".." in text.split("/") or "\0" in text:
        raise HTTPException(422, f"under '{_shown(text)}' is not a folder within a domain. Give one like 2019/march.")
    return text


def _count(text: str | None, most: int) -> int:
    if text is None:
        return min(24, most)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise HTTPException(422, f"k={_shown(text)}: expected a whole number from 1 to {most}.")
    return int(text)


def _expand(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) > MAX_EXPANDED:
        raise HTTPException(422, f"expand={_shown(text)}: expected a whole number from 0 to {MAX_EXPANDED}.")
    return int(text)


def _fraction(text: str | None) -> float:
    if text is None:
        return 0.0
    if not re.fullmatch(r"(0|1|[01]?\.[0-9]{1,6})", text) or float(text) > 1:
        raise HTTPException(422, f"min_confidence={_shown(text)}: expected a number from 0 to 1 like 0.5.")
    return float(text)


def _close(form: FormData) -> None:
    for value in form.values():
        if isinstance(value, UploadFile) and isinstance(value.file, SpooledTemporaryFile):
            value.file.close()


def _too_large(limits: Limits) -> HTTPException:
    return HTTPException(413, f"the image has more than {limits.max_bytes:,} bytes. Send a smaller one.", HANG_UP)


def _said(message: str) -> str:
    return f"{message[:1].lower()}{_shown(message[1:].rstrip('.'))}."


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
