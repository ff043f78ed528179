"""The steps of align: against slow twins, by hand, by what must hold, and where there is next to nothing to learn from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import align as slow
from torch import Tensor

from ucdir.errors import UcdirError
from ucdir.learn.align import (
    Map,
    Pairs,
    Scatter,
    Seen,
    align,
    centred,
    groupings,
    memberships,
    pair_scatter,
    partners_across,
    partners_within,
    principal,
    prototypes,
    scatter,
    student,
    view_means,
    view_weights,
    whitening,
)
from ucdir.retrieval.neighbours import Near, average, choose_each_other, nearest_rows
from ucdir.settings import AlignSettings

CPU = torch.device("cpu")
SMALL = AlignSettings(dim=8, group_counts=(3, 5), neighbours=4)


def rows(count: int, dim: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def seen(values: Tensor, name: str = "photo") -> Seen:
    return Seen(name, values.numpy().astype(np.float16), CPU)


def two_styles(images: int = 60, classes: int = 4, views: int = 3, dim: int = 24, seed: int = 0) -> tuple[list[Seen], Tensor]:
    """Two domains of the same classes: class + style of the domain + image + view, where views differ in few directions."""
    generator = torch.Generator().manual_seed(seed)
    kinds, styles = torch.randn(classes, dim, generator=generator), 2 * torch.randn(2, dim, generator=generator)
    nuisance = torch.randn(3, dim, generator=generator)
    labels = torch.arange(images) % classes
    domains = []
    for number in range(2):
        own = kinds[labels] + styles[number] + 0.3 * torch.randn(images, dim, generator=generator)
        own = own + torch.randn(images, 3, generator=generator) @ nuisance
        varied = own[:, None] + torch.randn(images, views, 3, generator=generator) @ nuisance
        domains.append(seen(varied, f"domain {number}"))
    return domains, labels


# The map


def test_a_view_that_moves_a_mean_far_counts_little() -> None:
    """Gap 1; the second view does not move, the third moves one domain by 1: weights 1, 1 and 1 / 2."""
    here = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    there = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert torch.allclose(view_weights([here, there], [True, False, False]), torch.tensor([0.4, 0.4, 0.2]))
    assert torch.allclose(view_weights([here, there], [True, True, True]), torch.full((3,), 1 / 3))


def test_scatter_is_that_of_the_slow_twin() -> None:
    values = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(1)).half()
    weights = torch.tensor([0.5, 0.3, 0.2])
    domain = seen(values)
    found = scatter(domain, view_means(domain), weights)
    expected = slow.within(values.double().numpy(), weights.double().numpy())
    assert torch.allclose(found.within.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-6)
    assert torch.allclose(found.centres.mean(dim=0), torch.zeros(5), atol=1e-6)


def test_whitening_makes_what_differs_within_images_equally_small_everywhere() -> None:
    """map^T (within + shrinkage) map = 1: the theorem, and `between` becomes diagonal in rising order."""
    spread = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    within, between = spread[:20].T @ spread[:20], spread[20:].T @ spread[20:]
    projection = whitening(within, between, 0.3, 4).double()
    shrunk = within.double() + 0.3 * within.trace() / 6 * torch.eye(6, dtype=torch.float64)
    assert torch.allclose(projection.T @ shrunk @ projection, torch.eye(4, dtype=torch.float64), atol=1e-4)
    kept = projection.T @ between.double() @ projection
    assert torch.allclose(kept, torch.diag(kept.diagonal()), atol=1e-3)
    assert (kept.diagonal().diff() >= 0).all()


def test_pairs_enter_as_half_the_mean_outer_product_of_their_differences() -> None:
    one, other = rows(6, 4, 0), rows(5, 4, 1)
    first, second = [0, 0, 3, 5], [1, 2, 2, 4]
    scatters = [Scatter(torch.zeros(4, 4), one), Scatter(torch.zeros(4, 4), other)]
    pairs = [Pairs((0, 1), torch.tensor(first), torch.tensor(second), 2.0)]
    expected = slow.pair_moment(one.double().numpy(), other.double().numpy(), first, second)
    assert torch.allclose(pair_scatter(pairs, scatters).double(), torch.from_numpy(expected), atol=1e-6)


def test_the_rows_of_a_map_are_weighted_sums_of_unit_rows() -> None:
    views = torch.tensor([[[3.0, 0.0], [0.0, 5.0]]])
    found = Map(torch.tensor([0.75, 0.25]), torch.eye(2))(views)
    assert torch.allclose(found, torch.tensor([[0.75, 0.25]]))


# Groups


def test_memberships_are_those_of_the_slow_twin() -> None:
    own, groups = rows(5, 6), [rows(3, 6, 1), rows(4, 6, 2)]
    found = memberships(own, groups, 0.1)
    parts = [
        [slow.memberships(row, g, 0.1) for g in (group.double().numpy() for group in groups)] for row in own.double().numpy()
    ]
    expected = np.array([[np.sqrt(np.concatenate(one)) @ np.sqrt(np.concatenate(two)) / 2 for two in parts] for one in parts])
    assert np.allclose((found @ found.T).numpy(), expected, atol=1e-4)  # the mean Bhattacharyya similarity of two groupings


def test_prototypes_find_what_is_apart() -> None:
    tight = F.normalize(torch.eye(3).repeat_interleave(10, dim=0) + 0.01 * torch.randn(30, 3), dim=1)
    for balanced in (True, False):
        found = prototypes([tight[::2], tight[1::2]], 3, balanced, 0.05, np.random.default_rng(0))
        assert torch.allclose((found @ torch.eye(3)).amax(dim=0), torch.ones(3), atol=1e-2)


def test_groupings_are_those_of_their_seed_and_never_more_than_images() -> None:
    domains = [rows(3, 4), rows(4, 4, 1)]
    settings = AlignSettings(group_counts=(2, 50), groupings=1)
    found, again = (groupings(domains, settings, np.random.default_rng(3)) for _ in range(2))
    assert [len(group) for group in found] == [2, 7, 2, 7]
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


# Neighbours


def test_nearest_rows_do_not_depend_on_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, own = rows(9, 5), rows(20, 5, 1)
    whole = nearest_rows(queries, own, 4)
    monkeypatch.setattr("ucdir.retrieval.neighbours.SIMILARITIES_PER_BLOCK", 45)
    parts = nearest_rows(queries, own, 4)
    assert torch.equal(whole.rows, parts.rows)
    assert whole.rows.tolist() == (queries @ own.T).argsort(dim=1, descending=True)[:, :4].tolist()


def test_nearest_rows_can_leave_oneself_out_and_penalise_hubs() -> None:
    own = rows(6, 5)
    assert not (nearest_rows(own, own, 9, skip_self=True).rows == torch.arange(6)[:, None]).any()
    penalty = torch.tensor([0.0, 0, 0, 9, 0, 0])
    assert not (nearest_rows(own, own, 5, penalty=penalty).rows == 3).any()


def test_averages_weigh_by_the_cosine_cubed() -> None:
    near = Near(torch.tensor([[0.5, -0.2]]), torch.tensor([[0, 1]]))
    assert torch.allclose(average(torch.eye(2), near), torch.tensor([[1.0, 0.0]]))
    near = Near(torch.tensor([[1.0, 0.5]]), torch.tensor([[0, 1]]))
    assert torch.allclose(average(torch.eye(2), near), F.normalize(torch.tensor([[1.0, 0.125]]), dim=1))


def test_those_who_choose_each_other_are_those_of_the_slow_twin() -> None:
    one, other = rows(12, 3), rows(15, 3, 1)
    first, second = choose_each_other(nearest_rows(one, other, 3).rows, nearest_rows(other, one, 3).rows)
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == slow.mutual((one @ other.T).double().numpy(), 3)


def test_partners_across_correct_hubs() -> None:
    """Against twice the cosine less both mean similarities to the other side's ten nearest, all pairs at once."""
    one, other = rows(14, 3), rows(16, 3, 1)
    cosine = (one @ other.T).double()
    fair = 2 * cosine - cosine.topk(10, dim=1).values.mean(dim=1)[:, None] - cosine.topk(10, dim=0).values.mean(dim=0)
    first, second = partners_across(one, other, 2)
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == slow.mutual(fair.numpy(), 2)


