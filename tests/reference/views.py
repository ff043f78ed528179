"""Training views once more, with Pillow and torchvision as the released code makes them. Imports nothing of ucdir."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter
from torchvision.transforms.v2 import functional as tv

CHANGES = {
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
    "hue": tv.adjust_hue,
}


def view(
    image: Image.Image,
    size: int,
    box: tuple[int, int, int, int],
    jitter: Sequence[tuple[str, float]] = (),
    grey: bool = False,
    blur: float = 0.0,
    flip: bool = False,
) -> np.ndarray:
    """(3, size, size) uint8 of an RGB image."""
    image = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    for kind, amount in jitter:
        image = CHANGES[kind](image, amount)
    if grey:
        image = image.convert("L").convert("RGB")
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image).transpose(2, 0, 1)
