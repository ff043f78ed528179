"""Which class is found for which: by hand."""

import numpy as np
from numpy.testing import assert_allclose

from ucdir.retrieval.exact_search import nearest
from ucdir.scoring.confusion import Confusion, confusion


def counted(queries: np.ndarray, gallery: np.ndarray, query_classes: object, gallery_classes: object, k: int) -> Confusion:
    near = nearest(queries, gallery, k + 1)
    return confusion(queries, gallery, np.array(query_classes), np.array(gallery_classes), near, k)


def drawn(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4))


def test_by_hand() -> None:
    """Two queries of class 1 and one of class 4; class 2 is only found; the query without a class does not count."""
    queries = np.array([[1, 0.2, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0.3]])
    gallery = np.array([[1, 0, 0], [1, 0.1, 0], [0, 0, 1], [0.1, 0, 1], [0, 1, 0], [0, 1, 0.1], [-1, 0, -1]])
    found = counted(queries, gallery, [1, 4, -1, 1], [1, 2, 4, 4, 1, -1, 9], 2)
    assert found.query_classes.tolist() == [1, 4]
    assert found.hit_classes.tolist() == [1, 2, 4, -1]
    assert found.queries.tolist() == [2, 1]
    assert_allclose(found.share, [[0.5, 0.25, 0, 0.25], [0, 0, 1, 0]])


def test_a_class_that_nothing_finds_keeps_its_column() -> None:
    rows = np.eye(2)
    found = counted(rows, rows, [3, 5], [5, 5], 1)
    assert found.hit_classes.tolist() == [3, 5]
    assert found.share.tolist() == [[0, 1], [0, 1]]


def test_perfect_answers_lie_on_the_diagonal() -> None:
    classes = np.repeat(np.arange(3), 5)
    found = counted(np.eye(3)[classes], np.eye(3)[classes], classes, classes, 5)
    assert_allclose(found.share, np.eye(3))


def test_equal_hits_count_in_expectation() -> None:
    """One hit ahead, then one of four equal images: of each of two classes half as likely as together."""
    queries, gallery = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], *[[0.0, 1.0]] * 4])
    found = counted(queries, gallery, [0], [0, 0, 1, 1, 1], 2)
    assert_allclose(found.share, [[(1 + 1 / 4) / 2, 3 / 4 / 2]])


def test_an_encoder_of_zeros_finds_every_class_by_its_size() -> None:
    classes = np.repeat([0, 1, 2], [10, 20, 30])
    found = counted(np.zeros((60, 4)), np.zeros((60, 4)), classes, classes, 5)
    assert_allclose(found.share, [[1 / 6, 1 / 3, 1 / 2]] * 3)


def test_rows_sum_to_one_and_the_order_of_queries_and_gallery_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = drawn(40, 1), drawn(8, 2)[rng.integers(8, size=60)]  # many equal ones
    classes, gallery_classes = rng.integers(-1, 5, 40), rng.integers(-1, 6, 60)
    found = counted(queries, gallery, classes, gallery_classes, 5)
    assert_allclose(found.share.sum(axis=1), 1)
    order, other = rng.permutation(40), rng.permutation(60)
    moved = counted(queries[order], gallery[other], classes[order], gallery_classes[other], 5)
    assert_allclose(moved.share, found.share)


def test_without_queries_there_is_nothing() -> None:
    found = counted(drawn(2, 1), drawn(2, 2), [-1, -1], [0, 1], 1)
    assert found.share.shape == (0, 0)
