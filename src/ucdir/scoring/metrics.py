"""How good is a ranking? Exact cosine rankings and the figures made from them. Imports nothing of ours."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from ucdir.retrieval.exact_search import exact_rows

COARSE = -(2.0**30)  # as a whole number, a cosine has 31 bits, best least
QUERIES_PER_CHUNK = 64
SIMILARITIES_PER_BLOCK = 2**20  # similarities that a thread has in memory at a time

Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]
Doubles = NDArray[np.float64]
Block = tuple[Counts, Doubles, Doubles, Doubles]


@dataclass(frozen=True)
class Metric:
    """One figure over all queries: a ratio of two sums, in [0, 1]; NaN when nothing counts.

    `low` and `high` bound the central 95 % of its bootstrap resamples over queries.
    """

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScores:
    """The figures of the queries of one class, without intervals. `class_id` is the id that was passed in."""

    class_id: int
    queries: int
    relevant: int
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class RetrievalScores:
    """What one ranking of G gallery images for Q queries is worth. Q' = queries with a class, K = len(ks).

    ks                 the cut-offs, ascending
    query_rows         (Q',) int64, which queries were scored
    query_classes      (Q',) int64, their class ids
    relevant           (Q',) int64, gallery images of the query's class
    hits               (Q', K) float64, relevant images among the first k; in expectation where ties are cut
    capped_hits        (Q', K) float64, relevant images among the first min(k, relevant); likewise
    average_precision  (Q', K + 1) float64, at each k and, last, over the whole gallery; 0 if none relevant;
                       in expectation over the orders of equal cosines
    metrics            P@k, capped P@k, mAP@k, R@k for each k, then mAP@All, each with its interval
    per_class          the same figures for each class among the queries, by class id
    gallery_size       G
    without_class      queries left out because they have no class
    without_relevant   scored queries whose class the gallery lacks: 0 in P@k, outside all other figures

    Denominators. P@k: k for every query, also where k > G or fewer than k are relevant. Capped P@k (the
    paper's): min(k, relevant), with the hits among as many first ranks, summed over queries before dividing.
    mAP@k: min(k, relevant), mean over queries with a relevant image. R@k: relevant, mean over the same.

    McSherry & Najork 2008, Computing information retrieval performance measures efficiently in the presence of tied scores.
    """

    ks: tuple[int, ...]
    query_rows: Tensor
    query_classes: Tensor
    relevant: Tensor
    hits: Tensor
    capped_hits: Tensor
    average_precision: Tensor
    metrics: tuple[Metric, ...]
    per_class: tuple[ClassScores, ...]
    gallery_size: int
    without_class: int
    without_relevant: int

    @property
    def chance(self) -> float:
        """P@k of a random order, for any k: the mean share of the gallery that is relevant, or NaN."""
        total = self.gallery_size * len(self.relevant)
        return float(self.relevant.sum()) / total if total else math.nan

    def ceiling(self, k: int) -> float:
        """P@k of a perfect order: below 1 where fewer than k images are relevant; NaN without queries."""
        return _ratio(float(self.relevant.clamp_max(k).sum()), k * len(self.relevant))

    def __getitem__(self, name: str) -> Metric:
        """The figure called `name`, such as 'P@5', 'capped P@5', 'mAP@5', 'R@5' or 'mAP@All'."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)


@dataclass(frozen=True)
class _Ties:
    """T runs of equal cosines, each of relevant and irrelevant images, in the rankings of a block of queries.

    first     (T,) flat place (query x G + rank - 1) where each begins, rising
    size      (T,) images, n >= 2
    relevant  (T,) relevant ones, 0 < r < n
    """

    first: Counts
    size: Counts
    relevant: Counts


def score(
    queries: Tensor,
    gallery: Tensor,
    query_classes: Tensor,
    gallery_classes: Tensor,
    ks: Sequence[int],
    resamples: int = 1000,
    seed: int = 0,
    block_size: int | None = None,
) -> RetrievalScores:
    """Rank the gallery for every query by cosine and score the rankings; equal cosines in expectation.

    queries          (Q, D) float, any length; a zero row has similarity 0 to everything
    gallery          (G, D) float
    query_classes    (Q,) int64, -1 = no class: the query is left out and counted
    gallery_classes  (G,) int64, -1 = no class: relevant to nothing, still ranked
    ks               cut-offs >= 1; k > G is allowed
    resamples, seed  bootstrap over queries for the 95 % intervals
    block_size       queries ranked at a time; changes memory, never a result; None = 8 MiB of similarities a thread

    Of images with equal cosines every order is equally likely, and each figure is its mean over these orders, exactly. So the
    order of the gallery changes nothing, and an encoder that tells no image from another scores chance.

    Raises ValueError for shapes that do not fit, ks below 1, or embeddings that are not finite. On a CPU numpy multiplies with
    one thread meanwhile, in the whole process: not for two threads at once.
    """
    ks = _checked_ks(ks)
    _check_pair(queries, query_classes, "query")
    _check_pair(gallery, gallery_classes, "gallery")
    rows = (query_classes >= 0).nonzero()[:, 0]
    labels, gallery_labels = query_classes[rows], gallery_classes.to(query_classes.device)
    block_size = block_size or max(SIMILARITIES_PER_BLOCK // max(len(gallery), 1), 1)
    blocks = _score_blocks(queries[rows], gallery, labels, gallery_labels, ks, block_size)
    relevant, hits, capped, precision = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*blocks, strict=True))
    figures = _figures(ks, relevant, hits, capped, precision)
    labels = labels.cpu()
    return RetrievalScores(
        ks=ks,
        query_rows=rows.cpu(),
        query_classes=labels,
        relevant=relevant,
        hits=hits,
        capped_hits=capped,
        average_precision=precision,
        metrics=_with_intervals(figures, resamples, seed),
        per_class=_class_scores(labels, relevant, figures),
        gallery_size=len(gallery),
        without_class=len(queries) - len(rows),
        without_relevant=int((relevant == 0).sum()),
    )


def _exact(rows: Tensor) -> Tensor:
    """(N, D) float64 by `exact_rows`, on the same device where it has float64."""
    values = rows.detach().cpu()
    exact = torch.from_numpy(exact_rows((values.float() if values.dtype is torch.bfloat16 else values).numpy()))
    return exact if rows.device.type == "mps" else exact.to(rows.device)


def _checked_ks(ks: Sequence[int]) -> tuple[int, ...]:
    if not ks or min(ks) < 1:
        raise ValueError(f"ks={list(ks)}: give at least one k, each 1 or more.")
    return tuple(sorted(set(ks)))


def _check_pair(rows: Tensor, classes: Tensor, side: str) -> None:
    if rows.ndim != 2 or classes.shape != rows.shape[:1]:
        shapes = f"{tuple(rows.shape)} and {tuple(classes.shape)}"
        raise ValueError(f"{side} embeddings and classes have shapes {shapes}: expected (N, D) and (N,).")


def _score_blocks(
    queries: Tensor,
    gallery: Tensor,
    labels: Tensor,
    gallery_labels: Tensor,
    ks: tuple[int, ...],
    block_size: int,
) -> list[Block]:
    """Blocks of queries, each ranked in a thread -> relevant (B,), hits, capped hits (B, K), precision (B, K + 1).

    Each thread multiplies with one thread of numpy's: products by several would leave some spinning while the others sort.
    """
    queries, turned = _exact(queries), (_exact(gallery) * COARSE).T  # by a power of two, so products stay exact
    wanted, there = labels.cpu().numpy()[:, None], gallery_labels.cpu().numpy()
    blocks = [slice(start, start + block_size) for start in range(0, max(len(queries), 1), block_size)]

    def scored(block: slice) -> Block:
        return _score_ranking(*_ranked(_products(queries[block], turned), wanted[block] != there), ks)

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(scored, blocks))


def _products(queries: Tensor, turned: Tensor) -> Doubles:
    """(B, D) @ (D, G) in numpy, on a CPU also made there: that is fast on every one."""
    if queries.is_cpu:
        return queries.numpy() @ turned.numpy()  # type: ignore[no-any-return]
    return (queries @ turned).cpu().numpy()


def _ranked(values: Doubles, irrelevant: Flags) -> tuple[Flags, _Ties]:
    """(B, G) exact cosines times COARSE and what is irrelevant -> (B, G), what is relevant in order of rank, and the ties.

    Of images with equal cosines the relevant ones come first.

    Sorts short numbers alone, which is many times faster than to sort long ones and say where each was: the whole part of a
    value, whose last bit makes room for whether the image is irrelevant. Sorted, those bits are the answer, except for
    images that share all other bits.
    """
    keys = _coarse(values)
    keys |= irrelevant
    keys.sort(axis=1)
    match: Flags = (keys.astype(np.uint8) & 1) == 0
    shared = (keys[:, 1:] ^ keys[:, :-1]) == 1  # one relevant, one not
    ties = [np.empty((3, 0), np.int64)]
    for row in np.flatnonzero(shared.any(axis=1)):
        ranks = keys[row] & -2
        found = _settle(match[row], ranks, np.unique(ranks[:-1][shared[row]]), values[row], irrelevant[row])
        found[0] += row * match.shape[1]
        ties.append(found)
    return match, _Ties(*np.concatenate(ties, axis=1))


def _coarse(values: Doubles) -> NDArray[np.int32]:
    """Even whole numbers, never in another order than the values."""
    keys = values.astype(np.int32)
    keys &= -2
    return keys


def _settle(match: Flags, ranks: NDArray[np.int32], tied: NDArray[np.int32], values: Doubles, irrelevant: Flags) -> Counts:
    """Put the images of one query whose coarse values are tied in order of value, and find those whose values are equal.

    match       (G,) written: what is relevant in order of rank, of equal values the relevant first
    ranks       (G,) coarse values in order of rank
    tied        (T,) those that relevant and irrelevant images share
    values      (G,) in the order of the gallery, best least
    irrelevant  (G,) in the order of the gallery
    returns     (3, t) for each run of equal values of relevant and irrelevant images: place, size, relevant images
    """
    columns = np.flatnonzero(np.isin(_coarse(values), tied))
    columns = columns[np.lexsort((irrelevant[columns], values[columns]))]
    places, found = np.flatnonzero(np.isin(ranks, tied)), ~irrelevant[columns]
    match[places] = found
    edges = np.flatnonzero(np.diff(values[columns], prepend=np.nan, append=np.nan))  # of runs of equal values
    size, relevant = np.diff(edges), np.add.reduceat(found.astype(np.int64), edges[:-1])
    mixed = (relevant > 0) & (relevant < size)
    return np.stack([places[edges[:-1]], size, relevant])[:, mixed]


def _score_ranking(match: Flags, ties: _Ties, ks: tuple[int, ...]) -> Block:
    """match (B, G) in order of rank -> relevant (B,), hits, capped hits (B, K), precision (B, K + 1)."""
    found = np.flatnonzero(match)  # (E,), query after query
    first = np.arange(len(match) + 1) * match.shape[1]
    before = np.searchsorted(found, first)
    relevant = np.diff(before)
    ranks = np.minimum([*ks, match.shape[1]], match.shape[1])
    capped = np.minimum([*ks, match.shape[1]], relevant[:, None])  # (B, K + 1)
    ends, capped_ends = first[:-1, None] + ranks, first[:-1, None] + capped
    hits, capped_hits = (np.searchsorted(found, places) - before[:-1, None] for places in (ends, capped_ends))
    place = np.arange(1, len(found) + 1) - np.repeat(before[:-1], relevant)
    rank = found + 1 - np.repeat(first[:-1], relevant)
    sums = _sums(np.where(_in_ties(found, ties), 0.0, place / rank), before[:-1], hits)
    if len(ties.first):
        above = np.searchsorted(found, ties.first) - before[ties.first // match.shape[1]]
        sums += _tied_precision(ties, above, first, ends)
        hits, capped_hits = (_expected(*pair, ties, above) for pair in ((hits, ends), (capped_hits, capped_ends)))
    kept = (counts[:, :-1].astype(np.float64) for counts in (hits, capped_hits))
    return relevant, *kept, sums / np.maximum(capped, 1)


def _in_ties(places: Counts, ties: _Ties) -> Flags | np.bool_:
    """Which flat places (E,) belong to a run of ties."""
    if len(ties.first) == 0:
        return np.False_
    run = np.searchsorted(ties.first, places, side="right") - 1  # the last run that begins there or before; -1 = none
    return (run >= 0) & (places < ties.first[run] + ties.size[run])


def _expected(hits: Counts, ends: Counts, ties: _Ties, above: Counts) -> Doubles:
    """Hits (B, K) in expectation; given are those of the order in which relevant images come first in each run.

    ends    (B, K) flat places before which a hit counts
    above   (T,) relevant images of the query above each run

    The first m of n images in random order hold m r / n of the r relevant ones.
    """
    run = np.searchsorted(ties.first, ends) - 1  # the last run that begins above the cut-off; -1 = none
    inside = ends - ties.first[run]
    is_cut = (run >= 0) & (inside < ties.size[run])
    return np.where(is_cut, above[run] + ties.relevant[run] * inside / ties.size[run], hits)


def _tied_precision(ties: _Ties, above: Counts, first: Counts, ends: Counts) -> Doubles:
    """Expected sums of the precision at relevant ranks, over the ranks in runs of ties.

    above    (T,) relevant images of the query above each run
    first    (B + 1,) flat places where the rankings begin
    ends     (B, K) flat places before which a rank counts
    returns  (B, K)

    Rank j of n tied ones holds a relevant image with probability r / n; given that, the j - 1 before it hold
    (j - 1) (r - 1) / (n - 1) relevant ones on average. McSherry & Najork 2008.
    """
    size, start = ties.size, np.cumsum(ties.size) - ties.size
    inside = np.arange(size.sum()) - np.repeat(start, size)  # j - 1
    places = np.repeat(ties.first, size) + inside
    rank = np.repeat(ties.first % (first[1] - first[0]) + 1, size) + inside
    others = np.repeat((ties.relevant - 1) / (size - 1), size) * inside
    terms = np.repeat(ties.relevant / size, size) * (np.repeat(above + 1, size) + others) / rank
    starts = np.searchsorted(places, first[:-1])
    return _sums(terms, starts, np.searchsorted(places, ends) - starts[:, None])


def _sums(values: Doubles, starts: Counts, counts: Counts) -> Doubles:
    """Sums of the first counts (B, K) values from each of starts (B,): values (E,) -> (B, K)."""
    ends = starts[:, None] + counts
    edges = np.stack([np.broadcast_to(starts[:, None], counts.shape), ends], axis=2)
    sums = np.add.reduceat(np.append(values, 0.0), edges.ravel())[::2].reshape(counts.shape)
    return np.where(counts > 0, sums, 0.0)  # of an empty stretch reduceat gives its first value


def _figures(
    ks: tuple[int, ...], relevant: Tensor, hits: Tensor, capped: Tensor, precision: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Every figure as two (Q',) float64 columns: what a query adds above and below the line."""
    answerable = (relevant > 0).double()
    figures = {}
    for column, k in enumerate(ks):
        figures[f"P@{k}"] = (hits[:, column], torch.full_like(answerable, k))
        figures[f"capped P@{k}"] = (capped[:, column], relevant.clamp_max(k).double())
        figures[f"mAP@{k}"] = (precision[:, column], answerable)
        figures[f"R@{k}"] = (hits[:, column] / relevant.clamp_min(1).double(), answerable)
    figures["mAP@All"] = (precision[:, -1], answerable)
    return figures


def _class_scores(labels: Tensor, relevant: Tensor, figures: dict[str, tuple[Tensor, Tensor]]) -> tuple[ClassScores, ...]:
    classes, which, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    there = torch.zeros_like(classes).scatter_(0, which, relevant)  # the same for all queries of a class
    ratios = []
    for above, below in figures.values():
        totals = (torch.zeros(len(classes), dtype=torch.float64).index_add_(0, which, part) for part in (above, below))
        ratios.append([_ratio(top, bottom) for top, bottom in zip(*(total.tolist() for total in totals), strict=True)])
    rows = zip(classes.tolist(), counts.tolist(), there.tolist(), strict=True)
    return tuple(
        ClassScores(
            *row, tuple(Metric(name, ratio[c], math.nan, math.nan) for name, ratio in zip(figures, ratios, strict=True))
        )
        for c, row in enumerate(rows)
    )


def _with_intervals(figures: dict[str, tuple[Tensor, Tensor]], resamples: int, seed: int) -> tuple[Metric, ...]:
    above = torch.stack([column for column, _ in figures.values()], dim=1)  # (Q', F)
    below = torch.stack([column for _, column in figures.values()], dim=1)
    low, high = _bootstrap(above, below, resamples, seed)
    totals = zip(figures, *(column.tolist() for column in (above.sum(dim=0), below.sum(dim=0), low, high)), strict=True)
    return tuple(Metric(name, _ratio(top, bottom), least, most) for name, top, bottom, least, most in totals)


def _bootstrap(above: Tensor, below: Tensor, resamples: int, seed: int) -> tuple[Tensor, Tensor]:
    """(Q', F) numerators and denominators -> (F,) 2.5 % and 97.5 % quantiles of the resampled ratio."""
    count, figures = above.shape
    if count == 0 or resamples < 1:
        nothing = torch.full((figures,), math.nan, dtype=torch.float64)
        return nothing, nothing
    generator = torch.Generator().manual_seed(seed)
    ratios = []
    for start in range(0, resamples, QUERIES_PER_CHUNK):
        drawn = torch.randint(count, (min(QUERIES_PER_CHUNK, resamples - start), count), generator=generator)
        times = torch.from_numpy(np.stack([np.bincount(row, minlength=count) for row in drawn.numpy()])).double()
        ratios.append((times @ above) / (times @ below))
    sampled = torch.cat(ratios)  # (resamples, F)
    low, high = sampled.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return low, high


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan
