"""Which images a step takes, and that steps are the same whoever prepares them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ucdir.errors import ImageError
from ucdir.images.domains import Domain, load_domain
from ucdir.images.epoch_plan import StepPlan, count_steps, epoch_rows, key_groups, plan_epoch
from ucdir.images.pixel_cache import PixelCache
from ucdir.images.reading import worker_count
from ucdir.images.step_batches import StepBatch, batches

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


# Who makes which views


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (2, 1), (2, 3), (3, 2)])
def test_processes_share_what_one_would_do(count: int, parts: int) -> None:
    """Every process has the plan of one alone, and the shares together are all of its views, each once."""
    groups = key_groups(2, count)
    alone = plan_epoch([50, 31], 18, (7, 3), parts, groups)
    shares = [plan_epoch([50, 31], 18, (7, 3), parts, groups, rank, count) for rank in range(count)]
    for step, *mine in zip(alone, *shares, strict=True):
        for part, *own in zip(step, *mine, strict=True):
            places = list(range(2 * 18 // parts))
            assert sorted(part.key_positions) == part.query_positions.tolist() == places
            assert sorted(place for share in own for place in share.query_positions) == places
            assert sorted(place for share in own for place in share.key_positions) == places
            assert all(np.array_equal(a, b) for share in own for a, b in zip(share.image_ids, part.image_ids, strict=True))
            assert own_groups(own, groups // count) == [set(part.key_positions[group::groups]) for group in range(groups)]


def own_groups(shares: list[StepPlan], groups: int) -> list[set[int]]:
    """The sets of places that share statistics, in the order of the groups of one process alone."""
    found = [[set(share.key_positions[group::groups]) for group in range(groups)] for share in shares]
    return [one for groups_of_all in zip(*found, strict=True) for one in groups_of_all]


def test_parts_of_a_step_are_its_images() -> None:
    whole, parted = (plan_epoch([20, 9], 8, (0, 0), parts) for parts in (1, 4))
    for (one,), parts in zip(whole, parted, strict=True):
        for number in range(2):
            assert np.array_equal(one.image_ids[number], np.concatenate([part.image_ids[number] for part in parts]))
        assert [part.first for part in parts] == [0, 2, 4, 6]


@pytest.mark.parametrize(("splits", "count", "groups"), [(2, 1, 2), (1, 4, 4), (2, 8, 8), (4, 2, 4), (3, 2, 4)])
def test_groups_of_keys(splits: int, count: int, groups: int) -> None:
    assert key_groups(splits, count) == groups


# Views


@pytest.fixture
def domains(tmp_path: Path, photo: Callable[..., Image.Image], save: Callable[..., Path]) -> tuple[Domain, Domain]:
    for name, number in (("large", 9), ("small", 5)):
        for seed in range(number):
            save(photo(seed + 100 * number, 40), tmp_path / name / f"{seed}.png")
    return load_domain(tmp_path / "large"), load_domain(tmp_path / "small")


def prepared(
    domains: tuple[Domain, ...],
    seed: tuple[int, ...] = (0, 0),
    workers: int = 2,
    cache: PixelCache | None = None,
    device: torch.device | None = None,
    **shared: Any,
) -> list[StepBatch]:
    plans = plan_epoch([len(domain) for domain in domains], 4, seed, **shared)
    return list(batches(domains, [part for step in plans for part in step], 16, seed, workers, cache=cache, device=device))


def same(one: list[StepBatch], other: list[StepBatch]) -> bool:
    return all(
        torch.equal(a.query_views, b.query_views)
        and torch.equal(a.key_views, b.key_views)
        and all(torch.equal(c, d) for c, d in zip(a.image_ids, b.image_ids, strict=True))
        for a, b in zip(one, other, strict=True)
    )


def test_a_step_holds_all_domains(domains: tuple[Domain, Domain]) -> None:
    steps = prepared(domains)
    assert len(steps) == 2
    for step in steps:
        assert [ids.shape for ids in step.image_ids] == [(4,), (4,)]
        assert all(ids.dtype == torch.int64 for ids in step.image_ids)
        assert step.query_views.shape == step.key_views.shape == (8, 3, 16, 16)
        assert step.query_views.dtype == step.key_views.dtype == torch.uint8
        assert not torch.equal(step.query_views, step.key_views[step.key_positions.argsort()])


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_the_share_of_a_process_is_made_of_the_same_views(domains: tuple[Domain, Domain], device: torch.device | None) -> None:
    alone, *both = (
        prepared(domains, device=device, groups=2, **share) for share in ({}, {"rank": 0, "count": 2}, {"rank": 1, "count": 2})
    )
    for step, *shares in zip(alone, *both, strict=True):
        queries, keys = step.query_views, step.key_views[step.key_positions.argsort()]
        for share in shares:
            for found, wanted in (
                (share.query_views, queries[share.query_positions]),
                (share.key_views, keys[share.key_positions]),
            ):
                assert int((found.int() - wanted.int()).abs().max()) <= (0 if device is None else 1)


def test_parts_of_a_step_are_made_of_the_same_views(domains: tuple[Domain, Domain]) -> None:
    whole, parts = prepared(domains), prepared(domains, parts=2)
    for step, first, second in zip(whole, parts[::2], parts[1::2], strict=True):
        large, small = step.query_views.split(4)
        assert torch.equal(torch.cat([first.query_views[:2], second.query_views[:2]]), large)
        assert torch.equal(torch.cat([first.query_views[2:], second.query_views[2:]]), small)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(domains: tuple[Domain, Domain], workers: int) -> None:
    assert same(prepared(domains), prepared(domains, workers=workers))


def test_a_cache_changes_nothing(domains: tuple[Domain, Domain], tmp_path: Path) -> None:
    """Filled by these very steps, found full, too small for anything; images are smaller, larger and as large as is useful."""
    for number, side in enumerate((20, 41, 42, 43, 300)):
        with Image.open(domains[1].paths[number]) as image:
            image.resize((side, side + 7)).save(domains[1].paths[number])
    plain = prepared(domains)
    for limit in (10**9, 10**9, 0):
        cache = PixelCache(tmp_path, limit)
        assert same(plain, prepared(domains, cache=cache))
        assert same(plain, prepared(domains, cache=cache))


def test_a_device_may_render(domains: tuple[Domain, Domain]) -> None:
    for one, two in zip(prepared(domains), prepared(domains, device=torch.device("cpu")), strict=True):
        for here, there in ((one.query_views, two.query_views), (one.key_views, two.key_views)):
            difference = (here.float() - there.float()).abs()
            assert float(difference.mean()) < 0.05
            assert float(difference.max()) <= 4


def test_views_that_are_kept_stay_as_they_are(domains: tuple[Domain, Domain]) -> None:
    plans = [part for step in plan_epoch([9, 5], 2, (0, 0)) for part in step]
    kept, copies = [], []
    for step in batches(domains, plans, 16, (0, 0), 2):
        kept.append(step.query_views[:1])
        copies.append(kept[-1].clone())
    assert len(kept) == 4
    assert all(torch.equal(one, other) for one, other in zip(kept, copies, strict=True))


def test_another_epoch_has_other_views(domains: tuple[Domain, Domain]) -> None:
    assert not same(prepared(domains), prepared(domains, (0, 1)))
    assert not same(prepared(domains), prepared(domains, (1, 0)))


def test_views_belong_to_their_image_ids(tmp_path: Path, save: Callable[..., Path]) -> None:
    """Plain black, dark, ... images: a view is as bright as jitter allows."""
    for number in range(4):
        save(Image.new("RGB", (20, 20), (60 * number,) * 3), tmp_path / "d" / f"{number}.png")
    for step in prepared((load_domain(tmp_path / "d"),)):
        for image_id, view in zip(step.image_ids[0].tolist(), step.query_views.float(), strict=True):
            assert 0.55 * 60 * image_id - 1 <= float(view.mean()) <= 1.45 * 60 * image_id + 1


def test_classes_are_never_read(domains: tuple[Domain, Domain]) -> None:
    labelled = tuple(Domain(d.name, d.paths, ("x",) * len(d), d.source) for d in domains)
    assert same(prepared(domains), prepared(labelled))


def test_an_unreadable_image_ends_the_steps(domains: tuple[Domain, Domain]) -> None:
    domains[1].paths[0].write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"0\.png"):
        prepared(domains)


def test_steps_may_be_left_half_way(domains: tuple[Domain, Domain]) -> None:
    plans = plan_epoch([9, 5], 2, (0, 0))
    steps = batches(domains, [part for step in plans for part in step], 16, (0, 0), 2)
    next(steps)
    steps.close()


def test_workers() -> None:
    assert worker_count(3) == 3
    assert worker_count(0) >= 1
