"""Which queries represent the others: fixed rules, so that nobody picks the pretty ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Ids = NDArray[np.int64]


def pick_extremes(values: Values, groups: Ids, count: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Rows with the highest, the most middling and the lowest values; ties by row, no group twice in a list, no row in two.

    Ties only decide which rows are shown: no figure is made of them.

    values   (N,) one finite figure for each row
    groups   (N,) class of each row, -1 = none, which does not count as a group
    count    rows in each list at most; fewer where rows or groups run out
    returns  highest first, nearest to the median first, lowest first
    """
    middle = np.abs(values - np.median(values)) if len(values) else values
    taken: set[int] = set()
    picked = []
    for order in (np.argsort(-values, kind="stable"), np.argsort(values, kind="stable"), np.argsort(middle, kind="stable")):
        chosen = _first_of_each(order.tolist(), groups, count, taken)
        taken.update(chosen)
        picked.append(chosen)
    highest, lowest, middling = picked
    return highest, middling, lowest


def _first_of_each(order: Sequence[int], groups: Ids, count: int, taken: set[int]) -> tuple[int, ...]:
    chosen: list[int] = []
    seen: set[int] = set()
    for row in order:
        group = int(groups[row])
        if len(chosen) == count:
            break
        if row in taken or group in seen:
            continue
        chosen.append(row)
        seen |= {group} - {-1}
    return tuple(chosen)


def sample_rows(count: int, most: int, seed: int) -> Ids:
    """At most `most` of `count` rows, drawn without repeats from `seed`, rising."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def evenly_spread(count: int, most: int) -> Ids:
    """At most `most` of `count` rows, from the first to the last at equal distances, rising. Draws nothing."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)


def shares(counts: Sequence[int], most: int) -> tuple[int, ...]:
    """How many of each of several sets to take so that at most `most` are taken in all, in proportion, one of each at least."""
    total = sum(counts)
    if total <= most:
        return tuple(counts)
    return tuple(min(count, max(count * most // total, 1)) for count in counts)
