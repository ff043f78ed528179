"""The rivals' terms against slow twins, and what their objectives do from epoch to epoch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import losses as slow
from torch import Tensor
from torch.testing import assert_close

from ucdir.learn.clusters import Clusters
from ucdir.learn.losses import (
    classifier_distance,
    concentration,
    contrast_across_domains,
    contrast_with_prototypes,
    normalised_rows,
    prototype_contrast,
    self_matching,
    transport,
    unevenness,
)
from ucdir.learn.methods import build_objective
from ucdir.learn.methods.protoot import nearest_others
from ucdir.learn.objective import DomainStep, Objective
from ucdir.settings import Settings, settings_class

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


def test_contrast_across_domains() -> None:
    found = contrast_across_domains(QUERY, OTHERS, OWN, 0.2)
    assert_close(found.item(), slow.contrast_across_domains(array(QUERY), array(OTHERS), array(OWN), 0.2), rtol=1e-12, atol=0)
    single = contrast_across_domains(QUERY.float(), OTHERS.float(), OWN, 0.2)
    assert_close(single.item(), found.item(), rtol=1e-5, atol=0)


def test_contrast_across_domains_by_hand() -> None:
    """Cosines 0.3 and 0.4 have the length 0.5: a positive of 0.3 against a negative of 0.4 / 0.5."""
    query = torch.tensor([[0.3, 0.4, math.sqrt(0.75)]], dtype=torch.float64)
    found = contrast_across_domains(query, torch.eye(3, dtype=torch.float64)[:2], torch.tensor([0]), 0.5)
    assert_close(found.item(), math.log(1 + math.e))


def test_contrast_across_domains_when_nothing_tells_the_prototypes_apart() -> None:
    """Queries at right angles to all prototypes, then one prototype alone: a defined loss, no endless gradient."""
    axes = torch.eye(6, dtype=torch.float64)
    query = axes[:2].clone().requires_grad_()
    lost = contrast_across_domains(query, axes[2:], torch.tensor([0, 3]), 0.2)
    assert_close(lost.item(), math.log(4))
    (gradient,) = torch.autograd.grad(lost, query)
    assert gradient.abs().max() < 10
    alone = contrast_across_domains(query, axes[:1], torch.tensor([0, 0]), 0.2)
    assert alone.item() == 0
    assert not torch.autograd.grad(alone, query)[0].any()


def test_prototypes_in_another_order_are_the_same_prototypes() -> None:
    order = torch.tensor([2, 0, 3, 1])
    one = contrast_across_domains(QUERY, OTHERS, order[OWN], 0.2)
    assert_close(contrast_across_domains(QUERY, OTHERS[order], OWN, 0.2), one)


def test_normalised_rows() -> None:
    similarity = QUERY @ PROTOTYPES.T
    similarity[4] = 0
    found = normalised_rows(similarity)
    assert_close(found.tolist(), slow.normalised_rows(similarity.tolist()), rtol=1e-12, atol=0)
    assert_close(found.norm(dim=1), torch.ones(9, dtype=torch.float64).index_fill(0, torch.tensor(4), 0))
    assert_close(normalised_rows(3 * similarity), found)
    assert normalised_rows(torch.tensor([[0.2], [-0.7], [0.0]])).tolist() == [[1], [-1], [0]]


def test_a_transport_of_normalised_rows_by_hand() -> None:
    """Rows 0.4, 0.3 become 0.8, 0.6: with a smoothing of 0.2 / log 3 the nearer prototype gets three times as much."""
    similarity = torch.tensor([[0.4, 0.3], [0.3, 0.4]], dtype=torch.float64)
    half = torch.full((2,), 0.5, dtype=torch.float64)
    plan = transport(normalised_rows(similarity), half, 0.2 / math.log(3), 3)
    assert_close(plan, torch.tensor([[0.375, 0.125], [0.125, 0.375]], dtype=torch.float64))


def test_a_transport_of_normalised_rows_at_its_edges() -> None:
    """An image at right angles to all prototypes is divided by the others; one prototype takes all."""
    similarity = QUERY @ PROTOTYPES.T
    similarity[4] = 0
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    plan = transport(normalised_rows(similarity), shares, 0.05, 3)
    assert_close(plan.tolist(), slow.transport(np.array(slow.normalised_rows(similarity.tolist())), array(shares), 0.05, 3))
    assert_close(plan.sum(dim=1), torch.full((9,), 1 / 9, dtype=torch.float64))
    alone = transport(normalised_rows(similarity[:, :1]), torch.ones(1, dtype=torch.float64), 0.05, 3)
    assert_close(alone, torch.full((9, 1), 1 / 9, dtype=torch.float64))


def test_with_65_prototypes_an_image_is_divided_only_when_rows_are_normalised() -> None:
    """65 clear clusters around prototypes with a cosine of 0.5: embeddings with a large mean, as backbones give them.

    The largest share of an image is .16 on average when rows are normalised, .99 when they are not.
    """
    axes = torch.eye(66)
    prototypes = F.normalize(axes[0] + axes[1:], dim=1)
    noise = F.normalize(torch.randn(1300, 66, generator=torch.Generator().manual_seed(0)), dim=1)
    similarity = F.normalize(prototypes.repeat(20, 1) + 0.5 * noise, dim=1) @ prototypes.T
    shares = torch.full((65,), 1 / 65)
    published, plain = (
        1300 * transport(rows, shares, 0.05, 3).amax(dim=1).mean().item() for rows in (normalised_rows(similarity), similarity)
    )
    assert published == pytest.approx(0.16, abs=0.02)
    assert plain == pytest.approx(0.99, abs=0.01)


@pytest.mark.parametrize(
    "assignment", [OWN, torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2]), torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1])]
)
def test_concentration(assignment: Tensor) -> None:
    """The last two have clusters of one image and of none."""
    found = concentration(QUERY, PROTOTYPES, assignment, 0.2)
    expected = slow.concentration(array(QUERY), array(PROTOTYPES), array(assignment), 0.2, 10.0)
    assert_close(found.tolist(), expected, rtol=1e-12, atol=0)
    assert_close(found.mean().item(), 0.2)


def test_a_cluster_of_one_image_does_not_say_how_loose_others_are() -> None:
    """Its distance, the largest here, would be the largest of all; it counts as the loosest of the others."""
    axes = torch.eye(4, dtype=torch.float64)
    rows = F.normalize(torch.stack([axes[0] + 0.1 * axes[1], axes[0], axes[3]]), dim=1)
    prototypes = torch.stack([axes[0], axes[2]])
    found = concentration(rows, prototypes, torch.tensor([0, 0, 1]), 0.2)
    assert_close(found.tolist(), slow.concentration(array(rows), array(prototypes), np.array([0, 0, 1]), 0.2, 10.0))
    assert_close(found.tolist(), [0.2, 0.2])


def test_clusters_of_one_image_each_all_have_the_same_temperature() -> None:
    assert_close(concentration(QUERY, QUERY.flip(0), torch.arange(9), 0.2).tolist(), [0.2] * 9)


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
    given = {"num_clusters": (4,), "over_clusters": (5, 8), "cluster_start": 0.0, "alignment_start": 0.5}
    read = {key: value for key, value in given.items() if key in settings_class(name).model_fields} | method
    settings = Settings.model_validate({"method": {"name": name, **read}, "encoder": {"dim": 6}, "optimiser": {"epochs": 10}})
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


@pytest.mark.parametrize("similarity", ["published", "cosine"])
def test_one_plan_of_a_domain_assigns_its_images_and_moves_its_prototypes(similarity: str) -> None:
    """The terms take the prototypes that the plan is for; those across domains take the moved ones."""
    steps = drawn_steps()
    method = begun("protoot", steps, ot_similarity=similarity)
    before, shares = method.prototypes.clone(), method.shares.clone()
    warm = method.method.temperature

    def plan_of(step: DomainStep, rows: Tensor, wanted: Tensor) -> Tensor:
        cosines = array(step.bank @ rows.T)
        table = cosines if similarity == "cosine" else np.array(slow.normalised_rows(cosines))
        return torch.tensor(slow.transport(table, array(wanted), 0.05, 3))

    parts = method(steps, method.weights(9)).parts
    for domain, step in enumerate(steps):
        plan = plan_of(step, before[domain], shares[domain])
        own = array(plan[step.image_ids].argmax(dim=1))
        expected = slow.contrast_with_prototypes(array(step.query), array(step.key), array(before[domain]), own, warm)
        assert_close(parts["instance"][domain].item(), expected, rtol=1e-12, atol=0)
        assert_close(method.prototypes[domain], F.normalize(plan.T @ step.bank, dim=1), rtol=1e-12, atol=1e-15)
    for (domain, other), found in zip(((0, 1), (1, 0)), parts["cross"], strict=True):
        step, rows = steps[domain], method.prototypes[other]
        own = array(plan_of(step, rows, shares[other])[step.image_ids].argmax(dim=1))
        if similarity == "cosine":
            expected = slow.prototype_contrast(array(step.query), array(rows), own, [warm] * len(rows))
        else:
            expected = slow.contrast_across_domains(array(step.query), array(rows), own, warm)
        assert_close(found.item(), expected, rtol=1e-12, atol=0)


def test_protoot_normalises_rows_unless_it_is_told_otherwise() -> None:
    assert objective("protoot").method.ot_similarity == "published"


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
