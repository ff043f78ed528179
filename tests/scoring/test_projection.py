"""The plane of the map."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ucdir.scoring.projection import principal_plane


def test_points_on_a_line_keep_all_their_variance_and_their_order() -> None:
    rows = np.outer(np.array([3.0, 1.0, 2.0]), np.array([0.6, 0.8, 0.0])).astype(np.float32)
    plane = principal_plane(rows)
    assert_allclose(plane.points[:, 0], [1, -1, 0], atol=1e-6)
    assert_allclose(plane.points[:, 1], 0, atol=1e-6)
    assert plane.kept[0] == pytest.approx(1.0)


def test_distances_in_a_plane_are_kept_and_shifts_change_nothing() -> None:
    rng = np.random.default_rng(0)
    flat = np.zeros((20, 6), np.float32)
    flat[:, [1, 4]] = rng.standard_normal((20, 2))
    plane = principal_plane(flat)
    assert sum(plane.kept) == pytest.approx(1.0)
    assert_allclose(np.linalg.norm(plane.points[3] - plane.points[7]), np.linalg.norm(flat[3] - flat[7]), rtol=1e-5)
    assert_allclose(principal_plane(flat + 2).points, plane.points, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_rows_lie_at_nought(count: int) -> None:
    points = principal_plane(np.ones((count, 4), np.float32)).points
    assert_allclose(points, 0)
