"""What a frozen backbone gives for the fixed views of images, kept image by image, so that no run computes one twice."""

import hashlib
import io
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ucdir.embedding.compute import Compute
from ucdir.embedding.embed import evaluating
from ucdir.errors import ImageError
from ucdir.images.opening import open_rgb, read_file
from ucdir.images.pixel_cache import PixelCache
from ucdir.images.reading import read_ahead
from ucdir.images.style_views import DEFAULT_VIEWS, VERSION, style_views
from ucdir.model.encoder import Encoder, backbone_digest
from ucdir.model.fast_backbone import QuickBackbone

IMAGES_PER_BATCH = 16  # images read at a time
MIN_IMAGES_FOR_EXPORT = 200  # images from which on it pays to export the backbone first
MAX_BYTES_IN_MEMORY = 2**30  # bytes of features above which they are kept in a file instead of in memory


@dataclass(frozen=True)
class ViewFeatures:
    """Features of the readable images of a list, ordered by content: neither names nor folders decide what is learned.

    values      (M, V, F) float16, in memory or a memory-mapped file
    image_ids   (M,) int64, positions in the list
    contents    (M, 32) uint8, SHA-256 of the files, in rising order
    unreadable  the errors of the others
    """

    values: NDArray[np.float16]
    image_ids: NDArray[np.int64]
    contents: NDArray[np.uint8]
    unreadable: tuple[ImageError, ...]


def view_features(
    encoder: Encoder,
    paths: Sequence[Path],
    views: Sequence[str],
    compute: Compute,
    advance: Callable[[int], None] = lambda count: None,
    draw: int = 0,
    folder: Path | None = None,
    contents: Sequence[bytes | ImageError] | None = None,
) -> ViewFeatures:
    """Run the backbone of `encoder` over the `views` of each image. An image is a batch of its own: no other changes a bit.

    views     names from `style_views.VIEWS`
    advance   called with the number of images just finished
    draw      another number gives other crops
    folder    on a disk with room for large features; None = where temporary files go
    contents  what `digests` gave for the files, where that is known
    """
    contents = digests(paths, compute.workers) if contents is None else contents
    order = sorted((content, row) for row, content in enumerate(contents) if isinstance(content, bytes))
    unreadable = [content for content in contents if isinstance(content, ImageError)]
    backbone = QuickBackbone(encoder, compute.device, compute.precision, exported=len(order) >= MIN_IMAGES_FOR_EXPORT)
    what = f"folded features {backbone_digest(encoder)} {compute.precision} {backbone.runtime} {VERSION} {draw}"
    store = _Store(backbone, tuple(views), draw, compute.cache, what)
    values = _room((len(order), len(views), encoder.config.feature_dim), folder)
    kept: list[tuple[bytes, int]] = []
    advance(len(unreadable))
    with evaluating(backbone.encoder, compute.device):
        reading = chain.from_iterable(
            read_ahead([(paths[row], content) for content, row in order], store.read, IMAGES_PER_BATCH, compute.workers)
        )
        for image, found in zip(order, reading, strict=True):
            if isinstance(found, ImageError):
                unreadable.append(found)
            else:
                values[len(kept)] = found if found.dtype == np.float16 else store.compute(image[0], found)
                kept.append(image)
            advance(1)
    joined = np.frombuffer(b"".join(content for content, _ in kept), np.uint8).reshape(len(kept), 32)
    return ViewFeatures(values[: len(kept)], np.array([row for _, row in kept], np.int64), joined, tuple(unreadable))


def digests(paths: Sequence[Path], workers: int = 0) -> list[bytes | ImageError]:
    """SHA-256 of each file, or why it cannot be read."""
    return list(chain.from_iterable(read_ahead(paths, _digest, IMAGES_PER_BATCH, workers)))


@dataclass(frozen=True)
class _Store:
    """Features of images in the cache, and how they are made."""

    backbone: QuickBackbone
    views: tuple[str, ...]
    draw: int
    cache: PixelCache | None
    what: str

    def read(self, image: tuple[Path, bytes]) -> np.ndarray | ImageError:
        """Features (V, F) float16 of a file with this digest; its views (V, 3, H, W) uint8 where torch has to compute them."""
        path, content = image
        known = self._known(content)
        if known is not None:
            return known
        try:
            pixels = open_rgb(io.BytesIO(read_file(path)))
        except ImageError as error:
            return type(error)(path, error.reason)
        seen = style_views(pixels, self.backbone.encoder.config.image_size, self.views, content, self.draw)
        return seen if self.backbone.runtime == "torch" else self.compute(content, seen)

    def _known(self, content: bytes) -> np.ndarray | None:
        """Features that an earlier run left, of these views or of more that begin with them."""
        for names in (self.views, DEFAULT_VIEWS):
            if self.cache is not None and names[: len(self.views)] == self.views:
                found = self.cache.get(content, f"{self.what} {' '.join(names)}")
                if found is not None:
                    return found.view(np.float16)[: len(self.views), :, 0]
        return None

    def compute(self, content: bytes, views: np.ndarray) -> np.ndarray:
        """(V, F) float16 of views (V, 3, H, W) uint8."""
        found = self.backbone(views)
        if self.cache is not None:
            self.cache.put(content, f"{self.what} {' '.join(self.views)}", found[..., None].view(np.uint8))
        return found


def _digest(path: Path) -> bytes | ImageError:
    try:
        return hashlib.sha256(read_file(path)).digest()
    except ImageError as error:
        return error


def _room(shape: tuple[int, ...], folder: Path | None) -> NDArray[np.float16]:
    """An array for features: in memory, or in a file that is gone when nobody uses it any more."""
    if 2 * math.prod(shape) <= MAX_BYTES_IN_MEMORY:
        return np.empty(shape, np.float16)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.float16, "w+", shape=shape)
