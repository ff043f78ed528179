"""Views on an accelerator: whole batches of crops of any size at once, the same pictures as `cpu_views` to within one level."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ucdir.images.training_views import GREY, ViewDraw, blur_weights

MAX_PIXELS = 2**24  # pixels of a group, padding included: a view needs some 40 bytes for each
MAX_PIXELS_ON_CPU = 2**19  # larger arrays are new memory each time, which costs twice the time in page faults


@dataclass(frozen=True)
class Crop:
    """The pixels (h, w, 3) uint8 in the box of a draw, and the draw."""

    pixels: np.ndarray
    draw: ViewDraw

    @classmethod
    def of(cls, pixels: np.ndarray, draw: ViewDraw) -> "Crop":
        """Cut the box out of the pixels (H, W, 3) of an image; nothing is copied."""
        left, top, right, bottom = draw.box
        return cls(pixels[top:bottom, left:right], draw)


def render_crops(crops: Sequence[Crop], size: int, device: torch.device) -> Tensor:
    """The views that were drawn: (N, 3, size, size) uint8 on `device`. Nothing here waits for the device."""
    views = torch.empty((len(crops), 3, size, size), dtype=torch.uint8, device=device)
    most = MAX_PIXELS_ON_CPU if device.type == "cpu" else MAX_PIXELS
    for rows in _groups([crop.pixels.shape[:2] for crop in crops], size, most):
        views[_there(rows, device)] = _render([crops[row] for row in rows], size, device)
    return views


def _groups(shapes: Sequence[tuple[int, ...]], size: int, most: int) -> Iterator[list[int]]:
    """Positions of crops of like size, as many together as `most` pixels hold, at least one."""
    group: list[int] = []
    high = wide = size
    for row in sorted(range(len(shapes)), key=lambda row: max(shapes[row])):
        high, wide = max(high, shapes[row][0]), max(wide, shapes[row][1])
        if group and (len(group) + 1) * high * wide > most:
            yield group
            group, high, wide = [], max(size, shapes[row][0]), max(size, shapes[row][1])
        group.append(row)
    if group:
        yield group


def _render(crops: Sequence[Crop], size: int, device: torch.device) -> Tensor:
    draws = [crop.draw for crop in crops]
    views = _resized(crops, size, device)
    views = _jittered(views, draws)
    views = _greyed(views, draws)
    views = _blurred(views, draws)
    return views.round_().clamp_(0, 255).to(torch.uint8)


def _there(values: object, device: torch.device) -> Tensor:
    """Numbers on the device; the copy is not waited for."""
    tensor = torch.as_tensor(values)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def _resized(crops: Sequence[Crop], size: int, device: torch.device) -> Tensor:
    """Bilinear with antialiasing, as Pillow does it: (n, 3, size, size) float32 of whole levels.

    The crops fill the upper left corners of (n, H, W). Each has a matrix per direction, with zeros for the rest.
    """
    shapes = np.array([crop.pixels.shape[:2] for crop in crops])
    number, (high, wide) = len(crops), shapes.max(axis=0)
    padded = torch.empty((number, high, wide, 3), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for corner, crop in zip(padded.numpy(), crops, strict=True):
        corner[: crop.pixels.shape[0], : crop.pixels.shape[1]] = crop.pixels
    heights, widths = _there(shapes.T.astype(np.float32), device)
    flips = _there([crop.draw.flip for crop in crops], device)
    down, across = _triangles(heights, high, size), _triangles(widths, wide, size)
    across = torch.where(flips[:, None, None], across.flip(1), across)

    rows = padded.to(device, non_blocking=True).transpose(2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    rows = rows.view(number, high * 3, wide) @ across.mT  # (n, H * 3, size)
    columns = down @ rows.round_().view(number, high, 3 * size)  # (n, size, 3 * size)
    return columns.round_().view(number, size, 3, size).transpose(1, 2).contiguous()


def _triangles(lengths: Tensor, longest: int, size: int) -> Tensor:
    """(n, size, longest): row i weighs the first of `longest` pixels, as many as the length says, for pixel i of `size`."""
    scale = (lengths / size)[:, None, None]
    centres = (torch.arange(size, device=lengths.device) + 0.5)[:, None] * scale
    pixels = torch.arange(longest, device=lengths.device) + 0.5
    weights = (1 - (pixels - centres).abs() / scale.clamp(min=1)).clamp_(min=0)
    weights = weights * (pixels < lengths[:, None, None])
    return weights / weights.sum(dim=2, keepdim=True)


def _jittered(views: Tensor, draws: Sequence[ViewDraw]) -> Tensor:
    """Changes of colour, each view's in its own order.

    Brightness, contrast and saturation lead away from black, from the mean grey or from each pixel's grey: one formula.
    """
    device = views.device
    for place in range(max(len(draw.jitter) for draw in draws)):
        changes = [draw.jitter[place] if draw.jitter else ("none", 1.0) for draw in draws]
        factors = [1.0 if kind == "hue" else amount for kind, amount in changes]
        from_mean, from_grey = ([kind == name for kind, _ in changes] for name in ("contrast", "saturation"))
        table = _there(np.array([factors, from_mean, from_grey], np.float32), device)[:, :, None, None, None]
        grey = _grey(views)
        grey = table[1] * grey.mean(dim=(2, 3), keepdim=True) + table[2] * grey
        views = grey.lerp(views, table[0]).clamp_(0, 255)
        turned = [row for row, (kind, _) in enumerate(changes) if kind == "hue"]
        if turned:
            rows, turns = _there(turned, device), _there([changes[row][1] for row in turned], device)
            views.index_copy_(0, rows, _turned(views[rows], turns.float()))
    return views


def _grey(views: Tensor) -> Tensor:
    """(n, 1, size, size)."""
    grey = views[:, :1] * GREY[0]
    for channel in (1, 2):
        grey = grey.add(views[:, channel : channel + 1], alpha=GREY[channel])
    return grey


def _turned(views: Tensor, turns: Tensor) -> Tensor:
    """Turn the hues of HSV by `turns` (n,); saturation and value stay. `cpu_views` has the same without a division."""
    red, green, blue = views.unbind(1)
    low, high = views.amin(1), views.amax(1)
    chroma = high - low
    share = 1 / chroma.clamp(min=1e-3)
    near_blue = (red - green) * share + 4
    near_green = (blue - red) * share + 2
    near_red = (green - blue) * share
    hue = torch.where(red == high, near_red, torch.where(green == high, near_green, near_blue)) + 6 * turns[:, None, None]
    hue = hue.remainder(6)[:, None]  # sixths of a turn from red
    peaks = torch.tensor([[3.0], [2.0], [4.0]]).to(views.device, non_blocking=True)[:, :, None]
    shares = (hue - peaks).abs()
    shares = torch.cat([shares[:, :1] - 1, 2 - shares[:, 1:]], dim=1).clamp_(0, 1)
    return low[:, None] + chroma[:, None] * shares


def _greyed(views: Tensor, draws: Sequence[ViewDraw]) -> Tensor:
    grey = _there([draw.grey for draw in draws], views.device)
    return torch.where(grey[:, None, None, None], _grey(views), views)


def _blurred(views: Tensor, draws: Sequence[ViewDraw]) -> Tensor:
    """Blur rows and columns by one banded matrix for each view; its first and last column take the values beyond the edges."""
    blurred = [row for row, draw in enumerate(draws) if draw.blur]
    if not blurred:
        return views
    weights = [blur_weights(draws[row].blur) for row in blurred]
    margin = max(len(found) for found in weights) - 1
    halves = np.stack([np.pad(found, (0, margin + 1 - len(found))) for found in weights])
    device, size = views.device, views.shape[-1]
    steps = torch.arange(size, device=device)
    neighbours = (steps + torch.arange(-margin, margin + 1, device=device)[:, None]).clamp_(0, size - 1)  # (2 r + 1, size)
    bands = (neighbours[:, :, None] == steps).float().view(2 * margin + 1, -1)
    matrices = (_there(np.concatenate([halves[:, :0:-1], halves], axis=1), device) @ bands).view(-1, 1, size, size)
    rows = _there(blurred, device)
    return views.index_copy_(0, rows, matrices @ views[rows] @ matrices.mT)
