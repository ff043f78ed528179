"""What each step and each view of the default method is worth: everything, then everything but one.

usage: python benchmarks/ablation.py FOLDER FOLDER [FOLDER ...] --weights FILE [--seeds N]

Prints P@50 and mAP@All of each pair, percent, means of both directions, as embedded and with queries expanded. Steps are left
out by putting another function in the place of one of `ucdir.learn.align`. Labels are read for the scores alone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations
from unittest.mock import patch

import numpy as np
import torch
from looked_at import LookedAt, arguments, both_ways, look_at

from ucdir.images.style_views import DEFAULT_VIEWS, KEEPING_STYLE
from ucdir.learn import align as steps
from ucdir.retrieval.expansion import DEFAULT_HITS
from ucdir.settings import AlignSettings

FIGURES = ("P@50", "mAP@All")
ALL = 1_000_000  # numbers in an embedding, more than there are


@dataclass(frozen=True)
class Variant:
    """Settings that differ, functions of `align` that others stand in for, and the views that are kept."""

    name: str
    settings: dict[str, object] = field(default_factory=dict)
    instead: dict[str, Callable[..., object]] = field(default_factory=dict)
    views: tuple[str, ...] = DEFAULT_VIEWS


def same_weights(means: Sequence[torch.Tensor], _: Sequence[bool]) -> torch.Tensor:
    return torch.full((len(means[0]),), 1 / len(means[0]))


def leading_directions(
    scatters: Sequence[steps.Scatter], pairs: Sequence[steps.Pairs], settings: AlignSettings
) -> torch.Tensor:
    between = torch.stack([part.between for part in scatters]).mean(dim=0)
    return torch.linalg.eigh(between).eigenvectors[:, -settings.dim :]


def nothing_taught(rows: Sequence[torch.Tensor], *_: object) -> list[torch.Tensor]:
    return [torch.zeros(len(part), 1) for part in rows]


def groups_themselves(
    rows: Sequence[torch.Tensor], _: object, settings: AlignSettings, rng: np.random.Generator
) -> list[torch.Tensor]:
    found = steps.groupings(rows, settings, rng)
    return [steps.centred(steps.memberships(part, found, settings.temperature)) for part in rows]


def groups_of_a_kind(balanced: bool) -> Callable[..., list[torch.Tensor]]:
    def groupings(domains: Sequence[torch.Tensor], settings: AlignSettings, rng: np.random.Generator) -> list[torch.Tensor]:
        counts = [count for count in settings.group_counts for _ in range(2 * settings.groupings)]
        return [
            steps.prototypes(domains, min(count, sum(map(len, domains))), balanced, settings.temperature, rng)
            for count in counts
        ]

    return groupings


def best_of_each_side(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    there, back = (steps.nearest_rows(a, b, steps.ACROSS).rows for a, b in ((one, other), (other, one)))
    return steps.choose_each_other(there, back)


VARIANTS = (
    Variant("everything"),
    Variant("no whitening: leading directions of the images", instead={"learn_projection": leading_directions}),
    Variant("every view counts the same", instead={"view_weights": same_weights}),
    Variant("no pairs within a domain", instead={"pairs_within": lambda rows: []}),
    Variant("no pairs across domains", instead={"pairs_across": lambda joined: []}),
    Variant("pairs across domains: hubs not corrected", instead={"partners_across": best_of_each_side}),
    Variant("nothing learned again from pairs", {"rounds": 0}),
    Variant("learned again from pairs twice", {"rounds": 2}),
    Variant("rows not averaged over neighbours", instead={"smoothed": lambda rows, *_: steps.centred(rows)}),
    Variant("nothing taught by groups", instead={"taught": nothing_taught}),
    Variant("groups themselves instead of what they teach", instead={"taught": groups_themselves}),
    Variant("balanced groups alone", instead={"groupings": groups_of_a_kind(True)}),
    Variant("groups of free shares alone", instead={"groupings": groups_of_a_kind(False)}),
    Variant("two groupings of each count and kind", {"groupings": 2}),
    Variant("embeddings of full length", {"length": ALL}),
    *(Variant(f"without view {name}", views=tuple(v for v in DEFAULT_VIEWS if v != name)) for name in DEFAULT_VIEWS[1:]),
    Variant("views that keep the style alone", views=KEEPING_STYLE),
    Variant("the plain view and no other", views=DEFAULT_VIEWS[:1]),
)


def main() -> None:
    asked = arguments(__doc__ or "")
    asked.add_argument("--seeds", type=int, default=1)
    given = asked.parse_args()
    domains = look_at(given)
    names = [f"{a.seen.name}, {b.seen.name}" for a, b in combinations(domains, 2)]
    print("P@50 / mAP@All as embedded; with queries expanded\n")
    print("| | " + " | ".join([*names, "mean", "mean, expanded"]) + " |\n|---|" + "---|" * (len(names) + 2))
    for variant in VARIANTS:
        figures = [np.mean([scores(pair, variant, s) for s in range(given.seeds)], axis=0) for pair in combinations(domains, 2)]
        plain = [*(part[0] for part in figures), *np.mean(figures, axis=0)]
        cells = " | ".join(" / ".join(f"{100 * value:.1f}" for value in part) for part in plain)
        print(f"| {variant.name} | {cells} |", flush=True)


def scores(pair: tuple[LookedAt, LookedAt], variant: Variant, seed: int) -> list[list[float]]:
    """[as embedded, expanded] x FIGURES, means of both directions."""
    places = [DEFAULT_VIEWS.index(name) for name in variant.views]
    seen = [steps.Seen(part.seen.name, part.seen.features[:, places], part.seen.device) for part in pair]
    with ExitStack() as stack:
        for patched in patches(variant):
            stack.enter_context(patched)
        settings = AlignSettings.model_validate(variant.settings)
        found = steps.align(seen, [name in KEEPING_STYLE for name in variant.views], settings, seed)
    rows = [domain.embeddings for domain in found.domains]
    return [both_ways(pair, rows, hits, FIGURES) for hits in (0, DEFAULT_HITS)]


def patches(variant: Variant) -> Iterator[object]:
    for name, function in variant.instead.items():
        yield patch(f"{steps.__name__}.{name}", function)


if __name__ == "__main__":
    main()
