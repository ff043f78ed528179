"""The terms against slow twins, by their properties, by hand and at their edges."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import losses as slow
from torch import Tensor
from torch.testing import assert_close

from ucdir.learn import losses
from ucdir.learn.bank import MemoryBank
from ucdir.learn.clusters import Clusters
from ucdir.learn.losses import (
    assignment_distance,
    assignment_entropy,
    bank_logsumexp,
    cluster_contrast,
    confident,
    distance_of_distance,
    instance_contrast,
)


@dataclass
class Case:
    """One domain after its keys were written, and the prototypes of another."""

    query: Tensor
    key: Tensor
    bank: Tensor
    image_ids: Tensor
    assignment: Tensor
    prototypes: Tensor
    others: Tensor
    temperature: float = 0.2
    threshold: float = 0.2

    def to(self, dtype: torch.dtype) -> "Case":
        rows = {
            name: value.to(dtype)
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and value.is_floating_point()
        }
        return Case(**{**vars(self), **rows})

    def turned(self, rotation: Tensor) -> "Case":
        """All embeddings rotated together."""
        rows = {
            name: value @ rotation
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and value.is_floating_point()
        }
        return Case(**{**vars(self), **rows})

    def arrays(self, *names: str) -> list[np.ndarray]:
        return [getattr(self, name).numpy() for name in names]


def drawn(seed: int, n: int = 6, m: int = 17, d: int = 8, c: int = 4, others: int = 5, temperature: float = 0.2) -> Case:
    """Random unit rows in float64; every cluster has at least one image."""
    generator = torch.Generator().manual_seed(seed)

    def rows(number: int) -> Tensor:
        return F.normalize(torch.randn(number, d, generator=generator, dtype=torch.float64), dim=1)

    image_ids = torch.randperm(m, generator=generator)[:n]
    assignment = torch.cat([torch.arange(c), torch.randint(c, (m - c,), generator=generator)])
    assignment = assignment[torch.randperm(m, generator=generator)]
    query = rows(n)
    key = F.normalize(query + 0.5 * rows(n), dim=1)
    bank = MemoryBank(rows(m))
    bank.write(image_ids, key)
    return Case(query, key, bank.rows, image_ids, assignment, rows(c), rows(others), temperature)


def logsumexp(case: Case) -> Tensor:
    return bank_logsumexp(case.query, case.key, case.bank, case.image_ids, case.temperature)


def instance(case: Case) -> Tensor:
    return instance_contrast(logsumexp(case), case.query, case.key, case.temperature)


def cluster(case: Case) -> Tensor:
    own = case.assignment[case.image_ids]
    means = Clusters(case.assignment, case.prototypes, 0.0).bank_means(case.bank)
    counted = confident(case.key, case.prototypes, own, case.temperature, case.threshold)
    return cluster_contrast(logsumexp(case), case.query, means, own, counted, case.temperature)


def entropy(case: Case) -> Tensor:
    return assignment_entropy(case.query, case.others, case.temperature)


def distance(case: Case) -> Tensor:
    return distance_of_distance(case.query, case.prototypes, case.others, case.temperature)


def slow_instance(case: Case) -> float:
    return slow.instance_contrast(*case.arrays("query", "key", "bank", "image_ids"), case.temperature)


def slow_cluster(case: Case) -> float:
    arrays = case.arrays("query", "key", "bank", "image_ids", "assignment", "prototypes")
    return slow.cluster_contrast(*arrays, case.temperature, case.threshold)


def slow_entropy(case: Case) -> float:
    return slow.assignment_entropy(*case.arrays("query", "others"), case.temperature)


def slow_distance(case: Case) -> float:
    return slow.distance_of_distance(*case.arrays("query", "prototypes", "others"), case.temperature)


Term = Callable[[Case], Tensor]
TERMS: list[Term] = [instance, cluster, entropy, distance]
TWINS = list(zip(TERMS, [slow_instance, slow_cluster, slow_entropy, slow_distance], strict=True))
cases = st.builds(
    drawn,
    seed=st.integers(0, 10_000),
    n=st.integers(1, 7),
    m=st.integers(7, 19),
    d=st.integers(2, 9),
    c=st.integers(2, 6),
    others=st.integers(2, 6),
    temperature=st.sampled_from([0.05, 0.2, 1.0]),
)
few = settings(max_examples=25, deadline=None, derandomize=True)


# Slow twins


@pytest.mark.parametrize(("term", "twin"), TWINS, ids=[term.__name__ for term in TERMS])
@few
@given(case=cases)
def test_equals_the_slow_twin_in_double_precision(term: Term, twin: Callable[[Case], float], case: Case) -> None:
    assert_close(float(term(case)), twin(case), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("term", "twin"), TWINS, ids=[term.__name__ for term in TERMS])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_slow_twin_in_single_precision(term: Term, twin: Callable[[Case], float], seed: int) -> None:
    case = drawn(seed, n=12, m=40, d=32, c=6, others=6)
    value = term(case.to(torch.float32))
    assert value.dtype == torch.float32
    assert_close(float(value), twin(case), rtol=1e-5, atol=0)


@few
@given(seed=st.integers(0, 10_000), n=st.integers(1, 20), m=st.integers(1, 6))
def test_the_bank_keeps_the_last_key_of_a_repeated_image(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    before, keys, image_ids = rng.normal(size=(m, 3)), rng.normal(size=(n, 3)), rng.integers(m, size=n)
    bank = MemoryBank(torch.from_numpy(before))
    bank.write(torch.from_numpy(image_ids), torch.from_numpy(keys))
    assert np.array_equal(bank.rows.numpy(), slow.written(before, image_ids, keys))


@pytest.mark.parametrize("seed", range(3))
def test_bank_means_are_the_means_of_each_cluster(seed: int) -> None:
    case = drawn(seed)
    means = Clusters(case.assignment, case.prototypes, 0.0).bank_means(case.bank)
    for number in range(len(case.prototypes)):
        assert_close(means[number], case.bank[case.assignment == number].mean(dim=0), rtol=1e-12, atol=1e-15)


# Properties


@pytest.mark.parametrize("term", TERMS)
@few
@given(case=cases)
def test_a_rotation_of_all_embeddings_changes_nothing(term: Term, case: Case) -> None:
    size = case.query.shape[1]
    rotation = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))).Q
    assert_close(term(case.turned(rotation)), term(case), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("term", TERMS)
@few
@given(case=cases)
def test_the_order_of_the_batch_changes_nothing(term: Term, case: Case) -> None:
    order = torch.randperm(len(case.query), generator=torch.Generator().manual_seed(1))
    moved = Case(
        **{
            **vars(case),
            "query": case.query[order],
            "key": case.key[order],
            "image_ids": case.image_ids[order],
        }
    )
    assert_close(term(moved), term(case), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("term", TERMS)
def test_the_order_of_the_bank_changes_nothing(term: Term) -> None:
    case = drawn(3)
    order = torch.randperm(len(case.bank), generator=torch.Generator().manual_seed(1))
    moved = {
        "bank": case.bank[order],
        "assignment": case.assignment[order],
        "image_ids": order.argsort()[case.image_ids],
    }
    assert_close(term(Case(**{**vars(case), **moved})), term(case), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("term", TERMS)
def test_the_names_of_the_clusters_change_nothing(term: Term) -> None:
    case = drawn(4)
    order = torch.tensor([2, 0, 3, 1])
    renamed = {"prototypes": case.prototypes[order], "assignment": order.argsort()[case.assignment]}
    assert_close(term(Case(**{**vars(case), **renamed})), term(case), rtol=1e-10, atol=1e-13)


@few
@given(case=cases)
def test_entropy_lies_between_zero_and_log_c(case: Case) -> None:
    assert 0 <= float(entropy(case)) <= math.log(len(case.others)) * (1 + 1e-12)


def test_entropy_reaches_both_ends() -> None:
    query = torch.eye(3, dtype=torch.float64)[:1]
    assert_close(float(assignment_entropy(query, torch.eye(3, dtype=torch.float64)[1:], 0.2)), math.log(2))
    assert float(assignment_entropy(query, torch.eye(3, dtype=torch.float64), 0.001)) == 0


@few
@given(case=cases)
def test_distance_is_symmetric(case: Case) -> None:
    """But for the 1e-6 that is added to every difference."""
    there = distance_of_distance(case.query, case.prototypes, case.others, 0.2)
    back = distance_of_distance(case.query, case.others, case.prototypes, 0.2)
    assert float(there) >= 0
    assert_close(there, back, rtol=1e-4, atol=4e-6 * len(case.query))


@few
@given(case=cases)
def test_distance_is_zero_for_permuted_prototypes(case: Case) -> None:
    permuted = case.others[torch.randperm(len(case.others), generator=torch.Generator().manual_seed(2))]
    assert float(distance_of_distance(case.query, case.others, permuted, 0.2)) <= len(case.query) * 1e-11


@few
@given(case=cases)
def test_distances_between_assignments(case: Case) -> None:
    """Zero from a query to itself, symmetric, within 0 and 1."""
    distances = assignment_distance(case.query, case.others, case.temperature)
    assert_close(distances, distances.T, rtol=0, atol=1e-14)
    assert_close(distances.diagonal(), torch.zeros(len(case.query), dtype=torch.float64), rtol=0, atol=1e-14)
    assert float(distances.min()) >= -1e-14
    assert float(distances.max()) <= 1 + 1e-14


@pytest.mark.parametrize("seed", range(3))
def test_nothing_confident_gives_zero_and_no_gradient(seed: int) -> None:
    case = drawn(seed)
    case.threshold = 0.999999
    case.query.requires_grad_()
    loss = cluster(case)
    assert float(loss.detach()) == 0
    (gradient,) = torch.autograd.grad(loss, case.query)
    assert not gradient.any()


def test_confidence_is_strict() -> None:
    """Two prototypes at the same similarity give exactly one half."""
    key = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    prototypes = torch.eye(3, dtype=torch.float64)[:2]
    own = torch.tensor([0])
    assert not confident(key, prototypes, own, 0.2, 0.5).any()
    assert confident(key, prototypes, own, 0.2, 0.499).all()


def test_only_counted_queries_enter_the_cluster_term() -> None:
    case = drawn(0)
    own = case.assignment[case.image_ids]
    means = Clusters(case.assignment, case.prototypes, 0.0).bank_means(case.bank)
    sums = logsumexp(case)
    each = [cluster_contrast(sums[[i]], case.query[[i]], means, own[[i]], torch.tensor([True]), 0.2) for i in range(6)]
    counted = torch.tensor([True, False, True, False, False, True])
    together = cluster_contrast(sums, case.query, means, own, counted, 0.2)
    assert_close(together, torch.stack([each[0], each[2], each[5]]).mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stays_finite_at_temperature_one_thousandth(term: Term, dtype: torch.dtype) -> None:
    case = drawn(5, temperature=1e-3).to(dtype)
    case.query.requires_grad_()
    value = term(case)
    (gradient,) = torch.autograd.grad(value, case.query)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("seed", range(2))
def test_gradients_are_those_of_the_values(term: Term, seed: int) -> None:
    """Analytic against finite differences. In cluster contrast who is counted depends on keys, not on queries."""
    case = drawn(seed, n=4, m=9, d=4)
    case.query.requires_grad_()
    assert torch.autograd.gradcheck(lambda query: term(Case(**{**vars(case), "query": query})), (case.query,))


# In blocks


@pytest.mark.parametrize("scores", [1, 6, 23, 10_000])
@few
@given(case=cases)
def test_the_block_of_the_bank_changes_nothing(scores: int, case: Case) -> None:
    """Value and gradient, from one bank row at a time to all at once."""
    case.query.requires_grad_()
    rows = case.bank.clone().index_put_((case.image_ids,), case.key)
    expected = (case.query @ rows.T / case.temperature).logsumexp(dim=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "LOGITS_PER_BLOCK", scores)
        found = logsumexp(case)
    assert_close(found, expected, rtol=1e-12, atol=1e-13)
    weights = torch.arange(1.0, len(found) + 1, dtype=torch.float64)
    slopes = [torch.autograd.grad(value @ weights, case.query)[0] for value in (found, expected)]
    assert_close(*slopes, rtol=1e-9, atol=1e-12)


def test_the_sum_over_the_bank_stays_exact_under_autocast() -> None:
    case = drawn(1, n=12, m=400, d=32).to(torch.float32)
    expected = logsumexp(case)
    with torch.autocast("cpu", torch.bfloat16):
        found = logsumexp(case)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_half_queries_meet_the_bank_in_its_own_precision() -> None:
    case = drawn(2, n=5, m=40, d=16).to(torch.float32)
    query = case.query.bfloat16().requires_grad_()
    found = bank_logsumexp(query, case.key.bfloat16(), case.bank, case.image_ids, 0.2)
    found.sum().backward()
    assert found.dtype == torch.float32
    assert query.grad is not None
    assert query.grad.dtype == torch.bfloat16
    expected = bank_logsumexp(query.detach().float(), case.key.bfloat16().float(), case.bank, case.image_ids, 0.2)
    assert torch.equal(found.detach(), expected)


def test_no_memory_of_the_size_of_the_bank_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest of all matrix products of a pass forth and back is a block, not N x M."""
    case = drawn(0, n=8, m=500).to(torch.float32)
    monkeypatch.setattr(losses, "LOGITS_PER_BLOCK", 400)
    with torch.profiler.profile(profile_memory=True) as seen:
        bank_logsumexp(case.query.requires_grad_(), case.key, case.bank, case.image_ids, 0.2).sum().backward()
    assert max(event.self_cpu_memory_usage for event in seen.events()) <= 4 * 400 + 64


