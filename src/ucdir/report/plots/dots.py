"""Methods side by side: a dot for each seed, a bar at their mean."""

from dataclasses import dataclass
from statistics import mean

from ucdir.report.percent import percent
from ucdir.report.plots.axes import Scale, ticks
from ucdir.report.plots.marks import Anchor, Drawing, Kind, Line, Mark, Shape, Words

TOP, BOTTOM, LETTER, FIGURE = 26.0, 8.0, 6.5, 46.0  # px; the figure after the last dot is so wide
WIDTH, ROW = 640.0, 30.0
NARROW_WIDTH, NARROW_ROW = 330.0, 40.0


@dataclass(frozen=True)
class DotRow:
    """A line of the plot.

    kind     training-free, trained, oracle or published
    values   (label, figure in [0, 1]): seeds, or sources
    """

    name: str
    kind: str
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class DotPlot:
    """What is drawn, wide or narrow: a name for its file, a title, at least one row, each with at least one value."""

    name: str
    title: str
    rows: tuple[DotRow, ...]


@dataclass(frozen=True)
class Layout:
    """Places in px. `name` and `dots` are heights within a row, `start` is where the dots begin."""

    width: float
    row: float
    start: float
    names_at: float
    anchor: Anchor
    name: float
    dots: float


SHAPES: dict[str, Kind] = {"training-free": "ring", "published": "diamond"}
ROLES = {"training-free": "plain", "trained": "accent", "oracle": "oracle", "published": "ink"}


def dot_plot(plot: DotPlot) -> Drawing:
    """Figures in percent, names left of their dots."""
    left = min(max(len(row.name) for row in plot.rows) * LETTER + 20, 300)
    return _drawn(plot, Layout(WIDTH, ROW, left + 10, left - 4, "end", ROW / 2 + 4, ROW / 2))


def narrow_dot_plot(plot: DotPlot) -> Drawing:
    """The same for a telephone: names above their dots, nothing to scroll."""
    return _drawn(plot, Layout(NARROW_WIDTH, NARROW_ROW, 8, 2, "start", 12, 26))


def _drawn(plot: DotPlot, layout: Layout) -> Drawing:
    found = [100 * value for row in plot.rows for _, value in row.values]
    steps = ticks(min(found), max(found), 5)
    scale = Scale(steps[0], steps[-1], layout.start, layout.width - FIGURE)
    height = TOP + layout.row * len(plot.rows) + BOTTOM
    marks: list[Mark] = []
    for tick in steps:
        marks.append(Line(((scale(tick), TOP - 6), (scale(tick), height - 6)), "line", 1.0))
        marks.append(Words(scale(tick), TOP - 11, f"{tick:g}", "quiet", 11, "middle"))
    for number, row in enumerate(plot.rows):
        marks += _row(row, TOP + number * layout.row, layout, scale)
    return Drawing(plot.name, plot.title, layout.width, height, tuple(marks))


def _row(row: DotRow, top: float, layout: Layout, scale: Scale) -> list[Mark]:
    role, y = ROLES[row.kind], top + layout.dots
    centre = scale(100 * mean(value for _, value in row.values))
    shape = SHAPES.get(row.kind, "disc")
    tone = "ink" if row.kind != "oracle" else "oracle"
    marks: list[Mark] = [Words(layout.names_at, top + layout.name, row.name, tone, 12, layout.anchor)]
    marks.append(Line(((centre, y - 9), (centre, y + 9)), role, 2.0))
    for label, value in row.values:
        said = f"{row.name}, {label}: {percent(value)} %"
        marks.append(Shape(scale(100 * value), y, role, 4.2, shape, said, opacity=0.85))
    far = max(scale(100 * value) for _, value in row.values)
    marks.append(Words(far + 10, y + 4, percent(mean(value for _, value in row.values)), "quiet", 11))
    return marks
