"""Steps of training: a tuple of batches, one per domain."""

import random
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ucdir.data.cache import PixelCache
from ucdir.data.cpu_views import render
from ucdir.data.device_views import Crop, render_crops
from ucdir.data.domain import Domain
from ucdir.data.reading import read_image, worker_count
from ucdir.data.views import ViewDraw, draw_view, useful_side

Share = Callable[[int], np.ndarray]
Finish = Callable[[], Sequence[Tensor]]


@dataclass(frozen=True)
class DomainBatch:
    """Two views of N images of one domain; fewer where only a share of them was asked for.

    image_ids               (N,) int64, rows of the images in their domain
    query_view, key_view    (N, 3, H, W) uint8
    """

    image_ids: Tensor
    query_view: Tensor
    key_view: Tensor


@dataclass(frozen=True)
class StepImage:
    """One image of a step.

    seed    of both its views: first its query view is drawn, then its key view, whichever is wanted
    rows    where its query and its key view go among those of the step; None = not wanted
    """

    path: Path
    seed: str
    rows: tuple[int | None, int | None]


class Pages:
    """Memory for views, taken again when nothing refers to it any more: new memory costs a page fault every 4 kB."""

    def __init__(self) -> None:
        self.free: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of uint8 with anything in it."""
        fitting = next((number for number, page in enumerate(self.free) if page.shape == shape), None)
        page = np.empty(shape, np.uint8) if fitting is None else self.free.pop(fitting)
        lent = page.view()
        weakref.finalize(lent, self.free.append, page).atexit = False
        return lent


def epoch_rows(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[tuple[np.ndarray, ...]]:
    """Which images each step of an epoch takes from each domain.

    lengths    number of images of each domain
    returns    one tuple per step with an int64 array (batch_size,) per domain. The largest domain is gone through once,
               its incomplete last batch left out; a smaller one is drawn anew, in another order, whenever it ends.
    """
    steps = count_steps(lengths, batch_size)
    needed = steps * batch_size
    rows = [_repeated_orders(length, needed, rng) for length in lengths]
    return [tuple(row[step * batch_size : (step + 1) * batch_size] for row in rows) for step in range(steps)]


def count_steps(lengths: Sequence[int], batch_size: int) -> int:
    """Steps in an epoch: whole batches of the largest domain, at least one."""
    return max(1, max(lengths) // batch_size)


def batches(
    domains: Sequence[Domain],
    batch_size: int,
    image_size: int,
    seed: Sequence[int],
    workers: int = 0,
    strongest_blur: float = 2.0,
    cache: PixelCache | None = None,
    device: torch.device | None = None,
    query_share: Share | None = None,
    key_share: Share | None = None,
) -> Iterator[tuple[DomainBatch, ...]]:
    """Steps of one epoch, in order, prepared ahead by `workers` threads.

    seed              numbers that decide every draw and every view, for example (seed of the run, epoch)
    strongest_blur    px, see `draw_view`
    cache             where pixels are looked for before a file is decoded; changes nothing but the time
    device            renders the views there; None = on the CPU, by the threads
    query_share       of a step's number, which of its images get a query view here: rising positions in the list of all,
    key_share         domain after domain; the same for key views. None = all
    """
    rng = np.random.default_rng([*seed, 0])
    plan = deque(enumerate(epoch_rows([len(domain) for domain in domains], batch_size, rng)))
    draw = partial(_drawn, strongest_blur=strongest_blur, most=useful_side(image_size), cache=cache)
    pages = Pages()
    everything = np.arange(len(domains) * batch_size)
    pending: deque[tuple[tuple[np.ndarray, ...], list[np.ndarray], Finish]] = deque()
    with ThreadPoolExecutor(worker_count(workers)) as pool:
        try:
            while plan or pending:
                while plan and len(pending) < 3:
                    step, rows = plan.popleft()
                    shares = [everything if share is None else share(step) for share in (query_share, key_share)]
                    images = _step_images(domains, rows, shares, (*seed, step))
                    lengths = [len(share) for share in shares]
                    if device is None:
                        finish = _on_cpu(
                            pool, images, draw, [pages.take((length, 3, image_size, image_size)) for length in lengths]
                        )
                    else:
                        finish = _on_device(pool, images, draw, lengths, image_size, device)
                    pending.append((rows, shares, finish))
                rows, shares, finish = pending.popleft()
                yield _split(rows, shares, finish())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _repeated_orders(length: int, needed: int, rng: np.random.Generator) -> np.ndarray:
    orders = [rng.permutation(length) for _ in range(-(-needed // length))]
    return np.concatenate(orders)[:needed]


def _step_images(
    domains: Sequence[Domain], rows: Sequence[np.ndarray], shares: Sequence[np.ndarray], seed: tuple[int, ...]
) -> list[StepImage]:
    """The images of a step of which a view is wanted."""
    query_rows, key_rows = ({int(place): row for row, place in enumerate(share)} for share in shares)
    images = []
    for number, (domain, ids) in enumerate(zip(domains, rows, strict=True)):
        for position, image_id in enumerate(ids):
            place = number * len(ids) + position
            wanted = query_rows.get(place), key_rows.get(place)
            if wanted != (None, None):
                images.append(StepImage(domain.paths[image_id], f"{seed}/{number}/{position}", wanted))
    return images


def _drawn(
    image: StepImage, strongest_blur: float, most: int, cache: PixelCache | None
) -> tuple[np.ndarray, tuple[ViewDraw, ViewDraw]]:
    """Pixels (H, W, 3) uint8 and the draws of the query and the key view."""
    pixels = read_image(image.path, most, cache)
    height, width, _ = pixels.shape
    rng = random.Random(image.seed)
    return pixels, (draw_view(width, height, rng, strongest_blur), draw_view(width, height, rng, strongest_blur))


Draw = Callable[[StepImage], tuple[np.ndarray, tuple[ViewDraw, ViewDraw]]]


def _on_cpu(pool: ThreadPoolExecutor, images: Sequence[StepImage], draw: Draw, views: Sequence[np.ndarray]) -> Finish:
    """Let the threads read and render, straight into `views`: (n, 3, size, size) query views, as many key views."""

    def paint(image: StepImage) -> None:
        pixels, draws = draw(image)
        for row, drawn, target in zip(image.rows, draws, views, strict=True):
            if row is not None:
                render(pixels, drawn, target[row])

    done = [pool.submit(paint, image) for image in images]

    def finish() -> list[Tensor]:
        for future in done:
            future.result()
        return [torch.from_numpy(found) for found in views]

    return finish


def _on_device(
    pool: ThreadPoolExecutor, images: Sequence[StepImage], draw: Draw, lengths: Sequence[int], size: int, device: torch.device
) -> Finish:
    """Let the threads read; whoever takes the step has the device render it."""
    reading = [pool.submit(draw, image) for image in images]

    def finish() -> list[Tensor]:
        crops: tuple[list[Crop], list[Crop]] = ([], [])  # images come in the order of their rows
        for image, future in zip(images, reading, strict=True):
            pixels, draws = future.result()
            for row, drawn, found in zip(image.rows, draws, crops, strict=True):
                if row is not None:
                    found.append(Crop.of(pixels, drawn))
        return [render_crops(found, size, device) for found in crops]

    return finish


def _split(rows: Sequence[np.ndarray], shares: Sequence[np.ndarray], views: Sequence[Tensor]) -> tuple[DomainBatch, ...]:
    """The views of all domains, one after the other -> a batch for each domain."""
    ends = np.cumsum([len(ids) for ids in rows])
    queries, keys = (
        torch.tensor_split(found, np.searchsorted(share, ends[:-1]).tolist())
        for found, share in zip(views, shares, strict=True)
    )
    return tuple(DomainBatch(torch.from_numpy(ids), *pair) for ids, *pair in zip(rows, queries, keys, strict=True))
