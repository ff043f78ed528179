"""The report of a run."""

from collections.abc import Iterator

from ucdir.report.facts import FROZEN, TRAINED, RunFacts
from ucdir.report.page.classes import bar_drawings, classes_section, heat_drawings
from ucdir.report.page.curves import curve_drawings, curves_section
from ucdir.report.page.data import data_section
from ucdir.report.page.frame import Section, page
from ucdir.report.page.grids import changes_section, grids_section
from ucdir.report.page.map import map_drawings, map_section
from ucdir.report.page.matches import matches_section
from ucdir.report.page.pictures import Pictures
from ucdir.report.page.reproduce import reproduction_section
from ucdir.report.page.scores import mean_figure, scores_section, without_training
from ucdir.report.percent import percent
from ucdir.report.plots.axes import short
from ucdir.report.plots.marks import Drawing


def run_page(facts: RunFacts, pictures: Pictures) -> str:
    """The whole HTML file."""
    verdict = without_training(facts.scores) if facts.scores is not None else ""
    return page(facts.name, "Report of a training", _summary(facts), list(_sections(facts, pictures)), verdict)


def run_drawings(facts: RunFacts) -> Iterator[Drawing]:
    """Every plot of the page."""
    if facts.curves is not None:
        yield from curve_drawings(facts.curves)
    yield from bar_drawings(facts)
    yield from heat_drawings(facts)
    if facts.map is not None:
        yield from map_drawings(facts.map, [domain.name for domain in facts.domains])


def _sections(facts: RunFacts, pictures: Pictures) -> Iterator[Section]:
    labelled = facts.scores is not None
    yield reproduction_section(facts.again, facts.notes)
    yield data_section(facts.domains, pictures)
    if facts.curves is not None:
        yield curves_section(facts.curves)
    if facts.groups:
        yield matches_section(facts.groups, pictures)
    yield scores_section(facts.scores, facts.unscored, facts.learned)
    if facts.directions:
        yield grids_section(facts.directions, pictures, labelled)
        yield changes_section(facts.directions, pictures, labelled)
    if facts.map is not None:
        yield map_section(facts.map, [domain.name for domain in facts.domains], facts.class_names, pictures)
    if labelled:
        yield classes_section(facts)


def _summary(facts: RunFacts) -> list[tuple[str, str]]:
    """Domains, epochs, and what training gave over no training."""
    found = [(domain.name, f"{domain.listed:,} images") for domain in facts.domains]
    curves, scores = facts.curves, facts.scores
    if curves is not None:
        found.append(("epochs", str(curves.epochs[-1])))
    if scores is None:
        last = None if curves is None else next((s for s in curves.series if s.name == "cycle_agreement"), None)
        value = last.values[-1] if last is not None else None
        return found if value is None else [*found, ("cycle agreement (label-free)", short(value))]
    before, after = (mean_figure(scores, name) for name in (FROZEN, TRAINED))
    after_what = "learned" if curves is None else "last epoch"
    return [*found, (f"mean mAP@All, frozen → {after_what}", f"{percent(before)} → {percent(after)} %")]
