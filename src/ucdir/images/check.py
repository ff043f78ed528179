"""What is in the folders before anything is learned: unreadable files, odd ones, duplicates, classes."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ucdir.errors import ImageError
from ucdir.images.domains import Domain, IgnoredFiles
from ucdir.images.opening import decode
from ucdir.images.reading import worker_count

TINY_SIDE = 32  # pixels
LONG_ASPECT = 4.0
HUGE_PIXELS = 50_000_000
FORMATS_OF_SUFFIX = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", "MPO")),
    **dict.fromkeys((".bmp", ".dib"), ("BMP", "DIB")),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF",)),
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), ("JPEG2000",)),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), ("PPM",)),
    ".png": ("PNG",),
    ".webp": ("WEBP",),
    ".gif": ("GIF",),
    ".avif": ("AVIF",),
}

THUMBNAIL = 32  # side of the grey thumbnail kept of each image
BLANK_DEVIATION = 1.0  # grey levels; a thumbnail that varies less shows nothing
GREY_DIFFERENCE = 3.0  # mean difference of the colour channels below which an image counts as grey
NUM_BANDS = 6  # pairs that differ in fewer hash bits than this always meet in a band
MAX_HASH_DIFFERENCE = 10  # bits of 63
MAX_BAND_GROUP = 400  # larger groups are compared along a line instead of all with all
LINE_REACH = 24
MIN_CORRELATION = 0.985  # of two thumbnails; copies measured above 0.993, different guitar drawings below 0.97
PAIRS_AT_ONCE = 20_000
IMAGES_AT_ONCE = 256

Problem = Literal["tiny", "long", "huge"]


@dataclass(frozen=True)
class WrongSuffix:
    """A file whose content is of another format than its suffix says."""

    path: Path
    found: str


@dataclass(frozen=True)
class OddSize:
    """tiny: a side under 32 px; long: one side over 4 times the other; huge: over 50 million pixels."""

    path: Path
    width: int
    height: int
    problem: Problem


@dataclass(frozen=True)
class Sizes:
    """(width, height) in pixels of the image with the fewest and the most pixels, and the two medians."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


@dataclass(frozen=True)
class DomainCheck:
    """What was found in one domain.

    class_counts   images per class name, sorted by name; None when the domain is unlabelled
    without_class  images of a labelled domain that have no class
    sizes          None when no image can be read
    blank          images of one single tone
    grey_share     share of the readable images without colour, 0..1
    """

    name: str
    source: Path
    num_images: int
    class_counts: dict[str, int] | None
    without_class: int
    ignored: IgnoredFiles
    unreadable: tuple[ImageError, ...]
    wrong_suffix: tuple[WrongSuffix, ...]
    odd_sizes: tuple[OddSize, ...]
    blank: tuple[Path, ...]
    sizes: Sizes | None
    grey_share: float

    @property
    def num_readable(self) -> int:
        return self.num_images - len(self.unreadable)


@dataclass(frozen=True)
class Member:
    """One image of a group of duplicates."""

    domain: str
    path: Path


@dataclass(frozen=True)
class DuplicateGroup:
    """Two or more images that show the same."""

    members: tuple[Member, ...]

    @property
    def across(self) -> bool:
        """Whether the group joins two or more domains."""
        return len({member.domain for member in self.members}) > 1


@dataclass(frozen=True)
class ClassCheck:
    """How the class names of the labelled domains fit together.

    shared      names that every labelled domain has
    partial     the other names -> the domains that have them
    near_names  names that differ only in case, spaces, punctuation or a final s, so do not match
    """

    shared: tuple[str, ...]
    partial: dict[str, tuple[str, ...]]
    near_names: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class CheckReport:
    """What `check_domains` found.

    exact_duplicates  groups of files with the same bytes
    near_duplicates   groups of different files that show the same picture (re-encoded, resized, brightened);
                      of files with the same bytes only the first takes part
    """

    domains: tuple[DomainCheck, ...]
    classes: ClassCheck
    exact_duplicates: tuple[DuplicateGroup, ...]
    near_duplicates: tuple[DuplicateGroup, ...]


@dataclass(frozen=True)
class Glance:
    """What is kept of one readable image."""

    width: int
    height: int
    format: str
    grey: bool
    digest: bytes  # of the file
    thumbnail: bytes  # 32 x 32 grey


def check_domains(domains: Sequence[Domain], advance: Callable[[int], None] | None = None, workers: int = 0) -> CheckReport:
    """Decode every image of the domains once and report what is odd about them; nothing is changed.

    advance   called with the number of images just finished
    workers   threads that decode, 0 = one per core

    Near duplicates are copies of the whole picture. A mirrored or noticeably cropped copy is not found.
    """
    glances = [list(_look(domain.paths, advance, workers)) for domain in domains]
    members, readable = [], []
    for domain, seen in zip(domains, glances, strict=True):
        for path, glance in zip(domain.paths, seen, strict=True):
            if isinstance(glance, Glance):
                members.append(Member(domain.name, path))
                readable.append(glance)
    exact = _same_bytes(readable)
    first = np.array(sorted({group[0] for group in exact}), dtype=np.int64)
    near = [[int(first[row]) for row in group] for group in _same_picture([readable[row] for row in first])]
    return CheckReport(
        domains=tuple(_check_domain(*pair) for pair in zip(domains, glances, strict=True)),
        classes=check_classes(domains),
        exact_duplicates=_groups(exact, members),
        near_duplicates=_groups(near, members),
    )


