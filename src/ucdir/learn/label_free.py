"""Figures of an epoch that need no labels, and the score that chooses an epoch by them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from ucdir.learn.clusters import Clusters
from ucdir.retrieval.search import nearest
from ucdir.retrieval.training_free import smoothed

BLOCK = 2**22  # similarities in memory at a time
SAMPLE = 4_000  # images of a domain, at most, in a reference
HITS = 50  # of an image in a reference, at most
SHARE = 20  # of so many images of the gallery one is looked at: the first twentieth


@dataclass(frozen=True)
class Reference:
    """What is found without training: the first hits, across domains, of the smoothed rows of the frozen backbone.

    image_ids   (m,) int64 of each domain: all of its images, or a sample
    hits        for each direction, in the order of `permutations`: (m, k) int64, places in `image_ids` of the other domain
    """

    image_ids: tuple[Tensor, ...]
    hits: tuple[Tensor, ...]


@dataclass(frozen=True)
class LabelFreeScores:
    """What the embeddings alone say about an epoch.

    cycle_agreement          share of images whose nearest image in another domain has, back in the first domain, a nearest
                             image of the same cluster as the one started from, in [0, 1]; mean over the directions
    cluster_stability        share of pairs of images of a domain that the clusterings of this and the last epoch agree to
                             put together or apart (Rand index), in [0, 1]; 0 where there is no last epoch
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
    found = {(a, b): nearest_rows(embeddings[a], embeddings[b]) for a, b in pairs}
    cycles = [cycle_agreement(found[a, b], found[b, a], clusterings[a].assignment) for a, b in pairs]
    centres = [torch.nn.functional.normalize(rows.mean(dim=0), dim=0) for rows in embeddings]
    overlap = [float((1 + centres[a] @ centres[b]) / 2) for a, b in pairs]
    told = [mutual_information(clusterings[a].assignment, clusterings[b].assignment[found[a, b]]) for a, b in pairs]
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
    if count <= SAMPLE:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:SAMPLE].sort().values


def make_reference(features: Sequence[Tensor], image_ids: Sequence[Tensor]) -> Reference:
    """From what a backbone gives for the sampled images, before anything is learned: (m, F) for each of S >= 2 domains."""
    rows = [smoothed(torch.nn.functional.normalize(found, dim=1)) for found in features]
    return Reference(tuple(image_ids), tuple(_first_hits(rows[a], rows[b]) for a, b in permutations(range(len(rows)), 2)))


def training_free_agreement(embeddings: Sequence[Tensor], reference: Reference) -> float:
    """Share of the first hits (M, D) of the sampled images that the reference has too, mean over the directions."""
    rows = [found[ids] for found, ids in zip(embeddings, reference.image_ids, strict=True)]
    pairs = permutations(range(len(rows)), 2)
    shares = [_common(_first_hits(rows[a], rows[b]), hits) for (a, b), hits in zip(pairs, reference.hits, strict=True)]
    return _mean(shares)


def _first_hits(queries: Tensor, gallery: Tensor) -> Tensor:
    """(m, D), (m', D) -> (m, k) rows of the gallery."""
    k = max(1, min(HITS, len(gallery) // SHARE))
    return torch.from_numpy(nearest(queries.float().numpy(), gallery.float().numpy(), k).rows).long()


def _common(one: Tensor, other: Tensor) -> float:
    """Mean share of the entries of each row (m, k) that are also in that row of the other."""
    k = one.shape[1]
    both = torch.cat([one, other], dim=1).sort(dim=1).values  # neither has an entry twice
    return float((both[:, 1:] == both[:, :-1]).sum(dim=1).double().mean() / k)


def mutual_information(one: Tensor, other: Tensor) -> float:
    """Of two labellings (M,) int64 of the same images, in nats: 0 when one says nothing of the other."""
    width = int(other.max()) + 1
    table = torch.bincount(one * width + other, minlength=width * (int(one.max()) + 1)).double().view(-1, width)
    shares = table / table.sum()
    both = _entropy(shares.flatten())
    return max(0.0, _entropy(shares.sum(dim=1)) + _entropy(shares.sum(dim=0)) - both)  # no rounding below 0


def _entropy(shares: Tensor) -> float:
    return float(torch.special.entr(shares).sum())


def cycle_agreement(there: Tensor, back: Tensor, assignment: Tensor) -> float:
    """Share of the M images of a domain that come back into their own cluster by way of their nearest image of another.

    there (M,) and back (M',) int64 from `nearest_rows`, assignment (M,) clusters of the images
    """
    return float((assignment[back[there]] == assignment).double().mean())


def nearest_rows(queries: Tensor, gallery: Tensor) -> Tensor:
    """Row of the most similar gallery row of each query: (Q, D), (G, D) -> (Q,) int64, never Q x G in memory."""
    block = max(BLOCK // max(len(gallery), 1), 1)
    return torch.cat([(part @ gallery.T).max(dim=1).indices for part in torch.split(queries, block)])


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
