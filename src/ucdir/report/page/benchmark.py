"""The report of a benchmark: tables and dot plots with every seed, next to published figures."""

from collections.abc import Iterator, Sequence
from typing import Any

from ucdir.report.benchmark_facts import BenchmarkFacts, BenchmarkRow, PublishedFigure
from ucdir.report.benchmark_tables import CHANCE, Line, how_to_read, lines_of, means_grid, protocols_of, remarks, shown
from ucdir.report.page.frame import Section, page
from ucdir.report.percent import percent
from ucdir.report.plots.dots import DotPlot, DotRow, dot_plot, narrow_dot_plot
from ucdir.report.plots.marks import Drawing
from ucdir.report.rendering import render
from ucdir.report.terminal.scores import ALL as ALL_SAID
from ucdir.report.terminal.scores import EXPLANATIONS

ALL = "mAP@All"
PAPER = "paper"  # the protocol of published figures
PROTOCOLS = {
    "paper": "Paper protocol: all images are trained on without labels, and the same images ask and are searched.",
    "held-out": "Held-out protocol: the images that ask and are searched were not trained on.",
    "half-a": "Half-a protocol: the first domain of a pair keeps half of the classes, drawn by the seed.",
    "half-b": "Half-b protocol: the second domain of a pair keeps half of the classes, drawn by the seed.",
    "private": "Private protocol: each domain of a pair has classes that the other lacks, drawn by the seed.",
}
Key = tuple[str, str, str]  # query, gallery, protocol


def benchmark_page(facts: BenchmarkFacts) -> str:
    """The whole HTML file."""
    seeds = sorted({row.seed for row in facts.rows})
    summary = [
        ("directions", str(len({key[:2] for key in _keys(facts)}))),
        ("methods", str(len({row.method for row in facts.rows}))),
        ("seeds", str(len(seeds))),
        ("made on", facts.date),
    ]
    sections = [_again(facts), *_means(facts), *(_direction(facts, number, key) for number, key in enumerate(_keys(facts)))]
    return page(facts.name, "Report of a benchmark", summary, sections)


def benchmark_drawings(facts: BenchmarkFacts) -> Iterator[Drawing]:
    """Every plot of the page."""
    for key in _keys(facts):
        yield from map(dot_plot, _plots(facts, key))


def _keys(facts: BenchmarkFacts) -> list[Key]:
    return list(dict.fromkeys((row.query, row.gallery, row.protocol) for row in facts.rows))


def _again(facts: BenchmarkFacts) -> Section:
    body = render("benchmark_command", command_line=facts.command, made=f"{facts.date}, {facts.machine}")
    return Section("again", "What was run", body, "The same command gives the same numbers.")


def _means(facts: BenchmarkFacts) -> Iterator[Section]:
    """The mean over all directions for each protocol, with notes on the whole benchmark."""
    for number, protocol in enumerate(protocols_of(facts)):
        grid = means_grid(facts, protocol)
        rows = [[line, *cells] for line, (_, cells) in zip(lines_of(facts, protocol), grid.rows, strict=True)]
        notes = [EXPLANATIONS["P"], EXPLANATIONS["capped"], ALL_SAID, *([] if number else remarks(facts))]
        table = {"label": grid.title, "head": ["method", *grid.columns], "rows": rows}
        body = render("benchmark_table", **table, notes=[*_protocol(protocol), *notes], plots=[])
        yield Section(f"means-{number}", grid.title, body, how_to_read(facts))


def _direction(facts: BenchmarkFacts, number: int, key: Key) -> Section:
    query, gallery, protocol = key
    plots = [(dot_plot(plot), narrow_dot_plot(plot)) for plot in _plots(facts, key)]
    lead = f"Protocol: {protocol}. Percent, mean ± standard deviation over the seeds. Rows with oracle were chosen with labels."
    body = render("benchmark_table", **_table(facts, key), notes=[], plots=plots)
    return Section(f"way-{number}", f"{query} → {gallery}{'' if protocol == 'paper' else f' ({protocol})'}", body, lead)


def _table(facts: BenchmarkFacts, key: Key) -> dict[str, Any]:
    """Methods, then what others report, each with its source."""
    groups, published = _grouped(facts, key), _of(facts.published, key)
    known = dict.fromkeys(name for group in groups.values() for row in group for name in row.metrics)
    names = sorted((name for name in known if name != CHANCE), key=lambda name: name.startswith("capped"))
    names += [name for name in dict.fromkeys(figure.metric for figure in published) if name not in names]
    rows: list[list[Line | str]] = []
    for line, group in groups.items():
        cells = [shown([row.metrics[name] for row in group if name in row.metrics]) for name in names]
        rows.append([line, *cells, str(len(group)), *([""] if published else [])])
    for method, source in dict.fromkeys((figure.method, figure.source) for figure in published):
        found = {f.metric: f.value for f in published if (f.method, f.source) == (method, source)}
        cells = [percent(found[name]) if name in found else "–" for name in names]
        rows.append([method, *cells, "–", source])
    head = ["method", *names, "seeds", *(["source"] if published else [])]
    return {"label": f"{key[0]} → {key[1]}, {key[2]} protocol", "head": head, "rows": rows}


def _plots(facts: BenchmarkFacts, key: Key) -> Iterator[DotPlot]:
    """mAP@All and P at the largest k, if the benchmark has them."""
    groups, query, gallery = _grouped(facts, key), key[0], key[1]
    known = {name for group in groups.values() for row in group for name in row.metrics}
    largest = f"P@{max(facts.ks)}" if facts.ks else ""
    for name in (ALL, largest):
        if name not in known:
            continue
        dots = [_dots(line, group, name) for line, group in groups.items()]
        dots += [
            DotRow(f"{found.method}, published", "published", ((found.source, found.value),))
            for found in _of(facts.published, key)
            if found.metric == name
        ]
        title = f"{query} → {gallery}, {key[2]}: {name}, a dot for each seed"
        yield DotPlot(f"{name}-{query}-{gallery}-{key[2]}", title, tuple(row for row in dots if row.values))


def _dots(line: Line, group: Sequence[BenchmarkRow], name: str) -> DotRow:
    kind = "training-free" if line.epoch is None else "oracle" if line.epoch == "oracle" else "trained"
    return DotRow(str(line), kind, tuple((f"seed {row.seed}", row.metrics[name]) for row in group if name in row.metrics))


def _grouped(facts: BenchmarkFacts, key: Key) -> dict[Line, list[BenchmarkRow]]:
    """The rows of a direction by line, in the order of the terminal's tables."""
    groups: dict[Line, list[BenchmarkRow]] = {line: [] for line in lines_of(facts, key[2])}
    for row in facts.rows:
        if (row.query, row.gallery, row.protocol) == key:
            groups.setdefault(Line(row.method, row.epoch), []).append(row)
    return {line: group for line, group in groups.items() if group}


def _of(figures: Sequence[PublishedFigure], key: Key) -> list[PublishedFigure]:
    return [figure for figure in figures if (figure.query, figure.gallery, PAPER) == key]


def _protocol(protocol: str) -> list[str]:
    return [PROTOCOLS[protocol]] if protocol in PROTOCOLS else []
