"""`ucdir serve`: search galleries from a browser or another program, until Ctrl-C."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ucdir.commands.command import command
from ucdir.commands.console import note
from ucdir.errors import UcdirError, UsageError
from ucdir.gallery.interface import Engine
from ucdir.gallery.locate import FOLDER, engine_flag, gallery_encoder, open_engine
from ucdir.images.domains import split_name
from ucdir.images.opening import MAX_PIXELS
from ucdir.model.runtime import QueryEncoder

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
TOKEN_VARIABLE = "UCDIR_TOKEN"


@dataclass(frozen=True)
class Serving:
    """A service that is about to start.

    address    to open in a browser
    galleries  name and number of images of each
    warnings   for the operator
    """

    address: str
    galleries: tuple[tuple[str, int], ...]
    token_required: bool
    warnings: tuple[str, ...]


def serve(
    galleries: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    allow_hosts: Sequence[str] = (),
    max_bytes: int = 20_000_000,
    max_pixels: int = MAX_PIXELS,
    queue: int = 64,
    upload_seconds: float = 60.0,
    engine: str = FOLDER,
    encoder: Path | None = None,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    begun: Callable[[Serving], None] = lambda serving: None,
) -> None:
    """Search galleries in a browser, by dropping or drawing a picture, or from programs over HTTP.

    galleries        Gallery folders, or collections of another engine; NAME=GALLERY sets a name.
    host             Address to listen on; 0.0.0.0 = all addresses of this machine.
    port             Port to listen on; 0 = any that is free.
    token_file       File with the token that every request needs. Default: the variable UCDIR_TOKEN.
    allow_hosts      Another host name that browsers may use. Repeat for several.
    max_bytes        Largest upload in bytes.
    max_pixels       Largest upload in pixels.
    queue            Searches to run or hold at a time; further clients are asked to retry.
    upload_seconds   Seconds within which an upload must arrive.
    engine           Storage of the galleries: folder, or milvus:URI.
    encoder          Run or encoder folder, if it has moved.
    runtime          auto, torch, or onnx for the file that ucdir export wrote.
    device           auto, cpu, cuda, cuda:1 or mps.
    precision        auto, float32 or bfloat16.
    begun            called once, when the service listens

    Runs until Ctrl-C or SIGTERM, and finishes running searches first.
    """
    _check_installed()
    from ucdir.web.app import create_app
    from ucdir.web.galleries import Served
    from ucdir.web.request_limits import Limits
    from ucdir.web.security import LOOPBACK_NAMES, Rules
    from ucdir.web.server import is_loopback, listen, page_address, run
    from ucdir.web.service import build_service

    limits = Limits(max_bytes, max_pixels, seconds=upload_seconds)
    _check_numbers(max_bytes, max_pixels, queue, upload_seconds)
    token = read_token(token_file)
    opened = open_galleries(galleries, engine)
    with listen(host, port) as listening:
        encoders = load_encoders(opened, encoder, device, precision, runtime, engine)
        served = [Served(name, each) for name, each in opened.items()]
        local = is_loopback(listening)
        hosts = (*LOOPBACK_NAMES, host.lower(), *(name.lower() for name in allow_hosts)) if local or allow_hosts else None
        service = build_service(served, encoders, limits, Rules(token, hosts), queue)
        _log_to_stderr()
        counts = tuple((name, len(each)) for name, each in opened.items())
        warnings = () if local or token else (_open_to_all(host),)
        begun(Serving(page_address(listening), counts, token is not None, warnings))
        try:
            run(create_app(service), listening)
        finally:
            service.close()


def open_galleries(galleries: Sequence[str], engine: str) -> dict[str, Engine]:
    """Open galleries by name, in the given order. UsageError when two have the same name."""
    if not galleries:
        raise UsageError("no gallery to serve. Give a gallery folder that ucdir index wrote.")
    opened: dict[str, Engine] = {}
    for text in galleries:
        given, place = split_name(text, "gallery")
        found = open_engine(Path(place), engine)
        name = given or found.name
        if name in opened:
            raise UsageError(f"two galleries have the name '{name}'. Rename one of them: NAME={place}.")
        opened[name] = found
    return opened


def load_encoders(
    opened: dict[str, Engine], encoder: Path | None, device: str, precision: str, runtime: str, engine: str = FOLDER
) -> dict[str, QueryEncoder]:
    """Load the encoder of each fingerprint once; galleries with the same encoder share it."""
    loaded: dict[str, QueryEncoder] = {}
    for name, gallery in opened.items():
        info = gallery.info
        if info.fingerprint in loaded:
            continue
        if encoder is not None and loaded:
            info.require_encoder(next(iter(loaded)), encoder, name, engine_flag(engine))
        loaded[info.fingerprint] = gallery_encoder(info, name, encoder, device, precision, runtime, engine)
    return loaded


def read_token(file: Path | None) -> str | None:
    """Read the token from a file or the environment; None when neither is given."""
    if file is None:
        token, source = os.environ.get(TOKEN_VARIABLE, ""), f"the variable {TOKEN_VARIABLE}"
        if not token:
            return None
    else:
        source = f"--token-file '{file}'"
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UcdirError(f"{source} cannot be read ({error}). Give a text file with one token.") from error
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise UsageError(f"the token in {source} must be one word of printable ASCII.")
    return token


def _check_installed() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UcdirError(
            f"ucdir serve needs packages that are not installed: {', '.join(missing)}. Run: pip install 'ucdir[serve]'"
        )


def _check_numbers(max_bytes: int, max_pixels: int, queue: int, upload_seconds: float) -> None:
    given = {"--max-bytes": max_bytes, "--max-pixels": max_pixels, "--queue": queue, "--upload-seconds": upload_seconds}
    for flag, value in given.items():
        if not value > 0:
            raise UsageError(f"{flag} {value:g}: must be greater than 0.")


def _open_to_all(host: str) -> str:
    return (
        f"anyone who can reach {host} can search and see these images, because there is no token. "
        "Add --token-file FILE, or use --host 127.0.0.1."
    )


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    levels = {"ucdir.web": logging.INFO, "uvicorn.error": logging.WARNING, "python_multipart": logging.CRITICAL}
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers = [handler]


@contextmanager
def _printing_the_address() -> Iterator[Mapping[str, Any]]:
    yield {"begun": show_address}


def show_address(serving: Serving) -> None:
    held = ", ".join(f"{name} ({count:,} images)" for name, count in serving.galleries)
    print(f"Serving {held}.{' Every request needs the token.' if serving.token_required else ''}")
    print(f"Open {serving.address} in a browser. Ctrl-C ends it.", flush=True)
    for warning in serving.warnings:
        note(f"warning: {warning}")


def _show_nothing(result: None) -> None:
    """Print nothing when the service ends."""


serve_command = command(serve, _show_nothing, supply=_printing_the_address)
