"""`ucdir train`: learn an encoder from two or more folders of unlabelled images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ucdir.commands.command import command
from ucdir.commands.console import show_json
from ucdir.commands.report import write_report
from ucdir.errors import UcdirError, UsageError
from ucdir.progress import Progress, no_log, no_progress
from ucdir.run_folder import SETTINGS
from ucdir.settings import WITH_FLAG, Settings, load_settings

if TYPE_CHECKING:
    from ucdir.learn.run import TrainResult


def train(
    sources: Sequence[str] = (),
    out: Path = Path("run"),
    settings: Settings | Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
    log: Callable[[str], None] = no_log,
    report: bool = True,
    preset: str | None = None,
    config: Path | None = None,
    init: Path | None = None,
) -> "TrainResult":
    """Learn an encoder from two or more folders, without labels.

    sources         Two or more folders or manifests, one per domain; NAME=DIR sets its name. Not needed with --resume.
    out             Run folder to write.
    settings        complete settings; or {"section.key": value} to change some of `preset` and `config`
    resume          Continue the run in --out with its own settings; only the cache and the device may change.
    overwrite       Delete an existing run first.
    progress, log   report progress; print a line
    report          Write report.html at the end. The run is complete even if that fails.
    preset          A complete set of settings: align (the default), tune, head, quick, demo, office-home or domainnet.
    config          TOML file with settings.
    init            Start from the weights of this encoder folder, including its head.
    raises          UcdirError; InterruptedRun on Ctrl-C. A stopped run can be resumed
    """
    from ucdir.learn.run import carry_out, resolve
    from ucdir.model.processes import joined, own_device

    out = Path(out)
    complete = _complete(settings, out, resume, preset, config, init)
    with joined() as processes:
        if not processes.is_first:
            progress, log = no_progress, no_log
        resolved = processes.first(lambda: resolve(sources, out, complete, resume, overwrite))
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


def _complete(
    given: Settings | Mapping[str, Any] | None,
    out: Path,
    resume: bool,
    preset: str | None,
    config: Path | None,
    init: Path | None,
) -> Settings | None:
    """Return the complete settings, or None when none were given."""
    if isinstance(given, Settings):
        return given
    assigned = dict(given or {})
    if init is not None:
        if "encoder.weights" in assigned:
            raise UsageError("--weights and --init exclude each other. Give only one.")
        assigned["encoder.weights"] = str(init)
    stored = out / SETTINGS if resume and (out / SETTINGS).is_file() else None
    if not (assigned or preset or config):
        return None
    return load_settings(preset, config or stored, assigned, is_of_run=config is None and stored is not None)


def show_run(result: "TrainResult", json: bool = False) -> None:
    """Print the written files and the next command.

    json   Print one JSON document instead of lines.
    """
    if json:
        show_json(_document(result))
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


def _document(result: "TrainResult") -> dict[str, Any]:
    return {
        "run": str(result.folder),
        "encoder": str(result.encoder),
        "epochs": result.epochs,
        "chosen": dict(result.chosen),
        "skipped": [{"path": error.path, "reason": error.reason} for error in result.skipped],
        "seconds": round(result.seconds, 1),
        "report": None if result.report is None else str(result.report),
    }


train_command = command(train, show_run, optional=["sources"], settings=WITH_FLAG)
