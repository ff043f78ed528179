"""The pixel cache: a hit is what would have been computed; everything else is a miss."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ucdir.errors import ImageError
from ucdir.images.evaluation_view import evaluation_view
from ucdir.images.opening import open_rgb
from ucdir.images.pixel_cache import HEADER, PixelCache, default_folder, open_cache
from ucdir.images.reading import read_image, read_views

Draw = Callable[..., Image.Image]
Save = Callable[..., Path]


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class Counting:
    """A `make` that counts how often it was needed."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, image: Image.Image) -> np.ndarray:
        self.times += 1
        return np.array(image)


@pytest.fixture
def picture(photo: Draw, save: Save, tmp_path: Path) -> Path:
    return save(photo(0, 50), tmp_path / "images" / "a.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def age(path: Path, days: float) -> None:
    used = time.time() - 86400 * days
    os.utime(path, (used, used))


# Hits


def test_pixels_come_back_as_they_were(picture: Path, folder: Path) -> None:
    make = Counting()
    for cache in (PixelCache(folder, 10**9), PixelCache(folder, 10**9)):
        for _ in range(2):
            pixels = cache.pixels(picture, "whole", make)
            assert np.array_equal(pixels, np.asarray(open_rgb(picture)))
            assert (pixels.dtype, pixels.flags.writeable) == (np.uint8, True)
    assert make.times == 1


def test_what_is_made_is_told_apart(picture: Path, folder: Path) -> None:
    cache = PixelCache(folder, 10**9)
    assert cache.pixels(picture, "whole", np.array).shape == (50, 50, 3)
    assert cache.pixels(picture, "half", lambda image: np.array(image)[:25]).shape == (25, 50, 3)
    assert cache.pixels(picture, "whole", np.array).shape == (50, 50, 3)


def test_content_decides_not_the_name(picture: Path, folder: Path, tmp_path: Path) -> None:
    make = Counting()
    PixelCache(folder, 10**9).pixels(picture, "whole", make)
    PixelCache(folder, 10**9).pixels(Path(shutil.copy(picture, tmp_path / "b.dat")), "whole", make)
    assert make.times == 1


def test_another_content_under_the_same_name_and_time(picture: Path, folder: Path, photo: Draw) -> None:
    """Times of files are not believed from run to run."""
    PixelCache(folder, 10**9).pixels(picture, "whole", np.array)
    before = picture.stat()
    photo(1, 50).save(picture)
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = PixelCache(folder, 10**9).pixels(picture, "whole", np.array)
    assert np.array_equal(found, np.asarray(open_rgb(picture)))


def test_a_file_that_changes_during_a_run(picture: Path, folder: Path, photo: Draw) -> None:
    cache = PixelCache(folder, 10**9)
    cache.pixels(picture, "whole", np.array)
    photo(1, 40).save(picture)
    assert cache.pixels(picture, "whole", np.array).shape == (40, 40, 3)


@pytest.mark.parametrize("shape", [(50, 90), (70, 71), (200, 71), (200, 1), (300, 400)])
def test_images_are_scaled_down_with_and_without_a_cache(
    shape: tuple[int, int], photo: Draw, save: Save, folder: Path, tmp_path: Path
) -> None:
    path = save(photo(0, 80).resize(shape), tmp_path / "a.png")
    plain = read_image(path, 71)
    for cache in (PixelCache(folder, 10**9), PixelCache(folder, 10**9)):
        assert np.array_equal(read_image(path, 71, cache), plain)
    assert min(plain.shape[:2]) == min(71, *shape)
    if min(shape) <= 71:
        assert np.array_equal(plain, np.asarray(open_rgb(path)))
    else:
        assert plain.shape[1] / plain.shape[0] == pytest.approx(shape[0] / shape[1], rel=0.02)


def test_evaluation_views_are_those_of_index(photo: Draw, save: Save, folder: Path, tmp_path: Path) -> None:
    paths = [save(photo(seed, 40 + 30 * seed), tmp_path / f"{seed}.jpg") for seed in range(6)]
    paths.insert(3, tmp_path / "none.jpg")
    expected = np.stack([evaluation_view(open_rgb(path), 32) for path in paths if path.exists()])
    for cache in (None, PixelCache(folder, 10**9), PixelCache(folder, 10**9)):
        (views,) = read_views(paths, 32, cache=cache)
        assert np.array_equal(views.pixels, expected)
        assert [error.path for error in views.unreadable] == [str(paths[3])]


# Errors of images


@pytest.mark.parametrize("kind", ["missing", "empty", "folder", "text", "truncated", "link"])
def test_an_unreadable_image_is_the_same_error(kind: str, picture: Path, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind != "missing":
        content = {"empty": b"", "text": b"hello", "truncated": picture.read_bytes()[:700]}[kind]
        path.write_bytes(content)
    with pytest.raises(ImageError) as expected:
        open_rgb(path)
    cache = PixelCache(folder, 10**9)
    for _ in range(2):
        with pytest.raises(ImageError) as found:
            cache.pixels(path, "whole", np.array)
        assert type(found.value) is type(expected.value)
        assert (found.value.path, found.value.reason) == (expected.value.path, expected.value.reason)
    assert not entries(folder)


def test_an_image_that_vanishes_is_no_hit(picture: Path, folder: Path) -> None:
    cache = PixelCache(folder, 10**9)
    cache.pixels(picture, "whole", np.array)
    picture.unlink()
    with pytest.raises(ImageError, match="file not found"):
        cache.pixels(picture, "whole", np.array)


# Entries that are none


def damaged(content: bytes, kind: str) -> bytes:
    if kind == "zeros":  # what a crash of the machine may leave
        return content[: HEADER.size] + bytes(len(content) - HEADER.size)
    if kind == "another shape":
        return HEADER.pack(b"ucdirpx1", 50, 51, 3, 0) + content[HEADER.size :]
    return {
        "empty": b"",
        "half a header": content[:9],
        "half": content[: len(content) // 2],
        "one byte less": content[:-1],
        "one byte more": content + b"x",
        "foreign": b"x" * len(content),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["empty", "half a header", "half", "one byte less", "one byte more", "foreign", "zeros", "another shape"]
)
@pytest.mark.parametrize("known", [False, True])
def test_a_damaged_entry_is_replaced(kind: str, known: bool, picture: Path, folder: Path) -> None:
    cache = PixelCache(folder, 10**9)
    whole = cache.pixels(picture, "whole", np.array)
    (entry,) = entries(folder)
    content = entry.read_bytes()
    entry.write_bytes(damaged(content, kind))
    cache = cache if known else PixelCache(folder, 10**9)
    assert np.array_equal(cache.pixels(picture, "whole", np.array), whole)
    assert entry.read_bytes() == content


def test_an_entry_that_another_run_removed_is_made_again(picture: Path, folder: Path) -> None:
    cache = PixelCache(folder, 10**9)
    whole = cache.pixels(picture, "whole", np.array)
    for entry in entries(folder):
        entry.unlink()
    assert np.array_equal(cache.pixels(picture, "whole", np.array), whole)
    assert len(entries(folder)) == 1


@pytest.mark.parametrize(("place", "draft"), [("7f", ".{}.tmp"), ("features", ".01234567{}.safetensors.q_7x1z0a.tmp")])
def test_drafts_of_killed_runs_go_and_strangers_stay(place: str, draft: str, folder: Path) -> None:
    (folder / place).mkdir()
    names = (draft.format("a" * 32), draft.format("b" * 32), "thesis.txt")
    old, new, stranger = (folder / place / name for name in names)
    for file in (old, new, stranger):
        file.write_bytes(b"x" * 100)
    for file in (old, stranger):
        age(file, 400)
    PixelCache(folder, 0).make_room(0)
    assert not old.exists()
    assert new.exists()
    assert stranger.exists()


# Size


@pytest.fixture
def pictures(photo: Draw, save: Save, tmp_path: Path) -> list[Path]:
    """Six of them; an entry of each takes `EACH` bytes."""
    return [save(photo(seed, 20), tmp_path / "images" / f"{seed}.png") for seed in range(6)]


EACH = HEADER.size + 1200


def fill(cache: PixelCache, pictures: list[Path]) -> None:
    for picture in pictures:
        assert np.array_equal(cache.pixels(picture, "whole", np.array), np.asarray(open_rgb(picture)))


def test_nothing_is_added_beyond_the_limit(pictures: list[Path], folder: Path) -> None:
    cache = PixelCache(folder, 3 * EACH)
    fill(cache, pictures + pictures)
    assert len(entries(folder)) == 3
    assert cache.held == 3 * EACH


def test_entries_used_longest_ago_go_first(pictures: list[Path], folder: Path) -> None:
    names = []
    for days, picture in zip((5, 9, 7, 8), pictures, strict=False):
        fill(PixelCache(folder, 10**9), [picture])
        (new,) = set(entries(folder)) - set(names)
        age(new, days)
        names.append(new)
    assert PixelCache(folder, 2 * EACH).make_room(0)
    assert entries(folder) == sorted([names[0], names[2]])


def test_what_this_run_uses_stays_and_what_it_needs_replaces_the_rest(pictures: list[Path], folder: Path) -> None:
    fill(PixelCache(folder, 10**9), pictures[:3])
    for entry in entries(folder):
        age(entry, 3)
    cache = PixelCache(folder, 3 * EACH)
    make = Counting()
    cache.pixels(pictures[0], "whole", make)
    fill(cache, pictures[3:])
    cache.pixels(pictures[0], "whole", make)
    assert make.times == 0
    assert len(entries(folder)) == 3
    assert cache.held == 3 * EACH
    for picture in pictures[:1] + pictures[3:5]:
        PixelCache(folder, 10**9).pixels(picture, "whole", make)
    assert make.times == 0


def test_an_entry_larger_than_all_the_cache(picture: Path, folder: Path) -> None:
    fill(PixelCache(folder, 100), [picture])
    assert not entries(folder)


def test_threads_share_a_cache(pictures: list[Path], folder: Path) -> None:
    cache = PixelCache(folder, 4 * EACH)
    expected = [np.asarray(open_rgb(picture)) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda turn: cache.pixels(pictures[turn % 6], "whole", np.array), range(240)))
    assert all(np.array_equal(pixels, expected[turn % 6]) for turn, pixels in enumerate(found))
    assert len(entries(folder)) <= 4
    assert not list(folder.rglob("*.tmp"))


def test_runs_share_a_folder(pictures: list[Path], folder: Path) -> None:
    """Several processes fill one folder while another deletes from it."""
    program = (
        "import sys; from pathlib import Path; import numpy as np; from ucdir.images.pixel_cache import PixelCache\n"
        "for turn in range(20):\n"
        "    cache = PixelCache(Path(sys.argv[1]), int(sys.argv[2]))\n"
        "    for path in map(Path, sys.argv[3:]):\n"
        "        assert cache.pixels(path, 'whole', np.array).shape == (20, 20, 3)\n"
    )
    commands = [[sys.executable, "-c", program, folder, str(limit * EACH), *pictures] for limit in (2, 4, 100)]
    running = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in running] == [0, 0, 0]
    fill(PixelCache(folder, 10**9), pictures)


def test_features_count_against_the_limit_and_go_when_used_longest_ago(pictures: list[Path], folder: Path) -> None:
    (folder / "features").mkdir()
    old, new = (folder / "features" / f"{letter * 40}.safetensors" for letter in "ab")
    for file, days in ((old, 9), (new, 5)):
        file.write_bytes(bytes(2 * EACH))
        age(file, days)
    cache = PixelCache(folder, 5 * EACH)
    assert cache.held == 4 * EACH
    fill(cache, pictures[:3])
    assert not old.exists()
    assert new.exists()
    assert cache.held == 5 * EACH


def test_what_is_worth_more_displaces_pixels_of_this_run(pictures: list[Path], folder: Path) -> None:
    """And the account is right: afterwards as much fits as was left."""
    cache = PixelCache(folder, 4 * EACH)
    fill(cache, pictures[:4])
    assert not cache.make_room(EACH)
    assert cache.displace(2 * EACH)
    assert len(entries(folder)) == 2
    assert cache.held == 4 * EACH
    assert cache.make_room(-2 * EACH)
    fill(cache, pictures)
    assert len(entries(folder)) == 4
    assert cache.held == 4 * EACH


# Errors of the disk


def test_a_folder_that_cannot_be_read_is_said(folder: Path) -> None:
    """Files stand where the folders of entries would be."""
    for number in range(256):
        (folder / f"{number:02x}").write_text("")
    said: list[str] = []
    assert open_cache(str(folder), 2.0, said.append) is None
    assert said == [f"no pixel cache: cannot use '{folder}' (Not a directory); decoding images again each time."]


def test_a_write_error_switches_adding_off_and_is_said_once(pictures: list[Path], folder: Path) -> None:
    said: list[str] = []
    cache = PixelCache(folder, 10**9, said.append)
    fill(cache, pictures[:2])
    shutil.rmtree(folder)
    folder.write_text("no folder any more")
    fill(cache, pictures)
    assert said == [f"pixel cache: '{folder}' could not be written (Not a directory); nothing more is added in this run."]


def test_a_full_disk_ends_nothing(small_disk: Path, photo: Draw, save: Save, tmp_path: Path) -> None:
    said: list[str] = []
    cache = PixelCache(small_disk, 10**9, said.append)
    pictures = [save(photo(seed, 60), tmp_path / f"{seed}.png") for seed in range(12)]
    fill(cache, pictures + pictures)
    assert len(said) == 1
    assert "could not be written (No space left on device)" in said[0]
    assert not list(small_disk.rglob("*.tmp"))


def test_a_disk_too_small_for_a_cache_is_said(small_disk: Path) -> None:
    said: list[str] = []
    assert open_cache(str(small_disk), 20.0, said.append) is None
    assert said == [
        f"no pixel cache in '{small_disk}': a quarter of the free space is 0.0 GB, need at least 1 GB; "
        "decoding images again each time."
    ]


# What a run asks for


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "ucdir" / "pixels"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for nothing in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", nothing)
        assert default_folder() == tmp_path / "home" / ".cache" / "ucdir" / "pixels"


def test_no_cache_is_no_cache(user_cache: Path) -> None:
    said: list[str] = []
    assert open_cache("none", 20.0, said.append) is None
    assert not said


def test_a_limit_below_a_gigabyte_is_none(folder: Path) -> None:
    said: list[str] = []
    assert open_cache(str(folder), 0.5, said.append) is None
    assert said == [
        f"no pixel cache in '{folder}': data.cache_gb is below 1, need at least 1 GB; decoding images again each time."
    ]


def test_a_cache_never_takes_more_than_a_quarter_of_the_free_space(folder: Path, picture: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < 5 * 10**9:
        pytest.skip("under 5 GB are free here")
    said: list[str] = []
    small, large = (open_cache(str(folder), gigabytes, said.append) for gigabytes in (1.0, 10.0**6))
    assert small is not None
    assert large is not None
    assert small.limit == 10**9
    assert large.limit == pytest.approx(free / 4, rel=0.05)
    assert said[0] == f"pixel cache: '{folder}', at most 1.0 GB"
    assert said[1].endswith("GB (a quarter of the free space)")


def test_a_folder_that_cannot_be_made_is_said(picture: Path) -> None:
    said: list[str] = []
    assert open_cache(str(picture / "cache"), 20.0, said.append) is None
    assert said == [f"no pixel cache: cannot use '{picture / 'cache'}' (Not a directory); decoding images again each time."]


def test_the_content_of_a_file_is_read_once(
    folder: Path, photo: Draw, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again when the file is another; equal files have equal digests."""
    one, two = save(photo(0, 60), tmp_path / "one.png"), save(photo(0, 60), tmp_path / "two.png")
    cache = PixelCache(folder, 10**9)
    first = cache.content(one)
    assert cache.content(two) == first
    save(photo(1, 70), two)
    assert cache.content(two) != first
    monkeypatch.setattr("ucdir.images.pixel_cache.read_file", lambda path: pytest.fail(f"{path} was read"))
    assert cache.content(one) == first