# By hand

E = torch.eye(4, dtype=torch.float64)


def test_instance_contrast_by_hand() -> None:
    """Query equals its key, orthogonal to two other images, T = 1: log(1 + 2 / e)."""
    ids = torch.tensor([1])
    sums = bank_logsumexp(E[:1], E[:1], E[[1, 2, 3]], ids, 1.0)  # the bank's own row is stale: the key takes its place
    assert_close(float(sums), math.log(math.e + 2))
    assert_close(float(instance_contrast(sums, E[:1], E[:1], 1.0)), math.log(1 + 2 / math.e))


def test_cluster_contrast_by_hand() -> None:
    """Cluster = {the image itself, one orthogonal image}, one image outside, T = 1: log(e + 2) - 1 / 2."""
    own, ids = torch.tensor([0]), torch.tensor([0])
    bank = E[:3]
    means = Clusters(torch.tensor([0, 0, 1]), E[:2], 0.0).bank_means(bank)
    loss = cluster_contrast(bank_logsumexp(E[:1], E[:1], bank, ids, 1.0), E[:1], means, own, torch.tensor([True]), 1.0)
    assert_close(float(loss), math.log(math.e + 2) - 0.5)


def test_confidence_by_hand() -> None:
    """Key on its prototype, one more prototype orthogonal, T = 1: e / (e + 1) = 0.7311."""
    assert confident(E[:1], E[:2], torch.tensor([0]), 1.0, 0.7310).all()
    assert not confident(E[:1], E[:2], torch.tensor([0]), 1.0, 0.7311).any()


