"""Archives (.zip, .tar, .tar.gz): what is in them, and unpacking chosen files so that nothing lands elsewhere."""

import codecs
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ucdir.errors import UcdirError
from ucdir.storage import clear_write_errors

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_MEMBERS = 2_000_000
COPY_BYTES = 1 << 20
TAR_BLOCK_BYTES = 512  # of a tar


@dataclass(frozen=True)
class Archive:
    """An archive to look into; as text the place where people find it, for example outer.zip/inner.zip.

    file     its bytes
    outer    the archive it was taken out of, None for one that the user put there
    name     its name in `outer`
    """

    file: Path
    outer: "Archive | None" = None
    name: str = ""

    def __str__(self) -> str:
        return str(self.file) if self.outer is None else f"{self.outer}/{self.name}"

    @property
    def kept(self) -> Path:
        """The file that the user has: its own, or that of the outermost archive."""
        return self.file if self.outer is None else self.outer.kept


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name as spelled in the archive, that name split into checked parts, and its size in bytes."""

    name: str
    parts: tuple[str, ...]
    size: int


def is_archive(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def archive_stem(name: str) -> str:
    """The name of an archive without its suffix."""
    suffix = next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(suffix))
    return name[: -len(suffix)]


def is_web_page(file: Path) -> bool:
    """Does a file begin like HTML? A login or a notice is often saved in place of an archive."""
    try:
        with file.open("rb") as opened:
            begins = opened.read(64).removeprefix(codecs.BOM_UTF8).lstrip().lower()
    except OSError:
        return False
    return begins.startswith((b"<!doctype", b"<html"))


def list_members(archive: Archive) -> list[Member]:
    """The regular files of an archive; links, devices and folders are passed over.

    raises    UcdirError for an archive that is damaged, encrypted, too long, or holds a name that leads out of it
    """
    with _opened(archive) as opened, _clear_read_errors(archive):
        found = _zip_members(opened, archive) if isinstance(opened, zipfile.ZipFile) else _tar_members(opened, archive)
        return list({member.parts: member for member in found}.values())


def unpack(archive: Archive, targets: Mapping[str, Path], advance: Callable[[int], None]) -> None:
    """Write some members of an archive to files of a folder that nobody else writes.

    targets   name of a member, as `list_members` gives it -> file to write
    advance   told the number of files just written
    raises    UcdirError when the archive is damaged or the disk is full; files written before that stay
    """
    with _opened(archive) as opened:
        for name, reading in _streams(opened, targets, archive):
            with reading, clear_write_errors(targets[name]):
                targets[name].parent.mkdir(parents=True, exist_ok=True)
                with targets[name].open("wb") as writing:
                    while chunk := _read(reading, archive):
                        writing.write(chunk)
            advance(1)


def require_space(folder: Path, size: int, doing: str = "unpacking") -> None:
    """End before anything is written when `size` bytes do not fit the disk of `folder`."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise UcdirError(
            f"{doing} needs {size / 1e9:,.1f} GB, but the disk of '{folder}' has {free / 1e9:,.1f} GB left. "
            f"Free some space or choose a folder on another disk."
        )


Opened = zipfile.ZipFile | tarfile.TarFile


@contextmanager
def _opened(archive: Archive) -> Iterator[Opened]:
    is_zip = archive.file.name.lower().endswith(".zip")
    with _clear_read_errors(archive):
        opened: Opened = zipfile.ZipFile(archive.file) if is_zip else tarfile.open(archive.file, "r:*")  # noqa: SIM115 (closed below)
    with opened:
        yield opened


@contextmanager
def _clear_read_errors(archive: Archive) -> Iterator[None]:
    """Turn the exceptions raised by damaged archives into a one-sentence error."""
    try:
        yield
    except NotImplementedError as error:
        raise UcdirError(
            f"archive '{archive}' is compressed in a way that cannot be read here: {error}. Unpack it by hand."
        ) from error
    except PermissionError as error:
        raise UcdirError(f"archive '{archive}' cannot be read: {error.strerror}. Make it readable.") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        found = "it is a web page, saved in its place" if is_web_page(archive.file) else reason
        raise UcdirError(
            f"archive '{archive}' cannot be read: {found}. "
            f"Delete '{archive.kept}', then run again with --download or download it by hand."
        ) from error


def _zip_members(opened: zipfile.ZipFile, archive: Archive) -> Iterator[Member]:
    for number, info in enumerate(opened.infolist()):
        _refuse_more(number, archive)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir() or kind not in (0, stat.S_IFREG):
            continue
        if info.flag_bits & 1:
            raise UcdirError(f"archive '{archive}' is encrypted. Unpack it by hand and give the folder.")
        yield Member(info.filename, _checked_parts(info.filename, archive), info.file_size)


def _tar_members(opened: tarfile.TarFile, archive: Archive) -> Iterator[Member]:
    for number, info in enumerate(opened):
        _refuse_more(number, archive)
        if info.isreg():
            yield Member(info.name, _checked_parts(info.name, archive), info.size)
    assert opened.fileobj is not None
    opened.fileobj.seek(opened.offset)
    if len(opened.fileobj.read(TAR_BLOCK_BYTES)) < TAR_BLOCK_BYTES:
        raise EOFError("it is cut off")
    while opened.fileobj.read(COPY_BYTES):  # to its end, where a .gz keeps its checksum
        pass


def _refuse_more(number: int, archive: Archive) -> None:
    if number >= MAX_MEMBERS:
        raise UcdirError(f"archive '{archive}' contains more than {MAX_MEMBERS:,} entries. Unpack it and give the folder.")


def _checked_parts(name: str, archive: Archive) -> tuple[str, ...]:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0].endswith(":") or "\0" in name:
        raise UcdirError(f"archive '{archive}' holds {name!r}, a name that leads out of it. Fetch it again.")
    return path.parts


def _streams(opened: Opened, names: Collection[str], archive: Archive) -> Iterator[tuple[str, IO[bytes]]]:
    """Members by name, open for reading, in the order of the archive, so that a compressed tar is read once."""
    streams = _zip_streams(opened, names) if isinstance(opened, zipfile.ZipFile) else _tar_streams(opened, names)
    while True:
        with _clear_read_errors(archive):
            stream = next(streams, None)
        if stream is None:
            return
        yield stream


def _zip_streams(opened: zipfile.ZipFile, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
    yield from ((info.filename, opened.open(info)) for info in opened.infolist() if info.filename in names)


def _tar_streams(opened: tarfile.TarFile, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
    for info in opened:
        if info.name in names and (reading := opened.extractfile(info) if info.isreg() else None):
            yield info.name, reading


def _read(reading: IO[bytes], archive: Archive) -> bytes:
    with _clear_read_errors(archive):
        return reading.read(COPY_BYTES)
