"""Keep rows in order where rows are stored without one, and rewrite as few of them as can be."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

GAP = 1 << 20


def order_keys(old: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Rising keys for n rows in their order; most of the rows that have a key keep it.

    old      (n,) int64 the keys the rows have
    known    (n,) bool which of them have one at all
    returns  (n,) int64, strictly rising; all new if there is no room between two old ones
    """
    stay = np.flatnonzero(known)[longest_rising(old[known])]
    if len(stay) == 0:
        return _evenly(len(old))
    keys, edges = old.copy(), np.concatenate(([-1], stay, [len(old)]))
    for before in np.flatnonzero(np.diff(edges) > 1).tolist():
        left, right = edges[before : before + 2].tolist()
        count = right - left - 1
        low = int(keys[left]) if left >= 0 else int(keys[right]) - (count + 1) * GAP
        high = int(keys[right]) if right < len(old) else low + (count + 1) * GAP
        step = (high - low) // (count + 1)
        if step == 0:
            return _evenly(len(old))
        keys[left + 1 : right] = low + step * np.arange(1, count + 1)
    return keys


def longest_rising(values: np.ndarray) -> np.ndarray:
    """Positions of a longest strictly rising subsequence of (n,) int64."""
    if len(values) < 2 or bool((np.diff(values) > 0).all()):
        return np.arange(len(values))
    ends, at, before = _piles(values.tolist())
    chain = [at[len(ends) - 1]]
    while before[chain[-1]] >= 0:
        chain.append(before[chain[-1]])
    return np.array(chain[::-1], np.int64)


def _piles(values: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Smallest end of a rising subsequence of each length, its index, and for each value the one before it; -1 = none."""
    ends: list[int] = []
    at: list[int] = []
    before: list[int] = []
    for position, value in enumerate(values):
        length = bisect_left(ends, value)
        before.append(at[length - 1] if length else -1)
        ends[length : length + 1] = [value]
        at[length : length + 1] = [position]
    return ends, at, before


def _evenly(count: int) -> np.ndarray:
    return GAP * np.arange(1, count + 1, dtype=np.int64)