def test_assignment_entropy_by_hand() -> None:
    """p = e / (e + 1): the entropy of a coin of 0.7311 is log(e + 1) - e / (e + 1)."""
    assert_close(float(assignment_entropy(E[:1], E[:2], 1.0)), math.log(math.e + 1) - math.e / (math.e + 1))


def test_distance_of_distance_by_hand() -> None:
    """Two queries told apart by one domain's prototypes and not by the other's: maps [[0, 1], [1, 0]] and zeros, so 1."""
    ones, blind = E[:2], E[2:]
    value = distance_of_distance(E[:2], ones, blind, 0.01)
    assert_close(float(value), (1 + 1e-6) ** 2 + 1e-12, rtol=1e-9, atol=0)


@pytest.mark.parametrize("size", [1, 2, 50])
def test_equal_similarities_give_log_m(size: int) -> None:
    """Instance and cluster contrast when nothing is told apart."""
    bank = E[:1].repeat(size, 1)
    ids = torch.tensor([size - 1])
    sums = bank_logsumexp(E[:1], E[:1], bank, ids, 0.2)
    assert_close(float(instance_contrast(sums, E[:1], E[:1], 0.2)), math.log(size))
    loss = cluster_contrast(sums, E[:1], E[:1], torch.tensor([0]), torch.tensor([True]), 0.2)
    assert_close(float(loss), math.log(size))


