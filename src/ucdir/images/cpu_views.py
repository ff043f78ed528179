"""Views on the CPU: one at a time, in threads, in arrays small enough for a core's own memory.

A quarter of Pillow's time in one thread: colours are floats throughout, hues turn without a division, a blur has no more taps
than it needs. The operations are short, and threads meet at Python's lock between them.
"""

import threading
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ucdir.images.training_views import GREY, Change, ViewDraw, blur_weights

WIDEST = 16  # px of margin that a blur may need
_local = threading.local()


@dataclass(frozen=True)
class Canvas:
    """Room for one view, kept by each thread: allocating it for every view would cost page faults.

    image    (3, size * size) float32, 0 to 255: red, green, blue
    spare    (5, size * size) float32
    pages    (3, enough for a channel with margins) float32
    """

    image: np.ndarray
    spare: np.ndarray
    pages: np.ndarray


def render(pixels: np.ndarray, draw: ViewDraw, view: np.ndarray) -> None:
    """Write the view of `pixels` (H, W, 3) uint8 that was drawn into `view` (3, size, size) uint8."""
    size = view.shape[-1]
    canvas = _canvas(size)
    image = canvas.image
    planes = image.reshape(3, size, size)
    np.copyto(planes, _resized(pixels, draw.box, size))
    for change in draw.jitter:
        _jitter(image, change, canvas.spare)
    if draw.grey:
        image[:] = _grey(image, canvas.spare)
    if draw.blur:
        _blur(planes, blur_weights(draw.blur), canvas.pages)
    image += np.float32(0.5)
    np.copyto(view, planes, casting="unsafe")
    if draw.flip:
        view[:] = view[:, :, ::-1].copy()


def _canvas(size: int) -> Canvas:
    canvas: Canvas | None = getattr(_local, "canvas", None)
    if canvas is None or canvas.image.shape[1] != size * size:
        area, page = size * size, (size + 2 * WIDEST) ** 2
        canvas = _local.canvas = Canvas(*(np.empty((n, p), np.float32) for n, p in ((3, area), (5, area), (3, page))))
    return canvas


def _resized(pixels: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """The box of an image, bilinear with antialiasing, the same as Pillow's to within one level: (3, size, size) uint8."""
    left, top, right, bottom = box
    crop = torch.from_numpy(pixels[top:bottom, left:right]).permute(2, 0, 1)
    resized: np.ndarray = F.interpolate(crop[None], (size, size), mode="bilinear", antialias=True)[0].numpy()
    return resized


def _jitter(image: np.ndarray, change: Change, spare: np.ndarray) -> None:
    kind, amount = change
    factor = np.float32(amount)
    if kind == "hue":
        _turn_hue(image, factor, spare)
        return
    if kind == "contrast":
        mean = _grey(image, spare).mean()
        image *= factor
        image += (1 - factor) * mean
    elif kind == "saturation":
        grey = _grey(image, spare)
        image *= factor
        grey *= 1 - factor
        image += grey
    else:
        image *= factor
    if factor > 1:  # a value between two colours needs no clamping
        np.clip(image, 0, 255, out=image)


def _grey(image: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """(size * size,) in the first row of `spare`. A matrix product would wake the threads of BLAS."""
    grey: np.ndarray = spare[0]
    part = spare[1]
    np.multiply(image[0], np.float32(GREY[0]), out=grey)
    for channel in (1, 2):
        np.multiply(image[channel], np.float32(GREY[channel]), out=part)
        grey += part
    return grey


def _turn_hue(image: np.ndarray, turns: np.float32, spare: np.ndarray) -> None:
    """Turn the hues of HSV by -1/6 to 1/6, saturation and value stay.

    A hue is measured in sixths of a turn from red, times chroma: so nothing is divided, and grey has no hue to divide by.
    Each colour is a trapezium over it: full for two sixths, falling for one, nothing for two, rising for one.
    """
    red, green, blue = image
    low, high, chroma, hue, other = spare
    np.minimum(np.minimum(red, green, out=low), blue, out=low)
    np.maximum(np.maximum(red, green, out=high), blue, out=high)
    np.subtract(high, low, out=chroma)
    near_red, near_green = red == high, green == high
    np.multiply(chroma, 4, out=hue)  # near blue
    hue += red
    hue -= green
    np.multiply(chroma, 2, out=other)
    other += blue
    other -= red
    np.copyto(hue, other, where=near_green)
    np.subtract(green, blue, out=other)
    np.copyto(hue, other, where=near_red)
    hue += np.multiply(chroma, 6 * turns, out=other)  # -2 to 6 sixths

    hue -= chroma
    np.abs(hue, out=blue)
    blue -= chroma
    if turns > 0:  # hues beyond 5 sixths
        np.multiply(chroma, 5, out=other)
        np.minimum(blue, np.subtract(other, hue, out=other), out=blue)
    hue -= chroma
    np.abs(hue, out=other)
    np.subtract(chroma, other, out=green)
    green += chroma
    hue -= chroma
    np.abs(hue, out=red)
    red -= chroma
    if turns < 0:  # hues below -1 sixth
        np.multiply(chroma, 5, out=other)
        np.minimum(red, np.add(other, hue, out=other), out=red)
    image += low
    np.maximum(image, low, out=image)
    np.minimum(image, high, out=image)


def _blur(planes: np.ndarray, weights: np.ndarray, pages: np.ndarray) -> None:
    """Blur (3, size, size) in both directions, edges repeated outwards.

    Rows are contiguous in memory, margins included, so moving right or down is the same shift of a flat array.
    """
    size, margin = planes.shape[-1], len(weights) - 1
    wide = size + 2 * margin
    page, across, part = (flat[: wide * wide] for flat in pages)
    for plane in planes:
        square = page.reshape(wide, wide)
        inner = slice(margin, margin + size)
        square[inner, inner] = plane
        square[:margin, inner], square[margin + size :, inner] = plane[0], plane[-1]
        square[:, :margin], square[:, margin + size :] = square[:, inner][:, :1], square[:, inner][:, -1:]
        _weighted(page, weights, wide, across, part)
        _weighted(across[: size * wide], weights, 1, page, part)
        plane[:] = square[:size, :size]


def _weighted(values: np.ndarray, weights: np.ndarray, step: int, sums: np.ndarray, part: np.ndarray) -> None:
    """sums[i] = weights over values[i] to values[i + 2 r step], r steps to both sides of the one in the middle."""
    margin = len(weights) - 1
    count = len(values) - 2 * margin * step
    middle, sums, part = margin * step, sums[:count], part[:count]
    np.multiply(values[middle : middle + count], weights[0], out=sums)
    for distance in range(1, margin + 1):
        before, after = middle - distance * step, middle + distance * step
        np.add(values[before : before + count], values[after : after + count], out=part)
        part *= weights[distance]
        sums += part
