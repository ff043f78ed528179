"""Figures of an epoch that need no labels."""

import math
from collections.abc import Sequence
from dataclasses import astuple
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from ucdir.learn import label_free
from ucdir.learn.clusters import Clusters, kmeans
from ucdir.learn.label_free import (
    Reference,
    cycle_agreement,
    label_free_scores,
    make_reference,
    mutual_information,
    nearest_images,
    one_hot,
    rand_index,
    sampled_images,
    training_free_agreement,
)
from ucdir.scoring.training_free import smoothed


def rows(count: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def clustered(data: Tensor, count: int) -> Clusters:
    return kmeans(data, count, 20, 2, torch.Generator().manual_seed(0))


def reference(features: Sequence[Tensor]) -> Reference:
    return make_reference(features, [torch.arange(len(found)) for found in features])


def test_mutual_information_by_hand() -> None:
    """Halves that agree tell log 2 of each other, halves that cross tell nothing."""
    assert mutual_information(torch.tensor([[0.0, 2.0], [2.0, 0.0]])) == pytest.approx(math.log(2))
    assert mutual_information(torch.ones(2, 2)) == pytest.approx(0, abs=1e-12)
    assert mutual_information(torch.tensor([[2.0], [2.0]])) == 0
    three = mutual_information(torch.tensor([[2.0, 0.0], [1.0, 1.0]]).double())
    assert three == pytest.approx(math.log(2) - (0.75 * math.log(3) - 0.5 * math.log(2)))


def test_a_reference_has_the_first_hits_of_the_smoothed_rows() -> None:
    features = [3 * rows(100), 2 * rows(60, seed=1)]
    found = reference(features)
    one, other = (smoothed(F.normalize(part, dim=1)) for part in features)
    assert [tuple(hits.shape) for hits in found.hits] == [(100, 3), (60, 5)]
    assert found.hits[0].tolist() == (one @ other.T).topk(3).indices.tolist()
    assert found.hits[1].tolist() == (other @ one.T).topk(5).indices.tolist()


def test_agreement_of_the_smoothed_rows_themselves_is_whole_and_of_their_opposites_is_none() -> None:
    features = [rows(100), rows(60, seed=1)]
    own = [smoothed(part) for part in features]
    assert training_free_agreement(own, reference(features)) == 1
    assert training_free_agreement([own[0], -own[1]], reference(features)) == 0


def test_agreement_by_hand() -> None:
    """Of two hits of each of two images, one is shared by the first and none by the second; back, both are equally similar
    to images at right angles to them.
    """
    there = Reference((torch.arange(2), torch.arange(40)), (torch.tensor([[0, 5], [2, 3]]), torch.zeros(40, 1).long()))
    gallery = torch.full((40, 3), 0.0)
    gallery[[0, 1]], gallery[[2, 3]] = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([-1.0, 0.1, 0.0])
    gallery[4:] = torch.tensor([0.0, 0.0, 1.0])
    queries = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.01, 0.0]])
    back = (2 + 0 + 36 / 2) / 40  # images 0 and 1 find query 0, 2 and 3 query 1, the others either of them
    assert training_free_agreement([queries, gallery], there) == pytest.approx((0.25 + back) / 2)


def test_embeddings_that_are_all_equal_agree_as_chance_does_and_tell_nothing() -> None:
    features = [rows(100), rows(60, seed=1)]
    found = reference(features)
    for same in (torch.zeros(1, 8), rows(1, seed=2)):
        collapsed = [same.expand(100, 8), same.expand(60, 8)]
        assert training_free_agreement(collapsed, found) == pytest.approx((3 / 60 + 5 / 100) / 2, rel=1e-12)
        clusterings = [clustered(part, 4) for part in features]
        scores = label_free_scores(collapsed, clusterings, None, found)
        assert scores.cluster_information == pytest.approx(0, abs=1e-12)
        shares = [torch.bincount(clusters.assignment).double() / len(clusters.assignment) for clusters in clusterings]
        assert scores.cycle_agreement == pytest.approx(float(sum(part.square().sum() for part in shares) / 2), rel=1e-12)


def test_the_order_of_the_images_changes_nothing() -> None:
    """Many images are equal; clusters move with the images."""
    generator = torch.Generator().manual_seed(5)
    data = [rows(9, seed=i)[torch.randint(9, (40,), generator=generator)] for i in range(2)]
    found = [Clusters(torch.randint(4, (40,), generator=generator), rows(4), 0.0) for _ in data]
    orders = [torch.randperm(40, generator=generator) for _ in data]
    features = [rows(40, seed=7), rows(40, seed=8)]
    one = label_free_scores(data, found, None, reference(features))
    moved = [part[order] for part, order in zip(data, orders, strict=True)]
    clusters = [Clusters(c.assignment[order], c.prototypes, 0.0) for c, order in zip(found, orders, strict=True)]
    other = label_free_scores(moved, clusters, None, reference([f[order] for f, order in zip(features, orders, strict=True)]))
    assert astuple(other) == pytest.approx(astuple(one), rel=1e-6)


