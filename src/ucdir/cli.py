"""The command line: argv -> one function of `ucdir.commands` -> print. Nothing heavy is imported before a command runs."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ucdir.errors import UcdirError

app = typer.Typer(
    name="ucdir",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search one image collection with pictures from another that looks nothing like it.",
)

Sources = Annotated[
    list[str],
    typer.Argument(metavar="DIR...", help="Folders or .csv/.parquet manifests, one per domain; NAME=DIR gives a name."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Classes = Annotated[str, typer.Option(help="Class folders: auto, folders or none. Only scores ever read classes.")]
Split = Annotated[str | None, typer.Option(help="Keep the rows of this split of a manifest.")]


def main() -> None:
    """Run the command line and leave with 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        app()
    except UcdirError as error:
        print(f"ucdir: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("ucdir: interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def print_version(wanted: bool) -> None:
    if wanted:
        from ucdir import __version__

        print(f"ucdir {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Search one image collection with pictures from another that looks nothing like it."""


def show(result: object) -> None:
    """Print a rich renderable to stdout."""
    from rich.console import Console

    Console().print(result)


def show_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def note(sentence: str) -> None:
    """Say on stderr what was written and what comes next."""
    print(sentence, file=sys.stderr)


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with the time left; the yielded function takes the number of things just finished."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)
