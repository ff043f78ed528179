"""How fast is k-means, and how tight, beside the plain way and faiss?

    python benchmarks/kmeans.py --rows 20000 --clusters 7 65 345 --rounds 3

`plain` is k-means++ over all rows, 5 starts of 20 iterations each, the lowest inertia wins; faiss does as many from random
rows. `ours, warm` is given the clusters that were found before all rows moved a little, as from epoch to epoch. The variants
take turns, each round with another seed; medians, and the least and most in brackets. Inertia is against plain's of the
same round. The limit is the time of one float32 product of rows and centroids for each of 5 x 20 iterations. Prints Markdown.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import limits, machine, spread, times_faster
from torch import Tensor

from ucdir.learn.clusters import kmeans

try:
    import faiss
except ImportError:
    faiss = None

STARTS, ITERATIONS = 5, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000])
    parser.add_argument("--clusters", type=int, nargs="+", default=[7, 65, 345])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--embeddings", type=Path, nargs="*", default=[], help=".pt files of rows (M, D) to cluster as well")
    arguments = parser.parse_args()
    print(machine(f"torch {torch.__version__}, {torch.get_num_threads()} threads"))
    gigaflops, gigabytes = limits()
    print(f"\nThe machine's limits: {gigaflops:.0f} GF/s float32 product, {gigabytes:.1f} GB/s copy")
    if faiss is None:
        print("\nfaiss is not installed (pip install faiss-cpu), so its lines are left out.")
    print("\n| rows | clusters | k-means | seconds (range) | times as fast as plain | inertia to plain % | of the limit |")
    print("|---|---|---|---|---|---|---|", flush=True)
    data = {f"{kind} {count:,}": drawn(kind, count, arguments.dim) for count in arguments.rows for kind in DRAWN}
    data |= {f"{file.stem} {len(rows):,}": rows for file in arguments.embeddings for rows in [torch.load(file).float()]}
    for name, rows in data.items():
        for count in arguments.clusters:
            compare(name, rows, count, arguments.rounds, STARTS * ITERATIONS * 2 * rows.numel() * count / gigaflops / 1e9)


def compare(name: str, rows: Tensor, count: int, rounds: int, least: float) -> None:
    times: dict[str, list[float]] = {}
    looser: dict[str, list[float]] = {}
    for turn in range(rounds):
        last = ours(moved(rows, turn), count, turn + 100)
        variants = {"plain": plain, "ours": ours, "ours, warm": lambda *given, last=last: ours(*given, last[0])}
        if faiss is not None:
            variants["faiss"] = of_faiss
        inertia: dict[str, float] = {}
        for variant, cluster in variants.items():
            started = time.perf_counter()
            inertia[variant] = cluster(rows, count, turn)[1]
            times.setdefault(variant, []).append(time.perf_counter() - started)
            looser.setdefault(variant, []).append(100 * (inertia[variant] / inertia["plain"] - 1))
    for variant, found in times.items():
        ratio, share = times_faster(times["plain"], found), least / sorted(found)[len(found) // 2]
        cells = f"{name} | {count} | {variant} | {spread(found)} | {ratio} | {spread(looser[variant])} | {share:.0%}"
        print(f"| {cells} |", flush=True)


def drawn(kind: str, count: int, dim: int) -> Tensor:
    """Unit rows without structure, or around 100 directions with much noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, dim, generator=generator)
    if kind == "random":
        return F.normalize(noise, dim=1)
    centres = torch.randn(100, dim, generator=generator)
    return F.normalize(centres[torch.randint(100, (count,), generator=generator)] + noise, dim=1)


DRAWN = ("random", "clustered")


def moved(rows: Tensor, seed: int) -> Tensor:
    """All rows turned by about 0.1 in a direction of their own: what they were an epoch ago."""
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed)) / rows.shape[1] ** 0.5
    length = rows.norm(dim=1, keepdim=True)
    return F.normalize(rows + 0.1 * length * noise, dim=1) * length


def ours(rows: Tensor, count: int, seed: int, start: Tensor | None = None) -> tuple[Tensor, float]:
    found = kmeans(rows, count, ITERATIONS, STARTS, torch.Generator().manual_seed(seed), start)
    return found.assignment, found.inertia


def plain(rows: Tensor, count: int, seed: int) -> tuple[Tensor, float]:
    generator = torch.Generator().manual_seed(seed)
    found = [one_start(rows, count, generator) for _ in range(STARTS)]
    return min(found, key=lambda start: start[1])


def one_start(rows: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, float]:
    centroids = spread_seeds(rows, count, generator)
    for _ in range(ITERATIONS):
        assignment = squared_distances(rows, centroids).argmin(dim=1)
        members = torch.bincount(assignment, minlength=count)[:, None]
        sums = torch.zeros_like(centroids).index_add_(0, assignment, rows)
        centroids = torch.where(members > 0, sums / members.clamp(min=1), centroids)
    nearest = squared_distances(rows, centroids).min(dim=1)
    return nearest.indices, float(nearest.values.double().clamp(min=0).sum())


def spread_seeds(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = [int(torch.randint(len(rows), (1,), generator=generator))]
    distance = torch.full((len(rows),), torch.inf)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (rows - rows[chosen[-1]]).square().sum(dim=1))
        chosen.append(int(torch.multinomial(distance, 1, generator=generator)))
    return rows[chosen].clone()


def squared_distances(rows: Tensor, centroids: Tensor) -> Tensor:
    return rows.square().sum(dim=1, keepdim=True) - 2 * rows @ centroids.T + centroids.square().sum(dim=1)


def of_faiss(rows: Tensor, count: int, seed: int) -> tuple[Tensor, float]:
    trained = faiss.Kmeans(
        rows.shape[1], count, niter=ITERATIONS, nredo=STARTS, seed=seed + 1, max_points_per_centroid=len(rows)
    )
    values = rows.numpy()
    trained.train(values)
    distance, nearest = trained.index.search(values, 1)
    return torch.from_numpy(nearest[:, 0]), float(distance.astype("float64").sum())


if __name__ == "__main__":
    main()
