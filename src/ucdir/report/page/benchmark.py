"""The report of a benchmark: tables and dot plots, seeds visible, published figures beside."""

from collections.abc import Iterator, Sequence

from ucdir.report.benchmark_facts import BenchmarkFacts, BenchmarkRow, PublishedFigure
from ucdir.report.benchmark_tables import CHANCE, how_to_read, means_grid, protocols_of, remarks, shown
from ucdir.report.page.shell import Section, command, page, plot_card, table
from ucdir.report.plots.axes import percent
from ucdir.report.plots.dots import DotRow, dot_plot
from ucdir.report.plots.marks import Drawing
from ucdir.report.plots.svg import plain

ALL = "mAP@All"
PAPER = "paper"  # the protocol of published figures
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
        yield from _plots(facts, key)


def _keys(facts: BenchmarkFacts) -> list[Key]:
    return list(dict.fromkeys((row.query, row.gallery, row.protocol) for row in facts.rows))


def _again(facts: BenchmarkFacts) -> Section:
    body = f'{command(facts.command)}<p class="small wrap">{plain(facts.date)}, {plain(facts.machine)}.</p>'
    return Section("again", "What was run", body, "The same command gives the same numbers.")


def _means(facts: BenchmarkFacts) -> Iterator[Section]:
    """The mean of all directions, for each protocol, and what is to be said about all of it."""
    for number, protocol in enumerate(protocols_of(facts)):
        grid = means_grid(facts, protocol)
        lines = [[plain(name), *map(plain, cells)] for name, cells in grid.rows]
        said = [] if number else remarks(facts)
        more = "".join(f'<p class="small">{plain(line)}</p>' for line in said)
        yield Section(
            f"means-{number}", grid.title, table(["method", *map(plain, grid.columns)], lines) + more, how_to_read(facts)
        )


def _direction(facts: BenchmarkFacts, number: int, key: Key) -> Section:
    query, gallery, protocol = key
    plots = "".join(map(plot_card, _plots(facts, key)))
    lead = f"Protocol: {protocol}. Percent, mean ± standard deviation over the seeds. Rows with oracle were chosen with labels."
    body = f'{_table(facts, key)}<div class="two">{plots}</div>'
    return Section(f"way-{number}", f"{query} → {gallery}{'' if protocol == 'paper' else f' ({protocol})'}", body, lead)


def _table(facts: BenchmarkFacts, key: Key) -> str:
    """Methods, then what others report, each with its source."""
    rows, published = _grouped(facts, key), _of(facts.published, key)
    known = dict.fromkeys(name for group in rows.values() for row in group for name in row.metrics)
    names = sorted((name for name in known if name != CHANCE), key=lambda name: name.startswith("capped"))
    names += [name for name in dict.fromkeys(figure.metric for figure in published) if name not in names]
    lines = []
    for (method, epoch), group in rows.items():
        cells = [shown([row.metrics[name] for row in group if name in row.metrics]) for name in names]
        lines.append([_named(method, epoch), *cells, str(len(group)), *([""] if published else [])])
    for method, source in dict.fromkeys((figure.method, figure.source) for figure in published):
        found = {f.metric: f.value for f in published if (f.method, f.source) == (method, source)}
        cells = [percent(found[name]) if name in found else "–" for name in names]
        lines.append([f'{plain(method)} <span class="tag">published</span>', *cells, "–", plain(source)])
    return table(["method", *map(plain, names), "seeds", *(["source"] if published else [])], lines)


def _plots(facts: BenchmarkFacts, key: Key) -> Iterator[Drawing]:
    """mAP@All and P at the largest k, where there are such."""
    groups, query, gallery = _grouped(facts, key), key[0], key[1]
    known = {name for group in groups.values() for row in group for name in row.metrics}
    largest = f"P@{max(facts.ks)}" if facts.ks else ""
    for name in (ALL, largest):
        if name not in known:
            continue
        dots = [_dots(method, epoch, group, name) for (method, epoch), group in groups.items()]
        dots += [
            DotRow(f"{found.method}, published", "published", ((found.source, found.value),))
            for found in _of(facts.published, key)
            if found.metric == name
        ]
        title = f"{query} → {gallery}, {key[2]}: {name}, a dot for each seed"
        yield dot_plot(f"{name}-{query}-{gallery}-{key[2]}", title, [row for row in dots if row.values])


def _dots(method: str, epoch: str | None, group: Sequence[BenchmarkRow], name: str) -> DotRow:
    kind = "training-free" if epoch is None else "oracle" if epoch == "oracle" else "trained"
    label = method if epoch is None else f"{method}, {epoch}"
    return DotRow(label, kind, tuple((f"seed {row.seed}", row.metrics[name]) for row in group if name in row.metrics))


def _grouped(facts: BenchmarkFacts, key: Key) -> dict[tuple[str, str | None], list[BenchmarkRow]]:
    groups: dict[tuple[str, str | None], list[BenchmarkRow]] = {}
    for row in facts.rows:
        if (row.query, row.gallery, row.protocol) == key:
            groups.setdefault((row.method, row.epoch), []).append(row)
    return groups


def _of(figures: Sequence[PublishedFigure], key: Key) -> list[PublishedFigure]:
    return [figure for figure in figures if (figure.query, figure.gallery, PAPER) == key]


def _named(method: str, epoch: str | None) -> str:
    if epoch is None:
        return f'{plain(method)} <span class="tag">training-free</span>'
    tag = ' <span class="tag oracle">uses labels</span>' if epoch == "oracle" else ""
    return f"{plain(method)}, {plain(epoch)} epoch{tag}"