# Edges


@pytest.mark.parametrize(("term", "twin"), TWINS, ids=[term.__name__ for term in TERMS])
def test_a_batch_of_one(term: Term, twin: Callable[[Case], float]) -> None:
    case = drawn(7, n=1)
    assert_close(float(term(case)), twin(case), rtol=1e-12, atol=1e-14)


def test_one_query_has_no_distances_to_compare() -> None:
    assert float(distance(drawn(7, n=1))) <= 1e-11


def test_a_cluster_of_one_is_instance_contrast() -> None:
    case = drawn(8, n=1)
    case.threshold = 0.0
    case.assignment = torch.where(torch.arange(17) == case.image_ids[0], 0, 1)
    assert_close(cluster(case), instance(case), rtol=1e-12, atol=0)


def test_repeated_ids_each_keep_their_own_key() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, bank = (F.normalize(torch.randn(k, 5, generator=generator, dtype=torch.float64), dim=1) for k in (3, 3, 4))
    ids = torch.tensor([2, 2, 0])
    sums = bank_logsumexp(query, key, bank, ids, 0.2)
    for i in range(3):
        against = bank.clone()
        against[ids[i]] = key[i]
        assert_close(sums[i], (query[i] @ against.T / 0.2).logsumexp(dim=0))


def test_a_cluster_without_images_has_mean_zero() -> None:
    clusters = Clusters(torch.tensor([0, 2]), E[:3], 0.0)
    assert clusters.bank_means(E[:2])[1].tolist() == [0, 0, 0, 0]
