"""Figures of an epoch that need no labels, and the score that chooses an epoch by them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from ucdir.learn.clusters import Clusters


@dataclass(frozen=True)
class LabelFreeScores:
    """What the embeddings alone say about an epoch; all in [0, 1].

    cycle_agreement   share of images whose nearest image in another domain has, back in the first domain, a nearest
                      image of the same cluster as the one started from; mean over the directions
    cluster_stability share of pairs of images of a domain that the clusterings of this and the last epoch agree to
                      put together or apart (Rand index); 0 for the first
    centre_similarity mean cosine between the mean embeddings of the domains, (1 + cos) / 2; large when they overlap
    """

    cycle_agreement: float
    cluster_stability: float
    centre_similarity: float


def label_free_scores(
    embeddings: Sequence[Tensor],
    clusterings: Sequence[Clusters],
    previous: Sequence[Clusters] | None,
) -> LabelFreeScores:
    """Figures from the embeddings (M, D) and one clustering of each of S >= 2 domains."""
    pairs = list(permutations(range(len(embeddings)), 2))
    cycles = [cycle_agreement(embeddings[a], embeddings[b], clusterings[a].assignment) for a, b in pairs]
    centres = [torch.nn.functional.normalize(rows.mean(dim=0), dim=0) for rows in embeddings]
    overlap = [float((1 + centres[a] @ centres[b]) / 2) for a, b in pairs]
    stability = 0.0
    if previous:
        rand = [rand_index(now.assignment, then.assignment) for now, then in zip(clusterings, previous, strict=True)]
        stability = sum(rand) / len(rand)
    return LabelFreeScores(sum(cycles) / len(cycles), stability, sum(overlap) / len(overlap))


def cycle_agreement(rows: Tensor, others: Tensor, assignment: Tensor, block: int = 4096) -> float:
    """Share of `rows` (M, D) that come back into their own cluster by way of their nearest row of `others` (M', D)."""
    there = nearest_rows(rows, others, block)
    back = nearest_rows(others, rows, block)
    return float((assignment[back[there]] == assignment).double().mean())


def nearest_rows(queries: Tensor, gallery: Tensor, block: int) -> Tensor:
    """Row of the most similar gallery row of each query: (Q, D), (G, D) -> (Q,) int64, never Q x G in memory."""
    return torch.cat([(part @ gallery.T).argmax(dim=1) for part in torch.split(queries, block)])


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
