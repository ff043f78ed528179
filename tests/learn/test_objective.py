"""The terms over all domains, their weights, and one whole training step."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import losses as slow
from torch import Tensor, nn
from torch.testing import assert_close

from ucdir.images.step_batches import StepBatch
from ucdir.learn.bank import MemoryBank
from ucdir.learn.clusters import Clusters
from ucdir.learn.methods.coda import Coda, CodaSettings
from ucdir.learn.methods.ucdir import Ucdir, UcdirSettings
from ucdir.learn.objective import DomainStep, Terms
from ucdir.learn.step import training_step
from ucdir.learn.trainer import summary
from ucdir.model.momentum_encoder import MomentumEncoder
from ucdir.model.processes import ALONE, Processes

WEIGHTS = {"instance": 0.9, "cluster": 0.7, "entropy": 0.5, "distance": 0.3}
METHOD = UcdirSettings(confidence=0.1, entropy_temperature=0.1, distance_temperature=0.05)
OBJECTIVE = Ucdir(METHOD, epochs=200)


def drawn_steps(domains: int, counts: Sequence[int] = (4,), n: int = 5, seed: int = 0) -> tuple[DomainStep, ...]:
    """Random domains of unequal size, float64, queries with a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def rows(number: int) -> Tensor:
        return F.normalize(torch.randn(number, 6, generator=generator, dtype=torch.float64), dim=1)

    steps = []
    for number in range(domains):
        images = 11 + 3 * number
        image_ids, keys, bank = torch.randperm(images, generator=generator)[:n], rows(n), MemoryBank(rows(images))
        bank.write(image_ids, keys)
        clusterings = tuple(
            Clusters(torch.randint(count, (images,), generator=generator), rows(count), 0.0) for count in counts
        )
        steps.append(DomainStep(rows(n).requires_grad_(), keys, image_ids, bank.rows, clusterings))
    return tuple(steps)


def array(rows: Tensor) -> np.ndarray:
    return rows.detach().numpy()


# The objective against loops over domains


@pytest.mark.parametrize("domains", [2, 3])
@pytest.mark.parametrize("counts", [(4,), (3, 5)])
def test_equals_slow_loops_over_domains_and_counts(domains: int, counts: tuple[int, ...]) -> None:
    steps = drawn_steps(domains, counts)
    terms = OBJECTIVE(steps, WEIGHTS)
    levels = range(len(counts))
    instance = [slow.instance_contrast(array(s.query), array(s.key), array(s.bank), array(s.image_ids), 0.2) for s in steps]
    cluster = [
        [
            slow.cluster_contrast(
                array(s.query),
                array(s.key),
                array(s.bank),
                array(s.image_ids),
                array(s.clusterings[level].assignment),
                array(s.clusterings[level].prototypes),
                0.2,
                0.1,
            )
            for level in levels
        ]
        for s in steps
    ]
    prototypes = [[array(s.clusterings[level].prototypes) for s in steps] for level in levels]
    entropy = [
        slow.assignment_entropy(array(s.query), p, 0.1) for level in levels for s, p in product(steps, prototypes[level])
    ]
    distance = [
        slow.distance_of_distance(array(s.query), p, r, 0.05)
        for level in levels
        for s in steps
        for p, r in combinations(prototypes[level], 2)
    ]
    assert len(entropy) == len(counts) * domains**2
    assert len(distance) == len(counts) * domains * domains * (domains - 1) // 2
    assert_close([float(value) for value in array(torch.stack(terms.parts["instance"]))], instance, rtol=1e-12, atol=0)
    assert_close(array(torch.stack(terms.parts["cluster"])), np.mean(cluster, axis=1), rtol=1e-12, atol=0)
    assert_close(terms.parts["entropy"][0].item(), np.mean(entropy), rtol=1e-12, atol=0)
    assert_close(terms.parts["distance"][0].item(), np.mean(distance), rtol=1e-11, atol=0)
    total = 0.9 * np.mean(instance) + 0.7 * np.mean(cluster) + 0.5 * np.mean(entropy) + 0.3 * np.mean(distance)
    assert_close(terms.total.item(), total, rtol=1e-12, atol=0)


