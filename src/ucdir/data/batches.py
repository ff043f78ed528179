"""The views of steps, made ahead of the training that takes them."""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ucdir.data.domain import Domain
from ucdir.data.image import open_rgb
from ucdir.data.plan import StepPlan
from ucdir.data.reading import worker_count
from ucdir.data.views import training_view

View = Callable[..., Tensor]
AHEAD = 3


@dataclass(frozen=True)
class StepBatch:
    """Two views of the images of a step, or of a part of it; of several processes each has its share of the views.

    The images of all domains stand in one list, domain after domain; an image's number there is its place.

    image_ids       per domain (N,) int64, rows of the images in their domain; the same in all processes
    query_views     (n, ...) inputs of the encoder: (n, 3, H, W) uint8, or features of a frozen backbone
    query_places    (n,) int64, places of their images
    key_views       (n', ...) inputs of the momentum encoder, in the order in which it is to see them
    key_places      (n',) int64, places of their images
    """

    image_ids: tuple[Tensor, ...]
    query_views: Tensor
    query_places: Tensor
    key_views: Tensor
    key_places: Tensor


def batches(
    domains: Sequence[Domain],
    plans: Sequence[StepPlan],
    image_size: int,
    seed: Sequence[int],
    workers: int = 0,
    strongest_blur: float = 2.0,
) -> Iterator[StepBatch]:
    """The views of `plans`, in order, prepared ahead by `workers` threads.

    seed              numbers that decide every view, for example (seed of the run, epoch)
    strongest_blur    px, see `training_view`
    """
    view = partial(training_view, size=image_size, strongest_blur=strongest_blur)
    waiting = deque(plans)
    pending: deque[tuple[StepPlan, dict[int, Future[tuple[Tensor | None, Tensor | None]]]]] = deque()
    with ThreadPoolExecutor(worker_count(workers)) as pool:
        try:
            while waiting or pending:
                while waiting and len(pending) < AHEAD:
                    plan = waiting.popleft()
                    pending.append((plan, _submit(pool, domains, plan, view, seed)))
                plan, futures = pending.popleft()
                yield step_batch(
                    plan,
                    torch.stack([_made(futures[place].result()[0]) for place in plan.query_places.tolist()]),
                    torch.stack([_made(futures[place].result()[1]) for place in plan.key_places.tolist()]),
                )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def step_batch(plan: StepPlan, query_views: Tensor, key_views: Tensor) -> StepBatch:
    """The views of a plan, with what it says of them."""
    ids = tuple(torch.from_numpy(np.ascontiguousarray(rows)) for rows in plan.image_ids)
    return StepBatch(ids, query_views, torch.from_numpy(plan.query_places), key_views, torch.from_numpy(plan.key_places))


def _submit(
    pool: Executor, domains: Sequence[Domain], plan: StepPlan, view: View, seed: Sequence[int]
) -> dict[int, Future[tuple[Tensor | None, Tensor | None]]]:
    """The views of every place of the plan that has any here; an image is opened once for both."""
    queries, keys = set(plan.query_places.tolist()), set(plan.key_places.tolist())
    size = len(plan.image_ids[0])
    futures = {}
    for place in sorted(queries | keys):
        number, position = divmod(place, size)
        path = domains[number].paths[plan.image_ids[number][position]]
        text = f"{(*seed, plan.step)}/{number}/{plan.first + position}"
        futures[place] = pool.submit(_views, path, view, text, place in queries, place in keys)
    return futures


def _views(path: Path, view: View, seed: str, query: bool, key: bool) -> tuple[Tensor | None, Tensor | None]:
    """Query view and key view of an image, both drawn from the same generator whichever of them is wanted."""
    rng = random.Random(seed)
    image = open_rgb(path)
    first = view(image, rng=rng)
    return first if query else None, view(image, rng=rng) if key else None


def _made(view: Tensor | None) -> Tensor:
    assert view is not None
    return view
