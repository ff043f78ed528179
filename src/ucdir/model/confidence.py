"""How similarities become probabilities. Imports numpy only; `calibrate` learns the curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HITS_CONSIDERED = 20  # best hits whose mean similarity says whether anything like a query exists

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A logistic curve: 1/2 at `middle`, rising over some `width` > 0."""

    middle: float
    width: float

    def __call__(self, values: NDArray[np.floating]) -> Floats:
        """Probabilities of similarities, of any shape."""
        return np.asarray(1 / (1 + np.exp(-np.clip((values - self.middle) / self.width, -50, 50))), np.float64)

    def at_base_rate(self, rate: float) -> "Curve":
        """The curve, learned where half of the cases were positive, for a base rate in (0, 1) (Saerens et al. 2002)."""
        return Curve(self.middle - self.width * math.log(rate / (1 - rate)), self.width)


@dataclass(frozen=True)
class Confidence:
    """What similarities mean under an encoder.

    query  of the mean similarity of the HITS_CONSIDERED best hits to a query: that anything like it is in the gallery
    hit    of the similarity of a hit to a query where it has moved to: that it is such a thing, if there is any
    """

    query: Curve
    hit: Curve

    def of_queries(self, similarity: NDArray[np.floating]) -> Floats:
        """(Q, k) similarities of the best hits -> (Q,) probability that anything like a query exists."""
        return self.query(similarity[:, :HITS_CONSIDERED].mean(axis=1))

    def of_hits(self, similarity: NDArray[np.floating], exists: Floats) -> Floats:
        """(Q, k) similarities of hits and what `of_queries` said -> (Q, k) probability that a hit is what was looked for."""
        return self.hit(similarity) * exists[:, None]

    def numbers(self) -> tuple[float, float, float, float]:
        """To be stored."""
        return self.query.middle, self.query.width, self.hit.middle, self.hit.width

    @classmethod
    def of_numbers(cls, numbers: Sequence[float]) -> "Confidence | None":
        """What `numbers` gave; None for none."""
        return cls(Curve(*numbers[:2]), Curve(*numbers[2:])) if numbers else None
