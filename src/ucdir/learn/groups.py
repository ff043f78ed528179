"""What unlabelled collections have in common: groups of similar images in each, and which groups of two collections correspond.

Works on the embeddings of any encoder; nothing here reads a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ucdir.retrieval.neighbours import average, nearest_rows

NEIGHBOURS = 20  # that an image moves toward
MOVES = 10
ALIKE = 0.7  # cosine of images that have come to the same place
MIN_GROUP_IMAGES = 5  # images of a group
MIN_GROUP_FRACTION = 0.01  # of a domain, below which a group is too small, too
VOTES_PER_IMAGE = 20  # of an image on the other side, each of which is a vote for its group
MIN_CERTAINTY = 0.4  # certainty of groups that correspond

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Images of one domain that look alike.

    domain  which
    rows    (n,) of the domain's images, the most typical one first
    """

    domain: int
    rows: Ids


@dataclass(frozen=True)
class Link:
    """Two groups, by their numbers, whose images look for each other.

    certainty  in [0, 1]: the geometric mean of the fractions of each one's hits that are in the other, 0 if that is no more
               than chance (as in Cohen's kappa)
    """

    one: int
    other: int
    certainty: float

    def partner_of(self, group: int) -> int:
        """The other one."""
        return self.other if group == self.one else self.one


@dataclass(frozen=True)
class Correspondence:
    """The groups of all domains and which of them correspond, the most certain first."""

    groups: tuple[Group, ...]
    links: tuple[Link, ...]

    def partners(self, group: int) -> tuple[Link, ...]:
        """The links of a group, the most certain first; none = it has no partner."""
        return tuple(link for link in self.links if group in (link.one, link.other))


def find_groups(domains: Sequence[Tensor]) -> Correspondence:
    """Groups of every domain, and which of different domains correspond.

    domains   S x (N, D) float32 unit rows; a domain without images has no groups
    """
    labels = [group_ids(rows) for rows in domains]
    groups: list[Group] = []
    first = []
    for number, (rows, own) in enumerate(zip(domains, labels, strict=True)):
        first.append(len(groups))
        members = [np.flatnonzero(own == group) for group in range(own.max(initial=-1) + 1)]
        groups += [Group(number, _typical_first(rows, part)) for part in members]
    links = [
        Link(first[a] + i, first[b] + j, certainty)
        for a, b in combinations(range(len(domains)), 2)
        for i, j, certainty in _links((domains[a], domains[b]), (labels[a], labels[b]))
    ]
    return Correspondence(tuple(groups), tuple(sorted(links, key=lambda link: -link.certainty)))


def group_ids(rows: Tensor) -> Ids:
    """(N, D) unit rows -> (N,) numbers of groups, the largest group first.

    Every image moves to the mean of its nearest ones, itself included, again and again; those that end in the same place are
    a group (mean shift on a graph of neighbours; Fukunaga & Hostetler 1975). Small groups join the one whose place is nearest.
    """
    if len(rows) == 0:
        return np.empty(0, np.int64)
    moved = rows
    for _ in range(MOVES):
        moved = average(moved, nearest_rows(moved, moved, NEIGHBOURS))
    places, labels = _places(moved)
    counts = torch.bincount(labels, minlength=len(places))
    large = (counts >= max(MIN_GROUP_IMAGES, MIN_GROUP_FRACTION * len(rows))).nonzero()[:, 0]
    if len(large) == 0:
        return np.zeros(len(rows), np.int64)
    nearest = (places @ places[large].T).argmax(dim=1)
    nearest[large] = torch.arange(len(large), device=rows.device)
    joined = nearest[labels]
    order = torch.bincount(joined, minlength=len(large)).argsort(descending=True, stable=True)
    return order.argsort()[joined].cpu().numpy()


def _places(moved: Tensor) -> tuple[Tensor, Tensor]:
    """(P, D) where images have come to, none two of them ALIKE, and (N,) which of them each is nearest to."""
    places: list[Tensor] = []
    left = torch.arange(len(moved), device=moved.device)
    while len(left):
        own = moved[left]
        here = own @ own[0] > ALIKE
        centre = F.normalize(own[here].mean(dim=0), dim=0)
        here = own @ centre > ALIKE
        here[0] = True
        places.append(centre)
        left = left[~here]
    stacked = torch.stack(places)
    return stacked, (moved @ stacked.T).argmax(dim=1)


def _typical_first(rows: Tensor, members: Ids) -> Ids:
    own = rows[torch.from_numpy(members).to(rows.device)]
    order: Ids = (own @ own.mean(dim=0)).argsort(descending=True, stable=True).cpu().numpy()
    return members[order]


def _links(domains: tuple[Tensor, Tensor], labels: tuple[Ids, Ids]) -> list[tuple[int, int, float]]:
    """(group of the first, group of the second, certainty) of those that correspond."""
    if not all(map(len, domains)):
        return []
    there = _votes(*domains, *labels)
    back = _votes(domains[1], domains[0], labels[1], labels[0]).T
    certainty = np.sqrt(there * back)
    return [(int(i), int(j), float(certainty[i, j])) for i, j in np.argwhere(certainty >= MIN_CERTAINTY)]


def _votes(query: Tensor, gallery: Tensor, query_labels: Ids, gallery_labels: Ids) -> NDArray[np.float64]:
    """(groups of the query's domain, groups of the gallery's): the fraction of hits of the one that are in the other, less
    what chance gives.
    """
    found = nearest_rows(query, gallery, VOTES_PER_IMAGE).rows.cpu().numpy()
    counts = np.zeros((query_labels.max() + 1, gallery_labels.max() + 1))
    np.add.at(counts, (query_labels[:, None], gallery_labels[found]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    chance = np.bincount(gallery_labels) / len(gallery_labels)
    corrected: NDArray[np.float64] = (shares - chance) / np.maximum(1 - chance, 1e-9)
    return np.clip(corrected, 0, 1)
