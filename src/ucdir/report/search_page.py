"""The answers of `ucdir search` as one HTML file that needs nothing else: no network, no script."""

from pathlib import Path

from markupsafe import Markup
from PIL import Image

from ucdir.errors import ImageError
from ucdir.gallery.search_result import SearchResult
from ucdir.images.opening import open_rgb
from ucdir.palette import palette_css
from ucdir.report.page.pictures import Picture, data_uri
from ucdir.report.rendering import asset, render
from ucdir.storage import write_text

QUERY_SIDE = 560
HIT_SIDE = 320


def write_search_page(result: SearchResult, file: Path) -> None:
    """Write the page to `file`, whole or not at all; a gallery image that is gone gets a card saying so."""
    write_text(file, search_page(result))


def search_page(result: SearchResult) -> str:
    """The page as HTML text: one section for each query, with the hits as cards, thumbnails inside."""
    return render(
        "search",
        result=result,
        gallery=Path(result.gallery).absolute().name,
        style=Markup(palette_css() + asset("search.css")),
        thumbnail=thumbnail,
        query_side=QUERY_SIDE,
        hit_side=HIT_SIDE,
    )


def thumbnail(path: Path, side: int, description: str) -> Picture:
    """The image, at most `side` pixels wide and high."""
    try:
        image = open_rgb(path)
    except ImageError as error:
        return Picture(description, reason=error.reason)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return Picture(description, data_uri(image, 85))
