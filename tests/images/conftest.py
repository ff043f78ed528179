"""Real image files, drawn for each test. The fixtures are functions that draw."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

SHARED_PACS = Path(__file__).parents[2].parent / "shared" / "data" / "pacs"


@pytest.fixture
def pacs() -> Path:
    """The shared real images: photo/ and sketch/ with class folders."""
    if not SHARED_PACS.is_dir():
        pytest.skip("shared data is not here")
    return SHARED_PACS


@pytest.fixture
def photo() -> Callable[..., Image.Image]:
    """photo(seed, side=160): a colourful, smooth picture; another seed gives another picture."""

    def draw(seed: int, side: int = 160) -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)

    return draw


@pytest.fixture
def line_drawing() -> Callable[..., Image.Image]:
    """line_drawing(seed, side=227): a few thin black strokes, most of the page is empty."""

    def draw(seed: int, side: int = 227) -> Image.Image:
        rng = np.random.default_rng(seed)
        page = Image.new("L", (side, side), 255)
        pen = ImageDraw.Draw(page)
        start = rng.integers(side // 5, 4 * side // 5, 2)
        points = [tuple(map(int, np.clip(start + step, 10, side - 10))) for step in rng.integers(-80, 80, (9, 2))]
        pen.line(points, fill=0, width=2)
        pen.ellipse([*map(int, start - 25), *map(int, start + rng.integers(10, 40, 2))], outline=0, width=2)
        return page.filter(ImageFilter.GaussianBlur(0.5))

    return draw


@pytest.fixture
def save() -> Callable[..., Path]:
    """save(image, path, **settings): write the file, making its folders."""

    def write(image: Image.Image, path: Path, **settings: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **settings)
        return path

    return write
