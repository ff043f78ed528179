"""Which images a step takes, and that steps are the same whoever prepares them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ucdir.data.batches import DomainBatch, batches, count_steps, epoch_rows, worker_count
from ucdir.data.domain import Domain, load_domain
from ucdir.errors import ImageError

few = settings(max_examples=60, deadline=None, derandomize=True)
lengths = st.lists(st.integers(1, 60), min_size=1, max_size=4)


# Which images


@few
@given(lengths=lengths, batch_size=st.integers(1, 20), seed=st.integers(0, 99))
def test_an_epoch(lengths: list[int], batch_size: int, seed: int) -> None:
    """Whole batches; the largest domain at most once; a smaller one as evenly as its whole rounds allow."""
    rows = epoch_rows(lengths, batch_size, np.random.default_rng(seed))
    assert len(rows) == count_steps(lengths, batch_size) == max(1, max(lengths) // batch_size)
    for number, length in enumerate(lengths):
        assert all(step[number].shape == (batch_size,) for step in rows)
        taken = np.concatenate([step[number] for step in rows])
        assert taken.dtype == np.int64
        assert taken.min() >= 0
        assert taken.max() < length
        for start in range(0, len(taken) - length + 1, length):
            assert sorted(taken[start : start + length]) == list(range(length))
        times = Counter(taken.tolist())
        assert max(times.values()) - min(times.get(row, 0) for row in range(length)) <= 1


def test_the_largest_domain_leaves_out_its_incomplete_last_batch() -> None:
    rows = epoch_rows([10, 4], 4, np.random.default_rng(0))
    assert len(rows) == 2
    assert len({row for step in rows for row in step[0].tolist()}) == 8


def test_a_smaller_domain_is_drawn_anew_in_another_order() -> None:
    taken = np.concatenate([step[1] for step in epoch_rows([64, 8], 8, np.random.default_rng(0))])
    rounds = {tuple(taken[start : start + 8]) for start in range(0, 64, 8)}
    assert len(rounds) > 6
    assert all(sorted(found) == list(range(8)) for found in rounds)


def test_a_domain_smaller_than_the_batch_repeats_its_images() -> None:
    ((large, small),) = epoch_rows([8, 3], 8, np.random.default_rng(0))
    assert len(set(large.tolist())) == 8
    assert sorted(Counter(small.tolist()).values()) == [2, 3, 3]


def test_epochs_differ_and_repeat_with_their_seed() -> None:
    first, again, other = (epoch_rows([30], 10, np.random.default_rng([0, epoch])) for epoch in (1, 1, 2))
    assert all(np.array_equal(one[0], two[0]) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(np.concatenate([s[0] for s in first]), np.concatenate([s[0] for s in other]))


# Steps


@pytest.fixture
def domains(tmp_path: Path, photo: Callable[..., Image.Image], save: Callable[..., Path]) -> tuple[Domain, Domain]:
    for name, number in (("large", 9), ("small", 5)):
        for seed in range(number):
            save(photo(seed + 100 * number, 40), tmp_path / name / f"{seed}.png")
    return load_domain(tmp_path / "large"), load_domain(tmp_path / "small")


def prepared(domains: tuple[Domain, ...], seed: tuple[int, ...] = (0, 0), workers: int = 2) -> list[tuple[DomainBatch, ...]]:
    return list(batches(domains, 4, 16, seed, workers))


def same(one: list[tuple[DomainBatch, ...]], other: list[tuple[DomainBatch, ...]]) -> bool:
    parts = [(a, b) for s, t in zip(one, other, strict=True) for a, b in zip(s, t, strict=True)]
    return all(
        torch.equal(getattr(a, name), getattr(b, name)) for a, b in parts for name in ("image_ids", "query_view", "key_view")
    )


def test_a_step_holds_one_batch_per_domain(domains: tuple[Domain, Domain]) -> None:
    steps = prepared(domains)
    assert [len(step) for step in steps] == [2, 2]
    for part in (part for step in steps for part in step):
        assert part.image_ids.shape == (4,)
        assert part.image_ids.dtype == torch.int64
        assert part.query_view.shape == part.key_view.shape == (4, 3, 16, 16)
        assert part.query_view.dtype == part.key_view.dtype == torch.uint8
        assert not torch.equal(part.query_view, part.key_view)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(domains: tuple[Domain, Domain], workers: int) -> None:
    assert same(prepared(domains), prepared(domains, workers=workers))


def test_another_epoch_has_other_views(domains: tuple[Domain, Domain]) -> None:
    assert not same(prepared(domains), prepared(domains, (0, 1)))
    assert not same(prepared(domains), prepared(domains, (1, 0)))


def test_views_belong_to_their_image_ids(tmp_path: Path, save: Callable[..., Path]) -> None:
    """Plain black, dark, ... images: a view is as bright as jitter allows."""
    for number in range(4):
        save(Image.new("RGB", (20, 20), (60 * number,) * 3), tmp_path / "d" / f"{number}.png")
    for (part,) in prepared((load_domain(tmp_path / "d"),)):
        for image_id, view in zip(part.image_ids.tolist(), part.query_view.float(), strict=True):
            assert 0.55 * 60 * image_id - 1 <= float(view.mean()) <= 1.45 * 60 * image_id + 1


def test_classes_are_never_read(domains: tuple[Domain, Domain]) -> None:
    labelled = tuple(Domain(d.name, d.paths, ("x",) * len(d), d.source) for d in domains)
    assert same(prepared(domains), prepared(labelled))


def test_an_unreadable_image_ends_the_steps(domains: tuple[Domain, Domain]) -> None:
    domains[1].paths[0].write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"0\.png"):
        prepared(domains)


def test_steps_may_be_left_half_way(domains: tuple[Domain, Domain]) -> None:
    steps = batches(domains, 2, 16, (0, 0), 2)
    next(steps)
    steps.close()


def test_workers() -> None:
    assert worker_count(3) == 3
    assert worker_count(0) >= 1
