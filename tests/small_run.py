"""A training that takes a second: an untrained network for images of 32 px, on the CPU, and a pair of drawn folders."""

import shutil
from pathlib import Path

from ucdir.drawing.collection import draw_collections

GRADIENT = {
    "method.name": "ucdir",
    "encoder.backbone": "tiny_network:tiny",
    "encoder.weights": "none",
    "encoder.image_size": 32,
    "encoder.dim": 16,
    "method.num_clusters": [3],
    "run.device": "cpu",
    "run.precision": "float32",
}


def draw_pair(folder: Path) -> None:
    """`photo` and `drawing` in class folders, about six images of each class."""
    drawn = draw_collections(folder / "drawn", images_per_class=6, size=48)
    drawn.photo.rename(folder / "photo")
    drawn.drawing.rename(folder / "drawing")


def rename_and_flatten(pair: Path, folder: Path) -> None:
    """The images of `pair` again, under other names in another order and without class folders."""
    for name in ("photo", "drawing"):
        (folder / name).mkdir()
        for number, path in enumerate(sorted((pair / name).rglob("*.*"), key=lambda path: path.name[::-1])):
            shutil.copy(path, folder / name / f"{997 * number % 1000:03}{path.suffix}")
