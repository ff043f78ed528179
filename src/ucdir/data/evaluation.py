"""The one view of an image wherever it is embedded: clustering, scores, galleries and queries. Needs no torch."""

import numpy as np
from PIL import Image


def evaluation_view(image: Image.Image, size: int) -> np.ndarray:
    """Shorter side to 8/7 of `size`, bilinear, then the centre: RGB image -> (3, size, size) uint8."""
    width, height = image.size
    shorter = round(size * 8 / 7)
    scaled = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    left, top = (round((side - size) / 2) for side in scaled)
    view = image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(view).transpose(2, 0, 1))
