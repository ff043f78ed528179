"""A backbone that only ever looks: the same features in less time."""

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx.experimental.optimization import fuse

from ucdir.model.device import autocast
from ucdir.model.encoder import Encoder
from ucdir.model.export import can_export, feature_session


class QuickBackbone:
    """The backbone of an encoder with each batch norm folded into the convolution before it.

    With `exported`, onnxruntime runs it where that is installed and numbers are float32 on a CPU: nearly twice as fast there,
    after a few seconds. A network that cannot be exported, or cannot be folded, stays as it is: as right, only slower.
    """

    def __init__(self, encoder: Encoder, device: torch.device, precision: str, exported: bool = False) -> None:
        self.encoder = _folded(encoder)
        self._device, self._precision = device, precision
        self._exported = exported and device.type == "cpu" and precision == "float32" and can_export()
        self._session: Any = None
        self._one_at_a_time = threading.Lock()

    @property
    def runtime(self) -> str:
        """What computes: results of one differ from those of another in their last digits.

        onnxruntime takes one thread for the views of an image, so several threads should call; torch takes all that there are.
        """
        return "onnxruntime" if self._exported else "torch"

    def __call__(self, views: NDArray[np.uint8]) -> NDArray[np.float16]:
        """(V, 3, H, W) -> (V, F)."""
        with self._one_at_a_time:
            if self._exported and self._session is None:
                self._session = feature_session(self.encoder)
                self._exported = self._session is not None
        if self._session is not None:
            return np.asarray(self._session.run(None, {"pixels": views})[0], np.float16)
        with torch.no_grad(), autocast(self._device, self._precision):
            found: NDArray[np.float16] = self.encoder.features(torch.from_numpy(views).to(self._device)).half().cpu().numpy()
        return found


def _folded(encoder: Encoder) -> Encoder:
    config = replace(encoder.config, hidden=None, dim=None)
    try:
        return Encoder(fuse(encoder.backbone.eval()), config)
    except Exception:  # whatever code of a network raises that is run with symbols instead of values
        return Encoder(encoder.backbone, config)