def test_few_images_are_all_looked_at_and_of_many_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_free, "REFERENCE_IMAGES", 50)
    assert sampled_images(50, torch.Generator()).tolist() == list(range(50))
    one, again, other = (sampled_images(500, torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2))
    assert one == again == sorted(set(one))
    assert len(one) == 50
    assert one != other


def test_only_sampled_images_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [torch.arange(0, 100, 2), torch.arange(0, 60, 3)]
    whole = [rows(100), rows(60, seed=1)]
    found = make_reference([part[which] for part, which in zip(whole, ids, strict=True)], ids)
    own = [part.clone() for part in whole]
    for part, which in zip(own, ids, strict=True):
        part[which] = smoothed(part[which])
    assert training_free_agreement(own, found) == 1


def slow_rand(one: list[int], other: list[int]) -> float:
    pairs = list(combinations(range(len(one)), 2))
    return sum((one[a] == one[b]) == (other[a] == other[b]) for a, b in pairs) / len(pairs)


@settings(deadline=None, max_examples=50)
@given(data=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=25))
def test_rand_index_is_the_share_of_agreeing_pairs(data: list[tuple[int, int]]) -> None:
    one, other = map(list, zip(*data, strict=True))
    assert_close(rand_index(torch.tensor(one), torch.tensor(other)), slow_rand(one, other), rtol=1e-12, atol=1e-12)


def test_rand_index_by_hand() -> None:
    """Pairs of 4 images: 01 and 23 together against 012 together; 01, 03, 13 agree of six."""
    assert rand_index(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])) == pytest.approx(3 / 6)


@pytest.mark.parametrize("one", [[0], [0, 1, 1, 2], [5, 5, 5]])
def test_rand_index_of_a_renamed_clustering_is_one(one: list[int]) -> None:
    assert rand_index(torch.tensor(one), 7 - torch.tensor(one)) == 1


def test_cycle_agreement_by_hand() -> None:
    """Both rows of cluster 0 and 1 go to the same other image, whose nearest is row 0: only cluster 0 comes home."""
    data, others = torch.tensor([[1.0, 0.0], [0.8, 0.6]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert cycle(data, others, torch.tensor([0, 1])) == 0.5


def test_cycle_agreement_of_equal_images_by_hand() -> None:
    """The two others are equal and have two equal nearest images, one of each cluster: half of all ways lead home."""
    data, others = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.9, 0.1]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert cycle(data, others, torch.tensor([0, 1, 1])) == pytest.approx((1 / 2 + 1 / 2 + 1 / 2) / 3)


def cycle(data: Tensor, others: Tensor, assignment: Tensor) -> float:
    back = nearest_images(others, data).mean(one_hot(assignment))
    return cycle_agreement(nearest_images(data, others).mean(back), assignment)


def test_identical_domains_agree_wholly() -> None:
    data = rows(40)
    found = clustered(data, 4)
    both = [data, data.clone()]
    scores = label_free_scores(both, [found, found], [found, found], reference(both))
    assert (scores.cycle_agreement, scores.cluster_stability) == (1.0, 1.0)
    assert scores.centre_similarity == pytest.approx(1.0, abs=1e-6)
    shares = torch.bincount(found.assignment) / 40
    assert scores.cluster_information == pytest.approx(float(torch.special.entr(shares).sum()), rel=1e-6)
    assert scores.score == scores.cluster_information * scores.training_free_agreement


def test_the_mean_of_the_nearest_image_is_its_value() -> None:
    data, others, values = rows(10), rows(13, seed=1), rows(13, seed=2).double()
    expected = np.argmax(data.numpy() @ others.numpy().T, axis=1)
    assert torch.equal(nearest_images(data, others).mean(values), values[torch.from_numpy(expected)])


def test_scores_of_three_domains_lie_between_zero_and_one() -> None:
    data = [rows(20 + i, seed=i) for i in range(3)]
    found = [clustered(part, 3) for part in data]
    scores = label_free_scores(data, found, None, reference(data))
    assert scores.cluster_stability == 0
    assert 0 <= scores.cycle_agreement <= 1
    assert 0 <= scores.centre_similarity <= 1


def test_opposite_domains_have_centre_similarity_zero() -> None:
    data = rows(20) + 2
    found = clustered(data, 2)
    assert label_free_scores([data, -data], [found, found], None, reference([data, -data])).centre_similarity == pytest.approx(
        0, abs=1e-6
    )
