"""The numbers of the published implementation: every stored entry against ours, in float64 at a relative 1e-8.

`golden.npz` holds inputs (`in.*`) and outputs (`out.*`) of the released UCDIR code, run on the CPU in float64. A and B are the
two domains; a number at the end is the position of a cluster count. The entries of retrieval lie with the tests of retrieval.

Where we differ on purpose: several cluster counts are independent terms here, while the released code multiplies its masks from
count to count. The entries that depend on it are compared with `reference.cumulative`, which follows that rule; so the rule is
all that separates us, and each count alone is compared with ours.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference.cumulative import cumulative_cluster_contrast
from torch import Tensor, nn
from torch.testing import assert_close

from ucdir.images.step_batches import StepBatch
from ucdir.learn.bank import MemoryBank
from ucdir.learn.clusters import Clusters, kmeans
from ucdir.learn.losses import (
    assignment_distance,
    assignment_entropy,
    bank_logsumexp,
    cluster_contrast,
    confident,
    distance_of_distance,
    instance_contrast,
)
from ucdir.learn.methods.ucdir import Ucdir, UcdirSettings
from ucdir.learn.objective import DomainStep
from ucdir.learn.schedules import cosine, ramp, stepped
from ucdir.learn.step import training_step
from ucdir.model.batch_norm import split_forward
from ucdir.model.momentum_encoder import MomentumEncoder

GOLDEN = dict(np.load(Path(__file__).with_name("golden.npz")))
OUTPUTS = sorted(name for name in GOLDEN if name.startswith("out."))
SHARED = Path(__file__).parents[2].parent / "shared" / "golden" / "reference.npz"
DOMAINS = ("A", "B")
CASES = {"c7": (7,), "c5_12": (5, 12), "c12_5": (12, 5), "c4_7_20": (4, 7, 20)}


def stored(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


def like(pattern: str) -> list[str]:
    """The outputs whose whole name is like this; at least one."""
    names = [name for name in OUTPUTS if re.fullmatch(pattern, name)]
    assert names, pattern
    return names


def agree(ours: Tensor, name: str, atol: float = 1e-14) -> None:
    """Equal to the stored entry; `atol` lets entries pass that are zero but for rounding."""
    expected = stored(name)
    assert_close(ours.detach().reshape(expected.shape), expected, rtol=1e-8, atol=atol)


def wanted(case: str, domain: str, number: int) -> Clusters:
    return Clusters(
        stored(f"in.{case}.im2cluster_{domain}.{number}"),
        stored(f"in.{case}.centroids_{domain}.{number}"),
        0.0,
    )


def query(domain: str) -> Tensor:
    return stored(f"in.q_{domain}").clone().requires_grad_()


def domain_step(domain: str, case: str, numbers: Sequence[int]) -> DomainStep:
    """One domain after its keys were written."""
    bank = stored(f"out.enqueue.queue_{domain}").T
    clusterings = tuple(wanted(case, domain, number) for number in numbers)
    return DomainStep(query(domain), stored(f"in.k_{domain}"), stored(f"in.ids_{domain}"), bank, clusterings)


def both_domains(case: str, numbers: Sequence[int] | None = None) -> list[DomainStep]:
    counts = range(len(CASES[case])) if numbers is None else numbers
    return [domain_step(domain, case, counts) for domain in DOMAINS]


EVERYTHING = {"instance": 1.0, "cluster": 1.0, "entropy": 1.0, "distance": 1.0}


# The memory bank

ENQUEUE = like(r"out\.enqueue\.queue_[AB]")


@pytest.mark.parametrize("name", ENQUEUE)
def test_writing_keys(name: str) -> None:
    domain = name[-1]
    bank = MemoryBank(stored(f"in.queue_{domain}_before").T)
    bank.write(stored(f"in.ids_{domain}"), stored(f"in.k_{domain}"))
    assert torch.equal(bank.rows, stored(name).T)


REPEATED_IDS = like(r"out\.dup\..*")


@pytest.mark.parametrize("name", REPEATED_IDS)
def test_repeated_ids(name: str) -> None:
    """The last key of an image stays in the bank; each row is compared with its own key."""
    ids, key, q = stored("in.dup.ids_A"), stored("in.k_A"), query("A")
    bank = MemoryBank(stored("in.queue_A_before").T)
    bank.write(ids, key)
    loss = instance_contrast(bank_logsumexp(q, key, bank.rows, ids, 0.2), q, key, 0.2)
    (gradient,) = torch.autograd.grad(loss, q)
    agree({"queue_A": bank.rows.T, "inst_A": loss, "grad_q_A": gradient}[name.removeprefix("out.dup.")], name)


# Instance contrast

INSTANCE = like(r"out\.inst\..*")


@pytest.mark.parametrize("name", INSTANCE)
def test_instance_contrast(name: str) -> None:
    _, _, when, rest = name.split(".", 3)
    temperature, domain = float(rest[1 : rest.rindex(".")]), name[-1]
    q, key, ids = query(domain), stored(f"in.k_{domain}"), stored(f"in.ids_{domain}")
    bank = stored(f"in.queue_{domain}_before" if when == "noenq" else f"out.enqueue.queue_{domain}").T
    loss = instance_contrast(bank_logsumexp(q, key, bank, ids, temperature), q, key, temperature)
    agree(torch.autograd.grad(loss, q)[0] if "grad" in name else loss, name)


# Cluster contrast

CLUSTER = like(r"out\.cwcon\.c7\..*")
CLUSTER_ALONE = like(r"out\.cwcon\..*\.alone\d.*")
CLUSTER_CUMULATIVE = like(r"out\.cwcon\.(c5_12|c12_5|c4_7_20)\.th.*")


def our_cluster_term(step: DomainStep, clusters: Clusters, threshold: float) -> Tensor:
    assignment = clusters.assignment[step.image_ids]
    counted = confident(step.key, clusters.prototypes, assignment, 0.2, threshold)
    logsumexp = bank_logsumexp(step.query, step.key, step.bank, step.image_ids, 0.2)
    return cluster_contrast(logsumexp, step.query, clusters.bank_means(step.bank), assignment, counted, 0.2)


@pytest.mark.parametrize("name", CLUSTER)
def test_cluster_contrast(name: str) -> None:
    threshold = float(re.search(r"\.th([\d.]+)\.", name)[1])
    step = domain_step(name[-1], "c7", [0])
    loss = our_cluster_term(step, step.clusterings[0], threshold)
    agree(torch.autograd.grad(loss, step.query)[0] if "grad" in name else loss, name)


@pytest.mark.parametrize("name", CLUSTER_ALONE)
def test_cluster_contrast_of_one_count_among_several(name: str) -> None:
    _, _, case, alone, *_ = name.split(".")
    step = domain_step(name[-1], case, [int(alone.removeprefix("alone"))])
    agree(our_cluster_term(step, step.clusterings[0], 0.2), name)


@pytest.mark.parametrize("case", CASES)
def test_several_counts_are_independent_terms(case: str) -> None:
    """The objective's cluster term is the mean of what each count gives alone."""
    if case == "c7":
        alone = {domain: [f"out.cwcon.c7.th0.2.{domain}"] for domain in DOMAINS}
    else:
        alone = {domain: like(rf"out\.cwcon\.{case}\.alone\d\.th0\.2\.{domain}") for domain in DOMAINS}
    terms = Ucdir(UcdirSettings(num_clusters=CASES[case]), 200)(both_domains(case), EVERYTHING)
    for domain, value in zip(DOMAINS, terms.parts["cluster"], strict=True):
        assert len(alone[domain]) == len(CASES[case])
        assert_close(value, torch.stack([stored(name) for name in alone[domain]]).mean(), rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", CLUSTER_CUMULATIVE)
def test_cumulative_masks_explain_the_released_cluster_contrast(name: str) -> None:
    _, _, case, rest = name.split(".", 3)
    threshold, step = float(rest[2 : rest.rindex(".")]), domain_step(name[-1], case, range(len(CASES[case])))
    clusterings = [(clusters.assignment, clusters.prototypes) for clusters in step.clusterings]
    loss = cumulative_cluster_contrast(step.query, step.key, step.bank, step.image_ids, clusterings, 0.2, threshold)
    agree(torch.autograd.grad(loss, step.query)[0] if "grad" in name else loss, name)


# Assignment entropy

ENTROPY = like(r"out\.selfentro\.c.*\.feat.*")
ENTROPY_MEAN = like(r"out\.selfentro\.c.*\.(MEAN|grad_q_[AB])")
ENTROPY_LISTED = like(r"out\.selfentro\.listed12\..*")
ENTROPY_REPEATED = like(r"out\.selfentro\.repeat7\..*")
SINGLE_TEMPERATURE = 0.2  # of `listed12` and `repeat7`


@pytest.mark.parametrize("name", [*ENTROPY, *ENTROPY_REPEATED, *(name for name in ENTROPY_LISTED if "feat" in name)])
def test_assignment_entropy(name: str) -> None:
    """Each pair of feature and prototype domain; a count given twice gives the same value twice."""
    feature, prototype, size = re.search(r"feat_domain_(.)-proto_domain_(.)-cluster_(\d+)", name).groups()
    where = name.split(".")[2]
    case = {"listed12": "c5_12", "repeat7": "c7"}.get(where, where)
    temperature = float(found[1]) if (found := re.search(r"\.st([\d.]+)\.", name)) else SINGLE_TEMPERATURE
    prototypes = wanted(case, prototype, CASES[case].index(int(size))).prototypes
    value = assignment_entropy(query(feature), prototypes, temperature)
    agree(value.repeat(len(stored(name))), name)


def test_only_the_listed_count_gives_entropies() -> None:
    terms = [(feature, prototype) for feature in DOMAINS for prototype in DOMAINS]
    assert int(stored("out.selfentro.listed12.count")) == len(terms) == len(ENTROPY_LISTED) - 1
    ours = Ucdir(UcdirSettings(entropy_temperature=SINGLE_TEMPERATURE), 200)(both_domains("c5_12", [1]), EVERYTHING)
    expected = torch.cat([stored(name) for name in ENTROPY_LISTED if "feat" in name]).mean()
    assert_close(ours.parts["entropy"][0], expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", ENTROPY_MEAN)
def test_mean_entropy_and_its_gradient(name: str) -> None:
    case, temperature = re.search(r"selfentro\.(c[\d_]+)\.st([\d.]+)\.", name).groups()
    steps = both_domains(case)
    method = UcdirSettings(entropy_temperature=float(temperature))
    entropy = Ucdir(method, 200)(steps, EVERYTHING).parts["entropy"][0]
    agree(
        entropy if "MEAN" in name else torch.autograd.grad(entropy, steps[DOMAINS.index(name[-1])].query)[0],
        name,
    )


# Distance of distance

DISTANCE = like(r"out\.dist\..*\.feat_domain_.*")
DISTANCE_MEAN = like(r"out\.dist\..*\.(MEAN|grad_q_[AB])")
DISTANCE_VECTOR = like(r"out\.dist\..*\.vector_feat_A\.0")


@pytest.mark.parametrize("name", DISTANCE)
def test_distance_of_distance(name: str) -> None:
    case, feature, size = re.search(r"dist\.(c[\d_]+)\.feat_domain_(.)_A_B-cluster_(\d+)", name).groups()
    one, other = (wanted(case, domain, CASES[case].index(int(size))).prototypes for domain in DOMAINS)
    agree(distance_of_distance(query(feature), one, other), name)


@pytest.mark.parametrize("name", DISTANCE_MEAN)
def test_mean_distance_and_its_gradient(name: str) -> None:
    case = name.split(".")[2]
    steps = both_domains(case)
    distance = Ucdir(UcdirSettings(), 200)(steps, EVERYTHING).parts["distance"][0]
    agree(
        distance if "MEAN" in name else torch.autograd.grad(distance, steps[DOMAINS.index(name[-1])].query)[0],
        name,
    )


@pytest.mark.parametrize("name", DISTANCE_VECTOR)
def test_distance_of_each_query(name: str) -> None:
    case = name.split(".")[2]
    one, other = (assignment_distance(query("A"), wanted(case, domain, 0).prototypes, 0.01) for domain in DOMAINS)
    agree((one - other + 1e-6).square().sum(dim=1), name)


# Momentum

MOMENTUM = like(r"out\.momentum.*")


@pytest.mark.parametrize("name", MOMENTUM)
def test_momentum_update(name: str) -> None:
    factor, number = re.search(r"momentum([\d.]+)\.k\.(\d)", name).groups()
    fast = nn.ParameterList([stored(f"in.momentum{factor}.q.{i}") for i in range(5)])
    momentum_encoder = MomentumEncoder(
        nn.ParameterList([stored(f"in.momentum{factor}.k.{i}") for i in range(5)]), float(factor), 1
    )
    momentum_encoder.update(fast)
    agree(list(momentum_encoder.encoder.parameters())[int(number)], name)


# Split batch norm

SPLIT_BATCH_NORM = like(r"out\.sbn.*")


@cache
def normalised(splits: int) -> dict[str, Tensor]:
    """A batch norm trained on two batches, then evaluated on the first."""
    norm = nn.BatchNorm2d(6, dtype=torch.float64)
    norm.load_state_dict(
        {key: stored(f"in.sbn{splits}.{key}") for key in ("weight", "bias", "running_mean", "running_var")}
        | {"num_batches_tracked": torch.tensor(0)}
    )
    found = {}
    for number in (1, 2):
        found[f"y{number}"] = split_forward(norm, stored(f"in.sbn{splits}.x{number}"), splits)
        found[f"running_mean{number}"] = norm.running_mean.clone()
        found[f"running_var{number}"] = norm.running_var.clone()
    found["num_batches_tracked"] = norm.num_batches_tracked.clone()
    found["eval_x1"] = split_forward(norm.eval(), stored(f"in.sbn{splits}.x1"), splits)
    return found


@pytest.mark.parametrize("name", SPLIT_BATCH_NORM)
def test_split_batch_norm(name: str) -> None:
    splits, key = re.fullmatch(r"out\.sbn(\d)\.(.*)", name).groups()
    agree(normalised(int(splits))[key], name)


# Schedules

LEARNING_RATE = like(r"out\.lr\..*")


@pytest.mark.parametrize("name", LEARNING_RATE)
def test_learning_rates(name: str) -> None:
    if name == "out.lr.cos":
        ours = [cosine(0.03, epoch, 200) for epoch in range(200)]
    else:
        ours = [stepped(0.03, epoch, (120, 160)) for epoch in range(200)]
    agree(torch.tensor(ours, dtype=torch.float64), name)


# Three steps of training

TRACES = like(r"out\.step\..*")
SAME_RULE = [name for name in TRACES if name.startswith(("out.step.g12.", "out.step.g5_12.ep0."))]
CUMULATIVE_RULE = [name for name in TRACES if name not in SAME_RULE]
COUNTS = {"g12": (1,), "g5_12": (0, 1)}
METERS = {
    "Inst_Loss_A": lambda terms: terms.parts["instance"][0],
    "Inst_Loss_B": lambda terms: terms.parts["instance"][1],
    "Cwcon_Loss_A": lambda terms: terms.parts["cluster"][0],
    "Cwcon_Loss_B": lambda terms: terms.parts["cluster"][1],
    "Loss_SelfEntropy": lambda terms: terms.parts["entropy"][0],
    "Loss_DistLogits": lambda terms: terms.parts["distance"][0],
    "Loss_Total": lambda terms: terms.total,
}


class TinyEncoder(nn.Module):
    """The network of the stored traces."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 32)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.fc(F.relu(self.bn(self.conv(images))).mean((2, 3))), dim=1)


def start_state(which: str) -> dict[str, Tensor]:
    before = f"in.step.init.{which}."
    return {name.removeprefix(before): stored(name) for name in GOLDEN if name.startswith(before)}


class CumulativeUcdir(Ucdir):
    """Our objective with the released code's cluster term in place of ours."""

    def parts(self, steps: Sequence[DomainStep], weights: Mapping[str, float]) -> dict[str, tuple[Tensor, ...]]:
        cluster = tuple(
            cumulative_cluster_contrast(
                step.query,
                step.key,
                step.bank,
                step.image_ids,
                [(clusters.assignment, clusters.prototypes) for clusters in step.clusterings],
                self.method.temperature,
                self.method.confidence,
            )
            for step in steps
        )
        return super().parts(steps, weights) | {"cluster": cluster}


@cache
def trace(counts: str, epoch: int, cumulative: bool) -> dict[str, Tensor]:
    """Three steps with `training_step`, from the stored start; names as in the stored outputs."""
    encoder = TinyEncoder().double()
    encoder.load_state_dict(start_state("encoder_q"))
    momentum_encoder = MomentumEncoder(encoder, 0.99, 2)
    momentum_encoder.encoder.load_state_dict(start_state("encoder_k"))
    banks = [MemoryBank(stored(f"in.step.queue_{domain}").T) for domain in DOMAINS]
    clusterings = [tuple(wanted("step", domain, i) for i in COUNTS[counts]) if epoch else () for domain in DOMAINS]
    aligned = float(epoch >= 50)
    cluster = ramp(0.1, 0.7, epoch, 20, 100) if epoch else 0.0
    weights = {"instance": 0.9, "cluster": cluster, "entropy": 0.5 * aligned, "distance": 0.3 * aligned}
    objective = (CumulativeUcdir if cumulative else Ucdir)(UcdirSettings(entropy_temperature=0.1), 200)
    optimiser = torch.optim.SGD(encoder.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    meters: dict[str, list[Tensor]] = {name: [] for name in METERS}
    for step in range(3):
        order = stored(f"in.step.{step}.shuffle_perm")
        ids, queries, keys = (
            [stored(f"in.step.{step}.{part}_{domain}") for domain in DOMAINS] for part in ("ids", "im_q", "im_k")
        )
        part = StepBatch(tuple(ids), torch.cat(queries), torch.arange(len(order)), torch.cat(keys)[order], order)
        terms = training_step(
            encoder,
            encoder,
            momentum_encoder,
            banks,
            clusterings,
            [part],
            objective,
            weights,
            optimiser,
            torch.device("cpu"),
            "float32",
        )
        for name, meter in METERS.items():
            meters[name].append(meter(terms).detach())
    found = {name: torch.stack(values) for name, values in meters.items()}
    for domain, bank in zip(DOMAINS, banks, strict=True):
        found[f"final.queue_{domain}"] = bank.rows.T
    for which, network in (("encoder_q", encoder), ("encoder_k", momentum_encoder.encoder)):
        found |= {f"final.{which}.{key}": value.clone() for key, value in network.state_dict().items()}
    momentum_encoder.encoder.eval()
    for domain in DOMAINS:
        found[f"eval_{domain}"] = momentum_encoder.encoder(stored(f"in.step.0.im_q_{domain}"))
    return found


def in_trace(name: str) -> tuple[str, int, str]:
    counts, epoch, key = re.fullmatch(r"out\.step\.(g[\d_]+)\.ep(\d+)\.(.*)", name).groups()
    return counts, int(epoch), key


@pytest.mark.parametrize("name", SAME_RULE)
def test_training_trace(name: str) -> None:
    """One cluster count, or no cluster terms yet: terms, both final states, banks and evaluation embeddings are the same."""
    counts, epoch, key = in_trace(name)
    agree(trace(counts, epoch, cumulative=False)[key], name, atol=1e-12)


@pytest.mark.parametrize("name", CUMULATIVE_RULE)
def test_training_trace_with_cumulative_masks(name: str) -> None:
    """Two cluster counts: the same once the released code's multiplied masks stand in for our independent terms."""
    counts, epoch, key = in_trace(name)
    agree(trace(counts, epoch, cumulative=True)[key], name, atol=1e-12)


@pytest.mark.parametrize("epoch", [20, 50, 120])
@pytest.mark.parametrize("meter", METERS)
def test_independent_counts_leave_the_released_trace_only_through_the_cluster_term(epoch: int, meter: str) -> None:
    """Two cluster counts, our own rule.

    In the first batch no image loses a positive by multiplying masks, so every term agrees. In the second the cluster term of
    domain B is the first to differ, and with it the total; all other terms, computed before that step's gradient, still agree.
    From then on the two trainings have different weights and no entry of the third step can agree.
    """
    name = f"out.step.g5_12.ep{epoch}.{meter}"
    if name not in GOLDEN:
        assert epoch == 20
        assert meter in ("Loss_SelfEntropy", "Loss_DistLogits")
        return
    ours, theirs = trace("g5_12", epoch, cumulative=False)[meter], stored(name)
    assert_close(ours[0], theirs[0], rtol=1e-8, atol=0)
    if meter in ("Cwcon_Loss_B", "Loss_Total"):
        assert abs(float(ours[1] / theirs[1]) - 1) > 1e-5
    else:
        assert_close(ours[1], theirs[1], rtol=1e-8, atol=0)


# k-means

KMEANS_PARTITION = like(r"out\.km\.(im2cluster|centroids)_[AB]\.0")
KMEANS_INERTIA = like(r"out\.km\.inertia_[AB]\.[01]")


@cache
def clustered(domain: str, number: int) -> Clusters:
    return kmeans(stored(f"in.km.x_{domain}"), (7, 12)[number], 20, 5, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", KMEANS_PARTITION)
def test_kmeans_finds_the_seven_groups(name: str) -> None:
    """The same partition up to the names of the clusters, and the same unit centroids in float32."""
    domain = re.search(r"_([AB])\.", name)[1]
    ours, theirs = clustered(domain, 0), stored(f"out.km.im2cluster_{domain}.0")
    renamed = torch.stack([torch.mode(ours.assignment[theirs == cluster]).values for cluster in range(7)])  # theirs -> ours
    if "centroids" in name:
        assert_close(ours.prototypes[renamed].double(), stored(name), rtol=1e-4, atol=1e-5)
    else:
        assert sorted(renamed.tolist()) == list(range(7))
        assert torch.equal(renamed[theirs], ours.assignment)
        truth = stored(f"in.km.true_{domain}")
        assert len(set(zip(truth.tolist(), ours.assignment.tolist(), strict=True))) == 7


@pytest.mark.parametrize("name", KMEANS_INERTIA)
def test_kmeans_is_as_tight(name: str) -> None:
    domain, number = re.search(r"_([AB])\.(\d)", name).groups()
    assert clustered(domain, int(number)).inertia <= float(stored(name)) * 1.001


# Nothing is forgotten

COMPARED = [
    *(ENQUEUE + REPEATED_IDS + INSTANCE),
    *(CLUSTER + CLUSTER_ALONE + CLUSTER_CUMULATIVE),
    *(ENTROPY + ENTROPY_MEAN + ENTROPY_LISTED + ENTROPY_REPEATED),
    *(DISTANCE + DISTANCE_MEAN + DISTANCE_VECTOR),
    *(MOMENTUM + SPLIT_BATCH_NORM + LEARNING_RATE),
    *(SAME_RULE + CUMULATIVE_RULE),
    *(KMEANS_PARTITION + KMEANS_INERTIA),
]
NOT_COMPARED = {
    "out.km.im2cluster_A.1": "12 clusters of 7 groups: many partitions are as good, only the inertia is compared",
    "out.km.im2cluster_B.1": "as A",
    "out.km.centroids_A.1": "of that partition",
    "out.km.centroids_B.1": "of that partition",
}


def test_every_stored_output_is_compared_once_or_listed() -> None:
    assert len(COMPARED) == len(set(COMPARED))
    assert not set(COMPARED) & NOT_COMPARED.keys()
    assert set(COMPARED) | NOT_COMPARED.keys() == set(OUTPUTS)


def test_the_stored_arrays_are_all_of_the_reference_but_retrieval() -> None:
    if not SHARED.exists():
        pytest.skip("shared data is not here")
    reference = np.load(SHARED)
    assert set(GOLDEN) == {name for name in reference.files if ".ret." not in name}
    assert all(np.array_equal(GOLDEN[name], reference[name]) for name in GOLDEN)