def check_classes(domains: Sequence[Domain]) -> ClassCheck:
    """Compare the class names of the domains that have classes."""
    owners: dict[str, list[str]] = defaultdict(list)
    labelled = [domain for domain in domains if domain.classes is not None]
    for domain in labelled:
        for name in sorted({name for name in domain.classes or () if name is not None}):
            owners[name].append(domain.name)
    shared = tuple(sorted(name for name, names in owners.items() if len(names) == len(labelled)))
    partial = {name: tuple(owners[name]) for name in sorted(owners) if name not in set(shared)}
    similar: dict[str, list[str]] = defaultdict(list)
    for name in sorted(owners):
        similar[_loose(name)].append(name)
    return ClassCheck(shared, partial, tuple(tuple(names) for names in similar.values() if len(names) > 1))


def _loose(name: str) -> str:
    letters = "".join(letter for letter in name.casefold() if letter.isalnum())
    return letters.removesuffix("s") or name


# One domain


def _look(paths: Sequence[Path], advance: Callable[[int], None] | None, workers: int) -> Iterator[Glance | ImageError]:
    with ThreadPoolExecutor(worker_count(workers)) as pool:
        for start in range(0, len(paths), IMAGES_AT_ONCE):
            for glance in pool.map(_glance, paths[start : start + IMAGES_AT_ONCE]):
                if advance:
                    advance(1)
                yield glance


def _glance(path: Path) -> Glance | ImageError:
    try:
        image = decode(path)
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "blake2b").digest()[:16]
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(path, error.strerror or "cannot be read")
    small = image.pixels.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.HAMMING, reducing_gap=4.0)
    channels = np.asarray(small, dtype=np.float32)
    grey = bool((channels.max(axis=2) - channels.min(axis=2)).mean() < GREY_DIFFERENCE)
    return Glance(*image.pixels.size, image.format, grey, digest, small.convert("L").tobytes())


def _check_domain(domain: Domain, glances: Sequence[Glance | ImageError]) -> DomainCheck:
    pairs = list(zip(domain.paths, glances, strict=True))
    readable = [(path, glance) for path, glance in pairs if isinstance(glance, Glance)]
    counts = Counter(name for name in domain.classes or () if name is not None)
    thumbnails = _thumbnails([glance for _, glance in readable])
    blank = thumbnails.std(axis=1) < BLANK_DEVIATION
    return DomainCheck(
        name=domain.name,
        source=domain.source,
        num_images=len(domain),
        class_counts=None if domain.classes is None else dict(sorted(counts.items())),
        without_class=0 if domain.classes is None else len(domain) - counts.total(),
        ignored=domain.ignored,
        unreadable=tuple(glance for glance in glances if isinstance(glance, ImageError)),
        wrong_suffix=tuple(WrongSuffix(path, g.format) for path, g in readable if _suffix_is_wrong(path, g)),
        odd_sizes=tuple(
            OddSize(path, g.width, g.height, problem) for path, g in readable if (problem := _problem(g)) is not None
        ),
        blank=tuple(path for (path, _), is_blank in zip(readable, blank, strict=True) if is_blank),
        sizes=_sizes([glance for _, glance in readable]),
        grey_share=sum(glance.grey for _, glance in readable) / max(len(readable), 1),
    )


def _suffix_is_wrong(path: Path, glance: Glance) -> bool:
    return glance.format not in FORMATS_OF_SUFFIX.get(path.suffix.lower(), ())


def _problem(glance: Glance) -> Problem | None:
    short, long = sorted((glance.width, glance.height))
    if short < TINY_SIDE:
        return "tiny"
    if long > LONG_ASPECT * short:
        return "long"
    return "huge" if short * long > HUGE_PIXELS else None


def _sizes(glances: Sequence[Glance]) -> Sizes | None:
    if not glances:
        return None
    sizes = sorted(((g.width, g.height) for g in glances), key=lambda size: (size[0] * size[1], size))
    width, height = np.median(sizes, axis=0)
    return Sizes(sizes[0], (int(width), int(height)), sizes[-1])


def _thumbnails(glances: Sequence[Glance]) -> np.ndarray:
    """(M, 32 * 32) uint8"""
    joined = b"".join(glance.thumbnail for glance in glances)
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(glances), THUMBNAIL * THUMBNAIL)


# Duplicates. Rows number the readable images of all domains


