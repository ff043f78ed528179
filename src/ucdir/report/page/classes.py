"""Class by class: scores, and what is taken for what."""

from collections.abc import Iterator

from ucdir.report.facts import DirectionFacts, RunFacts
from ucdir.report.page.frame import Section
from ucdir.report.plots.bars import MAX_CLASSES as MAX_BARS
from ucdir.report.plots.bars import ClassBar, class_bars, most_changed
from ucdir.report.plots.heat import MAX_CLASSES, heat_map, is_cut
from ucdir.report.plots.marks import Drawing
from ucdir.report.rendering import render
from ucdir.scoring.directions import EvaluationReport
from ucdir.scoring.metrics import RetrievalScores

FIGURE = "mAP@All"


def classes_section(facts: RunFacts) -> Section:
    """Bars and confusions of every direction; only with scores."""
    notes = []
    if facts.scores is not None and len(facts.class_names) > MAX_BARS:
        notes.append(f"Shows the {MAX_BARS} of {len(facts.class_names):,} classes whose {FIGURE} changed most.")
    if any(is_cut(found) for way in facts.directions for found in way.confusions.values()):
        notes.append(f"Only the {MAX_CLASSES} classes with the most queries have rows, so rows need not add up to 100.")
    body = render("classes", notes=notes, bars=list(bar_drawings(facts)), heats=list(heat_drawings(facts)))
    return Section("classes", "Class by class", body, f"{FIGURE} of the queries of each class, in percent.")


def bar_drawings(facts: RunFacts) -> Iterator[Drawing]:
    """One for each direction."""
    for way in facts.directions if facts.scores is not None else ():
        assert facts.scores is not None
        bars = most_changed(_bars(facts.scores, way, facts.class_names))
        yield class_bars(f"classes-{way.query}-{way.gallery}", f"{way.query} → {way.gallery}: {FIGURE} by class", bars)


def heat_drawings(facts: RunFacts) -> Iterator[Drawing]:
    """Frozen and trained of each direction."""
    for way in facts.directions:
        for kind, found in way.confusions.items():
            title = f"{way.query} → {way.gallery}, {kind}: classes of the hits, by class of the query"
            yield heat_map(f"confusion-{way.query}-{way.gallery}-{kind}", title, found, facts.class_names)


def _bars(scores: EvaluationReport, way: DirectionFacts, class_names: tuple[str, ...]) -> list[ClassBar]:
    frozen, trained = (_of_classes(scores.scores(name, way.query, way.gallery)) for name in ("frozen", "trained"))
    return [ClassBar(class_names[key], queries, frozen[key][1], value) for key, (queries, value) in trained.items()]


def _of_classes(scores: RetrievalScores) -> dict[int, tuple[int, float]]:
    """class id -> (number of queries, score), for the classes that the gallery contains."""
    found = {entry.class_id: entry for entry in scores.per_class if entry.relevant}
    return {key: (entry.queries, next(m.value for m in entry.metrics if m.name == FIGURE)) for key, entry in found.items()}
