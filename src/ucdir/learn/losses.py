"""The terms of the methods as pure functions of tensors: the four of Hu & Lee 2022, then those of its rivals.

Shape letters: N batch, M bank rows, D dimensions, C clusters. Rows are unit length. The caller detaches keys, banks and
prototypes: a gradient is wanted through the queries only.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_PER_BLOCK = 2**18  # logits that are in memory at once on a CPU: 1 MiB stays in the cache from one pass to the next
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
        block = max((LOGITS_PER_BLOCK if query.is_cpu else SCORES_ELSEWHERE) // max(len(query), 1), 1)
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
    """Which keys are clearly in their own cluster: softmax over the prototypes of their domain above `threshold`.

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


# Rivals: terms with prototypes


def prototype_contrast(query: Tensor, prototypes: Tensor, assignment: Tensor, temperatures: Tensor) -> Tensor:
    """Which of the C prototypes is mine? Cross-entropy, each prototype at its own temperature.

    query (N, D) and prototypes (C, D) unit rows, assignment (N,) int64, temperatures (C,) > 0
    returns      scalar, mean over N; log(C) when all similarities and temperatures are equal

    Li et al. 2021 (PCL), the prototype part of ProtoNCE, with all other prototypes as negatives.
    """
    return F.cross_entropy(query @ prototypes.T / temperatures, assignment)


def concentration(rows: Tensor, prototypes: Tensor, assignment: Tensor, temperature: float, smoothing: float = 10.0) -> Tensor:
    """How loosely the images of each cluster are spread around their prototype, as temperatures with the mean `temperature`.

    rows (M, D) and prototypes (C, D) unit rows, assignment (M,) int64
    smoothing    added to the sizes, so that small clusters do not look tight
    returns      (C,) > 0: sum of the distances / (size log(size + smoothing)), cut to its 10 % and 90 % quantiles, scaled;
                 clusters of one image or none count as the loosest

    Li et al. 2021 (PCL), equation 12, and the cut and scale of its released code.
    """
    distance = (rows - prototypes[assignment]).norm(dim=1)
    sums = distance.new_zeros(len(prototypes)).index_add_(0, assignment, distance)
    sizes = torch.bincount(assignment, minlength=len(prototypes))
    loose = sums / (sizes.clamp(min=1) * (sizes.to(sums.dtype) + smoothing).log())
    loose = torch.where(sizes > 1, loose, loose[sizes > 1].max() if (sizes > 1).any() else loose.new_zeros(()))
    low, high = loose.quantile(torch.tensor([0.1, 0.9], dtype=loose.dtype, device=loose.device))
    loose = loose.clamp(low, high).clamp_min(1e-6)
    return temperature * loose / loose.mean()


def contrast_with_prototypes(
    query: Tensor, positive: Tensor, prototypes: Tensor, assignment: Tensor, temperature: float
) -> Tensor:
    """Is this my positive, or is it a prototype that is not mine? Cross-entropy against the C - 1 others.

    query, positive (N, D) and prototypes (C, D) unit rows, assignment (N,) int64; gradient flows through `query`
    temperature     > 0
    returns         scalar, mean over N; log(C) when all similarities are equal

    Li et al. 2024 (ProtoOT), in-domain term.
    """
    own = (query * positive).sum(dim=1, keepdim=True)  # (N, 1)
    others = (query @ prototypes.T).scatter(1, assignment[:, None], own)  # (N, C)
    return F.cross_entropy(others / temperature, assignment)


def contrast_across_domains(query: Tensor, prototypes: Tensor, assignment: Tensor, temperature: float) -> Tensor:
    """Which of the C prototypes of another domain is mine? Cross-entropy of its cosine against the normalised others.

    query (N, D) and prototypes (C, D) unit rows, assignment (N,) int64; gradient flows through `query`
    temperature     > 0. Paper: 0.2
    returns         scalar, mean over N; log(C) when all similarities are 0

    Li et al. 2024 (ProtoOT), cross-domain term as the released code computes it: the negatives come from a row of unit
    length (`normalised_rows`), to which the positive belongs; the positive itself is the cosine.
    """
    similarity = query @ prototypes.T  # (N, C)
    own = similarity.gather(1, assignment[:, None])  # (N, 1)
    others = normalised_rows(similarity).scatter(1, assignment[:, None], own)  # (N, C)
    return F.cross_entropy(others / temperature, assignment)


