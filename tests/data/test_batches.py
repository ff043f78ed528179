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

from ucdir.data.batches import DomainBatch, Pages, batches, count_steps, epoch_rows, worker_count
from ucdir.data.cache import PixelCache
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


def prepared(
    domains: tuple[Domain, ...], seed: tuple[int, ...] = (0, 0), workers: int = 2, **settings: Any
) -> list[tuple[DomainBatch, ...]]:
    return list(batches(domains, 4, 16, seed, workers, **settings))


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
    plain, other = prepared(domains), prepared(domains, device=torch.device("cpu"))
    for one, two in ((a, b) for s, t in zip(plain, other, strict=True) for a, b in zip(s, t, strict=True)):
        assert torch.equal(one.image_ids, two.image_ids)
        for name in ("query_view", "key_view"):
            difference = (getattr(one, name).float() - getattr(two, name)).abs()
            assert float(difference.mean()) < 0.05
            assert float(difference.max()) <= 4


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_a_share_holds_the_views_that_all_would_hold(domains: tuple[Domain, Domain], device: torch.device | None) -> None:
    """Query views of some images and key views of others: what two processes render is together what one would."""
    everything = prepared(domains, device=device)
    shares = (lambda step: np.array([1, 2, 5])), (lambda step: np.array([0, 3, 4, 6, 7][step:]))
    for step, (all_of, some) in enumerate(
        zip(everything, prepared(domains, device=device, query_share=shares[0], key_share=shares[1]), strict=True)
    ):
        for name, share in zip(("query_view", "key_view"), shares, strict=True):
            views = torch.cat([getattr(part, name) for part in some])
            wanted = torch.cat([getattr(part, name) for part in all_of])[share(step)]
            assert int((views.int() - wanted).abs().max()) <= (0 if device is None else 1)
        assert [len(part.query_view) for part in some] == [2, 1]
        assert all(torch.equal(part.image_ids, one.image_ids) for part, one in zip(some, all_of, strict=True))


def test_views_that_are_kept_stay_as_they_are(domains: tuple[Domain, Domain]) -> None:
    """Memory is taken again only when nobody refers to it."""
    kept, copies = [], []
    for step in batches(domains, 2, 16, (0, 0), 2):
        kept.append(step[0].query_view[:1])
        copies.append(kept[-1].clone())
    assert len(kept) == 4
    assert all(torch.equal(one, other) for one, other in zip(kept, copies, strict=True))


def test_memory_is_taken_again() -> None:
    pages = Pages()
    first = pages.take((2, 3))
    address, tensor = first.ctypes.data, torch.from_numpy(first)
    del first
    second = pages.take((2, 3))
    assert second.ctypes.data != address
    del tensor
    others = [pages.take(shape) for shape in ((3, 2), (2, 3))]
    assert [other.ctypes.data == address for other in others] == [False, True]


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
