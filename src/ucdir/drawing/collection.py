"""Two folders of drawn images, ready to train on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ucdir.drawing.kinds import KINDS
from ucdir.drawing.photo import photograph
from ucdir.drawing.sketch import line_drawing
from ucdir.errors import UsageError
from ucdir.storage import atomic_folder


@dataclass(frozen=True)
class Drawn:
    """What was drawn and where."""

    photo: Path  # class folders of JPEG files
    drawing: Path  # class folders of PNG files
    counts: dict[str, tuple[int, int]]  # photographs and drawings of each kind


def draw_collections(out: Path, images_per_class: int = 60, seed: int = 0, size: int = 96) -> Drawn:
    """Draw `out/photo/KIND/0001.jpg` ... and `out/drawing/KIND/0001.png` ...

    images_per_class   about how many of each kind; as in real collections the numbers differ a little
    seed               the same seed draws the same files
    size               side of the images in pixels
    raises             UsageError for a number that is too small, UcdirError when `out` cannot be written
    """
    if images_per_class < 1 or size < 16:
        raise UsageError(f"images_per_class={images_per_class}, size={size}: expected at least 1 image and 16 pixels.")
    rng = np.random.default_rng(seed)
    spread = images_per_class // 6
    counts = {kind: tuple(images_per_class + rng.integers(-spread, spread + 1, size=2)) for kind in KINDS}
    with atomic_folder(out) as draft:
        for kind, (photos, drawings) in counts.items():
            _draw_kind(draft, kind, int(photos), int(drawings), rng, size)
    return Drawn(out / "photo", out / "drawing", {kind: (int(p), int(d)) for kind, (p, d) in counts.items()})


def _draw_kind(out: Path, kind: str, photos: int, drawings: int, rng: np.random.Generator, size: int) -> None:
    specimen = KINDS[kind]
    for domain in ("photo", "drawing"):
        (out / domain / kind).mkdir(parents=True)
    for number in range(1, photos + 1):
        image = photograph(specimen(rng), rng, size)
        image.save(out / "photo" / kind / f"{number:04}.jpg", quality=int(rng.integers(72, 95)))
    for number in range(1, drawings + 1):
        line_drawing(specimen(rng), rng, size).save(out / "drawing" / kind / f"{number:04}.png")
