"""Where and how images are embedded."""

from dataclasses import dataclass

import torch

from ucdir.images.pixel_cache import PixelCache
from ucdir.model.device import choose_device, choose_precision


@dataclass(frozen=True)
class Compute:
    """What every embedding of images needs besides the encoder.

    precision    float32 or bfloat16
    workers      threads that read images; 0 = one per core
    batch_size   images per batch
    cache        where views and features are kept; None = nowhere
    """

    device: torch.device
    precision: str
    workers: int = 0
    batch_size: int = 64
    cache: PixelCache | None = None

    @classmethod
    def named(
        cls,
        device: str = "auto",
        precision: str = "auto",
        workers: int = 0,
        batch_size: int = 64,
        cache: PixelCache | None = None,
    ) -> "Compute":
        """With the device and the precision of these names (see `choose_device`, `choose_precision`)."""
        chosen = choose_device(device)
        return cls(chosen, choose_precision(precision, chosen), workers, batch_size, cache)
