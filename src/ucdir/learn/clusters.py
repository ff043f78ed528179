"""k-means of the embeddings of one domain."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ucdir.errors import UcdirError

SAMPLE_ROWS_PER_CLUSTER = (
    64  # rows per cluster that fresh starts look at: twice as many change the inertia by a tenth of a percent
)
MIN_SAMPLE_ROWS = 2**14  # rows that fresh starts look at in any case
SCORES_PER_BLOCK = 2**19  # scores of rows and centroids in a block: 2 MiB stay in the cache from the product to the maximum
MAX_ROWS_PER_BLOCK = 2**14  # most rows in a block


@dataclass(frozen=True)
class Clusters:
    """One clustering of a domain.

    assignment   (M,) int64, cluster of each image
    prototypes   (C, D) unit rows, the centroids at unit length
    inertia      sum of the squared distances to the nearest centroid
    """

    assignment: Tensor
    prototypes: Tensor
    inertia: float

    def to(self, device: torch.device | str) -> "Clusters":
        """The same clusters on another device."""
        return Clusters(self.assignment.to(device), self.prototypes.to(device), self.inertia)

    def bank_means(self, rows: Tensor) -> Tensor:
        """Mean bank row of each cluster: (M, D) -> (C, D), not of unit length; zero for a cluster without images."""
        return _means(rows, self.assignment, len(self.prototypes))


@dataclass(frozen=True)
class _Run:
    """Where one start of k-means came to rest: assignment (M,), centroids (C, D), inertia."""

    assignment: Tensor
    centroids: Tensor
    inertia: float


def kmeans(
    rows: Tensor,
    num_clusters: int,
    iterations: int,
    restarts: int,
    generator: torch.Generator,
    start: Tensor | None = None,
) -> Clusters:
    """Lloyd's k-means, the best of several starts by inertia. A start ends when no image changes its cluster any more.

    rows          (M, D) finite, M >= num_clusters
    iterations    at most this many per start
    restarts      fresh starts, by k-means++. For many rows they use a sample; the best of them continues with all
    generator     on the CPU; the same generator state gives the same clusters
    start         (M,) int64, clusters of the same images at an earlier time: the means of their rows now are one more
                  start, next to a single fresh one

    Raises UcdirError when a value is not finite.
    """
    _refuse_not_finite(rows)
    sample = _sample(rows, num_clusters, generator)
    seeds = (_spread_seeds(sample, num_clusters, generator) for _ in range(restarts if start is None else 1))
    best = min((_lloyd(sample, centroids, iterations) for centroids in seeds), key=_inertia)
    if len(sample) < len(rows):
        best = _lloyd(rows, best.centroids, iterations)
    if start is not None:
        best = min(best, _lloyd(rows, _means(rows, start, num_clusters), iterations), key=_inertia)
    return Clusters(best.assignment, F.normalize(best.centroids, dim=1), best.inertia)


def _inertia(run: _Run) -> float:
    return run.inertia


def _refuse_not_finite(rows: Tensor) -> None:
    if not bool(rows.isfinite().all()):
        bad = int((~rows.isfinite().all(dim=1)).sum())
        raise UcdirError(
            f"{bad} of {len(rows)} embeddings are not finite: the encoder gives NaN or infinity. Lower the "
            f"learning rate (--learning-rate)."
        )


def _sample(rows: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Rows for restarts to look at: all, or a random part of many."""
    count = max(SAMPLE_ROWS_PER_CLUSTER * num_clusters, MIN_SAMPLE_ROWS)
    if len(rows) <= count:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]


def _spread_seeds(rows: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: of a few rows drawn with probability proportional to their squared distance from the seeds so far,
    the one that leaves the least sum of such distances is the next seed.

    Nothing is read back from the device on the way. Arthur & Vassilvitskii 2007, section 7.
    """
    tries = 2 + int(math.log(num_clusters))
    marks = torch.rand(num_clusters, tries, generator=generator, dtype=torch.float64).to(rows.device)
    squares = rows.square().sum(dim=1)
    distance = torch.ones_like(squares)  # to the nearest seed; all equal before the first
    seeds: list[Tensor] = []
    for mark in marks:
        summed = distance.double().clamp_min(1e-30).cumsum(dim=0)
        drawn = torch.searchsorted(summed, mark * summed[-1], right=True).clamp_max(len(rows) - 1)
        tried = rows[drawn]  # (tries, D)
        left = torch.addmm(squares[drawn, None], tried, rows.T, alpha=-2).add_(squares).clamp_min_(0)  # (tries, M)
        if seeds:
            left = torch.minimum(left, distance)
        best = left.sum(dim=1).argmin(keepdim=True)
        distance = left.index_select(0, best)[0]
        seeds.append(tried.index_select(0, best))
    return torch.cat(seeds)


def _lloyd(rows: Tensor, centroids: Tensor, iterations: int) -> _Run:
    """Move centroids to the means of their rows, until no row changes its centroid or `iterations` are over."""
    assignment = _nearest(rows, centroids)
    for _ in range(iterations):
        centroids, before = _move(rows, assignment, centroids), assignment
        assignment = _nearest(rows, centroids)
        if torch.equal(assignment, before):
            break
    return _Run(assignment, centroids, float(_distance(rows, assignment, centroids).double().sum()))


def _nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    """Number of the nearest centroid: (M, D), (C, D) -> (M,). That is the largest r . c - c . c / 2."""
    offset = centroids.square().sum(dim=1) / -2
    turned = centroids.T
    block = min(max(SCORES_PER_BLOCK // len(centroids), 1), MAX_ROWS_PER_BLOCK)
    return torch.cat([torch.addmm(offset, part, turned).max(dim=1).indices for part in torch.split(rows, block)])


def _distance(rows: Tensor, assignment: Tensor, centroids: Tensor) -> Tensor:
    """Squared distance of each row from its centroid, (M,)."""
    parts = zip(torch.split(rows, MAX_ROWS_PER_BLOCK), torch.split(assignment, MAX_ROWS_PER_BLOCK), strict=True)
    return torch.cat([(part - centroids[own]).square().sum(dim=1) for part, own in parts])


def _means(rows: Tensor, assignment: Tensor, num_clusters: int) -> Tensor:
    """Mean row of each cluster: (M, D) -> (C, D); zero for a cluster without rows."""
    sums = rows.new_zeros(num_clusters, rows.shape[1]).index_add_(0, assignment, rows)
    return sums / torch.bincount(assignment, minlength=num_clusters).clamp(min=1)[:, None]


def _move(rows: Tensor, assignment: Tensor, centroids: Tensor) -> Tensor:
    """Each centroid to the mean of its rows; a centroid without rows to the row that is farthest from its own."""
    moved = _means(rows, assignment, len(centroids))
    empty = torch.nonzero(torch.bincount(assignment, minlength=len(centroids)) == 0)[:, 0]
    if len(empty):
        moved[empty] = rows[_distance(rows, assignment, centroids).topk(len(empty)).indices]
    return moved
