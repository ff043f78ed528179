"""The steps of align written slowly, image by image, in float64."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def within(views: Array, weights: Array) -> Array:
    """(N, V, F) -> (F, F): weighted second moment of what differs within an image, each kind of view with its own mean."""
    views = unit(views)
    views = views - views.mean(axis=0)
    total = np.zeros((views.shape[2], views.shape[2]))
    for image in views:
        centre = sum(weight * view for weight, view in zip(weights, image, strict=True))
        for weight, view in zip(weights, image, strict=True):
            total += weight * np.outer(view - centre, view - centre)
    return total / len(views)


def pair_moment(one: Array, other: Array, first: list[int], second: list[int]) -> Array:
    """(F, F): half the mean outer product of the differences of pairs."""
    differences = [one[i] - other[j] for i, j in zip(first, second, strict=True)]
    return sum(np.outer(d, d) for d in differences) / len(differences) / 2


def memberships(row: Array, prototypes: Array, temperature: float) -> Array:
    """(C,) softmax of the cosines with the prototypes."""
    values = np.exp((prototypes @ row) / temperature)
    return values / values.sum()


def mutual(similarity: Array, k: int) -> set[tuple[int, int]]:
    """Pairs in which each is among the k most similar of the other."""
    there = [set(np.argsort(-row)[:k].tolist()) for row in similarity]
    back = [set(np.argsort(-column)[:k].tolist()) for column in similarity.T]
    return {(i, j) for i, chosen in enumerate(there) for j in chosen if i in back[j]}
