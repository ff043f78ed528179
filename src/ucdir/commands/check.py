"""`ucdir check`: look for problems in folders of images before training."""

import json as json_module
from collections.abc import Sequence
from pathlib import Path

from ucdir.commands.command import command
from ucdir.commands.console import note, show, show_json
from ucdir.errors import UcdirError
from ucdir.images.check import CheckReport, check_domains
from ucdir.images.domains import load_domains
from ucdir.progress import Progress, no_progress


def check(
    sources: Sequence[str],
    classes: str = "auto",
    split: str | None = None,
    workers: int = 0,
    progress: Progress = no_progress,
) -> CheckReport:
    """Look for unreadable, odd and duplicate images before training.

    sources    Folders or .csv/.parquet manifests, one per domain; NAME=DIR sets its name.
    classes    Class folders: auto, folders or none. Only scoring reads classes.
    split      Use only the rows of a manifest with this split.
    workers    Threads for reading images; 0 = one per core.
    progress   reports progress

    Findings are not errors. Raises UsageError or UcdirError when a source itself cannot be used.
    """
    domains = load_domains(sources, classes, split)
    with progress("reading images", sum(map(len, domains))) as advance:
        return check_domains(domains, advance, workers)


def show_findings(report: CheckReport, json: Path | None = None) -> None:
    """Print the findings; raise UcdirError when a domain has no readable image at all.

    json   Write all findings as JSON to this file; - prints them.
    """
    from ucdir.report.terminal.check import check_document, check_view
    from ucdir.storage import write_text

    if json == Path("-"):
        show_json(check_document(report))
    else:
        show(check_view(report))
    if json not in (None, Path("-")):
        write_text(json, json_module.dumps(check_document(report), indent=2, ensure_ascii=False) + "\n")
        note(f"Wrote all findings to {json}.")
    _refuse_without_images(report)


def _refuse_without_images(report: CheckReport) -> None:
    """Raise UcdirError when a domain has no readable image at all."""
    for domain in report.domains:
        if domain.num_readable == 0:
            first = domain.unreadable[0]
            raise UcdirError(
                f"domain '{domain.name}' has no readable image: 0 of {domain.num_images:,}; "
                f"the first is '{first.path}' ({first.reason}). Give a folder with images that open."
            )


check_command = command(check, show_findings)
