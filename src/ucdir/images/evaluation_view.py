"""How encoders see an image wherever it is embedded: clustering, scores, galleries and queries. Needs no torch."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ucdir.images.style_views import style_views

MAX_ASPECT = 16


@dataclass(frozen=True)
class Viewing:
    """What an encoder wants to see of an image.

    size   side of a view in pixels
    names  of style views; none = the evaluation view alone
    """

    size: int
    names: tuple[str, ...] = ()

    def __call__(self, image: Image.Image, content: bytes) -> np.ndarray:
        """uint8: (3, H, W), the evaluation view; or (V, 3, H, W), the views with these names, which alone need `content`."""
        return style_views(image, self.size, self.names, content) if self.names else evaluation_view(image, self.size)


def evaluation_view(image: Image.Image, size: int) -> np.ndarray:
    """Shorter side to 8/7 of `size`, bilinear, then the centre: RGB image -> (3, size, size) uint8.

    An image over MAX_ASPECT times as long as wide is cut before it is scaled: scaled whole, one row of a million pixels
    would fill the memory.
    """
    width, height = image.size
    shorter = round(size * 8 / 7)
    scaled = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    left, top = (round((side - size) / 2) for side in scaled)
    if max(scaled) > MAX_ASPECT * shorter:
        across, down = width / scaled[0], height / scaled[1]
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        view = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    else:
        view = image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(view).transpose(2, 0, 1))
