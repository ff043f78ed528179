"""k-means of the embeddings of one domain."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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
        sums = torch.zeros_like(self.prototypes, dtype=rows.dtype).index_add_(0, self.assignment, rows)
        counts = torch.bincount(self.assignment, minlength=len(self.prototypes)).clamp(min=1)
        return sums / counts[:, None]


def kmeans(rows: Tensor, num_clusters: int, iterations: int, restarts: int, generator: torch.Generator) -> Clusters:
    """Lloyd's k-means, started with k-means++, the best of `restarts` by inertia.

    rows          (M, D), M >= num_clusters
    generator     on the CPU; the same generator state gives the same clusters
    """
    best: tuple[float, Tensor, Tensor] | None = None
    for _ in range(restarts):
        centroids = _spread_seeds(rows, num_clusters, generator)
        for _ in range(iterations):
            centroids = _move(rows, centroids)
        distance, assignment = _nearest(rows, centroids)
        inertia = float(distance.sum())
        if best is None or inertia < best[0]:
            best = inertia, assignment, centroids
    assert best is not None
    inertia, assignment, centroids = best
    return Clusters(assignment, F.normalize(centroids, dim=1), inertia)


def _spread_seeds(rows: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next seed is drawn with probability proportional to its squared distance from the seeds so far."""
    first = int(torch.randint(len(rows), (1,), generator=generator))
    chosen = [first]
    distance = (rows - rows[first]).square().sum(dim=1)
    for _ in range(num_clusters - 1):
        weights = distance.double().cpu()
        if not float(weights.sum()) > 0:
            weights = torch.ones_like(weights)
        mark = torch.rand(1, generator=generator, dtype=torch.float64) * weights.sum()
        drawn = min(int(torch.searchsorted(weights.cumsum(0), mark)), len(rows) - 1)
        chosen.append(drawn)
        distance = torch.minimum(distance, (rows - rows[drawn]).square().sum(dim=1))
    return rows[chosen].clone()


def _nearest(rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to and number of the nearest centroid: (M, D), (C, D) -> (M,), (M,)."""
    squared = rows.square().sum(dim=1, keepdim=True) - 2 * rows @ centroids.T + centroids.square().sum(dim=1)
    distance, assignment = squared.min(dim=1)
    return distance.clamp(min=0), assignment


def _move(rows: Tensor, centroids: Tensor) -> Tensor:
    """Each centroid to the mean of its rows; a centroid without rows to the row that is farthest from its own."""
    distance, assignment = _nearest(rows, centroids)
    sums = torch.zeros_like(centroids).index_add_(0, assignment, rows)
    counts = torch.bincount(assignment, minlength=len(centroids))
    moved = sums / counts.clamp(min=1)[:, None]
    empty = torch.nonzero(counts == 0)[:, 0]
    if len(empty):
        moved[empty] = rows[distance.topk(len(empty)).indices]
    return moved
