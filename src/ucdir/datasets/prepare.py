"""From the files of a public data set to manifests: find, compare with what is known, unpack what is needed, write."""

import csv
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from ucdir.datasets.archives import Archive, archive_stem, is_archive, require_space, unpack
from ucdir.datasets.catalogue import DatasetSpec, normalised
from ucdir.datasets.matching import (
    Difference,
    FoundDomain,
    Picture,
    by_domain,
    differences,
    find_domains,
    list_names,
    recognise,
)
from ucdir.datasets.prepared_set import DOCUMENT, FORMAT_VERSION, DomainEntry, PreparedDocument
from ucdir.datasets.source_files import Entry, Listing, list_archives, list_source
from ucdir.documents import to_json
from ucdir.errors import UcdirError, UsageError
from ucdir.progress import Progress, no_progress
from ucdir.storage import atomic_folder, clear_write_errors, locked, restore_folder, write_text

IMAGES = "images"
MARK = ".ucdir-data"  # in a folder that prepare writes: the name of the data set
MAX_LISTED = 20
NAMED = 3  # of the classes that a domain lacks


@dataclass(frozen=True)
class PreparedDomain:
    """A domain as it was written; `place` is the folder or archive its images come from."""

    name: str
    manifest: Path
    images: int
    classes: int
    place: str
    unpacked: bool


@dataclass(frozen=True)
class Prepared:
    """What `prepare_dataset` wrote into `folder`, and in what the images differ from what is known."""

    folder: Path
    spec: DatasetSpec
    domains: tuple[PreparedDomain, ...]
    pairs: tuple[tuple[str, str], ...]
    differences: tuple[Difference, ...]


@contextmanager
def preparing(out: Path) -> Iterator[None]:
    """Be the only one who prepares a data set into `out`; tidies up after one that was killed."""
    with locked(out, "being written by another ucdir data prepare"):
        restore_folder(out)
        restore_folder(out / IMAGES)
        yield


def prepare_dataset(
    spec: DatasetSpec, source: Path, out: Path, allow_differences: bool = False, progress: Progress = no_progress
) -> Prepared:
    """Write OUT/<domain>.csv for each domain and, last, OUT/dataset.json. Call it within `preparing(out)`.

    source              folder with unpacked folders or archives, or one archive. A domain that is already unpacked stays
                        where it is; else it is unpacked into OUT/images, which appears whole or not at all
    allow_differences   continue when counts differ from the known ones; record the differences in dataset.json
    raises              UsageError for an `out` of something else, UcdirError for files that are not the data set
    """
    _refuse_foreign(out, spec)
    with clear_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp"))
    try:
        found = _find(spec, source, out, scratch)
        differing = differences(found.domains, spec)
        if differing and not allow_differences:
            raise UcdirError(_listing_of(differing, found.unread, spec))
        return _write(spec, [domain for domain in found.domains if domain.pictures], differing, out, progress)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refuse_foreign(out: Path, spec: DatasetSpec) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out '{out}' is a file. Give a folder.")
    mark = out / MARK
    name = mark.read_text(encoding="utf-8", errors="replace").strip() if mark.is_file() else ""
    if name and name != spec.name:
        raise UsageError(f"--out '{out}' holds the data set {name}. Give another folder for {spec.name}.")
    ours = (out / file for file in (IMAGES, DOCUMENT, *(f"{domain.name}.csv" for domain in spec.domains)))
    there = [file for file in ours if os.path.lexists(file)]
    if there and not name:
        raise UsageError(f"'{there[0]}' exists and was not written by ucdir data prepare. Give another --out.")


# Finding


@dataclass(frozen=True)
class _Found:
    """The domains in a source, and why some of its archives could not be looked into."""

    domains: tuple[FoundDomain, ...]
    unread: tuple[UcdirError, ...]


