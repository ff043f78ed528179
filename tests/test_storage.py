"""Files and folders that appear whole or not at all."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ucdir.errors import UcdirError
from ucdir.storage import _exchange, atomic_file, atomic_folder, clear_write_errors, locked, restore_folder, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Stop(Exception):
    """Something went wrong while writing."""


def break_off(draft: Path) -> None:
    """Write something, then fail."""
    draft.write_text("new")
    raise Stop


# Files


def test_a_file_with_its_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "grüße\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_text(encoding="utf-8") == "grüße\n"
    assert names(tmp_path / "a" / "b") == ["c.txt"]


def test_nothing_is_seen_before_the_end(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with atomic_file(file) as draft:
        draft.write_text("half")
        assert not file.exists()
        assert draft.parent == tmp_path
    assert file.read_text() == "half"


@pytest.mark.parametrize("before", [None, "old"])
def test_an_error_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    file = tmp_path / "file"
    if before is not None:
        file.write_text(before)
    with pytest.raises(Stop), atomic_file(file) as draft:
        break_off(draft)
    assert names(tmp_path) == ([] if before is None else ["file"])
    assert before is None or file.read_text() == before


def test_interruption_leaves_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "file"):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_files_are_readable_as_any_other(tmp_path: Path) -> None:
    """The permissions that the user's mask asks for, not those of a temporary file."""
    plain = tmp_path / "plain"
    plain.write_text("")
    write_text(tmp_path / "atomic", "")
    with atomic_folder(tmp_path / "folder") as draft:
        (draft / "file").write_text("")
    (tmp_path / "mkdir").mkdir()
    assert (tmp_path / "atomic").stat().st_mode == plain.stat().st_mode
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "mkdir").stat().st_mode
    assert (tmp_path / "folder" / "file").stat().st_mode == plain.stat().st_mode


def test_readers_see_the_old_or_the_new(tmp_path: Path) -> None:
    file, seen = tmp_path / "file", set()
    write_text(file, "0" * 10_000)
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(file.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for digit in "123456789":
        write_text(file, digit * 10_000)
    done.set()
    reader.join()
    assert all(len(text) == 10_000 and len(set(text)) == 1 for text in seen)


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_contents_are_on_the_disk_before_the_name_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: object
) -> None:
    """Else a power cut leaves an empty file under the right name. Without one to cause, fsync is watched."""
    place, synced = tmp_path / "place", {}

    def watched(handle: int) -> None:
        assert not place.exists()
        synced[os.fstat(handle).st_ino] = os.fstat(handle).st_size

    monkeypatch.setattr(os, "fsync", watched)
    with writer(place) as draft:
        (draft if writer is atomic_file else draft / "file").write_text("text")
    written = place if writer is atomic_file else place / "file"
    assert synced == {written.stat().st_ino: 4}


# Folders


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with atomic_folder(folder) as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "file").write_text("text")
        assert not folder.exists()
    assert (folder / "sub" / "file").read_text() == "text"
    assert names(tmp_path / "deep") == ["folder"]


