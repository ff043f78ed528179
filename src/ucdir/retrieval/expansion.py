"""A query moves toward what it finds and asks again (query expansion, Chum et al. 2007). Imports numpy only."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucdir.retrieval.exact_search import nearest

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbourhood:
    """The k images most similar to each of Q queries, best first.

    similarity  (Q, k) float64 cosines
    rows        (Q, k, D) float32, their embeddings
    """

    similarity: np.ndarray
    rows: np.ndarray


Look = Callable[[Floats, int], Neighbourhood]

DEFAULT_HITS = 50  # that a query looks at in each round, at most
ROUNDS = 3
HITS_WEIGHT = 4.0  # of the mean of the hits, compared with the query itself
BEST_HITS = 10  # hits whose mean similarity says how similar right ones are
MIN_SIMILARITY_FRACTION = 0.7  # of that similarity, below which a hit does not count
QUERIES_PER_BLOCK = 256  # queries at a time


def hits_of(rows: str, wanted: int | None = None) -> int:
    """How many hits to look at: `wanted`, or what is best for rows of a kind (`encoder_folder.EncoderConfig`)."""
    if wanted is not None:
        return wanted
    return DEFAULT_HITS if rows in ("aligned", "tuned") else 0


def expanded(queries: Floats, look: Look, hits: int = DEFAULT_HITS) -> Floats:
    """Queries moved toward their hits, ROUNDS times over; the gallery stays as it is.

    queries  (Q, D) unit rows
    look     (q, D) unit rows and a number -> that many of their hits
    hits     at most; 0 moves nothing
    returns  (Q, D) unit rows

    How many hits count is decided for each query by what it finds: one counts by the square of how far its similarity is
    above MIN_SIMILARITY_FRACTION times the mean of the best ones. So a class of ten images is not drowned by fifty hits.
    """
    if hits == 0 or len(queries) == 0:
        return queries
    starts = range(0, len(queries), QUERIES_PER_BLOCK)
    return np.concatenate([_moved(queries[start : start + QUERIES_PER_BLOCK], look, hits) for start in starts])


def expanded_among(queries: Floats, rows: Floats, hits: int = DEFAULT_HITS) -> Floats:
    """`expanded`, toward hits among `rows` (G, D)."""

    def look(wanted: Floats, count: int) -> Neighbourhood:
        near = nearest(wanted, rows, count)
        return Neighbourhood(near.similarity, rows[near.rows])

    return expanded(queries, look, hits)


def _moved(queries: Floats, look: Look, hits: int) -> Floats:
    moved = queries
    for _ in range(ROUNDS):
        moved = _unit(queries + HITS_WEIGHT * _unit(_mean(look(moved, hits))))
    return moved


def _mean(found: Neighbourhood) -> Floats:
    """(q, D) weighted sums of hits."""
    least = MIN_SIMILARITY_FRACTION * found.similarity[:, :BEST_HITS].mean(axis=1, keepdims=True)
    weights = (np.clip(found.similarity - least, 0, None) ** 2).astype(np.float32)
    mean: Floats = np.einsum("qk,qkd->qd", weights, found.rows)
    return mean


def _unit(rows: Floats) -> Floats:
    scaled: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return scaled
