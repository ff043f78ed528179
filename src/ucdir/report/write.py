"""One HTML file about a run or a benchmark, and its plots as files."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ucdir.embedding.compute import Compute
from ucdir.errors import UcdirError, UsageError
from ucdir.images.pixel_cache import open_cache
from ucdir.images.training_views import useful_side
from ucdir.progress import Progress, no_log
from ucdir.report.benchmark_facts import RESULTS, read_benchmark
from ucdir.report.gather.run import ReportOptions, gather_run
from ucdir.report.match_tables import GROUPS, PAIRS, write_groups, write_pairs
from ucdir.report.page.benchmark import benchmark_drawings, benchmark_page
from ucdir.report.page.pictures import Pictures
from ucdir.report.page.run import run_drawings, run_page
from ucdir.report.plots.marks import Drawing
from ucdir.report.plots.png import png_file
from ucdir.report.plots.svg import svg_file
from ucdir.run_folder import is_run_folder
from ucdir.settings import stored_settings
from ucdir.storage import write_text

UNSAFE = re.compile(r"[^\w@.-]+")


@dataclass(frozen=True)
class ReportResult:
    """What was written.

    page       the HTML file
    plots      .svg and .png files
    no_png     why there are no PNG files, or empty
    """

    page: Path
    plots: tuple[Path, ...]
    no_png: str
    seconds: float


def draw_page(
    folder: Path, device: str, precision: str, workers: int, seed: int, progress: Progress
) -> tuple[str, list[Drawing]]:
    """The page about a run or a benchmark, as HTML, and its plots."""
    if (folder / RESULTS).is_file():
        benchmark = read_benchmark(folder)
        return benchmark_page(benchmark), list(benchmark_drawings(benchmark))
    return _of_run(folder, device, precision, workers, seed, progress)


def _of_run(
    folder: Path, device: str, precision: str, workers: int, seed: int, progress: Progress
) -> tuple[str, list[Drawing]]:
    if not is_run_folder(folder):
        raise _neither(folder)
    settings = stored_settings(folder)
    cache = open_cache(settings.data.cache_dir, settings.data.cache_gb, no_log)
    facts = gather_run(folder, ReportOptions(Compute.named(device, precision, workers, cache=cache), seed, progress))
    write_groups(folder / GROUPS, facts.groups)
    write_pairs(folder / PAIRS, facts.pairs)
    size = settings.encoder.image_size
    pictures = Pictures(facts.root, useful_side(size), size, workers, cache)
    return run_page(facts, pictures), list(run_drawings(facts))


def _neither(folder: Path) -> UsageError:
    if not folder.exists():
        return UsageError(f"'{folder}' does not exist. Give a run folder from ucdir train or a benchmark folder.")
    return UsageError(
        f"'{folder}' is neither a run nor a benchmark: no config.toml (of ucdir train), no {RESULTS} (of a benchmark) in it. "
        "Give a folder that one of them wrote."
    )


def write_plots(drawings: Iterable[Drawing], folder: Path) -> tuple[tuple[Path, ...], str]:
    """Every plot as .svg, and as .png where the extra is installed; else the reason why not."""
    written: list[Path] = []
    no_png = ""
    for drawing in drawings:
        name = UNSAFE.sub("_", drawing.name)
        write_text(folder / f"{name}.svg", svg_file(drawing))
        written.append(folder / f"{name}.svg")
        if no_png:
            continue
        try:
            png_file(drawing, folder / f"{name}.png")
            written.append(folder / f"{name}.png")
        except UcdirError as error:
            no_png = str(error)
    return tuple(written), no_png
