"""What is in a folder and below it: links are followed, and each folder is read once."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ucdir.errors import UcdirError

HIDDEN_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"})
Kind = Literal["file", "not a file", "hidden", "read before", "skipped"]


def walk(root: Path, skip: Path | None = None) -> Iterator[tuple[str, Kind]]:
    """Relative posix paths below `root`, each with its kind; a folder ends in a slash.

    skip      a folder that is not entered, wherever it is
    returns   files; what is neither a file nor a folder, such as a broken link; hidden files and folders, which are not
              entered; folders that were read before, through a link
    raises    UcdirError for a folder that cannot be read
    """
    seen: set[tuple[int, int]] = set()
    folders, links = [""], list[str]()  # what a link leads to may also be below `root`: that path comes first
    while folders or links:
        prefix = folders.pop() if folders else links.pop(0)
        folder = root / prefix
        entries = _entries(folder)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            yield prefix, "read before"
            continue
        seen.add((status.st_dev, status.st_ino))
        if prefix and skip is not None and skip.exists() and folder.samefile(skip):
            yield prefix, "skipped"
            continue
        for entry in entries:
            relative = prefix + entry.name
            if is_hidden(entry.name):
                yield relative, "hidden"
            elif _is_folder(entry):
                (links if entry.is_symlink() else folders).append(relative + "/")
            else:
                yield relative, "file" if _is_file(entry) else "not a file"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that file managers hide or leave behind."""
    return name.startswith(".") or name.lower() in HIDDEN_NAMES


def subfolders(folder: Path) -> list[str]:
    """Names of the folders directly in a folder, sorted, without hidden ones."""
    return [entry.name for entry in _entries(folder) if _is_folder(entry) and not is_hidden(entry.name)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UcdirError(f"cannot read folder '{folder}': {reason}. Make it readable or move it away.") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
