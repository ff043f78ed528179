"""Which files of a source are the images of a data set, of which domain and class, and what differs from what is known."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ucdir.datasets.catalogue import DATASETS, DatasetSpec, DomainSpec, normalised
from ucdir.datasets.source_files import Entry, Listing
from ucdir.errors import UcdirError

SPLITS = ("train", "test")
ReadText = Callable[[Entry], str]


class Picture(NamedTuple):
    """An image of a domain; `split` is that of the list that names it."""

    entry: Entry
    class_name: str
    split: str | None = None


@dataclass(frozen=True)
class FoundDomain:
    """The images of one domain, sorted by place.

    place    the folder or the archive that holds them, for people
    listed   lines of its lists, of all classes; None without lists
    absent   those of the chosen classes that its lists name and the source lacks
    """

    spec: DomainSpec
    place: str
    pictures: tuple[Picture, ...]
    listed: int | None = None
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """Something found that is not as known; `expected` None = at least one."""

    domain: str
    subject: str
    found: int
    expected: int | None
    hint: str = ""

    @property
    def is_absent_class(self) -> bool:
        """Whether a class has no image at all."""
        return self.found == 0 and self.subject.startswith("class ")

    @property
    def is_total(self) -> bool:
        """Whether this is about all images of the domain."""
        return self.subject == "images"

    def __str__(self) -> str:
        expected = "some" if self.expected is None else f"{self.expected:,}"
        return f"{self.domain}: {self.subject}: found {self.found:,}, expected {expected}{self.hint and f' ({self.hint})'}"


def list_names(domain: DomainSpec) -> tuple[str, ...]:
    """The files whose lines name the images of a domain."""
    return tuple(f"{domain.name}_{split}.txt" for split in SPLITS)


def find_domains(listing: Listing, spec: DatasetSpec, read_text: ReadText) -> tuple[FoundDomain, ...]:
    """The domains of a data set found in a source, without those that have neither images nor lists.

    read_text   the content of a text file of the source
    raises      UcdirError if a domain is there twice, or if a list is missing, damaged or present in two versions
    """
    folders = by_domain(listing.images, spec)
    found: list[FoundDomain] = []
    for domain in spec.domains:
        roots = folders[domain.name]
        if len(roots) > 1:
            first, second = (entries[0].place for entries in list(roots.values())[:2])
            raise UcdirError(
                f"domain '{domain.name}' is there twice: '{first}' and '{second}'. Give a --source with one of them."
            )
        entries = next(iter(roots.values()), [])
        if spec.by_lists:
            found += _listed_domain(domain, spec, entries, listing.texts, read_text)
        elif entries:
            named = {normalised(name): name for name in spec.classes}
            pictures = (Picture(entry, named.get(normalised(entry.parts[-2]), entry.parts[-2])) for entry in entries)
            found.append(FoundDomain(domain, _place_of(entries), _sorted(pictures)))
    return tuple(found)


def by_domain(images: Sequence[Entry], spec: DatasetSpec) -> dict[str, dict[tuple[str, ...], list[Entry]]]:
    """Domain -> folder that is called like it and holds one of its classes -> the images in the folders below."""
    names = {normalised(folder): domain.name for domain in spec.domains for folder in (domain.name, *domain.folders)}
    classes = {normalised(name) for name in spec.classes}
    found: dict[str, dict[tuple[str, ...], list[Entry]]] = {domain.name: {} for domain in spec.domains}
    for entry in images:
        root = _root(entry.parts, spec.inner)
        domain = names.get(normalised(root[-1])) if root else None
        if domain is not None:
            found[domain].setdefault(root, []).append(entry)
    return {
        domain: {root: entries for root, entries in roots.items() if not classes or _any_of(classes, entries)}
        for domain, roots in found.items()
    }


def recognise(images: Sequence[Entry]) -> DatasetSpec | None:
    """The known data set with the most domains in a source; None if no set has two."""
    held = [(sum(map(bool, by_domain(images, spec).values())), spec) for spec in DATASETS]
    most, spec = max(held, key=lambda one: one[0])
    return spec if most > 1 else None


def differences(found: Sequence[FoundDomain], spec: DatasetSpec) -> tuple[Difference, ...]:
    """Everything that is not as known: domains, lists, classes, splits, totals."""
    there = {domain.spec.name: domain for domain in found}
    return tuple(
        difference
        for domain in spec.domains
        for difference in (_differences(there[domain.name], spec) if domain.name in there else [_missing(domain)])
    )


# Places


def _root(parts: tuple[str, ...], inner: str) -> tuple[str, ...]:
    """The folder above the class folder of an image, the one called `inner` left out."""
    root = parts[:-2]
    return root[:-1] if inner and len(root) > 1 and root[-1].casefold() == inner else root


def _any_of(classes: set[str], entries: Sequence[Entry]) -> bool:
    return any(normalised(name) in classes for name in {entry.parts[-2] for entry in entries})


def _place_of(entries: Sequence[Entry]) -> str:
    first = entries[0]
    return str(first.archive or first.file.parents[1])


def _sorted(pictures: Iterator[Picture]) -> tuple[Picture, ...]:
    return tuple(sorted(pictures, key=lambda picture: picture.entry.parts))


# Lists


def _listed_domain(
    domain: DomainSpec, spec: DatasetSpec, entries: Sequence[Entry], texts: Sequence[Entry], read_text: ReadText
) -> Iterator[FoundDomain]:
    """The images that the lists of a domain name; nothing if there are neither images nor lists."""
    files = {name: [text for text in texts if text.parts[-1].lower() == name] for name in list_names(domain)}
    if not entries and not any(files.values()):
        return
    lacking = [name for name, copies in files.items() if not copies]
    if lacking:
        raise UcdirError(
            f"domain '{domain.name}': found its images but not {' and '.join(lacking)}, which list the valid ones "
            f"(the folders also hold duplicates). Put them into --source; ucdir data info {spec.name} says where they are."
        )
    there = {entry.parts[-2:]: entry for entry in entries}
    by_split = zip(SPLITS, files.values(), strict=True)
    lines = [(key, split) for split, copies in by_split for key in _read_list(copies, domain, read_text)]
    chosen = {key: split for key, split in lines if not spec.classes or key[0] in spec.classes}
    pictures = (Picture(there[key], key[0], split) for key, split in chosen.items() if key in there)
    absent = tuple("/".join(key) for key in chosen if key not in there)
    place = _place_of(entries) if entries else "nowhere"
    yield FoundDomain(domain, place, _sorted(pictures), len(lines), absent)


def _read_list(files: Sequence[Entry], domain: DomainSpec, read_text: ReadText) -> list[tuple[str, ...]]:
    """(class, file) of each line of a list; copies of a list must say the same."""
    texts = [read_text(file) for file in files]
    if len(set(texts)) > 1:
        raise UcdirError(
            f"'{files[0].place}' and '{files[1].place}' differ: two versions of one list. Keep the one of the cleaned data set."
        )
    lines = [line.strip() for line in texts[0].splitlines()]
    return [_read_line(line, number, files[0], domain) for number, line in enumerate(lines, start=1) if line]


def _read_line(line: str, number: int, file: Entry, domain: DomainSpec) -> tuple[str, ...]:
    path, _, label = line.rpartition(" ")
    parts = tuple(path.split("/"))
    if len(parts) != 3 or normalised(parts[0]) != normalised(domain.name) or not all(parts) or not label.isdecimal():
        raise UcdirError(
            f"list '{file.place}' has {line[:80]!r} "
            f"in line {number}; expected '{domain.name}/CLASS/FILE NUMBER'. Download it again."
        )
    return parts[1:]


# Differences


def _missing(domain: DomainSpec) -> Difference:
    wanted = " or ".join(f"'{folder}'" for folder in domain.folders)
    return Difference(domain.name, "images", 0, domain.images, f"there is no folder {wanted} with its classes")


def _differences(found: FoundDomain, spec: DatasetSpec) -> Iterator[Difference]:
    yield from _list_differences(found)
    if not found.pictures:
        yield _missing(found.spec)
        return
    name, known = found.spec.name, found.spec.classes
    counts = Counter(picture.class_name for picture in found.pictures)
    for class_name in sorted({*counts, *spec.classes}):
        count = counts[class_name]
        if spec.classes and class_name not in spec.classes:
            yield Difference(name, f"class '{class_name}'", count, 0, f"no class of {spec.title}")
        elif count == 0 or count != known.get(class_name, count):
            yield Difference(name, f"class '{class_name}'", count, known.get(class_name))
    if not spec.classes and len(counts) != spec.num_classes:
        yield Difference(name, "classes", len(counts), spec.num_classes)
    splits = Counter(picture.split for picture in found.pictures)
    for split, expected in found.spec.splits.items():
        if splits[split] != expected:
            yield Difference(name, f"images of the {split} list", splits[split], expected)
    if len(found.pictures) != (found.spec.images or len(found.pictures)):
        yield Difference(name, "images", len(found.pictures), found.spec.images)


def _list_differences(found: FoundDomain) -> Iterator[Difference]:
    domain = found.spec
    if found.listed is not None and domain.listed is not None and found.listed != domain.listed:
        earlier = found.listed == domain.listed_uncleaned
        hint = (
            "these are the lists before cleaning; take the cleaned ones"
            if earlier
            else "a list is cut off or of another version"
        )
        yield Difference(domain.name, "lines of its lists", found.listed, domain.listed, hint)
    if found.absent:
        hint = f"absent is '{found.absent[0]}'{' and others' if len(found.absent) > 1 else ''}; "
        hint += "the archive is incomplete, or not of the version of the lists (cleaned, uncleaned)"
        yield Difference(
            domain.name, "files that its lists name", len(found.pictures), len(found.pictures) + len(found.absent), hint
        )
