"""Scores of every way of searching, both directions."""

import math

from ucdir.report.page.frame import Section, heading, table
from ucdir.report.percent import percent
from ucdir.report.plots.svg import escaped
from ucdir.report.terminal.scores import ALL, EXPLANATIONS, collapse_notes
from ucdir.scoring.directions import EvaluationReport
from ucdir.scoring.metrics import Metric

FREE = ("frozen", "centred", "smoothed")
FIGURE = "mAP@All"
CHOSEN = {"trained": "last epoch", "trained (label-free epoch)": "label-free epoch"}  # trained rows that no label chose


def scores_section(report: EvaluationReport | None, unscored: str, learned: str) -> Section:
    """A table for each direction and the mean of both, or the reason why there are no scores. learned: name of the last row."""
    if report is None:
        return Section("scores", "Scores", f'<p class="notice">{escaped(unscored)}</p>')
    names = [*(f"P@{k}" for k in report.ks), *(f"capped P@{k}" for k in report.ks), "mAP@All"]
    parts = [_direction(report, names, *way, learned) for way in report.directions]
    parts += [_mean(report, names, *pair, learned) for pair in report.directions[::2]]
    notes = (*collapse_notes(report), EXPLANATIONS["P"], EXPLANATIONS["capped"], ALL, _intervals(report))
    body = f"{''.join(parts)}<div class='small'>{''.join(f'<p>{escaped(note)}</p>' for note in notes)}</div>"
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


def _direction(report: EvaluationReport, names: list[str], query: str, gallery: str, learned: str) -> str:
    scores = report.scores(report.methods[0], query, gallery)
    sizes = f"{len(scores.relevant):,} queries, {scores.gallery_size:,} images, chance {percent(scores.chance)}"
    rows = []
    for method in report.methods:
        found = report.scores(method, query, gallery)
        rows.append([_method(method, learned), *(percent(found[name].value) for name in names), _interval(found["mAP@All"])])
    return _table(report, [*names, "mAP@All, 95 %"], rows, f"{query} → {gallery}", f" <small>{sizes}</small>")


def _mean(report: EvaluationReport, names: list[str], first: str, second: str, learned: str) -> str:
    rows = [
        [_method(method, learned), *(percent(report.pair_mean(method, first, second, name)) for name in names)]
        for method in report.methods
    ]
    return _table(report, names, rows, f"mean of {first} ↔ {second}")


def _table(report: EvaluationReport, names: list[str], rows: list[list[str]], title: str, more: str = "") -> str:
    head = ["", *map(heading, names)]
    return table(title, head, rows, f"{escaped(title)}{more}", strong=(len(report.methods) - 1,))


def _method(name: str, learned: str) -> str:
    if name in FREE:
        return f'{name} <span class="tag">training-free</span>'
    if name.startswith("trained (oracle"):
        return f'{escaped(name)} <span class="tag oracle">uses labels</span>'
    return learned if name == "trained" else escaped(name)


def _interval(metric: Metric) -> str:
    return "–" if math.isnan(metric.low) else f"{100 * metric.low:.1f} – {100 * metric.high:.1f}"


def _intervals(report: EvaluationReport) -> str:
    return f"95 % intervals: bootstrap over queries, {report.resamples:,} resamples, seed {report.seed}."
