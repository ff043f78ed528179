"""Figures of an epoch that need no labels, and the score that chooses an epoch by them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ucdir.learn.clusters import Clusters
from ucdir.retrieval.exact_search import Neighbours, nearest
from ucdir.retrieval.ties import tied_hits
from ucdir.scoring.training_free import smoothed

REFERENCE_IMAGES = 4_000  # images of a domain, at most, in a reference
MAX_REFERENCE_HITS = 50  # of an image in a reference, at most
REFERENCE_DIVISOR = 20  # one in this many images of the gallery is looked at: the first twentieth

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """What is found without training: the first hits, across domains, of the smoothed rows of the frozen backbone.

    image_ids   (m,) int64 of each domain: all of its images, or a sample
    hits        for each direction, in the order of `permutations`: (m, k) int64, places in `image_ids` of the other domain.
                Of equally similar images the first: one choice for all epochs, which no class has a part in
    """

    image_ids: tuple[Tensor, ...]
    hits: tuple[Tensor, ...]


@dataclass(frozen=True)
class LabelFreeScores:
    """What the embeddings alone say about an epoch. Where images are equally similar, each is as likely to be the nearest one.

    cycle_agreement          share of images whose nearest image in another domain has, back in the first domain, a nearest
                             image of the same cluster as the one started from, in [0, 1]; mean over the directions
    cluster_stability        share of pairs of images of a domain that the clusterings of this and the last epoch agree to
                             put together or apart (Rand index), in [0, 1]; 0 without a previous epoch
    centre_similarity        mean cosine between the mean embeddings of the domains, (1 + cos) / 2; large when they overlap
    cluster_information      how much the cluster of an image's nearest image in another domain tells of its own cluster:
                             mutual information in nats, >= 0; mean over the directions
    training_free_agreement  share of an image's first hits in another domain that are also among those of the reference,
                             in [0, 1]; mean over the directions
    score                    the product of the last two: what is found must be ordered, and not contradict what the backbone
                             knew. The epoch where it is largest is the label-free choice
    """

    cycle_agreement: float
    cluster_stability: float
    centre_similarity: float
    cluster_information: float
    training_free_agreement: float
    score: float


def label_free_scores(
    embeddings: Sequence[Tensor],
    clusterings: Sequence[Clusters],
    previous: Sequence[Clusters] | None,
    reference: Reference,
) -> LabelFreeScores:
    """Figures from the embeddings (M, D) and one clustering of each of S >= 2 domains."""
    pairs = list(permutations(range(len(embeddings)), 2))
    found = {(a, b): nearest_images(embeddings[a], embeddings[b]) for a, b in pairs}
    members = [one_hot(clusters.assignment) for clusters in clusterings]
    chosen = {(a, b): found[a, b].mean(members[b]) for a, b in pairs}  # (M, C') clusters of the nearest images
    cycles = [cycle_agreement(found[a, b].mean(chosen[b, a]), clusterings[a].assignment) for a, b in pairs]
    centres = [torch.nn.functional.normalize(rows.mean(dim=0), dim=0) for rows in embeddings]
    overlap = [float((1 + centres[a] @ centres[b]) / 2) for a, b in pairs]
    told = [mutual_information(members[a].T @ chosen[a, b]) for a, b in pairs]
    stability = 0.0
    if previous:
        rand = [rand_index(now.assignment, then.assignment) for now, then in zip(clusterings, previous, strict=True)]
        stability = _mean(rand)
    information, agreement = _mean(told), training_free_agreement(embeddings, reference)
    return LabelFreeScores(_mean(cycles), stability, _mean(overlap), information, agreement, information * agreement)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def sampled_images(count: int, generator: torch.Generator) -> Tensor:
    """Rising ids of the images of a domain that a reference looks at: all of few, a sample of many."""
    if count <= REFERENCE_IMAGES:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:REFERENCE_IMAGES].sort().values


def make_reference(features: Sequence[Tensor], image_ids: Sequence[Tensor]) -> Reference:
    """From what a backbone gives for the sampled images, before anything is learned: (m, F) for each of S >= 2 domains."""
    rows = [smoothed(torch.nn.functional.normalize(found, dim=1)) for found in features]
    return Reference(tuple(image_ids), tuple(_first_hits(rows[a], rows[b]) for a, b in permutations(range(len(rows)), 2)))


def training_free_agreement(embeddings: Sequence[Tensor], reference: Reference) -> float:
    """Share of the first hits (M, D) of the sampled images that the reference has too, mean over the directions.

    In expectation over the orders of equally similar images: embeddings that are all equal have what chance gives them.
    """
    rows = [found[ids].float().numpy() for found, ids in zip(embeddings, reference.image_ids, strict=True)]
    pairs = permutations(range(len(rows)), 2)
    return _mean([_common_share(rows[a], rows[b], hits) for (a, b), hits in zip(pairs, reference.hits, strict=True)])


def _first_hits(queries: Tensor, gallery: Tensor) -> Tensor:
    """(m, D), (m', D) -> (m, k) rows of the gallery."""
    k = max(1, min(MAX_REFERENCE_HITS, len(gallery) // REFERENCE_DIVISOR))
    return torch.from_numpy(nearest(queries.float().numpy(), gallery.float().numpy(), k).rows).long()


def _common_share(queries: Rows, gallery: Rows, hits: Tensor) -> float:
    """Expected share of the first k hits (m, k) of the reference that are among the first k of these rows."""
    k, wanted = hits.shape[1], hits.numpy()
    near = nearest(queries, gallery, k + 1)
    both = np.sort(np.concatenate([near.rows[:, :k], wanted], axis=1), axis=1)  # neither has an entry twice
    common = (both[:, 1:] == both[:, :-1]).sum(axis=1).astype(np.float64)
    for tied in tied_hits(queries, gallery, near, k):
        common[tied.queries] = np.take_along_axis(tied.chance, wanted[tied.queries], axis=1).sum(axis=1)
    return float(common.mean() / k)


def mutual_information(table: Tensor) -> float:
    """Of a table (C, C') of counts or shares >= 0, in nats: 0 when a row says nothing of the column."""
    shares = table / table.sum()
    both = _entropy(shares.flatten())
    return max(0.0, _entropy(shares.sum(dim=1)) + _entropy(shares.sum(dim=0)) - both)  # no rounding below 0


def _entropy(shares: Tensor) -> float:
    return float(torch.special.entr(shares).sum())


def cycle_agreement(home: Tensor, assignment: Tensor) -> float:
    """Share of the M images of a domain that come back into their own cluster by way of their nearest image of another.

    home        (M, C) shares of the clusters where each image comes back to
    assignment  (M,) int64, their own clusters
    """
    return float(home.gather(1, assignment[:, None]).mean())


def one_hot(assignment: Tensor) -> Tensor:
    """(M,) int64 clusters -> (M, C) float64."""
    return torch.nn.functional.one_hot(assignment).double()


@dataclass(frozen=True)
class NearestImages:
    """The nearest gallery image of each query, or several that are equally similar, each of them as likely.

    queries, gallery   (Q, D), (G, D) float32
    near               (Q, 2) the first two hits
    """

    queries: Rows
    gallery: Rows
    near: Neighbours

    def mean(self, values: Tensor) -> Tensor:
        """(G, C) values of the gallery images -> (Q, C) those of the nearest one, or their mean over equally similar ones."""
        found = values[torch.from_numpy(self.near.rows[:, 0])]
        for tied in tied_hits(self.queries, self.gallery, self.near, 1):
            found[torch.from_numpy(tied.queries)] = torch.from_numpy(tied.chance) @ values
        return found


def nearest_images(queries: Tensor, gallery: Tensor) -> NearestImages:
    """(Q, D), (G, D), on any device."""
    rows = queries.float().cpu().numpy(), gallery.float().cpu().numpy()
    return NearestImages(*rows, nearest(*rows, 2))


def rand_index(one: Tensor, other: Tensor) -> float:
    """Share of the pairs of M images that two clusterings both put together or both apart, in [0, 1].

    Rand 1971, from the C x C' table of counts.
    """
    count = len(one)
    if count < 2:
        return 1.0
    width = int(other.max()) + 1
    table = torch.bincount(one * width + other).double()
    together = _pairs(table)
    in_one, in_other = _pairs(torch.bincount(one).double()), _pairs(torch.bincount(other).double())
    total = count * (count - 1) / 2
    return (total + 2 * together - in_one - in_other) / total


def _pairs(counts: Tensor) -> float:
    return float((counts * (counts - 1) / 2).sum())
