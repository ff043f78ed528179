"""Read many files ahead of whoever needs them, in order. Needs no torch."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from ucdir.data.evaluation import evaluation_view
from ucdir.data.image import open_rgb
from ucdir.errors import ImageError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Views:
    """Evaluation views of a batch of files.

    image_ids    positions in the list of those that could be read
    pixels       (n, 3, H, W) uint8, theirs
    unreadable   the errors of the others
    """

    image_ids: list[int]
    pixels: np.ndarray
    unreadable: list[ImageError]

    def __len__(self) -> int:
        return len(self.image_ids) + len(self.unreadable)


def worker_count(workers: int) -> int:
    """Threads that read images: `workers`, or one per core this process may use when it is 0."""
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_views(paths: Sequence[Path], size: int, batch_size: int = 64, workers: int = 0) -> Iterator[Views]:
    """The evaluation views of image files, batch by batch in order."""
    start = 0
    for results in read_ahead(paths, partial(_view_of, size=size), batch_size, workers):
        found = {start + offset: result for offset, result in enumerate(results) if isinstance(result, np.ndarray)}
        pixels = np.stack(list(found.values())) if found else np.empty((0, 3, size, size), np.uint8)
        yield Views(list(found), pixels, [result for result in results if isinstance(result, ImageError)])
        start += len(results)


def read_ahead(
    items: Sequence[Item], read: Callable[[Item], Result], batch_size: int, workers: int = 0
) -> Iterator[list[Result]]:
    """What `read` makes of the items, batch by batch in order; two more batches are read meanwhile."""
    starts = deque(range(0, len(items), batch_size))
    pending: deque[list[Future[Result]]] = deque()
    with ThreadPoolExecutor(worker_count(workers)) as pool:
        try:
            while starts or pending:
                while starts and len(pending) < 3:
                    start = starts.popleft()
                    pending.append([pool.submit(read, item) for item in items[start : start + batch_size]])
                yield [future.result() for future in pending.popleft()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _view_of(path: Path, size: int) -> np.ndarray | ImageError:
    try:
        return evaluation_view(open_rgb(path), size)
    except ImageError as error:
        return error
