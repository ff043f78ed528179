"""`ucdir report`: write one HTML file about a run or a benchmark.

The Python function is `ucdir.write_report`, because `ucdir.report` is a package.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ucdir.commands.command import command
from ucdir.commands.console import note, show_json
from ucdir.errors import require_at_least
from ucdir.progress import Progress, no_progress
from ucdir.run_folder import REPORT
from ucdir.storage import write_text

if TYPE_CHECKING:
    from ucdir.report.write import ReportResult


def write_report(
    folder: Path,
    out: Path | None = None,
    plots: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 0,
    seed: int = 0,
    progress: Progress = no_progress,
) -> "ReportResult":
    """Write one HTML page about a run or a benchmark, with curves, scores, hits and a map. It works offline.

    folder      Folder of a run or a benchmark.
    out         HTML file to write. Default: report.html in that folder.
    plots       Also write every plot into this folder, as .svg and, if the extra plot is installed, as .png.
    device      auto, cpu, cuda, cuda:1 or mps.
    precision   auto, float32 or bfloat16.
    workers     Threads for reading images; 0 = one per core.
    seed        Seed for choosing images when there are too many to show.
    progress    reports progress
    raises      UcdirError when `folder` is neither, or is damaged; missing images are only counted
    """
    from ucdir.report.write import ReportResult, draw_page, write_plots

    started = time.monotonic()
    require_at_least("--seed", seed, 0)
    html, drawings = draw_page(folder, device, precision, workers, seed, progress)
    page = folder / REPORT if out is None else out
    write_text(page, html)
    written, no_png = ((), "") if plots is None else write_plots(drawings, plots)
    return ReportResult(page, written, no_png, time.monotonic() - started)


def show_report(result: "ReportResult", plots: Path | None = None, json: bool = False) -> None:
    """Print the written files.

    json   Print one JSON document instead of lines.
    """
    if json:
        written = [str(file) for file in result.plots]
        show_json({"page": str(result.page), "plots": written, "no_png": result.no_png, "seconds": round(result.seconds, 1)})
        return
    print(f"Wrote {result.page}: open it in a browser.")
    if plots is not None:
        print(f"Wrote {len(result.plots)} files in {plots}, one or two for each plot.")
    if result.no_png:
        note(result.no_png)


report_command = command(write_report, show_report)
