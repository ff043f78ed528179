"""Images of odd shapes in the evaluation view, and what a header says before anything is decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from ucdir.errors import ImageError, TooManyPixels
from ucdir.images import evaluation_view as evaluation
from ucdir.images.evaluation_view import evaluation_view
from ucdir.images.opening import open_rgb, read_header


@pytest.mark.parametrize("shape", [(300, 7), (9, 500), (641, 33), (64, 48)])
def test_cutting_before_scaling_changes_nothing(photo, monkeypatch, shape):
    image = photo(1, 64).resize(shape)
    monkeypatch.setattr(evaluation, "MAX_ASPECT", 10_000)
    whole = evaluation_view(image, 32).astype(int)
    monkeypatch.setattr(evaluation, "MAX_ASPECT", 0)
    cut = evaluation_view(image, 32).astype(int)
    assert np.abs(whole - cut).max() <= 1


def test_one_row_of_a_million_pixels_is_no_danger():
    """Scaled whole, each of these would have 55 x 55 million pixels."""
    for shape in ((1_000_000, 1), (1, 1_000_000)):
        assert (evaluation_view(Image.new("RGB", shape, (10, 20, 30)), 48)[2] == 30).all()


def test_a_header_tells_the_format_and_the_pixels(photo):
    for kind in ("PNG", "JPEG", "TIFF"):
        content = io.BytesIO()
        photo(1, 40).resize((40, 20)).save(content, kind)
        content.seek(0)
        header = read_header(content)
        assert (header.format, header.width, header.height) == (kind, 40, 20)


def test_a_header_that_is_none_and_one_that_promises_too_much(photo):
    with pytest.raises(ImageError, match="not an image but an SVG drawing"):
        read_header(io.BytesIO(b"<svg xmlns='http://www.w3.org/2000/svg'/>"))
    content = io.BytesIO()
    photo(1, 40).save(content, "PNG")
    content.seek(0)
    for read in (read_header, open_rgb):
        content.seek(0)
        with pytest.raises(TooManyPixels, match="40 x 40 pixels is more than the limit of 1,599"):
            read(content, max_pixels=1599)
