"""How fast is exact search, beside faiss and beside what the machine can do at all?

    python benchmarks/search.py --rows 1000000 --dim 128 --rounds 5

Writes two galleries of unit rows, random and clustered, into a temporary folder, maps them into memory and searches each
with 1 and 1,000 queries. The variants take turns within each round, so that a busy moment of the machine hits all of them;
medians, and the fastest and slowest turn in brackets. `plain` is what research scripts do: the whole matrix of scores, sorted
whole, with as many queries as fit. faiss is optional. Recall is the share of the k rows of a float64 brute force that were
found, for the first 20 queries. Memory is the most that numpy held while searching; for faiss it is the answer and its copy of
the gallery, which is made once and not timed. The limit is the time of a matrix product or of a copy as large as the task, the
longer of the two, at the speeds measured in the same rounds. Prints Markdown.
"""

import argparse
import statistics
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from measure import machine, matrix_product, memory_copy, seconds

from ucdir.retrieval.exact_search import are_unit, nearest

try:
    import faiss
except ImportError:
    faiss = None

CHECKED = 20
Search = Callable[[np.ndarray, int], np.ndarray]


@dataclass
class Variant:
    """A way to search: queries (Q, D), k -> rows (Q, k). `most` queries fit; `held` MiB are kept between searches."""

    name: str
    search: Search
    most: int = 10**9
    held: float = 0.0
    seconds: list[float] = field(default_factory=list)
    rows: np.ndarray | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 1000])
    parser.add_argument("--k", type=int, nargs="+", default=[10, 200])
    arguments = parser.parse_args()
    print(machine(libraries()))
    if faiss is None:
        print("\nfaiss is not installed (pip install faiss-cpu), so its lines are left out.")
    for kind in ("random", "clustered"):
        with tempfile.TemporaryDirectory() as folder:
            gallery = written(Path(folder) / "rows.npy", kind, arguments.rows, arguments.dim)
            queries = like(gallery, max(arguments.queries))
            print(f"\n{kind}: {len(gallery):,} x {gallery.shape[1]}, {gallery.nbytes / 1e9:.2f} GB mapped")
            print("\n| queries | k | search | seconds (range) | to faiss | queries/s | memory MiB | recall | of the limit |")
            print("|---|---|---|---|---|---|---|---|---|", flush=True)
            compare(gallery, queries, arguments.queries, arguments.k, arguments.rounds)


def compare(gallery: np.ndarray, queries: np.ndarray, counts: list[int], ks: list[int], rounds: int) -> None:
    truth = brute_force(queries[:CHECKED], gallery, max(ks))
    engines = list(variants(gallery))
    for count in counts:
        for k in ks:
            gigaflops, gigabytes = take_turns(engines, queries[:count], k, rounds if count > 1 else 5 * rounds)
            least = max(2 * count * gallery.size / gigaflops, gallery.nbytes / gigabytes) / 1e9  # seconds
            for variant in engines:
                print(line(variant, engines[-1], queries[:count], k, truth, least), flush=True)
            print(f"| | | limit: {gigaflops:.0f} GF/s, {gigabytes:.1f} GB/s | {least:.3f} | | | | | |", flush=True)


def variants(gallery: np.ndarray) -> Iterator[Variant]:
    """faiss last, where there is one: the others are compared with it."""
    yield Variant("plain", lambda queries, k: np.argsort(-(queries @ gallery.T), axis=1)[:, :k], most=CHECKED)
    yield Variant("ours", lambda queries, k: nearest(queries, gallery, k).rows)
    if are_unit(gallery):
        yield Variant("ours, rows known to be unit", lambda queries, k: nearest(queries, gallery, k, unit=True).rows)
    if faiss is not None:
        before, index = anonymous(), faiss.IndexFlatIP(gallery.shape[1])
        index.add(gallery)
        yield Variant("faiss IndexFlatIP", lambda queries, k: index.search(queries, k)[1], held=anonymous() - before)


