"""Images of all domains on a plane, before and after training."""

from collections.abc import Iterator, Sequence
from typing import Any

from ucdir.report.facts import MapFacts
from ucdir.report.page.frame import Section
from ucdir.report.page.pictures import CELL, COLUMNS, Pictures
from ucdir.report.percent import percent
from ucdir.report.plots.marks import KINDS, NUM_COLOURS, Drawing, Shape, colour
from ucdir.report.plots.scatter import scatter
from ucdir.report.rendering import render

TITLES = {"frozen": "frozen backbone", "trained": "trained encoder"}


def map_section(facts: MapFacts, domains: Sequence[str], class_names: Sequence[str], pictures: Pictures) -> Section:
    """Two linked maps: what is pointed at in one is shown in both."""
    drawn = zip(map_drawings(facts), facts.planes.items(), strict=True)
    body = render(
        "map",
        keys=[(name, _key(number, name)) for number, name in enumerate(domains)],
        present=sorted({point.label for point in facts.points} - {-1}),
        num_colours=NUM_COLOURS,
        class_names=class_names,
        figures=[(drawing, TITLES[kind], percent(sum(plane.kept))) for drawing, (kind, plane) in drawn],
        cell=CELL,
        columns=COLUMNS,
        sheet=pictures.sheet([point.path for point in facts.points]),
        points=_points(facts, domains, class_names, pictures),
    )
    lead = (
        f"{len(facts.points):,} images, the same fraction of each domain, on the plane of their largest differences (PCA). "
        "Point at a mark or tap it to see its image; when a map has the focus, arrow keys move from mark to mark."
    )
    return Section("map", "Map", body, lead)


def map_drawings(facts: MapFacts, key: Sequence[str] = ()) -> Iterator[Drawing]:
    """A plane for each encoder; `key` names the domains if the plot is a file of its own."""
    for kind, plane in facts.planes.items():
        yield scatter(f"map-{kind}", f"Embeddings on a plane, {TITLES[kind]}", facts.points, plane.points, key)


def _key(number: int, name: str) -> Drawing:
    """The mark of a domain."""
    return Drawing("key", name, 16, 16, (Shape(8, 8, colour(number), 5, KINDS[number % len(KINDS)]),))


def _points(facts: MapFacts, domains: Sequence[str], class_names: Sequence[str], pictures: Pictures) -> dict[str, Any]:
    """What the script of the page needs to know of every point."""
    points = [[point.domain, point.label, pictures.name(point.path)] for point in facts.points]
    return {"domains": list(domains), "classes": list(class_names), "points": points}
