"""How fast are the figures of a ranking, both ways between two domains, beside a sort of all similarities?

    python benchmarks/scoring.py --images 10000 --classes 7 --rounds 3

`plain` is the released way, written anew: the whole matrix of float32 similarities, sorted whole with numpy, the classes of
all ranks, and capped P@50, 100, 200 by a loop over the queries; then the same for its transpose. `sorted in torch` keeps the
whole sort and reads the figures off at once. `ours` are all figures of `ucdir evaluate`, mAP over the whole gallery among them,
from exact cosines with ties in expectation. The variants take turns, each in a process of its own; medians, the least and most
in brackets. Memory is what a turn adds. The limit is the time of the two matrix products in float32. Prints Markdown.
"""

import argparse
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from measure import Apart, Work, in_turns, limits, machine, spread, times_faster
from torch import Tensor

from ucdir.model.device import reuse_buffers
from ucdir.scoring.metrics import score

KS = (50, 100, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[5_000, 10_000])
    parser.add_argument("--classes", type=int, nargs="+", default=[7])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(machine(f"torch {torch.__version__}, {torch.get_num_threads()} threads"))
    gigaflops, gigabytes = limits()
    print(f"\nThe machine's limits: {gigaflops:.0f} GF/s float32 product, {gigabytes:.1f} GB/s copy\n")
    print("| images | classes | scoring, both ways | seconds (range) | times as fast as plain | memory MiB | of the limit |")
    print("|---|---|---|---|---|---|---|")
    for images in arguments.images:
        for classes in arguments.classes:
            compare(images, classes, arguments.dim, arguments.rounds, 4 * images**2 * arguments.dim / gigaflops / 1e9)


def compare(images: int, classes: int, dim: int, rounds: int, least: float) -> None:
    names = ("plain", "sorted in torch", "ours, no intervals", "ours, 1,000 resamples")
    with ExitStack() as ended:
        variants = {name: ended.enter_context(Apart(prepared, name, images, classes, dim)) for name in names}
        memory = {name: variant.memory() for name, variant in variants.items()}  # also a first turn
        found = in_turns(variants, rounds)
    for name, times in found.items():
        ratio, share = times_faster(found["plain"], times), least / sorted(times)[len(times) // 2]
        print(
            f"| {images:,} | {classes} | {name} | {spread(times)} | {ratio} | {memory[name]:,.0f} | {share:.0%} |", flush=True
        )


def prepared(name: str, images: int, classes: int, dim: int) -> Work:
    """The work of a variant on two drawn domains."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=generator)
    labels = [torch.randint(classes, (images,), generator=generator) for _ in range(2)]
    rows = [F.normalize(centres[own] + 4 * torch.randn(images, dim, generator=generator), dim=1) for own in labels]
    if name == "plain":
        return partial(plain, *(part.numpy() for part in (*rows, *labels)))
    if name == "sorted in torch":
        return partial(sorted_in_torch, *rows, *labels)
    reuse_buffers(torch.device("cpu"))  # as every command that embeds has done before it scores
    return partial(ours, *rows, *labels, resamples=1000 if "1,000" in name else 0)


def plain(one: np.ndarray, other: np.ndarray, classes: np.ndarray, other_classes: np.ndarray) -> list[float]:
    similarity = one @ other.T
    return [*loops(similarity, classes, other_classes), *loops(similarity.T, other_classes, classes)]


def loops(similarity: np.ndarray, query_classes: np.ndarray, gallery_classes: np.ndarray) -> list[float]:
    order = np.argsort(-similarity, axis=1)
    ranked = gallery_classes[order.flatten()].reshape(order.shape)
    match = ranked == np.tile(query_classes[:, None], ranked.shape[1])
    figures = []
    for k in KS:
        possible = hits = 0
        for query in range(len(match)):
            most = min(k, (gallery_classes == query_classes[query]).sum())
            possible += most
            hits += match[query, :most].sum()
        figures.append(float(hits / possible))
    return figures


def sorted_in_torch(one: Tensor, other: Tensor, classes: Tensor, other_classes: Tensor) -> list[float]:
    similarity = one @ other.T
    return [*first_ranks(similarity, classes, other_classes), *first_ranks(similarity.T, other_classes, classes)]


def first_ranks(similarity: Tensor, query_classes: Tensor, gallery_classes: Tensor) -> list[float]:
    order = similarity.argsort(dim=1, descending=True)
    match = gallery_classes[order[:, : max(KS)]] == query_classes[:, None]
    return [float(match[:, :k].double().mean()) for k in KS]


def ours(one: Tensor, other: Tensor, classes: Tensor, other_classes: Tensor, resamples: int) -> list[float]:
    there = score(one, other, classes, other_classes, KS, resamples)
    back = score(other, one, other_classes, classes, KS, resamples)
    return [scores[f"P@{k}"].value for scores in (there, back) for k in KS]


if __name__ == "__main__":
    main()
