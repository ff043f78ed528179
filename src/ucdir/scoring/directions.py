"""Scores of every direction between embedded domains, for one way of embedding or several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations

import torch
from torch import Tensor

from ucdir.errors import UcdirError
from ucdir.retrieval.expansion import expanded_among
from ucdir.scoring.collapse import is_collapsed
from ucdir.scoring.metrics import RetrievalScores, score
from ucdir.scoring.training_free import centred, smoothed

DEFAULT_KS = (1, 5, 15, 50)
EXPANDED = "expanded"


@dataclass(frozen=True)
class EmbeddedDomain:
    """The readable images of one domain, embedded in one way.

    rows     (M, D) float32 unit rows
    classes  (M,) int64 class ids, the same for all domains, -1 = no class
    """

    name: str
    rows: Tensor
    classes: Tensor


@dataclass(frozen=True)
class DomainCount:
    """What one domain put into the evaluation; `unreadable` lists (path, reason) of skipped images."""

    name: str
    images: int
    with_class: int
    unreadable: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DirectionScores:
    """One method in one direction: domain `query` searches domain `gallery`."""

    method: str
    query: str
    gallery: str
    scores: RetrievalScores


@dataclass(frozen=True)
class EvaluationReport:
    """Methods x directions x figures.

    methods      names of the rows, in order
    directions   (query, gallery) pairs of domain names, the two directions of a pair next to each other
    class_names  class id -> name
    results      one entry for each direction and method
    seed         of the bootstrap with `resamples` resamples
    collapsed    method -> the domains whose images all have almost the same embedding; methods without such domains are absent
    """

    ks: tuple[int, ...]
    methods: tuple[str, ...]
    directions: tuple[tuple[str, str], ...]
    class_names: tuple[str, ...]
    domains: tuple[DomainCount, ...]
    results: tuple[DirectionScores, ...]
    resamples: int
    seed: int
    collapsed: Mapping[str, tuple[str, ...]]

    def scores(self, method: str, query: str, gallery: str) -> RetrievalScores:
        """The scores of one method in one direction; KeyError if there are none."""
        for result in self.results:
            if (result.method, result.query, result.gallery) == (method, query, gallery):
                return result.scores
        raise KeyError((method, query, gallery))

    def pair_mean(self, method: str, first: str, second: str, metric: str) -> float:
        """Mean of the figure called `metric` over the two directions of a pair of domains."""
        there, back = self.scores(method, first, second), self.scores(method, second, first)
        return (there[metric].value + back[metric].value) / 2


def training_free(frozen: Sequence[EmbeddedDomain]) -> dict[str, tuple[EmbeddedDomain, ...]]:
    """frozen, centred, smoothed: the rows that need no training, from the frozen backbone's embeddings."""
    return {
        "frozen": tuple(frozen),
        "centred": tuple(replace(domain, rows=centred(domain.rows)) for domain in frozen),
        "smoothed": smoothed_domains(frozen),
    }


def smoothed_domains(domains: Sequence[EmbeddedDomain]) -> tuple[EmbeddedDomain, ...]:
    """The same domains with rows averaged with their in-domain neighbours."""
    return tuple(replace(domain, rows=smoothed(domain.rows)) for domain in domains)


def expanded_domain(query: EmbeddedDomain, gallery: EmbeddedDomain, hits: int) -> EmbeddedDomain:
    """Queries moved toward their hits in `gallery`, see `expansion.expanded`."""
    moved = expanded_among(query.rows.cpu().numpy(), gallery.rows.cpu().numpy(), hits)
    return replace(query, rows=torch.from_numpy(moved))


def evaluate_pair(
    query: EmbeddedDomain,
    gallery: EmbeddedDomain,
    ks: Sequence[int] = DEFAULT_KS,
    resamples: int = 1000,
    seed: int = 0,
) -> RetrievalScores:
    """Search `gallery` with every image of `query` that has a class; UcdirError for NaN embeddings."""
    try:
        return score(query.rows, gallery.rows, query.classes, gallery.classes, ks, resamples, seed)
    except ValueError as error:
        raise UcdirError(f"cannot score '{query.name}' against '{gallery.name}': {error}") from error


def evaluate_methods(
    methods: Mapping[str, Sequence[EmbeddedDomain]],
    class_names: Sequence[str],
    counts: Sequence[DomainCount],
    ks: Sequence[int] = DEFAULT_KS,
    resamples: int = 1000,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
    expand: Mapping[str, int] | None = None,
) -> EvaluationReport:
    """Score every method in both directions of every pair of the S domains.

    methods   name -> its S embedded domains, the same domains in the same order for each
    counts    facts about each domain
    advance   called with 1 after each direction of each method
    expand    method -> number of hits: it is scored again, as `METHOD + expanded`, with queries moved toward this many hits
    """
    hits = dict.fromkeys(methods, 0) | {f"{name} + {EXPANDED}": count for name, count in (expand or {}).items()}
    rows = dict(methods) | {f"{name} + {EXPANDED}": methods[name] for name in expand or {}}
    results = []
    for name, domains in rows.items():
        for query, gallery in permutations(domains, 2):
            scores = evaluate_pair(expanded_domain(query, gallery, hits[name]), gallery, ks, resamples, seed)
            results.append(DirectionScores(name, query.name, gallery.name, scores))
            if advance is not None:
                advance(1)
    pairs = list(combinations([count.name for count in counts], 2))
    directions = tuple(direction for pair in pairs for direction in (pair, pair[::-1]))
    return EvaluationReport(
        ks=tuple(sorted(set(ks))),
        methods=tuple(rows),
        directions=directions,
        class_names=tuple(class_names),
        domains=tuple(counts),
        results=tuple(results),
        resamples=resamples,
        seed=seed,
        collapsed={name: found for name, domains in methods.items() if (found := collapsed_domains(domains))},
    )


def collapsed_domains(domains: Sequence[EmbeddedDomain]) -> tuple[str, ...]:
    """Names of those that are collapsed, see `collapse.is_collapsed`."""
    return tuple(domain.name for domain in domains if is_collapsed(domain.rows))