@pytest.mark.parametrize("domains", [2, 3])
def test_the_order_of_the_domains_changes_nothing(domains: int) -> None:
    """But for the 1e-6 in the distance, which has a sign."""
    steps = drawn_steps(domains)
    forward, backward = OBJECTIVE(steps, WEIGHTS), OBJECTIVE(steps[::-1], WEIGHTS)
    assert_close(torch.stack(forward.parts["instance"]), torch.stack(backward.parts["instance"][::-1]), rtol=1e-13, atol=0)
    assert_close(torch.stack(forward.parts["cluster"]), torch.stack(backward.parts["cluster"][::-1]), rtol=1e-13, atol=0)
    assert_close(forward.parts["entropy"][0], backward.parts["entropy"][0], rtol=1e-13, atol=0)
    assert_close(forward.parts["distance"][0], backward.parts["distance"][0], rtol=1e-4, atol=0)
    assert_close(forward.total, backward.total, rtol=1e-4, atol=0)


def test_before_clustering_only_instance_contrast_remains() -> None:
    steps = [replace(step, clusterings=()) for step in drawn_steps(3)]
    terms = OBJECTIVE(steps, WEIGHTS)
    assert [float(value) for value in (*terms.parts["cluster"], terms.parts["entropy"][0], terms.parts["distance"][0])] == [
        0.0
    ] * 5
    assert_close(terms.total, 0.9 * torch.stack(terms.parts["instance"]).mean())


def test_a_cluster_term_of_weight_zero_is_shown_but_pulls_nowhere() -> None:
    steps = drawn_steps(2)
    terms = OBJECTIVE(steps, {"instance": 1.0, "cluster": 0.0, "entropy": 0.0, "distance": 0.0})
    assert min(value.item() for value in terms.parts["cluster"]) > 0
    assert_close(terms.total, torch.stack(terms.parts["instance"]).mean())
    assert (terms.parts["entropy"][0].item(), terms.parts["distance"][0].item()) == (0.0, 0.0)


def test_counts_may_come_in_any_order() -> None:
    steps = drawn_steps(2, (3, 5))
    turned = [replace(step, clusterings=step.clusterings[::-1]) for step in steps]
    assert_close(OBJECTIVE(steps, WEIGHTS).total, OBJECTIVE(turned, WEIGHTS).total, rtol=1e-13, atol=0)


def test_a_count_given_twice_changes_nothing() -> None:
    steps = drawn_steps(2, (4,))
    twice = [replace(step, clusterings=step.clusterings * 2) for step in steps]
    assert_close(OBJECTIVE(steps, WEIGHTS).total, OBJECTIVE(twice, WEIGHTS).total, rtol=1e-13, atol=0)


def test_the_gradient_reaches_every_query() -> None:
    steps = drawn_steps(3)
    OBJECTIVE(steps, WEIGHTS).total.backward()
    assert all(step.query.grad is not None and step.query.grad.any(dim=1).all() for step in steps)


def test_summary_is_detached() -> None:
    terms = Terms(
        torch.tensor(1.0, requires_grad=True),
        {"instance": (torch.tensor(1.0), torch.tensor(3.0)), "entropy": (torch.tensor(7.0),)},
    )
    assert summary(terms, ("instance", "entropy")).tolist() == [1.0, 2.0, 7.0]
    assert not summary(terms, ("instance",)).requires_grad


# Weights over the epochs


