"""Learning rate and ramp."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucdir.learn.schedules import cosine, ramp, stepped
from ucdir.learn.trainer import learning_rate
from ucdir.settings import OptimiserSettings, Settings


def test_cosine_by_hand() -> None:
    assert [cosine(0.2, epoch, 4) for epoch in (0, 2, 4)] == pytest.approx([0.2, 0.1, 0.0], abs=1e-16)
    assert cosine(1.0, 1, 3) == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))


def test_steps_count_from_their_milestone() -> None:
    assert [stepped(0.8, epoch, (2, 3)) for epoch in range(5)] == pytest.approx([0.8, 0.8, 0.4, 0.2, 0.2])
    assert stepped(0.8, 5, (2,), factor=0.1) == pytest.approx(0.08)
    assert stepped(0.8, 5, ()) == 0.8


def test_ramp_by_hand() -> None:
    assert [ramp(1.0, 3.0, epoch, 2, 6) for epoch in (0, 2, 3, 4, 6, 9)] == [1.0, 1.0, 1.5, 2.0, 3.0, 3.0]


def test_ramp_without_length_jumps_at_its_start() -> None:
    assert [ramp(0.0, 1.0, epoch, 3, 3) for epoch in (2, 3, 4)] == [0.0, 1.0, 1.0]
    assert ramp(0.0, 1.0, 0, 0, 0) == 1.0


@given(
    start=st.floats(0, 10),
    end=st.floats(0, 10),
    first=st.integers(0, 50),
    length=st.integers(0, 50),
    epoch=st.integers(0, 120),
)
def test_ramp_stays_between_its_ends(start: float, end: float, first: int, length: int, epoch: int) -> None:
    value = ramp(start, end, epoch, first, first + length)
    assert min(start, end) - 1e-9 <= value <= max(start, end) + 1e-9


@given(epochs=st.integers(1, 300))
def test_cosine_falls(epochs: int) -> None:
    rates = [cosine(0.1, epoch, epochs) for epoch in range(epochs)]
    assert rates[0] == 0.1
    assert rates == sorted(rates, reverse=True)
    assert min(rates) > 0


def test_the_schedule_is_chosen_by_settings() -> None:
    step = Settings(optimiser=OptimiserSettings(schedule="step", learning_rate=0.4, milestones=(0.4, 0.7), epochs=3))
    assert [learning_rate(step, epoch) for epoch in range(3)] == pytest.approx([0.4, 0.2, 0.1])
    paper = Settings(optimiser=OptimiserSettings())
    assert [learning_rate(paper, epoch) for epoch in (0, 100)] == pytest.approx([2e-4, 1e-4])
