"""The first hits among equal similarities, against all orders of the gallery."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ucdir.retrieval import ties
from ucdir.retrieval.exact_search import nearest
from ucdir.retrieval.ties import tied_hits


def directions(numbers: list[int]) -> np.ndarray:
    """Unit rows in the plane, the same for the same number."""
    angles = np.array(numbers) / 10
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def slow_chance(query: np.ndarray, gallery: np.ndarray, k: int) -> np.ndarray:
    """Share of all orders of the gallery in which each row is among the k first, ties by place in the order."""
    chance, orders = np.zeros(len(gallery)), list(permutations(range(len(gallery))))
    for order in orders:
        found = nearest(query[None], gallery[list(order)], k).rows[0]
        chance[np.array(order)[found]] += 1
    return chance / len(orders)


@settings(max_examples=40, deadline=None)
@given(numbers=st.lists(st.integers(0, 2), min_size=1, max_size=5), start=st.integers(0, 2), k=st.integers(1, 5))
def test_chances_are_shares_of_all_orders(numbers: list[int], start: int, k: int) -> None:
    gallery, query = directions(numbers), directions([start])
    near = nearest(query, gallery, k + 1)
    expected = slow_chance(query[0], gallery, k)
    found = np.isin(np.arange(len(gallery)), near.rows[0, :k]).astype(float)
    for part in tied_hits(query, gallery, near, k):
        found = part.chance[0]
        assert_allclose(part.similarity, query @ gallery.T, atol=1e-7)
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("block", [1, 40, 10**6])
def test_only_queries_that_are_cut_within_equals_are_given_and_blocks_change_nothing(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ties, "SIMILARITIES_PER_BLOCK", block)
    queries, gallery = directions([0, 9, 1]), directions([0, 1, 1, 3, 9, 8])
    parts = list(tied_hits(queries, gallery, nearest(queries, gallery, 3), 2))
    assert np.concatenate([part.queries for part in parts]).tolist() == [0]
    assert np.concatenate([part.chance for part in parts]).tolist() == [[1, 0.5, 0.5, 0, 0, 0]]


def test_without_equals_and_with_the_whole_gallery_there_are_none() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 5))
    assert not list(tied_hits(rows, rows, nearest(rows, rows, 4), 3))
    zeros = np.zeros((4, 5))
    assert not list(tied_hits(zeros, zeros, nearest(zeros, zeros, 5), 4))
