"""Queries and their hits: best, median and worst, then frozen next to trained."""

from collections.abc import Sequence

from markupsafe import Markup

from ucdir.report.facts import DirectionFacts, Pick
from ucdir.report.page.frame import Section
from ucdir.report.page.pictures import Pictures
from ucdir.report.rendering import render

ONE_EACH = "No class appears twice in a group; ties go to the first image."


def grids_section(directions: Sequence[DirectionFacts], pictures: Pictures, labelled: bool) -> Section:
    """Answers of the trained encoder."""
    rule = (
        f"Queries with the highest, the most middling and the lowest average precision. {ONE_EACH} Green with ✓: same class."
        if labelled
        else "Without classes nothing tells right from wrong: queries are picked by the similarity of their first hit."
    )
    body = _grids([(way, way.grids) for way in directions], pictures)
    return Section("answers", "Answers", body, f"{rule} Numbers are cosine similarities.")


def changes_section(directions: Sequence[DirectionFacts], pictures: Pictures, labelled: bool) -> Section:
    """The same queries under the frozen backbone and the trained encoder."""
    rule = (
        f"Queries by how training changed their average precision, the losses too. {ONE_EACH}"
        if labelled
        else "Queries by how many of their first hits are the same before and after training."
    )
    body = _grids([(way, way.changes) for way in directions], pictures)
    return Section("changes", "What changed", body, f"{rule} Above the frozen backbone, below the trained encoder.")


def _grids(directions: Sequence[tuple[DirectionFacts, Sequence[Pick]]], pictures: Pictures) -> Markup:
    return render("grids", directions=directions, picture=pictures.picture, name=pictures.name)
