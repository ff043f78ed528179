"""A benchmark's results.json as RESULTS.md shows it: of each protocol and pair the means of both directions, over seeds.

usage: python benchmarks/tables.py OUT/results.json [PROTOCOL ...]
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

FIGURES = ("P@1", "P@50", "mAP@All")

GalleryHits = dict[tuple[str, str], list[list[float]]]  # (pair, row) -> FIGURES of each seed


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("file", type=Path)
    asked.add_argument("protocols", nargs="*")
    given = asked.parse_args()
    rows = json.loads(given.file.read_text(encoding="utf-8"))["rows"]
    for protocol in given.protocols or dict.fromkeys(row["protocol"] for row in rows):
        print(f"**{protocol}**\n\n| pair | row | " + " | ".join(FIGURES) + " |\n|---|---|" + "---|" * len(FIGURES))
        print("\n".join(lines([row for row in rows if row["protocol"] == protocol])) + "\n")


def lines(rows: Sequence[dict[str, object]]) -> Iterator[str]:
    found = of_seeds(rows)
    for (pair, name), seeds in found.items():
        yield f"| {pair} | {name} | " + " | ".join(ranged(values) for values in zip(*seeds, strict=True)) + " |"
    for name in dict.fromkeys(name for _, name in found):
        means = np.mean([np.mean(seeds, axis=0) for (_, row), seeds in found.items() if row == name], axis=0)
        yield f"| mean | {name} | " + " | ".join(f"{value:.1f}" for value in means) + " |"


def of_seeds(rows: Sequence[dict[str, object]]) -> GalleryHits:
    """Means of both directions."""
    directions = defaultdict(list)
    for row in rows:
        one, other = str(row["query"]), str(row["gallery"])
        name = str(row["method"]) + (", expanded" if "expanded" in str(row["epoch"]) else "")
        directions[_pair(rows, one, other), name, row["seed"]].append([100 * row["metrics"][f] for f in FIGURES])
    found: GalleryHits = defaultdict(list)
    for (pair, name, _), values in directions.items():
        found[pair, name].append(np.mean(values, axis=0).tolist())
    return found


def _pair(rows: Sequence[dict[str, object]], one: str, other: str) -> str:
    first = next(row for row in rows if {row["query"], row["gallery"]} == {one, other})
    return f"{first['query']}, {first['gallery']}"


def ranged(values: Sequence[float]) -> str:
    middle = f"{np.mean(values):.1f}"
    return middle if max(values) - min(values) < 0.05 else f"{middle} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