def test_partners_within_are_never_oneself() -> None:
    first, second = partners_within(rows(30, 4))
    assert len(first) > 0
    assert (first != second).all()


# Learning from the groups


def test_a_student_is_ridge_regression_on_the_views_with_every_domain_counting_the_same() -> None:
    """Against the normal equations, view by view."""
    domains = [seen(torch.randn(8, 3, 5), "a"), seen(torch.randn(20, 3, 5), "b")]
    weights = torch.tensor([0.5, 0.3, 0.2])
    means = [view_means(domain) for domain in domains]
    scatters = [scatter(domain, mean, weights) for domain, mean in zip(domains, means, strict=True)]
    targets = [rows(8, 4), rows(20, 4, 1)]
    second, both = np.zeros((5, 5)), np.zeros((5, 4))
    for domain, mean, target in zip(domains, means, targets, strict=True):
        views = slow.unit(domain.features.astype(np.float64)) - mean.double().numpy()
        for image, wanted in zip(views, target.double().numpy(), strict=True):
            for weight, view in zip(weights.tolist(), image, strict=True):
                second += weight * np.outer(view, view) / len(views) / 2
                both += weight * np.outer(view, wanted) / len(views) / 2
    expected = np.linalg.solve(second + 0.3 * np.trace(second) / 5 * np.eye(5), both)
    assert np.allclose(student(scatters, targets, 0.3).numpy(), expected, atol=1e-4)