def take_turns(engines: list[Variant], queries: np.ndarray, k: int, rounds: int) -> tuple[float, float]:
    """Time all variants `rounds` times; returns the machine's GF/s and GB/s, medians over the same rounds."""
    for variant in engines:
        variant.rows, variant.seconds = variant.search(queries[: variant.most], k), []
    limits = []
    for _ in range(rounds):
        limits.append((matrix_product(), memory_copy()))
        for variant in engines:
            variant.seconds.append(seconds(lambda variant=variant: variant.search(queries[: variant.most], k)))
    return statistics.median(limit[0] for limit in limits), statistics.median(limit[1] for limit in limits)


def line(variant: Variant, base: Variant, queries: np.ndarray, k: int, truth: np.ndarray, least: float) -> str:
    """One row of the table. The limit is for all queries; a variant that took fewer is held to its share of them."""
    used = min(len(queries), variant.most)
    taken = statistics.median(variant.seconds)
    ratio = taken / used * len(queries) / statistics.median(base.seconds)
    found = [len(set(a) & set(b[:k])) / k for a, b in zip(variant.rows[:CHECKED].tolist(), truth.tolist(), strict=False)]
    memory = variant.held + peak(lambda: variant.search(queries[:used], k))
    cells = [
        f"{used:,}",
        str(k),
        variant.name,
        f"{taken:.3f} ({min(variant.seconds):.3f} to {max(variant.seconds):.3f})",
        f"{ratio:.2f}" if faiss is not None else "",
        f"{used / taken:,.0f}",
        f"{memory:,.0f}",
        f"{statistics.mean(found):.4f}",
        f"{least / len(queries) * used / taken:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def written(path: Path, kind: str, rows: int, dim: int) -> np.ndarray:
    """Unit rows on disk, mapped. Clustered: 1,000 groups, each lying together as the images of a folder do."""
    generator = np.random.default_rng(0)
    gallery = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
    centres = generator.standard_normal((1000, dim), dtype=np.float32)
    for part in np.array_split(np.arange(rows), max(rows // 10_000, 1)):
        values = generator.standard_normal((len(part), dim), dtype=np.float32)
        if kind == "clustered":
            values = centres[part * len(centres) // rows] + 0.3 * values
        gallery[part[0] : part[-1] + 1] = values / np.linalg.norm(values, axis=1, keepdims=True)
    gallery.flush()
    del gallery
    return np.load(path, mmap_mode="r")


def like(gallery: np.ndarray, count: int) -> np.ndarray:
    """Queries near rows of the gallery, none equal to one."""
    generator = np.random.default_rng(1)
    rows = gallery[np.sort(generator.integers(len(gallery), size=count))]
    rows = generator.permutation(rows + 0.05 * generator.standard_normal(rows.shape, dtype=np.float32))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute_force(queries: np.ndarray, gallery: np.ndarray, k: int) -> np.ndarray:
    """(Q, k) rows by float64 cosine, from all of them sorted: shares no code with what is measured."""
    cosines = np.empty((len(queries), len(gallery)))
    unit = queries / np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
    for start in range(0, len(gallery), 50_000):
        block = gallery[start : start + 50_000].astype(np.float64)
        cosines[:, start : start + 50_000] = unit @ (block / np.linalg.norm(block, axis=1, keepdims=True)).T
    return np.argsort(-cosines, axis=1, kind="stable")[:, :k]


def anonymous() -> float:
    """MiB of this process that are no mapped file; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), float("nan"))


def peak(work: Callable[[], object]) -> float:
    """MiB of arrays that `work` held at its highest, its answer included."""
    tracemalloc.start()
    work()
    highest = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return highest


def libraries() -> str:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    engine = "" if faiss is None else f", faiss {faiss.__version__} ({faiss.omp_get_max_threads()} threads)"
    return f"numpy {np.__version__} ({blas['name']} {blas['version']}){engine}"


if __name__ == "__main__":
    main()
