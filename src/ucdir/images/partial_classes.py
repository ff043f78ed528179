"""Pairs of domains that do not hold the same classes, as real collections never do: some classes of a data set are left out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ucdir.errors import UsageError
from ucdir.images.domains import Domain
from ucdir.images.held_out import manifest_source

PARTIAL = ("half-a", "half-b", "private")
MIN_CLASSES = 4  # classes that can be drawn from


def kept_classes(names: Sequence[str], protocol: str, seed: int) -> tuple[frozenset[str], frozenset[str]]:
    """The classes that the first and the second domain of a pair keep, drawn by `seed`.

    names     C classes
    protocol  half-a: the first keeps half of them, rounded up (4 of 7), the second all; half-b: the other way round; private:
              3 of 7 are shared, and the rest is dealt out evenly, 2 private to each

    Raises UsageError for fewer than MIN_CLASSES classes.
    """
    if len(names) < MIN_CLASSES:
        raise UsageError(
            f"--protocol {protocol} needs at least {MIN_CLASSES} classes, found {len(names)}. Leave out the protocol."
        )
    drawn = [sorted(names)[place] for place in np.random.default_rng(seed).permutation(len(names))]
    half, shared = (len(names) + 1) // 2, max(1, round(3 * len(names) / 7))
    private = (len(names) - shared) // 2
    if protocol == "half-a":
        return frozenset(drawn[:half]), frozenset(drawn)
    if protocol == "half-b":
        return frozenset(drawn), frozenset(drawn[:half])
    return frozenset(drawn[: shared + private]), frozenset(drawn[:shared] + drawn[shared + private : shared + 2 * private])


def partial_sources(pair: tuple[Domain, Domain], protocol: str, seed: int, folder: Path) -> dict[str, str]:
    """Domain -> NAME=MANIFEST of what `protocol` leaves of a pair of domains; the manifests are written into `folder`."""
    names = sorted({name for domain in pair for name in domain.classes or () if name is not None})
    kept = kept_classes(names, protocol, seed)
    return {domain.name: _source(domain, classes, folder) for domain, classes in zip(pair, kept, strict=True)}


def _source(domain: Domain, kept: frozenset[str], folder: Path) -> str:
    rows = [(path.absolute(), name) for path, name in zip(domain.paths, domain.classes or (), strict=True) if name in kept]
    if not rows:
        raise UsageError(f"domain '{domain.name}' has no image of the randomly chosen classes. Use another number of seeds.")
    return manifest_source(domain.name, ("path", "class"), rows, folder)
