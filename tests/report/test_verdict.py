"""The sentence at the top of a run's page: when no training finds more than training."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from ucdir.report.page.scores import mean_figure, scores_section, without_training
from ucdir.scoring.directions import DomainCount, EmbeddedDomain, EvaluationReport, evaluate_methods

LABELS = torch.tensor([0, 0, 1, 1])
GOOD = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # all found first: 100
BAD = GOOD.flip(0)  # all found last: (1/3 + 2/4) / 2 = 41.7


def report(**rows: Tensor) -> EvaluationReport:
    """Two domains; the second has good rows, the first those given for each method."""
    counts = [DomainCount(name, 4, 4, ()) for name in ("a", "b")]
    names = {"label_free": "trained (label-free epoch)", "oracle": "trained (oracle epoch)"}
    methods = {
        names.get(name, name): (EmbeddedDomain("a", given, LABELS), EmbeddedDomain("b", GOOD, LABELS))
        for name, given in rows.items()
    }
    return evaluate_methods(methods, ("x", "y"), counts, (1,), 0, 0, lambda _: None)


def test_the_mean_is_of_all_directions() -> None:
    found = report(frozen=BAD, trained=GOOD)
    assert mean_figure(found, "trained") == 1
    ways = [found.scores("frozen", *way)["mAP@All"].value for way in permutations("ab")]
    assert mean_figure(found, "frozen") == pytest.approx(sum(ways) / 2)
    assert mean_figure(found, "frozen") == pytest.approx(5 / 12)


def test_it_says_so_when_no_training_finds_more() -> None:
    said = without_training(report(frozen=BAD, centred=BAD, smoothed=GOOD, trained=BAD))
    assert said == "Without training, smoothed finds more here: a mean mAP@All of 100.0 % against 41.7 % (last epoch)."
    both = without_training(report(frozen=GOOD, smoothed=BAD, label_free=BAD, oracle=GOOD, trained=BAD))
    assert both.startswith("Without training, frozen finds more here: ")
    assert both.endswith(" 100.0 % against 41.7 % (last epoch) and 41.7 % (label-free epoch).")


def test_only_epochs_that_no_label_chose_are_compared() -> None:
    assert without_training(report(smoothed=GOOD, oracle=BAD, trained=GOOD)) == ""
    one = without_training(report(smoothed=GOOD, label_free=GOOD, trained=BAD))
    assert one.endswith("41.7 % (last epoch).")


def test_it_is_silent_when_training_finds_as_much_or_nothing_is_known() -> None:
    assert without_training(report(frozen=BAD, smoothed=BAD, trained=GOOD)) == ""
    assert without_training(report(frozen=GOOD, trained=GOOD)) == ""
    assert without_training(report(frozen=GOOD)) == ""


def test_the_last_epoch_is_named_in_its_row() -> None:
    body = scores_section(report(frozen=BAD, trained=GOOD), "", "trained (last epoch)").body
    assert '<th scope="row">trained (last epoch)</th>' in body
    assert 'role="region" aria-label="a → b"' in body
    assert "capped<br>P@1" in body
