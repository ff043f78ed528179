"""The findings of `ucdir check` for the terminal and as one JSON document."""

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from ucdir.images.check import (
    CheckReport,
    ClassCheck,
    DomainCheck,
    DuplicateGroup,
    Member,
    OddSize,
)

NUM_EXAMPLES = 5
NUM_NAMES = 12
PROBLEMS = {
    "tiny": "a side under 32 px",
    "long": "over four times as long as wide",
    "huge": "over 50 megapixels",
}
STOPPING_SHARE = 0.01  # of unreadable images, where training stops by default

Lines = Iterator[tuple[int, str, str]]  # indent, text, style


def check_view(report: CheckReport) -> RenderableType:
    """Each domain, then what concerns several, then a verdict and the next command."""
    lines = [line for domain in report.domains for line in (*_domain(domain), (0, "", ""))]
    lines += [*_classes(report.classes), *_duplicates(report), (0, "", ""), *_verdict(report)]
    return Group(*(_line(*line) for line in lines))


def check_document(report: CheckReport) -> dict[str, Any]:
    """Everything in the report as plain data; paths as text, sizes in pixels.

    domains            [name, source, images, readable, classes {name: images} or null, without_class,
                       ignored {hidden, foreign, examples}, unreadable [path, reason],
                       wrong_suffix [path, found], odd_sizes [path, width, height, problem tiny|long|huge],
                       blank [path], sizes {smallest, median, largest: [width, height]} or null, grey_share]
    classes            {shared [name], partial {name: [domain]}, near_names [[name]]}
    exact_duplicates   [{across, members [domain, path]}], files with the same bytes
    near_duplicates    the same for different files that show the same picture
    """
    return {
        "domains": [_domain_document(domain) for domain in report.domains],
        "classes": {
            "shared": list(report.classes.shared),
            "partial": {name: list(owners) for name, owners in report.classes.partial.items()},
            "near_names": [list(names) for names in report.classes.near_names],
        },
        "exact_duplicates": [_group_document(group) for group in report.exact_duplicates],
        "near_duplicates": [_group_document(group) for group in report.near_duplicates],
    }


def _domain_document(domain: DomainCheck) -> dict[str, Any]:
    sizes = domain.sizes
    return {
        "name": domain.name,
        "source": _text(domain.source),
        "images": domain.num_images,
        "readable": domain.num_readable,
        "classes": domain.class_counts,
        "without_class": domain.without_class,
        "ignored": {
            "hidden": domain.ignored.hidden,
            "foreign": domain.ignored.foreign,
            "examples": [_text(name) for name in domain.ignored.examples],
        },
        "unreadable": [{"path": _text(error.path), "reason": error.reason} for error in domain.unreadable],
        "wrong_suffix": [{"path": _text(file.path), "found": file.found} for file in domain.wrong_suffix],
        "odd_sizes": [
            {"path": _text(file.path), "width": file.width, "height": file.height, "problem": file.problem}
            for file in domain.odd_sizes
        ],
        "blank": [_text(path) for path in domain.blank],
        "sizes": None
        if sizes is None
        else {"smallest": list(sizes.smallest), "median": list(sizes.median), "largest": list(sizes.largest)},
        "grey_share": domain.grey_share,
    }


def _group_document(group: DuplicateGroup) -> dict[str, Any]:
    members = [{"domain": member.domain, "path": _text(member.path)} for member in group.members]
    return {"across": group.across, "members": members}


def _text(path: Path | str) -> str:
    """The path as text that UTF-8 can hold, whatever bytes the file name has."""
    return os.fsencode(path).decode("utf-8", "replace")


# The terminal


def _line(indent: int, text: str, style: str) -> RenderableType:
    return "" if not text else Padding(Text(text, style, overflow="fold"), (0, 0, 0, indent), expand=False)


def _domain(domain: DomainCheck) -> Lines:
    yield 0, f"{domain.name}  {_plain(domain.source)}", "bold"
    yield 2, f"{_count('image', domain.num_images)}, {domain.num_readable:,} readable{_sizes(domain)}", ""
    yield 2, _class_counts(domain), ""
    if ignored := domain.ignored.hidden + domain.ignored.foreign:
        names = ", ".join(_plain(name) for name in domain.ignored.examples[:3])
        kinds = f"{domain.ignored.hidden:,} hidden, {domain.ignored.foreign:,} not images"
        yield 2, f"ignored {kinds}: {names}{' ...' if ignored > 3 else ''}", "dim"
    root = domain.source
    yield from _listing("unreadable", [f"{_below(root, Path(error.path))}: {error.reason}" for error in domain.unreadable])
    yield from _listing("wrong suffix", [f"{_below(root, file.path)} is {file.found}" for file in domain.wrong_suffix])
    yield from _listing("odd size", [_odd_size(root, file) for file in domain.odd_sizes])
    yield from _listing("of one single tone", [_below(root, path) for path in domain.blank])


