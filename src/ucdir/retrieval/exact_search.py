"""Exact nearest neighbours by cosine, in blocks: Q x G is never in memory, nor a copy of the gallery.

Imports numpy only, so that searching starts fast.
"""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]
Rank = Callable[[Rows], Rows]

GRID = 2.0**26
ROUNDING = 2.0**-24  # unit roundoff of float32
UNIT_TOLERANCE = 2.0**-18  # largest difference from 1 of the squared length of a row that needs no scaling
SCORES_PER_TILE = 2**21  # float32 scores in a tile: 8 MiB stay in the cache between product and filter
VALUES = 2**22  # values in a block of gallery rows
GROUP = 32  # rows whose best score is compared first
SAMPLE_ROWS = 4096  # rows looked at beforehand in a large gallery
SCORES_PER_RUN = 4096  # contiguous scores while maxima are taken
SINGLE_PAIR_COST = 32  # scoring one pair again costs as much as this many within a matrix product
PAIRS = 4096  # pairs scored again at a time
THREADS = os.cpu_count() or 1


@dataclass(frozen=True)
class Neighbours:
    """The k best gallery rows of each query, best first; equal similarities in order of the gallery row, or of their rank.

    rows        (Q, k) int64 gallery rows
    similarity  (Q, k) float64 cosines in [-1, 1]
    """

    rows: Rows
    similarity: Doubles


def nearest(
    queries: NDArray[Any],
    gallery: NDArray[Any],
    k: int,
    candidates: Rows | None = None,
    unit: bool = False,
    rank: Rank | None = None,
    query_block: int = 1024,
    gallery_block: int | None = None,
) -> Neighbours:
    """The k gallery rows with the largest cosine to each query, exactly: what sorting all float64 cosines would give.

    queries     (Q, D) float, any length
    gallery     (G, D) float, memory-mapped or not; fastest as float32 unit rows. Read once, block by block
    k           >= 1; more than there is gives all
    candidates  rising gallery rows to look at, None = all
    unit        True = `are_unit(gallery)` is known to hold: not checked again, which halves the time of a single query
    rank        gallery rows (n,) -> distinct numbers (n,), by which rows of equal similarity are ordered, the least first;
                asked only if there are such rows. None = by gallery row
    *_block     rows at a time, None = what fits the cache; they change memory and speed, never a result

    All rows are scored in float32. A row stays in the race while its score is no further below the k-th best cosine
    known than `margin` allows; those few are scored again in float64, on the grid of `exact_rows`.

    Raises ValueError for k < 1, different D, candidates that do not rise, or values that are not finite.
    """
    if k < 1:
        raise ValueError(f"k={k}: give 1 or more.")
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(f"queries {queries.shape} and gallery {gallery.shape} differ in dimension.")
    source = _Source(np.asarray(gallery), _checked(candidates, len(gallery)), unit)
    k = min(k, len(source))
    exact = exact_rows(queries)
    if k == 0 or len(exact) == 0:
        return Neighbours(np.empty((len(exact), k), np.int64), np.empty((len(exact), k)))
    races = [_Race(exact[start : start + query_block], k, rank) for start in range(0, len(exact), query_block)]
    _run(races, source, gallery_block or _fitting(len(races[0].queries), queries.shape[1]))
    found = [race.result() for race in races]
    similarity = np.concatenate([part.similarity for part in found]).clip(-1, 1)
    return Neighbours(np.concatenate([part.rows for part in found]), similarity)


def exact_rows(rows: NDArray[Any]) -> Doubles:
    """Unit rows on a grid on which dot products come out the same however they are added up.

    rows     (N, D) float, any length
    returns  (N, D) float64, multiples of 2**-26: each is within 2**-27 of the unit row

    Products are multiples of 2**-52 and, for unit rows, every partial sum stays below 2, so float64 adds them without rounding.
    Identical images tie exactly, and block sizes, threads and devices change nothing. Raises ValueError for a value that
    is not finite.
    """
    exact = np.array(rows, dtype=np.float64, order="C")
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.sqrt(np.einsum("nd,nd->n", exact, exact))
    bad = int((~np.isfinite(length)).sum())
    if bad:
        raise ValueError(f"{bad} of {len(rows)} embeddings are not finite: the encoder gives NaN or infinity.")
    exact /= np.maximum(length, 1e-30)[:, None] / GRID
    np.rint(exact, out=exact)
    exact /= GRID
    return exact


