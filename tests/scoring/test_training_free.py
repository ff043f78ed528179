"""Centring and smoothing against plain loops."""

from itertools import product

import pytest
import torch
from reference import retrieval as reference
from torch.testing import assert_close

from ucdir.scoring.training_free import centred, smoothed


def drawn(count, dim=5, seed=0):
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + 1
    return rows / rows.norm(dim=1, keepdim=True)


def test_centred_is_that_of_plain_loops():
    rows = drawn(20)
    assert_close(centred(rows), torch.tensor(reference.centred(rows.tolist())), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("neighbours", "rounds"), [(3, 1), (4, 3), (500, 2)])
def test_smoothed_is_that_of_plain_loops(neighbours, rounds):
    rows = drawn(20)
    expected = torch.tensor(reference.smoothed(rows.tolist(), neighbours, rounds))
    assert_close(smoothed(rows, neighbours, rounds), expected, rtol=1e-4, atol=1e-5)


def test_a_shift_common_to_the_domain_disappears():
    rows = drawn(200, dim=32).double()
    assert_close(centred(rows + 5.0), centred(rows), rtol=0, atol=1e-5)


def test_block_size_changes_nothing():
    rows = drawn(50)
    assert torch.equal(smoothed(rows, 5, 2, block_size=7), smoothed(rows, 5, 2))


@pytest.mark.parametrize("neighbours", [1, 2, 3, 4, 6])
def test_equally_similar_neighbours_count_in_part(neighbours):
    """The middles of the edges of a cube have four neighbours at cosine 1 / 2 each, whose mean has their own direction."""
    rows = torch.tensor([corner for corner in product((-1.0, 0.0, 1.0), repeat=3) if sum(map(abs, corner)) == 2])
    rows = rows / 2**0.5
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    assert_close(smoothed(rows, neighbours, 1), rows, rtol=0, atol=1e-6)
    tilted = torch.nn.functional.normalize(rows + torch.tensor([0.0, 0.0, 3.0]), dim=1)
    assert_close(smoothed(tilted[order], neighbours, 2), smoothed(tilted, neighbours, 2)[order], rtol=0, atol=1e-6)


def test_a_tied_neighbour_by_hand():
    """One neighbour is wanted; two are at cosine 1 / 2, so each counts half with its weight of 1 / 8."""
    rows = torch.tensor(
        [[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [1.0, 0.0, -1.0], [-1.0, -1.0, 0.0], [-1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]]
    )
    rows = rows / 2**0.5
    averaged = rows[0] + (rows[1] + rows[2]) / 16
    first = torch.nn.functional.normalize(averaged, dim=0)
    assert_close(smoothed(rows, 1, 1)[0], first, rtol=0, atol=1e-6)


def test_a_lone_image_becomes_zero():
    assert torch.equal(centred(drawn(1)), torch.zeros(1, 5))
    assert torch.equal(smoothed(drawn(1)), torch.zeros(1, 5))


def test_smoothing_draws_clusters_together():
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(4).repeat_interleave(50, dim=0)
    rows = centres + 0.4 * torch.randn(200, 4, generator=generator)
    rows, labels = rows / rows.norm(dim=1, keepdim=True), torch.arange(200) // 50
    own = labels[:, None] == labels
    spread = [(part @ part.T)[own].mean() - (part @ part.T)[~own].mean() for part in (centred(rows), smoothed(rows, 20))]
    assert spread[1] > spread[0] + 0.1


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="neighbours=0"):
        smoothed(drawn(3), neighbours=0)
