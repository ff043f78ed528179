"""Files and folders that appear whole or not at all."""

import ctypes
import errno
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from ucdir.errors import UcdirError

LOCK_SECONDS = 0.1  # that a lock is waited for: a holder may be about to remove it


def user_cache() -> Path:
    """The cache folder of this user, on Linux in XDG_CACHE_HOME or ~/.cache."""
    return platformdirs.user_cache_path("ucdir", appauthor=False)


@contextmanager
def clear_write_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into one sentence that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UcdirError(f"the disk is full: could not write '{path}'. Free some space and run again.") from error
        reason = error.strerror or str(error)
        raise UcdirError(f"could not write '{path}': {reason}. Choose a folder you can write to.") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it is renamed to `path` only if the block ends without an error.

    A reader sees the old file or the new one. A killed process leaves the old one.
    """
    with clear_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            draft.chmod(0o666 & ~_umask())
            _flush(draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def is_draft(file: Path, name: str) -> bool:
    """Whether `file` is what a killed process left of a file or folder that was to be called `name`."""
    return file.name.startswith(f".{name}.") and file.name.endswith(".tmp")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder next to `path`; it is renamed to `path` only if the block ends without an error.

    An existing `path` and the new folder change names in one step where the system can (Linux, macOS): there is no
    moment without a folder of that name. Elsewhere the old one is put aside first; `restore_folder` brings it back
    after a crash in between.
    """
    with clear_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        try:
            yield draft
            for file in draft.rglob("*"):
                if file.is_file():
                    _flush(file)
            draft.chmod(0o777 & ~_umask())
            if not path.exists():
                draft.rename(path)
            elif not _exchange(draft, path):
                aside = draft.with_suffix(".old")
                path.rename(aside)
                draft.rename(path)
                shutil.rmtree(aside, ignore_errors=True)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Tidy up after a writer that was killed: drafts go, a folder that was put aside and not replaced comes back.

    Only for the holder of the lock on `path`: drafts of a living writer would go too.
    """
    for aside in path.parent.glob(f".{glob.escape(path.name)}.*.old"):
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(path)
    for draft in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Be the only process that writes `path`; UcdirError when another one is. A killed process holds no lock.

    doing    for the message: what the other process is doing, for example "being written by another ucdir index"
    """
    file = path.parent / f".{path.name}.lock"
    lock = FileLock(file, timeout=LOCK_SECONDS)
    with clear_write_errors(file):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(poll_interval=LOCK_SECONDS / 10)
        except Timeout as error:
            raise UcdirError(f"'{path}' is {doing}. Wait until it has finished, then run again.") from error
    try:
        yield
    finally:
        if os.name != "nt":  # Windows deletes no open file; there it stays
            file.unlink(missing_ok=True)  # while it is held: a process that waits for it notices and makes a new one
        lock.release()


def _exchange(one: Path, other: Path) -> bool:
    """Let two existing paths change names in one step; False where the system or the file system cannot."""
    swap = {"linux": ("renameat2", -100), "darwin": ("renameatx_np", -2)}.get(sys.platform)
    if swap is None:
        return False
    name, here = swap
    rename = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if rename is None:
        return False
    flag = 2  # RENAME_EXCHANGE on Linux, RENAME_SWAP on macOS
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(flag)) == 0)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _flush(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
