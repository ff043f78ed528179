"""One step of training: encode, write the banks, terms, backward, and, at its last part, the optimiser."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ucdir.images.step_batches import StepBatch
from ucdir.learn.bank import MemoryBank
from ucdir.learn.clusters import Clusters
from ucdir.learn.objective import DomainStep, Objective, Terms
from ucdir.model.device import autocast
from ucdir.model.momentum_encoder import MomentumEncoder
from ucdir.model.processes import ALONE, Processes, without_sync


def training_step(
    network: nn.Module,
    encoder: nn.Module,
    momentum_encoder: MomentumEncoder,
    banks: Sequence[MemoryBank],
    clusterings: Sequence[tuple[Clusters, ...]],
    parts: Sequence[StepBatch],
    objective: Objective,
    weights: Mapping[str, float],
    optimiser: torch.optim.Optimizer,
    device: torch.device,
    precision: str,
    processes: Processes = ALONE,
) -> Terms:
    """One step on all domains at once: means of the terms over its parts, detached.

    network     encoder as it is called: itself, or wrapped for several processes
    parts       one, or several where the images of a step do not fit the memory at once: gradients add up
    """
    optimiser.zero_grad(set_to_none=True)
    found = []
    for number, part in enumerate(parts):
        with without_sync(network, number < len(parts) - 1), autocast(device, precision):
            queries = network(part.query_views.to(device, non_blocking=True))
            if number == 0:
                momentum_encoder.update(encoder)
            keys = momentum_encoder.keys(part.key_views.to(device, non_blocking=True))
        queries = processes.all_rows(queries, part.query_positions.to(device))
        keys = processes.all_rows(keys, part.key_positions.to(device))
        terms = objective(_domain_steps(part, queries, keys, banks, clusterings, device), weights)
        # of a gradient each process has its own images' part, and the mean over processes is taken
        with without_sync(network, number < len(parts) - 1):
            (terms.total * (processes.count / len(parts))).backward()
        found.append(terms.detach())
    for parameter in objective.parameters():  # each process has the gradient of all rows
        if parameter.grad is not None:
            parameter.grad /= processes.count
    optimiser.step()
    return Terms.mean(found)


def _domain_steps(
    part: StepBatch,
    queries: Tensor,
    keys: Tensor,
    banks: Sequence[MemoryBank],
    clusterings: Sequence[tuple[Clusters, ...]],
    device: torch.device,
) -> list[DomainStep]:
    """Hand queries and keys (S * N, D) out to their domains, and write the keys to the banks."""
    sizes = [len(ids) for ids in part.image_ids]
    steps = []
    for ids, query, key, bank, clusters in zip(
        part.image_ids, torch.split(queries, sizes), torch.split(keys, sizes), banks, clusterings, strict=True
    ):
        image_ids = ids.to(device)
        bank.write(image_ids, key)
        steps.append(DomainStep(query, key, image_ids, bank.rows, clusters))
    return steps
