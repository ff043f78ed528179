"""How well the label-free score chooses epochs, measured with labels afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ucdir.report.percent import percent


@dataclass(frozen=True)
class EpochScores:
    """One epoch of one run: the score that was used, and mAP@All, which was not. One that collapsed is never chosen."""

    label_free: float
    oracle: float
    is_collapsed: bool = False


@dataclass(frozen=True)
class Choice:
    """What choosing epochs by the label-free score is worth, over several runs.

    runs               how many
    rank_correlation   mean over the runs of Spearman's correlation, over epochs, of the score with mAP@All; in [-1, 1]
    lowest             the lowest of them
    last, chosen, oracle   mean mAP@All of the last epoch, the one chosen without labels and the best
    """

    runs: int
    rank_correlation: float
    lowest: float
    last: float
    chosen: float
    oracle: float

    @property
    def lost(self) -> float:
        """Fraction of the difference between last and oracle that the choice loses; 0 if they are equal."""
        between = self.oracle - self.last
        return (self.oracle - self.chosen) / between if between > 0 else 0.0

    def sentence(self) -> str:
        """For people."""
        figures = ", ".join(f"{name} {percent(getattr(self, name))}" for name in ("last", "chosen", "oracle"))
        return (
            f"Label-free choice of the epoch, {self.runs} {'run' if self.runs == 1 else 'runs'}: rank correlation with "
            f"mAP@All over epochs {self.rank_correlation:.2f} on average, {self.lowest:.2f} at the lowest. "
            f"Mean mAP@All: {figures}; {self._worth()}."
        )

    def _worth(self) -> str:
        """How much the chosen epoch gives up against the best one, as a clause of `sentence`."""
        if percent(self.oracle) != percent(self.last):
            return f"it loses {100 * self.lost:.0f} % of the difference between last and oracle"
        if percent(self.chosen) == percent(self.last):
            return "all are equal, so the choice made no difference"
        return f"the last epoch is the best, so there was nothing to gain, and it loses {percent(self.oracle - self.chosen)}"


def choice_of(runs: Sequence[Sequence[EpochScores]]) -> Choice | None:
    """From the epochs of each run, in order; None without a run of two epochs or more, of which one can be chosen."""
    long = [run for run in runs if len(run) > 1 and not all(epoch.is_collapsed for epoch in run)]
    if not long:
        return None
    correlations = [spearman([epoch.label_free for epoch in run], [epoch.oracle for epoch in run]) for run in long]
    eligible = [[epoch for epoch in run if not epoch.is_collapsed] for run in long]
    chosen = [max(run, key=lambda epoch: epoch.label_free).oracle for run in eligible]  # of equal ones the first
    return Choice(
        runs=len(long),
        rank_correlation=float(np.mean(correlations)),
        lowest=min(correlations),
        last=float(np.mean([run[-1].oracle for run in long])),
        chosen=float(np.mean(chosen)),
        oracle=float(np.mean([max(epoch.oracle for epoch in run) for run in eligible])),
    )


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Correlation of the ranks, ties at their mean rank; 0 when one of them does not vary."""
    a, b = _ranks(one), _ranks(other)
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, which, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[which]
    return ranks
