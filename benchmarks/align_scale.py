"""Does the default method stay small and quick when the images are many?

    python benchmarks/align_scale.py --images 100000 --views 10 --features 1280

Writes random features of two domains to memory-mapped float16 files. An image is the sum of the direction of its class (one of
CLASSES), a shift of its domain and view, and noise. Then a separate process aligns the domains and embeds all images while its
memory is read every second. Prints Markdown.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine
from scale import memory_of

from ucdir.learn.align import Seen, align
from ucdir.model.alignment import DomainMemory
from ucdir.settings import AlignSettings

CLASSES, BLOCK = 100, 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--views", type=int, default=10)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--folder", type=Path, help="features lie here already; bring them together")
    given = parser.parse_args()
    if given.folder is not None:
        aligned_encoder(given.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2):
            draw(Path(folder) / f"{number}.npy", number, (given.images, given.views, given.features))
        measure([sys.executable, __file__, "--folder", folder])


def draw(file: Path, domain: int, shape: tuple[int, int, int]) -> None:
    images, views, features = shape
    rng = np.random.default_rng(domain)
    kinds = np.random.default_rng(99).normal(size=(CLASSES, features)).astype(np.float32)
    shifts = rng.normal(size=(views, features)).astype(np.float32)
    values = np.lib.format.open_memmap(file, "w+", np.float16, shape)
    for start in range(0, images, BLOCK):
        own = rng.integers(CLASSES, size=min(BLOCK, images - start))
        image = kinds[own] + rng.standard_normal((len(own), features), np.float32)
        values[start : start + len(own)] = (
            image[:, None] + shifts + rng.standard_normal((len(own), views, features), np.float32)
        )


def measure(command: list[str]) -> None:
    started, highest = time.perf_counter(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        highest = max(highest, memory_of(process.pid))
        time.sleep(1)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    assert process.stdout is not None
    print(machine())
    print(process.stdout.read().strip())
    print(f"all of it: {time.perf_counter() - started:.0f} s, at most {highest:,.0f} MiB that are no mapped file")


def aligned_encoder(folder: Path) -> None:
    domains = [Seen(file.stem, np.load(file, mmap_mode="r"), torch.device("cpu")) for file in sorted(folder.glob("*.npy"))]
    views = domains[0].features.shape[1]
    started = time.perf_counter()
    found = align(domains, [True, *[False] * (views - 1)], AlignSettings())
    print(f"brought together in {time.perf_counter() - started:.0f} s")
    started = time.perf_counter()
    for domain, part in zip(domains, found.domains, strict=True):
        memory = DomainMemory(part.centre, part.rows.half(), part.embeddings.half(), torch.empty(len(part.rows), 32))
        count = sum(len(memory(found.map(block))) for block in domain.blocks())
        print(f"{count:,} images of domain {domain.name} embedded, {len(part.rows):,} of them learned from")
    print(f"embedded in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
