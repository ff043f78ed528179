"""What is found for what: the classes of the first hits, class by class."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ucdir.retrieval.exact_search import Neighbours
from ucdir.retrieval.ties import tied_hits

Ids = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Confusion:
    """Classes of the first hits of the queries of each class.

    query_classes  (R,) class ids of the rows, rising
    hit_classes    (C,) class ids of the columns, rising; a last -1 where hits without a class were found
    share          (R, C) in [0, 1], each row sums to 1
    queries        (R,) queries of each class
    """

    query_classes: Ids
    hit_classes: Ids
    share: Values
    queries: Ids


def confusion(
    queries: NDArray[Any], gallery: NDArray[Any], query_classes: Ids, gallery_classes: Ids, near: Neighbours, k: int
) -> Confusion:
    """Count which classes are among the first k hits of which; equal similarities in expectation.

    queries, gallery   (Q, D), (G, D) rows
    query_classes      (Q,) class ids; queries with -1 are left out
    gallery_classes    (G,) class ids, -1 = no class
    near               what `nearest` found for these rows: more than k hits, or the whole gallery
    """
    names, which = np.unique(gallery_classes, return_inverse=True)
    found = _class_shares(queries, gallery, np.eye(len(names))[which], near, k)
    kept = query_classes >= 0
    rows, row = np.unique(query_classes[kept], return_inverse=True)
    counts = np.bincount(row, minlength=len(rows))
    sums = np.zeros((len(rows), len(names)))
    np.add.at(sums, row, found[kept])
    seen = sums.any(axis=0)
    columns = np.union1d(rows, names[seen])
    share = np.zeros((len(rows), len(columns)))
    share[:, np.searchsorted(columns, names[seen])] = sums[:, seen] / counts[:, None]
    last = np.argsort(columns < 0, kind="stable")  # -1 goes to the end
    return Confusion(rows, columns[last], share[:, last], counts)


def _class_shares(queries: NDArray[Any], gallery: NDArray[Any], one_hot: Values, near: Neighbours, k: int) -> Values:
    """(G, L) classes of the gallery -> (Q, L) shares of the classes among the first k hits of each query."""
    first = near.rows[:, :k].T
    shares = np.zeros((len(near.rows), one_hot.shape[1]))
    for place in first:
        shares += one_hot[place]
    shares /= len(first)
    for part in tied_hits(queries, gallery, near, k):
        shares[part.queries] = part.chance @ one_hot / k
    return shares
