"""The answers of `ucdir search` as a table for the terminal and as one JSON document."""

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ucdir.gallery.search_result import QueryHits, SearchResult


def hit_table(result: SearchResult) -> RenderableType:
    """Rank, similarity, domain and path of the hits, for each query; then what was skipped."""
    parts: list[RenderableType] = []
    for answered in result.queries:
        parts += [Text(str(answered.query), style="bold"), *_taken_for(answered), *_sure(answered), _hits(answered), ""]
    for error in result.unreadable:
        parts.append(Text(f"skipped {error.path}: {error.reason}", style="yellow"))
    summary = f"Similarity: cosine, at most 1. Searched {result.searched:,} images of {result.gallery}, exactly."
    return Group(*parts, Text(summary, style="dim"))


def hit_document(result: SearchResult) -> dict[str, Any]:
    """Plain data: gallery, searched, queries with their hits, and unreadable query images."""
    return {
        "gallery": result.gallery,
        "searched": result.searched,
        "queries": [
            {
                "query": str(answered.query),
                "domain": answered.domain,
                "is_strange": answered.is_strange,
                "confidence": answered.confidence,
                "hits": [
                    {
                        "rank": rank,
                        "path": str(hit.image.path),
                        "domain": hit.image.domain,
                        "similarity": hit.similarity,
                        "confidence": hit.confidence,
                        "id": hit.image.id,
                    }
                    for rank, hit in enumerate(answered.hits, start=1)
                ],
            }
            for answered in result.queries
        ],
        "unreadable": [{"path": error.path, "reason": error.reason} for error in result.unreadable],
    }


def _taken_for(answered: QueryHits) -> list[Text]:
    """Which domain the query was taken for, where the encoder knows domains."""
    if answered.domain is None:
        return []
    if answered.is_strange:
        sentence = f"searched as '{answered.domain}', but it looks unlike all training images of that domain"
        return [Text(f"  {sentence}", style="yellow")]
    return [Text(f"  searched as '{answered.domain}'", style="dim")]


def _sure(answered: QueryHits) -> list[Text]:
    """How likely anything like the query is there, where the encoder has learned that."""
    if answered.confidence is None:
        return []
    sentence = f"probability that the gallery has anything like it: {answered.confidence:.2f}"
    none = "" if answered.hits else "; no hit is sure enough for --min-confidence"
    return [Text(f"  {sentence}{none}", style="dim")]


def _hits(answered: QueryHits) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("rank", justify="right")
    table.add_column("similarity", justify="right")
    knows = answered.confidence is not None
    if knows:
        table.add_column("confidence", justify="right")
    table.add_column("domain", overflow="fold")
    table.add_column("path", overflow="fold")
    for rank, hit in enumerate(answered.hits, start=1):
        sure = [f"{hit.confidence:.2f}"] if knows else []
        table.add_row(str(rank), f"{hit.similarity:.3f}", *sure, Text(hit.image.domain), Text(str(hit.image.path)))
    return Padding(table, (0, 0, 0, 2))