def _find(spec: DatasetSpec, source: Path, out: Path, scratch: Path) -> _Found:
    """Find the domains in a source. Archives are opened, likely ones first, until nothing is missing.

    An archive that cannot be read ends this only when something is missing after all of them.
    """
    listing = list_source(source, skip=out / IMAGES)
    seen = listing.images
    for archives in _likely_first(listing.archives, spec):
        if archives and _is_incomplete(listing, spec):
            packed = list_archives(archives, scratch)
            seen += packed.images
            listing = _completed(listing, packed, spec)
    if listing.unread and _is_incomplete(listing, spec):
        raise listing.unread[0]
    found = find_domains(listing, spec, lambda entry: _read_text(entry, scratch))
    if len([domain for domain in found if domain.pictures]) < 2:
        raise _another(spec, source, seen)
    return _Found(found, listing.unread)


def _likely_first(archives: Sequence[Entry], spec: DatasetSpec) -> tuple[list[Entry], ...]:
    """Archives that are called like a file of the data set, those called like a domain, and the others."""
    files = {normalised(archive_stem(file.name)) for file in spec.files if is_archive(file.name)}
    domains = {normalised(name) for domain in spec.domains for name in (domain.name, *domain.folders)}
    groups: tuple[list[Entry], ...] = ([], [], [])
    for archive in archives:
        name = normalised(archive_stem(archive.parts[-1]))
        groups[0 if name in files else 1 if name in domains else 2].append(archive)
    return groups


def _is_incomplete(listing: Listing, spec: DatasetSpec) -> bool:
    return not all(by_domain(listing.images, spec).values()) or not _lists_of(spec) <= _names(listing.texts)


def _completed(listing: Listing, packed: Listing, spec: DatasetSpec) -> Listing:
    """Everything already unpacked, and from archives the domains and lists that are not."""
    there, names = by_domain(listing.images, spec), _names(listing.texts)
    images = [
        entry
        for domain, roots in by_domain(packed.images, spec).items()
        if not there[domain]
        for entries in roots.values()
        for entry in entries
    ]
    texts = tuple(entry for entry in packed.texts if entry.parts[-1].lower() not in names)
    return Listing(listing.images + tuple(images), listing.texts + texts, (), listing.unread + packed.unread)


def _lists_of(spec: DatasetSpec) -> set[str]:
    return {name for domain in spec.domains for name in list_names(domain)} if spec.by_lists else set()


def _names(texts: Sequence[Entry]) -> set[str]:
    return {entry.parts[-1].lower() for entry in texts}


def _read_text(entry: Entry, scratch: Path) -> str:
    file = entry.file
    if entry.archive is not None:
        file = Path(tempfile.mkdtemp(dir=scratch)) / "text"
        unpack(entry.archive, {entry.member: file}, lambda count: None)
    try:
        return file.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise UcdirError(f"list '{entry.place}' cannot be read: {error}. Download it again.") from error


def _another(spec: DatasetSpec, source: Path, images: Sequence[Entry]) -> UcdirError:
    """Why fewer than two domains were found: it is another data set, or none that is known."""
    known = recognise(images)
    if known is not None and known is not spec and known.name != spec.name:
        return UcdirError(
            f"'{source}' holds {known.title}, not {spec.title}. Run: ucdir data prepare {known.name} --source {source}"
        )
    return UcdirError(
        f"'{source}' holds {len(images):,} images, but not two domains of {spec.title}; expected {spec.layout}. "
        f"Give the folder above them, or the archives: ucdir data info {spec.name} says which."
    )


def _listing_of(differing: Sequence[Difference], unread: Sequence[UcdirError], spec: DatasetSpec) -> str:
    """What differs: a line for each domain with its total and the classes it lacks, then everything else one by one."""
    totals = [line for domain in spec.domains if (line := _total_of([one for one in differing if one.domain == domain.name]))]
    single = [one for one in differing if not (one.is_absent_class or one.is_total)]
    lines = [*totals, *(str(difference) for difference in single[:MAX_LISTED])]
    if len(single) > MAX_LISTED:
        lines.append(f"and {len(single) - MAX_LISTED:,} more")
    lines += [f"not looked into: {error}" for error in unread]
    return "\n".join(
        (
            f"these files are not {spec.title} as it is known, so nothing was written:",
            *(f"  {line}" for line in lines),
            "Download what is incomplete again, or continue and record the differences in dataset.json (--allow-differences).",
        )
    )


