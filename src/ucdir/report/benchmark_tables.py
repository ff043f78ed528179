"""The tables of a benchmark: for a terminal, as Markdown and as LaTeX. Percent, mean and deviation over seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from ucdir.report.benchmark_facts import BenchmarkFacts, BenchmarkRow
from ucdir.report.terminal.columns import Columns, Row

MEAN = "mean"
EPOCHS = (None, "last", "last + expanded", "label-free", "label-free + smoothed", "oracle")
CHANCE = "chance"  # among the metrics of a row: the expected P@k of a random ranking


@dataclass(frozen=True)
class Line:
    """One row of a table: a method at an epoch."""

    method: str
    epoch: str | None

    def __str__(self) -> str:
        return self.method if self.epoch is None else f"{self.method}, {self.epoch}"


def lines_of(facts: BenchmarkFacts, protocol: str) -> list[Line]:
    """The methods of a protocol in the order given, each at its epochs."""
    methods = dict.fromkeys(row.method for row in facts.rows if row.protocol == protocol)
    found = {(row.method, row.epoch) for row in facts.rows if row.protocol == protocol}
    return [Line(method, epoch) for method in methods for epoch in EPOCHS if (method, epoch) in found]


def directions_of(facts: BenchmarkFacts) -> list[tuple[str, str]]:
    """(query, gallery) in order of appearance."""
    return list(dict.fromkeys((row.query, row.gallery) for row in facts.rows))


def protocols_of(facts: BenchmarkFacts) -> list[str]:
    """In order of appearance."""
    return list(dict.fromkeys(row.protocol for row in facts.rows))


def seed_values(rows: Sequence[BenchmarkRow], directions: Sequence[tuple[str, str]], metric: str) -> list[float]:
    """The mean over directions for each seed that has all of them; empty when none has."""
    by_seed: dict[int, dict[tuple[str, str], float]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, {})[row.query, row.gallery] = row.metrics.get(metric, math.nan)
    whole = [found for _, found in sorted(by_seed.items()) if set(directions) <= found.keys()]
    return [statistics.fmean(found[direction] for direction in directions) for found in whole]


def shown(values: Sequence[float]) -> str:
    """33.4 ± 2.1, or 33.4 of a single seed; a dash for nothing."""
    if not values or any(math.isnan(value) for value in values):
        return "–"
    mean = f"{100 * statistics.fmean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def metrics_of(facts: BenchmarkFacts) -> list[str]:
    """P@k for each k, then mAP@All."""
    return [*(f"P@{k}" for k in facts.ks), "mAP@All"]


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn: a heading, the names of its columns, and for each line its cells."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def grids(facts: BenchmarkFacts) -> list[Grid]:
    """For each protocol one table of P@k for each k, by direction, one of mAP@All, and one of the means of all directions."""
    found = []
    for protocol in protocols_of(facts):
        found += [_by_direction(facts, protocol, metric) for metric in metrics_of(facts)]
        found.append(means_grid(facts, protocol))
    return found


def _rows(facts: BenchmarkFacts, protocol: str, line: Line) -> list[BenchmarkRow]:
    return [row for row in facts.rows if (row.protocol, row.method, row.epoch) == (protocol, line.method, line.epoch)]


def _by_direction(facts: BenchmarkFacts, protocol: str, metric: str) -> Grid:
    directions = directions_of(facts)
    groups = [*([direction] for direction in directions), directions]
    columns = (*(f"{query} → {gallery}" for query, gallery in directions), MEAN)
    rows = [
        (str(line), tuple(shown(seed_values(_rows(facts, protocol, line), group, metric)) for group in groups))
        for line in lines_of(facts, protocol)
    ]
    return Grid(f"{metric}, {protocol} protocol", columns, tuple(rows))


def means_grid(facts: BenchmarkFacts, protocol: str) -> Grid:
    """Every figure as the mean of all directions."""
    metrics = metrics_of(facts)
    directions = directions_of(facts)
    named = [*metrics, *(f"capped {metric}" for metric in metrics if metric.startswith("P@"))]
    rows = [
        (str(line), tuple(shown(seed_values(_rows(facts, protocol, line), directions, metric)) for metric in named))
        for line in lines_of(facts, protocol)
    ]
    return Grid(f"Mean of all directions, {protocol} protocol", tuple(named), tuple(rows))


def _without_capped(grid: Grid) -> Grid:
    """What fits a terminal."""
    kept = [place for place, column in enumerate(grid.columns) if not column.startswith("capped")]
    rows = tuple((name, tuple(cells[place] for place in kept)) for name, cells in grid.rows)
    return Grid(grid.title, tuple(grid.columns[place] for place in kept), rows)


def benchmark_table(facts: BenchmarkFacts) -> RenderableType:
    """`benchmark_figures`, then how to read them, and notes."""
    return Group(benchmark_figures(facts), *(Text(line, style="dim") for line in [how_to_read(facts), *remarks(facts)]))


def benchmark_figures(facts: BenchmarkFacts) -> RenderableType:
    """The last P@k and mAP@All by pair and, of several pairs, the means of all directions, for a terminal."""
    headline = f"P@{facts.ks[-1]}"
    pairs = directions_of(facts)[::2]
    parts: list[RenderableType] = []
    for protocol in protocols_of(facts):
        for direction in pairs:
            parts += [*_drawn(_of_pair(facts, protocol, direction, headline)), ""]
        if len(pairs) > 1:
            grid = _without_capped(means_grid(facts, protocol))
            parts += [Text(grid.title, style="bold"), _Means(_columns(grid)), ""]
    return Group(*parts)


@dataclass(frozen=True)
class _Means:
    """A table without the smallest cut-offs where the terminal is too narrow for them."""

    columns: Columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self.columns
        while len(shown.headings) > 1 and not shown.fits(options.max_width):
            shown = shown.without_first()
        yield shown
        if left_out := self.columns.headings[: -len(shown.headings)]:
            yield Text(f"{', '.join(left_out)} did not fit; results.md has all.", style="dim")


def _of_pair(facts: BenchmarkFacts, protocol: str, direction: tuple[str, str], headline: str) -> Grid:
    both = [direction, direction[::-1]]
    columns = (*(f"{query} → {gallery}" for query, gallery in both), f"mean {headline}", "mean mAP@All")
    rows = []
    for line in lines_of(facts, protocol):
        own = _rows(facts, protocol, line)
        values = [*(seed_values(own, [way], headline) for way in both), seed_values(own, both, headline)]
        rows.append((str(line), tuple(shown(found) for found in [*values, seed_values(own, both, "mAP@All")])))
    return Grid(f"{headline}, {' ↔ '.join(direction)}, {protocol} protocol", columns, tuple(rows))


def _drawn(grid: Grid) -> tuple[RenderableType, ...]:
    return Text(grid.title, style="bold"), _columns(grid)


def _columns(grid: Grid) -> Columns:
    rows = (Row(name, cells, "dim" if name.endswith("oracle") else "") for name, cells in grid.rows)
    return Columns(grid.columns, tuple(rows))


def how_to_read(facts: BenchmarkFacts) -> str:
    """What the figures are, in a few sentences."""
    seeds = len({row.seed for row in facts.rows if row.epoch is not None})
    parts = ["Percent, mean ± standard deviation over seeds." if seeds > 1 else "Percent."]
    parts.append("frozen, centred and smoothed need no training.")
    if seeds:
        parts.append(
            "align is learned in closed form; tune then trains the backbone on what align found. Every other method has the "
            "same start, views, optimiser and number of epochs, not those of its own paper; last, label-free and oracle are "
            "epochs of one run, and the oracle's was chosen with labels, only for comparison. + smoothed: rows averaged with "
            "their in-domain neighbours, as smoothed does with those of the frozen backbone. + expanded: queries moved toward "
            "their hits before they are answered."
        )
    return " ".join(parts)


def remarks(facts: BenchmarkFacts) -> list[str]:
    """About the images, chance, what the label-free choice was worth, and published figures, a line for each."""
    choice = [facts.choice.sentence()] if facts.choice else []
    return [*facts.notes, *_chances(facts), *choice, *_published_lines(facts)]


def _chances(facts: BenchmarkFacts) -> list[str]:
    """What a random order would give, by direction and protocol."""
    found = {(row.query, row.gallery, row.protocol): row.metrics[CHANCE] for row in facts.rows if CHANCE in row.metrics}
    several = len(protocols_of(facts)) > 1
    shares = [
        f"{query} → {gallery}{f' ({protocol})' if several else ''} {100 * value:.1f}"
        for (query, gallery, protocol), value in found.items()
    ]
    return [f"Chance, the expected P@k of a random ranking: {', '.join(shares)}."] if shares else []


def _published_lines(facts: BenchmarkFacts) -> list[str]:
    places = dict.fromkeys((figure.method, figure.query, figure.gallery, figure.source) for figure in facts.published)
    lines = []
    for method, query, gallery, source in places:
        own = [f for f in facts.published if (f.method, f.query, f.gallery, f.source) == (method, query, gallery, source)]
        figures = ", ".join(f"{figure.metric} {100 * figure.value:.1f}" for figure in own)
        where = "mean of all directions" if query == gallery else f"{query} → {gallery}"
        lines.append(f"Published: {method}, {where}: {figures} ({source}; MoCo v2, ResNet-50).")
    return lines


def benchmark_markdown(facts: BenchmarkFacts) -> str:
    """results.md: every table, what made it, and the published figures."""
    made = f"`{facts.command or 'ucdir benchmark'}`\n\n{facts.date}: {facts.machine}."
    tables = "\n\n".join(f"## {grid.title}\n\n{_markdown(grid)}" for grid in grids(facts))
    more = "\n".join(f"- {line}" for line in remarks(facts))
    return f"# {facts.name}\n\n{made}\n\n{how_to_read(facts)}\n\n{tables}\n{f'{chr(10)}{more}{chr(10)}' if more else ''}"


def _markdown(grid: Grid) -> str:
    head = ["| " + " | ".join(["", *map(_plain, grid.columns)]) + " |", "|" + "---|" * (len(grid.columns) + 1)]
    return "\n".join([*head, *("| " + " | ".join([_plain(name), *cells]) + " |" for name, cells in grid.rows)])


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


def benchmark_latex(facts: BenchmarkFacts) -> str:
    """results.tex: the same tables for a paper that loads booktabs."""
    made = f"% {facts.command or 'ucdir benchmark'}\n% {facts.date}: {facts.machine}\n% {how_to_read(facts)}\n"
    return made + "\n" + "\n\n".join(_latex(grid) for grid in grids(facts)) + "\n"


def _latex(grid: Grid) -> str:
    head = f"% {grid.title}\n\\begin{{tabular}}{{l{'r' * len(grid.columns)}}}\n\\toprule\n"
    body = [_latex_row(["", *grid.columns]), "\\midrule", *(_latex_row([name, *cells]) for name, cells in grid.rows)]
    return head + "\n".join(body) + "\n\\bottomrule\n\\end{tabular}"


LATEX: dict[str, str] = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "→": "$\\to$",
    "±": "$\\pm$",
    "–": "--",
}


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join("".join(LATEX.get(sign, sign) for sign in cell) for cell in cells) + " \\\\"
