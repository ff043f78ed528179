"""How the two training views of an image are drawn.

Draws come from an explicit random generator: the same seed gives the same view in any thread, so a resumed run sees
exactly the pictures that the uninterrupted one would have seen. What a draw looks like is another matter: `cpu_views`
and `device_views` render it.
"""

import math
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

SMALLEST_AREA = 0.2  # of a crop, as a share of the image
MAX_CROP_ASPECT = 4 / 3  # longer to shorter side of a crop
GREY = (0.299, 0.587, 0.114)  # what red, green and blue weigh in grey

Change = tuple[Literal["brightness", "contrast", "saturation", "hue"], float]


@dataclass(frozen=True)
class ViewDraw:
    """One view of MoCo v2. The changes follow each other in this order.

    box       left, top, right, bottom of the crop in px of the image
    jitter    changes of colour in their order: factors of brightness, contrast and saturation, turns of hue; or none
    grey      whether colours go
    blur      px, standard deviation of a Gaussian; 0 = none
    flip      whether left and right change sides
    """

    box: tuple[int, int, int, int]
    jitter: tuple[Change, ...] = ()
    grey: bool = False
    blur: float = 0.0
    flip: bool = False


def draw_view(width: int, height: int, rng: random.Random, max_blur_sigma: float = 2.0) -> ViewDraw:
    """Draw a view of an image of this size. Chen et al. 2020 (MoCo v2).

    max_blur_sigma    px, >= 0.1; the paper's 2 px are meant for 224 px

    Crop of 0.2 to 1 of the area; brightness, contrast and saturation by up to 0.4, hue by up to 0.1, with probability 0.8;
    grey with 0.2; Gaussian blur of 0.1 to 2 px with 0.5; flip with 0.5.
    """
    return ViewDraw(
        box=draw_crop(width, height, rng),
        jitter=draw_jitter(rng) if rng.random() < 0.8 else (),
        grey=rng.random() < 0.2,
        blur=rng.uniform(0.1, max_blur_sigma) if rng.random() < 0.5 else 0.0,
        flip=rng.random() < 0.5,
    )


def draw_crop(width: int, height: int, rng: random.Random) -> tuple[int, int, int, int]:
    """A box of 0.2 to 1 of the area with sides 3:4 to 4:3; the centre where none fits in ten tries."""
    for _ in range(10):
        area = width * height * rng.uniform(SMALLEST_AREA, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(MAX_CROP_ASPECT)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = rng.randint(0, width - wide), rng.randint(0, height - high)
            break
    else:
        wide, high = min(width, max(1, round(height * MAX_CROP_ASPECT))), min(height, max(1, round(width * MAX_CROP_ASPECT)))
        left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def draw_jitter(rng: random.Random) -> tuple[Change, ...]:
    """Brightness, contrast, saturation (x 0.6 to 1.4) and hue (-0.1 to 0.1 turns), in random order."""
    changes: list[Change] = [
        ("brightness", rng.uniform(0.6, 1.4)),
        ("contrast", rng.uniform(0.6, 1.4)),
        ("saturation", rng.uniform(0.6, 1.4)),
        ("hue", rng.uniform(-0.1, 0.1)),
    ]
    rng.shuffle(changes)
    return tuple(changes)


def useful_side(size: int) -> int:
    """Shorter side in px beyond which an image shows no more in a view of `size` px: its smallest crop is that wide."""
    return math.ceil(size / math.sqrt(SMALLEST_AREA / MAX_CROP_ASPECT))


def blur_weights(sigma: float) -> np.ndarray:
    """(r + 1,) float32 weights of the pixel itself and of its neighbours at 1 to r px, of a blur in one direction.

    As Pillow blurs: three boxes with soft ends, together a Gaussian to within a few thousandths. What would move no pixel by
    half a level is left out.
    """
    variance = sigma**2 / 3  # of a box
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    soft = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    box = np.array([soft, *[1.0] * (2 * whole + 1), soft]) / (2 * (whole + soft) + 1)
    weights = np.convolve(np.convolve(box, box), box)[3 * (whole + 1) :]
    weights = weights[weights > 1 / 512]
    weights /= 2 * weights.sum() - weights[0]
    return np.asarray(weights, np.float32)
