"""Printing: results go to stdout, progress and notes to stderr."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def show(result: object) -> None:
    """Print a rich renderable to stdout, 100 columns wide when stdout is not a terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 100).print(result)


def show_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def note(sentence: str) -> None:
    """Print a sentence on stderr, for example where a file was written."""
    print(sentence, file=sys.stderr)


def is_helper() -> bool:
    """Whether this is a process of torchrun other than the first. Only the first one prints."""
    return os.environ.get("RANK", "0") != "0"


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a bar with the time left on stderr. Call the yielded function with the number of finished items."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def progress_and_log() -> Iterator[Mapping[str, Any]]:
    """Yield the parameters through which commands report: a progress bar and lines on stderr."""
    yield {"progress": progress_bar, "log": note}


@contextmanager
def live_table() -> Iterator[Mapping[str, Any]]:
    """Do the same for a benchmark: a table that grows with each cell, and a line that shows the current step.

    The table disappears at the end. If stderr is not a terminal, only the log lines are printed.
    """
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from ucdir.report.benchmark_tables import benchmark_figures

    command = shlex.join(["ucdir", *sys.argv[1:]])
    console = Console(stderr=True)
    if not console.is_terminal:
        yield {"progress": progress_bar, "log": note, "command": command}
        return
    table: Any = Text("")
    with Live(console=console, transient=True, refresh_per_second=4) as live:

        @contextmanager
        def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                live.update(Group(table, Text(f"{description}  {done}/{total}", style="dim")))

            yield advance

        def show_facts(facts: Any) -> None:
            nonlocal table
            table = benchmark_figures(facts)
            live.update(table)

        try:
            yield {"progress": progress, "log": live.console.print, "show": show_facts, "command": command}
        finally:
            live.update(Text(""), refresh=True)  # otherwise a table taller than the screen would stay
