"""Images that are kept from training, drawn by their names."""

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from ucdir.errors import UcdirError, UsageError
from ucdir.images.domains import Domain, load_domains
from ucdir.storage import write_text

HELD_OUT = 5  # one image in this many is held out, if the data set has no split of its own
TRAIN, TEST = "train", "test"


def split_source(domain: Domain, folder: Path) -> str:
    """NAME=MANIFEST of a domain with the splits train and test: its own where it has them, or one drawn into `folder`.

    Raises UsageError when nothing, or all, would be held out, or when `folder` holds a split of other images.
    """
    own = f"{domain.name}={domain.source}"
    if domain.source.is_file() and _has_splits(own):
        return own
    sides = [TEST if _is_held_out(path, domain) else TRAIN for path in domain.paths]
    if len(set(sides)) < 2:
        raise UsageError(
            f"of the {len(domain)} images of domain '{domain.name}' {sides.count(TEST)} would be held out (one in {HELD_OUT}, "
            "chosen by a hash of its name). Use more images, or a manifest with a 'split' column."
        )
    classes = domain.classes or [None] * len(domain)
    rows = [(path.absolute(), name or "", side) for path, name, side in zip(domain.paths, classes, sides, strict=True)]
    return manifest_source(domain.name, ("path", "class", "split"), rows, folder)


def manifest_source(name: str, columns: Sequence[str], rows: Iterable[Sequence[object]], folder: Path) -> str:
    """NAME=MANIFEST of a part of the domain `name`, written to `folder`; UsageError when another part is there already."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([columns, *rows])
    file = folder / f"{name}.csv"
    if file.is_file() and file.read_text(encoding="utf-8") != table.getvalue():
        raise UsageError(f"the images of domain '{name}' differ from those listed in '{file}'. Give another --out.")
    try:
        write_text(file, table.getvalue())
    except UnicodeEncodeError as error:
        raise UcdirError(f"a file name in domain '{name}' is not UTF-8. Rename it.") from error
    return f"{name}={file}"


def steady_name(path: Path, domain: Domain) -> str:
    """A name that does not depend on where the data is: the path within the folder, or its last two parts in a manifest."""
    return str(path.relative_to(domain.source)) if domain.source.is_dir() else "/".join(path.parts[-2:])


def _has_splits(source: str) -> bool:
    try:
        return all(load_domains([source], classes="none", split=split) for split in (TRAIN, TEST))
    except UcdirError:
        return False


def _is_held_out(path: Path, domain: Domain) -> bool:
    """By the name of the image alone: the same on every machine, and images that are added later move no other."""
    name = steady_name(path, domain).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) % HELD_OUT == 0
