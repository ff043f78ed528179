"""The section with the scores: a table for each direction and one for the mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ucdir.report.page.frame import Section
from ucdir.report.percent import percent
from ucdir.report.rendering import render
from ucdir.report.terminal.scores import ALL, EXPLANATIONS, collapse_notes
from ucdir.scoring.directions import EvaluationReport
from ucdir.scoring.metrics import Metric

FREE = ("frozen", "centred", "smoothed")
FIGURE = "mAP@All"
CHOSEN = {"trained": "last epoch", "trained (label-free epoch)": "label-free epoch"}  # trained rows that no label chose


@dataclass(frozen=True)
class Grid:
    """A table: its rows begin with the name of a method. `note` is small print next to the title."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def scores_section(report: EvaluationReport | None, unscored: str, learned: str) -> Section:
    """A table for each direction and the mean of both, or the reason why there are no scores. learned: name of the last row."""
    if report is None:
        return Section("scores", "Scores", Markup('<p class="notice">{}</p>').format(unscored))
    names = [*(f"P@{k}" for k in report.ks), *(f"capped P@{k}" for k in report.ks), "mAP@All"]
    grids = [_direction(report, names, *way) for way in report.directions]
    grids += [_mean(report, names, *pair) for pair in report.directions[::2]]
    notes = (*collapse_notes(report), EXPLANATIONS["P"], EXPLANATIONS["capped"], ALL, _intervals(report))
    body = render("scores", grids=grids, notes=notes, free=FREE, learned=learned)
    lead = "Percent. Rows marked training-free use the initial weights without any training: the baselines to beat."
    return Section("scores", "Scores", body, lead)


def mean_figure(report: EvaluationReport, method: str) -> float:
    """mAP@All of a row, the mean of all directions."""
    pairs = report.directions[::2]
    return sum(report.pair_mean(method, *pair, FIGURE) for pair in pairs) / len(pairs)


def without_training(report: EvaluationReport) -> str:
    """A sentence if the best training-free row beats the trained rows by at least one decimal; else empty."""
    found = {method: mean_figure(report, method) for method in report.methods}
    known = {method: round(100 * value, 1) for method, value in found.items() if math.isfinite(value)}
    best = max((method for method in FREE if method in known), key=lambda method: known[method], default=None)
    beaten = [method for method in CHOSEN if best in known and known.get(method, math.inf) < known[best]]
    if best is None or not beaten:
        return ""
    against = " and ".join(f"{known[method]} % ({CHOSEN[method]})" for method in beaten)
    return f"Without training, {best} finds more here: a mean {FIGURE} of {known[best]} % against {against}."


def _direction(report: EvaluationReport, names: list[str], query: str, gallery: str) -> Grid:
    scores = report.scores(report.methods[0], query, gallery)
    sizes = f"{len(scores.relevant):,} queries, {scores.gallery_size:,} images, chance {percent(scores.chance)}"
    rows = []
    for method in report.methods:
        found = report.scores(method, query, gallery)
        rows.append([method, *(percent(found[name].value) for name in names), _interval(found["mAP@All"])])
    return Grid(f"{query} → {gallery}", ["", *names, "mAP@All, 95 %"], rows, sizes)


def _mean(report: EvaluationReport, names: list[str], first: str, second: str) -> Grid:
    rows = [[method, *(percent(report.pair_mean(method, first, second, name)) for name in names)] for method in report.methods]
    return Grid(f"mean of {first} ↔ {second}", ["", *names], rows)


def _interval(metric: Metric) -> str:
    return "–" if math.isnan(metric.low) else f"{100 * metric.low:.1f} – {100 * metric.high:.1f}"


def _intervals(report: EvaluationReport) -> str:
    return f"95 % intervals: bootstrap over queries, {report.resamples:,} resamples, seed {report.seed}."
