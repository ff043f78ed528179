"""Specimen -> a line drawing on paper: wobbling strokes of changing width, gaps, a little hatching."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ucdir.drawing.curves import Points, resample
from ucdir.drawing.kinds import Part, Specimen
from ucdir.drawing.pose import Freedom, posed

FREEDOM = Freedom(turn=10, size=(0.8, 1.0), lean=0.08)

_PAPERS = ((255, 255, 255), (252, 250, 244), (248, 244, 234), (243, 243, 243))
_INKS = ((25, 25, 28), (60, 60, 64), (38, 44, 74), (66, 50, 42))


def line_drawing(specimen: Specimen, rng: np.random.Generator, size: int) -> Image.Image:
    """A new line drawing of the specimen: RGB, `size` x `size` pixels. Drawn twice as large."""
    canvas = 2 * size
    ink = Image.new("L", (canvas, canvas))
    pen = _Pen(ImageDraw.Draw(ink), rng, canvas)
    for part in posed(specimen, rng, canvas, FREEDOM):
        _draw_part(part, pen, rng)
    paper = np.array(_PAPERS[int(rng.integers(len(_PAPERS)))], dtype=np.float32)
    colour = np.array(_INKS[int(rng.integers(len(_INKS)))], dtype=np.float32)
    cover = np.asarray(ink.reduce(2), dtype=np.float32)[..., None] / 255
    grain = rng.normal(0, rng.uniform(0.5, 5), size=(size, size, 1))
    return Image.fromarray(np.clip(paper + (colour - paper) * cover + grain, 0, 255).astype(np.uint8))


class _Pen:
    """One drawing's hand: its usual width, its wobble, how often it lifts."""

    def __init__(self, target: ImageDraw.ImageDraw, rng: np.random.Generator, canvas: int) -> None:
        self.target = target
        self.rng = rng
        self.width = canvas * rng.uniform(0.009, 0.022)
        self.wobble = canvas * rng.uniform(0.001, 0.007)
        self.lift = rng.uniform(0.0, 0.12)
        self.twice = rng.random() < 0.3
        self.step = canvas * 0.018
        self.dark = int(rng.integers(190, 256))

    def draw(self, line: Points, closed: bool, width: float = 1.0) -> None:
        """A stroke along the line, sometimes gone over a second time."""
        for _ in range(2 if self.twice and width == 1.0 else 1):
            self._stroke(resample(line, self.step, closed), self.width * width * (0.75 if self.twice else 1.0))

    def erase(self, line: Points) -> None:
        """Leave blank paper inside an outline: parts in front hide those behind."""
        self.target.polygon([(x, y) for x, y in line.tolist()], fill=0)

    def _stroke(self, path: Points, width: float) -> None:
        count = len(path)
        path = path + self.wobble * np.column_stack([_drift(self.rng, count), _drift(self.rng, count)])
        widths = width * (1 + 0.35 * _drift(self.rng, count)).clip(0.4, 1.8)
        pressure = _drift(self.rng, count)
        down = pressure >= np.quantile(pressure, self.lift)
        for (x0, y0), (x1, y1), wide, drawn in zip(path[:-1], path[1:], widths, down, strict=False):
            if not drawn:
                continue
            self.target.line((x0, y0, x1, y1), fill=self.dark, width=max(round(wide), 1))
            half = wide / 2
            self.target.ellipse((x1 - half, y1 - half, x1 + half, y1 + half), fill=self.dark)


def _drift(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """A slow random curve (count,), about a standard deviation of one."""
    knots = rng.normal(size=max(count // 6, 2) + 1)
    return np.interp(np.linspace(0, len(knots) - 1, count), np.arange(len(knots)), knots)


def _draw_part(part: Part, pen: _Pen, rng: np.random.Generator) -> None:
    if not part.closed:
        if rng.random() < 0.85:
            pen.draw(part.line, closed=False, width=0.75)
        return
    pen.erase(part.line)
    if part.material == "dark" and rng.random() < 0.5:
        _hatch(part.line, pen, rng, spacing=1.2)
    elif part.material in ("second", "wood", "leaf") and rng.random() < 0.2:
        _hatch(part.line, pen, rng, spacing=3.5)
    pen.draw(part.line, closed=True)


def _hatch(outline: Points, pen: _Pen, rng: np.random.Generator, spacing: float) -> None:
    """Parallel strokes inside the outline, `spacing` pen widths apart."""
    angle = rng.uniform(0.5, 1.1)
    across = np.array([-np.sin(angle), np.cos(angle)])
    along = np.array([np.cos(angle), np.sin(angle)])
    heights = outline @ across
    for height in np.arange(heights.min(), heights.max(), max(spacing, 1.0) * pen.width)[1:]:
        for start, stop in _inside(outline, across, along, height):
            pen.draw(
                np.stack([across * height + along * start, across * height + along * stop]),
                closed=False,
                width=0.5,
            )


def _inside(
    outline: Points, across: NDArray[np.float64], along: NDArray[np.float64], height: float
) -> list[tuple[float, float]]:
    """Stretches of the line at `height` inside the outline, as positions along it."""
    ends = np.roll(outline, -1, axis=0)
    low, high = outline @ across - height, ends @ across - height
    crossing = (low < 0) != (high < 0)
    share = low[crossing] / (low[crossing] - high[crossing])
    cuts = np.sort((outline[crossing] + (ends - outline)[crossing] * share[:, None]) @ along)
    return [(float(a), float(b)) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
