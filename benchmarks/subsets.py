"""The default method on small collections: few classes, few images of each, with and without asking again.

usage: python benchmarks/subsets.py FOLDER FOLDER [FOLDER ...] --weights FILE [--draws N]

Classes and images are drawn; the figures are means over pairs, directions and draws, percent. P@k is capped: of min(k, what is
there). Training-free rows see whole images, as the default method does. Labels are read for the draws and the scores alone.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from looked_at import LookedAt, arguments, both_ways, look_at

from ucdir.images.style_views import DEFAULT_VIEWS, KEEPING_STYLE
from ucdir.learn.align import Seen, align
from ucdir.retrieval.expansion import DEFAULT_HITS
from ucdir.scoring.training_free import centred, smoothed
from ucdir.settings import AlignSettings

SIZES = ((3, 80), (4, 20), (7, 10), (7, 20), (7, 40), (7, 80))  # classes, images of each in each domain
FIGURES = ("P@1", "capped P@10", "capped P@50", "mAP@All")


def main() -> None:
    asked = arguments(__doc__ or "")
    asked.add_argument("--draws", type=int, default=3)
    given = asked.parse_args()
    domains = look_at(given)
    print("| classes x images | row | " + " | ".join(FIGURES) + " |\n|---|---|" + "---|" * len(FIGURES))
    for classes, images in SIZES:
        found = [
            rows_of([drawn(part, classes, images, draw) for part in pair], draw)
            for pair in combinations(domains, 2)
            for draw in range(given.draws)
        ]
        for name in found[0]:
            figures = 100 * np.mean([part[name] for part in found], axis=0)
            print(f"| {classes} x {images} | {name} | " + " | ".join(f"{value:.1f}" for value in figures) + " |", flush=True)


def drawn(part: LookedAt, classes: int, images: int, draw: int) -> LookedAt:
    """A random subset: every domain keeps the same classes, and `images` images of each."""
    kept = np.random.default_rng(draw).permutation(len(part.names))[:classes]
    rng = np.random.default_rng((draw, 1))
    places = [rng.permutation(np.flatnonzero(part.classes.numpy() == own))[:images] for own in kept]
    chosen = np.sort(np.concatenate(places))
    return LookedAt(Seen(part.seen.name, part.seen.features[chosen], part.seen.device), part.classes[chosen], part.names)


def rows_of(parts: Sequence[LookedAt], seed: int) -> dict[str, list[float]]:
    """Row -> FIGURES."""
    frozen = [torch.nn.functional.normalize(torch.from_numpy(part.seen.features[:, 0]).float(), dim=1) for part in parts]
    keeps_style = [name in KEEPING_STYLE for name in DEFAULT_VIEWS]
    found = align([part.seen for part in parts], keeps_style, AlignSettings(), seed)
    aligned = [domain.embeddings for domain in found.domains]
    ways = {
        "frozen": (frozen, 0),
        "centred": ([centred(rows) for rows in frozen], 0),
        "smoothed": ([smoothed(rows) for rows in frozen], 0),
        "aligned": (aligned, 0),
        "aligned, expanded": (aligned, DEFAULT_HITS),
    }
    return {name: both_ways(parts, rows, hits, FIGURES) for name, (rows, hits) in ways.items()}


if __name__ == "__main__":
    main()
