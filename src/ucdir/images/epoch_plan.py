"""What the steps of an epoch take: which images, and which process makes which views of them, in which order.

Every process draws the same plan and takes its share of it. A plan is a function of the seed and the epoch only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Ints = np.ndarray


@dataclass(frozen=True)
class StepPlan:
    """What one process makes for a step, or for a part of one.

    The images of all domains form one list, domain after domain; an image's index in it is its place.

    step, first    number of the step, and of the first image of each domain within it
    image_ids      per domain (N,) int64: the same in all processes
    query_places   (n,) int64, places of the images of whose query views this process takes care
    key_places     (n',) int64, the same for key views, in the order in which they are encoded
    """

    step: int
    first: int
    image_ids: tuple[Ints, ...]
    query_positions: Ints
    key_positions: Ints


def plan_epoch(
    lengths: Sequence[int],
    batch_size: int,
    seed: Sequence[int],
    parts: int = 1,
    groups: int = 1,
    rank: int = 0,
    count: int = 1,
) -> list[list[StepPlan]]:
    """The steps of an epoch, each as a list of its parts.

    lengths       images of each domain
    batch_size    images of each domain in a step, a multiple of `parts`
    seed          numbers that decide every draw, for example (seed of the run, epoch)
    groups        interleaved groups of keys with batch statistics of their own, a multiple of `count`; whole groups go to
                  one process, so with several processes they must be of equal size
    rank, count   this process among how many

    Keys are encoded in a random order. A process whose keys are numbered 0, 1, 2 ... has them in groups / count groups,
    interleaved in the same way.
    """
    rng = np.random.default_rng([*seed, 0])
    shuffler = np.random.default_rng([*seed, 1])
    small = batch_size // parts
    queries = np.arange(rank, small * len(lengths), count)
    plans: list[list[StepPlan]] = []
    for step, rows in enumerate(epoch_rows(lengths, batch_size, rng)):
        plans.append([])
        for first in range(0, batch_size, small):
            order = shuffler.permutation(small * len(lengths))
            ids = tuple(row[first : first + small] for row in rows)
            plans[step].append(StepPlan(step, first, ids, queries, _own_keys(order, groups, rank, count)))
    return plans


def epoch_rows(
    lengths: Sequence[int], batch_size: int, rng: np.random.Generator, steps: int | None = None
) -> list[tuple[Ints, ...]]:
    """Which images each step of an epoch takes from each domain.

    lengths    number of images of each domain
    steps      number of steps; None = `count_steps`. With more than that, the largest domain is reshuffled when it ends, too
    returns    one tuple per step with an int64 array (batch_size,) per domain. The largest domain is gone through once,
               its incomplete last batch left out; a smaller one starts over, in another order, whenever it ends.
    """
    steps = steps or count_steps(lengths, batch_size)
    needed = steps * batch_size
    rows = [_repeated_orders(length, needed, rng) for length in lengths]
    return [tuple(row[step * batch_size : (step + 1) * batch_size] for row in rows) for step in range(steps)]


def count_steps(lengths: Sequence[int], batch_size: int) -> int:
    """Steps in an epoch: whole batches of the largest domain, at least one."""
    return max(1, max(lengths) // batch_size)


def key_groups(splits: int, count: int) -> int:
    """Groups of keys for `count` processes: `splits`, or as many more as give every process equally many."""
    return -(-splits // count) * count


def _own_keys(order: Ints, groups: int, rank: int, count: int) -> Ints:
    if count == 1:
        return order
    return order.reshape(-1, groups)[:, rank::count].ravel()


def _repeated_orders(length: int, needed: int, rng: np.random.Generator) -> Ints:
    orders = [rng.permutation(length) for _ in range(-(-needed // length))]
    return np.concatenate(orders)[:needed]
