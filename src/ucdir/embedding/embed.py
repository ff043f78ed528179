"""Images -> embeddings, in batches. The same pass serves clustering, scoring and galleries."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ucdir.embedding.compute import Compute
from ucdir.errors import ImageError
from ucdir.images.reading import read_views
from ucdir.model.device import autocast, reuse_buffers
from ucdir.model.encoder import Encoder


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of the readable images of a list.

    rows         (M, D) float32 unit rows on the CPU
    image_ids    (M,) int64, positions in the list, rising
    unreadable   the errors of the others, in order
    """

    rows: Tensor
    image_ids: Tensor
    unreadable: tuple[ImageError, ...]


def embed(
    encoder: Encoder,
    paths: Sequence[Path],
    compute: Compute,
    advance: Callable[[int], None] | None = None,
    features: bool = False,
) -> Embeddings:
    """Embed image files with `encoder`, in evaluation mode whatever mode it is in now.

    encoder     is moved to the device of `compute`; its mode is restored afterwards
    features    give what the backbone makes of them instead: rows (M, feature_dim), not of unit length
    advance     called with the number of images just finished
    """
    rows: list[Tensor] = []
    image_ids: list[int] = []
    unreadable: list[ImageError] = []
    with evaluating(encoder, compute.device):
        for views in read_views(paths, encoder.config.image_size, compute.batch_size, compute.workers, compute.cache):
            if views.image_ids:
                network = encoder.features if features else encoder
                rows.append(encode(network, views.pixels, compute.device, compute.precision))
            image_ids += views.image_ids
            unreadable += views.unreadable
            if advance is not None:
                advance(len(views))
    width = encoder.config.feature_dim if features else encoder.config.length
    gathered = torch.cat(rows) if rows else torch.empty(0, width)
    return Embeddings(gathered, torch.tensor(image_ids, dtype=torch.int64), tuple(unreadable))


@contextmanager
def evaluating(encoder: Encoder, device: torch.device) -> Iterator[None]:
    """`encoder` on `device` in evaluation mode; its mode is put back afterwards.

    Its weights get the layout that they have in a training: another one is another kernel, and other last digits.
    """
    training = encoder.training
    reuse_buffers(device)
    encoder.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    try:
        yield
    finally:
        encoder.train(training)


@torch.no_grad()
def encode(encoder: Callable[[Tensor], Tensor], views: np.ndarray, device: torch.device, precision: str) -> Tensor:
    """(n, 3, H, W) uint8 evaluation views -> (n, D) float32 rows on the CPU, as `encoder` makes them."""
    with autocast(device, precision):
        rows: Tensor = encoder(torch.from_numpy(views).to(device)).float().cpu()
    return rows
