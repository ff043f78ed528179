"""Searching with the weights themselves: any device and precision, and seconds to start."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ucdir.model.confidence import Confidence
from ucdir.model.device import autocast, choose_device, choose_precision
from ucdir.model.encoder import Encoder
from ucdir.model.runtime import Encoded, domain_numbers, unplaced


class TorchEncoder:
    """See `runtime.QueryEncoder`."""

    def __init__(self, folder: Path, device: str = "auto", precision: str = "auto") -> None:
        self._device = choose_device(device)
        self._precision = choose_precision(precision, self._device)
        encoder = Encoder.load(folder)
        self._encoder = encoder.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fingerprint = self._encoder.fingerprint()
        config = self._encoder.config
        self.image_size, self.views, self.domains, self.rows = config.image_size, config.views, config.domains, config.rows
        self.confidence = Confidence.of_numbers(config.confidence)

    @torch.no_grad()
    def __call__(self, views: np.ndarray, domains: Sequence[str | None] = ()) -> Encoded:
        """See `QueryEncoder`."""
        numbers = domain_numbers(self.domains, domains, len(views))
        pixels = torch.from_numpy(views).to(self._device)
        with autocast(self._device, self._precision):
            if not self.domains:
                return unplaced(np.asarray(self._encoder(pixels).float().cpu()))
            placed = self._encoder.placed(pixels, torch.from_numpy(numbers).to(self._device))
        names = tuple(self.domains[number] for number in placed.domain.tolist())
        return Encoded(np.asarray(placed.rows.float().cpu()), names, tuple(placed.is_strange.tolist()))
