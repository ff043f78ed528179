"""The fixed views in which the default method sees an image: as it is, cropped, and without some of its style. Needs no torch.

The views of an image depend on its content alone: what is random is drawn from the digest of its file.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

VERSION = "1"  # of what the views look like
SMALLEST_CROP = 0.35  # fraction of the area
BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Source:
    """What a view is made from.

    image  RGB, as the file holds it
    plain  the same as a square of `size` px
    lines  gives the edges of `plain`; two views want them
    rng    of this view of this image
    """

    image: Image.Image
    plain: Image.Image
    lines: Callable[[], NDArray[np.float32]]
    rng: random.Random


def style_views(image: Image.Image, size: int, names: Sequence[str], content: bytes, draw: int = 0) -> NDArray[np.uint8]:
    """(V, 3, size, size): the views called `names` of an image.

    names    keys of VIEWS
    content  digest of the image file
    draw     another number gives other crops
    """
    plain = ImageOps.fit(image, (size, size), BICUBIC)
    lines = cache(lambda: edges(plain))
    views = [VIEWS[name](Source(image, plain, lines, random.Random(content + f"{name} {draw}".encode()))) for name in names]
    return np.ascontiguousarray(np.stack([np.asarray(view) for view in views]).transpose(0, 3, 1, 2))


# Views that keep the style


def _plain(source: Source) -> Image.Image:
    return source.plain


def _mirrored(source: Source) -> Image.Image:
    return ImageOps.mirror(source.plain)


def _crop(source: Source) -> Image.Image:
    """A random part with other colours, sometimes grey, blurred or mirrored."""
    rng, view = source.rng, _part(source)
    if rng.random() < 0.8:
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            view = enhancer(view).enhance(rng.uniform(0.6, 1.4))
    if rng.random() < 0.3:
        view = view.convert("L").convert("RGB")
    if rng.random() < 0.5:
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))
    return view


def _part(source: Source) -> Image.Image:
    """A random part of the image, mirrored half of the time, as large as the plain view."""
    rng, (width, height) = source.rng, source.image.size
    area = width * height * rng.uniform(SMALLEST_CROP, 1.0)
    aspect = 2.0 ** rng.uniform(-0.415, 0.415)  # 3:4 to 4:3
    across, down = min(width, (area * aspect) ** 0.5), min(height, (area / aspect) ** 0.5)
    left, top = rng.uniform(0, width - across), rng.uniform(0, height - down)
    part = source.image.resize(source.plain.size, BICUBIC, box=(left, top, left + across, top + down))
    return ImageOps.mirror(part) if rng.random() < 0.5 else part


# Views that remove style


def _grey(source: Source) -> Image.Image:
    return ImageOps.autocontrast(source.plain.convert("L")).convert("RGB")


def _negative(source: Source) -> Image.Image:
    return ImageOps.invert(source.plain)


def _posterised(source: Source) -> Image.Image:
    """Flat areas of few colours, without fine texture. The median is taken at half the size, which is many times faster."""
    side = source.plain.width
    smooth = source.plain.resize((side // 2, side // 2), BILINEAR).filter(ImageFilter.MedianFilter(3))
    return ImageOps.posterize(smooth.resize((side, side), BILINEAR), 2)


def _low_resolution(source: Source) -> Image.Image:
    side = source.plain.width
    return source.plain.resize((side // 5, side // 5), BILINEAR).resize((side, side), BICUBIC)


def _lines(source: Source) -> Image.Image:
    return _drawn(1 - source.lines())


def _line_part(source: Source) -> Image.Image:
    return _drawn(1 - edges(_part(source)))


def _strokes(source: Source) -> Image.Image:
    """Dark strokes on white, as with a soft pencil: where the picture is darker than its surroundings."""
    return _drawn(1 - np.clip(_scaled(_differences(source.plain, 1.8, 4.0)), 0, 1))


def _silhouette(source: Source) -> Image.Image:
    """What the lines enclose, filled dark on white."""
    lines = source.lines()
    return _drawn(np.where(enclosed(lines > 0.35), 80 / 255, 1) * (1 - lines))


VIEWS: dict[str, Callable[[Source], Image.Image]] = {
    "plain": _plain,
    "mirrored": _mirrored,
    "crop-1": _crop,
    "crop-2": _crop,
    "lines": _lines,
    "line-part-1": _line_part,
    "line-part-2": _line_part,
    "strokes": _strokes,
    "grey": _grey,
    "silhouette": _silhouette,
    "posterised": _posterised,
    "negative": _negative,
    "low-resolution": _low_resolution,
}
KEEPING_STYLE = ("plain", "mirrored", "crop-1", "crop-2")
DEFAULT_VIEWS = tuple(VIEWS)
PLAIN = DEFAULT_VIEWS[:1]


def edges(image: Image.Image) -> NDArray[np.float32]:
    """(H, W) in [0, 1]: how much an image changes at each pixel, relative to its own strongest edges."""
    return np.clip(_scaled(np.abs(_differences(image, 1.0, 2.2))), 0, 1)


def _differences(image: Image.Image, fine: float, coarse: float) -> NDArray[np.float32]:
    """(H, W): how much darker each pixel is than its surroundings, grey levels; a difference of two Gaussians (px)."""
    grey = image.convert("L")
    near, far = (np.asarray(grey.filter(ImageFilter.GaussianBlur(sigma)), np.float32) for sigma in (fine, coarse))
    return far - near


def _scaled(change: NDArray[np.float32]) -> NDArray[np.float32]:
    return change / np.float32(np.percentile(np.clip(change, 0, None), 97) + 4)


def _drawn(values: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray((255 * values).astype(np.uint8)).convert("RGB")


def enclosed(lines: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W): lines, small gaps in them closed, and all that cannot be reached from the border without crossing them."""
    reach = 2 * max(1, len(lines) // 112)
    border = 2 * reach + 1
    canvas = Image.fromarray(np.pad(lines, border).astype(np.uint8) * 255)
    wide = canvas.filter(ImageFilter.BoxBlur(reach)).point(lambda level: 255 if level else 0)
    closed = np.asarray(wide.filter(ImageFilter.BoxBlur(reach))) == 255
    return ~_outside(closed)[border:-border, border:-border]


def _outside(walls: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Free pixels that a path of free pixels connects to the top left corner, which is free."""
    reached = np.zeros_like(walls)
    reached[0, 0] = True
    while True:
        spread = _along_rows(_along_rows(reached, walls).T, walls.T).T
        if np.array_equal(spread, reached):
            return reached
        reached = spread


def _along_rows(reached: NDArray[np.bool_], walls: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Everything free in the same row without a wall between it and a reached pixel."""
    starts = walls.copy()
    starts[:, 1:] |= walls[:, :-1]
    starts[:, 0] = True
    run = np.cumsum(starts.ravel()) - 1
    found = np.bincount(run, reached.ravel()) > 0
    free: NDArray[np.bool_] = found[run].reshape(walls.shape) & ~walls
    return free
