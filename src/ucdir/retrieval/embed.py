"""Images -> embeddings, in batches. One pass serves clustering, scores and galleries alike."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ucdir.data.batches import worker_count
from ucdir.data.image import open_rgb
from ucdir.data.views import evaluation_view
from ucdir.errors import ImageError
from ucdir.model.device import autocast
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


@torch.no_grad()
def embed(
    encoder: Encoder,
    paths: Sequence[Path],
    device: torch.device,
    precision: str,
    batch_size: int = 64,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Embeddings:
    """Embed image files with `encoder`, in evaluation mode whatever mode it is in now.

    encoder     is moved to `device`; its mode is put back afterwards
    progress    is called with the number of images just finished
    """
    training = encoder.training
    encoder.to(device).eval()
    rows: list[Tensor] = []
    image_ids: list[int] = []
    unreadable: list[ImageError] = []
    try:
        for start, results in _read_ahead(paths, encoder.config.image_size, batch_size, workers):
            pixels = [(start + offset, result) for offset, result in enumerate(results) if isinstance(result, Tensor)]
            unreadable.extend(result for result in results if isinstance(result, ImageError))
            if pixels:
                images = torch.stack([image for _, image in pixels]).to(device)
                with autocast(device, precision):
                    rows.append(encoder(images).float().cpu())
                image_ids.extend(image_id for image_id, _ in pixels)
            if progress is not None:
                progress(len(results))
    finally:
        encoder.train(training)
    length = encoder.config.dim or encoder.config.feature_dim
    gathered = torch.cat(rows) if rows else torch.empty(0, length)
    return Embeddings(gathered, torch.tensor(image_ids, dtype=torch.int64), tuple(unreadable))


def _read_ahead(
    paths: Sequence[Path], size: int, batch_size: int, workers: int
) -> Iterator[tuple[int, list[Tensor | ImageError]]]:
    """Positions and evaluation views of the batches, in order, with two more batches being read meanwhile."""
    starts = deque(range(0, len(paths), batch_size))
    pending: deque[tuple[int, list[Future[Tensor | ImageError]]]] = deque()
    with ThreadPoolExecutor(worker_count(workers)) as pool:
        try:
            while starts or pending:
                while starts and len(pending) < 3:
                    start = starts.popleft()
                    batch = paths[start : start + batch_size]
                    pending.append((start, [pool.submit(_view, path, size) for path in batch]))
                start, futures = pending.popleft()
                yield start, [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _view(path: Path, size: int) -> Tensor | ImageError:
    try:
        return evaluation_view(open_rgb(path), size)
    except ImageError as error:
        return error
