"""How a gallery is searched: queries move toward their hits, and similarities become probabilities. Imports numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ucdir.gallery.interface import EVERYWHERE, Engine, GalleryHits, Hit, Where
from ucdir.model.confidence import HITS_CONSIDERED, Confidence
from ucdir.retrieval.expansion import expanded

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SearchOptions:
    """How to ask.

    expand      hits that a query moves toward, see `expansion.expanded`; 0 = it is taken as it is
    confidence  what similarities mean; None = not known
    least       hits of less confidence are left out, and all hits of a query that is less sure to have any
    """

    expand: int = 0
    confidence: Confidence | None = None
    least: float = 0.0


def ask(engine: Engine, queries: Floats, k: int, where: Where = EVERYWHERE, way: SearchOptions | None = None) -> GalleryHits:
    """`engine.search`, asked in a `way`: similarities are those to the queries where they moved to.

    queries   (Q, D) unit rows
    """
    way = way or SearchOptions()
    moved = expanded(queries, lambda rows, count: engine.neighbourhood(rows, count, where), way.expand)
    found = engine.search(moved, k, where)
    if way.confidence is None or len(queries) == 0:
        return replace(found, confidence=(None,) * len(queries))
    exists = way.confidence.of_queries(engine.neighbourhood(queries, HITS_CONSIDERED, where).similarity)
    hits = tuple(_sure(part, way, chance) for part, chance in zip(found.hits, exists.tolist(), strict=True))
    return GalleryHits(found.searched, hits, tuple(exists.tolist()))


def _sure(hits: Sequence[Hit], way: SearchOptions, exists: float) -> tuple[Hit, ...]:
    """Hits with their confidence, without those below the minimum."""
    assert way.confidence is not None
    if exists < way.least:
        return ()
    chances = way.confidence.of_hits(np.array([[hit.similarity for hit in hits]]), np.array([exists]))[0].tolist()
    named = (replace(hit, confidence=chance) for hit, chance in zip(hits, chances, strict=True))
    return tuple(hit for hit in named if (hit.confidence or 0.0) >= way.least)
