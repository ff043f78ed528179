"""Queries that move toward their hits."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ucdir.retrieval.expansion import (
    BEST_HITS,
    DEFAULT_HITS,
    HITS_WEIGHT,
    MIN_SIMILARITY_FRACTION,
    ROUNDS,
    expanded_among,
    hits_of,
)

Floats = NDArray[np.float32]


def unit(rows: Floats) -> Floats:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def around(centre: Floats, count: int, spread: float, seed: int) -> Floats:
    noise = np.random.default_rng(seed).normal(size=(count, len(centre)))
    return unit(centre + spread * noise.astype(np.float32))


def slowly(query: Floats, rows: Floats, hits: int) -> Floats:
    """One query, as the docstring says it."""
    moved = query
    for _ in range(ROUNDS):
        cosine = rows @ moved
        best = np.argsort(-cosine)[:hits]
        least = MIN_SIMILARITY_FRACTION * cosine[best[:BEST_HITS]].mean()
        mean = sum(max(0.0, cosine[row] - least) ** 2 * rows[row] for row in best)
        moved = unit(query + HITS_WEIGHT * unit(mean))
    return moved


def test_a_query_moves_as_its_definition_says() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(90, 6)).astype(np.float32))
    queries = unit(np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32))
    found = expanded_among(queries, rows, hits=20)
    assert np.allclose(found, [slowly(query, rows, 20) for query in queries], atol=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_no_hits_leave_a_query_as_it_is() -> None:
    queries, rows = around(np.eye(4, dtype=np.float32)[0], 5, 0.3, 0), around(np.eye(4, dtype=np.float32)[1], 9, 0.3, 1)
    assert np.array_equal(expanded_among(queries, rows, hits=0), queries)


def test_a_small_class_is_not_drowned_by_a_large_one() -> None:
    small, large, query = np.eye(16, dtype=np.float32)[:3]
    rows = np.concatenate([around(unit(2 * small + query), 6, 0.05, 0), around(large, 200, 0.05, 1)])
    (moved,) = expanded_among(unit(small + query)[None], rows)
    assert set(np.argsort(-(rows @ moved))[:6]) == set(range(6))
    assert moved @ small > 0.8 > 0.2 > abs(moved @ large)


def test_a_gallery_smaller_than_the_number_of_hits_is_enough() -> None:
    rows = around(np.eye(4, dtype=np.float32)[0], 3, 0.1, 0)
    assert expanded_among(rows[:1], rows, hits=50).shape == (1, 4)


def test_no_query_is_no_problem() -> None:
    assert expanded_among(np.empty((0, 4), np.float32), np.eye(4, dtype=np.float32)).shape == (0, 4)


KINDS = [("aligned", None, DEFAULT_HITS), ("smoothed", None, 0), ("", 7, 7), ("aligned", 0, 0)]


@pytest.mark.parametrize(("rows", "wanted", "hits"), KINDS)
def test_the_number_of_hits_suits_the_rows(rows: str, wanted: int | None, hits: int) -> None:
    assert hits_of(rows, wanted) == hits