def are_unit(gallery: NDArray[Any]) -> bool:
    """Are all rows (G, D) finite float32 rows of length 1, so that they can be scanned as they are? Reads them once."""
    if gallery.dtype != np.float32:
        return False
    step = _fitting(1, gallery.shape[1])
    return all(_all_unit(np.asarray(gallery[start : start + step])) for start in range(0, len(gallery), step))


def margin(dim: int) -> float:
    """A bound on |float32 score - float64 cosine| of two rows of `dim` values, for any order of summation.

    With u = 2**-24 and gamma = dim u / (1 - dim u), a float32 dot product of x and y is within gamma |x| |y| of the true
    one (Higham 2002, Accuracy and Stability of Numerical Algorithms, 3.1, and Cauchy-Schwarz). The rest is what scores and
    cosines differ by before rounding: the gallery row's length, seen as a float32 product within UNIT_TOLERANCE of 1; both rows
    rounded to float32; and the grid of `exact_rows`, 2**-27 per value. The last factor covers products of such terms.
    """
    gamma = dim * ROUNDING / (1 - dim * ROUNDING)
    square = (UNIT_TOLERANCE + ROUNDING + gamma) / (1 - gamma)  # |length ** 2 - 1|
    length = square / (2 - square)
    return (gamma + length + 2 * ROUNDING + math.sqrt(dim) * 2.0**-27) * (1 + 2 * length + 1e-3)


@dataclass(frozen=True)
class _Source:
    """The gallery rows to look at. Memory-mapped arrays are read here and nowhere else."""

    gallery: NDArray[Any]
    wanted: Rows | None
    unit: bool

    def __len__(self) -> int:
        return len(self.gallery) if self.wanted is None else len(self.wanted)

    def block(self, start: int, size: int) -> "_Block":
        """Up to `size` of the wanted rows, beginning with number `start`."""
        end = min(start + size, len(self))
        rows = np.arange(start, end) if self.wanted is None else self.wanted[start:end]
        whole = int(rows[-1]) - int(rows[0]) + 1 == len(rows)
        values = self.gallery[int(rows[0]) : int(rows[-1]) + 1] if whole else self.gallery[rows]
        return _Block(rows, values, _scannable(values, self.unit))

    def blocks(self, size: int, pool: Executor) -> Iterator["_Block"]:
        """All blocks in order; the next one is read and checked while the caller works on this one."""
        waiting = pool.submit(self.block, 0, size)
        for start in range(size, len(self), size):
            ready, waiting = waiting.result(), pool.submit(self.block, start, size)
            yield ready
        yield waiting.result()

    def sample(self, size: int) -> Floats:
        """(size, D) rows to scan, spread evenly over the wanted ones, so that no order of the gallery fools them."""
        places = np.arange(size) * len(self) // size
        return _scannable(self.gallery[places if self.wanted is None else self.wanted[places]], self.unit)


@dataclass(frozen=True)
class _Block:
    """Some of the gallery: its rows (g,), their values (g, D) as stored, and the same rows as they are scanned."""

    rows: Rows
    values: NDArray[Any]
    scanned: Floats


