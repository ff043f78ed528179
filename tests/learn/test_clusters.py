"""k-means and the figures that need no labels."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from ucdir.errors import UcdirError
from ucdir.learn import clusters
from ucdir.learn.clusters import Clusters, kmeans
from ucdir.learn.label_free import rand_index


def rows(m: int, d: int = 4, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(m, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def clustered(data: Tensor, count: int, iterations: int = 20, restarts: int = 2, seed: int = 0) -> Clusters:
    return kmeans(data, count, iterations, restarts, torch.Generator().manual_seed(seed))


def centroids(data: Tensor, found: Clusters) -> Tensor:
    return torch.stack([data[found.assignment == c].mean(dim=0) for c in range(len(found.prototypes))])


few = settings(max_examples=20, deadline=None, derandomize=True)


@few
@given(seed=st.integers(0, 1000), m=st.integers(2, 30), share=st.floats(0, 1))
def test_every_image_is_in_one_cluster_and_prototypes_are_unit_rows(seed: int, m: int, share: float) -> None:
    count = max(2, round(share * m))
    found = clustered(rows(m, seed=seed), count)
    assert found.assignment.shape == (m,)
    assert found.assignment.dtype == torch.int64
    assert int(found.assignment.min()) >= 0
    assert int(found.assignment.max()) < count
    assert_close(found.prototypes.norm(dim=1), torch.ones(count))
    assert found.inertia >= 0


@pytest.mark.parametrize("seed", range(3))
def test_converged_clusters_are_consistent(seed: int) -> None:
    """Each prototype is the direction of its images' mean, each image is with its nearest mean, inertia is their sum."""
    data = rows(60, seed=seed)
    found = clustered(data, 5, iterations=100)
    means = centroids(data, found)
    assert_close(F.normalize(means, dim=1), found.prototypes, rtol=1e-4, atol=1e-5)
    distances = torch.cdist(data, means).square()
    assert torch.equal(distances.argmin(dim=1), found.assignment)
    assert_close(found.inertia, float(distances.min(dim=1).values.sum()), rtol=1e-4, atol=0)


def test_a_cluster_that_loses_all_its_images_starts_again_far_from_the_others() -> None:
    """Two starts on one place: one of them has no images until it is moved to the image farthest from its centroid."""
    near = F.normalize(torch.tensor([1.0, 0, 0, 0]) + 0.3 * torch.eye(4)[1:], dim=1)
    data = torch.cat([near[[0]].repeat(5, 1), near[[1]].repeat(5, 1), near[[2]].repeat(2, 1)])
    found = clusters._lloyd(data, near[[0, 1, 1]], iterations=20)
    assert torch.bincount(found.assignment, minlength=3).tolist() in ([5, 5, 2], [5, 2, 5])
    assert found.inertia == pytest.approx(0, abs=1e-6)


def test_the_same_seed_gives_the_same_clusters() -> None:
    one, other = clustered(rows(50), 6), clustered(rows(50), 6)
    assert torch.equal(one.assignment, other.assignment)
    assert torch.equal(one.prototypes, other.prototypes)


def test_more_restarts_never_loosen() -> None:
    inertia = [clustered(rows(80), 9, iterations=3, restarts=n).inertia for n in (1, 2, 5)]
    assert inertia == sorted(inertia, reverse=True)


def test_as_many_clusters_as_images() -> None:
    found = clustered(rows(7), 7)
    assert sorted(found.assignment.tolist()) == list(range(7))
    assert found.inertia == pytest.approx(0, abs=1e-5)


def test_images_that_are_all_alike() -> None:
    found = clustered(rows(1).repeat(6, 1), 3)
    assert found.inertia == pytest.approx(0, abs=1e-5)
    assert torch.isfinite(found.prototypes).all()


def test_fewer_different_images_than_clusters() -> None:
    found = clustered(torch.eye(3).repeat(4, 1), 5)
    assert found.inertia == pytest.approx(0, abs=1e-5)
    assert torch.isfinite(found.prototypes).all()


