"""What similarities mean, learned without labels: from groups that correspond, and from what is found without them."""

import math
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ucdir.learn.groups import Correspondence, Group
from ucdir.model.confidence import HITS_CONSIDERED, Confidence, Curve
from ucdir.retrieval.expansion import expanded_among
from ucdir.retrieval.neighbours import nearest_rows
from ucdir.scoring.picks import evenly_spread

QUERIES = 2_000  # of each direction
HITS_PER_QUERY = 10  # of a query, each of which counts as right or wrong
STEPS, RIDGE = 50, 1e-3
FLAT = 1e6  # width of a curve that says the same of all similarities
NOTHING = Curve(2.0, 0.1)  # where no groups correspond, no similarity is enough

Floats = NDArray[np.float64]


def calibrated(rows: Sequence[Tensor], found: Correspondence, expand: int = 0) -> Confidence:
    """The curves of an encoder.

    rows     S x (N, D) unit rows, whose groups `found` holds
    expand   hits that queries move toward before the search

    Images of a group with a partner count as having something like them on the other side, and as having nothing once the
    images of all its partners are taken away. Of all images, as many are expected to have something as have a partner group. A
    hit in a partner counts as right, another as wrong.
    """
    parts = [_direction(rows, found, a, b, expand) for a, b in permutations(range(len(rows)), 2)]
    whole = [part for part in parts if part is not None]
    if not whole:
        return Confidence(NOTHING, NOTHING)
    there, gone, similarity, right = (np.concatenate(column) for column in zip(*whole, strict=True))
    exists = np.concatenate([np.ones(len(there)), np.zeros(len(gone))])
    query = fitted(np.concatenate([there, gone]), exists)
    return Confidence(query.at_base_rate(_share_with_partner(rows, found)), fitted(similarity, right))


def _share_with_partner(rows: Sequence[Tensor], found: Correspondence) -> float:
    """Of images and other domains, how many have a partner group there; never quite 0 or 1 (Laplace's rule of succession)."""
    others = [
        (len(group.rows), {found.groups[link.partner_of(number)].domain for link in found.partners(number)})
        for number, group in enumerate(found.groups)
    ]
    have = sum(images * len(domains) for images, domains in others)
    return (have + 1) / (sum(map(len, rows)) * (len(rows) - 1) + 2)


class _Examples(NamedTuple):
    """Of queries with a partner: mean similarities with it and without, similarities of hits, and whether they are right."""

    there: Floats
    gone: Floats
    similarity: Floats
    right: Floats


def _direction(rows: Sequence[Tensor], found: Correspondence, a: int, b: int, expand: int) -> _Examples | None:
    """Images of domain `a` as queries to domain `b`."""
    total = len(rows[a])
    parts = []
    for number, group in enumerate(found.groups):
        partners = [found.groups[link.partner_of(number)] for link in found.partners(number)]
        own = [partner for partner in partners if partner.domain == b]
        if group.domain == a and own:
            parts.append(_of_group(rows[a], rows[b], group, own, max(1, QUERIES * len(group.rows) // total), expand))
    whole = [part for part in parts if part is not None]
    return _Examples(*(np.concatenate(column) for column in zip(*whole, strict=True))) if whole else None


def _of_group(
    queries: Tensor, gallery: Tensor, group: Group, partners: Sequence[Group], most: int, expand: int
) -> _Examples | None:
    asked = queries[torch.from_numpy(group.rows[evenly_spread(len(group.rows), most)]).to(queries.device)]
    in_partner = torch.zeros(len(gallery), dtype=torch.bool, device=gallery.device)
    for partner in partners:
        in_partner[torch.from_numpy(partner.rows).to(gallery.device)] = True
    if bool(in_partner.all()):
        return None
    there, gone = (
        nearest_rows(asked, part, HITS_CONSIDERED).similarity.mean(dim=1) for part in (gallery, gallery[~in_partner])
    )
    moved = torch.from_numpy(expanded_among(asked.cpu().numpy(), gallery.cpu().numpy(), expand)).to(gallery.device)
    near = nearest_rows(moved, gallery, HITS_PER_QUERY)
    columns = there, gone, near.similarity.flatten(), in_partner[near.rows].flatten()
    return _Examples(*(column.double().cpu().numpy() for column in columns))


def fitted(values: Floats, right: Floats) -> Curve:
    """Logistic regression of 0 or 1 on one value, by Newton's method. A curve that would fall is flat at the mean instead."""
    middle, spread = values.mean(), max(float(values.std()), 1e-6)
    given = np.stack([(values - middle) / spread, np.ones_like(values)], axis=1)
    weights = np.zeros(2)
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(given @ weights, -50, 50)))
        gradient = given.T @ (chance - right) / len(values) + RIDGE * weights
        curvature = (given * (chance * (1 - chance))[:, None]).T @ given / len(values) + RIDGE * np.eye(2)
        weights = weights - np.linalg.solve(curvature, gradient)
    slope, offset = weights
    if slope <= 0:
        mean = float(np.clip(right.mean(), 0.01, 0.99))
        return Curve(-FLAT * math.log(mean / (1 - mean)), FLAT)
    return Curve(float(middle - offset * spread / slope), float(spread / slope))
