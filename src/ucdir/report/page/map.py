"""Images of all domains on a plane, before and after training."""

import json
from collections.abc import Iterator, Sequence

from ucdir.report.facts import MapFacts
from ucdir.report.page.frame import Section
from ucdir.report.page.pictures import CELL, COLUMNS, Pictures
from ucdir.report.percent import percent
from ucdir.report.plots.marks import KINDS, NUM_COLOURS, Drawing, Shape, colour
from ucdir.report.plots.scatter import scatter
from ucdir.report.plots.svg import escaped, inline_svg

TITLES = {"frozen": "frozen backbone", "trained": "trained encoder"}


def map_section(facts: MapFacts, domains: Sequence[str], class_names: Sequence[str], pictures: Pictures) -> Section:
    """Two linked maps: what is pointed at in one is shown in both."""
    figures = "".join(_figure(drawing, kind, facts) for drawing, kind in zip(map_drawings(facts), facts.planes, strict=True))
    sheet = pictures.sheet([point.path for point in facts.points])
    body = (
        f'<div class="legend">{_legend(domains)}{_choice(class_names, facts)}</div>'
        f'<div class="two maps" data-cell="{CELL}" data-columns="{COLUMNS}">{figures}</div>'
        f'<p class="small" id="map-said" aria-live="polite"></p>'
        f'<img id="sheet" src="{sheet}" alt="" hidden>'
        f'<script type="application/json" id="map-points">{_points(facts, domains, class_names, pictures)}</script>'
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


def _figure(drawing: Drawing, kind: str, facts: MapFacts) -> str:
    first, second = facts.planes[kind].kept
    kept = f"{percent(first + second)} % of the variance"
    return (
        f'<figure class="card map" tabindex="0" role="group" aria-label="{escaped(drawing.title)}">'
        f"<figcaption><span>{TITLES[kind]}</span><span>{kept}</span></figcaption>{inline_svg(drawing)}</figure>"
    )


def _legend(domains: Sequence[str]) -> str:
    keys = []
    for number, name in enumerate(domains):
        mark = Drawing("key", name, 16, 16, (Shape(8, 8, colour(number), 5, KINDS[number % len(KINDS)]),))
        keys.append(f'<span class="key">{inline_svg(mark)}{escaped(name)}</span>')
    return f'<div class="keys">{"".join(keys)}</div>'


def _choice(class_names: Sequence[str], facts: MapFacts) -> str:
    present = sorted({point.label for point in facts.points} - {-1})
    if not present:
        return ""
    by_class = '<option value="class">colour by class</option>' if len(present) <= NUM_COLOURS else ""
    single = "".join(f'<option value="{number}">only {escaped(class_names[number])}</option>' for number in present)
    return (
        '<label class="choice" hidden><span>Show</span><select id="map-colour"><option value="domain">colour by domain</option>'
        f"{by_class}{single}</select></label><div class='keys' id='class-keys'></div>"
    )


def _points(facts: MapFacts, domains: Sequence[str], class_names: Sequence[str], pictures: Pictures) -> str:
    """JSON inside a script element: `<` is written so that nothing in a name can end it."""
    content = {
        "domains": list(domains),
        "classes": list(class_names),
        "points": [[point.domain, point.label, pictures.name(point.path)] for point in facts.points],
    }
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
