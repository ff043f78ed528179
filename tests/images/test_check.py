"""The data check on folders with known faults."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from rich.console import Console

from ucdir.commands.check import check, show_findings
from ucdir.errors import UcdirError
from ucdir.images.check import CheckReport, DuplicateGroup, Sizes, check_domains, perceptual_hash
from ucdir.images.domains import load_domain, load_domains
from ucdir.report.terminal.check import check_document, check_view


def names(groups: tuple[DuplicateGroup, ...]) -> list[list[str]]:
    return [[member.path.name for member in group.members] for group in groups]


def reported(*folders: Path) -> CheckReport:
    return check_domains(load_domains([str(folder) for folder in folders]))


def printed(report: CheckReport, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(check_view(report))
        return console.export_text()


# Files


def test_a_clean_domain(tmp_path, photo, save):
    for seed in range(3):
        save(photo(seed, side=40 + 20 * seed), tmp_path / "d" / "ab"[seed % 2] / f"{seed}.png")
    (domain,) = reported(tmp_path / "d").domains
    assert (domain.num_images, domain.num_readable) == (3, 3)
    assert domain.class_counts == {"a": 2, "b": 1}
    assert domain.without_class == 0
    assert domain.sizes == Sizes((40, 40), (60, 60), (80, 80))
    assert domain.grey_share == 0
    assert (domain.unreadable, domain.wrong_suffix, domain.odd_sizes, domain.blank) == ((), (), (), ())


def test_unreadable_files_have_a_reason(tmp_path, photo, save):
    good = save(photo(1), tmp_path / "d" / "good.jpg")
    (tmp_path / "d" / "cut.jpg").write_bytes(good.read_bytes()[:1500])
    (tmp_path / "d" / "empty.png").touch()
    (tmp_path / "d" / "text.gif").write_text("hello")
    (tmp_path / "d" / "gone.png").symlink_to("nowhere")
    (domain,) = reported(tmp_path / "d").domains
    found = {Path(error.path).name: error.reason for error in domain.unreadable}
    assert found == {
        "cut.jpg": "truncated",
        "empty.png": "empty file",
        "text.gif": "not an image",
        "gone.png": "broken link",
    }
    assert domain.num_readable == 1


def test_wrong_suffixes_name_what_is_inside(tmp_path, photo, save):
    save(photo(1), tmp_path / "d" / "a.jpg", format="PNG")
    save(photo(2), tmp_path / "d" / "b.JPEG", format="JPEG")
    save(photo(3), tmp_path / "d" / "c.tiff")
    save(photo(4), tmp_path / "d" / "d.jpg", format="MPO", save_all=True, append_images=[photo(5)])
    (domain,) = reported(tmp_path / "d").domains
    assert [(file.path.name, file.found) for file in domain.wrong_suffix] == [("a.jpg", "PNG")]


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        ((31, 31), "tiny"),
        ((32, 32), None),
        ((31, 400), "tiny"),
        ((32, 128), None),
        ((32, 129), "long"),
        ((400, 40), "long"),
        ((7100, 7100), "huge"),
    ],
)
def test_odd_sizes(size, problem, tmp_path, save):
    save(Image.new("L", size), tmp_path / "d" / "a.png", compress_level=1)
    (domain,) = reported(tmp_path / "d").domains
    assert [file.problem for file in domain.odd_sizes] == ([problem] if problem else [])
    assert domain.sizes == Sizes(size, size, size)


def test_grey_share_and_blank_images(tmp_path, photo, line_drawing, save):
    save(photo(1), tmp_path / "d" / "colour.png")
    save(photo(1).convert("L").convert("RGB"), tmp_path / "d" / "grey.jpg")
    save(line_drawing(1), tmp_path / "d" / "lines.png")
    save(Image.new("RGB", (64, 64), "white"), tmp_path / "d" / "white.png")
    save(Image.new("RGB", (65, 64), "white"), tmp_path / "d" / "wider.png")
    report = reported(tmp_path / "d")
    assert report.domains[0].grey_share == 0.8
    assert [path.name for path in report.domains[0].blank] == ["white.png", "wider.png"]
    assert names(report.near_duplicates) == [["colour.png", "grey.jpg"]]


# Duplicates


def test_the_same_bytes_inside_and_across(tmp_path, photo, save):
    first = save(photo(1), tmp_path / "x" / "a.png")
    save(photo(2), tmp_path / "x" / "b.png")
    shutil.copy(first, tmp_path / "x" / "c.png")
    save(photo(3), tmp_path / "y" / "d.png")
    shutil.copy(tmp_path / "x" / "b.png", tmp_path / "y" / "e.png")
    report = reported(tmp_path / "x", tmp_path / "y")
    assert names(report.exact_duplicates) == [["a.png", "c.png"], ["b.png", "e.png"]]
    assert [group.across for group in report.exact_duplicates] == [False, True]
    assert report.near_duplicates == ()


EDITS = {
    "low quality": lambda image, path: image.save(path, "JPEG", quality=40),
    "half size": lambda image, path: image.resize([side // 2 for side in image.size]).save(path, "PNG"),
    "larger": lambda image, path: image.resize([side * 17 // 10 for side in image.size]).save(path, "JPEG"),
    "brighter": lambda image, path: ImageEnhance.Brightness(image).enhance(1.1).save(path, "JPEG", quality=85),
    "darker": lambda image, path: ImageEnhance.Brightness(image).enhance(0.8).save(path, "PNG"),
    "grey": lambda image, path: image.convert("L").save(path, "WEBP"),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("kind", ["photo", "line_drawing"])
def test_edited_copies_are_found_and_different_images_are_not(edit, kind, tmp_path, request, save):
    draw = request.getfixturevalue(kind)
    for seed in range(30):
        save(draw(seed), tmp_path / "x" / f"{seed}.png")
    (tmp_path / "y").mkdir()
    for seed in range(10):
        EDITS[edit](draw(seed), tmp_path / "y" / f"{seed}.copy.jpg")
    report = reported(tmp_path / "x", tmp_path / "y")
    assert sorted(names(report.near_duplicates)) == sorted([f"{n}.png", f"{n}.copy.jpg"] for n in range(10))
    assert all(group.across for group in report.near_duplicates)


def test_three_versions_are_one_group_and_exact_copies_count_once(tmp_path, photo, save):
    save(photo(1), tmp_path / "x" / "a.png")
    save(photo(1), tmp_path / "x" / "b.jpg", quality=90)
    save(photo(1, side=160).resize((90, 90)), tmp_path / "x" / "c.png")
    shutil.copy(tmp_path / "x" / "a.png", tmp_path / "x" / "d.png")
    report = reported(tmp_path / "x")
    assert names(report.near_duplicates) == [["a.png", "b.jpg", "c.png"]]
    assert names(report.exact_duplicates) == [["a.png", "d.png"]]


def test_hundreds_of_line_drawings_do_not_flood_the_report(tmp_path, line_drawing, save):
    for seed in range(400):
        save(line_drawing(seed, side=96), tmp_path / "x" / f"{seed}.png")
    assert reported(tmp_path / "x").near_duplicates == ()


def test_more_copies_than_a_band_group_compares_all_with_all(tmp_path, photo, save):
    picture = photo(1, side=64)
    for number in range(450):
        changed = picture.copy()
        changed.putpixel((number % 64, number // 64), (0, 0, 0))
        save(changed, tmp_path / "x" / f"{number}.png", compress_level=1)
    (group,) = reported(tmp_path / "x").near_duplicates
    assert len(group.members) == 450


def test_the_hash_ignores_brightness_and_contrast():
    rng = np.random.default_rng(0)
    images = rng.integers(60, 120, (20, 32 * 32), dtype=np.uint8)
    hashes = perceptual_hash(images)
    changed = perceptual_hash(images * 2 + 10)
    assert np.bitwise_count(hashes ^ changed).max() <= 1
    assert len(set(hashes.tolist())) == 20
    assert hashes.dtype == np.uint64
    assert perceptual_hash(images[:0]).shape == (0,)


# Classes


def test_classes_shared_partial_and_nearly_the_same(tmp_path, photo, save):
    classes = {
        "x": ["dog", "Real World", "cat", "sofa"],
        "y": ["dog", "real_world", "Cats", "emu"],
        "z": ["dog", "cat"],
    }
    seed = 0
    for domain, folders in classes.items():
        for name in folders:
            seed += 1
            save(photo(seed, side=32), tmp_path / domain / name / "1.png")
    save(photo(0, side=32), tmp_path / "flat" / "1.png")
    found = reported(*(tmp_path / name for name in (*classes, "flat"))).classes
    assert found.shared == ("dog",)
    assert found.partial["cat"] == ("x", "z")
    assert found.partial["emu"] == ("y",)
    assert sorted(found.near_names) == [("Cats", "cat"), ("Real World", "real_world")]


def test_unlabelled_domains_have_no_classes_to_compare(tmp_path, photo, save):
    save(photo(1), tmp_path / "x" / "1.png")
    report = reported(tmp_path / "x")
    assert report.classes.shared == ()
    assert report.domains[0].class_counts is None
    assert "no classes" in printed(report)


def test_images_without_a_class_are_counted(tmp_path, photo, save):
    save(photo(1), tmp_path / "1.png")
    save(photo(2), tmp_path / "2.png")
    (tmp_path / "m.csv").write_text("path,class\n1.png,dog\n2.png,\n")
    (domain,) = check_domains([load_domain(tmp_path / "m.csv")]).domains
    assert (domain.class_counts, domain.without_class) == ({"dog": 1}, 1)


# The command


@pytest.fixture
def messy(tmp_path, photo, save) -> Path:
    """Two domains: x with eight empty files and a shared picture, y whose class names differ in case."""
    for seed in range(6):
        save(photo(seed, side=48), tmp_path / "x" / ("dog" if seed % 2 else "cat") / f"{seed}.png")
        save(photo(seed + 10, side=48), tmp_path / "y" / ("Dog" if seed % 2 else "cat") / f"{seed}.png")
    for number in range(8):
        (tmp_path / "x" / "cat" / f"empty [bold]{number}.jpg").touch()
    (tmp_path / "x" / "cat" / "turn\x1b[31mred.jpg").touch()
    (tmp_path / "x" / "notes.txt").touch()
    (tmp_path / "x" / ".hidden").touch()
    shutil.copy(tmp_path / "x" / "dog" / "1.png", tmp_path / "y" / "Dog" / "stolen.png")
    return tmp_path


def test_the_view_is_short_and_honest(messy):
    text = printed(check([str(messy / "x"), f"why={messy / 'y'}"]), width=300)
    assert "15 images, 6 readable, all 48 × 48 px" in text
    assert "ignored 1 hidden, 1 not images: .hidden, notes.txt" in text
    assert "9 unreadable" in text
    assert "cat/empty [bold]0.jpg: empty file" in text
    assert "and 4 more; --json FILE lists all" in text
    assert "'Dog' and 'dog' do not match" in text
    assert "1 × the same file across domains" in text
    assert "x: dog/1.png = why: Dog/stolen.png" in text
    assert "60.0% of the images in 'x' are unreadable; training stops above 1%" in text
    assert "13 of 22 images can be used, 11 findings." in text
    assert "\x1b" not in text
    assert f"Next: ucdir train {messy}/x why={messy}/y --out run" in text
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_the_view_of_one_clean_domain_asks_for_another(tmp_path, photo, save):
    save(photo(1), tmp_path / "x" / "1.png")
    text = printed(reported(tmp_path / "x"), width=300)
    assert "1 image, 1 readable" in text
    assert "1 of 1 images can be used, 0 findings." in text
    assert f"Next: ucdir check {tmp_path / 'x'} OTHER_DIR" in text


def test_the_document_is_json_with_stable_names(messy):
    document = json.loads(json.dumps(check_document(check([str(messy / "x"), str(messy / "y")])), allow_nan=False))
    assert list(document) == ["domains", "classes", "exact_duplicates", "near_duplicates"]
    first, second = document["domains"]
    fields = "name source images readable classes without_class ignored unreadable wrong_suffix odd_sizes blank"
    assert list(first) == [*fields.split(), "sizes", "grey_share"]
    assert len(first["unreadable"]) == 9
    assert all(Path(entry["path"]).exists() for entry in first["unreadable"])
    assert first["ignored"] == {"hidden": 1, "foreign": 1, "examples": [".hidden", "notes.txt"]}
    assert second["classes"] == {"Dog": 4, "cat": 3}
    assert second["sizes"] == {"smallest": [48, 48], "median": [48, 48], "largest": [48, 48]}
    assert document["classes"]["near_names"] == [["Dog", "dog"]]
    (group,) = document["exact_duplicates"]
    assert group["across"] is True
    assert [member["domain"] for member in group["members"]] == ["x", "y"]


def test_progress_counts_every_image(messy):
    counts = []
    check_domains(load_domains([str(messy / "x"), str(messy / "y")]), counts.append, workers=3)
    assert sum(counts) == 22


def test_the_number_of_workers_changes_nothing(messy):
    domains = load_domains([str(messy / "x"), str(messy / "y")])
    one, three = (check_document(check_domains(domains, workers=workers)) for workers in (1, 3))
    assert one == three


def test_a_domain_without_readable_images_is_refused_after_the_report(tmp_path, photo, save):
    save(photo(1), tmp_path / "good" / "1.png")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").touch()
    report = reported(tmp_path / "good", tmp_path / "bad")
    assert report.domains[1].sizes is None
    assert "Next" not in printed(report)
    with pytest.raises(UcdirError, match=r"domain 'bad' has no readable image: 0 of 1; .*\(empty file\)"):
        show_findings(report)


def ucdir(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ucdir", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "100"})


def test_the_command_line(messy):
    file = messy / "out" / "check.json"
    done = ucdir("check", messy / "x", messy / "y", "--json", file)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "11 findings" in done.stdout
    assert f"Wrote all findings to {file}" in done.stderr
    to_stdout = ucdir("check", messy / "x", messy / "y", "--json", "-")
    assert json.loads(to_stdout.stdout) == json.loads(file.read_text(encoding="utf-8"))


def test_the_exit_codes_of_the_command_line(tmp_path, messy):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").touch()
    failed = ucdir("check", tmp_path / "bad")
    assert failed.returncode == 1
    assert "ucdir: domain 'bad' has no readable image" in failed.stderr
    assert "Traceback" not in failed.stderr
    wrong = ucdir("check", tmp_path / "nowhere")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1


def test_a_file_name_that_is_no_unicode_is_reported(tmp_path, photo, save):
    save(photo(1), tmp_path / "x" / "1.png")
    try:
        (tmp_path / "x" / os.fsdecode(b"\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system wants unicode names")
    report = reported(tmp_path / "x")
    assert "\N{REPLACEMENT CHARACTER}.jpg: empty file" in printed(report)
    assert json.dumps(check_document(report), ensure_ascii=False).encode()


def test_real_images_have_no_duplicates_but_a_copy_is_found(pacs, tmp_path):
    for domain in ("photo", "sketch"):
        for name in ("guitar", "person"):
            folder = tmp_path / domain / name
            folder.mkdir(parents=True)
            for path in sorted((pacs / domain / name).iterdir())[:60]:
                shutil.copy(path, folder)
    first = min((tmp_path / "sketch" / "guitar").iterdir())
    Image.open(first).convert("L").resize((113, 113)).save(tmp_path / "photo" / "guitar" / "copy.jpg", quality=60)
    report = reported(tmp_path / "photo", tmp_path / "sketch")
    assert report.exact_duplicates == ()
    assert names(report.near_duplicates) == [["copy.jpg", first.name]]
