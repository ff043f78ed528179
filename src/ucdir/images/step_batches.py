"""The views of steps, made ahead of the training that takes them."""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ucdir.images.cpu_views import render
from ucdir.images.device_views import Crop, render_crops
from ucdir.images.domains import Domain
from ucdir.images.epoch_plan import StepPlan
from ucdir.images.pixel_cache import PixelCache
from ucdir.images.reading import read_image, worker_count
from ucdir.images.training_views import ViewDraw, draw_view, useful_side

STEPS_AHEAD = 3


@dataclass(frozen=True)
class StepBatch:
    """Two views of the images of a step, or of a part of it; of several processes each has its share of the views.

    The images of all domains form one list, domain after domain; an image's index in it is its place.

    image_ids       per domain (N,) int64, rows of the images in their domain; the same in all processes
    query_views     (n, ...) inputs of the encoder: (n, 3, H, W) uint8, or features of a frozen backbone
    query_places    (n,) int64, places of their images
    key_views       (n', ...) inputs of the momentum encoder, in the order in which it is to see them
    key_places      (n',) int64, places of their images
    """

    image_ids: tuple[Tensor, ...]
    query_views: Tensor
    query_positions: Tensor
    key_views: Tensor
    key_positions: Tensor


@dataclass(frozen=True)
class StepImage:
    """One image of a step.

    seed    of both its views: first its query view is drawn, then its key view, whichever is wanted
    rows    where its query and its key view go among those of the step; None = not wanted
    """

    path: Path
    seed: str
    rows: tuple[int | None, int | None]


Draw = Callable[[StepImage], tuple[np.ndarray, tuple[ViewDraw, ViewDraw]]]
Finish = Callable[[], Sequence[Tensor]]


def batches(
    domains: Sequence[Domain],
    plans: Sequence[StepPlan],
    image_size: int,
    seed: Sequence[int],
    workers: int = 0,
    max_blur_sigma: float = 2.0,
    cache: PixelCache | None = None,
    device: torch.device | None = None,
) -> Iterator[StepBatch]:
    """The views of `plans`, in order, prepared ahead by `workers` threads.

    seed              numbers that decide every view, for example (seed of the run, epoch)
    max_blur_sigma    px, see `draw_view`
    cache             where pixels are looked for before a file is decoded; changes nothing but the time
    device            renders the views there; None = on the CPU, by the threads
    """
    draw = partial(_drawn, max_blur_sigma=max_blur_sigma, most=useful_side(image_size), cache=cache)
    make = _on_cpu if device is None else partial(_on_device, device=device)
    waiting = deque(plans)
    pending: deque[tuple[StepPlan, Finish]] = deque()
    with ThreadPoolExecutor(worker_count(workers)) as pool:
        try:
            while waiting or pending:
                while waiting and len(pending) < STEPS_AHEAD:
                    plan = waiting.popleft()
                    lengths = len(plan.query_positions), len(plan.key_positions)
                    pending.append((plan, make(pool, _step_images(domains, plan, seed), draw, lengths, image_size)))
                plan, finish = pending.popleft()
                yield step_batch(plan, *finish())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def step_batch(plan: StepPlan, query_views: Tensor, key_views: Tensor) -> StepBatch:
    """The views of a plan, with their places in it."""
    ids = tuple(torch.from_numpy(np.ascontiguousarray(rows)) for rows in plan.image_ids)
    return StepBatch(ids, query_views, torch.from_numpy(plan.query_positions), key_views, torch.from_numpy(plan.key_positions))


def _step_images(domains: Sequence[Domain], plan: StepPlan, seed: Sequence[int]) -> list[StepImage]:
    """The images of a step of which a view is wanted here."""
    query_rows, key_rows = (
        {place: row for row, place in enumerate(places.tolist())} for places in (plan.query_positions, plan.key_positions)
    )
    size = len(plan.image_ids[0])
    images = []
    for place in sorted(query_rows.keys() | key_rows.keys()):
        number, position = divmod(place, size)
        path = domains[number].paths[plan.image_ids[number][position]]
        text = f"{(*seed, plan.step)}/{number}/{plan.first + position}"
        images.append(StepImage(path, text, (query_rows.get(place), key_rows.get(place))))
    return images


def _drawn(
    image: StepImage, max_blur_sigma: float, most: int, cache: PixelCache | None
) -> tuple[np.ndarray, tuple[ViewDraw, ViewDraw]]:
    """Pixels (H, W, 3) uint8 and the draws of the query and the key view."""
    pixels = read_image(image.path, most, cache)
    height, width, _ = pixels.shape
    rng = random.Random(image.seed)
    return pixels, (draw_view(width, height, rng, max_blur_sigma), draw_view(width, height, rng, max_blur_sigma))


def _on_cpu(pool: Executor, images: Sequence[StepImage], draw: Draw, lengths: Sequence[int], size: int) -> Finish:
    """Let the threads read and render, straight into the batch."""
    views = [np.empty((length, 3, size, size), np.uint8) for length in lengths]

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
    pool: Executor, images: Sequence[StepImage], draw: Draw, lengths: Sequence[int], size: int, device: torch.device
) -> Finish:
    """Let the threads read; the consumer of the step renders it on the device."""
    reading = [pool.submit(draw, image) for image in images]

    def finish() -> list[Tensor]:
        crops: tuple[dict[int, Crop], dict[int, Crop]] = ({}, {})
        for image, future in zip(images, reading, strict=True):
            pixels, draws = future.result()
            for row, drawn, found in zip(image.rows, draws, crops, strict=True):
                if row is not None:
                    found[row] = Crop.of(pixels, drawn)
        return [
            render_crops([found[row] for row in range(length)], size, device)
            for found, length in zip(crops, lengths, strict=True)
        ]

    return finish
