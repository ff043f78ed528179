"""The four terms of the method as pure functions of tensors.

Shape letters: N batch, M bank rows, D dimensions, C clusters. Rows are unit length. The caller detaches keys, banks and
prototypes: a gradient is wanted through the queries only.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SCORES = 2**18  # logits that are in memory at once on a CPU: 1 MiB stays in the cache from one pass to the next
SCORES_ELSEWHERE = 2**26  # on other devices few large steps are faster


def bank_logsumexp(query: Tensor, key: Tensor, bank: Tensor, image_ids: Tensor, temperature: float) -> Tensor:
    """log of the sum over the M images of a domain of exp(cosine / temperature); its own image counts with its own key.

    query, key   (N, D) unit rows, two views of the same N images; gradient flows through `query` only
    bank         (M, D) unit rows
    image_ids    (N,) int64, row of each image in `bank`; may repeat, each row then keeps its own key
    temperature  > 0
    returns      (N,), shared by the instance and the cluster term; in the precision of `bank`, also under autocast

    The N x M logits are never whole in memory.
    """
    with torch.autocast(query.device.type, enabled=False):
        result: Tensor = _BankLogSumExp.apply(query.to(bank.dtype), key.to(bank.dtype), bank, image_ids, temperature)
    return result


class _BankLogSumExp(torch.autograd.Function):
    """Goes over the bank once, in blocks, and carries the sum and the softmax-weighted mean row along.

    That mean row, over the temperature, is the gradient, so nothing of size M is kept or computed again. When a larger
    logit turns up, what was summed so far is scaled down (Milakov & Gimelshein 2018; Dao et al. 2022).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, bank: Tensor, image_ids: Tensor, temperature: float) -> Tensor:
        query = query / temperature
        largest = (query * key).sum(dim=1, keepdim=True)  # (N, 1)
        total, weighted = torch.ones_like(largest), key.clone()  # of the own image; the others are added
        block = max((SCORES if query.is_cpu else SCORES_ELSEWHERE) // max(len(query), 1), 1)
        for start in range(0, len(bank), block):
            rows = bank[start : start + block]
            logits = _without_own(query @ rows.T, image_ids - start)  # (N, B)
            larger = torch.maximum(largest, logits.amax(dim=1, keepdim=True))
            scale, largest = (largest - larger).exp_(), larger
            weights = logits.sub_(largest).exp_()
            total.mul_(scale).add_(weights.sum(dim=1, keepdim=True))
            weighted = torch.addmm(weighted.mul_(scale), weights, rows)
        ctx.save_for_backward(weighted.div_(total * temperature))
        return (largest + total.log())[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient[:, None] * slope, None, None, None, None


def _without_own(logits: Tensor, places: Tensor) -> Tensor:
    """Put -inf, in place, where each row of logits (N, B) has its own image, if it is in this block: places (N,)."""
    column = places.clamp(0, logits.shape[1] - 1)[:, None]
    kept = torch.where(column == places[:, None], -torch.inf, logits.gather(1, column))
    return logits.scatter_(1, column, kept)


def instance_contrast(logsumexp: Tensor, query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """Which of the M images is this? Cross-entropy of each query view against its domain's bank (InfoNCE).

    logsumexp    (N,) from `bank_logsumexp`
    query, key   (N, D) unit rows, two views of the same N images
    temperature  > 0; smaller is stricter. Paper: 0.2
    returns      scalar, mean over N; log(M) when all similarities are equal

    He et al. 2020 (MoCo); Hu & Lee 2022, instance-wise term.
    """
    return (logsumexp - (query * key).sum(dim=1) / temperature).mean()


def cluster_contrast(
    logsumexp: Tensor,
    query: Tensor,
    bank_means: Tensor,
    assignment: Tensor,
    counted: Tensor,
    temperature: float,
) -> Tensor:
    """Which images share my cluster? Mean log-likelihood of the images of one's own cluster, over the counted queries.

    logsumexp    (N,) from `bank_logsumexp`
    query        (N, D) unit rows
    bank_means   (C, D) mean of the bank rows of each cluster, not of unit length: the mean over a cluster of q . b
                 is q . (mean b), so no N x M mask is needed
    assignment   (N,) int64, cluster of each query's image
    counted      (N,) bool, from `confident`
    temperature  > 0. Paper: 0.2
    returns      scalar; 0 when nothing is counted, log(M) when all similarities are equal

    Hu & Lee 2022, cluster-wise term.
    """
    positive = (query * bank_means[assignment]).sum(dim=1) / temperature  # (N,)
    return ((logsumexp - positive) * counted).sum() / counted.sum().clamp(min=1)


def confident(key: Tensor, prototypes: Tensor, assignment: Tensor, temperature: float, threshold: float) -> Tensor:
    """Which keys lie clearly in their own cluster: softmax over the prototypes of their domain above `threshold`.

    key (N, D) and prototypes (C, D) unit rows, assignment (N,) int64 -> (N,) bool. Paper: temperature 0.2, threshold 0.2
    """
    probability = F.softmax(key @ prototypes.T / temperature, dim=1)  # (N, C)
    return probability.gather(1, assignment[:, None])[:, 0] > threshold


def assignment_entropy(query: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """How undecided is each query between the prototypes of a domain, its own or another?

    query (N, D) and prototypes (C, D) unit rows; temperature > 0, paper: 0.01 or 0.1
    returns      scalar in [0, log C], mean over N

    Hu & Lee 2022, self-entropy term.
    """
    log_probability = F.log_softmax(query @ prototypes.T / temperature, dim=1)  # (N, C)
    return -(log_probability.exp() * log_probability).sum(dim=1).mean()


def distance_of_distance(query: Tensor, prototypes: Tensor, others: Tensor, temperature: float = 0.01) -> Tensor:
    """Do two domains' prototypes draw the same map of distances between the queries?

    query                (N, D) unit rows
    prototypes, others   (C, D) and (C', D) unit rows of two domains
    temperature          > 0 of the softmax over prototypes. Paper: 0.01
    returns              scalar >= 0, mean over N of the squared L2 distance between the two rows of cosine distances;
                         unchanged when the prototypes of a domain change their order

    Hu & Lee 2022, distance-of-distance term. The released code adds 1e-6 to each difference (the default of
    torch's pairwise distance); so does this.
    """
    difference = assignment_distance(query, prototypes, temperature) - assignment_distance(query, others, temperature)
    return (difference + 1e-6).square().sum(dim=1).mean()


def assignment_distance(query: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """Cosine distances between the soft assignments of all pairs of queries: (N, D), (C, D) -> (N, N) in [0, 1]."""
    assigned = F.normalize(F.softmax(query @ prototypes.T / temperature, dim=1), dim=1)  # (N, C)
    return 1 - assigned @ assigned.T
