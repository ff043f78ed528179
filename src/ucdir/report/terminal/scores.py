"""The table of `ucdir evaluate`, and the same figures as one JSON document."""

import math
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from ucdir.report.percent import percent
from ucdir.report.terminal.columns import Columns, Row
from ucdir.scoring.collapse import collapse_sentence
from ucdir.scoring.directions import EvaluationReport
from ucdir.scoring.metrics import Metric, RetrievalScores

FIGURES = {"P": "P", "capped": "capped P", "mAP": "mAP", "R": "R"}
EXPLANATIONS = {
    "P": "P@k: relevant images among the first k, over k, for every query that has a class.",
    "capped": "Capped P@k: hits among the first min(k, relevant), over min(k, relevant), over all queries.",
    "mAP": "mAP@k: average precision of the first k, over min(k, relevant); queries with relevant images.",
    "R": "R@k: relevant images among the first k, over all relevant; queries with relevant images.",
}
ALL = "mAP@All: average precision of the whole ranking, mean of queries with a relevant image."


def score_table(report: EvaluationReport, figure: str = "P") -> RenderableType:
    """All methods in each direction, then the mean of each pair, then how the figures are counted.

    figure  what the k columns show: P, capped, mAP or R
    """
    parts: list[RenderableType] = []
    for query, gallery in report.directions:
        scores = report.scores(report.methods[0], query, gallery)
        parts += [_heading(query, gallery, scores), _direction(report, query, gallery, figure), ""]
    for first, second in report.directions[::2]:
        parts += [Text(f"mean of {first} ↔ {second}", style="bold"), _pair(report, first, second, figure), ""]
    return Group(*parts, *(Text(line, style="dim") for line in _notes(report, figure)))


def score_document(report: EvaluationReport) -> dict[str, Any]:
    """Everything in the report as plain data: figures in [0, 1], null where nothing counts.

    Keys: ks, methods, resamples, seed; collapsed {method: domains}; domains [name, images, with_class,
    unreadable]; directions [query, gallery, queries, gallery_size, without_class, without_relevant, chance,
    methods {name: {metrics, per_class}}]; means [domains, methods {name: {metric: value}}].
    """
    return {
        "ks": list(report.ks),
        "methods": list(report.methods),
        "resamples": report.resamples,
        "seed": report.seed,
        "collapsed": {method: list(domains) for method, domains in report.collapsed.items()},
        "domains": [
            {
                "name": domain.name,
                "images": domain.images,
                "with_class": domain.with_class,
                "unreadable": [{"path": path, "reason": reason} for path, reason in domain.unreadable],
            }
            for domain in report.domains
        ],
        "directions": [_direction_document(report, query, gallery) for query, gallery in report.directions],
        "means": [_mean_document(report, first, second) for first, second in report.directions[::2]],
    }


def _columns(report: EvaluationReport, figure: str) -> list[str]:
    return [*(f"{FIGURES[figure]}@{k}" for k in report.ks), "mAP@All"]


def _headline(report: EvaluationReport, figure: str) -> str:
    return f"{FIGURES[figure]}@{report.ks[-1]}"


def _heading(query: str, gallery: str, scores: RetrievalScores) -> Text:
    sizes = f"{len(scores.relevant):,} queries, {scores.gallery_size:,} images, chance {percent(scores.chance)}"
    return Text.assemble((f"{query} → {gallery}", "bold"), (f"   {sizes}", "dim"))


def _direction(report: EvaluationReport, query: str, gallery: str, figure: str) -> RenderableType:
    headline, names = _headline(report, figure), _columns(report, figure)
    rows = []
    for method in report.methods:
        scores = report.scores(method, query, gallery)
        cells = (*(percent(scores[name].value) for name in names), _interval(scores[headline]))
        rows.append(Row(method, cells, _style(report, method)))
    return _table((*names, f"{headline}, 95 %"), rows)


def _pair(report: EvaluationReport, first: str, second: str, figure: str) -> RenderableType:
    names = _columns(report, figure)
    rows = []
    for method in report.methods:
        cells = tuple(percent(report.pair_mean(method, first, second, name)) for name in names)
        rows.append(Row(method, cells, _style(report, method)))
    return _table(tuple(names), rows)


def _table(headings: tuple[str, ...], rows: list[Row]) -> RenderableType:
    return Padding(Columns(headings, tuple(rows), least=len("100.0")), (0, 0, 0, 2))


def _style(report: EvaluationReport, method: str) -> str:
    return "bold" if method == report.methods[-1] else ""


def _notes(report: EvaluationReport, figure: str) -> list[str]:
    notes = [*collapse_notes(report), f"Percent. {EXPLANATIONS[figure]}", ALL]
    if report.resamples:
        notes.append(
            f"95 % intervals: bootstrap over queries, {report.resamples:,} resamples, seed {report.seed}. "
            "Chance: the expected P@k of a random ranking, for any k."
        )
    for query, gallery in report.directions:
        scores = report.scores(report.methods[0], query, gallery)
        if figure == "P" and scores.ceiling(report.ks[-1]) < 0.995:
            most = percent(scores.ceiling(report.ks[-1]))
            notes.append(f"{query} → {gallery}: small classes allow P@{report.ks[-1]} to reach {most} at most.")
        if scores.without_relevant:
            notes.append(
                f"{query} → {gallery}: {scores.without_relevant:,} queries have no relevant image: "
                "0 in P@k, outside all other figures."
            )
    for domain in report.domains:
        if domain.images > domain.with_class:
            left_out = domain.images - domain.with_class
            notes.append(f"{domain.name}: {left_out:,} images have no class: not used as queries, relevant to no query.")
        if domain.unreadable:
            path, reason = domain.unreadable[0]
            notes.append(f"{domain.name}: {len(domain.unreadable):,} unreadable images skipped ({path}: {reason}).")
    return notes


def collapse_notes(report: EvaluationReport) -> list[str]:
    """A sentence for each method that has collapsed."""
    return [
        f"{method}: {collapse_sentence(domains)}, so it cannot tell them apart." for method, domains in report.collapsed.items()
    ]


def _interval(metric: Metric) -> str:
    return "–" if math.isnan(metric.low) else f"{percent(metric.low)} to {percent(metric.high)}"


def _direction_document(report: EvaluationReport, query: str, gallery: str) -> dict[str, Any]:
    scores = report.scores(report.methods[0], query, gallery)
    return {
        "query": query,
        "gallery": gallery,
        "queries": len(scores.relevant),
        "gallery_size": scores.gallery_size,
        "without_class": scores.without_class,
        "without_relevant": scores.without_relevant,
        "chance": _number(scores.chance),
        "methods": {method: _scores_document(report, report.scores(method, query, gallery)) for method in report.methods},
    }


def _scores_document(report: EvaluationReport, scores: RetrievalScores) -> dict[str, Any]:
    return {
        "metrics": {
            metric.name: {
                "value": _number(metric.value),
                "low": _number(metric.low),
                "high": _number(metric.high),
            }
            for metric in scores.metrics
        },
        "per_class": {
            report.class_names[entry.class_id]: {
                "queries": entry.queries,
                "relevant": entry.relevant,
                "metrics": {metric.name: _number(metric.value) for metric in entry.metrics},
            }
            for entry in scores.per_class
        },
    }


def _mean_document(report: EvaluationReport, first: str, second: str) -> dict[str, Any]:
    names = [metric.name for metric in report.scores(report.methods[0], first, second).metrics]
    means = {
        method: {name: _number(report.pair_mean(method, first, second, name)) for name in names} for method in report.methods
    }
    return {"domains": [first, second], "methods": means}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