def test_weights_of_the_paper() -> None:
    """200 epochs: clusters from 20, full at 100, alignment from 100 (DomainNet's weights)."""
    method = UcdirSettings(cluster_weight=1.0, entropy_weight=0.5, distance_weight=0.1)
    objective = Ucdir(method, 200)
    found = {epoch: objective.weights(epoch) for epoch in range(200)}
    assert {weights["instance"] for weights in found.values()} == {1.0}
    assert all(found[epoch]["cluster"] == 0 for epoch in range(21))
    assert_close([found[epoch]["cluster"] for epoch in (21, 60, 99, 100, 199)], [0.0125, 0.5, 0.9875, 1.0, 1.0])
    assert {(found[epoch]["entropy"], found[epoch]["distance"]) for epoch in range(100)} == {(0.0, 0.0)}
    assert {(found[epoch]["entropy"], found[epoch]["distance"]) for epoch in range(100, 200)} == {(0.5, 0.1)}
    assert objective.first_cluster_epoch == 20


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
def test_weights_of_short_runs_rise_and_stay(epochs: int) -> None:
    weights = [Ucdir(UcdirSettings(), epochs).weights(epoch) for epoch in range(epochs)]
    cluster = [found["cluster"] for found in weights]
    assert cluster == sorted(cluster)
    assert min(cluster) >= 0
    assert max(cluster) <= 0.5


def test_everything_from_the_start() -> None:
    method = UcdirSettings(cluster_start=0.0, cluster_full=0.0, alignment_start=0.0)
    objective = Ucdir(method, 10)
    assert objective.first_cluster_epoch == 0
    first = objective.weights(0)
    assert (first["entropy"], first["distance"]) == (1.0, 0.5)
    assert objective.weights(1)["cluster"] == 0.5


def test_clusters_are_needed_as_soon_as_one_term_needs_them() -> None:
    assert Ucdir(UcdirSettings(cluster_start=0.5, cluster_full=0.6, alignment_start=0.2), 100).first_cluster_epoch == 20


# One step


