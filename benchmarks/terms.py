"""How fast are instance and cluster contrast, value and gradient, of two domains, as the memory bank grows?

    python benchmarks/terms.py --rows 2000 20000 100000 --rounds 9

`plain` is the released way: two matrices of logits, everything but the own image copied out by a mask, exp and log by hand,
an N x M mask of what shares a cluster. `one matrix` shares the logits and takes the cluster's mean row, with torch's own
functions. The variants take turns, each in a process of its own; medians, and the least and most in brackets. Memory is what
a turn adds. The limit is the time of two float32 products of N x D x M a domain, one forth and one back. Prints Markdown.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch
import torch.nn.functional as F
from measure import Apart, Work, in_turns, limits, machine, spread, times_faster
from torch import Tensor

from ucdir.learn.clusters import Clusters
from ucdir.learn.losses import bank_logsumexp, cluster_contrast, instance_contrast

TEMPERATURE, CLUSTERS, DOMAINS = 0.2, 65, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000, 100_000])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    print(machine(f"torch {torch.__version__}, {torch.get_num_threads()} threads"))
    gigaflops, gigabytes = limits()
    print(f"\nThe machine's limits: {gigaflops:.0f} GF/s float32 product, {gigabytes:.1f} GB/s copy\n")
    print("| bank rows | terms | ms (range) | times as fast as plain | memory MiB | of the limit |\n|---|---|---|---|---|---|")
    for rows in arguments.rows:
        least = DOMAINS * 2 * 2 * arguments.batch * arguments.dim * rows / gigaflops / 1e9
        compare(rows, arguments.batch, arguments.dim, arguments.rounds, least)


def compare(rows: int, batch: int, dim: int, rounds: int, least: float) -> None:
    with ExitStack() as ended:
        variants = {name: ended.enter_context(Apart(prepared, name, rows, batch, dim)) for name in TERMS}
        memory = {name: variant.memory() for name, variant in variants.items()}  # also a first turn
        found = in_turns(variants, rounds)
    for name, times in found.items():
        ratio, share = times_faster(found["plain"], times), least / sorted(times)[len(times) // 2]
        print(f"| {rows:,} | {name} | {spread(times, 1e3)} | {ratio} | {memory[name]:,.1f} | {share:.0%} |", flush=True)


def prepared(name: str, rows: int, batch: int, dim: int) -> Work:
    """A step of the terms of a variant on drawn domains, a first one done."""
    work = partial(step, TERMS[name], [drawn(number, rows, batch, dim) for number in range(DOMAINS)])
    step(TERMS[name], [drawn(0, 200, batch, dim)])
    return work


def drawn(number: int, rows: int, batch: int, dim: int) -> tuple[Tensor, ...]:
    """query, key (N, D), bank (M, D), image ids (N,), assignment (M,) and which queries count (N,) of a domain."""
    generator = torch.Generator().manual_seed(number)
    query, noise, bank = (F.normalize(torch.randn(n, dim, generator=generator), dim=1) for n in (batch, batch, rows))
    key, image_ids = F.normalize(query + 0.5 * noise, dim=1), torch.randperm(rows, generator=generator)[:batch]
    bank[image_ids] = key
    assignment = torch.randint(CLUSTERS, (rows,), generator=generator)
    return query, key, bank, image_ids, assignment, torch.rand(batch, generator=generator) > 0.1


def step(terms: Callable[..., Tensor], domains: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Gradients of the terms of all domains."""
    queries = [query.clone().requires_grad_() for query, *_ in domains]
    total = torch.stack([terms(query, *rest) for query, (_, *rest) in zip(queries, domains, strict=True)]).mean()
    return list(torch.autograd.grad(total, queries))


def plain(query: Tensor, key: Tensor, bank: Tensor, image_ids: Tensor, assignment: Tensor, counted: Tensor) -> Tensor:
    positive = (query * key).sum(dim=1, keepdim=True)
    others = torch.ones(len(query), len(bank)).scatter_(1, image_ids[:, None], 0).bool()
    negative = (query @ bank.T).masked_select(others).view(len(query), -1)
    logits = torch.cat([positive, negative], dim=1) / TEMPERATURE
    instance = F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64))
    similarity = (query @ bank.T / TEMPERATURE).scatter(1, image_ids[:, None], positive / TEMPERATURE)
    same = (assignment[image_ids][:, None] == assignment).float()
    log_probability = similarity - similarity.exp().sum(dim=1, keepdim=True).log()
    each = -(same * log_probability).sum(dim=1) / same.sum(dim=1)
    return instance + (each * counted).sum() / counted.sum()


def one_matrix(query: Tensor, key: Tensor, bank: Tensor, image_ids: Tensor, assignment: Tensor, counted: Tensor) -> Tensor:
    similarity = (query @ bank.T).scatter(1, image_ids[:, None], (query * key).sum(dim=1, keepdim=True))
    instance = F.cross_entropy(similarity / TEMPERATURE, image_ids)
    sums = torch.logsumexp(similarity / TEMPERATURE, dim=1)
    return instance + cluster_contrast(sums, query, means(bank, assignment), assignment[image_ids], counted, TEMPERATURE)


def ours(query: Tensor, key: Tensor, bank: Tensor, image_ids: Tensor, assignment: Tensor, counted: Tensor) -> Tensor:
    sums = bank_logsumexp(query, key, bank, image_ids, TEMPERATURE)
    cluster = cluster_contrast(sums, query, means(bank, assignment), assignment[image_ids], counted, TEMPERATURE)
    return instance_contrast(sums, query, key, TEMPERATURE) + cluster


def means(bank: Tensor, assignment: Tensor) -> Tensor:
    return Clusters(assignment, bank[:CLUSTERS], 0.0).bank_means(bank)


TERMS: dict[str, Callable[..., Tensor]] = {"plain": plain, "one matrix": one_matrix, "ours": ours}


if __name__ == "__main__":
    main()
