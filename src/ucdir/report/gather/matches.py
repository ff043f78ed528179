"""What the domains of a run have in common: groups that correspond, and for every image its best candidates."""

from collections.abc import Iterator, Sequence
from itertools import permutations

from torch import Tensor

from ucdir.images.domains import Domain
from ucdir.learn.calibration import calibrated
from ucdir.learn.groups import Correspondence, find_groups
from ucdir.model.confidence import HITS_CONSIDERED, Confidence
from ucdir.report.match_tables import FoundGroup, FoundPair
from ucdir.retrieval.neighbours import choose_each_other, nearest_rows

CANDIDATES, TYPICAL = 5, 6


def find_matches(domains: Sequence[Domain], rows: Sequence[Tensor]) -> tuple[tuple[FoundGroup, ...], tuple[FoundPair, ...]]:
    """Groups and pairs from the embeddings (S x (N, D) unit rows) of any encoder."""
    found = find_groups(rows)
    return found_groups(domains, found), found_pairs(domains, rows, calibrated(rows, found))


def found_groups(domains: Sequence[Domain], found: Correspondence) -> tuple[FoundGroup, ...]:
    """The groups of all domains with the names of their partners."""
    names = list(_named(domains, found))
    return tuple(
        FoundGroup(
            *names[number],
            images=len(group.rows),
            typical=tuple(domains[group.domain].paths[row] for row in group.rows[:TYPICAL].tolist()),
            partners=tuple((*names[link.partner_of(number)], link.certainty) for link in found.partners(number)),
        )
        for number, group in enumerate(found.groups)
    )


def _named(domains: Sequence[Domain], found: Correspondence) -> Iterator[tuple[str, int]]:
    """(domain, number within it) of each group."""
    counts = dict.fromkeys(range(len(domains)), 0)
    for group in found.groups:
        counts[group.domain] += 1
        yield domains[group.domain].name, counts[group.domain]


def found_pairs(domains: Sequence[Domain], rows: Sequence[Tensor], confidence: Confidence) -> tuple[FoundPair, ...]:
    """For every image of each domain (rows: S x (N, D)) the CANDIDATES most similar ones of every other."""
    return tuple(
        pair
        for a, b in permutations(range(len(domains)), 2)
        for pair in _pairs((domains[a], domains[b]), (rows[a], rows[b]), confidence)
    )


def _pairs(domains: tuple[Domain, Domain], rows: tuple[Tensor, Tensor], confidence: Confidence) -> Iterator[FoundPair]:
    near = nearest_rows(*rows, HITS_CONSIDERED)
    back = nearest_rows(rows[1], rows[0], CANDIDATES)
    best = near.rows[:, :CANDIDATES]
    partners = set(zip(*(ids.tolist() for ids in choose_each_other(best, back.rows)), strict=True))
    similarity = near.similarity.cpu().numpy()
    sure = confidence.of_hits(similarity[:, :CANDIDATES], confidence.of_queries(similarity))
    own, other = domains
    for row, candidates in enumerate(best.tolist()):
        for place, candidate in enumerate(candidates):
            yield FoundPair(
                own.name,
                own.paths[row],
                other.name,
                place + 1,
                other.paths[candidate],
                float(similarity[row, place]),
                float(sure[row, place]),
                (row, candidate) in partners,
            )
