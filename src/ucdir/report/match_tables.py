"""What was found in common, as files: groups.csv and pairs.csv, with one set of columns for every command that writes them."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ucdir.storage import atomic_file

GROUPS, PAIRS = "groups.csv", "pairs.csv"
GROUP_COLUMNS = ("domain", "group", "images", "partner_domain", "partner_group", "certainty", "typical")
PAIR_COLUMNS = ("domain", "path", "other_domain", "rank", "other_path", "similarity", "confidence", "partners")


@dataclass(frozen=True)
class FoundGroup:
    """Images of one domain that look alike.

    number    of the group within its domain, from 1, the largest first
    images    how many
    typical   paths of some, the most typical first
    partners  groups of other domains that correspond, the most certain first: (domain, number, certainty in [0, 1])
    """

    domain: str
    number: int
    images: int
    typical: tuple[Path, ...]
    partners: tuple[tuple[str, int, float], ...]


@dataclass(frozen=True)
class FoundPair:
    """An image and one of its best candidates in another domain.

    confidence  probability in [0, 1] that the two show the same kind of thing
    partners    each is among the best candidates of the other
    """

    domain: str
    path: Path
    other_domain: str
    rank: int
    other_path: Path
    similarity: float
    confidence: float
    partners: bool


def write_groups(file: Path, groups: Sequence[FoundGroup]) -> None:
    """One line for each group and partner; a group without one has a line with these columns empty."""
    _write(file, GROUP_COLUMNS, (line for group in groups for line in _group_lines(group)))


def write_pairs(file: Path, pairs: Sequence[FoundPair]) -> None:
    """One line for each image and candidate."""
    _write(file, PAIR_COLUMNS, map(_pair_line, pairs))


def _group_lines(group: FoundGroup) -> Iterator[tuple[Any, ...]]:
    for domain, number, certainty in group.partners or (("", "", None),):
        said = "" if certainty is None else f"{certainty:.3f}"
        yield group.domain, group.number, group.images, domain, number, said, group.typical[0]


def _pair_line(pair: FoundPair) -> tuple[Any, ...]:
    figures = f"{pair.similarity:.4f}", f"{pair.confidence:.3f}", "yes" if pair.partners else "no"
    return pair.domain, pair.path, pair.other_domain, pair.rank, pair.other_path, *figures


def _write(file: Path, columns: Sequence[str], lines: Iterable[tuple[Any, ...]]) -> None:
    with (
        atomic_file(file) as draft,
        draft.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened,
    ):
        table = csv.writer(opened)
        table.writerow(columns)
        table.writerows(lines)
