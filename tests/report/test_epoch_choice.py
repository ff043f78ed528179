"""What choosing without labels is worth, by hand."""

import pytest

from ucdir.report.epoch_choice import EpochScores, choice_of, spearman


def run(*epochs: tuple[float, float]) -> list[EpochScores]:
    return [EpochScores(*epoch) for epoch in epochs]


def test_spearman() -> None:
    assert spearman([1, 2, 3], [10, 20, 90]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 1], [3, 2, 1]) == 0
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)  # ties at rank 2.5


def test_what_a_choice_loses() -> None:
    """The first run chooses its best, the second its last: half of what lies between is lost."""
    found = choice_of([run((0.9, 0.6), (0.1, 0.4)), run((0.1, 0.5), (0.9, 0.3)), run((1.0, 0.2))])
    assert found is not None
    assert (found.runs, found.rank_correlation, found.lowest) == (2, pytest.approx(0), pytest.approx(-1))
    assert (found.last, found.chosen, found.oracle) == (pytest.approx(0.35), pytest.approx(0.45), pytest.approx(0.55))
    assert found.lost == pytest.approx(0.5)
    assert "loses 50 % of the difference between last and oracle" in found.sentence()


def test_an_epoch_that_collapsed_is_not_chosen() -> None:
    epochs = [EpochScores(0.9, 0.8, True), EpochScores(0.2, 0.4), EpochScores(0.1, 0.5)]
    found = choice_of([epochs, [EpochScores(0.9, 0.8, True)] * 2])
    assert found is not None
    assert (found.runs, found.last, found.chosen, found.oracle) == (1, 0.5, 0.4, 0.5)
    assert choice_of([[EpochScores(0.9, 0.8, True)] * 2]) is None


def test_nothing_to_lose_and_nothing_to_choose() -> None:
    found = choice_of([run((0.1, 0.2), (0.2, 0.3))])
    assert found is not None
    assert found.lost == 0
    assert choice_of([run((0.1, 0.2))]) is None


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        (
            ((0.9, 0.3490), (0.1, 0.3488)),
            "last 34.9, chosen 34.9, oracle 34.9; all are equal, so the choice made no difference.",
        ),
        (((0.9, 0.3400), (0.1, 0.3488)), "the last epoch is the best, so there was nothing to gain, and it loses 0.9."),
        (((0.9, 0.3500), (0.1, 0.3400)), "it loses 0 % of the difference between last and oracle."),
    ],
)
def test_no_share_is_told_of_nothing(epochs: tuple[tuple[float, float], ...], words: str) -> None:
    found = choice_of([run(*epochs)])
    assert found is not None
    assert found.sentence().endswith(words)
    assert ", 1 run: " in found.sentence()
