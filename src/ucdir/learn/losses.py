"""The four terms of the method as pure functions of tensors.

Shape letters: N batch, M bank rows, D dimensions, C clusters. Rows are unit length. The caller detaches keys, banks and
prototypes: a gradient is wanted through the queries only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def bank_similarity(query: Tensor, key: Tensor, bank: Tensor, image_ids: Tensor) -> Tensor:
    """Cosine of each query with every image of its domain; for its own image, with its own key.

    query, key   (N, D) unit rows, two views of the same N images
    bank         (M, D) unit rows
    image_ids    (N,) int64, row of each image in `bank`; may repeat, each row then keeps its own key
    returns      (N, M) in [-1, 1], shared by the instance and the cluster term
    """
    positive = (query * key).sum(dim=1, keepdim=True)  # (N, 1)
    return (query @ bank.T).scatter(1, image_ids[:, None], positive)  # (N, M)


def instance_contrast(similarity: Tensor, image_ids: Tensor, temperature: float) -> Tensor:
    """Which of the M images is this? Cross-entropy of each query view against its domain's bank (InfoNCE).

    similarity   (N, M) from `bank_similarity`
    image_ids    (N,) int64, the right answer of each row
    temperature  > 0; smaller is stricter. Paper: 0.2
    returns      scalar, mean over N; log(M) when all similarities are equal

    He et al. 2020 (MoCo); Hu & Lee 2022, instance-wise term.
    """
    return F.cross_entropy(similarity / temperature, image_ids)


def cluster_contrast(
    similarity: Tensor,
    query: Tensor,
    bank_means: Tensor,
    assignment: Tensor,
    counted: Tensor,
    temperature: float,
) -> Tensor:
    """Which images share my cluster? Mean log-likelihood of the images of one's own cluster, over the counted queries.

    similarity   (N, M) from `bank_similarity`
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
    loss = torch.logsumexp(similarity / temperature, dim=1) - positive  # (N,)
    return (loss * counted).sum() / counted.sum().clamp(min=1)


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