def groups(m: int, count: int, seed: int = 0, spread: float = 0.3) -> Tensor:
    """Unit rows around `count` directions."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(count, 8, generator=generator)
    drawn = centres[torch.randint(count, (m,), generator=generator)]
    return F.normalize(drawn + spread * torch.randn(m, 8, generator=generator), dim=1)


def test_many_images_are_all_clustered_and_as_tightly_as_without_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inertia is that of all rows about their means, and close to what starts on all rows find."""
    data = groups(3000, 12)
    whole = clustered(data, 20)
    monkeypatch.setattr(clusters, "MIN_SAMPLE_ROWS", 100)
    found = clustered(data, 20, iterations=100)
    means = centroids(data, found)
    assert found.assignment.shape == (3000,)
    assert_close(found.inertia, float((data - means[found.assignment]).square().sum()), rtol=1e-5, atol=0)
    assert found.inertia <= whole.inertia * 1.03


@pytest.mark.parametrize("block", [1, 7, 64])
def test_the_block_of_rows_changes_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = groups(200, 5)
    whole = clustered(data, 6)
    monkeypatch.setattr(clusters, "MAX_ROWS_PER_BLOCK", block)
    found = clustered(data, 6)
    assert torch.equal(found.assignment, whole.assignment)
    assert_close(found.inertia, whole.inertia, rtol=1e-6, atol=0)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_does_not_change_the_clusters(threads: int) -> None:
    data = groups(20_000, 40)
    expected, before = clustered(data, 50), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = clustered(data, 50)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found.assignment, expected.assignment)
    assert torch.equal(found.prototypes, expected.prototypes)


def test_a_warm_start_goes_on_where_it_was() -> None:
    """Nothing moved, and a fresh start that may not move finds nothing better: names and members stay."""
    data = groups(300, 6)
    first = clustered(data, 6, iterations=100, restarts=5)
    again = kmeans(data, 6, 1, 1, torch.Generator().manual_seed(5), first.assignment)
    assert again.inertia <= first.inertia * (1 + 1e-6)
    if not torch.equal(again.assignment, first.assignment):
        assert again.inertia < first.inertia


def test_a_warm_start_never_loosens() -> None:
    """It is one more start beside a fresh one."""
    data = groups(300, 9, seed=2, spread=1.0)
    for seed in range(5):
        fresh = kmeans(data, 9, 5, 1, torch.Generator().manual_seed(seed))
        bad = torch.randint(9, (300,), generator=torch.Generator().manual_seed(seed))
        assert kmeans(data, 9, 5, 1, torch.Generator().manual_seed(seed), bad).inertia <= fresh.inertia


def test_a_warm_start_follows_images_that_moved() -> None:
    """The means are those of the new rows: a turn of all of them keeps every image in its cluster."""
    data = groups(300, 6)
    first = clustered(data, 6, iterations=100, restarts=5)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3))).Q
    found = kmeans(data @ turn, 6, 20, 1, torch.Generator().manual_seed(0), first.assignment)
    assert found.inertia == pytest.approx(first.inertia, rel=1e-4)
    assert rand_index(found.assignment, first.assignment) > 0.999


def test_a_warm_start_with_clusters_that_are_empty_now() -> None:
    data = groups(50, 5)
    found = kmeans(data, 5, 20, 1, torch.Generator().manual_seed(0), torch.zeros(50, dtype=torch.int64))
    assert torch.isfinite(found.prototypes).all()
    assert len(found.assignment.unique()) == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings_that_are_not_finite_are_refused(value: float) -> None:
    data = rows(20)
    data[3, 1] = value
    with pytest.raises(UcdirError, match="1 of 20 embeddings are not finite"):
        clustered(data, 4)


def test_input_is_left_alone() -> None:
    data = rows(20)
    before = data.clone()
    clustered(data, 4)
    assert torch.equal(data, before)


def test_to_keeps_everything() -> None:
    found = clustered(rows(9), 3)
    moved = found.to("cpu")
    assert torch.equal(moved.assignment, found.assignment)
    assert moved.inertia == found.inertia
