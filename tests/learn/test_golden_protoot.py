"""The numbers of the released ProtoOT code against ours, in float64 at a relative 1e-9.

`golden_protoot.npz` holds inputs (`in.*`) and outputs (`out.*`) of the released code (HCVLab/ProtoOT, commit ebe94d7), run
unedited on the CPU in float64: 7 prototypes, 12 queries of 40 and 55 images in 16 dimensions, temperature 0.2, smoothing 0.05,
3 iterations. A and B are the two domains; `out.0` and `out.1` are two steps with the same images, between which the
prototypes move. Its in-domain loss is the sum over both domains of the three terms with their weights 1, 0.5 and 0.1.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ucdir.learn.clusters import Clusters
from ucdir.learn.losses import normalised_rows, transport
from ucdir.learn.methods import build_objective
from ucdir.learn.methods.protoot import ProtoOT
from ucdir.learn.objective import DomainStep
from ucdir.settings import Settings

GOLDEN = {name: torch.from_numpy(array) for name, array in np.load(Path(__file__).with_name("golden_protoot.npz")).items()}
DOMAINS = ("A", "B")


def agree(found: Tensor, name: str) -> None:
    assert_close(found.detach(), GOLDEN[name], rtol=1e-9, atol=1e-13)


def inputs(name: str) -> list[Tensor]:
    return [GOLDEN[f"in.{name}_{domain}"] for domain in DOMAINS]


def released() -> ProtoOT:
    """The objective with every choice as published, begun with the stored prototypes and shares."""
    method = {
        "name": "protoot",
        "num_clusters": (7,),
        "ot_similarity": "published",
        "ot_prototypes": "published",
        "ot_shares": "published",
    }
    settings = Settings.model_validate({"method": method, "encoder": {"dim": 16}})
    objective = build_objective(settings, 2).double()
    assert isinstance(objective, ProtoOT)
    for domain, (sizes, prototypes) in enumerate(zip(inputs("sizes"), inputs("prototypes"), strict=True)):
        objective.prototypes[domain], objective.shares[domain] = prototypes, sizes / sizes.sum(dtype=torch.float64)
    return objective


def steps() -> list[DomainStep]:
    parts = zip(inputs("query"), inputs("key"), inputs("ids"), inputs("bank"), strict=True)
    return [DomainStep(query.clone().requires_grad_(), key, ids, bank, ()) for query, key, ids, bank in parts]


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_plan_of_a_domain(domain: str) -> None:
    bank, prototypes, sizes = (GOLDEN[f"in.{name}_{domain}"] for name in ("bank", "prototypes", "sizes"))
    plan = transport(normalised_rows(bank @ prototypes.T), sizes / sizes.sum(dtype=torch.float64), 0.05, 3)
    agree(len(bank) * plan, f"out.plan_{domain}")


def test_two_steps() -> None:
    objective = released()
    weights = objective.weights(199)
    assert weights == {"instance": 1.0, "neighbour": 0.5, "prototype": 0.1, "cross": 0.01}
    for number in (0, 1):
        given = steps()
        parts = objective.parts(given, weights)
        queries = [step.query for step in given]
        losses = {
            "in_domain": torch.stack(
                [weights[name] * sum(parts[name]) for name in ("instance", "neighbour", "prototype")]
            ).sum(),
            "cross_domain": torch.stack(parts["cross"]).sum(),
        }
        for name, loss in losses.items():
            agree(loss, f"out.{number}.{name}")
            for domain, gradient in zip(DOMAINS, torch.autograd.grad(loss, queries, retain_graph=True), strict=True):
                agree(gradient, f"out.{number}.{name}.grad_{domain}")
        for domain, prototypes in zip(DOMAINS, objective.prototypes, strict=True):
            agree(prototypes, f"out.{number}.prototypes_{domain}")


def test_shares_are_those_of_the_clusters() -> None:
    """An epoch that begins with clusters of the stored sizes has the stored shares, up to float32."""
    objective = released()
    wanted = objective.shares.clone()
    clusters = [
        Clusters(torch.arange(7).repeat_interleave(sizes), prototypes, 0.0)
        for sizes, prototypes in zip(inputs("sizes"), inputs("prototypes"), strict=True)
    ]
    objective.begin_epoch(inputs("bank"), [(found,) for found in clusters])
    assert_close(objective.shares, wanted, rtol=1e-6, atol=0)