def _total_of(differing: Sequence[Difference]) -> str:
    """How much of a domain is there and which classes are not; empty when neither differs."""
    totals = [str(one).removeprefix(f"{one.domain}: ") for one in differing if one.is_total]
    absent = [one.subject.removeprefix("class ") for one in differing if one.is_absent_class]
    if not totals and not absent:
        return ""
    names = ", ".join([*absent[:NAMED], *(["..."] if len(absent) > NAMED else [])])
    classes = [f"{len(absent)} {'class is' if len(absent) == 1 else 'classes are'} missing: {names}"] if absent else []
    return f"{differing[0].domain}: {'; '.join([*totals, *classes])}"


# Writing


def _write(
    spec: DatasetSpec, found: Sequence[FoundDomain], differing: tuple[Difference, ...], out: Path, progress: Progress
) -> Prepared:
    packed = [(domain, picture) for domain in found for picture in domain.pictures if picture.entry.archive is not None]
    require_space(out, sum(picture.entry.size for _, picture in packed))
    is_new = not out.exists()
    write_text(out / MARK, f"{spec.name}\n")
    try:
        if packed:
            _unpack(packed, out, progress)
    except BaseException:
        if is_new:
            shutil.rmtree(out, ignore_errors=True)
        raise
    (out / DOCUMENT).unlink(missing_ok=True)
    domains = tuple(_write_manifest(domain, out) for domain in found)
    names = {domain.name for domain in domains}
    pairs = tuple(pair for pair in spec.pairs if set(pair) <= names) or tuple(combinations(sorted(names), 2))
    prepared = Prepared(out, spec, domains, pairs, differing)
    write_text(out / DOCUMENT, to_json(_document(prepared), FORMAT_VERSION))
    return prepared


def _unpack(packed: Sequence[tuple[FoundDomain, Picture]], out: Path, progress: Progress) -> None:
    """Unpack images into OUT/images/<domain>/<class>/, which changes as a whole."""
    with atomic_folder(out / IMAGES) as draft, progress("unpacking", len(packed)) as advance:
        targets: dict[Archive, dict[str, Path]] = {}
        for domain, picture in packed:
            assert picture.entry.archive is not None
            target = draft.joinpath(domain.spec.name, *picture.entry.parts[-2:])
            targets.setdefault(picture.entry.archive, {})[picture.entry.member] = target
        for archive, wanted in targets.items():
            unpack(archive, wanted, advance)


def _write_manifest(domain: FoundDomain, out: Path) -> PreparedDomain:
    manifest = out / f"{domain.spec.name}.csv"
    with_splits = any(picture.split is not None for picture in domain.pictures)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "class", "split") if with_splits else ("path", "class"))
    for picture in domain.pictures:
        row = (_path(picture, domain, out), picture.class_name)
        writer.writerow((*row, picture.split) if with_splits else row)
    try:
        write_text(manifest, text.getvalue())
    except UnicodeEncodeError as error:
        raise UcdirError(
            f"'{domain.place}' contains a file name that is not UTF-8. Rename the file or unpack the archive again."
        ) from error
    classes = {picture.class_name for picture in domain.pictures}
    unpacked = any(picture.entry.archive is not None for picture in domain.pictures)
    return PreparedDomain(domain.spec.name, manifest, len(domain.pictures), len(classes), domain.place, unpacked)


def _path(picture: Picture, domain: FoundDomain, out: Path) -> str:
    """Relative to the manifest for a file below `out`, so that the folder may move; else absolute."""
    if picture.entry.archive is not None:
        return Path(IMAGES, domain.spec.name, *picture.entry.parts[-2:]).as_posix()
    file, folder = picture.entry.file.absolute(), out.absolute()
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _document(prepared: Prepared) -> PreparedDocument:
    spec = prepared.spec
    domains = tuple(DomainEntry(domain.name, domain.manifest.name, domain.images) for domain in prepared.domains)
    return PreparedDocument(
        spec.name, domains, prepared.pairs, spec.ks, spec.preset, spec.num_classes, prepared.differences, spec.title
    )