def normalised_rows(similarity: Tensor) -> Tensor:
    """Each row (C,) of similarities (N, C) at unit length; a row of zeros stays zero, and its gradient finite.

    Li et al. 2024 (ProtoOT), released code. The entries of a row are about 1 / sqrt(C) then, so the more prototypes there
    are, the more evenly `transport` divides an image among them. With one prototype every row is 1 or -1.
    """
    length = similarity.norm(dim=1, keepdim=True)  # (N, 1)
    return similarity / torch.where(length > 0, length, 1.0)


def transport(similarity: Tensor, shares: Tensor, smoothing: float, iterations: int) -> Tensor:
    """Divide M images among C prototypes that each take their share: Sinkhorn's algorithm.

    similarity   (M, C) cosines. Released code: `normalised_rows` of them
    shares       (C,) of the images, adding up to 1; 0 takes none
    smoothing    > 0, weight of the entropy. Paper: 0.05
    iterations   >= 1. Paper: 3
    returns      (M, C) >= 0; each row adds up to 1 / M, and columns approach `shares` with more `iterations`

    Cuturi 2013; Li et al. 2024 (ProtoOT). Columns are scaled first, then rows; the first time by logarithms, so that no
    row is lost however small `smoothing` is; from then on only a factor for each row and column changes.
    """
    logits = similarity / smoothing
    plan = F.softmax(logits.add_(shares.log() - logits.logsumexp(dim=0)), dim=1)  # (M, C), rows adding up to 1
    rows, columns = torch.full_like(plan[:, 0], 1 / len(plan)), torch.ones_like(shares)  # (M,), (C,)
    tiny = torch.finfo(plan.dtype).tiny
    for _ in range(iterations - 1):
        columns = (shares / (rows @ plan).clamp_min(tiny)).clamp(tiny**0.5, tiny**-0.5)  # no overflow in many iterations
        rows = 1 / (plan @ columns) / len(plan)
    return plan.mul_(columns).mul_(rows[:, None])


# Rivals: terms with classifiers that learn


def self_matching(query: Tensor, key: Tensor, classifiers: Tensor, temperature: float) -> Tensor:
    """Do both views of an image fall to the same output? Mean of -log sum_c p(c | query) p(c | key).

    query, key (N, D) and classifiers (C, D) unit rows, temperature > 0
    returns      scalar >= 0; 0 when both are sure and agree, log(C) when both are even

    After Wang et al. 2023 (CoDA), in-domain self-matching.
    """
    here, there = (F.log_softmax(rows @ classifiers.T / temperature, dim=1) for rows in (query, key))  # (N, C)
    return -torch.logsumexp(here + there, dim=1).mean()


def unevenness(query: Tensor, classifiers: Tensor, temperature: float) -> Tensor:
    """How far is the mean of the answers from using all C outputs equally? log(C) - entropy of the mean, in [0, log C]."""
    average = F.softmax(query @ classifiers.T / temperature, dim=1).mean(dim=0)
    tiny = torch.finfo(average.dtype).tiny
    return math.log(len(classifiers)) + (average * average.clamp_min(tiny).log()).sum()


def classifier_distance(query: Tensor, classifiers: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Do the classifiers of two domains say the same of an image? L1 between their answers, mean over N, in [0, 2].

    query (N, D), classifiers and others (C, D) unit rows, output c of one belonging to output c of the other

    After Wang et al. 2023 (CoDA), cross-domain classifier alignment.
    """
    here, there = (F.softmax(query @ rows.T / temperature, dim=1) for rows in (classifiers, others))
    return (here - there).abs().sum(dim=1).mean()
