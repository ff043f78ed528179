"""What `ucdir demo` found, as a table for the terminal."""

from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ucdir.scoring.directions import EvaluationReport
from ucdir.scoring.metrics import RetrievalScores

ROWS = {"untrained": "frozen", "untrained, centred": "centred", "trained": "trained"}


def demo_table(report: EvaluationReport) -> RenderableType:
    """Chance, untrained, untrained and centred, trained: P@k in both directions and P@5 in the mean, in percent."""
    first, second = report.directions[0]
    ways = ((first, second), (second, first))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("P@k, %", no_wrap=True)
    for query, gallery in ways:
        for k in report.ks:
            table.add_column(f"{query} → {gallery}\nP@{k}" if k == report.ks[0] else f"\nP@{k}", justify="right")
    table.add_column("mean of both\nP@5", justify="right")

    def add(name: str, method: str, figure: Callable[[RetrievalScores, int], float], style: str = "") -> None:
        scores = [report.scores(method, *way) for way in ways]
        cells = [figure(score, k) for score in scores for k in report.ks]
        mean = sum(figure(score, 5) for score in scores) / len(scores)
        table.add_row(name, *(f"{100 * value:.1f}" for value in (*cells, mean)), style=style)

    add("chance", "frozen", lambda score, k: score.chance)
    for name, method in ROWS.items():
        add(name, method, lambda score, k: score[f"P@{k}"].value, "bold" if method == "trained" else "")
    note = "P@k: fraction of the k most similar images that show the same kind of thing, mean over all queries."
    return Group(table, Text(note, style="dim"))