class Network(nn.Module):
    """Pixels -> unit rows, with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(6))

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.body(images / 255), dim=1)


def start(domains: int = 2, ids: Sequence[int] = (4, 0, 2, 7)) -> dict[str, object]:
    """The arguments of `training_step`; one cluster count."""
    torch.manual_seed(0)
    encoder = Network()
    images = torch.randint(0, 256, (2 * domains, len(ids), 3, 6, 6), dtype=torch.uint8)
    encoder(images[0].float())
    momentum_encoder = MomentumEncoder(encoder, 0.9, 2)
    order = torch.randperm(domains * len(ids))
    part = StepBatch(
        image_ids=(torch.tensor(ids),) * domains,
        query_views=images[::2].flatten(0, 1).float(),
        query_positions=torch.arange(domains * len(ids)),
        key_views=images[1::2].flatten(0, 1)[order].float(),
        key_positions=order,
    )
    unit = F.normalize(torch.randn(domains, 9, 6), dim=2)
    return {
        "network": encoder,
        "encoder": encoder,
        "momentum_encoder": momentum_encoder,
        "banks": [MemoryBank(rows) for rows in unit],
        "clusterings": [(Clusters(torch.arange(9) % 3, rows[:3], 0.0),) for rows in unit],
        "parts": [part],
        "objective": OBJECTIVE,
        "weights": WEIGHTS,
        "optimiser": torch.optim.SGD(encoder.parameters(), 0.1),
        "device": torch.device("cpu"),
        "precision": "float32",
    }


@pytest.mark.parametrize("domains", [2, 3])
def test_a_step_gives_no_gradient_to_keys_banks_and_prototypes(domains: int) -> None:
    given = start(domains)
    slow_copy = given["momentum_encoder"]
    terms = training_step(**given)
    assert torch.isfinite(terms.total)
    assert all(not p.requires_grad and p.grad is None for p in slow_copy.encoder.parameters())
    assert all(not bank.rows.requires_grad for bank in given["banks"])
    assert all(not found.prototypes.requires_grad for (found,) in given["clusterings"])
    assert all(p.grad is not None for p in given["encoder"].parameters())


@pytest.mark.parametrize("parts", [1, 3])
def test_the_slow_encoder_moves_once_towards_the_weights_before_the_step(parts: int) -> None:
    given = start()
    given["parts"] = given["parts"] * parts
    before = [p.detach().clone() for p in given["encoder"].parameters()]
    with torch.no_grad():
        for p in given["momentum_encoder"].encoder.parameters():
            p.add_(1.0)
    slow_before = [p.clone() for p in given["momentum_encoder"].encoder.parameters()]
    training_step(**given)
    for was, fast, now in zip(slow_before, before, given["momentum_encoder"].encoder.parameters(), strict=True):
        assert_close(now, 0.9 * was + 0.1 * fast)


def test_a_step_writes_the_keys_of_its_images_and_no_others() -> None:
    given = start(ids=(4, 0, 2, 7))
    before = [bank.rows.clone() for bank in given["banks"]]
    training_step(**given)
    for bank, was in zip(given["banks"], before, strict=True):
        changed = (bank.rows != was).any(dim=1)
        assert changed.nonzero()[:, 0].tolist() == [0, 2, 4, 7]
        assert_close(bank.rows.norm(dim=1), torch.ones(9))


def test_repeated_images_in_a_batch() -> None:
    """A domain smaller than the batch repeats its images."""
    given = start(ids=(1, 1, 1, 0))
    terms = training_step(**given)
    assert torch.isfinite(terms.total)


def test_the_shuffled_order_changes_only_statistics() -> None:
    """Without batch norm splits the order of the keys does not matter."""
    found = []
    for order in (torch.arange(8), torch.randperm(8, generator=torch.Generator().manual_seed(3))):
        given = start()
        (part,) = given["parts"]
        given["parts"] = [replace(part, key_views=part.key_views[order], key_positions=part.key_positions[order])]
        given["momentum_encoder"].batch_norm_splits = 1
        found.append(training_step(**given).total.detach())
    assert_close(found[0], found[1])


def test_queries_and_keys_are_put_back_where_they_belong() -> None:
    """In evaluation mode each bank row is the slow encoder's embedding of that image's key view."""
    given = start()
    network = given["momentum_encoder"].encoder.eval()
    training_step(**given)
    (part,) = given["parts"]
    keys = network(part.key_views)[part.key_positions.argsort()]
    for bank, ids, expected in zip(given["banks"], part.image_ids, keys.chunk(2), strict=True):
        assert_close(bank.rows[ids], expected)


def test_a_step_in_parts_has_the_mean_of_their_gradients() -> None:
    """Each part sees the banks as the parts before left them; the slow encoder moves once."""
    first, second = (start(ids=ids)["parts"][0] for ids in ((4, 0), (2, 7)))

    def standing() -> dict[str, object]:
        given = start() | {"precision": "float32"}
        given["network"].eval()
        given["momentum_encoder"].encoder.eval()
        given["momentum_encoder"].encoder_momentum = 1.0
        given["optimiser"] = torch.optim.SGD(given["encoder"].parameters(), 0.0)
        return given

    def gradient(given: dict[str, object]) -> Tensor:
        return torch.cat([p.grad.flatten() for p in given["encoder"].parameters()])

    together = standing()
    terms = training_step(**together | {"parts": [first, second]})
    alone, gradients, totals = standing(), [], []
    for part in (first, second):
        totals.append(training_step(**alone | {"parts": [part]}).total)
        gradients.append(gradient(alone))
    assert_close(gradient(together), torch.stack(gradients).mean(dim=0))
    assert_close(terms.total, torch.stack(totals).mean())


class Two(Processes):
    """Stands for two processes of which this one has all rows: none is started here."""

    def all_rows(self, rows: Tensor, places: Tensor) -> Tensor:
        return rows[places.argsort()]


def test_what_learns_in_a_method_learns_alike_in_several_processes() -> None:
    """Each process has the gradient of all rows for it, not a share."""
    found = []
    for processes in (ALONE, Two(0, 2)):
        method = Coda(CodaSettings(over_clusters=(5,)), num_domains=2, dim=6)
        weights = method.weights(0)
        training_step(**start() | {"objective": method, "weights": weights, "processes": processes})
        found.append([parameter.grad for parameter in method.parameters()])
    for one, other in zip(*found, strict=True):
        assert one.any()
        assert_close(one, other)