class _Race:
    """The k best of the gallery rows seen so far, which come in rising order, for q queries.

    queries  (q, D) float64, on the grid
    scanned  (q, D) the same in float32
    cut      (q,) float64: below it a row is out: the k-th best seen; before, less than that
    last     (q,) the k-th best row, to which equals compare; -1 while it is not known, and equals of `cut` are out
    floor    (q,) float32: a row whose score is below it is out; -inf while nothing is known
    """

    def __init__(self, queries: Doubles, k: int, rank: Rank | None) -> None:
        self.queries, self.k, self.rank = queries, k, rank
        self.scanned: Floats = queries.astype(np.float32)
        self._pairs = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]  # query, row, similarity
        self._waiting = 0
        self.margin = margin(queries.shape[1])
        self.last = np.full(len(queries), -1)
        self.pass_above(np.full(len(queries), -np.inf))

    def pass_above(self, cut: Doubles) -> None:
        """Similarities (q,) that at least k rows are known to exceed."""
        self.cut = cut
        self.floor = np.nextafter((cut - self.margin).astype(np.float32), np.float32(-np.inf))

    def enter(self, query: Rows, row: Rows, similarity: Doubles) -> None:
        """Add pairs (query, row) with float64 similarity. Rows follow all earlier ones; equal ones come in rising order."""
        better = similarity > self.cut[query]
        if self.rank is not None:
            even = np.flatnonzero((similarity == self.cut[query]) & (self.last[query] >= 0))
            if len(even):
                better[even] = self.rank(row[even]) < self.rank(self.last[query[even]])
        self._pairs.append((query[better], row[better], similarity[better]))
        self._waiting += int(better.sum())
        if self._waiting >= len(self.queries) * self.k:
            self._settle()

    def result(self) -> Neighbours:
        self._settle()
        (_, rows, similarity) = self._pairs[0]
        return Neighbours(rows.reshape(-1, self.k), similarity.reshape(-1, self.k))

    def _settle(self) -> None:
        """Keep the k best of each query."""
        query, row, similarity = (np.concatenate(column) for column in zip(*self._pairs, strict=True))
        order = self._order(query.astype(np.min_scalar_type(len(self.queries))), row, similarity)  # short integers sort fast
        counts = np.bincount(query, minlength=len(self.queries))
        place = np.arange(len(order)) - np.repeat(counts.cumsum() - counts, counts)
        order = order[place < self.k]
        self._pairs, self._waiting = [(query[order], row[order], similarity[order])], 0
        ends = np.minimum(counts, self.k).cumsum() - 1
        is_full = counts >= self.k
        self.last = np.where(is_full, row[order[ends]], self.last)
        self.pass_above(np.where(is_full, similarity[order[ends]], self.cut))

    def _order(self, query: NDArray[Any], row: Rows, similarity: Doubles) -> Rows:
        """Places of pairs by query, then by similarity, largest first, then by rank; the sorts are stable."""
        order = np.lexsort((-similarity, query))
        if self.rank is None:
            return order
        sorted_query, sorted_similarity = query[order], similarity[order]
        same = (sorted_query[1:] == sorted_query[:-1]) & (sorted_similarity[1:] == sorted_similarity[:-1])
        return np.lexsort((self.rank(row), -similarity, query)) if same.any() else order