def _sizes(domain: DomainCheck) -> str:
    if domain.sizes is None:
        return ""
    sizes = (domain.sizes.smallest, domain.sizes.median, domain.sizes.largest)
    smallest, median, largest = (f"{width} × {height}" for width, height in sizes)
    span = f"all {smallest} px" if smallest == largest else f"{smallest} to {largest} px, median {median}"
    return f", {span}, {domain.grey_share:.0%} without colour"


def _class_counts(domain: DomainCheck) -> str:
    if domain.class_counts is None:
        return "no classes (not needed; only scores use them)"
    counts = [f"{_plain(name)} {count:,}" for name, count in domain.class_counts.items()]
    without = f"; {domain.without_class:,} without a class" if domain.without_class else ""
    return f"{_count('class', len(counts))}: {_some(counts)}{without}"


def _odd_size(root: Path, file: OddSize) -> str:
    return f"{_below(root, file.path)}: {file.width} × {file.height}, {PROBLEMS[file.problem]}"


def _plain(path: Path | str) -> str:
    """Text for the terminal: a file name cannot steer it."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in _text(path))


def _below(root: Path, path: Path) -> str:
    folder = root if root.is_dir() else root.parent
    return _plain(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _listing(what: str, entries: Sequence[str], style: str = "yellow") -> Lines:
    """A count, a few examples and how to see the others."""
    if not entries:
        return
    yield 2, f"{len(entries):,} {what}", style
    for entry in entries[:NUM_EXAMPLES]:
        yield 6, entry, ""
    if len(entries) > NUM_EXAMPLES:
        yield 6, f"and {len(entries) - NUM_EXAMPLES:,} more; --json FILE lists all", "dim"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_NAMES:,} more" if len(names) > NUM_NAMES else ""
    return ", ".join(names[:NUM_NAMES]) + more


def _count(noun: str, count: int) -> str:
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def _classes(classes: ClassCheck) -> Lines:
    if not classes.shared and not classes.partial:
        return
    yield 0, "classes across domains", "bold"
    yield 2, f"{len(classes.shared)} in every labelled domain", ""
    if classes.partial:
        owned = [f"{_plain(name)} ({', '.join(owners)})" for name, owners in classes.partial.items()]
        yield 2, f"{len(owned)} not in every one: {_some(owned)}", ""
    for names in classes.near_names:
        quoted = " and ".join(f"'{_plain(name)}'" for name in names)
        yield 2, f"{quoted} do not match; give them one name if they mean the same", "yellow"


def _duplicates(report: CheckReport) -> Lines:
    yield 0, "duplicates", "bold"
    roots = {domain.name: domain.source for domain in report.domains}
    groups = {"the same file": report.exact_duplicates, "the same picture": report.near_duplicates}
    if not any(groups.values()):
        yield 2, "none", ""
    for what, found in groups.items():
        across = [group for group in found if group.across]
        inside = [group for group in found if not group.across]
        yield from _listing(f"× {what} across domains", [_group(group.members, roots) for group in across], "red")
        yield from _listing(f"× {what} within a domain", [_group(group.members, roots) for group in inside])


def _group(members: Sequence[Member], roots: dict[str, Path]) -> str:
    shown = [f"{member.domain}: {_below(roots[member.domain], member.path)}" for member in members[:3]]
    more = f" = {len(members) - 3:,} more" if len(members) > 3 else ""
    return " = ".join(shown) + more


def _verdict(report: CheckReport) -> Lines:
    if any(domain.num_readable == 0 for domain in report.domains):
        return
    total = sum(domain.num_images for domain in report.domains)
    readable = sum(domain.num_readable for domain in report.domains)
    for domain in report.domains:
        if len(domain.unreadable) > STOPPING_SHARE * domain.num_images:
            share = f"{len(domain.unreadable) / domain.num_images:.1%} of the images in '{domain.name}' are unreadable"
            yield 0, f"{share}; training stops above 1%. Repair or remove these files.", "yellow"
    if any(group.across for group in (*report.exact_duplicates, *report.near_duplicates)):
        yield 0, "Pictures that two domains share make scores look better than they are.", "yellow"
    yield (
        0,
        f"{readable:,} of {total:,} images can be used, {_count('finding', _num_findings(report))}.",
        "bold",
    )
    yield 0, f"Next: {_next_command(report.domains)}", ""


def _num_findings(report: CheckReport) -> int:
    single = sum(len(d.unreadable) + len(d.wrong_suffix) + len(d.odd_sizes) + len(d.blank) for d in report.domains)
    groups = len(report.exact_duplicates) + len(report.near_duplicates)
    return single + groups + len(report.classes.near_names)


def _next_command(domains: Iterable[DomainCheck]) -> str:
    sources = [shlex.quote(_source(domain)) for domain in domains]
    if len(sources) < 2:
        return f"ucdir check {sources[0]} OTHER_DIR (learning needs two or more folders)"
    return f"ucdir train {' '.join(sources)} --out run"


def _source(domain: DomainCheck) -> str:
    named = domain.name in (domain.source.name, domain.source.stem)
    return _plain(domain.source) if named else f"{domain.name}={_plain(domain.source)}"
