"""Which class is found for which: by hand."""

import numpy as np
from numpy.testing import assert_allclose

from ucdir.retrieval.confusion import confusion


def test_by_hand() -> None:
    """Two queries of class 1 and one of class 4; class 2 is only found; the query without a class does not count."""
    queries = np.array([1, 4, -1, 1])
    hits = np.array([[1, 2], [4, 4], [1, 1], [1, -1]])
    found = confusion(queries, hits)
    assert found.query_classes.tolist() == [1, 4]
    assert found.hit_classes.tolist() == [1, 2, 4, -1]
    assert found.queries.tolist() == [2, 1]
    assert_allclose(found.share, [[0.5, 0.25, 0, 0.25], [0, 0, 1, 0]])


def test_perfect_answers_lie_on_the_diagonal() -> None:
    classes = np.repeat(np.arange(3), 2)
    found = confusion(classes, np.repeat(classes[:, None], 5, axis=1))
    assert_allclose(found.share, np.eye(3))


def test_rows_sum_to_one_and_the_order_of_queries_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    queries, hits = rng.integers(-1, 5, 40), rng.integers(-1, 6, (40, 5))
    found = confusion(queries, hits)
    assert_allclose(found.share.sum(axis=1), 1)
    order = rng.permutation(40)
    assert_allclose(confusion(queries[order], hits[order]).share, found.share)


def test_without_queries_there_is_nothing() -> None:
    found = confusion(np.array([-1, -1]), np.array([[0], [1]]))
    assert found.share.shape == (0, 0)
