"""From an address to a running server: the socket, what connections may do, the end."""

import asyncio
import errno
import ipaddress
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from ucdir.errors import UcdirError, UsageError

IDLE_SECONDS = 20.0
MAX_CONNECTIONS = 512
MAX_FILES = 4096
MAX_PORT = 65535
LAST_SECONDS = 30


class Connection(H11Protocol):
    """Ends a connection on which nothing comes about: half a head sent slowly, a body nobody waits for, an answer not taken."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch; one connection too many ends at once."""
        super().connection_made(transport)
        self._watching = self.loop.call_later(IDLE_SECONDS, self._watch, None, 0)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        self._watching.cancel()
        super().connection_lost(exc)

    def _watch(self, seen: RequestResponseCycle | None, unsent: int) -> None:
        """No two looks may find the same request answered, or unfinished with the same bytes not yet taken."""
        now_unsent = self.transport.get_write_buffer_size()
        waits = seen is None or seen.response_complete or now_unsent > 0
        if self.cycle is seen and waits and now_unsent == unsent:
            self.transport.abort()
        else:
            self._watching = self.loop.call_later(IDLE_SECONDS, self._watch, self.cycle, now_unsent)


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections on this address; UcdirError when it is taken, UsageError when it cannot be."""
    if not 0 <= port <= MAX_PORT:
        raise UsageError(f"--port {port}: expected 0 to {MAX_PORT}, 0 = any that is free.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(
            f"--host '{host}' is unknown. Give an address of this machine: 127.0.0.1, or 0.0.0.0 for all."
        ) from error
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(MAX_CONNECTIONS)
    except OSError as error:
        opened.close()
        raise _refused(host, port, error) from error
    return opened


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine reaches the socket."""
    return ipaddress.ip_address(_name(listening)).is_loopback


def page_address(listening: socket.socket) -> str:
    """What to open in a browser of this machine."""
    name = ipaddress.ip_address(_name(listening))
    shown = ("::1" if name.version == 6 else "127.0.0.1") if name.is_unspecified else str(name)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{listening.getsockname()[1]}/"


def run(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; requests in flight finish first."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    _allow_files()
    with _quiet_end():
        uvicorn.Server(config).run(sockets=[listening])


def _allow_files() -> None:
    """Every connection may hold an upload and an image file: the usual 1024 are too few. Windows has no such limit."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MAX_FILES:
        wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _quiet_end() -> Iterator[None]:
    """uvicorn raises again the signal that ended it; by then all is done."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, lambda number, frame: None) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)


def _name(listening: socket.socket) -> str:
    name: str = listening.getsockname()[0]
    return name.partition("%")[0]


def _refused(host: str, port: int, error: OSError) -> UcdirError:
    if error.errno == errno.EADDRINUSE:
        other = port + 1 if port < MAX_PORT else port - 1
        return UcdirError(f"port {port} of {host} is taken by another program. Give another one: --port {other}.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return UcdirError(f"this user may not use port {port} of {host}. Give one above 1023: --port 8000.")
    return UsageError(f"--host '{host}' cannot be used ({error.strerror}). Give an address of this machine: 127.0.0.1, say.")
