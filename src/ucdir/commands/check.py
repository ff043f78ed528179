"""`ucdir check`: what is in these folders, before anything is learned from them?"""

from collections.abc import Sequence

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
    """Decode every image of the sources and report unreadable files, duplicates, odd sizes and classes.

    sources  folders or manifests, each PATH or NAME=PATH
    classes  auto, folders or none
    split    only this split of the folders or manifests
    workers  threads that decode, 0 = one per core
    progress   shows how far the work is

    Findings are not failures. Raises UsageError or UcdirError when a source itself cannot be used.
    """
    domains = load_domains(sources, classes, split)
    with progress("reading images", sum(map(len, domains))) as advance:
        return check_domains(domains, advance, workers)


def refuse_without_images(report: CheckReport) -> None:
    """Raise UcdirError when a domain has no readable image at all."""
    for domain in report.domains:
        if domain.num_readable == 0:
            first = domain.unreadable[0]
            raise UcdirError(
                f"domain '{domain.name}' has no readable image: 0 of {domain.num_images:,}; "
                f"the first is '{first.path}' ({first.reason}). Give a folder with images that open."
            )
