"""The answers of `ucdir search` as one HTML file that needs nothing else: no network, no script."""

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

from ucdir.errors import ImageError
from ucdir.gallery.interface import Hit
from ucdir.gallery.search_result import QueryHits, SearchResult
from ucdir.images.opening import open_rgb
from ucdir.storage import write_text

QUERY_SIDE = 560
HIT_SIDE = 320

STYLE = """
:root { color-scheme: light dark; --paper: #f6f6f4; --card: #fff; --ink: #1c1d20; --quiet: #5f636b;
  --line: #dfe0dd; --accent: #2b5fd9; --mat: #ececea; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #141518; --card: #1e2024; --ink: #ececee; --quiet: #a2a6ae; --line: #33363c;
    --accent: #8fb0ff; --mat: #2a2c31; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.45 system-ui, sans-serif; }
.page { max-width: 1280px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 1.45rem; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1rem; margin: 12px 0 0; overflow-wrap: anywhere; }
.about { margin: 4px 0 0; color: var(--quiet); overflow-wrap: anywhere; }
.query { display: grid; grid-template-columns: 280px minmax(0, 1fr); gap: 32px; align-items: start;
  padding: 28px 0; border-top: 1px solid var(--line); }
main > .query:first-child { border-top: 0; }
.asked { position: sticky; top: 24px; }
.asked p { margin: 2px 0 0; color: var(--quiet); font-size: .875rem; }
.asked .picture { border: 2px solid var(--accent); }
.picture { display: flex; aspect-ratio: 1; background: var(--mat); border-radius: 10px; overflow: hidden;
  align-items: center; justify-content: center; }
.picture img { width: 100%; height: 100%; object-fit: contain; display: block; }
.gone { padding: 16px; text-align: center; color: var(--quiet); font-size: .875rem; }
.hits { list-style: none; margin: 0; padding: 0; display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.hits li { min-width: 0; padding: 8px; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
.facts { display: flex; justify-content: space-between; gap: 8px; padding: 8px 4px 0; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
.rank, .place { color: var(--quiet); }
.similarity { font-weight: 600; }
.name { padding: 0 4px; font-size: .875rem; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.place { padding: 0 4px 2px; font-size: .8125rem; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.skipped { margin-top: 16px; padding: 10px 14px; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); font-size: .875rem; overflow-wrap: anywhere; }
.skipped ul { margin: 4px 0 0; padding-left: 20px; }
@media (max-width: 720px) {
  .page { padding: 20px 16px 32px; }
  .query { grid-template-columns: minmax(0, 1fr); gap: 18px; padding: 22px 0; }
  .asked { position: static; display: grid; grid-template-columns: 128px minmax(0, 1fr); gap: 0 16px;
    align-content: center; align-items: center; }
  .asked h2 { margin: 0; }
  .hits { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 12px; }
}
@media print { .asked { position: static; } .hits li { break-inside: avoid; } }
"""


def write_search_page(result: SearchResult, file: Path) -> None:
    """Write the page to `file`, whole or not at all; a gallery image that is gone gets a card saying so."""
    write_text(file, search_page(result))


def search_page(result: SearchResult) -> str:
    """The page as HTML text: one section for each query, with the hits as cards, thumbnails inside."""
    count = len(result.queries)
    queries = "1 query" if count == 1 else f"{count:,} queries"
    title = f"Search in {Path(result.gallery).absolute().name}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<div class="page">
<header>
<h1>{_text(title)}</h1>
<p class="about">{queries}, {result.searched:,} images searched. Numbers: cosine similarity, at most 1{_expansion(result)}.</p>
</header>
{_skipped(result)}<main>
{"".join(_section(answered) for answered in result.queries)}</main>
</div>
</body>
</html>
"""


def _expansion(result: SearchResult) -> str:
    return ", to the query after it moved toward its best hits" if result.expand else ""


def _section(answered: QueryHits) -> str:
    name = answered.query.name
    cards = "".join(_card(rank, hit) for rank, hit in enumerate(answered.hits, start=1))
    hits = "1 hit" if len(answered.hits) == 1 else f"{len(answered.hits):,} hits, best first"
    return f"""<section class="query">
<div class="asked">
<div class="picture">{_picture(answered.query, QUERY_SIDE, f"Query {name}")}</div>
<div><h2>{_text(name)}</h2><p>{hits}</p></div>
</div>
<ol class="hits">
{cards}</ol>
</section>
"""


def _card(rank: int, hit: Hit) -> str:
    name = _text(hit.image.path.name)
    return f"""<li title="{_text(str(hit.image.path))}">
<div class="picture">{_picture(hit.image.path, HIT_SIDE, f"Hit {rank}: {hit.image.path.name}")}</div>
<div class="facts"><span class="rank">{rank}</span><span class="similarity">{hit.similarity:.3f}</span></div>
<div class="name">{name}</div>
<div class="place">{_text(hit.image.domain)}</div>
</li>
"""


def _picture(path: Path, side: int, description: str) -> str:
    try:
        return f'<img src="{_thumbnail(path, side)}" alt="{_text(description)}" loading="lazy">'
    except ImageError as error:
        return f'<div class="gone">no picture: {_text(error.reason)}</div>'


def _thumbnail(path: Path, side: int) -> str:
    """The image as a JPEG data URI, at most `side` pixels wide and high."""
    image = open_rgb(path)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _skipped(result: SearchResult) -> str:
    if not result.unreadable:
        return ""
    lines = "".join(f"<li>{_text(error.path)}: {_text(error.reason)}</li>" for error in result.unreadable)
    return f'<div class="skipped">Skipped, cannot be read:<ul>{lines}</ul></div>\n'


def _text(text: str) -> str:
    """Safe inside elements and quoted attributes, whatever a file is called."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True)
