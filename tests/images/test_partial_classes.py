"""Which classes the domains of a pair keep, and the manifests that say so."""

from pathlib import Path

import pytest
from PIL import Image

from ucdir.errors import UsageError
from ucdir.images.domains import load_domain
from ucdir.images.partial_classes import PARTIAL, kept_classes, partial_sources

SEVEN = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")


@pytest.mark.parametrize("seed", range(5))
def test_of_seven_classes(seed: int) -> None:
    """4 of 7 in one domain; 3 shared and 2 private to each."""
    first, second = kept_classes(SEVEN, "half-a", seed)
    assert (len(first), len(second)) == (4, 7)
    assert kept_classes(SEVEN, "half-b", seed) == (second, first)
    first, second = kept_classes(SEVEN, "private", seed)
    assert (len(first & second), len(first - second), len(second - first)) == (3, 2, 2)


@pytest.mark.parametrize("count", [4, 5, 10, 65, 345])
@pytest.mark.parametrize("protocol", PARTIAL)
def test_every_number_of_classes_leaves_some_shared_and_some_out(count: int, protocol: str) -> None:
    names = [f"{number:03}" for number in range(count)]
    first, second = kept_classes(names, protocol, 0)
    assert first & second
    assert first != second
    assert first | second <= set(names)


def test_the_draw_is_that_of_the_seed_whatever_the_order_of_names() -> None:
    assert kept_classes(SEVEN, "private", 1) == kept_classes(SEVEN[::-1], "private", 1)
    assert len({kept_classes(SEVEN, "private", seed) for seed in range(6)}) > 3


def test_too_few_classes() -> None:
    with pytest.raises(UsageError, match="--protocol private needs at least 4 classes, found 3"):
        kept_classes(SEVEN[:3], "private", 0)


def test_manifests_hold_the_kept_classes_and_never_change_silently(tmp_path: Path) -> None:
    for domain in ("photo", "sketch"):
        for name in SEVEN:
            (tmp_path / domain / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / domain / name / "0.png")
    pair = load_domain(tmp_path / "photo"), load_domain(tmp_path / "sketch")
    sources = partial_sources(pair, "half-b", 2, tmp_path / "splits")
    kept = kept_classes(SEVEN, "half-b", 2)
    for (name, source), classes in zip(sources.items(), kept, strict=True):
        assert set(load_domain(Path(source.partition("=")[2])).classes or ()) == classes
        assert source == f"{name}={tmp_path / 'splits' / name}.csv"
    assert partial_sources(pair, "half-b", 2, tmp_path / "splits") == sources
    with pytest.raises(UsageError, match="differ from those listed in"):
        partial_sources(pair, "half-b", 3, tmp_path / "splits")
