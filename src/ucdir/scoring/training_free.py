"""Two ways to bring domains together without learning anything: the bar every training has to clear."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ucdir.retrieval.exact_search import nearest
from ucdir.retrieval.ties import tied_hits


def centred(rows: Tensor) -> Tensor:
    """Subtract the mean of the domain, which is mostly its style, and bring the rows back to unit length.

    rows     (M, D) unit rows, all images of one domain
    returns  (M, D) float32 unit rows; a row equal to the mean (so the row of a lone image) becomes 0
    """
    rows = rows.double()
    return F.normalize(rows - rows.mean(dim=0), dim=1, eps=1e-9).float()


def smoothed(rows: Tensor, neighbours: int = 30, rounds: int = 3, block_size: int = 256) -> Tensor:
    """Centre, average each image with its nearest neighbours in its own domain `rounds` times, centre again.

    rows        (M, D) unit rows, all images of one domain
    neighbours  >= 1, besides the image itself; at most M - 1 of them exist. Too many for small classes hurt:
                30 is right for classes of a hundred images and more
    rounds      >= 0; 0 gives `centred` twice
    block_size  images averaged at a time; changes memory, never the result
    returns     (M, D) float32 unit rows

    The image itself has weight 1, a neighbour its cosine cubed, or 0 where the cosine is negative. Where several images are as
    similar as the last neighbour, each counts in part, so that the order of the images changes nothing.
    """
    if neighbours < 1 or rounds < 0:
        raise ValueError(f"neighbours={neighbours}, rounds={rounds}: expected at least 1 and at least 0.")
    rows = centred(rows)
    for _ in range(rounds):
        rows = F.normalize(_averaged(rows, neighbours + 1, block_size), dim=1)
    return centred(rows)


def _averaged(rows: Tensor, count: int, block_size: int) -> Tensor:
    """(M, D) -> (M, D) weighted sums of the `count` nearest rows of each."""
    values = rows.cpu().numpy()
    found = nearest(values, values, count + 1)  # one more, to see whether the last is tied
    which = torch.from_numpy(found.rows[:, :count]).to(rows.device)
    weights = _weights(found.similarity[:, :count]).float().to(rows.device)  # (M, count)
    parts = zip(torch.split(which, block_size), torch.split(weights, block_size), strict=True)
    averaged = torch.cat([_average(rows, near, weight) for near, weight in parts])
    for tied in tied_hits(values, values, found, count):
        sums = (torch.from_numpy(tied.chance) * _weights(tied.similarity)) @ torch.from_numpy(values).double()
        averaged[torch.from_numpy(tied.queries)] = sums.to(averaged)
    return averaged


def _weights(similarity: NDArray[np.float64]) -> Tensor:
    """Cosines -> their cubes, 0 for negative ones."""
    return torch.from_numpy(similarity).clamp_min(0).pow(3)


def _average(rows: Tensor, which: Tensor, weights: Tensor) -> Tensor:
    """rows (M, D), which and weights (B, k) -> (B, D) weighted sums."""
    return torch.einsum("bk,bkd->bd", weights, rows[which])
