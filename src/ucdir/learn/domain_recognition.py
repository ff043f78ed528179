"""Telling the domains of images apart, from features of their plain views. Nothing here reads a label."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ucdir.model.alignment import Recogniser

AXES = 64
RARE = 0.01  # fraction of a domain's own images beyond its limit


def learn_recogniser(domains: Sequence[Tensor]) -> Recogniser:
    """Nearest mean where images of a domain vary equally in all directions (linear discriminant analysis).

    domains  S x (N, F) features of plain views
    """
    rows = [F.normalize(domain.float(), dim=1) for domain in domains]
    means = torch.stack([part.mean(dim=0) for part in rows])
    within = torch.stack([_second_moment(part - mean) for part, mean in zip(rows, means, strict=True)]).mean(dim=0)
    between = _second_moment(means - means.mean(dim=0))
    leading = torch.linalg.eigh(within + between).eigenvectors[:, -AXES:]
    inside = leading.T @ within @ leading
    inside = inside + 1e-2 * inside.trace() / len(inside) * torch.eye(len(inside), device=inside.device)
    values, vectors = torch.linalg.eigh(inside)
    axes = leading @ vectors @ torch.diag(values.rsqrt())
    located = [part @ axes for part in rows]
    centres = torch.stack([part.mean(dim=0) for part in located])
    limits = [(part - centre).norm(dim=1).quantile(1 - RARE) for part, centre in zip(located, centres, strict=True)]
    return Recogniser(axes, centres, torch.stack(limits))


def recognised(domains: Sequence[Tensor]) -> float:
    """Fraction of images whose domain a classifier trained on the other half gets right."""
    right = torch.tensor(0.0)
    for half in (0, 1):
        recogniser = learn_recogniser([domain[half::2] for domain in domains])
        for number, domain in enumerate(domains):
            found = recogniser(domain[1 - half :: 2].float()).argmin(dim=1)
            right += (found == number).sum().cpu()
    return float(right) / sum(map(len, domains))


def _second_moment(rows: Tensor) -> Tensor:
    return rows.T @ rows / len(rows)
