"""Uploads on their way to embeddings: decoded by a few threads, embedded by one, several at once when several wait."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import BinaryIO

import numpy as np

from ucdir.data.evaluation import evaluation_view
from ucdir.data.image import decode
from ucdir.errors import UcdirError
from ucdir.model.runtime import QueryEncoder

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
        """Hold a place; Busy when there is none."""
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
    """

    row: np.ndarray
    width: int
    height: int


@dataclass(frozen=True)
class Job:
    """One view that waits for its row."""

    view: np.ndarray
    row: "Future[np.ndarray]"


class Embedder:
    """An encoder in a thread of its own: (3, H, W) views go in, (D,) rows come out."""

    def __init__(self, encode: QueryEncoder, measure: Callable[[int], None] = lambda count: None) -> None:
        self.image_size = encode.image_size
        self._encode = encode
        self._measure = measure
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="ucdir-embedder", daemon=True)
        self._thread.start()

    def submit(self, view: np.ndarray) -> "Future[np.ndarray]":
        """The row of a view, some time later. A future that is cancelled while it waits costs nothing."""
        job = Job(view, Future())
        self._waiting.put(job)
        return job.row

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            self._embed([job for job in jobs if job.row.set_running_or_notify_cancel()])

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
            rows = self._encode(np.stack([job.view for job in jobs]))
        except Exception as error:  # whatever a runtime raises belongs to the requests, not to this thread
            for job in jobs:
                job.row.set_exception(error)
            return
        self._measure(len(jobs))
        for job, row in zip(jobs, rows, strict=True):
            job.row.set_result(row)


class Queries:
    """Embeds uploads with one encoder or several."""

    def __init__(self, embedders: Mapping[str, Embedder], max_pixels: int, threads: int) -> None:
        """`embedders` by the fingerprints of their encoders; `threads` decode images."""
        self._embedders = embedders
        self._max_pixels = max_pixels
        self._decoders = ThreadPoolExecutor(threads, "ucdir-decoder")

    async def embed(self, image: BinaryIO, fingerprint: str) -> Query:
        """Embed an upload; ImageError when it is no image that can be used."""
        embedder = self._embedders[fingerprint]
        loop = asyncio.get_running_loop()
        view, width, height = await loop.run_in_executor(self._decoders, self._view, image, embedder.image_size)
        row = await asyncio.wrap_future(embedder.submit(view))
        if not np.isfinite(row).all():
            raise UcdirError("the encoder gives NaN or infinity for this image. Train it again.")
        return Query(row, width, height)

    def close(self) -> None:
        """Finish what waits, then end the threads."""
        self._decoders.shutdown()
        for embedder in self._embedders.values():
            embedder.close()

    def _view(self, image: BinaryIO, size: int) -> tuple[np.ndarray, int, int]:
        pixels = decode(image, self._max_pixels).pixels
        return evaluation_view(pixels, size), *pixels.size
