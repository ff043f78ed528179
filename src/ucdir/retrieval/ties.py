"""The first k hits where similarities are equal: every order of equal images is equally likely. Imports numpy only."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ucdir.retrieval.exact_search import Neighbours, exact_rows

SIMILARITIES_PER_BLOCK = 2**20  # similarities in memory at a time

Ids = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class TiedHits:
    """Some queries whose k-th hit and the one after it are equally similar, so that their first k hits are not one set.

    queries     (b,) int64, which queries
    similarity  (b, G) float64 cosines in [-1, 1]
    chance      (b, G) float64 in [0, 1], probability that a gallery image is among the first k hits; each row sums to k
    """

    queries: Ids
    similarity: Values
    chance: Values


def tied_hits(queries: NDArray[Any], gallery: NDArray[Any], near: Neighbours, k: int) -> Iterator[TiedHits]:
    """All such queries, block by block; none where no two similarities are equal at the cut-off.

    queries, gallery   (Q, D), (G, D) as they were given to `nearest`
    near               what it found: more than k hits, or the whole gallery

    Of t images that are as similar as the k-th hit, and b that are more similar, each of the t is a hit with
    probability (k - b) / t.
    """
    if near.rows.shape[1] <= k:
        return
    tied = np.flatnonzero(near.similarity[:, k - 1] == near.similarity[:, k])
    if len(tied) == 0:
        return
    turned, step = exact_rows(gallery).T, max(SIMILARITIES_PER_BLOCK // len(gallery), 1)
    for start in range(0, len(tied), step):
        block = tied[start : start + step]
        similarity = (exact_rows(queries[block]) @ turned).clip(-1, 1)
        cut = near.similarity[block, k - 1, None]
        above, equal = similarity > cut, similarity == cut
        left = k - above.sum(axis=1, keepdims=True)
        yield TiedHits(block, similarity, above + equal * (left / equal.sum(axis=1, keepdims=True)))
