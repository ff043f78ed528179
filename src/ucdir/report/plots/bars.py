"""Scores class by class: two bars a class, frozen above, trained below."""

from collections.abc import Sequence
from dataclasses import dataclass

from ucdir.report.percent import percent
from ucdir.report.plots.axes import Scale
from ucdir.report.plots.marks import Box, Drawing, Line, Mark, Words

WIDTH, ROW, TOP, BAR, LETTER = 560.0, 34.0, 52.0, 11.0, 6.6
MAX_CLASSES = 40


@dataclass(frozen=True)
class ClassBar:
    """A class and its figure, frozen and trained, in [0, 1]; `queries` is the number of queries."""

    name: str
    queries: int
    frozen: float
    trained: float


def class_bars(name: str, title: str, bars: Sequence[ClassBar]) -> Drawing:
    """Bars in percent, one scale from 0 to 100."""
    left = min(max((len(_short(bar.name)) for bar in bars), default=4) * LETTER + 20, 180)
    scale = Scale(0.0, 1.0, left, WIDTH - 46)
    height = TOP + ROW * len(bars) + 8
    marks: list[Mark] = [Box(left, 8, 11, 11, "plain"), Words(left + 17, 18, "frozen", "quiet")]
    marks += [Box(left + 76, 8, 11, 11, "accent"), Words(left + 93, 18, "trained", "quiet")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        marks.append(Line(((scale(tick), TOP - 6), (scale(tick), height - 6)), "line", 1.0))
        marks.append(Words(scale(tick), TOP - 11, f"{100 * tick:.0f}", "quiet", 11, "middle"))
    for row, bar in enumerate(bars):
        top = TOP + row * ROW
        marks.append(Words(left - 8, top + 17, _short(bar.name), "ink", 12, "end"))
        for place, (kind, role, value) in enumerate((("frozen", "plain", bar.frozen), ("trained", "accent", bar.trained))):
            y = top + 2 + place * (BAR + 1)
            shown = value if value == value else 0.0
            said = f"{bar.name}, {kind}: {percent(value)} % ({bar.queries:,} queries)"
            marks.append(Box(left, y, scale(shown) - left, BAR, role, title=said))
            marks.append(Words(scale(shown) + 5, y + 9.5, percent(value), "ink" if place else "quiet", 10.5, bold=bool(place)))
    return Drawing(name, title, WIDTH, height, tuple(marks))


def most_changed(bars: Sequence[ClassBar], most: int = MAX_CLASSES) -> tuple[ClassBar, ...]:
    """All bars by name; of more than `most` those that changed most, either way."""
    if len(bars) <= most:
        return tuple(sorted(bars, key=lambda bar: bar.name))
    changed = sorted(bars, key=lambda bar: (-abs(bar.trained - bar.frozen), bar.name))[:most]
    return tuple(sorted(changed, key=lambda bar: bar.name))


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
