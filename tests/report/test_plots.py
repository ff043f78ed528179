"""Plots: where values go, gaps, marks of epochs, and that nothing a name holds leaves its place."""

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ucdir.errors import UcdirError
from ucdir.palette import DARK, LIGHT
from ucdir.report.facts import Series
from ucdir.report.percent import percent
from ucdir.report.plots.axes import Scale, short, ticks
from ucdir.report.plots.bars import ClassBar, class_bars, most_changed
from ucdir.report.plots.curves import curve, said
from ucdir.report.plots.dots import DotPlot, DotRow, dot_plot, narrow_dot_plot
from ucdir.report.plots.heat import heat_map
from ucdir.report.plots.marks import Box, Drawing, Line, Shape, Words
from ucdir.report.plots.png import png_file
from ucdir.report.plots.svg import inline_svg, svg_file
from ucdir.scoring.confusion import Confusion

NASTY = "</script><b onload='x'>\"&\x07\udcff"


def lines(drawing: Drawing, role: str) -> list[Line]:
    return [mark for mark in drawing.marks if isinstance(mark, Line) and mark.role == role and not mark.dashed]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, (0.0, 0.5, 1.0)),
        (0.2193, 0.3311, (0.2, 0.25, 0.3, 0.35)),
        (5.0, 5.0, (4.4, 4.6)),
        (-3.0, 7.0, (-5.0, 0.0, 5.0, 10.0)),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: tuple[float, ...]) -> None:
    found = ticks(low, high, 3)
    assert len(found) <= 4
    assert found[0] <= low
    assert found[-1] >= high
    if low < high:
        assert found == expected


def test_a_scale_is_linear_and_a_point_lies_in_the_middle() -> None:
    assert [Scale(0, 10, 100, 200)(value) for value in (0, 5, 10)] == [100, 150, 200]
    assert Scale(3, 3, 0, 10)(3) == 5


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (0.00012, "1.2e-4"), (12.5, "12.5"), (1670.0, "1,670"), (math.nan, "–"), (0.96314, "0.9631")],
)
def test_numbers_are_said_shortly(value: float, said: str) -> None:
    assert short(value) == said
    assert percent(math.nan) == "–"


def test_a_curve_has_gaps_where_nothing_is_known() -> None:
    drawing = curve(Series("terms", "entropy", (None, 1.0, 2.0, None, 3.0)), (1, 2, 3, 4, 5), {"last": 5, "oracle": 3})
    (only,) = lines(drawing, "accent")
    assert len(only.points) == 2  # the lone value after the gap is a point
    assert [dict(mark.data)["epoch"] for mark in drawing.marks if isinstance(mark, Shape)] == ["2", "3", "5"]
    assert {mark.text for mark in drawing.marks if isinstance(mark, Words)} >= {"last", "oracle"}


def test_larger_values_stand_higher_and_the_only_epoch_in_the_middle() -> None:
    drawing = curve(Series("x", "y", (1.0, 3.0, 2.0)), (1, 2, 3), {})
    heights = [mark.y for mark in drawing.marks if isinstance(mark, Shape)]
    assert heights[1] < heights[2] < heights[0]
    assert [mark for mark in curve(Series("x", "y", (4.0,)), (1,), {"last": 1}).marks if isinstance(mark, Shape)]


def test_scores_are_drawn_in_percent_as_in_the_tables() -> None:
    series = Series("oracle", "mAP@All", (0.1992, 0.25))
    drawing = curve(series, (1, 2), {})
    assert [dict(mark.data)["value"] for mark in drawing.marks if isinstance(mark, Shape)] == ["19.9 %", "25.0 %"]
    assert {mark.text for mark in drawing.marks if isinstance(mark, Words)} >= {"15", "20", "25"}
    assert drawing.title == "oracle: mAP@All over epochs, percent"
    same = curve(Series("label_free", "score", (0.1992, 0.25)), (1, 2), {})
    heights = [[mark.y for mark in found.marks if isinstance(mark, Shape)] for found in (drawing, same)]
    assert heights[0] == heights[1]
    assert said(Series("label_free", "score", ()), 0.1992) == "0.1992"


@pytest.mark.parametrize("draw", [dot_plot, narrow_dot_plot])
def test_dots_names_and_figures_stay_inside(draw: Callable[[DotPlot], Drawing]) -> None:
    best = DotRow("prototype, label-free + smoothed", "trained", (("seed 0", 1.0), ("seed 1", 0.9)))
    drawing = draw(DotPlot("x", "title", (DotRow("frozen", "training-free", (("seed 0", 0.5),)), best)))
    shapes = [mark for mark in drawing.marks if isinstance(mark, Shape)]
    assert [mark.title for mark in shapes[1:]] == [f"{best.name}, seed 0: 100.0 %", f"{best.name}, seed 1: 90.0 %"]
    assert all(mark.size <= mark.x <= drawing.width - mark.size and mark.y < drawing.height for mark in shapes)
    for mark in drawing.marks:
        if isinstance(mark, Words):
            wide = 6.5 / 12 * mark.size * len(mark.text)
            start = mark.x - wide * {"start": 0, "middle": 0.5, "end": 1}[mark.anchor]
            assert 0 <= start <= start + wide <= drawing.width, mark


