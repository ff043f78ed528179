"""What is found for what: the classes of the first hits, class by class."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


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
    share: NDArray[np.float64]
    queries: Ids


def confusion(query_classes: Ids, hit_classes: Ids) -> Confusion:
    """Count which classes are found for which.

    query_classes  (Q,) class ids; queries with -1 are left out
    hit_classes    (Q, k) class ids of the first k hits, -1 = no class
    """
    kept = query_classes >= 0
    wanted, found = query_classes[kept], hit_classes[kept]
    rows, row = np.unique(wanted, return_inverse=True)
    seen = np.union1d(rows, found)
    columns = np.concatenate([seen[seen >= 0], seen[seen < 0]])
    column = np.where(found < 0, len(columns) - 1, np.searchsorted(columns[columns >= 0], found))
    counts = np.zeros((len(rows), len(columns)))
    np.add.at(counts, (row[:, None], column), 1.0)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return Confusion(rows, columns, share, np.bincount(row, minlength=len(rows)))
