"""A picture of queries and their hits: a row per query, the query left, the most similar images on its right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ucdir.errors import UsageError
from ucdir.images.opening import open_rgb
from ucdir.storage import atomic_file

CELL, GAP, FRAME, CAPTION, MARGIN, TITLE, SCALE = 104, 12, 3, 40, 24, 40, 2

_INK, _GREY, _PALE, _WHITE = (28, 32, 38), (112, 118, 126), (226, 229, 233), (255, 255, 255)
_RIGHT, _WRONG = (26, 137, 82), (203, 54, 54)

_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True)
class GridHit:
    """One answer. `right` says whether it shows the same kind of thing as the query; None = not known."""

    path: Path
    similarity: float  # cosine in [-1, 1]
    right: bool | None = None


@dataclass(frozen=True)
class GridRow:
    """A query and its hits, the most similar first. `caption` replaces the query's file name."""

    query: Path
    hits: Sequence[GridHit]
    caption: str | None = None


def draw_hits_grid(rows: Sequence[GridRow], title: str, out: Path) -> Path:
    """Write a PNG picture of `rows` to `out` and return `out`.

    Below each hit are its file name with folder and the cosine. If `right` is known, a frame with a tick
    (green) or a cross (red) says so.

    raises    UsageError without rows, ImageError for an image that does not open, UcdirError when `out` cannot be
              written
    """
    if not rows:
        raise UsageError("no query to draw: give at least one row.")
    picture = _Picture(columns=max(len(row.hits) for row in rows), rows=len(rows), title=title)
    for number, row in enumerate(rows):
        picture.place_query(row, number)
        for place, hit in enumerate(row.hits):
            picture.place_hit(hit, number, place)
    with atomic_file(out) as draft:
        picture.image.save(draft, format="PNG", optimize=True)
    return out


class _Picture:
    """The white sheet and the positions on it. Lengths are in points of SCALE pixels."""

    def __init__(self, columns: int, rows: int, title: str) -> None:
        self.small, self.large = _font(12), _font(20)
        self.hits_left = MARGIN + CELL + 3 * GAP
        width = max(
            self.hits_left + columns * (CELL + GAP) - GAP + MARGIN,
            MARGIN * 2 + round(self._length(title, self.large)),
        )
        self.top = MARGIN + TITLE + 26
        height = self.top + rows * (CELL + CAPTION + GAP) - GAP + MARGIN
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), _WHITE)
        self.pen = ImageDraw.Draw(self.image)
        self._text((MARGIN, MARGIN - 4), title, self.large, _INK)
        self._text((MARGIN, self.top - 22), "query", self.small, _GREY)
        if columns:
            self._text((self.hits_left, self.top - 22), "most similar first", self.small, _GREY)
        x = MARGIN + CELL + 1.5 * GAP
        self.pen.line(self._scaled(x, self.top - 22, x, height - MARGIN), fill=_PALE, width=SCALE)

    def place_query(self, row: GridRow, number: int) -> None:
        top = self._row_top(number)
        self._paste(row.query, MARGIN, top)
        caption = row.caption or _short_name(row.query)
        self._text((MARGIN, top + CELL + 6), self._fitted(caption), self.small, _INK)

    def place_hit(self, hit: GridHit, number: int, place: int) -> None:
        left, top = self.hits_left + place * (CELL + GAP), self._row_top(number)
        self._paste(hit.path, left, top)
        self._text((left, top + CELL + 6), self._fitted(_short_name(hit.path)), self.small, _INK)
        self._text((left, top + CELL + 21), f"{hit.similarity:.3f}", self.small, _GREY)
        if hit.right is not None:
            self._mark(hit.right, left, top)

    def _row_top(self, number: int) -> int:
        return self.top + number * (CELL + CAPTION + GAP)

    def _paste(self, path: Path, left: int, top: int) -> None:
        """The whole image in the middle of its cell, on pale grey where it is not square."""
        side = CELL * SCALE
        fitted = ImageOps.contain(open_rgb(path), (side, side), Image.Resampling.LANCZOS)
        self.pen.rectangle(self._scaled(left, top, left + CELL, top + CELL), fill=_PALE)
        offset = ((side - fitted.width) // 2, (side - fitted.height) // 2)
        self.image.paste(fitted, (left * SCALE + offset[0], top * SCALE + offset[1]))

    def _mark(self, right: bool, left: int, top: int) -> None:
        """A frame and, in the lower right corner, a disc with a tick or a cross."""
        colour = _RIGHT if right else _WRONG
        frame = self._scaled(left, top, left + CELL, top + CELL)
        self.pen.rectangle((frame[0], frame[1], frame[2] - 1, frame[3] - 1), outline=colour, width=FRAME * SCALE)
        x, y, radius = left + CELL - 14, top + CELL - 14, 11
        self.pen.ellipse(
            self._scaled(x - radius, y - radius, x + radius, y + radius),
            fill=colour,
            outline=_WHITE,
            width=SCALE,
        )
        strokes = [(-5, 0, -1, 4, 5, -4)] if right else [(-4, -4, 4, 4), (-4, 4, 4, -4)]
        for stroke in strokes:
            line = [(x if index % 2 == 0 else y) + step for index, step in enumerate(stroke)]
            self.pen.line(self._scaled(*line), fill=_WHITE, width=2 * SCALE, joint="curve")

    def _text(self, place: tuple[float, float], text: str, font: _Font, colour: tuple[int, int, int]) -> None:
        self.pen.text((place[0] * SCALE, place[1] * SCALE), text, font=font, fill=colour)

    def _fitted(self, text: str) -> str:
        """The text, its middle left out where it is wider than a cell."""
        kept = len(text)
        shown = text
        while self._length(shown, self.small) > CELL and kept > 4:
            kept -= 1
            shown = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
        return shown

    def _length(self, text: str, font: _Font) -> float:
        return font.getlength(text) / SCALE

    def _scaled(self, *lengths: float) -> tuple[float, ...]:
        return tuple(length * SCALE for length in lengths)


def _font(points: int) -> _Font:
    return ImageFont.load_default(points * SCALE)


def _short_name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name
