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


@app.command()
def train(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="DIR...", help="Two or more folders or manifests; NAME=DIR gives a name. Not needed with --resume."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("run"),
    preset: Annotated[str | None, typer.Option(help="A whole set of settings: office-home, domainnet, quick ...")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    backbone: Annotated[str | None, typer.Option(help="torchvision/NAME or timm/NAME.")] = None,
    weights: Annotated[str | None, typer.Option(help="default, none or PATH (MoCo v2, torchvision, timm, encoder folder).")] = None,
    init: Annotated[Path | None, typer.Option(help="Start from the weights of this encoder folder, head included.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the images in pixels.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the largest domain.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images of each domain in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Rate of the first epoch.")] = None,
    num_clusters: Annotated[
        list[int] | None, typer.Option(help="Clusters per domain; several counts are independent terms.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Class folders: auto, folders or none. Training never reads them.")] = None,
    split: Annotated[str | None, typer.Option(help="Train on the rows of this split of a manifest.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every draw.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that read images; 0 = one per core.")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting: section.key=value.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw an existing run away first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Learn an encoder from two or more folders, without labels."""
    from ucdir.commands.train import train as run
    from ucdir.config import load_settings, parse_assignments

    flags = {
        "encoder.backbone": backbone,
        "encoder.weights": _start_weights(weights, init),
        "encoder.image_size": image_size,
        "optimiser.epochs": epochs,
        "optimiser.batch_size": batch_size,
        "optimiser.learning_rate": learning_rate,
        "method.num_clusters": tuple(num_clusters) if num_clusters else None,
        "data.classes": classes,
        "data.split": split,
        "data.workers": workers,
        "run.seed": seed,
        "run.device": device,
        "run.precision": precision,
    }
    given = {key: value for key, value in flags.items() if value is not None} | parse_assignments(assign or ())
    stored = out / "config.toml" if resume and (out / "config.toml").is_file() else None
    settings = load_settings(preset, config or stored, given) if given or preset or config or not resume else None
    if settings is not None and not resume:
        note(f"settings\n\n{settings.to_toml()}")
    result = run(sources or (), out, settings, resume, overwrite, progress_bar, note)
    if as_json:
        show_json(
            {
                "run": str(result.folder),
                "encoder": str(result.encoder),
                "epochs": result.epochs,
                "chosen": dict(result.chosen),
                "skipped": [{"path": error.path, "reason": error.reason} for error in result.skipped],
                "seconds": round(result.seconds, 1),
            }
        )
        return
    skipped = f", {len(result.skipped)} unreadable images left out (listed in images.csv)" if result.skipped else ""
    print(f"Wrote {result.folder}: {result.epochs} epochs in {result.seconds / 60:.1f} minutes{skipped}.")
    for kind, epoch in result.chosen.items():
        print(f"  {result.folder}/encoder-{kind}: epoch {epoch}, the {kind} choice")
    print(f"  {result.encoder}: the last epoch")
    print(f"Next: ucdir evaluate {result.folder}    or    ucdir index {result.folder} DIR --out gallery")


def _start_weights(weights: str | None, init: Path | None) -> str | None:
    if weights is not None and init is not None:
        from ucdir.errors import UsageError

        raise UsageError("--weights and --init contradict each other. Give one of them.")
    return str(init) if init is not None else weights
