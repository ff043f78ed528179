"""Searching with the weights themselves: any device and precision, and seconds to start."""

from pathlib import Path

import numpy as np
import torch

from ucdir.model.device import autocast, choose_device, choose_precision
from ucdir.model.encoder import Encoder


class TorchEncoder:
    """See `runtime.QueryEncoder`."""

    def __init__(self, folder: Path, device: str = "auto", precision: str = "auto") -> None:
        self._device = choose_device(device)
        self._precision = choose_precision(precision, self._device)
        self._encoder = Encoder.load(folder).to(self._device)
        self.fingerprint = self._encoder.fingerprint()
        self.image_size = self._encoder.config.image_size

    @torch.no_grad()
    def __call__(self, views: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) uint8 -> (N, D) float32 unit rows."""
        with autocast(self._device, self._precision):
            rows = self._encoder(torch.from_numpy(views).to(self._device))
        return np.asarray(rows.float().cpu())
