"""Learn an encoder from two or more folders of unlabelled images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ucdir.errors import UcdirError
from ucdir.learn.run import TrainResult, carry_out, resolve
from ucdir.model.processes import joined, own_device
from ucdir.progress import Progress, no_log, no_progress
from ucdir.report.write import write_report
from ucdir.settings import Settings


def train(
    sources: Sequence[str] = (),
    out: Path = Path("run"),
    settings: Settings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
    log: Callable[[str], None] = lambda sentence: None,
    report: bool = True,
) -> TrainResult:
    """Learn an encoder from the images of two or more domains, without reading a label.

    sources     folders or manifests, `PATH` or `NAME=PATH`; may be left out when resuming
    out         run folder; refused when it exists, but for `resume` and `overwrite`
    settings    the resolved settings (see `ucdir.settings.load_settings`); default: the defaults
    resume      continue the run in `out` exactly where it stopped, with its settings; another cache or device is allowed. A
                finished run stays as it is, except that a missing report is written
    overwrite   throw an existing run away first
    progress, log   show how far the work is; print a line
    report      write report.html at the end; the run is done even where that fails
    raises      UcdirError, and InterruptedRun on Ctrl-C: what was finished is kept and can be resumed
    """
    out = Path(out)
    with joined() as processes:
        if not processes.is_first:
            progress, log = no_progress, no_log
        resolved = processes.first(lambda: resolve(sources, out, settings, resume, overwrite))
        result = carry_out(out, resolved, processes, resume, overwrite, progress, log)
        device = str(own_device(resolved.run.device, processes))
    if not report or not processes.is_first or result.report is not None:
        return result
    try:
        run = resolved.run
        page = write_report(out, None, None, device, run.precision, resolved.data.workers, run.seed, progress).page
    except UcdirError as error:
        log(f"no report: {error}")
        return result
    return replace(result, report=page)
