"""What the encoders of a run find: scores, the queries that are shown by fixed rules, and what is found for what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray

from ucdir.errors import UcdirError
from ucdir.images.domains import Domain
from ucdir.progress import Progress
from ucdir.report.facts import DirectionFacts, EncoderFact, FoundHit, Pick, ShownQuery
from ucdir.retrieval.exact_search import Neighbours, nearest
from ucdir.scoring.confusion import Confusion, confusion
from ucdir.scoring.directions import DEFAULT_KS, DomainCount, EmbeddedDomain, EvaluationReport, evaluate_methods, training_free
from ucdir.scoring.metrics import RetrievalScores
from ucdir.scoring.picks import pick_extremes

GRID_HITS, CONFUSED_HITS, GRID_QUERIES, CHANGE_QUERIES, RESAMPLES = 8, 5, 3, 2, 200
METHODS = {
    "label-free": "trained (label-free epoch)",
    "oracle": "trained (oracle epoch)",
    "aligned": "aligned",
    "last": "trained",
}
SHOWN = {"frozen": "frozen", "trained": "last"}  # the encoders whose hits are shown, and their kinds

Ids = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class ShownImages:
    """The images of one domain that are shown, in order, and their rows under each kind of encoder."""

    domain: Domain
    labels: Ids
    rows: Mapping[str, torch.Tensor]

    def embedded(self, kind: str) -> EmbeddedDomain:
        """For `scoring.encoders`."""
        return EmbeddedDomain(self.domain.name, self.rows[kind], torch.from_numpy(self.labels))


def run_scores(
    shown: Sequence[ShownImages], class_names: tuple[str, ...], facts: Sequence[EncoderFact], progress: Progress
) -> tuple[EvaluationReport | None, str]:
    """The table of `ucdir evaluate`, or None and the reason."""
    if len(shown) < 2 or any(not len(part.domain) for part in shown):
        return None, "A domain has no image that is still there and readable, so there is nothing to score."
    own = [set(part.labels[part.labels >= 0].tolist()) for part in shown]
    if not all(own) or not all(one & other for one, other in permutations(own, 2)):
        return None, "The images have no classes that the domains share, so nothing tells right hits from wrong ones."
    kinds = {fact.kind for fact in facts}
    copies = {METHODS[fact.kind]: METHODS[fact.same_as] for fact in facts if fact.same_as in METHODS}
    rows = training_free([part.embedded("frozen") for part in shown])
    wanted = {name: kind for kind, name in METHODS.items() if kind in kinds}
    rows |= {name: tuple(part.embedded(kind) for part in shown) for name, kind in wanted.items() if name not in copies}
    counts = [DomainCount(part.domain.name, len(part.domain), int((part.labels >= 0).sum()), ()) for part in shown]
    with progress("scoring", len(rows) * len(shown) * (len(shown) - 1)) as advance:
        report = evaluate_methods(rows, class_names, counts, DEFAULT_KS, RESAMPLES, 0, advance)
    return _with_copies(report, copies, tuple(wanted)), ""


def _with_copies(report: EvaluationReport, copies: Mapping[str, str], last: tuple[str, ...]) -> EvaluationReport:
    """The same report with rows for encoders that share the weights of another row; the trained rows come last, as named."""
    added = [
        replace(result, method=name) for name, source in copies.items() for result in report.results if result.method == source
    ]
    others = tuple(name for name in report.methods if name not in last)
    collapsed = {name: report.collapsed[source] for name, source in copies.items() if source in report.collapsed}
    return replace(
        report,
        methods=(*others, *last),
        results=(*report.results, *added),
        collapsed={**report.collapsed, **collapsed},
    )


# Queries and hits


@dataclass(frozen=True)
class _Way:
    """One direction: hits of every query under each shown encoder, and what is known of each query.

    value, before   (Q,) average precision under the trained and the frozen encoder; without classes None
    """

    query: ShownImages
    gallery: ShownImages
    class_names: tuple[str, ...]
    hits: Mapping[str, Neighbours]
    precision: Mapping[str, Values] | None

    def shown(self, row: int, names: Sequence[str], figure: str) -> ShownQuery:
        label = int(self.query.labels[row])
        hits = {name: tuple(self._hit(label, name, row, place) for place in range(self._count)) for name in names}
        return ShownQuery(self.query.domain.paths[row], self.class_names[label] if label >= 0 else None, figure, hits)

    @property
    def _count(self) -> int:
        return min(GRID_HITS, len(self.gallery.domain))

    def _hit(self, label: int, name: str, row: int, place: int) -> FoundHit:
        found = int(self.hits[name].rows[row, place])
        known = self.precision is not None and label >= 0
        right = int(self.gallery.labels[found]) == label if known else None
        return FoundHit(self.gallery.domain.paths[found], float(self.hits[name].similarity[row, place]), right)


def run_directions(
    shown: Sequence[ShownImages], class_names: tuple[str, ...], scores: EvaluationReport | None
) -> tuple[DirectionFacts, ...]:
    pairs = [(a, b) for a in range(len(shown)) for b in range(a + 1, len(shown))]
    ways = [way for pair in pairs for way in (pair, pair[::-1])]
    return tuple(_direction(shown[a], shown[b], class_names, scores) for a, b in ways)


def _direction(
    query: ShownImages, gallery: ShownImages, class_names: tuple[str, ...], scores: EvaluationReport | None
) -> DirectionFacts:
    hits = {name: _nearest(query.rows[kind], gallery.rows[kind]) for name, kind in SHOWN.items()}
    names = query.domain.name, gallery.domain.name
    precision = None if scores is None else {name: _precision(scores.scores(name, *names), len(query.labels)) for name in SHOWN}
    way = _Way(query, gallery, class_names, hits, precision)
    found = {}
    if scores is not None:
        found = {name: _confusion(query, gallery, SHOWN[name], near) for name, near in hits.items()}
    return DirectionFacts(*names, _grids(way), _changes(way), found)


def _confusion(query: ShownImages, gallery: ShownImages, kind: str, near: Neighbours) -> Confusion:
    rows = query.rows[kind].numpy(), gallery.rows[kind].numpy()
    return confusion(*rows, query.labels, gallery.labels, near, CONFUSED_HITS)


def _nearest(queries: torch.Tensor, gallery: torch.Tensor) -> Neighbours:
    """The hits to show. Ties come in the order of rows here; scores average over all orders of ties."""
    try:
        return nearest(queries.numpy(), gallery.numpy(), GRID_HITS)
    except ValueError as error:
        raise UcdirError(f"cannot search with the encoders of this run: {error}") from error


def _precision(scores: RetrievalScores, count: int) -> Values:
    """(Q,) average precision of the whole ranking; NaN for queries without a relevant image in the gallery."""
    values = np.full(count, np.nan)
    answered = (scores.relevant > 0).numpy()
    values[scores.query_rows.numpy()[answered]] = scores.average_precision[:, -1].numpy()[answered]
    return values


def _grids(way: _Way) -> tuple[Pick, ...]:
    """Best, median and worst queries of the trained encoder."""
    if way.precision is None:
        values, what = way.hits["trained"].similarity[:, 0], "similarity of the first hit"
        labels = np.full(len(values), -1)
        said = [f"first hit at cosine {value:.3f}" for value in values]
    else:
        values, what = way.precision["trained"], "average precision over the whole gallery"
        labels = way.query.labels
        said = [f"average precision {100 * value:.1f} %" for value in values]
    rules = (f"the highest {what}", f"the {what} nearest to the median", f"the lowest {what}")
    return _picked(way, values, labels, ("best", "median", "worst"), rules, GRID_QUERIES, ("trained",), said)


def _changes(way: _Way) -> tuple[Pick, ...]:
    """Queries whose answers training changed most, in the middle, and least or for the worse."""
    if way.precision is None:
        values = 1.0 - _common_share(way.hits["frozen"].rows, way.hits["trained"].rows)
        width = way.hits["trained"].rows.shape[1]
        said = [f"{round((1 - value) * width)} of {width} hits in common" for value in values]
        rules = ("the fewest hits in common", "the median number of hits in common", "the most hits in common")
        names = ("changed most", "changed as the median", "changed least")
        labels = np.full(len(values), -1)
    else:
        before, after = way.precision["frozen"], way.precision["trained"]
        values, labels = after - before, way.query.labels
        said = [f"average precision {100 * old:.1f} → {100 * new:.1f} %" for old, new in zip(before, after, strict=True)]
        rules = (
            "the largest gain of average precision, frozen to trained",
            "the change of average precision nearest to the median change",
            "the largest loss of average precision, or the least gain where all gain",
        )
        names = ("largest gain", "median change", "largest loss")
    return _picked(way, values, labels, names, rules, CHANGE_QUERIES, tuple(SHOWN), said)


def _common_share(one: Ids, other: Ids) -> Values:
    """(Q, k) rows found in two ways -> (Q,) share that both found, of those that are shown."""
    common: Values = (one[:, :, None] == other[:, None, :]).any(axis=2).mean(axis=1)
    return common


def _picked(
    way: _Way,
    values: Values,
    labels: Ids,
    names: Sequence[str],
    rules: Sequence[str],
    count: int,
    shown: Sequence[str],
    said: Sequence[str],
) -> tuple[Pick, ...]:
    rows = np.flatnonzero(np.isfinite(values))
    lists = pick_extremes(values[rows], labels[rows], count)
    return tuple(
        Pick(name, rule, tuple(way.shown(int(rows[place]), shown, said[rows[place]]) for place in places))
        for name, rule, places in zip(names, rules, lists, strict=True)
    )
