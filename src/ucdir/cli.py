"""The command line: argv -> one function of `ucdir.commands` -> print. Nothing heavy is imported before a command runs."""

import json
import os
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

data_app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Public data sets: what is known of them, and manifests of their files.",
)
app.add_typer(data_app, name="data")

Sources = Annotated[
    list[str],
    typer.Argument(metavar="DIR...", help="Folders or .csv/.parquet manifests, one per domain; NAME=DIR sets its name."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Classes = Annotated[str, typer.Option(help="Class folders: auto, folders or none. Only scoring reads classes.")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
Workers = Annotated[int, typer.Option(min=0, help="Threads for reading images; 0 = one per core.")]
GalleryEngine = Annotated[str, typer.Option(metavar="ENGINE", help="Where the gallery lives: folder, or milvus:URI.")]
AsDomain = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        help="Domain of the encoder that the images belong to; default: the one named like their folder.",
    ),
]
Expand = Annotated[
    int | None,
    typer.Option(
        "--expand",
        min=0,
        metavar="N",
        help="Move a query toward its N best hits and search again; 0 = look for this exact object. Default: by encoder.",
    ),
]
RowKind = Annotated[
    str | None,
    typer.Option(
        "--rows",
        metavar="ROWS",
        help="Which embeddings of the run: frozen, centred, smoothed, aligned or tuned, if it has them. Default: the best.",
    ),
]
NumViews = Annotated[
    int | None,
    typer.Option("--views", min=1, help="Views per new image; 1 is fastest. Default: all views of the encoder."),
]
CacheFolder = Annotated[
    str | None, typer.Option("--cache-dir", metavar="FOLDER", help="Where to cache decoded pixels: a folder, auto or none.")
]
Split = Annotated[str | None, typer.Option(help="Use only the rows of a manifest with this split.")]


def main() -> None:
    """Run the command line and leave with 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        app()
    except UcdirError as error:
        if not error.told_elsewhere:
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
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Search one image collection with pictures from another that looks nothing like it."""


def show(result: object) -> None:
    """Print a rich renderable to stdout, 100 columns wide when stdout is not a terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 100).print(result)


def show_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def note(sentence: str) -> None:
    """Print a sentence on stderr: what was written, what to do next."""
    print(sentence, file=sys.stderr)


def is_helper() -> bool:
    """Whether this is one of several processes but not the first, which alone prints."""
    return os.environ.get("RANK", "0") != "0"


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with the time left; the yielded function takes the number of things just finished."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


@app.command()
def check(
    sources: Sources,
    classes: Classes = "auto",
    split: Split = None,
    workers: Workers = 0,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write all findings as JSON to FILE; - prints them."),
    ] = None,
) -> None:
    """Look for unreadable, odd and duplicate images before training."""
    from ucdir.commands.check import check as run
    from ucdir.commands.check import refuse_without_images
    from ucdir.report.terminal.check import check_document, check_view
    from ucdir.storage import write_text

    report = run(sources, classes=classes, split=split, workers=workers, progress=progress_bar)
    if json_file == Path("-"):
        show_json(check_document(report))
    else:
        show(check_view(report))
        if json_file is not None:
            write_text(json_file, json.dumps(check_document(report), indent=2, ensure_ascii=False) + "\n")
            note(f"Wrote all findings to {json_file}.")
    refuse_without_images(report)


@app.command()
def train(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DIR...",
            help="Two or more folders or manifests; NAME=DIR gives a name. Not needed with --resume.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("run"),
    preset: Annotated[
        str | None,
        typer.Option(
            help="A complete set of settings: align (the default), tune, head, quick, demo, office-home or domainnet."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="align (the default), tune; by gradient only: ucdir, instance, cluster, prototype, coda, protoot."),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="torchvision/NAME or timm/NAME.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="default, none or PATH (MoCo v2, torchvision, timm, encoder folder).")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Start from the weights of this encoder folder, including its head.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side length of the images in pixels.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the largest domain.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images of each domain in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Rate of the first epoch.")] = None,
    num_clusters: Annotated[
        list[int] | None, typer.Option(help="Clusters per domain; repeat for several independent clusterings.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class folders: auto, folders or none. Training never reads them.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Train on the rows of this split of a manifest.")] = None,
    train_what: Annotated[
        str | None,
        typer.Option("--train", metavar="all|head", help="head: keep the backbone as it is; takes minutes on a laptop."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads for reading images; 0 = one per core.")] = None,
    cache_dir: CacheFolder = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as section.key=value.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out where it stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an existing run first.")] = False,
    report_page: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html at the end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Learn an encoder from two or more folders, without labels."""
    from ucdir.commands.train import train as run
    from ucdir.settings import load_settings, parse_assignments

    flags = {
        "method.name": method,
        "encoder.backbone": backbone,
        "encoder.weights": _start_weights(weights, init),
        "encoder.image_size": image_size,
        "optimiser.train": train_what,
        "optimiser.epochs": epochs,
        "optimiser.batch_size": batch_size,
        "optimiser.learning_rate": learning_rate,
        "method.num_clusters": tuple(num_clusters) if num_clusters else None,
        "data.classes": classes,
        "data.split": split,
        "data.workers": workers,
        "data.cache_dir": cache_dir,
        "run.seed": seed,
        "run.device": device,
        "run.precision": precision,
    }
    given = {key: value for key, value in flags.items() if value is not None} | parse_assignments(assign or ())
    stored = out / "config.toml" if resume and (out / "config.toml").is_file() else None
    is_of_run = config is None and stored is not None
    has_settings = given or preset or config or not resume
    settings = load_settings(preset, config or stored, given, is_of_run=is_of_run) if has_settings else None
    result = run(sources or (), out, settings, resume, overwrite, progress_bar, note, report=report_page)
    if is_helper():
        return
    if as_json:
        show_json(
            {
                "run": str(result.folder),
                "encoder": str(result.encoder),
                "epochs": result.epochs,
                "chosen": dict(result.chosen),
                "skipped": [{"path": error.path, "reason": error.reason} for error in result.skipped],
                "seconds": round(result.seconds, 1),
                "report": None if result.report is None else str(result.report),
            }
        )
        return
    skipped = f", skipped {len(result.skipped)} unreadable images (listed in images.csv)" if result.skipped else ""
    if result.was_finished:
        passes = f": {result.epochs} of {result.epochs} epochs" if result.epochs else ""
        print(f"{result.folder} is already finished{passes}. Nothing to do.")
    elif not result.epochs:
        print(f"Wrote {result.folder} in {result.seconds / 60:.1f} minutes{skipped}.")
    else:
        print(f"Wrote {result.folder}: {result.epochs} epochs, {result.seconds / 60:.1f} minutes of training{skipped}.")
    for kind, epoch in result.chosen.items():
        used = "; index, embed and export use it" if kind == "label-free" else ""
        print(f"  {result.folder}/encoder-{kind}: epoch {epoch}, the {kind} choice{used}")
    print(f"  {result.encoder}: {'the last epoch' if result.epochs else 'the encoder'}")
    if result.report is not None:
        print(f"  {result.report}: a report about the run; open it in a browser")
    evaluate = f"ucdir evaluate {result.folder}    or    " if result.can_be_scored else ""
    print(f"Next: {evaluate}ucdir index {result.folder} DIR --out gallery")


def _start_weights(weights: str | None, init: Path | None) -> str | None:
    if weights is not None and init is not None:
        from ucdir.errors import UsageError

        raise UsageError("--weights and --init exclude each other. Give only one.")
    return str(init) if init is not None else weights


@app.command()
def evaluate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN [DIR...]",
            help="Run or encoder folder, then two or more folders or manifests with classes (default: those of the run). "
            "With --backbone only the folders.",
        ),
    ] = None,
    ks: Annotated[list[int] | None, typer.Option("--k", help="Cut-offs; repeat for several. Default: 1 5 15 50.")] = None,
    figure: Annotated[str, typer.Option(help="What the k columns show: P, capped, mAP or R.")] = "P",
    frozen: Annotated[Path | None, typer.Option(help="Encoder folder of the frozen backbone, if it is not in RUN.")] = None,
    backbone: Annotated[str | None, typer.Option(help="torchvision/NAME or timm/NAME: score it without training.")] = None,
    weights: Annotated[str, typer.Option(help="Of --backbone: default or PATH.")] = "default",
    image_size: Annotated[int, typer.Option(min=16, help="Of --backbone: side of the images in pixels.")] = 224,
    classes: Annotated[str | None, typer.Option(help="auto, folders or none. Default: as in the run, or auto.")] = None,
    split: Split = None,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples for the intervals; 0 = none.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    expand: Expand = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = 0,
    cache_dir: CacheFolder = None,
    as_json: AsJson = False,
) -> None:
    """Score an encoder in both directions of every pair of domains, next to training-free baselines."""
    from ucdir.commands.evaluate import evaluate as run
    from ucdir.errors import UsageError
    from ucdir.report.terminal.scores import FIGURES, score_document, score_table

    if figure not in FIGURES:
        raise UsageError(f"--figure '{figure}' is unknown. Use one of: {', '.join(FIGURES)}.")
    given = list(arguments or ())
    encoder = Path(given.pop(0)) if given and backbone is None else None
    report = run(
        encoder,
        given,
        ks or None,
        frozen=frozen,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        classes=classes,
        split=split,
        device=device,
        precision=precision,
        workers=workers,
        resamples=resamples,
        seed=seed,
        progress=progress_bar,
        expand=expand,
        cache_dir=cache_dir,
    )
    if as_json:
        show_json(score_document(report))
    else:
        show(score_table(report, figure))


