"""Queries and their hits: best, median and worst, then frozen next to trained."""

from collections.abc import Sequence

from ucdir.report.facts import DirectionFacts, FoundHit, Pick, ShownQuery
from ucdir.report.page.frame import Section
from ucdir.report.page.pictures import Pictures
from ucdir.report.plots.svg import escaped

MARKS = {True: ("right", "✓", "right"), False: ("wrong", "✕", "wrong"), None: ("", "", "not known")}
ONE_EACH = "No class appears twice in a group; ties go to the first image."


def grids_section(directions: Sequence[DirectionFacts], pictures: Pictures, labelled: bool) -> Section:
    """Answers of the trained encoder."""
    rule = (
        f"Queries with the highest, the most middling and the lowest average precision. {ONE_EACH} Green with ✓: same class."
        if labelled
        else "Without classes nothing tells right from wrong: queries are picked by the similarity of their first hit."
    )
    body = "".join(_direction(way, way.grids, pictures) for way in directions)
    return Section("answers", "Answers", body, f"{rule} Numbers are cosine similarities.")


def changes_section(directions: Sequence[DirectionFacts], pictures: Pictures, labelled: bool) -> Section:
    """The same queries under the frozen backbone and the trained encoder."""
    rule = (
        f"Queries by how training changed their average precision, the losses too. {ONE_EACH}"
        if labelled
        else "Queries by how many of their first hits are the same before and after training."
    )
    body = "".join(_direction(way, way.changes, pictures) for way in directions)
    return Section("changes", "What changed", body, f"{rule} Above the frozen backbone, below the trained encoder.")


def _direction(way: DirectionFacts, picks: Sequence[Pick], pictures: Pictures) -> str:
    parts = "".join(_pick(pick, pictures) for pick in picks if pick.queries)
    return f'<h3 class="way">{escaped(way.query)} → {escaped(way.gallery)}</h3>{parts}'


def _pick(pick: Pick, pictures: Pictures) -> str:
    queries = "".join(_query(query, pictures) for query in pick.queries)
    return f'<div class="pick"><h4>{escaped(pick.name)} <span class="rule">{escaped(pick.rule)}</span></h4>{queries}</div>'


def _query(query: ShownQuery, pictures: Pictures) -> str:
    name = pictures.name(query.path)
    title = query.class_name or name
    rows = "".join(_row(kind, hits, pictures, len(query.hits) > 1) for kind, hits in query.hits.items())
    return (
        f'<article class="query"><div class="asked" title="{escaped(name)}"><div class="picture">'
        f"{pictures.tag(query.path, f'query {name}')}</div>"
        f'<p><b>{escaped(title)}</b><span>{escaped(query.figure)}</span></p></div><div class="found">{rows}</div></article>'
    )


def _row(kind: str, hits: Sequence[FoundHit], pictures: Pictures, named: bool) -> str:
    label = f'<p class="which">{escaped(kind)}</p>' if named else ""
    return f'{label}<ol class="hits">{"".join(_hit(rank, hit, pictures) for rank, hit in enumerate(hits, 1))}</ol>'


def _hit(rank: int, hit: FoundHit, pictures: Pictures) -> str:
    style, sign, word = MARKS[hit.right]
    name = pictures.name(hit.path)
    badge = f'<span class="sign" aria-hidden="true">{sign}</span>' if sign else ""
    said = f"hit {rank}, {word}: {name}" if sign else f"hit {rank}: {name}"
    return (
        f'<li class="hit {style}" title="{escaped(name)}"><div class="picture">{pictures.tag(hit.path, said)}{badge}</div>'
        f'<span class="similarity">{hit.similarity:.2f}</span></li>'
    )
