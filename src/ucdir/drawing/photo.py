"""Specimen -> a kind of photograph: coloured, textured, lit, before a background, through an imperfect camera."""

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from ucdir.drawing.kinds import Material, Specimen
from ucdir.drawing.pose import Freedom, posed

Pixels = NDArray[np.floating[Any]]  # (H, W, 3) or (H, W) in [0, 1]

FREEDOM = Freedom(turn=10, size=(0.8, 1.0), lean=0.08)

# hue, saturation and value ranges; hues beyond 1 wrap round
_COLOURS: dict[Material, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "paint": ((0.0, 1.0), (0.1, 0.32), (0.45, 0.95)),
    "second": ((0.0, 1.0), (0.06, 0.28), (0.4, 0.95)),
    "accent": ((0.93, 1.2), (0.15, 0.35), (0.55, 0.95)),
    "wood": ((0.04, 0.1), (0.12, 0.3), (0.25, 0.6)),
    "leaf": ((0.12, 0.42), (0.12, 0.3), (0.3, 0.7)),
    "glass": ((0.5, 0.62), (0.04, 0.15), (0.35, 0.9)),
    "metal": ((0.08, 0.6), (0.02, 0.1), (0.45, 0.8)),
    "dark": ((0.0, 1.0), (0.0, 0.15), (0.08, 0.25)),
    "light": ((0.08, 0.18), (0.0, 0.08), (0.8, 0.98)),
    "hole": ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
}


def photograph(specimen: Specimen, rng: np.random.Generator, size: int) -> Image.Image:
    """A new photograph of the specimen: RGB, `size` x `size` pixels. Drawn twice as large."""
    canvas = 2 * size
    placed = posed(specimen, rng, canvas, FREEDOM)
    scene = _background(rng, canvas)
    colour, relief, mask = _painted(placed, rng, canvas)
    light = rng.uniform(0, 2 * np.pi)
    surface = colour * (1 + rng.uniform(0.05, 0.2) * (_grain(rng, canvas) - 0.5))[..., None]
    surface = surface * _shading(relief, mask, light, rng)[..., None]
    scene = scene * (1 - _shadow(mask, light, rng))[..., None]
    solid = np.asarray(mask, dtype=np.float32)[..., None] / 255
    return _exposed(scene * (1 - solid) + surface * solid, rng, size)


def _colour(rng: np.random.Generator, material: Material) -> NDArray[np.float32]:
    hue, saturation, value = (rng.uniform(*limits) for limits in _COLOURS[material])
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), dtype=np.float32)


def _byte(colour: NDArray[np.float32]) -> tuple[int, int, int]:
    red, green, blue = (np.clip(colour, 0, 1) * 255).astype(int).tolist()
    return red, green, blue


def _flat(line: NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in line.tolist()]


def _painted(placed: Specimen, rng: np.random.Generator, canvas: int) -> tuple[Pixels, Image.Image, Image.Image]:
    """Own colour (H, W, 3), relief and silhouette of the specimen."""
    colours = {material: _colour(rng, material) for material in _COLOURS}
    image, relief, mask = (
        Image.new("RGB", (canvas, canvas)),
        Image.new("L", (canvas, canvas)),
        Image.new("L", (canvas, canvas)),
    )
    pens = [ImageDraw.Draw(layer) for layer in (image, relief, mask)]
    width = max(round(canvas * rng.uniform(0.006, 0.012)), 1)
    for part in placed:
        line = _flat(part.line)
        tint = _byte(colours[part.material] * rng.uniform(0.85, 1.15))
        if part.closed:
            height = 0 if part.material == "hole" else int(rng.integers(120, 256))
            for pen, fill in zip(pens, (tint, height, 0 if part.material == "hole" else 255), strict=True):
                pen.polygon(line, fill=fill)
        else:
            pens[0].line(line, fill=tint, width=width, joint="curve")
            pens[1].line(line, fill=90, width=width, joint="curve")
            pens[2].line(line, fill=255, width=width, joint="curve")
    return np.asarray(image, dtype=np.float32) / 255, relief, mask


def _shading(relief: Image.Image, mask: Image.Image, light: float, rng: np.random.Generator) -> Pixels:
    """Brightness factor (H, W) of a relief lit from the side: edges, the round of the whole, a gloss."""
    canvas = relief.width
    small = _slope(relief.filter(ImageFilter.GaussianBlur(canvas / 110)), light) * canvas / 200
    large = _slope(mask.reduce(4).filter(ImageFilter.GaussianBlur(canvas / 40)).resize(mask.size), light) * canvas / 25
    shade = rng.uniform(0.8, 1.3) * np.tanh(small) * 0.4 + rng.uniform(0.3, 0.6) * np.tanh(large)
    gloss = rng.uniform(0, 0.5) * np.clip(large - 0.3, 0, 1) ** 2
    return (1 + shade * 0.8 + gloss) * (1 - _creases(relief, rng))


def _creases(relief: Image.Image, rng: np.random.Generator) -> Pixels:
    """Share of light lost (H, W) where parts meet and at the rim."""
    canvas = relief.width
    level = np.asarray(relief.filter(ImageFilter.GaussianBlur(canvas / 180)), dtype=np.float32) / 255
    down, across = np.gradient(level)
    steepness = np.hypot(down, across) * canvas / 10
    lost: Pixels = np.clip(steepness, 0, 1) * rng.uniform(0.5, 0.95)
    return lost