def test_leading_directions_keep_the_similarities_when_all_are_kept() -> None:
    parts = [centred(rows(9, 4)), centred(rows(7, 4, 1))]
    parts = [part - part.mean(dim=0) for part in parts]
    for before, after in zip(parts, principal(parts, 10), strict=True):
        assert after.shape == before.shape
        assert torch.allclose(centred(before) @ centred(before).T, after @ after.T, atol=1e-4)


# All of it


def hits(query: Tensor, gallery: Tensor, labels: Tensor, k: int = 5) -> float:
    return float((labels[(query @ gallery.T).topk(k, dim=1).indices] == labels[:, None]).float().mean())


def test_align_finds_across_styles_what_the_plain_features_do_not() -> None:
    domains, labels = two_styles()
    plain = [F.normalize(torch.from_numpy(domain.features[:, 0]).float(), dim=1) for domain in domains]
    found = align(domains, [True, True, True], SMALL)
    one, other = (domain.embeddings for domain in found.domains)
    assert hits(one, other, labels) > 0.9 > hits(plain[0], plain[1], labels)


def test_align_gives_the_same_bits_again_and_others_for_another_seed() -> None:
    domains, _ = two_styles(30)
    first, again, other = (align(domains, [True] * 3, SMALL, seed).domains[0].embeddings for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_of_many_images_a_sample_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    domains, labels = two_styles()
    monkeypatch.setattr("ucdir.learn.align.MAX_IMAGES", len(labels) // 2)
    one, other = align(domains, [True] * 3, SMALL).domains
    assert len(one.embeddings) == len(one.images) == len(labels) // 2
    assert sorted(set(one.images.tolist())) == one.images.tolist()
    assert hits(one.embeddings, other.embeddings, labels[torch.from_numpy(one.images)]) > 0.9


def test_three_domains_are_brought_together() -> None:
    domains, labels = two_styles()
    third, _ = two_styles(seed=0)
    shifted = seen(torch.from_numpy(third[0].features).float() + 1.5, "third")
    found = align([*domains, shifted], [True] * 3, SMALL)
    assert hits(found.domains[2].embeddings, found.domains[1].embeddings, labels) > 0.9


@pytest.mark.parametrize("count", [4, 5, 8])
def test_a_handful_of_images_gives_finite_rows(count: int) -> None:
    domains = [seen(torch.randn(count, 3, 12), "few"), seen(torch.randn(count + 2, 3, 12), "more")]
    for domain in align(domains, [True] * 3, AlignSettings()).domains:
        assert domain.embeddings.isfinite().all()


@pytest.mark.parametrize("views", [1, 3])
def test_images_that_are_all_the_same_give_finite_rows(views: int) -> None:
    """One view after the other the same, too."""
    same = torch.randn(1, views, 12).repeat(10, 3 // views, 1)
    for domain in align([seen(same), seen(-same, "other")], [True] * 3, SMALL).domains:
        assert domain.embeddings.isfinite().all()


@pytest.mark.parametrize(("value", "reason"), [(float("nan"), "NaN or infinity"), (0.0, "only zeros")])
def test_features_of_a_broken_network_end_in_a_sentence(value: float, reason: str) -> None:
    domains = [seen(torch.randn(10, 3, 12)), seen(torch.full((10, 3, 12), value), "sketch")]
    with pytest.raises(UcdirError, match=f"{reason}.*'sketch'"):
        align(domains, [True] * 3, SMALL)
