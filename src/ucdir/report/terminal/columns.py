"""Tables of figures for terminals of any width: a column is shown whole or further below, a cell is never cut."""

from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2


@dataclass(frozen=True)
class Row:
    """A name and its cells; `style` is one of rich's."""

    name: str
    cells: tuple[str, ...]
    style: str = ""


@dataclass(frozen=True)
class Columns:
    """A table whose last columns continue below, with the names repeated, if the terminal is too narrow.

    headings   of the columns; they break between words before a column goes below
    least      minimum width of a column, for tables below each other
    """

    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    least: int = 0

    def fits(self, width: int) -> bool:
        """Whether all columns fit side by side into `width` characters."""
        return self._beside(self._broken()) <= width

    def without_first(self) -> "Columns":
        """The same without its first column."""
        return Columns(self.headings[1:], tuple(Row(row.name, row.cells[1:], row.style) for row in self.rows), self.least)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = self._whole()
        widths = whole if self._beside(whole) <= options.max_width else self._broken()
        for start, stop in self._blocks(widths, options.max_width):
            yield self._table(widths, start, stop)

    def _whole(self) -> list[int]:
        """Widths with each heading in one line."""
        return [max(least, cell_len(heading)) for least, heading in zip(self._broken(), self.headings, strict=True)]

    def _broken(self) -> list[int]:
        """Widths with a line for each word of a heading."""
        cells = [[row.cells[column] for row in self.rows] for column in range(len(self.headings))]
        texts = [[*heading.split(), *found] for heading, found in zip(self.headings, cells, strict=True)]
        return [max(self.least, *map(cell_len, found)) for found in texts]

    def _names(self) -> int:
        return max(cell_len(row.name) for row in self.rows)

    def _beside(self, widths: list[int]) -> int:
        return self._names() + sum(GAP + width for width in widths)

    def _blocks(self, widths: list[int], most: int) -> list[tuple[int, int]]:
        """First column and the one after the last, for each part of the table: as many as fit, one at least."""
        starts = [0]
        for column in range(1, len(widths)):
            if self._beside(widths[starts[-1] : column + 1]) > most:
                starts.append(column)
        return list(zip(starts, [*starts[1:], len(widths)], strict=True))

    def _table(self, widths: list[int], start: int, stop: int) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
        table.add_column("", overflow="fold")  # the only one that gives way when not even one column fits
        for heading, width in zip(self.headings[start:stop], widths[start:stop], strict=True):
            table.add_column(Text(heading), justify="right", width=width)
        for row in self.rows:
            table.add_row(Text(row.name), *row.cells[start:stop], style=row.style)
        return table
