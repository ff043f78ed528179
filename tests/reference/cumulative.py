"""The cluster term of the released code for several cluster counts: its masks are multiplied from count to count.

Imports torch and nothing of ucdir. With one count it is the cluster term of the paper.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def cumulative_cluster_contrast(
    query: Tensor,
    key: Tensor,
    bank: Tensor,
    image_ids: Tensor,
    clusterings: Sequence[tuple[Tensor, Tensor]],
    temperature: float,
    threshold: float,
) -> Tensor:
    """Mean over the cluster counts; an image is a positive only if it shares the cluster in this and all earlier counts.

    clusterings   (assignment (M,), prototypes (C, D)) per count, in order
    """
    logits = query @ bank.T / temperature
    log_likelihood = logits - logits.logsumexp(dim=1, keepdim=True)
    positive = torch.ones_like(logits)
    losses = []
    for assignment, prototypes in clusterings:
        own = assignment[image_ids]
        positive = positive * (own[:, None] == assignment[None, :])
        probability = (key @ prototypes.T / temperature).softmax(dim=1)
        counted = [i for i in range(len(query)) if float(probability[i, own[i]]) > threshold]
        means = [-(log_likelihood[i] * positive[i]).sum() / positive[i].sum() for i in counted]
        losses.append(torch.stack(means).mean() if means else (query * 0).sum())
    return torch.stack(losses).mean()
