"""Nearest rows of large tables on any device, and averages over them. Nothing here ever has N x N numbers in memory."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITIES_PER_BLOCK = 2**24  # similarities in memory at a time


@dataclass(frozen=True)
class Near:
    """The k nearest rows of each query, nearest first.

    similarity  (Q, k) float32 cosine
    rows        (Q, k) int64
    """

    similarity: Tensor
    rows: Tensor


def nearest_rows(queries: Tensor, rows: Tensor, k: int, penalty: Tensor | None = None, skip_self: bool = False) -> Near:
    """The k rows most similar to each query; all of them if there are fewer.

    queries    (Q, D) float32 unit rows
    rows       (M, D) float32 unit rows, M >= 1
    k          >= 1
    penalty    (M,) is subtracted before choosing; `similarity` stays the cosine
    skip_self  query i is row i and must not find itself; then M >= 2
    """
    k = min(k, len(rows) - skip_self)
    found = []
    for start in range(0, len(queries), size := max(1, SIMILARITIES_PER_BLOCK // len(rows))):
        cosine = queries[start : start + size] @ rows.T
        ranked = cosine if penalty is None else cosine - penalty
        if skip_self:
            ranked = ranked.clone() if penalty is None else ranked
            own = torch.arange(len(ranked), device=ranked.device)
            ranked[own, own + start] = -torch.inf
        ids = ranked.topk(k, dim=1).indices
        found.append(Near(cosine.gather(1, ids), ids))
    if not found:
        return Near(queries.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=queries.device))
    return Near(torch.cat([part.similarity for part in found]), torch.cat([part.rows for part in found]))


def average(values: Tensor, near: Near) -> Tensor:
    """(M, E) values -> (Q, E) unit rows: the mean over each query's neighbours, weights cosine cubed, 0 where negative."""
    weights = near.similarity.clamp(min=0).pow(3)
    size = max(1, SIMILARITIES_PER_BLOCK // max(1, weights.shape[1] * values.shape[1]))
    parts = zip(torch.split(weights, size), torch.split(near.rows, size), strict=True)
    sums = [torch.einsum("qk,qke->qe", weight, values[rows].to(weight.dtype)) for weight, rows in parts]
    return F.normalize(torch.cat(sums), dim=1) if sums else values.new_empty(0, values.shape[1])


def choose_each_other(there: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs (i, j) in which j is among the choices of i, and i among those of j.

    there    (N, k) int64 choices of N images among M
    back     (M, k) int64 choices of M images among N
    returns  (P,), (P,) int64, ordered by i
    """
    own = torch.arange(len(there), device=there.device)
    size = max(1, SIMILARITIES_PER_BLOCK // max(1, there.shape[1] * back.shape[1]))
    parts = zip(torch.split(own, size), torch.split(there, size), strict=True)
    agree = torch.cat([(back[chosen] == i[:, None, None]).any(dim=2) for i, chosen in parts])
    i, place = agree.nonzero(as_tuple=True)
    return i, there[i, place]
