"""Exact nearest neighbours by cosine, in blocks: Q x G is never in memory, nor a copy of the gallery."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ucdir.retrieval.metrics import exact_rows


@dataclass(frozen=True)
class Neighbours:
    """The k best gallery rows of each query, best first; equal similarities in order of the gallery row.

    rows        (Q, k) int64 gallery rows
    similarity  (Q, k) float64 cosines in [-1, 1]
    """

    rows: Tensor
    similarity: Tensor


def nearest(
    queries: Tensor,
    gallery: Tensor | np.ndarray,
    k: int,
    candidates: Tensor | None = None,
    query_block: int = 256,
    gallery_block: int = 16384,
) -> Neighbours:
    """The k gallery rows with the largest cosine to each query, exactly.

    queries     (Q, D) float, any length; results lie on its device (on the CPU for mps, which lacks float64)
    gallery     (G, D) float, a tensor or an array, memory-mapped or not; read once, block by block
    k           >= 1; more than there is gives all
    candidates  ascending gallery rows to look at, None = all
    *_block     rows at a time; they change memory and speed, never a result

    Raises ValueError for k < 1, different D, or values that are not finite.
    """
    if k < 1:
        raise ValueError(f"k={k}: give 1 or more.")
    if queries.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(f"queries {tuple(queries.shape)} and gallery {tuple(gallery.shape)} differ in dimension.")
    exact = exact_rows(queries)
    wanted = torch.arange(len(gallery)) if candidates is None else candidates.cpu()
    best = [_nothing(part) for part in torch.split(exact, query_block)]
    for rows in torch.split(wanted, gallery_block):
        block = exact_rows(_take(gallery, rows).to(exact.device))  # (g, D)
        for index, part in enumerate(torch.split(exact, query_block)):
            best[index] = _merge(best[index], part @ block.T, rows.to(exact.device), k)
    similarity = torch.cat([part.similarity for part in best]).clamp(-1, 1)
    return Neighbours(torch.cat([part.rows for part in best]), similarity)


def top_k(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(Q, G) -> the k largest values of each row, descending, and their columns; ties by column.

    `torch.topk` promises no order among equal values: a row with more of them at the cut than fit is sorted.
    """
    k = min(k, similarity.shape[1])
    if k == 0:
        return similarity[:, :0], torch.empty_like(similarity[:, :0], dtype=torch.int64)
    values, columns = similarity.topk(k, dim=1)
    last = values[:, -1:]
    crowded = (similarity == last).sum(dim=1) > (values == last).sum(dim=1)
    if bool(crowded.any()):
        columns[crowded] = similarity[crowded].sort(dim=1, descending=True, stable=True).indices[:, :k]
    columns = columns.sort(dim=1).values
    ranked = similarity.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return ranked.values, columns.gather(1, ranked.indices)


def _nothing(queries: Tensor) -> Neighbours:
    rows = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
    return Neighbours(rows, rows.double())


def _merge(best: Neighbours, similarity: Tensor, rows: Tensor, k: int) -> Neighbours:
    """Join the best so far with a block of later gallery rows; position decides ties, the earlier first."""
    values, columns = top_k(similarity, k)
    values = torch.cat([best.similarity, values], dim=1)
    merged = torch.cat([best.rows, rows[columns]], dim=1)
    values, positions = top_k(values, k)
    return Neighbours(merged.gather(1, positions), values)


def _take(gallery: Tensor | np.ndarray, rows: Tensor) -> Tensor:
    """The wanted rows as a tensor of their own: memory-mapped arrays are read here and nowhere else."""
    if isinstance(gallery, Tensor):
        return gallery[rows.to(gallery.device)]
    whole = len(rows) > 0 and int(rows[-1]) - int(rows[0]) + 1 == len(rows)
    part = gallery[int(rows[0]) : int(rows[-1]) + 1] if whole else gallery[rows.numpy()]
    return torch.from_numpy(np.array(part))
