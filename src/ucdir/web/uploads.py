"""Uploads on their way to embeddings: decoded by a few threads, embedded by one, several at once when several wait."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import BinaryIO

import numpy as np

from ucdir.errors import UcdirError
from ucdir.gallery.ask import SearchOptions
from ucdir.images.evaluation_view import Viewing
from ucdir.images.opening import decode
from ucdir.model.runtime import Encoded, QueryEncoder, domain_numbers
from ucdir.retrieval.expansion import hits_of

BATCH = 16


class Busy(Exception):
    """All places are taken."""


class Places:
    """At most `limit` searches at a time; one more is sent away, nothing waits without end. For one event loop only."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place in the queue; Busy if it is full."""
        if self.taken >= self.limit:
            raise Busy
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


@dataclass(frozen=True)
class Query:
    """An upload, ready to search with.

    row            (D,) float32 unit row
    width, height  pixels, upright
    domain         that it was taken for; None where the encoder knows no domains
    is_strange     it looks like no image of that domain
    """

    row: np.ndarray
    width: int
    height: int
    domain: str | None = None
    is_strange: bool = False


@dataclass(frozen=True)
class Job:
    """What an encoder sees of an image, which waits to be embedded as a member of `domain`; None = recognise it."""

    view: np.ndarray
    domain: str | None
    encoded: "Future[Encoded]"


class Embedder:
    """An encoder in a thread of its own."""

    def __init__(self, encode: QueryEncoder, measure: Callable[[int], None] = lambda count: None) -> None:
        self.viewing, self.domains = Viewing(encode.image_size, encode.views), encode.domains
        self.way = SearchOptions(hits_of(encode.rows), encode.confidence)
        self._encode = encode
        self._measure = measure
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="ucdir-embedder", daemon=True)
        self._thread.start()

    def submit(self, view: np.ndarray, domain: str | None = None) -> "Future[Encoded]":
        """One image embedded, some time later. A future that is cancelled while it waits costs nothing."""
        job = Job(view, domain, Future())
        self._waiting.put(job)
        return job.encoded

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            self._embed([job for job in jobs if job.encoded.set_running_or_notify_cancel()])

    def _next(self) -> list[Job]:
        """What waits, from one job to BATCH; nothing when closed."""
        jobs = [self._waiting.get()]
        while len(jobs) < BATCH and not self._waiting.empty():
            jobs.append(self._waiting.get())
        if None in jobs:
            self._waiting.put(None)
        return [job for job in jobs if job is not None]

    def _embed(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        try:
            found = self._encode(np.stack([job.view for job in jobs]), [job.domain for job in jobs])
        except Exception as error:  # whatever a runtime raises belongs to the requests, not to this thread
            for job in jobs:
                job.encoded.set_exception(error)
            return
        self._measure(len(jobs))
        for number, job in enumerate(jobs):
            one = slice(number, number + 1)
            job.encoded.set_result(Encoded(found.rows[one], found.domains[one], found.is_strange[one]))


class Queries:
    """Embeds uploads with one encoder or several."""

    def __init__(self, embedders: Mapping[str, Embedder], max_pixels: int, threads: int) -> None:
        """`embedders` by the fingerprints of their encoders; `threads` decode images."""
        self._embedders = embedders
        self._max_pixels = max_pixels
        self._decoders = ThreadPoolExecutor(threads, "ucdir-decoder")

    def domains(self, fingerprint: str) -> tuple[str, ...]:
        """The domains that this encoder knows."""
        return self._embedders[fingerprint].domains

    def way(self, fingerprint: str) -> SearchOptions:
        """How a gallery of this encoder is searched by default."""
        return self._embedders[fingerprint].way

    async def embed(self, image: BinaryIO, fingerprint: str, domain: str | None = None) -> Query:
        """Embed an upload as a member of `domain`, None = the one it looks like.

        raises   ImageError if it is not a usable image, UsageError for a domain that the encoder does not know
        """
        embedder = self._embedders[fingerprint]
        domain_numbers(embedder.domains, [domain], 1)
        loop = asyncio.get_running_loop()
        view, width, height = await loop.run_in_executor(self._decoders, self._view, image, embedder.viewing)
        found = await asyncio.wrap_future(embedder.submit(view, domain))
        if not np.isfinite(found.rows).all():
            raise UcdirError("the encoder gives NaN or infinity for this image. Train it again.")
        return Query(found.rows[0], width, height, found.domains[0], found.is_strange[0])

    def close(self) -> None:
        """Finish what waits, then end the threads."""
        self._decoders.shutdown()
        for embedder in self._embedders.values():
            embedder.close()

    def _view(self, image: BinaryIO, viewing: Viewing) -> tuple[np.ndarray, int, int]:
        content = b""
        if viewing.names:
            content = hashlib.file_digest(image, "sha256").digest()  # type: ignore[arg-type]
            image.seek(0)
        pixels = decode(image, self._max_pixels).pixels
        return viewing(pixels, content), *pixels.size
