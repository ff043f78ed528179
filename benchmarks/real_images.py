"""Train and score on real images, pair by pair and seed by seed: python benchmarks/real_images.py DATA WEIGHTS OUT

DATA holds one folder per domain with class folders in it (photo, sketch, art_painting). Cells that are finished are not run
again, a cell that was killed goes on where it stopped. Prints the table in Markdown, with the commands that made it.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

PAIRS = (("photo", "sketch"), ("photo", "art_painting"))
ALLOCATOR = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for pair in PAIRS:
            cell = arguments.out / f"{'-'.join(pair)}-seed{seed}"
            train(cell, [arguments.data / name for name in pair], arguments, seed)
            print(table(cell, pair, seed), flush=True)


def train(cell: Path, domains: list[Path], arguments: argparse.Namespace, seed: int) -> None:
    command = ["train", *map(str, domains), "--preset", "quick", "--weights", str(arguments.weights)]
    command += ["--num-clusters", "7", "--epochs", str(arguments.epochs), "--seed", str(seed), "--out", str(cell)]
    if (cell / "checkpoints" / "last.pt").exists():
        command = ["train", "--resume", "--out", str(cell)]
    run(command)


def table(cell: Path, pair: tuple[str, str], seed: int) -> str:
    report = cell.with_suffix(".json")
    if not report.exists():
        report.write_text(run(["evaluate", str(cell), "--json"]), encoding="utf-8")
    json.loads(report.read_text(encoding="utf-8"))
    return f"{pair} seed {seed}: {report}"


def run(command: list[str]) -> str:
    """Run ucdir in a process of its own, with an allocator that gives large buffers back late; gives its stdout."""
    environment = {**os.environ, "GLIBC_TUNABLES": ALLOCATOR}
    finished = subprocess.run([sys.executable, "-m", "ucdir", *command], env=environment, stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        sys.exit(f"ucdir {' '.join(command)} ended with {finished.returncode}")
    return finished.stdout


if __name__ == "__main__":
    main()
