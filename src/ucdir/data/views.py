"""Images to tensors: the two training views.

Views come from an explicit random generator: the same seed gives the same view in any thread, so a resumed run sees
exactly the pictures that the uninterrupted one would have seen.
"""

import math
import random

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms.v2 import functional as tv


def training_view(image: Image.Image, size: int, rng: random.Random, strongest_blur: float = 2.0) -> Tensor:
    """A view of MoCo v2: crop, jitter, grey, blur, flip: RGB image -> (3, size, size) uint8.

    strongest_blur    px, >= 0.1; the paper's 2 px are meant for 224 px

    Crop of 0.2 to 1 of the area; brightness, contrast and saturation by up to 0.4, hue by up to 0.1, with probability 0.8;
    grey with 0.2; Gaussian blur of 0.1 to 2 px with 0.5; flip with 0.5. Chen et al. 2020 (MoCo v2).
    """
    view = random_crop(image, size, rng)
    if rng.random() < 0.8:
        view = colour_jitter(view, rng)
    if rng.random() < 0.2:
        view = view.convert("L").convert("RGB")
    if rng.random() < 0.5:
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, strongest_blur)))
    if rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return to_pixels(view)


def random_crop(image: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """A crop of 0.2 to 1 of the area with sides 3:4 to 4:3, resized to `size`; the centre where none fits in ten tries."""
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(0.2, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = rng.randint(0, width - wide), rng.randint(0, height - high)
            break
    else:
        wide, high = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
        left, top = (width - wide) // 2, (height - high) // 2
    box = (left, top, left + wide, top + high)
    return image.crop(box).resize((size, size), Image.Resampling.BILINEAR)


def colour_jitter(image: Image.Image, rng: random.Random) -> Image.Image:
    """Brightness, contrast, saturation (x 0.6 to 1.4) and hue (-0.1 to 0.1 turns), in random order."""
    changes = [
        (tv.adjust_brightness, rng.uniform(0.6, 1.4)),
        (tv.adjust_contrast, rng.uniform(0.6, 1.4)),
        (tv.adjust_saturation, rng.uniform(0.6, 1.4)),
        (tv.adjust_hue, rng.uniform(-0.1, 0.1)),
    ]
    rng.shuffle(changes)
    for change, amount in changes:
        image = change(image, amount)
    return image


def to_pixels(image: Image.Image) -> Tensor:
    """RGB image -> (3, H, W) uint8."""
    pixels: Tensor = tv.pil_to_tensor(image)
    assert pixels.dtype == torch.uint8
    return pixels
