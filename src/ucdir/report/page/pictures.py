"""Pictures inside the page: thumbnails as data URIs, and one sheet of small ones for the maps."""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ucdir.errors import ImageError
from ucdir.images.pixel_cache import PixelCache
from ucdir.images.reading import read_image, read_views

SIDE, CELL, COLUMNS = 144, 64, 40


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, or the reason why there is none."""

    description: str
    uri: str = ""
    reason: str = ""


@dataclass
class Pictures:
    """Thumbnails of a run's images, each made once.

    root    folder that contains all images; names are relative to it
    side    shorter side in px that training keeps in the cache, so that nothing is decoded again
    size    side of the views that were embedded, for the sheet
    """

    root: Path
    side: int
    size: int
    workers: int = 0
    cache: PixelCache | None = None
    _made: dict[Path, str] = field(default_factory=dict)

    def name(self, path: Path) -> str:
        """The path below the folder that all images share."""
        return os.path.relpath(path, self.root)

    def picture(self, path: Path, description: str = "") -> Picture:
        """A thumbnail; its description is the name of the image if none is given."""
        description = description or self.name(path)
        try:
            return Picture(description, self._uri(path))
        except ImageError as error:
            return Picture(description, reason=error.reason)

    def _uri(self, path: Path) -> str:
        if path not in self._made:
            image = Image.fromarray(read_image(path, self.side, self.cache))
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            self._made[path] = data_uri(image, 80)
        return self._made[path]

    def sheet(self, paths: Sequence[Path]) -> str:
        """The views of many images as the encoder sees them, CELL px each, COLUMNS per row, as one data URI."""
        rows = -(-len(paths) // COLUMNS)
        sheet = Image.new("RGB", (COLUMNS * CELL, max(rows, 1) * CELL), "white")
        for views in read_views(paths, self.size, 64, self.workers, self.cache):
            for number, pixels in zip(views.image_ids, views.pixels, strict=True):
                small = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).resize(
                    (CELL, CELL), Image.Resampling.BOX
                )
                sheet.paste(small, (number % COLUMNS * CELL, number // COLUMNS * CELL))
        return data_uri(sheet, 72)


def data_uri(image: Image.Image, quality: int) -> str:
    """The image as a JPEG data URI."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
