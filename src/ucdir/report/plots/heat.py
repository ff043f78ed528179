"""Which class is found for which, as a table of coloured cells with numbers."""

from collections.abc import Sequence

import numpy as np

from ucdir.report.plots.marks import Box, Drawing, Mark, Words
from ucdir.scoring.confusion import Confusion

CELL, LETTER, PAD, MAX_CLASSES = 40.0, 6.4, 14.0, 25
DEEP = 0.78  # share from which on white is easier to read than ink, in the light scheme


def heat_map(name: str, title: str, found: Confusion, class_names: Sequence[str]) -> Drawing:
    """Rows are classes of queries, columns classes of what was found; cells in percent of the row."""
    rows, columns = _largest(found)
    row_names = [_short(class_names[found.query_classes[row]]) for row in rows]
    column_names = [_short(class_names[c]) if c >= 0 else "no class" for c in found.hit_classes[columns]]
    left = max(map(len, row_names), default=0) * LETTER + PAD + 8
    top = max(map(len, column_names), default=0) * LETTER + PAD + 12
    marks: list[Mark] = [Words(left - 8, top - 8, "query ↓  found →", "quiet", 10.5, "end")] if left > 110 else []
    for place, text in enumerate(column_names):
        marks.append(Words(left + (place + 0.5) * CELL + 4, top - 8, text, "ink", 12, turned=True))
    for at, (row, text) in enumerate(zip(rows, row_names, strict=True)):
        y = top + at * CELL
        marks.append(Words(left - 8, y + CELL / 2 + 4, text, "ink", 12, "end"))
        for place, column in enumerate(columns):
            same = found.query_classes[row] == found.hit_classes[column]
            marks += _cell(
                left + place * CELL, y, float(found.share[row, column]), f"{text} → {column_names[place]}", bool(same)
            )
    return Drawing(name, title, left + CELL * len(columns) + 8, top + CELL * len(rows) + 8, tuple(marks))


def is_cut(found: Confusion) -> bool:
    """Are there more classes than are drawn?"""
    return max(len(found.query_classes), len(found.hit_classes)) > MAX_CLASSES


def _largest(found: Confusion) -> tuple[list[int], list[int]]:
    """Rows and columns of the classes with the most queries, by class id; columns that only hits have follow by share."""
    rows = sorted(np.argsort(-found.queries, kind="stable")[:MAX_CLASSES].tolist())
    kept = set(found.query_classes[rows].tolist())
    wanted = [column for column, name in enumerate(found.hit_classes) if int(name) in kept]
    others = [column for column in np.argsort(-found.share.sum(axis=0), kind="stable").tolist() if column not in wanted]
    spare = others[: max(MAX_CLASSES - len(wanted), 0)]
    return rows, [*wanted, *sorted(spare)]


def _cell(x: float, y: float, share: float, pair: str, same: bool) -> list[Mark]:
    whole = round(100 * share)
    marks: list[Mark] = [Box(x + 1, y + 1, CELL - 2, CELL - 2, "mat")]
    if share > 0:
        marks.append(Box(x + 1, y + 1, CELL - 2, CELL - 2, "heat", max(share, 0.04), f"{pair}: {100 * share:.1f} %"))
    role = "on-heat" if share > DEEP else "ink" if share >= 0.005 else "quiet"
    marks.append(Words(x + CELL / 2, y + CELL / 2 + 4, str(whole), role, 12, "middle", bold=same))
    return marks


def _short(name: str, most: int = 20) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
