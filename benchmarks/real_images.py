"""Train and score on real images, pair by pair, seed by seed and, to compare them, precision by precision.

    python benchmarks/real_images.py DATA WEIGHTS OUT --seeds 0 1 2 --precisions auto float32

DATA holds one folder per domain (photo, sketch, art_painting) with class folders in it, WEIGHTS is a state dict of
torchvision's mobilenet_v2. A finished cell is not run again, one that was killed goes on where it stopped. Prints, as Markdown,
the mean and the range over the seeds of every row, and then each finished cell.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAIRS = (("photo", "sketch"), ("photo", "art_painting"))


@dataclass(frozen=True)
class Row:
    """One way of searching in one cell: figures in percent, of both directions and their means."""

    pair: str
    precision: str
    seed: int
    method: str
    there: float
    back: float
    precision_at_50: float
    mean_average_precision: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--precisions", nargs="+", default=["auto"], help="auto, float32, bfloat16")
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for precision in arguments.precisions:
            for pair in PAIRS:
                cell = arguments.out / f"{'-'.join(pair)}-{precision}-seed{seed}"
                domains = [arguments.data / name for name in pair]
                train(cell, domains, arguments.weights, arguments.epochs, seed, precision)
                score(cell, precision)
    rows = [row for report in sorted(arguments.out.glob("*-*-*-seed*/scores.json")) for row in rows_of(report)]
    print(f"{means(rows)}\n\n{cells(rows)}")


def train(cell: Path, domains: list[Path], weights: Path, epochs: int, seed: int, precision: str) -> None:
    start = [*map(str, domains), "--preset", "quick", "--weights", str(weights), "--num-clusters", "7"]
    start += ["--epochs", str(epochs), "--seed", str(seed), "--precision", precision]
    begun = (cell / "checkpoints" / "last.pt").exists()
    ucdir("train", *(["--resume"] if begun else start), "--out", str(cell))


def score(cell: Path, precision: str) -> None:
    report = cell / "scores.json"
    if not report.exists():
        report.write_text(ucdir("evaluate", str(cell), "--precision", precision, "--json"), encoding="utf-8")


def rows_of(report: Path) -> list[Row]:
    """What `ucdir evaluate --json` says of a cell."""
    scores = json.loads(report.read_text(encoding="utf-8"))
    *_, precision, seed = report.parent.name.split("-")
    return [row_of(scores, method, precision, int(seed.removeprefix("seed"))) for method in scores["methods"]]


def row_of(scores: dict[str, Any], method: str, precision: str, seed: int) -> Row:
    there, back = (100 * direction["methods"][method]["metrics"]["P@50"]["value"] for direction in scores["directions"])
    mean = scores["means"][0]["methods"][method]
    pair = ", ".join(scores["means"][0]["domains"])
    return Row(pair, precision, seed, method, there, back, 100 * mean["P@50"], 100 * mean["mAP@All"])


def means(rows: list[Row]) -> str:
    """One line per pair, row and precision."""
    lines = ["| pair | row | precision | seeds | mean P@50 (range) | mean mAP@All (range) |", "|---|---|---|---|---|---|"]
    for pair, method, precision in dict.fromkeys((row.pair, row.method, row.precision) for row in rows):
        found = [row for row in rows if (row.pair, row.method, row.precision) == (pair, method, precision)]
        figures = [
            mean_and_range([getattr(row, name) for row in found]) for name in ("precision_at_50", "mean_average_precision")
        ]
        lines.append(f"| {pair} | {method} | {precision} | {len(found)} | {' | '.join(figures)} |")
    return "\n".join([*lines[:2], *sorted(lines[2:])])


def mean_and_range(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def cells(rows: list[Row]) -> str:
    """One line per pair, seed, precision and row."""
    lines = [
        "| pair | seed | precision | row | P@50 there | P@50 back | mean P@50 | mean mAP@All |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row.pair, row.seed, row.precision)):
        figures = f"{row.there:.1f} | {row.back:.1f} | {row.precision_at_50:.1f} | {row.mean_average_precision:.1f}"
        lines.append(f"| {row.pair} | {row.seed} | {row.precision} | {row.method} | {figures} |")
    return "\n".join(lines)


def ucdir(*command: str) -> str:
    """Run ucdir in a process of its own; gives its stdout."""
    finished = subprocess.run([sys.executable, "-m", "ucdir", *command], stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        sys.exit(f"ucdir {' '.join(command)} ended with {finished.returncode}")
    return finished.stdout


if __name__ == "__main__":
    main()