def _run(races: list[_Race], source: _Source, step: int) -> None:
    """Show all wanted rows to all races, block by block."""
    k = races[0].k
    size = max(4 * k, min(SAMPLE_ROWS, len(source) // 16))
    if len(source) > 4 * size:
        sampled = source.sample(size)
        for race in races:
            race.pass_above(_kth(race.scanned, sampled, k) - race.margin)
    tile = np.empty(max(len(race.queries) * _padded(step, len(race.queries)) for race in races), np.float32)
    with ThreadPoolExecutor(THREADS) as pool:
        for block in source.blocks(step, pool):
            for race in races:
                _show(race, block, tile, pool)


def _kth(queries: Floats, sampled: Floats, k: int) -> Doubles:
    """queries (q, D), sampled (n, D) -> (q,) the k-th largest float32 score of each query."""
    step = max(1, SCORES_PER_TILE // len(sampled))
    parts = (queries[start : start + step] @ sampled.T for start in range(0, len(queries), step))
    return np.concatenate([np.partition(part, -k, axis=1)[:, -k] for part in parts]).astype(np.float64)


def _show(race: _Race, block: _Block, tile: Floats, pool: Executor) -> None:
    """Let those pairs of a block enter the race that may win."""
    passing = None if np.isneginf(race.floor[0]) else _passing(race, block.scanned, tile, pool)
    if passing is None:
        race.enter(*_all_pairs(race, block))
        return
    query, place = passing
    if len(query):
        race.enter(query, block.rows[place], _similarity(race.queries, query, block.values, place))


def _passing(race: _Race, rows: Floats, tile: Floats, pool: Executor) -> tuple[Rows, Rows] | None:
    """The pairs (query, place in the block) whose float32 score reaches the query's floor, by place; None = too many."""
    count = len(race.queries)
    size = _padded(len(rows), count)
    scores = tile[: size * count].reshape(size, count)
    np.matmul(rows, race.scanned.T, out=scores[: len(rows)])
    scores[len(rows) :] = -np.inf
    groups = scores.reshape(-1, GROUP, _width(len(rows), count), count)
    parts = np.array_split(groups, min(len(groups), THREADS))
    others = [pool.submit(_open_groups, part, race.floor) for part in parts[1:]]
    found = [_open_groups(parts[0], race.floor), *(other.result() for other in others)]
    starts = np.cumsum([0] + [part.size // count for part in parts[:-1]])
    pairs = [(part[0], part[1] + start) for part, start in zip(found, starts, strict=True) if part is not None]
    if len(pairs) < len(found):
        return None
    query, place = (np.concatenate(column) for column in zip(*pairs, strict=True))
    order = np.argsort(place, kind="stable")
    return query[order], place[order]


def _open_groups(groups: Floats, floor: Floats) -> tuple[Rows, Rows] | None:
    """groups (n, GROUP, w, q), floor (q,) -> the pairs (query, place among n * GROUP * w) that reach the floor.

    Only groups whose largest score does are searched. Their rows are w apart, so that the maxima are taken of long
    runs of memory. None where scoring all pairs again costs less than scoring those found one by one.
    """
    wide, count = groups.shape[2:]
    opened = np.flatnonzero(groups.max(axis=1) >= floor)
    most = groups.size // count * (1 + count / SINGLE_PAIR_COST)
    if len(opened) * GROUP > most and np.count_nonzero(groups >= floor) > most:
        return None
    part, rest = np.divmod(opened, wide * count)
    offset, query = np.divmod(rest, count)
    which, inside = np.nonzero(groups[part, :, offset, query] >= floor[query, None])
    return query[which], (part[which] * GROUP + inside) * wide + offset[which]


def _similarity(queries: Doubles, query: Rows, values: NDArray[Any], place: Rows) -> Doubles:
    """(n,) float64 cosines of the pairs (query, place in the block)."""
    distinct, which = np.unique(place, return_inverse=True)
    exact = exact_rows(values[distinct])
    parts = (slice(start, start + PAIRS) for start in range(0, len(query), PAIRS))
    return np.concatenate([np.vecdot(queries[query[part]], exact[which[part]]) for part in parts])


def _all_pairs(race: _Race, block: _Block) -> tuple[Rows, Rows, Doubles]:
    """For every query the rows of the block that reach its cut, or of many the k best and their equals: flat pairs with
    their similarity.
    """
    similarity = race.queries @ exact_rows(block.values).T  # (q, g)
    query, place = np.nonzero(similarity >= race.cut[:, None])
    if len(query) > len(race.queries) * race.k and race.k < len(block.rows):
        least = np.partition(similarity, -race.k, axis=1)[:, -race.k]
        query, place = np.nonzero(similarity >= np.maximum(least, race.cut)[:, None])
    return query, block.rows[place], similarity[query, place]


def _scannable(values: NDArray[Any], unit: bool) -> Floats:
    """(g, D) as float32 rows of length 1: as they are, where that is known or seen."""
    with np.errstate(over="ignore"):
        rows: Floats = np.ascontiguousarray(values, dtype=np.float32)
    return rows if unit or _all_unit(rows) else exact_rows(values).astype(np.float32)


def _all_unit(rows: Floats) -> bool:
    """Is every squared length finite and within UNIT_TOLERANCE of 1?"""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((np.abs(np.vecdot(rows, rows) - 1) <= UNIT_TOLERANCE).all())


def _fitting(queries: int, dim: int) -> int:
    """Gallery rows per step, so that their scores with this many queries fit a tile."""
    return max(min(SCORES_PER_TILE // max(queries, 1), VALUES // max(dim, 1)) // GROUP, 1) * GROUP


def _width(rows: int, queries: int) -> int:
    """Contiguous groups: enough for runs of a few thousand scores."""
    return max(1, min(SCORES_PER_RUN // queries, -(-rows // GROUP)))


def _padded(rows: int, queries: int) -> int:
    """`rows` rounded up to whole groups."""
    whole = GROUP * _width(rows, queries)
    return -(-rows // whole) * whole


def _checked(candidates: Rows | None, count: int) -> Rows | None:
    if candidates is None:
        return None
    rows = np.asarray(candidates, dtype=np.int64)
    if len(rows) and (rows[0] < 0 or rows[-1] >= count or (np.diff(rows) <= 0).any()):
        raise ValueError(f"candidates must be rising gallery rows from 0 to {count - 1}, each once.")
    return rows
