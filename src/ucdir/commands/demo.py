"""`ucdir demo`: draw two collections, train on them, search one with the other, and show the hits."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ucdir.commands.command import command
from ucdir.commands.console import show, show_json
from ucdir.commands.evaluate import evaluate
from ucdir.commands.index import index
from ucdir.commands.search import search
from ucdir.commands.train import train
from ucdir.drawing.collection import Drawn, draw_collections
from ucdir.errors import UsageError, require_at_least
from ucdir.gallery.search_result import SearchResult
from ucdir.progress import Progress, no_progress
from ucdir.report.hit_grid import GridHit, GridRow, draw_hits_grid
from ucdir.settings import load_settings
from ucdir.storage import write_text

if TYPE_CHECKING:
    from ucdir.scoring.directions import EvaluationReport

KS, HITS = (1, 5, 15), 7
MARKER = "ABOUT.txt"
ABOUT = "Written by `ucdir demo`. The next demo with this --out replaces the folder.\n"


@dataclass(frozen=True)
class DemoResult:
    """Files and results of a demo.

    run, gallery   folders made by `train` and `index`
    query          drawing used as the query
    found          its hits among the photographs
    picture        PNG file with one drawing of each kind and its hits
    report         page about the run, if it could be written
    seconds        duration of the whole demo
    """

    drawn: Drawn
    run: Path
    scores: "EvaluationReport"
    gallery: Path
    query: Path
    found: SearchResult
    picture: Path
    report: Path | None
    seconds: float


def demo(
    out: Path = Path("ucdir-demo"),
    seed: int = 0,
    images_per_class: int = 60,
    epochs: int | None = None,
    progress: Progress = no_progress,
    log: Callable[[str], None] = lambda sentence: None,
) -> DemoResult:
    """Draw two collections, learn to search one with the other, and show the hits. Takes three minutes on two cores.

    out                Folder to write. An earlier demo there is replaced.
    seed               Seed of the pictures and of the training.
    images_per_class   Approximate number of pictures of each kind in each collection.
    epochs             Passes over the pictures. Default: those of the preset demo.
    progress, log      report progress; print a line
    raises             UsageError when `out` was not written by a demo

    The encoder starts from random weights. Training does not read classes; only scoring reads the class folders.
    """
    for flag, value, least in (("--seed", seed, 0), ("--images-per-class", images_per_class, 1)):
        require_at_least(flag, value, least)
    started = time.monotonic()
    _clear(out)
    log("drawing two collections")
    drawn = draw_collections(out / "images", images_per_class, seed)
    sources = [str(drawn.photo), str(drawn.drawing)]
    log("training a small encoder from random weights, without classes")
    run = out / "run"
    chosen = {"run.seed": seed} if epochs is None else {"run.seed": seed, "optimiser.epochs": epochs}
    trained = train(sources, run, load_settings("demo", assignments=chosen), progress=progress)
    scores = evaluate(run, sources, KS, classes="folders", resamples=0, progress=progress)
    gallery = out / "gallery"
    index(run, [str(drawn.photo)], gallery, progress=progress)
    queries = _first_drawings(drawn)
    answers = [search(gallery, query, k=HITS) for query in queries]
    title = "Line drawings find photographs; learned without labels"
    picture = draw_hits_grid([_grid_row(answer) for answer in answers], title, out / "hits.png")
    return DemoResult(drawn, run, scores, gallery, queries[0], answers[0], picture, trained.report, time.monotonic() - started)


def _clear(out: Path) -> None:
    """Create an empty demo folder, replacing an earlier demo."""
    if out.exists() and not (out / MARKER).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"'{out}' exists and was not written by a demo. Give another --out.")
    if out.exists():
        shutil.rmtree(out)
    write_text(out / MARKER, ABOUT)


def _first_drawings(drawn: Drawn) -> tuple[Path, ...]:
    """Return the first drawing of each kind, chosen without looking at the hits."""
    return tuple(drawn.drawing / kind / "0001.png" for kind in drawn.counts)


def _grid_row(answer: SearchResult) -> GridRow:
    (answered,) = answer.queries
    kind = answered.query.parent.name
    hits = [GridHit(hit.image.path, hit.similarity, hit.image.path.parent.name == kind) for hit in answered.hits]
    return GridRow(answered.query, hits)


def show_demo(result: DemoResult, out: Path = Path("ucdir-demo"), json: bool = False) -> None:
    """Print the scores, one search and what was written.

    json   Print one JSON document instead of tables.
    """
    from ucdir.report.terminal.demo import demo_table
    from ucdir.report.terminal.hits import hit_document, hit_table
    from ucdir.report.terminal.scores import score_document

    if json:
        document = {"folder": str(out), "picture": str(result.picture), "seconds": round(result.seconds, 1)}
        show_json(document | {"scores": score_document(result.scores), "search": hit_document(result.found)})
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


demo_command = command(demo, show_demo)
