"""Steps of training: a tuple of batches, one per domain."""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ucdir.data.domain import Domain
from ucdir.data.image import open_rgb
from ucdir.data.reading import worker_count
from ucdir.data.views import training_view

Pair = tuple[Tensor, Tensor]
View = Callable[..., Tensor]


@dataclass(frozen=True)
class DomainBatch:
    """Two views of N images of one domain.

    image_ids               (N,) int64, rows of the images in their domain
    query_view, key_view    (N, 3, H, W) uint8
    """

    image_ids: Tensor
    query_view: Tensor
    key_view: Tensor


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
) -> Iterator[tuple[DomainBatch, ...]]:
    """Steps of one epoch, in order, prepared ahead by `workers` threads.

    seed              numbers that decide every draw and every view, for example (seed of the run, epoch)
    strongest_blur    px, see `training_view`
    """
    rng = np.random.default_rng([*seed, 0])
    view = partial(training_view, size=image_size, strongest_blur=strongest_blur)
    plan = deque(enumerate(epoch_rows([len(domain) for domain in domains], batch_size, rng)))
    pending: deque[tuple[tuple[np.ndarray, ...], list[list[Future[Pair]]]]] = deque()
    with ThreadPoolExecutor(worker_count(workers)) as pool:
        try:
            while plan or pending:
                while plan and len(pending) < 3:
                    step, rows = plan.popleft()
                    pending.append((rows, _submit(pool, domains, rows, view, (*seed, step))))
                rows, futures = pending.popleft()
                yield tuple(_collate(ids, pairs) for ids, pairs in zip(rows, futures, strict=True))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _repeated_orders(length: int, needed: int, rng: np.random.Generator) -> np.ndarray:
    orders = [rng.permutation(length) for _ in range(-(-needed // length))]
    return np.concatenate(orders)[:needed]


def _submit(
    pool: ThreadPoolExecutor,
    domains: Sequence[Domain],
    rows: Sequence[np.ndarray],
    view: View,
    seed: tuple[int, ...],
) -> list[list[Future[Pair]]]:
    return [
        [
            pool.submit(_view_pair, domain.paths[image_id], view, f"{seed}/{number}/{position}")
            for position, image_id in enumerate(ids)
        ]
        for number, (domain, ids) in enumerate(zip(domains, rows, strict=True))
    ]


def _view_pair(path: Path, view: View, seed: str) -> Pair:
    rng = random.Random(seed)
    image = open_rgb(path)
    return view(image, rng=rng), view(image, rng=rng)


def _collate(ids: np.ndarray, futures: list[Future[Pair]]) -> DomainBatch:
    pairs = [future.result() for future in futures]
    queries, keys = zip(*pairs, strict=True)
    return DomainBatch(torch.from_numpy(ids), torch.stack(queries), torch.stack(keys))
