"""The fixed views of an image: drawn from its content alone, and what each of them keeps."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ucdir.images.style_views import DEFAULT_VIEWS, KEEPING_STYLE, VIEWS, edges, enclosed, style_views


def picture(width: int = 60, height: int = 40) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((15, 8, 40, 30), fill=(200, 40, 40), outline="black")
    return image


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("shape", [(60, 40), (7, 90), (1, 1), (33, 33)])
def test_every_view_of_every_shape_is_a_square(shape: tuple[int, int], size: int) -> None:
    views = style_views(picture().resize(shape), size, DEFAULT_VIEWS, b"content")
    assert views.shape == (len(DEFAULT_VIEWS), 3, size, size)
    assert views.dtype == np.uint8


def test_random_views_are_drawn_from_content_and_draw() -> None:
    crops = ("crop-1", "crop-2", "line-part-1")
    first, again = (style_views(picture(), 32, crops, b"one") for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, style_views(picture(), 32, crops, b"other"))
    assert not np.array_equal(first, style_views(picture(), 32, crops, b"one", draw=1))
    assert not np.array_equal(first[0], first[1])


def test_a_view_does_not_depend_on_which_others_are_asked_for() -> None:
    (alone,) = style_views(picture(), 32, ["crop-2"], b"one")
    assert np.array_equal(alone, style_views(picture(), 32, DEFAULT_VIEWS, b"one")[DEFAULT_VIEWS.index("crop-2")])


def test_the_plain_view_comes_first_and_keeps_the_style() -> None:
    assert DEFAULT_VIEWS[0] == "plain"
    assert set(KEEPING_STYLE) <= set(DEFAULT_VIEWS) <= set(VIEWS)


def test_a_negative_is_the_plain_view_inverted_and_a_mirrored_one_turned() -> None:
    plain, mirrored, negative = style_views(picture(), 32, ["plain", "mirrored", "negative"], b"")
    assert np.array_equal(255 - plain, negative)
    assert np.array_equal(plain[:, :, ::-1], mirrored)


def test_lines_have_no_colour_and_a_flat_image_has_none() -> None:
    (lines,) = style_views(picture(), 32, ["lines"], b"")
    assert np.array_equal(lines[0], lines[1])
    assert lines.min() < 128 < lines.max()
    assert edges(Image.new("RGB", (32, 32), "red")).max() == 0


def test_what_lines_enclose_is_filled_and_what_they_do_not_is_not() -> None:
    """A ring with a gap of 2 px, which is closed; and an open angle."""
    lines = np.zeros((112, 112), bool)
    lines[20:60, 20] = lines[20:60, 60] = lines[20, 20:61] = lines[60, 20:61] = True
    lines[20, 38:40] = False
    lines[80:100, 80] = lines[100, 80:100] = True
    found = enclosed(lines)
    assert found[30:50, 30:50].all()
    assert not found[85:95, 90].any()
    assert not found[0].any()
    assert found[lines].all()


def test_filling_is_that_of_a_search_pixel_by_pixel() -> None:
    """Without gaps to close, what is outside is what a flood from the border reaches through free neighbours."""
    from ucdir.images.style_views import _outside

    walls = np.random.default_rng(0).random((40, 40)) < 0.4
    walls[0] = walls[-1] = walls[:, 0] = walls[:, -1] = False
    reached, todo = {(0, 0)}, [(0, 0)]
    while todo:
        y, x = todo.pop()
        for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if 0 <= near[0] < 40 and 0 <= near[1] < 40 and near not in reached and not walls[near]:
                reached.add(near)
                todo.append(near)
    assert {(int(y), int(x)) for y, x in np.argwhere(_outside(walls))} == reached
