"""Which queries are shown: by hand-made figures."""

import numpy as np
import pytest

from ucdir.scoring.picks import pick_extremes, sample_rows, shares

NO_CLASS = np.full(7, -1)


def test_highest_median_and_lowest_by_hand() -> None:
    values = np.array([0.1, 0.9, 0.5, 0.4, 0.6, 0.8, 0.2])  # median 0.5
    assert pick_extremes(values, NO_CLASS, 2) == ((1, 5), (2, 3), (0, 6))


def test_no_class_stands_twice_in_a_list() -> None:
    values, classes = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.5]), np.array([0, 0, 1, 1, 1, 0, 0])
    highest, middling, lowest = pick_extremes(values, classes, 2)
    assert highest == (0, 2)
    assert lowest == (3, 5)
    assert middling == (6, 4)  # of class 0 the median itself, then the nearest of class 1 that is left


def test_equal_values_go_by_row_and_no_row_is_shown_twice() -> None:
    assert pick_extremes(np.zeros(4), NO_CLASS[:4], 1) == ((0,), (2,), (1,))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_rows_give_few(count: int) -> None:
    lists = pick_extremes(np.arange(count, dtype=np.float64), NO_CLASS[:count], 3)
    rows = [row for chosen in lists for row in chosen]
    assert sorted(rows) == list(range(count))


def test_a_sample_is_rising_drawn_from_the_seed_and_everything_where_that_fits() -> None:
    drawn = sample_rows(100, 10, seed=3)
    assert len(set(drawn.tolist())) == 10
    assert drawn.tolist() == sorted(drawn.tolist()) == sample_rows(100, 10, seed=3).tolist()
    assert drawn.tolist() != sample_rows(100, 10, seed=4).tolist()
    assert sample_rows(3, 10, seed=0).tolist() == [0, 1, 2]


def test_shares_are_in_proportion_and_leave_no_set_out() -> None:
    assert shares([10, 30], 100) == (10, 30)
    assert shares([100, 300], 40) == (10, 30)
    assert shares([1, 10_000], 50) == (1, 49)
    assert shares([0, 100], 10) == (0, 10)
