"""Images of all domains on a plane, a mark each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ucdir.report.facts import MapPoint
from ucdir.report.plots.axes import Scale
from ucdir.report.plots.marks import KINDS, Box, Drawing, Mark, Shape, Words, colour

SIDE, EDGE = 560.0, 16.0


def scatter(
    name: str, title: str, points: tuple[MapPoint, ...], places: NDArray[np.float64], key: Sequence[str] = ()
) -> Drawing:
    """Domains by colour and shape, named below by `key`. One scale both ways; marks carry the number of their image."""
    low, high = places.min(axis=0), places.max(axis=0)
    middle, reach = (low + high) / 2, max(float((high - low).max()) / 2, 1e-9)
    across = Scale(middle[0] - reach, middle[0] + reach, EDGE, SIDE - EDGE)
    down = Scale(middle[1] - reach, middle[1] + reach, SIDE - EDGE, EDGE)
    marks: list[Mark] = [Box(0, 0, SIDE, SIDE, "card")]
    order = np.random.default_rng(0).permutation(len(points))  # so that no domain covers the others
    for number in order.tolist():
        point, (x, y) = points[number], places[number]
        data = (("i", str(number)), ("d", str(point.domain)))
        kind = KINDS[point.domain % len(KINDS)]
        marks.append(Shape(across(float(x)), down(float(y)), colour(point.domain), 3.2, kind, data=data, opacity=0.75))
    x = EDGE
    for domain, text in enumerate(key):
        marks += [Shape(x, SIDE + 10, colour(domain), 5, KINDS[domain % len(KINDS)]), Words(x + 11, SIDE + 14, text)]
        x += 7.4 * len(text) + 36
    return Drawing(name, title, SIDE, SIDE + (26 if key else 0), tuple(marks))
