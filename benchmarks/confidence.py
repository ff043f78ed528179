"""Are the probabilities of `ucdir search` right? Where domains do not hold the same classes, and where they do.

usage: python benchmarks/confidence.py FOLDER FOLDER [FOLDER ...] --weights FILE [--seeds N]

Every pair is learned from by the default method without labels, as `ucdir benchmark --protocol` draws it, and every image
searches the other domain with queries expanded. Labels then say for which queries anything of their class was there, and which
of the ten best hits are of it. AUROC: the chance that one with has a higher probability than one without. ECE: expected
calibration error, ten bins of equal width. Percent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
import torch
from looked_at import LookedAt, arguments, look_at
from numpy.typing import NDArray

from ucdir.images.partial_classes import PARTIAL, kept_classes
from ucdir.images.style_views import DEFAULT_VIEWS, KEEPING_STYLE
from ucdir.learn.align import align
from ucdir.learn.calibration import calibrated
from ucdir.learn.groups import find_groups
from ucdir.model.confidence import HITS_CONSIDERED
from ucdir.retrieval.expansion import expanded_among, hits_of
from ucdir.retrieval.neighbours import nearest_rows
from ucdir.settings import AlignSettings

HITS, BINS, LIMITS = 10, 10, (0.0, 0.3, 0.5, 0.7)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Said:
    """What was said of the queries of one direction, and what holds.

    query, exists  (Q,) probability that anything like it is there, and whether it is
    hit, right     (Q, HITS) probability that a hit is such a thing, and whether it is
    """

    query: Floats
    exists: Flags
    hit: Floats
    right: Flags


def main() -> None:
    asked = arguments(__doc__ or "")
    asked.add_argument("--seeds", type=int, default=3)
    given = asked.parse_args()
    domains = look_at(given)
    print("| protocol | directions | queries: AUROC (least) | ECE, mean | ECE, all | hits: AUROC | ECE, mean | ECE, all |")
    print("|---|---|---|---|---|---|---|---|")
    partial: list[Said] = []
    for protocol in (None, *PARTIAL):
        found = [said for pair in combinations(domains, 2) for said in of_pair(pair, protocol, given.seeds)]
        partial += found if protocol else []
        print(f"| {protocol or 'equal'} | {line(found)} |", flush=True)
    print(f"| all partial | {line(partial)} |\n")
    print("| --min-confidence | hits shown that are right | queries with something to find: answered | without: answered |")
    print("|---|---|---|---|")
    for limit in LIMITS:
        print(f"| {limit:.1f} | {' | '.join(f'{100 * value:.1f}' for value in shown(partial, limit))} |")


def of_pair(pair: tuple[LookedAt, LookedAt], protocol: str | None, seeds: int) -> Iterator[Said]:
    """Both directions of every draw; with equal classes nothing is drawn but the groups."""
    for seed in range(seeds if protocol else 1):
        kept = [frozenset(pair[0].names)] * 2 if protocol is None else kept_classes(pair[0].names, protocol, seed)
        parts = [part.subset(names) for part, names in zip(pair, kept, strict=True)]
        keeps_style = [name in KEEPING_STYLE for name in DEFAULT_VIEWS]
        found = align([part.seen for part in parts], keeps_style, AlignSettings(), seed)
        rows = [domain.embeddings for domain in found.domains]
        sure = calibrated(rows, find_groups(rows), hits_of("aligned"))
        for a, b in permutations(range(2), 2):
            query = sure.of_queries(nearest_rows(rows[a], rows[b], HITS_CONSIDERED).similarity.cpu().numpy())
            moved = expanded_among(rows[a].cpu().numpy(), rows[b].cpu().numpy(), hits_of("aligned"))
            near = nearest_rows(torch.from_numpy(moved), rows[b].cpu(), HITS)
            own, other = parts[a].classes.numpy(), parts[b].classes.numpy()
            right = other[near.rows.numpy()] == own[:, None]
            yield Said(query, np.isin(own, other), sure.of_hits(near.similarity.numpy(), query), right)


def line(found: Sequence[Said]) -> str:
    """The cells of a row."""
    queries = [auroc(said.query, said.exists) for said in found if not said.exists.all()]
    hits = [auroc(said.hit.ravel(), said.right.ravel()) for said in found]
    cells = [
        str(len(found)),
        f"{100 * np.mean(queries):.1f} ({100 * min(queries):.1f})" if queries else "-",
        f"{100 * np.mean([ece(said.query, said.exists) for said in found]):.1f}",
        f"{100 * ece(np.concatenate([s.query for s in found]), np.concatenate([s.exists for s in found])):.1f}",
        f"{100 * np.mean(hits):.1f}",
        f"{100 * np.mean([ece(said.hit, said.right) for said in found]):.1f}",
        f"{100 * ece(np.concatenate([s.hit.ravel() for s in found]), np.concatenate([s.right.ravel() for s in found])):.1f}",
    ]
    return " | ".join(cells)


def auroc(said: Floats, right: Flags) -> float:
    """The area under the curve of Mann and Whitney; ties count half."""
    order = np.unique(said, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(order[2]) - (order[2] - 1) / 2)[order[1]]
    positive, negative = int(right.sum()), int((~right).sum())
    return float((ranks[right].sum() - positive * (positive + 1) / 2) / (positive * negative))


def ece(said: Floats, right: Flags) -> float:
    """Mean distance of what is said from what holds, over bins of equal width."""
    said, right = said.ravel(), right.ravel()
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    parts = [(said[bins == number], right[bins == number]) for number in range(BINS)]
    return sum(len(p) / len(said) * abs(float(p.mean()) - float(r.mean())) for p, r in parts if len(p))


def shown(found: Sequence[Said], limit: float) -> tuple[float, float, float]:
    """Precision of the hits shown, and the share of queries with and without anything to find that get any."""
    hit, right = np.concatenate([said.hit for said in found]), np.concatenate([said.right for said in found])
    query, exists = np.concatenate([said.query for said in found]), np.concatenate([said.exists for said in found])
    kept = (hit >= limit) & (query >= limit)[:, None]
    answered = kept.any(axis=1)
    return float(right[kept].mean()), float(answered[exists].mean()), float(answered[~exists].mean())


if __name__ == "__main__":
    main()
