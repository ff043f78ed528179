"""The one view of an image wherever it is embedded: clustering, scores, galleries and queries. Needs no torch."""

import numpy as np
from PIL import Image

LONGEST = 16


def evaluation_view(image: Image.Image, size: int) -> np.ndarray:
    """Shorter side to 8/7 of `size`, bilinear, then the centre: RGB image -> (3, size, size) uint8.

    An image over LONGEST times as long as wide is cut before it is scaled: scaled whole, one row of a million pixels
    would fill the memory.
    """
    width, height = image.size
    shorter = round(size * 8 / 7)
    scaled = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    left, top = (round((side - size) / 2) for side in scaled)
    if max(scaled) > LONGEST * shorter:
        across, down = width / scaled[0], height / scaled[1]
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        view = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    else:
        view = image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(view).transpose(2, 0, 1))