def _groups(groups: Sequence[Sequence[int]], members: Sequence[Member]) -> tuple[DuplicateGroup, ...]:
    return tuple(DuplicateGroup(tuple(members[row] for row in group)) for group in groups if len(group) > 1)


def _same_bytes(glances: Sequence[Glance]) -> list[list[int]]:
    """Rows with the same file content, groups of one included."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, glance in enumerate(glances):
        groups[glance.digest].append(row)
    return list(groups.values())


def _same_picture(glances: Sequence[Glance]) -> list[list[int]]:
    """Rows that show the same picture, joined along confirmed pairs; blank images take no part."""
    thumbnails = _thumbnails(glances)
    seen = np.flatnonzero(thumbnails.std(axis=1) >= BLANK_DEVIATION)
    thumbnails = thumbnails[seen]
    pairs = _candidates(perceptual_hash(thumbnails))
    chunks = (pairs[start : start + PAIRS_AT_ONCE] for start in range(0, len(pairs), PAIRS_AT_ONCE))
    confirmed = [chunk[_correlation(thumbnails, chunk) >= MIN_CORRELATION] for chunk in chunks]
    return [[int(seen[row]) for row in group] for group in _join(np.concatenate([*confirmed, pairs[:0]]))]


def perceptual_hash(thumbnails: np.ndarray) -> np.ndarray:
    """The signs of the 63 lowest frequencies of each thumbnail's cosine transform, without the mean.

    thumbnails  (M, 32 * 32) uint8
    returns     (M,) uint64; copies of a picture differ in few bits
    """
    frequencies = np.arange(8)[:, None]
    waves = np.cos(np.pi * (2 * np.arange(THUMBNAIL) + 1) * frequencies / (2 * THUMBNAIL)).astype(np.float32)
    weights = (1 << np.arange(63, dtype=np.uint64)).astype(np.uint64)
    hashes = np.empty(len(thumbnails), dtype=np.uint64)
    for start in range(0, len(thumbnails), PAIRS_AT_ONCE):
        images = thumbnails[start : start + PAIRS_AT_ONCE].astype(np.float32).reshape(-1, THUMBNAIL, THUMBNAIL)
        spectrum = (waves @ images @ waves.T).reshape(-1, 64)[:, 1:]
        hashes[start : start + PAIRS_AT_ONCE] = np.where(spectrum > 0, weights, np.uint64(0)).sum(axis=1)
    return hashes


def _candidates(hashes: np.ndarray) -> np.ndarray:
    """(P, 2) pairs of rows, smaller first, that agree in one band of bits and differ little elsewhere.

    The bits are cut into bands; only rows with one band in common are compared, never all with all.
    """
    found = [np.empty(0, dtype=np.int64)]
    for band in np.array_split(np.arange(63, dtype=np.uint64), NUM_BANDS):
        mask = np.bitwise_or.reduce(np.uint64(1) << band)
        keys = hashes & mask
        order = np.lexsort((hashes, keys))
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order][:1] + np.uint64(1)))
        for rows in np.split(order, starts[1:]):
            if len(rows) > 1:
                pairs = _close_pairs(hashes, rows)
                found.append(pairs.min(axis=1) * len(hashes) + pairs.max(axis=1))
    codes = np.unique(np.concatenate(found))
    return np.stack([codes // max(len(hashes), 1), codes % max(len(hashes), 1)], axis=1)


def _close_pairs(hashes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(P, 2) pairs among `rows`, sorted by hash, that differ in few bits."""
    if len(rows) <= MAX_BAND_GROUP:
        left, right = np.triu_indices(len(rows), k=1)
    else:
        steps = np.arange(1, LINE_REACH + 1)
        left = np.repeat(np.arange(len(rows)), LINE_REACH)
        right = left + np.tile(steps, len(rows))
        left, right = left[right < len(rows)], right[right < len(rows)]
    close = np.bitwise_count(hashes[rows[left]] ^ hashes[rows[right]]) <= MAX_HASH_DIFFERENCE
    return np.stack([rows[left[close]], rows[right[close]]], axis=1)


def _correlation(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(P,) correlation of the grey values of each pair; the same for any brightness and contrast."""
    left, right = (_centred_unit(thumbnails[pairs[:, side]]) for side in (0, 1))
    correlation: np.ndarray = (left * right).sum(axis=1)
    return correlation


def _centred_unit(rows: np.ndarray) -> np.ndarray:
    centred = rows.astype(np.float32)
    centred -= centred.mean(axis=1, keepdims=True)
    unit: np.ndarray = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit


def _join(pairs: np.ndarray) -> list[list[int]]:
    """Groups of rows connected by pairs, each sorted, in the order of their first row."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while (above := parent.setdefault(row, row)) != row:
            parent[row] = row = parent[above]
        return row

    for left, right in pairs.tolist():
        low, high = sorted((root(left), root(right)))
        parent[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for row in sorted(parent):
        groups[root(row)].append(row)
    return list(groups.values())
