"""What the service counts, and its log: one line a request, without queries, content or tokens. Plain ASGI."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD", "POST")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16)
LONGEST_METHOD = 20
LONGEST_PATH = 200

log = logging.getLogger("ucdir.web")


def _new_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    return registry


@dataclass(frozen=True)
class Metrics:
    """Counters in a registry of their own, so that a process may hold several services."""

    registry: CollectorRegistry = field(default_factory=_new_registry)
    requests: Counter = field(init=False)
    seconds: Histogram = field(init=False)
    batches: Histogram = field(init=False)

    def __post_init__(self) -> None:
        labels, registry = ("method", "route", "status"), self.registry
        made = {
            "requests": Counter("ucdir_requests", "Answered requests.", labels, registry=registry),
            "seconds": Histogram("ucdir_request_seconds", "Until sent.", ("route",), registry=registry, buckets=SECONDS),
            "batches": Histogram("ucdir_embedded_images", "Uploads embedded at once.", registry=registry, buckets=BATCHES),
        }
        for name, metric in made.items():
            object.__setattr__(self, name, metric)

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A number that is read when the metrics are."""
        Gauge(f"ucdir_{name}", help_text, registry=self.registry).set_function(read)


class Watch:
    """Counts, times and logs every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, started = 500, time.perf_counter()

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            return await self.app(scope, receive, send_noted)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        log.info("%s %s %d %.0f ms", scope["method"][:LONGEST_METHOD], shown_path(scope), status, seconds * 1000)


def shown_path(scope: Scope) -> str:
    """The path as it came, still percent-encoded, so that it can neither break a line nor hide in one."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    text = raw.partition(b"?")[0].decode("ascii", "backslashreplace")
    return re.sub(r"[^\x21-\x7e]", "?", text)[:LONGEST_PATH]
