"""Methods beside each other: a dot for each seed, a bar at their mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from ucdir.report.plots.axes import Scale, percent, ticks
from ucdir.report.plots.marks import Drawing, Kind, Line, Mark, Shape, Words

WIDTH, ROW, TOP, LETTER = 640.0, 30.0, 26.0, 6.5


@dataclass(frozen=True)
class DotRow:
    """A line of the plot.

    kind     training-free, trained, oracle or published
    values   (label, figure in [0, 1]): seeds, or sources
    """

    name: str
    kind: str
    values: tuple[tuple[str, float], ...]


SHAPES: dict[str, Kind] = {"training-free": "ring", "published": "diamond"}
ROLES = {"training-free": "plain", "trained": "accent", "oracle": "oracle", "published": "ink"}


def dot_plot(name: str, title: str, rows: Sequence[DotRow]) -> Drawing:
    """Figures in percent."""
    left = min(max(len(row.name) for row in rows) * LETTER + 20, 300)
    found = [100 * value for row in rows for _, value in row.values]
    steps = ticks(min(found), max(found), 5)
    scale = Scale(steps[0], steps[-1], left + 10, WIDTH - 60)
    height = TOP + ROW * len(rows) + 8
    marks: list[Mark] = []
    for tick in steps:
        marks.append(Line(((scale(tick), TOP - 6), (scale(tick), height - 6)), "line", 1.0))
        marks.append(Words(scale(tick), TOP - 11, f"{tick:g}", "quiet", 11, "middle"))
    for number, row in enumerate(rows):
        marks += _row(row, TOP + (number + 0.5) * ROW, left, scale)
    return Drawing(name, title, WIDTH, height, tuple(marks))


def _row(row: DotRow, y: float, left: float, scale: Scale) -> list[Mark]:
    role = ROLES[row.kind]
    centre = scale(100 * mean(value for _, value in row.values))
    shape = SHAPES.get(row.kind, "disc")
    marks: list[Mark] = [Words(left - 4, y + 4, row.name, "ink" if row.kind != "oracle" else "oracle", 12, "end")]
    marks.append(Line(((centre, y - 9), (centre, y + 9)), role, 2.0))
    for label, value in row.values:
        said = f"{row.name}, {label}: {percent(value)} %"
        marks.append(Shape(scale(100 * value), y, role, 4.2, shape, said, opacity=0.85))
    far = max(scale(100 * value) for _, value in row.values)
    marks.append(Words(far + 10, y + 4, percent(mean(value for _, value in row.values)), "quiet", 11))
    return marks
