"""The facts of a report on a run, gathered before anything is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ucdir.report.match_tables import FoundGroup, FoundPair
from ucdir.scoring.confusion import Confusion
from ucdir.scoring.directions import EvaluationReport
from ucdir.scoring.projection import Plane

TRAINED, FROZEN = "trained", "frozen"  # rows of the scores, and the encoders that are compared


@dataclass(frozen=True)
class EncoderFact:
    """An encoder folder of the run. `epoch` None = before training, or not known; `same_as` names one with equal weights."""

    kind: str
    folder: str
    epoch: int | None
    fingerprint: str
    same_as: str | None


@dataclass(frozen=True)
class Reproduction:
    """How to run it again, and what it was.

    command      of ucdir; the other commands are worth running on this folder
    settings     TOML text
    start        where the weights came from, and whether labels made them
    when         first and last line of the log, or None
    versions     (name, version) of what made this report
    """

    command: str
    others: tuple[str, ...]
    notes: tuple[str, ...]
    settings: str
    start: str
    labels_said: str
    when: tuple[str, str] | None
    versions: tuple[tuple[str, str], ...]
    encoders: tuple[EncoderFact, ...]


@dataclass(frozen=True)
class DomainFacts:
    """The images of one domain.

    listed      images that the run learned from
    shown       those embedded for this report: there, readable and, of very many, drawn from the seed
    missing     paths of listed images that no longer exist
    skipped     (path, reason) of images that the run left out
    unreadable  (path, reason) of images that were there but cannot be read now
    classes     name -> images, or None without classes
    examples    a few images, drawn from the seed
    """

    name: str
    listed: int
    shown: int
    missing: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    unreadable: tuple[tuple[str, str], ...]
    classes: Mapping[str, int] | None
    examples: tuple[Path, ...]


@dataclass(frozen=True)
class Series:
    """Values over the epochs; None where a line of the log has none, or where a term's weight was 0."""

    section: str
    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Curves:
    """All that metrics.jsonl holds. `chosen` maps last, label-free and oracle to epochs."""

    epochs: tuple[int, ...]
    series: tuple[Series, ...]
    chosen: Mapping[str, int]


@dataclass(frozen=True)
class FoundHit:
    """An answer. `right` None = not known."""

    path: Path
    similarity: float
    right: bool | None


@dataclass(frozen=True)
class ShownQuery:
    """A query, its class if known, a figure in words, and the hits of each encoder that is shown."""

    path: Path
    class_name: str | None
    figure: str
    hits: Mapping[str, tuple[FoundHit, ...]]


@dataclass(frozen=True)
class Pick:
    """Queries picked by one rule."""

    name: str
    rule: str
    queries: tuple[ShownQuery, ...]


@dataclass(frozen=True)
class DirectionFacts:
    """One domain searches another. Confusions by encoder; none without classes."""

    query: str
    gallery: str
    grids: tuple[Pick, ...]
    changes: tuple[Pick, ...]
    confusions: Mapping[str, Confusion]


@dataclass(frozen=True)
class MapPoint:
    """An image on the maps. `label` -1 = no class."""

    domain: int
    label: int
    path: Path


@dataclass(frozen=True)
class MapFacts:
    """The same images on the plane of each encoder."""

    points: tuple[MapPoint, ...]
    planes: Mapping[str, Plane]


@dataclass(frozen=True)
class RunFacts:
    """What can be read of a run now.

    curves       None for a method without epochs
    learned      what the last encoder is called among the scores
    scores       None where classes do not tell; `unscored` says why
    class_names  class id -> name
    groups       what the last encoder finds in common between the domains; none with a single domain or without images
    pairs        the best candidates of every image in every other domain, by the last encoder
    root         folder that contains all images, to shorten their names
    notes        sentences about what is missing or was sampled
    """

    name: str
    again: Reproduction
    domains: tuple[DomainFacts, ...]
    curves: Curves | None
    learned: str
    scores: EvaluationReport | None
    unscored: str
    class_names: tuple[str, ...]
    directions: tuple[DirectionFacts, ...]
    map: MapFacts | None
    groups: tuple[FoundGroup, ...]
    pairs: tuple[FoundPair, ...]
    root: Path
    notes: tuple[str, ...]
