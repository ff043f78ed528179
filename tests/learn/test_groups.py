"""Groups of alike images, which of them correspond, and what similarities mean."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ucdir.learn.calibration import NOTHING, calibrated, fitted
from ucdir.learn.groups import Link, find_groups, group_ids
from ucdir.model.confidence import Confidence, Curve


def kinds(which: list[int], each: int = 40, spread: float = 0.08, seed: int = 0, dim: int = 32) -> Tensor:
    """(len(which) * each, dim) unit rows around unit vectors, `which` says around which."""
    noise = torch.randn(len(which) * each, dim, generator=torch.Generator().manual_seed(seed))
    return F.normalize(torch.eye(dim)[torch.tensor(which).repeat_interleave(each)] + spread * noise, dim=1)


def test_groups_are_what_lies_apart_the_largest_first() -> None:
    rows = torch.cat([kinds([0], 25), kinds([1], 60, seed=1), kinds([2], 30, seed=2)])
    expected = np.repeat([2, 0, 1], [25, 60, 30])
    assert np.array_equal(group_ids(rows), expected)


def test_a_few_strays_join_the_nearest_group() -> None:
    stray = F.normalize(torch.eye(32)[:1] + 0.6 * torch.eye(32)[5:6], dim=1)
    found = group_ids(torch.cat([kinds([0, 1], 60), stray]))
    assert found[-1] == found[0]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_hardly_any_images_are_one_group_at_most(count: int) -> None:
    assert group_ids(kinds([0], count)).tolist() == [0] * count if count else len(group_ids(torch.empty(0, 32))) == 0


def test_groups_of_the_same_kind_correspond_and_private_ones_stay_alone() -> None:
    found = find_groups([kinds([0, 1, 2]), kinds([1, 2, 3], seed=1)])
    assert [group.domain for group in found.groups] == [0, 0, 0, 1, 1, 1]
    kind = {number: int(group.rows[0]) // 40 + group.domain for number, group in enumerate(found.groups)}
    assert {(kind[link.one], kind[link.other]) for link in found.links} == {(1, 1), (2, 2)}
    assert all(link.certainty > 0.9 for link in found.links)
    assert [kind[number] for number in kind if not found.partners(number)] == [0, 3]


def test_a_link_tells_the_partner_of_either() -> None:
    assert Link(2, 5, 0.5).partner_of(2) == 5
    assert Link(2, 5, 0.5).partner_of(5) == 2


def test_a_curve_fits_what_it_is_shown() -> None:
    """Probabilities of a logistic curve, seen often enough, give it back."""
    values = np.linspace(0, 1, 20_000)
    chance = Curve(0.4, 0.1)(values)
    right = (np.random.default_rng(0).random(len(values)) < chance).astype(float)
    found = fitted(values, right)
    assert found.middle == pytest.approx(0.4, abs=0.02)
    assert found.width == pytest.approx(0.1, rel=0.1)


def test_a_value_that_tells_nothing_gives_one_half() -> None:
    found = fitted(np.array([0.1, 0.9, 0.2, 0.8]), np.array([1.0, 0.0, 1.0, 0.0]))
    assert np.allclose(found(np.array([0.0, 0.5, 1.0])), 0.5, atol=1e-3)


def test_confidence_tells_private_images_from_shared_ones() -> None:
    rows = [kinds([0, 1, 2]), kinds([1, 2, 3], seed=1)]
    sure = calibrated(rows, find_groups(rows))
    similarity = (rows[0] @ rows[1].T).topk(20, dim=1).values.numpy()
    exists = sure.of_queries(similarity)
    assert exists[:40].max() < 0.5 < exists[40:].min()
    assert sure.of_hits(similarity, exists)[40:, 0].min() > 0.5


def test_without_groups_that_correspond_nothing_is_sure() -> None:
    rows = [kinds([0, 1]), kinds([2, 3], seed=1)]
    sure = calibrated(rows, find_groups(rows))
    assert sure == Confidence(NOTHING, NOTHING)
    assert sure.of_queries(np.ones((1, 20))).max() < 0.01


def test_numbers_of_a_confidence_give_it_back() -> None:
    sure = Confidence(Curve(0.1, 0.2), Curve(0.3, 0.4))
    assert Confidence.of_numbers(sure.numbers()) == sure
    assert Confidence.of_numbers(()) is None


def test_a_curve_for_another_share_is_what_would_have_been_learned_there() -> None:
    """Bayes: of 1,000 values that hold and 1,000 that do not, leaving out three of four that do not makes the share 4 of 5."""
    values = np.linspace(0, 1, 20_000)
    rng = np.random.default_rng(0)
    right = rng.random(len(values)) < Curve(0.5, 0.1)(values)
    kept = right | (rng.random(len(values)) < 0.25)
    expected = fitted(values[kept], right[kept].astype(float))
    found = fitted(values, right.astype(float)).at_base_rate(0.8)
    assert found.middle == pytest.approx(expected.middle, abs=0.02)
    assert found.width == pytest.approx(expected.width, rel=0.1)