def test_narrow_dots_have_their_names_above_and_fit_a_telephone() -> None:
    drawing = narrow_dot_plot(DotPlot("x", "title", (DotRow("frozen", "training-free", (("seed 0", 0.5),)),)))
    (name,) = (mark for mark in drawing.marks if isinstance(mark, Words) and mark.text == "frozen")
    (dot,) = (mark for mark in drawing.marks if isinstance(mark, Shape))
    assert name.y < dot.y - dot.size
    assert name.size >= 12
    assert drawing.width <= 330  # 390 less what stands around it: drawn at its size


def test_kinds_that_share_an_epoch_share_its_line() -> None:
    drawing = curve(Series("x", "y", (1.0, 2.0)), (1, 2), {"last": 2, "label-free": 2})
    assert len([mark for mark in drawing.marks if isinstance(mark, Line) and mark.dashed]) == 1
    assert "last · label-free" in {mark.text for mark in drawing.marks if isinstance(mark, Words)}


def test_the_names_of_kept_epochs_stay_inside() -> None:
    drawing = curve(Series("x", "y", (1.0, 2.0, 3.0)), (1, 2, 3), {"last": 3, "label-free": 1, "oracle": 1})
    (name,) = (mark for mark in drawing.marks if isinstance(mark, Words) and "oracle" in mark.text)
    assert name.x - 5.4 * len(name.text) >= 0


def test_bars_are_as_long_as_their_figures() -> None:
    drawing = class_bars("bars", "title", [ClassBar("dog", 3, 0.25, 0.5)])
    frozen, trained = (mark for mark in drawing.marks if isinstance(mark, Box) and mark.title)
    assert trained.width == pytest.approx(2 * frozen.width)
    assert trained.title == "dog, trained: 50.0 % (3 queries)"


def test_of_many_classes_those_that_changed_most_are_drawn_by_name() -> None:
    bars = [ClassBar(name, 1, 0.5, 0.5 + change) for name, change in zip("dcba", (0.1, -0.4, 0.0, 0.3), strict=True)]
    assert [bar.name for bar in most_changed(bars, most=2)] == ["a", "c"]
    assert [bar.name for bar in most_changed(bars)] == ["a", "b", "c", "d"]


def test_a_heat_map_writes_percent_and_marks_the_diagonal() -> None:
    found = Confusion(np.array([0, 1]), np.array([0, 1]), np.array([[0.75, 0.25], [0.25, 0.75]]), np.array([1, 1]))
    numbers = [m for m in heat_map("x", "t", found, ["cat", "dog"]).marks if isinstance(m, Words) and m.text.isdigit()]
    assert [(mark.text, mark.bold) for mark in numbers] == [("75", True), ("25", False), ("25", False), ("75", True)]


def test_names_stay_text() -> None:
    drawing = Drawing("x", NASTY, 100, 50, (Words(1, 2, NASTY), Shape(1, 2, "ink", title=NASTY, data=(("i", NASTY),))))
    for text in (inline_svg(drawing), svg_file(drawing)):
        root = ElementTree.fromstring(text.encode())
        assert not [element for element in root.iter() if element.tag.endswith("}b") or "onload" in element.attrib]
        assert NASTY not in text


def test_every_colour_has_a_dark_twin_and_text_can_be_read() -> None:
    """WCAG contrast of 4.5 for all that text is written in, on both grounds."""
    assert LIGHT.keys() == DARK.keys()
    for scheme in (LIGHT, DARK):
        for role in ("ink", "quiet", "accent", "oracle"):
            for ground in ("card", "ground"):
                assert contrast(scheme[role], scheme[ground]) >= 4.5, (role, ground)
        assert contrast(scheme["on-accent"], scheme["accent"]) >= 4.5
        assert contrast(scheme["on-heat"], scheme["heat"]) >= 4.5


def contrast(one: str, other: str) -> float:
    def light(tone: str) -> float:
        parts = [int(tone[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((light(one), light(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_a_picture_file_where_matplotlib_is_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="PNG plots need the extra 'plot'")
    drawing = curve(Series("terms", "a $x_1$ b", (1.0, None, 2.0)), (1, 2, 3), {"last": 3})
    png_file(drawing, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_one_sentence_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(UcdirError, match=re.escape("pip install 'ucdir[plot]'")):
        png_file(Drawing("x", "t", 10, 10, ()), tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())
