"""From what went wrong to a status and one sentence."""

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ucdir.errors import ImageError, TooManyPixels, UcdirError, UsageError
from ucdir.web.galleries import Unavailable
from ucdir.web.originals import Gone
from ucdir.web.uploads import Busy

BUSY_SECONDS = "1"
BROKEN_SECONDS = "10"

log = logging.getLogger("ucdir.web")


def refuse(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status, dict(headers) if headers else None)


async def _http(request: Request, error: HTTPException) -> JSONResponse:
    plain = {404: "there is nothing at this address.", 405: f"{request.method[:20]} is not for this address."}
    routing = error.status_code in plain and error.detail in ("Not Found", "Method Not Allowed")
    return refuse(error.status_code, plain[error.status_code] if routing else error.detail, error.headers)


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    place, message = first["loc"][-1], str(first["msg"])
    return refuse(422, f"'{place}': {message[:1].lower()}{message[1:]}.")


async def _unknown(request: Request, error: UsageError) -> JSONResponse:
    return refuse(404, str(error))


async def _too_many_pixels(request: Request, error: TooManyPixels) -> JSONResponse:
    return refuse(422, f"the image cannot be used: {error.reason}.")


async def _no_image(request: Request, error: ImageError) -> JSONResponse:
    return refuse(415, f"the image cannot be used: {error.reason}.")


async def _gone(request: Request, error: Gone) -> JSONResponse:
    return refuse(410, str(error))


async def _busy(request: Request, error: Busy) -> JSONResponse:
    return refuse(503, "too many searches at once. Try again in a second.", {"Retry-After": BUSY_SECONDS})


async def _unavailable(request: Request, error: Unavailable) -> JSONResponse:
    return refuse(503, str(error), {"Retry-After": BROKEN_SECONDS})


async def _broken(request: Request, error: UcdirError) -> JSONResponse:
    """Such a sentence may name folders of this machine: it is for the log."""
    log.error("%s", error)
    sentence = "the gallery or its encoder cannot be used at the moment; the log of the service says why."
    return refuse(503, sentence, {"Retry-After": BROKEN_SECONDS})


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    return refuse(500, "something went wrong in the service; see its log.")


ANSWERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    HTTPException: _http,
    RequestValidationError: _invalid,
    UsageError: _unknown,
    TooManyPixels: _too_many_pixels,
    ImageError: _no_image,
    Gone: _gone,
    Busy: _busy,
    Unavailable: _unavailable,
    UcdirError: _broken,
    Exception: _unforeseen,
}
"""Every error of ours, of the routing and of the validation -> {"detail": sentence}."""
