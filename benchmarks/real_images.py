"""Train and score on real images, pair by pair and seed by seed.

    python benchmarks/real_images.py DATA WEIGHTS OUT --seeds 0 1

DATA holds one folder per domain (photo, sketch, art_painting) with class folders in it, WEIGHTS is a state dict of
torchvision's mobilenet_v2. A finished cell is not run again, one that was killed goes on where it stopped. Prints the table
of all finished cells as Markdown.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PAIRS = (("photo", "sketch"), ("photo", "art_painting"))
ALLOCATOR = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for pair in PAIRS:
            cell = arguments.out / f"{'-'.join(pair)}-seed{seed}"
            train(cell, [arguments.data / name for name in pair], arguments.weights, arguments.epochs, seed)
            score(cell)
            print(table(arguments.out), flush=True)


def train(cell: Path, domains: list[Path], weights: Path, epochs: int, seed: int) -> None:
    start = [*map(str, domains), "--preset", "quick", "--weights", str(weights), "--num-clusters", "7"]
    start += ["--epochs", str(epochs), "--seed", str(seed)]
    begun = (cell / "checkpoints" / "last.pt").exists()
    ucdir("train", *(["--resume"] if begun else start), "--out", str(cell))


def score(cell: Path) -> None:
    report = cell / "scores.json"
    if not report.exists():
        report.write_text(ucdir("evaluate", str(cell), "--json"), encoding="utf-8")


def table(out: Path) -> str:
    """One line per pair, seed and row: P@50 both ways, its mean, and the mean mAP@All, in percent."""
    lines = ["| pair | seed | row | P@50 there | P@50 back | mean P@50 | mean mAP@All |", "|---|---|---|---|---|---|---|"]
    for report in sorted(out.glob("*/scores.json")):
        scores = json.loads(report.read_text(encoding="utf-8"))
        seed = report.parent.name.rpartition("seed")[2]
        lines += [table_line(scores, method, seed) for method in scores["methods"]]
    return "\n".join(lines)


def table_line(scores: dict[str, Any], method: str, seed: str) -> str:
    there, back = (100 * direction["methods"][method]["metrics"]["P@50"]["value"] for direction in scores["directions"])
    means = scores["means"][0]["methods"][method]
    pair = ", ".join(scores["means"][0]["domains"])
    figures = " | ".join(f"{value:.1f}" for value in (there, back, 100 * means["P@50"], 100 * means["mAP@All"]))
    return f"| {pair} | {seed} | {method} | {figures} |"


def ucdir(*command: str) -> str:
    """Run ucdir in a process of its own, with an allocator that gives large buffers back late; gives its stdout."""
    environment = {**os.environ, "GLIBC_TUNABLES": ALLOCATOR}
    finished = subprocess.run([sys.executable, "-m", "ucdir", *command], env=environment, stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        sys.exit(f"ucdir {' '.join(command)} ended with {finished.returncode}")
    return finished.stdout


if __name__ == "__main__":
    main()
