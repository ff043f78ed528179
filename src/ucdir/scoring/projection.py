"""Embeddings of all domains on a plane."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Plane:
    """Points on the two directions in which the rows differ most.

    points   (N, 2) float64
    kept     (2,) shares of the variance along each direction
    """

    points: NDArray[np.float64]
    kept: tuple[float, float]


def principal_plane(rows: NDArray[np.float32]) -> Plane:
    """Principal components of rows (N, D) around their mean: the same plane and signs for the same rows, on every machine.

    The sign of a direction is such that its largest loading is positive. Missing directions (N < 3, equal rows) give 0.
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64) if len(rows) else rows.astype(np.float64)
    variance, directions = np.linalg.eigh(centred.T @ centred)
    chosen = directions[:, ::-1][:, :2]  # (D, 2), largest first
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(2)])
    total = max(float(variance.sum()), 1e-12)
    first, second = (max(float(part), 0.0) / total for part in variance[::-1][:2])
    return Plane(centred @ chosen, (first, second))
