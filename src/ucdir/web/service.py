"""The parts of a running service, and the threads that do what would hold up its event loop."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

from PIL import Image

from ucdir.images.reading import worker_count
from ucdir.model.runtime import QueryEncoder
from ucdir.web.galleries import Catalogue, Served
from ucdir.web.monitoring import Metrics
from ucdir.web.request_limits import Limits
from ucdir.web.security import Rules
from ucdir.web.static_files import PageFile, read_page
from ucdir.web.thumbnails import Thumbnails
from ucdir.web.uploads import Embedder, Places, Queries

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Service:
    """All that the routes use.

    searchers   threads that read galleries
    readers     threads that read image files and draw thumbnails
    """

    catalogue: Catalogue
    queries: Queries
    places: Places
    limits: Limits
    rules: Rules
    metrics: Metrics
    page: Mapping[str, PageFile]
    searchers: ThreadPoolExecutor
    readers: ThreadPoolExecutor
    thumbnails: Thumbnails = field(default_factory=Thumbnails)

    async def searching(self, work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result:
        """Do what asks a gallery, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.searchers, partial(work, *given, **named))

    async def reading(self, work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result:
        """Do what reads image files, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.readers, partial(work, *given, **named))

    def close(self) -> None:
        """Finish what is begun, then end all threads."""
        self.queries.close()
        self.searchers.shutdown()
        self.readers.shutdown()


def build_service(
    served: Sequence[Served],
    encoders: Mapping[str, QueryEncoder],
    limits: Limits | None = None,
    rules: Rules | None = None,
    queue: int = 64,
) -> Service:
    """Start the threads of a service.

    encoders   by fingerprint, one for each that a gallery was made with
    queue      searches at a time; more are sent away
    """
    limits, metrics, threads = limits or Limits(), Metrics(), worker_count(0)
    embedders = {key: Embedder(encode, metrics.batches.observe) for key, encode in encoders.items()}
    for embedder in embedders.values():  # the first call of a runtime takes longest
        embedder.submit(embedder.viewing(Image.new("RGB", (8, 8)), b"")).result()
    service = Service(
        catalogue=Catalogue(served),
        queries=Queries(embedders, limits.max_pixels, threads),
        places=Places(queue),
        limits=limits,
        rules=rules or Rules(),
        metrics=metrics,
        page=read_page(),
        searchers=ThreadPoolExecutor(threads, "ucdir-searcher"),
        readers=ThreadPoolExecutor(max(2, threads), "ucdir-reader"),
    )
    metrics.gauge("searches_in_progress", "Searches waiting or running.", lambda: service.places.taken)
    metrics.gauge("thumbnail_bytes", "Thumbnails kept in memory.", lambda: service.thumbnails.size)
    metrics.gauge(
        "degraded_galleries",
        "Galleries served in their last good version.",
        lambda: sum(each.problem is not None for each in served),
    )
    return service
