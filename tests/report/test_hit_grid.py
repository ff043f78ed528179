from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ucdir.errors import ImageError, UcdirError, UsageError
from ucdir.report.hit_grid import CELL, SCALE, GridHit, GridRow, draw_hits_grid

GREEN, RED = (26, 137, 82), (203, 54, 54)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = []
    for number, size in enumerate([(20, 20), (60, 20), (10, 50)]):
        path = tmp_path / "shop" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (40 * number, 90, 200)).save(path)
        paths.append(path)
    return paths


def pixels(picture: Path) -> np.ndarray:
    with Image.open(picture) as image:
        return np.asarray(image)


def count(picture: Path, colour: tuple[int, int, int]) -> int:
    return int((pixels(picture) == colour).all(axis=2).sum())


def test_each_row_and_hit_makes_the_picture_larger(images: list[Path], tmp_path: Path) -> None:
    one = draw_hits_grid([GridRow(images[0], [GridHit(images[1], 0.5)])], "t", tmp_path / "one.png")
    more = draw_hits_grid([GridRow(images[0], [GridHit(p, 0.5) for p in images])] * 2, "t", tmp_path / "more.png")
    small, large = pixels(one).shape, pixels(more).shape
    assert large[0] - small[0] >= CELL * SCALE
    assert large[1] - small[1] >= 2 * CELL * SCALE


def test_the_pictures_are_in_the_grid(images: list[Path], tmp_path: Path) -> None:
    out = draw_hits_grid([GridRow(images[0], [GridHit(images[1], 0.5)])], "t", tmp_path / "grid.png")
    assert count(out, (0, 90, 200)) == (CELL * SCALE) ** 2
    assert count(out, (40, 90, 200)) > 0


def test_right_and_wrong_are_marked_and_unknown_is_not(images: list[Path], tmp_path: Path) -> None:
    seen = {}
    for right in (True, False, None):
        row = GridRow(images[0], [GridHit(images[1], -0.25, right)])
        out = draw_hits_grid([row], "t", tmp_path / f"{right}.png")
        seen[right] = (count(out, GREEN), count(out, RED))
    assert seen[True][0] > 1000
    assert seen[True][1] == 0
    assert seen[False][1] > 1000
    assert seen[False][0] == 0
    assert seen[None] == (0, 0)


def test_the_mark_differs_in_shape_not_only_in_colour(images: list[Path], tmp_path: Path) -> None:
    marks = []
    for right, colour in ((True, GREEN), (False, RED)):
        out = draw_hits_grid([GridRow(images[0], [GridHit(images[0], 1.0, right)])], "t", tmp_path / f"{right}.png")
        marks.append((pixels(out) == colour).all(axis=2))
    assert (marks[0] != marks[1]).any()


def test_a_query_without_hits_and_long_or_foreign_names(images: list[Path], tmp_path: Path) -> None:
    long = tmp_path / f"{'very-' * 30}long-ünïcode-名.png"
    images[0].rename(long)
    out = draw_hits_grid(
        [GridRow(long, []), GridRow(long, [GridHit(long, 1.0)], caption="mine")],
        "title " * 40,
        tmp_path / "g.png",
    )
    assert pixels(out).shape[1] > CELL * SCALE


def test_same_input_same_file(images: list[Path], tmp_path: Path) -> None:
    row = GridRow(images[0], [GridHit(images[1], 0.1, True)])
    files = [draw_hits_grid([row], "t", tmp_path / name).read_bytes() for name in ("a.png", "b.png")]
    assert files[0] == files[1]


def test_refusals(images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        draw_hits_grid([], "t", tmp_path / "g.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError):
        draw_hits_grid([GridRow(tmp_path / "broken.png", [])], "t", tmp_path / "g.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(UcdirError):
        draw_hits_grid([GridRow(images[0], [])], "t", tmp_path / "file" / "g.png")
    assert not (tmp_path / "g.png").exists()
