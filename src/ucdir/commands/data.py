"""`ucdir data`: information about public data sets, and manifests of their files."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ucdir.commands.command import command
from ucdir.commands.console import show_json
from ucdir.datasets.archives import require_space
from ucdir.datasets.catalogue import DATASETS, DatasetSpec, RemoteFile, dataset
from ucdir.datasets.downloads import Downloaded, arrived_of
from ucdir.datasets.downloads import download as fetch
from ucdir.datasets.prepare import Prepared, prepare_dataset, preparing
from ucdir.errors import UcdirError, UsageError
from ucdir.progress import Progress, no_log, no_progress

ARCHIVES = "archives"


def prepare(
    name: str,
    source: Path | None = None,
    out: Path | None = None,
    classes: str = "standard",
    download: bool = False,
    allow_differences: bool = False,
    progress: Progress = no_progress,
    log: Callable[[str], None] = no_log,
) -> Prepared:
    """Make manifests of a public data set, and check that it is complete.

    name                office-home, domainnet, pacs, visda or office31.
    source              Folder with its archives or unpacked folders. Default with --download: OUT/archives.
    out                 Folder to write. Default: NAME.
    classes             standard, or all for the 345 classes of DomainNet.
    download            Download the files into --source first, continuing an interrupted download.
    allow_differences   Continue when the numbers of images are not the published ones, and record the differences.
    progress, log       report progress; print a line
    raises              UcdirError; nothing is left half-written
    """
    spec = dataset(name, classes)
    if source is None and not download:
        where = ", or --download to fetch them" if spec.downloadable else f"; ucdir data info {name} shows where to get them"
        raise UsageError(f"--source is missing. Give the folder that holds the files of {spec.title}{where}.")
    if download and not spec.downloadable:
        wanted = ", ".join(file.name for file in spec.files)
        raise UcdirError(
            f"{spec.title} is behind a form, so --download cannot fetch it. Download {wanted} by hand from {spec.site}"
        )
    out = Path(name) if out is None else out if out.name not in ("", "..") else out.resolve()
    source = out / ARCHIVES if source is None else source
    with preparing(out):
        if download:
            fetch_files(spec, source, progress, log)
        return prepare_dataset(spec, source, out, allow_differences, progress)


def info(name: str | None = None) -> tuple[DatasetSpec, ...]:
    """Show the source, terms, downloads and expected number of images of a public data set.

    name   Data set to show. Default: all.
    """
    return DATASETS if name is None else (dataset(name),)


def fetch_files(
    spec: DatasetSpec, folder: Path, progress: Progress = no_progress, log: Callable[[str], None] = no_log
) -> tuple[Downloaded, ...]:
    """Download the files of a data set that are not yet in the folder."""
    lacking = [file for file in spec.files if not (folder / file.name).exists()]
    if lacking:
        require_space(folder, sum(_still_to_come(file, folder) for file in lacking), "fetching")
        files = f"{len(lacking)} file{'' if len(lacking) == 1 else 's'}"
        log(f"Fetching {files}, {_how_much(lacking, folder)}, into {folder}. Terms of {spec.title}: {spec.licence}.")
    fetched: list[Downloaded] = []
    for file in sorted(spec.files, key=lambda file: file.size or 0):
        assert file.url is not None
        got = fetch(file.url, folder / file.name, file.size, file.md5, progress)
        compared = f"{got.checked} as expected" if got.checked else "no published checksum to compare it with"
        log(f"{got.path}: SHA-256 {got.sha256}, {compared}")
        fetched.append(got)
    return tuple(fetched)


def _still_to_come(file: RemoteFile, folder: Path) -> int:
    """Return the bytes of a file still to download; 0 when its size is unknown."""
    return max((file.size or 0) - arrived_of(folder / file.name), 0)


def _how_much(files: Sequence[RemoteFile], folder: Path) -> str:
    if not all(file.size for file in files):
        return "of unknown size"
    size = sum(file.size or 0 for file in files)
    arrived = size - sum(_still_to_come(file, folder) for file in files)
    return f"{size / 1e9:,.1f} GB{f' ({arrived / 1e9:,.1f} GB have arrived)' if arrived else ''}"


def show_prepared(result: Prepared, json: bool = False) -> None:
    """Print the written files.

    json   Print one JSON document instead of lines.
    """
    from ucdir.report.terminal.datasets import prepared_document, prepared_lines

    if json:
        show_json(prepared_document(result))
        return
    for line in prepared_lines(result):
        print(line)
    manifests = " ".join(str(result.folder / f"{domain}.csv") for domain in result.pairs[0])
    preset = f" --preset {result.spec.preset}" if result.spec.preset else ""
    print(f"Next: ucdir train {manifests}{preset}    or    ucdir benchmark {result.folder}")


def show_info(specs: Sequence[DatasetSpec], name: str | None = None, json: bool = False) -> None:
    """Print the data sets.

    json   Print one JSON document instead of lines.
    """
    from ucdir.report.terminal.datasets import info_document, info_lines, overview_lines

    if json:
        documents = [info_document(spec) for spec in specs]
        show_json(documents if name is None else documents[0])
        return
    for line in overview_lines(specs) if name is None else info_lines(specs[0]):
        print(line)


prepare_command = command(prepare, show_prepared)
info_command = command(info, show_info, optional=["name"])
