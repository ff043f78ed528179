"""The parts of tuning: what an epoch aims at, and what the linear layer starts as."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ucdir.images.domains import Domain
from ucdir.images.epoch_plan import epoch_rows
from ucdir.learn.tuning import Aim, Lesson, regression
from ucdir.settings import load_settings

SETTINGS = load_settings("tune", assignments={"align.group_counts": [4, 6]})


def rows(count: int, seed: int, length: int = 8) -> torch.Tensor:
    return F.normalize(torch.randn(count, length, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_what_is_what_it_is_to_become_has_missed_nothing() -> None:
    targets = [rows(30, 0), rows(40, 1)]
    aim = Aim.of(targets, SETTINGS, 0, torch.device("cpu"))
    ids = [torch.arange(5), torch.arange(10, 20)]
    reached = torch.cat([targets[0][ids[0]], targets[1][ids[1]]])
    assert float(aim.missed(reached, ids)) == pytest.approx(0, abs=1e-5)
    assert float(aim.missed(-reached, ids)) > 1


def test_every_epoch_has_groupings_of_its_own_of_each_count_and_kind() -> None:
    targets = [rows(30, 0), rows(40, 1)]
    first, again, later = (Aim.of(targets, SETTINGS, epoch, torch.device("cpu")) for epoch in (0, 0, 1))
    assert [len(grouping) for grouping in first.groupings] == [4, 6, 4, 6]
    assert all(torch.equal(one, other) for one, other in zip(first.groupings, again.groupings, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(first.groupings, later.groupings, strict=True))


def test_the_layer_starts_as_the_map_that_made_the_targets() -> None:
    features = [rows(400, 0), rows(300, 1)]
    made = torch.randn(8, 3, generator=torch.Generator().manual_seed(2))
    lessons = [Lesson(Domain("d", (), None, Path("d")), part, F.normalize(part @ made, dim=1)) for part in features]
    found = F.normalize(features[0] @ regression(lessons).weight.detach().T, dim=1)
    assert float((found * lessons[0].targets).sum(dim=1).mean()) > 0.99


def test_more_steps_go_through_the_largest_domain_again() -> None:
    steps = epoch_rows([6, 4], 2, np.random.default_rng(0), steps=7)
    assert len(steps) == 7
    drawn = [np.concatenate(part).tolist() for part in zip(*steps, strict=True)]
    assert sorted(drawn[0][:6]) == sorted(drawn[0][6:12]) == list(range(6))
    assert sorted(drawn[1][:4]) == sorted(drawn[1][4:8]) == list(range(4))