@app.command()
def benchmark(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR...", help="A folder that `ucdir data prepare` wrote, or two or more folders or manifests with classes."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the results and the run of each cell; continues where it stopped.")
    ] = Path("benchmark"),
    methods: Annotated[
        str, typer.Option(help="frozen, centred, smoothed; align, tune, ucdir, instance, cluster, prototype, coda, protoot.")
    ] = "frozen,centred,smoothed,instance,ucdir,protoot,align",
    pairs: Annotated[str | None, typer.Option(help="NAME-NAME,NAME-NAME. Default: those of the data set, or all.")] = None,
    seeds: Annotated[int, typer.Option(help="How many: 0, 1, ...")] = 3,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="paper: train, query and gallery images are the same; held-out: queries and gallery are the test split of "
            "the set, or a fifth of the images; half-a, half-b: one domain keeps half of the classes; private: each has "
            "classes that the other lacks; which is drawn by the seed. Repeat for several."
        ),
    ] = None,
    ks: Annotated[list[int] | None, typer.Option("--k", help="Cut-offs; repeat for several.")] = None,
    preset: Annotated[str | None, typer.Option(help="Settings of every training. Default: that of the data set.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    weights: Annotated[str | None, typer.Option(help="default, none or PATH, for every method.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the larger domain of a pair.")] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="Repeat for several at a time. Default: every CUDA device, or the CPU.")
    ] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as section.key=value.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare methods on all pairs of a data set, both ways, over several seeds, next to training-free baselines."""
    import shlex

    from ucdir.commands.benchmark import benchmark as run
    from ucdir.commands.benchmark import default_settings
    from ucdir.report.benchmark_facts import benchmark_document
    from ucdir.report.benchmark_tables import benchmark_table
    from ucdir.settings import parse_assignments

    flags = {"encoder.weights": weights, "optimiser.epochs": epochs}
    given = {key: value for key, value in flags.items() if value is not None} | parse_assignments(assign or ())
    with live_table() as (progress, log, show_facts):
        facts = run(
            sources,
            out,
            _listed(methods),
            _listed(pairs),
            seeds,
            protocol or ("paper",),
            ks or (),
            default_settings(sources, preset, config, given, _listed(methods)),
            device or ("auto",),
            shlex.join(["ucdir", *sys.argv[1:]]),
            progress,
            log,
            show_facts,
        )
    if as_json:
        show_json(benchmark_document(facts))
    else:
        show(benchmark_table(facts))
    note(f"Wrote {out}: report.html, results.json, results.md, results.tex, and the run of each cell under cells/.")


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


@contextmanager
def live_table() -> Iterator[tuple[Any, Callable[[str], None], Callable[[Any], None]]]:
    """A table on stderr that grows with each cell, above a line that says what is going on: (progress, log, show).

    It disappears at the end. If stderr is not a terminal, only the log lines are printed.
    """
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from ucdir.report.benchmark_tables import benchmark_figures

    console = Console(stderr=True)
    if not console.is_terminal:
        yield progress_bar, note, lambda facts: None
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
            yield progress, live.console.print, show_facts
        finally:
            live.update(Text(""), refresh=True)  # what is taller than the screen would stay at the end


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN|BENCHMARK", help="Run folder, or folder of a benchmark.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="HTML file to write. Default: report.html in it.")] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write every plot as .svg and, with the extra plot, as .png.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn where all is too much.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write one page about a run or a benchmark: curves, scores, answers, a map; it needs no network."""
    from ucdir.report.write import write_report as run

    result = run(folder, out, plots, device=device, precision=precision, workers=workers, seed=seed, progress=progress_bar)
    if as_json:
        written = [str(file) for file in result.plots]
        show_json({"page": str(result.page), "plots": written, "no_png": result.no_png, "seconds": round(result.seconds, 1)})
        return
    print(f"Wrote {result.page}: open it in a browser.")
    if plots is not None:
        print(f"Wrote {len(result.plots)} files in {plots}, one or two for each plot.")
    if result.no_png:
        note(result.no_png)


@app.command()
def index(
    encoder: Annotated[Path, typer.Argument(metavar="RUN", help="Run or encoder folder.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DIR...]", help="Folders or manifests; NAME=DIR gives a name. Default: those of the gallery."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Gallery folder; made, or brought up to date.")] = Path("gallery"),
    drop: Annotated[list[str] | None, typer.Option(metavar="DOMAIN", help="Remove this domain from the gallery.")] = None,
    classes: Annotated[str, typer.Option(help="Class folders, recorded with each image: auto, folders or none.")] = "auto",
    split: Split = None,
    as_domain: AsDomain = None,
    views: NumViews = None,
    rows: RowKind = None,
    engine: GalleryEngine = "folder",
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw the gallery away and embed everything.")] = False,
    export_encoder: Annotated[
        bool, typer.Option("--export/--no-export", help="Export the encoder too, so that searching starts without torch.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Embed folders of images for searching; again, to follow what was added, changed, moved or deleted."""
    from ucdir.commands.index import index as run
    from ucdir.gallery.locate import engine_flag
    from ucdir.report.terminal.index import index_document, index_lines

    result = run(
        encoder,
        sources or (),
        out,
        classes=classes,
        split=split,
        device=device,
        precision=precision,
        workers=workers,
        overwrite=overwrite,
        drop=drop or (),
        engine=engine,
        export=export_encoder,
        progress=progress_bar,
        log=note,
        as_domain=as_domain,
        views=views,
        rows=rows,
    )
    if is_helper():
        return
    if as_json:
        show_json(index_document(result))
        return
    for line in index_lines(result):
        print(line)
    there = f"{out}{engine_flag(engine)}"
    print(f"Next: ucdir search {there} QUERY.png    or    ucdir serve {there}")


@app.command()
def embed(
    encoder: Annotated[Path, typer.Argument(metavar="RUN", help="Run or encoder folder.")],
    sources: Sources,
    out: Annotated[Path, typer.Option(help="Writes OUT.npy and OUT.parquet.")] = Path("embeddings"),
    classes: Annotated[str, typer.Option(help="Class folders, recorded with each image: auto, folders or none.")] = "auto",
    split: Split = None,
    as_domain: AsDomain = None,
    views: NumViews = None,
    rows: RowKind = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write embeddings for other tools: one array, one table, row by row the same images."""
    from ucdir.commands.embed import embed as run

    result = run(
        encoder,
        sources,
        out,
        classes=classes,
        split=split,
        device=device,
        precision=precision,
        workers=workers,
        overwrite=overwrite,
        progress=progress_bar,
        log=note,
        as_domain=as_domain,
        views=views,
        rows=rows,
    )
    if is_helper():
        return
    if as_json:
        unreadable = [{"path": error.path, "reason": error.reason} for error in result.unreadable]
        show_json({"array": str(result.array), "table": str(result.table), "count": result.count, "unreadable": unreadable})
        return
    for error in result.unreadable:
        print(f"skipped {error.path}: {error.reason}")
    print(f"Wrote {result.array} ({result.count:,} x {result.dim} float32 unit rows) and {result.table} (their images).")


@app.command()
def export(
    encoder: Annotated[Path, typer.Argument(metavar="RUN", help="Run or encoder folder.")],
) -> None:
    """Write model.onnx into an encoder folder: search and serve then start in a second, without torch."""
    from ucdir.model.encoder_folder import encoder_folder
    from ucdir.model.export import export_onnx
    from ucdir.model.runtime import EXPORTED

    folder = encoder_folder(encoder)
    difference = export_onnx(folder)
    print(f"Wrote {folder / EXPORTED}: agrees with the weights to {difference:.0e}. search and serve use it from now on.")


@app.command()
def search(
    gallery: Annotated[Path, typer.Argument(help="Gallery folder.")],
    query: Annotated[Path, typer.Argument(help="Image to search with, or a folder of them.")],
    k: Annotated[int, typer.Option("--k", "-k", help="Hits for each query.")] = 10,
    encoder: Annotated[Path | None, typer.Option(help="Run or encoder folder, if it has moved since.")] = None,
    domain: Annotated[str | None, typer.Option(help="Look only at this domain of the gallery.")] = None,
    under: Annotated[str | None, typer.Option(metavar="FOLDER", help="Look only at images below this folder.")] = None,
    as_domain: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Domain of the encoder that the query belongs to. Default: recognised."),
    ] = None,
    expand: Expand = None,
    min_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out hits that are less likely to be right, from 0 to 1.")
    ] = 0.0,
    runtime: Annotated[str, typer.Option(help="auto, torch, or onnx: the encoder that ucdir export wrote.")] = "auto",
    engine: GalleryEngine = "folder",
    page: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with pictures.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Find the images of a gallery that are most similar to a picture."""
    from ucdir.commands.search import search as run
    from ucdir.report.search_page import write_search_page
    from ucdir.report.terminal.hits import hit_document, hit_table

    result = run(
        gallery,
        query,
        k,
        encoder=encoder,
        domain=domain,
        under=under,
        runtime=runtime,
        engine=engine,
        device=device,
        precision=precision,
        workers=workers,
        progress=progress_bar,
        as_domain=as_domain,
        expand=expand,
        min_confidence=min_confidence,
    )
    if as_json:
        show_json(hit_document(result))
    else:
        show(hit_table(result))
    if k > result.searched:
        note(f"--k {k:,} is more than the {result.searched:,} images of {result.gallery} that were searched.")
    if page is not None:
        write_search_page(result, page)
        note(f"Wrote {page}: open it in a browser.")


@app.command()
def serve(
    galleries: Annotated[
        list[str], typer.Argument(metavar="GALLERY...", help="Gallery folders; NAME=GALLERY gives a name.", show_default=False)
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 = all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 = any that is free.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that every request needs. Default: the variable UCDIR_TOKEN.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another host name that browsers may use; repeat for several.")
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="Largest upload in bytes.")] = 20_000_000,
    max_pixels: Annotated[int | None, typer.Option(help="Largest upload in pixels. Default: 89,000,000.")] = None,
    queue: Annotated[int, typer.Option(help="Searches at a time; further ones are told to retry.")] = 64,
    upload_seconds: Annotated[float, typer.Option(help="Time in which an upload must have arrived.")] = 60.0,
    engine: GalleryEngine = "folder",
    encoder: Annotated[Path | None, typer.Option(help="Run or encoder folder, if it has moved since.")] = None,
    runtime: Annotated[str, typer.Option(help="auto, torch, or onnx: the encoder that ucdir export wrote.")] = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Search galleries in a browser: drop or draw a picture. Programs use the same addresses."""
    from ucdir.commands.serve import Serving
    from ucdir.commands.serve import serve as run
    from ucdir.images.opening import MAX_PIXELS

    def begun(serving: Serving) -> None:
        held = ", ".join(f"{name} ({count:,} images)" for name, count in serving.galleries)
        print(f"Serving {held}.{' Every request needs the token.' if serving.token_required else ''}")
        print(f"Open {serving.address} in a browser. Ctrl-C ends it.", flush=True)
        for warning in serving.warnings:
            note(f"warning: {warning}")

    run(
        galleries,
        host,
        port,
        token_file=token_file,
        allow_hosts=allow_host or (),
        max_bytes=max_bytes,
        max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
        queue=queue,
        upload_seconds=upload_seconds,
        engine=engine,
        encoder=encoder,
        runtime=runtime,
        device=device,
        precision=precision,
        begun=begun,
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier demo there is replaced.")] = Path("ucdir-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pictures and of the training.")] = 0,
    images_per_class: Annotated[int, typer.Option(min=1, help="About how many pictures of each kind and look.")] = 60,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the pictures.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw two collections, learn to search one with the other, and show it: under three minutes on two cores."""
    from ucdir.commands.demo import demo as run
    from ucdir.report.terminal.demo import demo_table
    from ucdir.report.terminal.hits import hit_document, hit_table
    from ucdir.report.terminal.scores import score_document

    result = run(out, seed, images_per_class, epochs, progress_bar, note)
    if as_json:
        show_json(
            {
                "folder": str(out),
                "picture": str(result.picture),
                "seconds": round(result.seconds, 1),
                "scores": score_document(result.scores),
                "search": hit_document(result.found),
            }
        )
        return
    show(demo_table(result.scores))
    print()
    show(hit_table(result.found))
    photos, drawings = (sum(counts) for counts in zip(*result.drawn.counts.values(), strict=True))
    print(f"\nWrote {out} in {result.seconds:.0f} seconds:")
    print(f"  {result.drawn.photo}, {result.drawn.drawing}: {photos} and {drawings} pictures")
    print(f"  {result.run}: the run   {result.gallery}: the searchable photographs")
    if result.report is not None:
        print(f"  {result.report}: curves, scores, answers and a map of the run; open it in a browser")
    print(f"  {result.picture}: one drawing of each kind and what it finds; look at it")
    print(f"Next: ucdir search {result.gallery} YOUR_DRAWING.png    or    ucdir train DIR DIR --out run")


@data_app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="office-home, domainnet, pacs, visda or office31.")],
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Its archives or unpacked folders. Default with --download: OUT/archives."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder to write. Default: NAME.")] = None,
    classes: Annotated[str, typer.Option(help="standard, or all: the 345 classes of DomainNet.")] = "standard",
    download: Annotated[
        bool, typer.Option("--download", help="Download the files into --source first; continues where it stopped.")
    ] = False,
    allow_differences: Annotated[
        bool, typer.Option("--allow-differences", help="Go on when counts are not as known, and note what differs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make manifests of a public data set, and check that it is complete."""
    from ucdir.commands.data import prepare as run
    from ucdir.report.terminal.datasets import prepared_document, prepared_lines

    result = run(name, source, out, classes, download, allow_differences, progress=progress_bar, log=note)
    if as_json:
        show_json(prepared_document(result))
        return
    for line in prepared_lines(result):
        print(line)
    manifests = " ".join(str(result.folder / f"{domain}.csv") for domain in result.pairs[0])
    preset = f" --preset {result.spec.preset}" if result.spec.preset else ""
    print(f"Next: ucdir train {manifests}{preset}    or    ucdir benchmark {result.folder}")


@data_app.command("info")
def data_info(
    name: Annotated[str | None, typer.Argument(help="A data set. Default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say where a public data set comes from, its terms, what to fetch and how many images there should be."""
    from ucdir.commands.data import info as run
    from ucdir.report.terminal.datasets import info_document, info_lines, overview_lines

    specs = run(name)
    if as_json:
        documents = [info_document(spec) for spec in specs]
        show_json(documents if name is None else documents[0])
        return
    for line in overview_lines(specs) if name is None else info_lines(specs[0]):
        print(line)
