"""The rivals' terms against slow twins, and what their objectives do from epoch to epoch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import losses as slow
from torch import Tensor
from torch.testing import assert_close

from ucdir.config import Settings
from ucdir.learn.clusters import Clusters
from ucdir.learn.losses import (
    classifier_distance,
    concentration,
    contrast_with_prototypes,
    prototype_contrast,
    self_matching,
    transport,
    unevenness,
)
from ucdir.learn.methods import build_objective
from ucdir.learn.methods.protoot import nearest_others
from ucdir.learn.objective import DomainStep, Objective

RIVALS = ("instance", "cluster", "prototype", "coda", "protoot")


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def array(rows: Tensor) -> np.ndarray:
    return rows.detach().numpy()


QUERY, KEY, PROTOTYPES, OTHERS = (unit(9, 6, seed=1), unit(9, 6, seed=2), unit(4, 6, seed=3), unit(4, 6, seed=4))
OWN = torch.tensor([0, 1, 2, 3, 0, 1, 2, 0, 0])


# Terms


def test_prototype_contrast() -> None:
    warm = torch.tensor([0.1, 0.2, 0.3, 0.5], dtype=torch.float64)
    found = prototype_contrast(QUERY, PROTOTYPES, OWN, warm)
    expected = slow.prototype_contrast(array(QUERY), array(PROTOTYPES), array(OWN), warm.tolist())
    assert_close(found.item(), expected, rtol=1e-12, atol=0)
    alike = prototype_contrast(QUERY, PROTOTYPES[:1].expand(4, -1), OWN, torch.full((4,), 0.2))
    assert_close(alike.item(), math.log(4))


def test_contrast_with_prototypes() -> None:
    found = contrast_with_prototypes(QUERY, KEY, PROTOTYPES, OWN, 0.2)
    expected = slow.contrast_with_prototypes(array(QUERY), array(KEY), array(PROTOTYPES), array(OWN), 0.2)
    assert_close(found.item(), expected, rtol=1e-12, atol=0)


def test_the_own_prototype_is_no_negative() -> None:
    moved = PROTOTYPES.clone()
    moved[3] = unit(6, seed=9)
    mine = OWN == 3
    before = contrast_with_prototypes(QUERY[mine], KEY[mine], PROTOTYPES, OWN[mine], 0.2)
    assert_close(before, contrast_with_prototypes(QUERY[mine], KEY[mine], moved, OWN[mine], 0.2))


@pytest.mark.parametrize(
    "assignment", [OWN, torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2]), torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1])]
)
def test_concentration(assignment: Tensor) -> None:
    """The last two have clusters of one image and of none."""
    found = concentration(QUERY, PROTOTYPES, assignment, 0.2)
    expected = slow.concentration(array(QUERY), array(PROTOTYPES), array(assignment), 0.2, 10.0)
    assert_close(found.tolist(), expected, rtol=1e-12, atol=0)
    assert_close(found.mean().item(), 0.2)


@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_transport(iterations: int) -> None:
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    plan = transport(QUERY @ PROTOTYPES.T, shares, 0.05, iterations)
    expected = slow.transport(array(QUERY @ PROTOTYPES.T), array(shares), 0.05, iterations)
    assert_close(plan.tolist(), expected, rtol=1e-12, atol=0)
    assert_close(plan.sum(dim=1), torch.full((9,), 1 / 9, dtype=torch.float64))


def test_transport_reaches_the_shares() -> None:
    shares = torch.tensor([0.7, 0.2, 0.1, 0.0], dtype=torch.float64)
    plan = transport(QUERY @ PROTOTYPES.T, shares, 0.5, 200)
    assert_close(plan.sum(dim=0), shares, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("smoothing", [0.004, 0.008, 0.05])
def test_transport_in_float32_is_that_in_float64(smoothing: float, iterations: int) -> None:
    """However small the smoothing is: whole rows are that far below the largest similarity."""
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1])
    plan = transport((QUERY @ PROTOTYPES.T).float(), shares, smoothing, iterations)
    expected = slow.transport(array(QUERY @ PROTOTYPES.T), array(shares.double()), smoothing, iterations)
    assert_close(plan.double(), torch.tensor(expected), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("iterations", [1, 3, 300])
@pytest.mark.parametrize("shares", [[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0], [1e-6, 0.0, 0.5, 0.499999], [0.25] * 4])
def test_every_row_is_divided_in_float32(shares: list[float], iterations: int) -> None:
    """Nearly without smoothing, and where shares are out of reach; what has no share gets nothing."""
    wanted = torch.tensor(shares)
    plan = transport((QUERY @ PROTOTYPES.T).float(), wanted, 0.001, iterations)
    assert_close(plan.sum(dim=1), torch.full((9,), 1 / 9))
    assert not plan[:, wanted == 0].any()


def test_self_matching() -> None:
    found = self_matching(QUERY, KEY, PROTOTYPES, 0.1)
    assert_close(found.item(), slow.self_matching(array(QUERY), array(KEY), array(PROTOTYPES), 0.1), rtol=1e-12, atol=0)
    even = self_matching(QUERY, KEY, PROTOTYPES[:1].expand(4, -1), 0.1)
    assert_close(even.item(), math.log(4))
    sure = self_matching(PROTOTYPES, PROTOTYPES, PROTOTYPES, 0.001)
    assert_close(sure.item(), 0.0, rtol=0, atol=1e-9)


def test_unevenness() -> None:
    found = unevenness(QUERY, PROTOTYPES, 0.1)
    assert_close(found.item(), slow.unevenness(array(QUERY), array(PROTOTYPES), 0.1), rtol=1e-12, atol=0)
    assert_close(unevenness(PROTOTYPES, PROTOTYPES, 0.001).item(), 0.0, rtol=0, atol=1e-9)
    assert_close(unevenness(PROTOTYPES[:1], PROTOTYPES, 0.001).item(), math.log(4))


def test_classifier_distance() -> None:
    found = classifier_distance(QUERY, PROTOTYPES, OTHERS, 0.1)
    expected = slow.classifier_distance(array(QUERY), array(PROTOTYPES), array(OTHERS), 0.1)
    assert_close(found.item(), expected, rtol=1e-12, atol=0)
    assert classifier_distance(QUERY, PROTOTYPES, PROTOTYPES, 0.1).item() == 0
    assert_close(classifier_distance(PROTOTYPES, PROTOTYPES, PROTOTYPES.roll(1, 0), 0.001).item(), 2.0)


def test_the_nearest_other_image_is_never_oneself() -> None:
    bank = unit(7, 6)
    assert nearest_others(bank, bank, torch.arange(7)).ne(torch.arange(7)).all()
    twin = torch.cat([bank, bank[:1]])
    assert nearest_others(bank[:1], twin, torch.tensor([0])).tolist() == [7]


# Objectives


def objective(name: str, domains: int = 2, **method: object) -> Objective:
    given = {"num_clusters": (4,), "over_clusters": (5, 8), "cluster_start": 0.0, "alignment_start": 0.5} | method
    settings = Settings.model_validate({"method": {"name": name, **given}, "encoder": {"dim": 6}, "optimiser": {"epochs": 10}})
    return build_objective(settings, domains).double()


def clusters(bank: Tensor, count: int, seed: int) -> Clusters:
    assignment = torch.randint(count, (len(bank),), generator=torch.Generator().manual_seed(seed))
    return Clusters(assignment, unit(count, 6, seed=seed), 0.0)


def drawn_steps(domains: int = 2, counts: tuple[int, ...] = (4,)) -> list[DomainStep]:
    steps = []
    for number in range(domains):
        bank = unit(11 + number, 6, seed=20 + number)
        found = tuple(clusters(bank, count, 30 + number) for count in counts)
        query = unit(5, 6, seed=number).requires_grad_()
        steps.append(DomainStep(query, unit(5, 6, seed=10 + number), torch.arange(5), bank, found))
    return steps


def begun(name: str, steps: list[DomainStep], **method: object) -> Objective:
    found = objective(name, len(steps), **method)
    found.begin_epoch([step.bank for step in steps], [step.clusterings for step in steps])
    return found


@pytest.mark.parametrize("domains", [2, 3])
@pytest.mark.parametrize("name", RIVALS)
def test_every_method_names_its_terms_and_moves_every_query(name: str, domains: int) -> None:
    steps = drawn_steps(domains)
    method = begun(name, steps)
    for epoch in (0, 9):
        weights = method.weights(epoch)
        terms = method(steps, weights)
        assert terms.parts.keys() == weights.keys()
        total = sum(weights[part] * torch.stack(values).mean() for part, values in terms.parts.items())
        assert_close(terms.total, total)
    terms.total.backward()
    assert all(step.query.grad.any(dim=1).all() for step in steps)
    assert all(parameter.grad.any() for parameter in method.parameters())


@pytest.mark.parametrize("name", RIVALS)
def test_one_rotation_of_everything_changes_nothing(name: str) -> None:
    turn = torch.linalg.qr(unit(6, 6, seed=5)).Q
    steps = drawn_steps()
    turned = [
        DomainStep(
            s.query @ turn,
            s.key @ turn,
            s.image_ids,
            s.bank @ turn,
            tuple(Clusters(c.assignment, c.prototypes @ turn, 0.0) for c in s.clusterings),
        )
        for s in steps
    ]
    one, other = begun(name, steps), begun(name, turned)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(parameter @ turn)
    assert_close(one(steps, one.weights(9)).total, other(turned, other.weights(9)).total)


def test_instance_and_cluster_are_the_paper_without_its_later_terms() -> None:
    steps = drawn_steps()
    whole = begun("ucdir", steps)(steps, objective("ucdir").weights(9))
    for name in ("instance", "cluster"):
        part = begun(name, steps)(steps, objective(name).weights(9))
        assert all(torch.equal(torch.stack(whole.parts[term]), torch.stack(values)) for term, values in part.parts.items())


def test_prototypes_of_protoot_start_an_epoch_where_its_shares_belong() -> None:
    steps = drawn_steps()
    renewed, published = (begun("protoot", steps, ot_prototypes=way) for way in ("renewed", "published"))
    for method in (renewed, published):
        assert_close(method.prototypes[0], steps[0].clusterings[0].prototypes)
        method(steps, method.weights(0))
    drifted = published.prototypes.clone()
    assert not torch.allclose(drifted[0], steps[0].clusterings[0].prototypes)
    again = [(clusters(step.bank, 4, 50),) for step in steps]
    for method in (renewed, published):
        method.begin_epoch([step.bank for step in steps], again)
        assert_close(method.shares[0], torch.bincount(again[0][0].assignment, minlength=4) / 11.0, check_dtype=False)
    assert_close(renewed.prototypes[0], again[0][0].prototypes)
    assert_close(published.prototypes, drifted)


def test_one_plan_of_a_domain_assigns_its_images_and_moves_its_prototypes() -> None:
    """The terms take the prototypes that the plan is for; those across domains take the moved ones."""
    steps = drawn_steps()
    method = begun("protoot", steps)
    before, shares = method.prototypes.clone(), method.shares.clone()
    parts = method(steps, method.weights(9)).parts
    for domain, step in enumerate(steps):
        plan = torch.tensor(slow.transport(array(step.bank @ before[domain].T), array(shares[domain]), 0.05, 3))
        own = array(plan[step.image_ids].argmax(dim=1))
        warm = method.method.temperature
        expected = slow.contrast_with_prototypes(array(step.query), array(step.key), array(before[domain]), own, warm)
        assert_close(parts["instance"][domain].item(), expected, rtol=1e-12, atol=0)
        assert_close(method.prototypes[domain], F.normalize(plan.T @ step.bank, dim=1), rtol=1e-12, atol=1e-15)
    for (domain, other), found in zip(((0, 1), (1, 0)), parts["cross"], strict=True):
        step, rows = steps[domain], method.prototypes[other]
        plan = torch.tensor(slow.transport(array(step.bank @ rows.T), array(shares[other]), 0.05, 3))
        own = array(plan[step.image_ids].argmax(dim=1))
        expected = slow.prototype_contrast(array(step.query), array(rows), own, [warm] * len(rows))
        assert_close(found.item(), expected, rtol=1e-12, atol=0)


def test_a_step_of_protoot_solves_each_transport_once(monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[tuple[int, ...]] = []

    def counting(similarity: Tensor, *rest: object) -> Tensor:
        solved.append(tuple(similarity.shape))
        return transport(similarity, *rest)

    monkeypatch.setattr("ucdir.learn.methods.protoot.transport", counting)
    steps = drawn_steps(counts=(4, 3))
    method = begun("protoot", steps, num_clusters=(4, 3))
    method(steps, method.weights(9))
    assert sorted(solved) == [(11, 3)] * 2 + [(11, 4)] * 2 + [(12, 3)] * 2 + [(12, 4)] * 2  # own and other prototypes


def test_shares_of_another_domain_divide_its_prototypes() -> None:
    """The published way takes the shares of the images' own domain: only the cross-domain term knows the difference."""
    steps = drawn_steps()
    target, published = (begun("protoot", steps, ot_shares=way, ot_smoothing=0.5) for way in ("target", "published"))
    for method in (target, published):
        method.shares[1] = torch.tensor([0.97, 0.01, 0.01, 0.01])
    one, other = (method(steps, method.weights(9)) for method in (target, published))
    assert_close(torch.stack(one.parts["prototype"]), torch.stack(other.parts["prototype"]))
    assert not torch.allclose(torch.stack(one.parts["cross"]), torch.stack(other.parts["cross"]))


def test_several_cluster_counts_of_protoot_are_averaged() -> None:
    both = drawn_steps(counts=(4, 3))
    parts = begun("protoot", both, num_clusters=(4, 3))(both, objective("protoot").weights(9)).parts
    for term in ("instance", "prototype"):
        alone = []
        for level, count in enumerate((4, 3)):
            steps = [DomainStep(s.query, s.key, s.image_ids, s.bank, (s.clusterings[level],)) for s in both]
            alone += begun("protoot", steps, num_clusters=(count,))(steps, objective("protoot").weights(9)).parts[term]
        assert_close(torch.stack(parts[term]).mean(), torch.stack(alone).mean())


def test_classifiers_of_all_domains_start_alike() -> None:
    method = objective("coda", domains=3)
    rows = list(method.parameters())
    assert [len(row) for row in rows] == [5, 8] * 3
    assert torch.equal(rows[0], rows[2])
    steps = drawn_steps()
    alignment = objective("coda")(steps, objective("coda").weights(0)).parts["alignment"]
    assert all(value.item() == 0 for value in alignment)
