"""What each step and each view of the default method is worth: everything, then everything but one.

usage: python benchmarks/ablation.py FOLDER FOLDER [FOLDER ...] --weights FILE [--seeds N]

Prints P@50 and mAP@All of each pair, percent, means of both directions, as embedded and with queries expanded. Steps are left
out by putting another function in the place of one of `ucdir.learn.align`. Labels are read for the scores alone.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations
from unittest.mock import patch

import numpy as np
import torch

from ucdir.config import AlignSettings
from ucdir.data.cache import open_cache
from ucdir.data.domain import class_ids, load_domains
from ucdir.data.style_views import DEFAULT_VIEWS, KEEPING_STYLE
from ucdir.learn import align as steps
from ucdir.model.device import choose_device, choose_precision
from ucdir.model.encoder import build_encoder
from ucdir.retrieval.evaluate import EmbeddedDomain, evaluate_pair, expanded_domain
from ucdir.retrieval.expansion import HITS
from ucdir.retrieval.view_features import view_features

FIGURES = ("P@50", "mAP@All")
ALL = 1_000_000  # numbers in an embedding, more than there are


@dataclass(frozen=True)
class Variant:
    """Settings that differ, functions of `align` that others stand in for, and the views that are kept."""

    name: str
    settings: dict[str, object] = field(default_factory=dict)
    instead: dict[str, Callable[..., object]] = field(default_factory=dict)
    views: tuple[str, ...] = DEFAULT_VIEWS


@dataclass(frozen=True)
class Labelled:
    """A domain: features (N, V, F) of its views, and class ids (N,) for the scores."""

    seen: steps.Seen
    classes: torch.Tensor


def same_weights(means: Sequence[torch.Tensor], _: Sequence[bool]) -> torch.Tensor:
    return torch.full((len(means[0]),), 1 / len(means[0]))


def leading_directions(
    scatters: Sequence[steps.Scatter], pairs: Sequence[steps.Pairs], settings: AlignSettings
) -> torch.Tensor:
    between = torch.stack([part.between for part in scatters]).mean(dim=0)
    return torch.linalg.eigh(between).eigenvectors[:, -settings.dim :]


def only_averaged(rows: Sequence[torch.Tensor], _: object, settings: AlignSettings) -> list[torch.Tensor]:
    return [steps.smoothed(part, settings.neighbours) for part in rows]


def only_groups(rows: Sequence[torch.Tensor], found: Sequence[torch.Tensor], settings: AlignSettings) -> list[torch.Tensor]:
    return [steps.centred(steps.memberships(part, found, settings.temperature)) for part in rows]


def nothing_taught(_: object, rows: Sequence[torch.Tensor], found: object) -> list[torch.Tensor]:
    return [torch.zeros(len(part), 1) for part in rows]


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
    Variant("nothing learned again (rounds 0)", {"rounds": 0}),
    Variant("rows not averaged over neighbours", instead={"smoothed": lambda rows, *_: steps.centred(rows)}),
    Variant("no groups in embeddings: averaged rows", instead={"join": only_averaged}),
    Variant("no averaged rows in embeddings: groups", instead={"join": only_groups}),
    Variant("balanced groups alone", instead={"groupings": groups_of_a_kind(True)}),
    Variant("groups of free shares alone", instead={"groupings": groups_of_a_kind(False)}),
    Variant("nothing taught by the groups", instead={"_Learn._taught": nothing_taught}),
    Variant("one draft", {"drafts": 1}),
    Variant("embeddings of full length", {"length": ALL}),
    *(Variant(f"without view {name}", views=tuple(v for v in DEFAULT_VIEWS if v != name)) for name in DEFAULT_VIEWS[1:]),
    Variant("views that keep the style alone", views=KEEPING_STYLE),
    Variant("the plain view and no other", views=DEFAULT_VIEWS[:1]),
)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folders", nargs="+")
    asked.add_argument("--weights", required=True)
    asked.add_argument("--backbone", default="torchvision/mobilenet_v2")
    asked.add_argument("--seeds", type=int, default=1)
    asked.add_argument("--cache-dir", default="auto")
    given = asked.parse_args()
    domains = looked_at(given.folders, given.backbone, given.weights, given.cache_dir)
    names = [f"{a.seen.name}, {b.seen.name}" for a, b in combinations(domains, 2)]
    print("P@50 / mAP@All as embedded; with queries expanded\n")
    print("| | " + " | ".join([*names, "mean", "mean, expanded"]) + " |\n|---|" + "---|" * (len(names) + 2))
    for variant in VARIANTS:
        figures = [np.mean([scores(pair, variant, s) for s in range(given.seeds)], axis=0) for pair in combinations(domains, 2)]
        plain = [*(part[0] for part in figures), *np.mean(figures, axis=0)]
        cells = " | ".join(" / ".join(f"{100 * value:.1f}" for value in part) for part in plain)
        print(f"| {variant.name} | {cells} |", flush=True)


def looked_at(folders: Sequence[str], backbone: str, weights: str, cache_dir: str) -> list[Labelled]:
    device = choose_device("auto")
    encoder = build_encoder(backbone, weights, 224)
    cache = open_cache(cache_dir, 20.0, print)
    domains = load_domains(folders, classes="folders")
    _, labels = class_ids(domains)
    parts = [
        view_features(encoder, domain.paths, DEFAULT_VIEWS, device, choose_precision("auto", device), cache=cache)
        for domain in domains
    ]
    return [
        Labelled(steps.Seen(domain.name, part.values, torch.device("cpu")), torch.from_numpy(ids[part.image_ids]))
        for domain, part, ids in zip(domains, parts, labels, strict=True)
    ]


def scores(pair: tuple[Labelled, Labelled], variant: Variant, seed: int) -> list[list[float]]:
    """[as embedded, expanded] x FIGURES, means of both directions."""
    places = [DEFAULT_VIEWS.index(name) for name in variant.views]
    seen = [steps.Seen(part.seen.name, part.seen.features[:, places], part.seen.device) for part in pair]
    with ExitStack() as stack:
        for patched in patches(variant):
            stack.enter_context(patched)
        settings = AlignSettings.model_validate(variant.settings)
        found = steps.align(seen, [name in KEEPING_STYLE for name in variant.views], settings, seed)
    embedded = [
        EmbeddedDomain(part.seen.name, domain.embeddings, part.classes)
        for part, domain in zip(pair, found.domains, strict=True)
    ]
    return [ways(embedded, hits) for hits in (0, HITS)]


def patches(variant: Variant) -> Iterator[object]:
    for name, function in variant.instead.items():
        yield patch(f"{steps.__name__}.{name}", function)


def ways(embedded: Sequence[EmbeddedDomain], hits: int) -> list[float]:
    found = [
        evaluate_pair(expanded_domain(query, gallery, hits), gallery, (50,), 0) for query, gallery in (embedded, embedded[::-1])
    ]
    return [sum(part[figure].value for part in found) / 2 for figure in FIGURES]


if __name__ == "__main__":
    main()
