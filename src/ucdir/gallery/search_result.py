"""What `search` answers, for people and machines."""

from dataclasses import dataclass
from pathlib import Path

from ucdir.errors import ImageError
from ucdir.gallery.interface import Hit


@dataclass(frozen=True)
class QueryHits:
    """The answers to one query image, best first.

    domain      the domain that the query was taken for; None where the encoder knows no domains
    is_strange  the query looks like no image of that domain
    confidence  probability that anything like the query is in the gallery; None where the encoder has not learned that
    """

    query: Path
    hits: tuple[Hit, ...]
    domain: str | None = None
    is_strange: bool = False
    confidence: float | None = None


@dataclass(frozen=True)
class SearchResult:
    """The answers to all query images, in the order of their paths.

    gallery     the gallery searched, as it was named
    searched    images in it that were looked at
    unreadable  query images that were skipped
    expand      hits that each query moved toward before it was answered; 0 = it was taken as it is
    """

    gallery: str
    searched: int
    queries: tuple[QueryHits, ...]
    unreadable: tuple[ImageError, ...]
    expand: int = 0
