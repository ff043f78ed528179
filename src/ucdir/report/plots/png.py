"""Drawings as PNG pictures, by matplotlib (the extra `plot`)."""

from pathlib import Path
from typing import Any

from ucdir.errors import UcdirError
from ucdir.palette import LIGHT
from ucdir.report.plots.marks import Box, Drawing, Line, Mark, Shape, Words
from ucdir.storage import atomic_file

DOTS, POINTS = 200, 0.72  # pixels an inch, points for a px of 1/100 inch
TITLE = 28  # px
SHAPES = {"disc": "o", "ring": "o", "square": "s", "diamond": "D", "triangle": "^"}
ALIGN = {"start": "left", "middle": "center", "end": "right"}


def png_file(drawing: Drawing, file: Path) -> None:
    """Write the drawing, title above, in the light scheme; UcdirError without the extra."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UcdirError(
            "PNG plots need matplotlib. Install the extra: pip install 'ucdir[plot]'. SVG plots need nothing."
        ) from error
    width, height = max(drawing.width, 7.4 * len(drawing.title) + 24), drawing.height + TITLE
    figure = Figure(figsize=(width / 100, height / 100), dpi=DOTS, facecolor=LIGHT["card"])
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(drawing.height, -TITLE))
    axes.set_axis_off()
    _draw(axes, Words(12, -8, drawing.title, size=13, bold=True), 0)
    for order, mark in enumerate(drawing.marks):
        _draw(axes, mark, order)
    with atomic_file(file) as draft:
        figure.savefig(draft, format="png", facecolor=LIGHT["card"])


def _draw(axes: Any, mark: Mark, order: int) -> None:
    tone = LIGHT[mark.role]
    match mark:
        case Line():
            across, down = zip(*mark.points, strict=True)
            dashes = {"linestyle": (0, (4, 3))} if mark.dashed else {}
            axes.plot(across, down, color=tone, linewidth=mark.width * POINTS, zorder=order, **dashes)
        case Box():
            axes.bar(
                mark.x, mark.height, mark.width, mark.y, align="edge", color=tone, alpha=mark.opacity, linewidth=0, zorder=order
            )
        case Shape():
            filled = "none" if mark.kind == "ring" else tone
            size = 2 * mark.size * POINTS
            look = {"marker": SHAPES[mark.kind], "markersize": size, "markerfacecolor": filled, "markeredgecolor": tone}
            axes.plot(
                [mark.x], [mark.y], alpha=mark.opacity, zorder=order, markeredgewidth=1.0 if filled == "none" else 0.0, **look
            )
        case Words():
            weight, turned = "bold" if mark.bold else "normal", 90 if mark.turned else 0
            place = {"ha": ALIGN[mark.anchor], "va": "baseline", "rotation": turned, "rotation_mode": "anchor"}
            text = mark.text.encode("utf-8", "replace").decode().replace("$", r"\$")
            axes.text(mark.x, mark.y, text, color=tone, fontsize=mark.size * POINTS, fontweight=weight, zorder=order, **place)
