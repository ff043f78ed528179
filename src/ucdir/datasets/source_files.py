"""The files in the source of a data set: in folders, in archives, and in archives within archives."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ucdir.datasets.archives import Archive, archive_stem, is_archive, list_members, require_space, unpack
from ucdir.errors import UcdirError, UsageError
from ucdir.images.domains import IMAGE_SUFFIXES
from ucdir.images.walking import is_hidden, walk

_IMAGE_SUFFIXES = tuple(IMAGE_SUFFIXES)
MAX_ARCHIVE_DEPTH = 3  # archives within archives


@dataclass(frozen=True)
class Entry:
    """A file of the source.

    parts    its names below the source; an archive counts as a folder that is called like it, without the suffix
    file     the file itself, or the one of the source that holds it
    archive  the archive to read it from, None outside of archives
    member   its name in that archive
    size     of a member when unpacked, in bytes; 0 for a file
    """

    parts: tuple[str, ...]
    file: Path
    archive: Archive | None = None
    member: str = ""
    size: int = 0

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return str(self.file) if self.archive is None else f"{self.archive} ({self.member})"


@dataclass(frozen=True)
class Listing:
    """The files of a source that matter: images, text files and archives.

    unread   why archives could not be looked into
    """

    images: tuple[Entry, ...] = ()
    texts: tuple[Entry, ...] = ()
    archives: tuple[Entry, ...] = ()
    unread: tuple[UcdirError, ...] = ()

    def __add__(self, other: "Listing") -> "Listing":
        return Listing(
            self.images + other.images,
            self.texts + other.texts,
            self.archives + other.archives,
            self.unread + other.unread,
        )


def list_source(source: Path, skip: Path) -> Listing:
    """Look through a folder, or at a single archive; hidden files and a folder `skip` below it are passed over."""
    if source.is_file() and is_archive(source.name):
        return Listing(archives=(Entry((source.name,), source),))
    if not source.is_dir():
        wanted = "Give the folder that holds the archives or the unpacked folders."
        raise UsageError(f"--source '{source}' {'is a file' if source.exists() else 'does not exist'}. {wanted}")
    files = sorted(tuple(relative.split("/")) for relative, kind in walk(source, skip) if kind == "file")
    return _sorted_out([Entry(parts, source.joinpath(*parts)) for parts in files])


def list_archives(archives: Sequence[Entry], scratch: Path) -> Listing:
    """Look into archives; those they hold are unpacked into `scratch`, an existing folder, and looked into as well.

    One that cannot be looked into does not end this: why it cannot is in `unread`.
    """
    found = Listing()
    for archive in archives:
        found += _look_into(archive, scratch, MAX_ARCHIVE_DEPTH)
    return found


def _look_into(entry: Entry, scratch: Path, depth: int) -> Listing:
    try:
        archive = _taken_out(entry, scratch)
        listing = _members(archive, entry.parts)
        if listing.archives and depth == 1:
            raise UcdirError(
                f"'{archive}' is an archive inside {MAX_ARCHIVE_DEPTH - 1} others and contains more. Unpack it by hand."
            )
    except UcdirError as error:
        return Listing(unread=(error,))
    found = Listing(listing.images, listing.texts)
    for inner in listing.archives:
        found += _look_into(inner, scratch, depth - 1)
    return found


def _taken_out(entry: Entry, scratch: Path) -> Archive:
    """An archive of the source as a file; one inside another is extracted to `scratch`."""
    if entry.archive is None:
        return Archive(entry.file)
    target = scratch / str(len(list(scratch.iterdir()))) / entry.parts[-1]
    require_space(scratch, entry.size)
    unpack(entry.archive, {entry.member: target}, lambda count: None)
    return Archive(target, entry.archive, entry.member)


def _members(archive: Archive, parts: tuple[str, ...]) -> Listing:
    above = (*parts[:-1], archive_stem(parts[-1]))
    members = [member for member in list_members(archive) if not any(map(is_hidden, member.parts))]
    return _sorted_out([Entry(above + one.parts, archive.kept, archive, one.name, one.size) for one in members])


def _sorted_out(entries: Sequence[Entry]) -> Listing:
    images = tuple(entry for entry in entries if entry.parts[-1].lower().endswith(_IMAGE_SUFFIXES))
    texts = tuple(entry for entry in entries if entry.parts[-1].lower().endswith(".txt"))
    return Listing(images, texts, tuple(entry for entry in entries if is_archive(entry.parts[-1])))