def _slope(height: Image.Image, light: float) -> Pixels:
    """Rise of the surface towards the light, per pixel."""
    level = np.asarray(height, dtype=np.float32) / 255
    rise = np.zeros_like(level)
    rise[:, 1:-1] += (level[:, 2:] - level[:, :-2]) * (0.5 * np.cos(light))
    rise[1:-1] += (level[2:] - level[:-2]) * (0.5 * np.sin(light))
    return rise


def _shadow(mask: Image.Image, light: float, rng: np.random.Generator) -> Pixels:
    """Share of light taken from the background (H, W): the silhouette, moved and blurred."""
    canvas = mask.width
    far = rng.uniform(0.01, 0.07) * canvas
    shift = (far * np.cos(light) / 4, far * np.sin(light) / 4)
    small = mask.reduce(4).transform((canvas // 4, canvas // 4), Image.Transform.AFFINE, (1, 0, -shift[0], 0, 1, -shift[1]))
    soft = small.filter(ImageFilter.GaussianBlur(canvas / 4 * rng.uniform(0.01, 0.04))).resize(
        mask.size, Image.Resampling.BILINEAR
    )
    return np.asarray(soft, dtype=np.float32) / 255 * np.float32(rng.uniform(0.15, 0.55))


def _grain(rng: np.random.Generator, canvas: int) -> Pixels:
    """A surface pattern (H, W): blotches, grain along one direction, or weave."""
    rows, columns = [(24, 24), (6, 64), (64, 6), (90, 90)][int(rng.integers(4))]
    return _noise(rng, canvas, rows, columns)


def _noise(rng: np.random.Generator, canvas: int, rows: int, columns: int) -> Pixels:
    coarse = Image.fromarray(rng.integers(0, 256, size=(rows, columns), dtype=np.uint8))
    return np.asarray(coarse.resize((canvas, canvas), Image.Resampling.BICUBIC), dtype=np.float32) / 255


def _background(rng: np.random.Generator, canvas: int) -> Pixels:
    """A lit wall, a wall and a floor, or open ground, with texture and out-of-focus things."""
    first, second = (_backdrop_colour(rng) for _ in range(2))
    weight = np.linspace(0, 1, canvas, dtype=np.float32)
    style = rng.integers(3)
    if style == 0:
        blend = np.broadcast_to(weight[:, None], (canvas, canvas))
    elif style == 1:
        tilt = rng.uniform(-0.15, 0.15)
        blend = ((weight[:, None] + tilt * weight[None]) > rng.uniform(0.5, 0.85)).astype(np.float32)
    else:
        blend = _noise(rng, canvas, *([(4, 4), (10, 10), (3, 12)][int(rng.integers(3))]))
    scene = first + (second - first) * blend[..., None]
    scene = _cluttered(scene, rng)
    texture = (
        1 + rng.uniform(0.05, 0.3) * (_grain(rng, canvas) - 0.5) + rng.uniform(0.0, 0.12) * (_noise(rng, canvas, 5, 5) - 0.5)
    )
    return np.asarray(scene * texture[..., None], dtype=np.float32)


def _backdrop_colour(rng: np.random.Generator) -> NDArray[np.float32]:
    colour = colorsys.hsv_to_rgb(rng.uniform(0, 1), rng.uniform(0.0, 0.09), rng.uniform(0.74, 0.95))
    return np.array(colour, dtype=np.float32)


def _cluttered(scene: Pixels, rng: np.random.Generator) -> Pixels:
    """Up to two blurred blocks, discs and bars anywhere in the scene."""
    canvas = len(scene)
    image = Image.fromarray((np.clip(scene, 0, 1) * 255).astype(np.uint8)).reduce(2)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 3))):
        x, y = rng.uniform(0, canvas / 2, size=2)
        wide, tall = rng.uniform(0.03, 0.22, size=2) * canvas / 2
        fill = _byte(_backdrop_colour(rng))
        if rng.random() < 0.5:
            pen.ellipse((x - wide, y - tall, x + wide, y + tall), fill=fill)
        else:
            lean = rng.uniform(-wide, wide)
            pen.polygon(
                [
                    (x - wide, y - tall),
                    (x + wide, y - tall),
                    (x + wide + lean, y + tall),
                    (x - wide + lean, y + tall),
                ],
                fill=fill,
            )
    image = image.filter(ImageFilter.GaussianBlur(canvas / 2 * rng.uniform(0.006, 0.025)))
    return np.asarray(image.resize((canvas, canvas), Image.Resampling.BILINEAR), dtype=np.float32) / 255


def _exposed(scene: Pixels, rng: np.random.Generator, size: int) -> Image.Image:
    """What the camera makes of it: uneven light, exposure, white balance, contrast, focus, noise."""
    small = np.clip(scene, 0, 1).reshape(size, 2, size, 2, 3).mean(axis=(1, 3))
    falloff = np.linspace(-1, 1, size, dtype=np.float32)
    direction = rng.uniform(-0.25, 0.25, size=2)
    light = (
        1
        + direction[0] * falloff[:, None]
        + direction[1] * falloff[None]
        - rng.uniform(0, 0.2) * (falloff[:, None] ** 2 + falloff**2)
    )
    small = small * light[..., None] * rng.uniform(0.75, 1.2) * rng.uniform(0.92, 1.08, size=3)
    small = np.clip(small, 0, 1) ** rng.uniform(0.75, 1.3)
    image = Image.fromarray((small * 255).astype(np.uint8))
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.002, 0.009)))
    noise = rng.normal(0, rng.uniform(1, 6), size=(size, size, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