def test_a_folder_replaces_the_old_one_wholly(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_text("old")
    with atomic_folder(folder) as draft:
        (draft / "new").write_text("new")
        assert names(folder) == ["old"]
    assert names(folder) == ["new"]
    assert names(tmp_path) == ["folder"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_text("old")
    with pytest.raises(Stop), atomic_folder(folder) as draft:
        break_off(draft / "new")
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_an_error_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(Stop), atomic_folder(tmp_path / "folder") as draft:
        break_off(draft / "new")
    assert names(tmp_path) == []


@pytest.mark.parametrize("one_step", [True, False])
def test_a_folder_is_replaced_with_and_without_the_system_s_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_step: bool
) -> None:
    if not one_step:
        monkeypatch.setattr("ucdir.storage._exchange", lambda one, other: False)
    folder = tmp_path / "folder"
    for turn in ("first", "second"):
        with atomic_folder(folder) as draft:
            (draft / turn).write_text(turn)
        assert names(folder) == [turn]
        assert names(tmp_path) == ["folder"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
def test_the_system_exchanges_folders(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    assert _exchange(tmp_path / "one", tmp_path / "other")
    assert (names(tmp_path / "one"), names(tmp_path / "other")) == (["other"], ["one"])


def test_what_a_killed_writer_left_is_put_right(tmp_path: Path) -> None:
    folder = tmp_path / "fol[d]er"
    for name in (".fol[d]er.abc.tmp", ".fol[d]er.abc.old", ".folder.abc.tmp", ".other.abc.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".fol[d]er.abc.old" / "file").write_text("old")
    restore_folder(folder)
    assert names(tmp_path) == [".folder.abc.tmp", ".other.abc.tmp", "fol[d]er"]
    assert (folder / "file").read_text() == "old"
    (tmp_path / ".fol[d]er.abc.old").mkdir()
    restore_folder(folder)
    assert (folder / "file").read_text() == "old"
    assert names(tmp_path) == [".folder.abc.tmp", ".other.abc.tmp", "fol[d]er"]


# One writer


def test_only_one_process_holds_a_lock(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "place"
    with locked(place, "busy"):
        with pytest.raises(UcdirError, match=r"place' is busy. Wait until it has finished"), locked(place, "busy"):
            pass
        script = f"from pathlib import Path; from ucdir.storage import locked\nwith locked(Path({str(place)!r}), 'busy'): pass"
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "is busy" in other.stderr
    with locked(place, "busy"):
        pass
    assert names(place.parent) == []


CONTENDER = """
import os, sys, time
from pathlib import Path
from ucdir.errors import UcdirError
from ucdir.storage import locked
place, marker, held = Path(sys.argv[1]), Path(sys.argv[2]), 0
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end or not held:
    try:
        with locked(place, "busy"):
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails where another holds the lock, too
            marker.unlink()
            held += 1
    except UcdirError as error:
        assert "is busy" in str(error), error
print(held)
"""


def test_two_writers_never_hold_the_lock_together(tmp_path: Path) -> None:
    """Several processes take it and give it back as fast as they can."""
    arguments = [sys.executable, "-c", CONTENDER, tmp_path / "place", tmp_path / "marker", "2"]
    contenders = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for contender in contenders:
        held, errors = contender.communicate(timeout=600)
        assert contender.returncode == 0, errors
        assert int(held) > 0


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    place = tmp_path / "place"
    script = (
        "import sys, time; from pathlib import Path; from ucdir.storage import locked\n"
        f"with locked(Path({str(place)!r}), 'busy'):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UcdirError, match="is busy"), locked(place, "busy"):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with locked(place, "busy"):
        pass


# Killed


KILLED = """
import os, signal, sys
from pathlib import Path
from ucdir.storage import atomic_file, atomic_folder
place = Path(sys.argv[1])
writer = atomic_file if sys.argv[2] == "file" else atomic_folder
with writer(place) as draft:
    (draft if sys.argv[2] == "file" else draft / "file").write_text("new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_process_leaves_the_old_one(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    inner = place if kind == "file" else place / "file"
    inner.parent.mkdir(exist_ok=True)
    inner.write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, place, kind], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert inner.read_text() == "old"


# Refused by the system


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_a_place_below_a_file(tmp_path: Path, writer: object) -> None:
    (tmp_path / "file").write_text("mine")
    message = r"could not write '.*file/deep/x': .*Choose a folder you can write to"
    with pytest.raises(UcdirError, match=message), writer(tmp_path / "file" / "deep" / "x"):
        pytest.fail("never reached")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_where_a_folder_is(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    with pytest.raises(UcdirError, match="could not write"):
        write_text(tmp_path / "place", "text")
    assert names(tmp_path) == ["place"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said(number: int) -> None:
    message = r"the disk is full: could not write 'x'\. Free some space"
    with pytest.raises(UcdirError, match=message), clear_write_errors(Path("x")):
        raise OSError(number, os.strerror(number))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UcdirError, match="Permission denied"):
        write_text(tmp_path / "file", "text")
    tmp_path.chmod(0o700)


def test_a_disk_that_is_full_keeps_the_old_file(small_disk: Path) -> None:
    write_text(small_disk / "file", "old")
    with pytest.raises(UcdirError, match="the disk is full"):
        write_text(small_disk / "file", "new" * 1_000_000)
    assert names(small_disk) == ["file"]
    assert (small_disk / "file").read_text() == "old"


def test_a_disk_that_is_full_keeps_the_old_folder(small_disk: Path) -> None:
    with atomic_folder(small_disk / "folder") as draft:
        (draft / "file").write_text("old")
    with pytest.raises(UcdirError, match="the disk is full"), atomic_folder(small_disk / "folder") as draft:
        (draft / "file").write_text("new" * 1_000_000)
    assert names(small_disk) == ["folder"]
    assert (small_disk / "folder" / "file").read_text() == "old"


LIMITED = """
import sys
from pathlib import Path
from ucdir.errors import UcdirError
from ucdir.storage import write_text
try:
    write_text(Path(sys.argv[1]), "new" * 1_000_000)
except UcdirError as error:
    print(error)
"""


def test_a_limit_on_file_sizes_keeps_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "file"],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert result.stdout.startswith(f"could not write '{tmp_path / 'file'}'")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]
