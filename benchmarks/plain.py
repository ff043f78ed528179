"""The views of the released code, from torchvision and Pillow, and drawn folders for whoever has none."""

import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter
from torchvision import transforms

from ucdir.drawing.collection import draw_collections


def moco_views(size: int) -> Any:
    """The transforms of MoCo v2: Pillow image -> Pillow image of `size` px."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([blur], p=0.5),
            transforms.RandomHorizontalFlip(),
        ]
    )


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def drawn(folder: Path, images: int) -> list[str]:
    """Two folders of about half of `images` each, as `ucdir demo` draws them, at 256 px."""
    pictures = draw_collections(folder / "images", max(1, images // 20), size=256)
    return [str(pictures.photo), str(pictures.drawing)]
