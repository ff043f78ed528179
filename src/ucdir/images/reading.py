"""Read many files ahead of their consumer, in order. Needs no torch."""

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from ucdir.errors import ImageError, require_at_least
from ucdir.images.evaluation_view import Viewing, evaluation_view
from ucdir.images.opening import open_rgb, read_file
from ucdir.images.pixel_cache import PixelCache

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
    require_at_least("--workers", workers, 0)
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_views(
    paths: Sequence[Path], size: int, batch_size: int = 64, workers: int = 0, cache: PixelCache | None = None
) -> Iterator[Views]:
    """The evaluation views of image files, batch by batch in order."""
    return _batches(paths, partial(_view_of, size=size, cache=cache), size, batch_size, workers)


def read_seen(paths: Sequence[Path], viewing: Viewing, batch_size: int = 64, workers: int = 0) -> Iterator[Views]:
    """What an encoder sees of image files, batch by batch in order; `pixels` is (n, ...) of what `viewing` gives."""
    return _batches(paths, partial(_seen, viewing=viewing), viewing.size, batch_size, workers)


def _batches(
    paths: Sequence[Path], read: Callable[[Path], np.ndarray | ImageError], size: int, batch_size: int, workers: int
) -> Iterator[Views]:
    start = 0
    for results in read_ahead(paths, read, batch_size, workers):
        found = {start + offset: result for offset, result in enumerate(results) if isinstance(result, np.ndarray)}
        pixels = np.stack(list(found.values())) if found else np.empty((0, 3, size, size), np.uint8)
        yield Views(list(found), pixels, [result for result in results if isinstance(result, ImageError)])
        start += len(results)


def read_ahead(
    items: Sequence[Item], read: Callable[[Item], Result], batch_size: int, workers: int = 0
) -> Iterator[list[Result]]:
    """What `read` makes of the items, batch by batch in order; two more batches are read meanwhile.

    read    returns the error of an item that is to be left out; one that it raises ends the reading of all
    """
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


def read_image(path: Path, most: int, cache: PixelCache | None = None) -> np.ndarray:
    """An image, scaled down where its shorter side is longer than `most` px: (H, W, 3) uint8. The cache changes nothing."""
    return _read(path, f"image {most}", partial(_at_most, most=most), cache)


def _view_of(path: Path, size: int, cache: PixelCache | None) -> np.ndarray | ImageError:
    try:
        return _read(path, f"evaluation view {size}", partial(evaluation_view, size=size), cache)
    except ImageError as error:
        return error


def _seen(path: Path, viewing: Viewing) -> np.ndarray | ImageError:
    try:
        content = read_file(path)
        return viewing(open_rgb(io.BytesIO(content)), hashlib.sha256(content).digest() if viewing.names else b"")
    except ImageError as error:
        return type(error)(path, error.reason)


def _read(path: Path, what: str, make: Callable[[Image.Image], np.ndarray], cache: PixelCache | None) -> np.ndarray:
    return make(open_rgb(path)) if cache is None else cache.pixels(path, what, make)


def _at_most(image: Image.Image, most: int) -> np.ndarray:
    shorter = min(image.size)
    if shorter > most:
        width, height = (round(side * most / shorter) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image)
