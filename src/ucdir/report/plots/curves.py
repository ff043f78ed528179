"""One quantity over the epochs, with the epochs that were kept marked."""

from collections.abc import Iterator, Mapping, Sequence

from ucdir.report.facts import Series
from ucdir.report.percent import percent
from ucdir.report.plots.axes import Scale, short, ticks
from ucdir.report.plots.marks import Drawing, Line, Mark, Shape, Words

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 330.0, 168.0, 46.0, 14.0, 20.0, 24.0
KEPT = {"last": "ink", "label-free": "accent", "oracle": "oracle"}
LETTER = 5.4  # px, about
PERCENT = ("oracle",)  # sections whose values are shares, as the tables' are, and drawn as percent
MAX_EPOCHS_WITH_POINTS = 60  # epochs from which on points are not drawn


def curve(series: Series, epochs: tuple[int, ...], chosen: Mapping[str, int]) -> Drawing:
    """The values of `series` over `epochs`; gaps where a value is missing."""
    role = "oracle" if series.section == "oracle" else "accent"
    times = 100.0 if series.section in PERCENT else 1.0
    across, down = _scales([times * value for value in series.values if value is not None], epochs)
    marks: list[Mark] = [*_frame(down, across, epochs), *_kept(across, chosen)]
    points = list(zip(epochs, series.values, strict=True))
    marks += [Line(tuple((across(e), down(times * v)) for e, v in piece), role, 2.0) for piece in _pieces(points)]
    hidden = len(epochs) > MAX_EPOCHS_WITH_POINTS
    for epoch, value in points:
        if value is not None:
            shown = said(series, value)
            title, data = f"epoch {epoch}: {shown}", (("epoch", str(epoch)), ("value", shown))
            marks.append(
                Shape(across(epoch), down(times * value), role, 2.6, title=title, data=data, opacity=0.0 if hidden else 1.0)
            )
    name = f"{series.section}-{series.name}"
    unit = ", percent" if series.section in PERCENT else ""
    return Drawing(f"curve-{name}", f"{series.section}: {series.name} over epochs{unit}", WIDTH, HEIGHT, tuple(marks))


def said(series: Series, value: float) -> str:
    """A value of `series` as a reader meets it: 23.7 % of a score, else a number."""
    return f"{percent(value)} %" if series.section in PERCENT else short(value)


def _scales(values: Sequence[float], epochs: tuple[int, ...]) -> tuple[Scale, Scale]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    steps = ticks(low, high, 3)
    across = Scale(epochs[0], epochs[-1], LEFT + 6, WIDTH - RIGHT)
    return across, Scale(steps[0], steps[-1], HEIGHT - BOTTOM, TOP)


def _frame(down: Scale, across: Scale, epochs: tuple[int, ...]) -> Iterator[Mark]:
    for value in ticks(down.low, down.high, 3):
        yield Line(((LEFT, down(value)), (WIDTH - RIGHT, down(value))), "line", 1.0)
        yield Words(LEFT - 6, down(value) + 4, short(value), "quiet", 11, "end")
    for epoch in _epoch_ticks(epochs[0], epochs[-1]):
        yield Words(across(epoch), HEIGHT - 7, str(epoch), "quiet", 11, "middle")


def _epoch_ticks(first: int, last: int) -> list[int]:
    """The first epoch, and round ones that are not close to it."""
    if last - first < 6:
        return list(range(first, last + 1))
    steps = ticks(first, last, 5)
    near = (steps[1] - steps[0]) * 0.6
    return [first, *(round(step) for step in steps if first + near <= step <= last)]


def _kept(across: Scale, chosen: Mapping[str, int]) -> Iterator[Mark]:
    """A dashed line at each kept epoch; kinds that share an epoch share it."""
    by_epoch: dict[int, list[str]] = {}
    for kind, epoch in chosen.items():
        by_epoch.setdefault(epoch, []).append(kind)
    edges: list[float] = []
    for epoch, kinds in sorted(by_epoch.items(), reverse=True):
        x = across(epoch)
        yield Line(((x, TOP - 6), (x, HEIGHT - BOTTOM)), KEPT.get(kinds[-1], "quiet"), 1.2, dashed=True)
        text = " · ".join(kinds)
        wide = LETTER * len(text)
        end = max(min(x + 3, WIDTH - 2, *(edge - 6 for edge in edges)), wide + 2)
        yield Words(end, TOP - 9, text, KEPT.get(kinds[-1], "quiet"), 10, "end")
        edges.append(end - wide)


def _pieces(points: list[tuple[int, float | None]]) -> Iterator[list[tuple[int, float]]]:
    """Runs of at least two values without a gap."""
    piece: list[tuple[int, float]] = []
    for epoch, value in points:
        if value is None:
            if len(piece) > 1:
                yield piece
            piece = []
        else:
            piece.append((epoch, value))
    if len(piece) > 1:
        yield piece
