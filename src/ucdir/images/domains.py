"""Domains: the images of one style, read from a folder or a manifest, and the classes they share by name."""

import csv
import difflib
import heapq
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ucdir.errors import UcdirError, UsageError
from ucdir.images.walking import subfolders, walk

WEB_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".avif"})
OTHER_SUFFIXES = frozenset({".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"})
IMAGE_SUFFIXES = WEB_SUFFIXES | OTHER_SUFFIXES
MANIFEST_SUFFIXES = (".csv", ".parquet")
CLASS_RULES = ("auto", "folders", "none")
SPLIT_WORDS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})
UNSAFE_CHARACTERS = frozenset('/\\:*?"<>|')
NUM_EXAMPLES = 5


@dataclass(frozen=True)
class IgnoredFiles:
    """What a scan passed over. A hidden folder counts once, a folder linked twice counts once as foreign."""

    hidden: int = 0
    foreign: int = 0
    examples: tuple[str, ...] = ()  # a few names, relative to the folder that was scanned


@dataclass(frozen=True)
class Domain:
    """One visual style: a name and its images.

    name      also used in file names
    paths     M images; the row of a path is its image id for the whole run
    classes   M class names, or None when the domain is unlabelled; a None element is an image without a class
    source    the folder or the manifest the images come from
    ignored   hidden and foreign files found among the images
    """

    name: str
    paths: tuple[Path, ...]
    classes: tuple[str | None, ...] | None
    source: Path
    ignored: IgnoredFiles = IgnoredFiles()

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, rows: Sequence[int]) -> "Domain":
        """The same domain with only these images, in this order; ids start at 0 again."""
        classes = None if self.classes is None else tuple(self.classes[row] for row in rows)
        return replace(self, paths=tuple(self.paths[row] for row in rows), classes=classes)

    def without_classes(self) -> "Domain":
        """The same images, unlabelled."""
        return replace(self, classes=None)


def load_domains(sources: Sequence[str], classes: str = "auto", split: str | None = None) -> tuple[Domain, ...]:
    """Load one domain per source, each written PATH or NAME=PATH.

    Raises UsageError when two domains have one name or one source, and what `load_domain` raises.
    """
    named = [_name_and_path(source) for source in sources]
    _refuse_repeated(named)
    return tuple(load_domain(path, name, classes, split) for name, path in named)


def load_domain(source: Path, name: str | None = None, classes: str = "auto", split: str | None = None) -> Domain:
    """Load the images below a folder, sorted by path, or those of a .csv or .parquet manifest, in its order.

    name      default: the name of the folder, or of the manifest without its suffix
    classes   "auto": the folder of an image names its class if all images are equally deep and there are
              at least two such names (train and test do not count); otherwise the domain is unlabelled.
              "folders": that folder names it, always. "none": unlabelled.
              For a manifest "auto" reads its `class` column
    split     keep the images of a top-level folder of this name, or the manifest rows whose `split` it is
    raises    UsageError for a wrong argument, UcdirError for a folder or manifest without usable images
    """
    if classes not in CLASS_RULES:
        raise UsageError(f"classes='{classes}' is unknown. Use one of: {', '.join(CLASS_RULES)}.")
    source = _expand(source)
    name = _default_name(source) if name is None else name
    is_folder = os.path.isdir(source)  # noqa: PTH112 (False, not an error, where looking is not allowed)
    if not is_folder and not (source.suffix.lower() in MANIFEST_SUFFIXES and os.path.isfile(source)):  # noqa: PTH113
        raise _no_such_source(source, name)
    load = _load_folder if is_folder else _load_manifest
    return load(source, _checked_name(name, source), classes, split)


def class_ids(domains: Sequence[Domain]) -> tuple[tuple[str, ...], tuple[np.ndarray, ...]]:
    """Number the classes of all domains by name.

    returns   all class names sorted, and for each domain (M,) int64 indices into them; -1 = no class
    """
    names = sorted({name for domain in domains for name in domain.classes or () if name is not None})
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(names)}
    numbers[None] = -1
    ids = (np.array([numbers[name] for name in domain.classes or [None] * len(domain)], dtype=np.int64) for domain in domains)
    return tuple(names), tuple(ids)


# Sources and names


def _expand(path: Path | str) -> Path:
    path = Path(path)
    return path.expanduser() if str(path).startswith("~") else path


def split_name(text: str, what: str = "path") -> tuple[str | None, str]:
    """Split NAME=PATH; text that exists as a path, or has a slash before the '=', is a path without a name.

    what    for the error: what is named
    """
    name, equals, path = text.partition("=")
    if not equals or "/" in name or os.sep in name or os.path.lexists(_expand(text)):
        return None, text
    if not name or not path:
        raise UsageError(f"'{text}' has no name or no {what} next to the '='. Write NAME={what.upper()}.")
    return name, path


def _name_and_path(source: str) -> tuple[str, Path]:
    name, text = split_name(str(source))
    path = _expand(text)
    return name or _default_name(path), path


def _default_name(source: Path) -> str:
    last = Path(os.path.abspath(source))  # noqa: PTH100 (keeps the name of a link, resolve() would not)
    return last.stem if last.suffix.lower() in MANIFEST_SUFFIXES and not os.path.isdir(last) else last.name  # noqa: PTH112


def _checked_name(name: str, source: Path) -> str:
    name = unicodedata.normalize("NFC", name)
    unsafe = [c for c in name if c in UNSAFE_CHARACTERS or not c.isprintable()]
    if unsafe or not name or name != name.strip() or name.startswith(".") or len(name.encode()) > 100:
        raise UsageError(
            f"{name!r} cannot be the name of a domain, because it becomes part of file names: "
            f'at most 100 bytes, no / \\ : * ? " < > |, no dot or space in front. Write NAME={source}.'
        )
    return name


def _refuse_repeated(named: Sequence[tuple[str, Path]]) -> None:
    by_name: dict[str, Path] = {}
    by_place: dict[str, Path] = {}
    for name, path in named:
        place = os.path.realpath(path)
        if place in by_place:
            raise UsageError(f"'{path}' and '{by_place[place]}' are the same place. Give each domain once.")
        if name.casefold() in by_name:
            other = by_name[name.casefold()]
            raise UsageError(f"'{other}' and '{path}' would both be domain '{name}'. Name them: NAME={other} OTHER={path}.")
        by_place[place] = by_name[name.casefold()] = path


def _no_such_source(source: Path, name: str) -> UsageError:
    wanted = "Give a folder of images or a .csv or .parquet manifest."
    if os.path.exists(source):  # noqa: PTH110
        return UsageError(f"domain '{name}': '{source}' is a file but not a manifest. {wanted}")
    try:
        siblings = os.listdir(source.parent)  # noqa: PTH208 (names, not paths)
    except OSError:
        siblings = []
    near = difflib.get_close_matches(source.name, siblings, n=1)
    hint = f"Did you mean '{source.parent / near[0]}'?" if near else wanted
    return UsageError(f"domain '{name}': '{source}' does not exist. {hint}")


# Folders


def _load_folder(source: Path, name: str, classes: str, split: str | None) -> Domain:
    root = source if split is None else _split_folder(source, name, split)
    found, ignored = _scan(root)
    if not found:
        raise _no_images(root, name, ignored)
    paths = tuple(root / relative for relative in found)
    return Domain(name, paths, _folder_classes(found, classes, name), source, ignored)


def _split_folder(source: Path, name: str, split: str) -> Path:
    folders = subfolders(source)
    if split not in folders:
        found = ", ".join(folders[:10]) or "no folders"
        raise UsageError(f"domain '{name}' has no split '{split}': '{source}' has {found}. Name one of its folders.")
    return source / split


def _no_images(root: Path, name: str, ignored: IgnoredFiles) -> UcdirError:
    return UcdirError(
        f"domain '{name}' has no images: looked for .jpg .jpeg .png .webp .gif .bmp .tif .avif ... "
        f"under {root} (0 of {ignored.hidden + ignored.foreign} files). Give the folder that holds them."
    )


def _scan(root: Path) -> tuple[list[str], IgnoredFiles]:
    """Relative posix paths of all images below `root`, sorted."""
    images: list[str] = []
    hidden: list[str] = []
    foreign: list[str] = []
    for relative, kind in walk(root):
        if kind == "hidden":
            hidden.append(relative)
        elif kind in ("file", "not a file") and _suffix(relative) in IMAGE_SUFFIXES:
            images.append(relative)
        else:
            foreign.append(relative)
    examples = tuple(heapq.nsmallest(NUM_EXAMPLES, hidden + foreign))
    return sorted(images), IgnoredFiles(len(hidden), len(foreign), examples)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (ten times faster than a Path)


def _folder_classes(found: Sequence[str], rule: str, name: str) -> tuple[str | None, ...] | None:
    """Class names of the relative paths `found` under `rule`, or None."""
    if rule == "none":
        return None
    folders = [PurePosixPath(relative).parent for relative in found]
    names = tuple(unicodedata.normalize("NFC", folder.name) for folder in folders)
    if rule == "folders":
        if "" in names:
            lost = found[names.index("")]
            raise UsageError(
                f"--classes folders: '{lost}' of domain '{name}' is not in a class folder. "
                f"Move it into one, or use --classes none."
            )
        return names
    depths = {len(folder.parts) for folder in folders}
    says_something = len(set(names)) > 1 and not {n.lower() for n in names} <= SPLIT_WORDS
    return names if len(depths) == 1 and depths != {0} and says_something else None


# Manifests


def _load_manifest(source: Path, name: str, classes: str, split: str | None) -> Domain:
    table = _read_csv(source) if source.suffix.lower() == ".csv" else _read_parquet(source)
    if "path" not in table:
        columns = ", ".join(table) or "none"
        raise UcdirError(f"manifest '{source}' has no column 'path' (found: {columns}). Name the column path.")
    rows = _rows_of_split(table, split, source)
    if not rows:
        raise UcdirError(f"manifest '{source}' lists no images. Add rows with a path.")
    listed = [table["path"][row] for row in rows]
    if None in listed:
        raise UcdirError(f"manifest '{source}' has an empty path in row {rows[listed.index(None)] + 1}. Fill it in.")
    texts = [str(path) for path in listed]
    paths = tuple(source.parent / text for text in texts)
    _refuse_duplicates(paths, source)
    _refuse_absent(paths, source)
    if classes == "folders":
        return Domain(name, paths, tuple(unicodedata.normalize("NFC", path.parent.name) for path in paths), source)
    labels = [table["class"][row] for row in rows] if classes == "auto" and "class" in table else []
    named = any(label is not None for label in labels)
    composed = tuple(label and unicodedata.normalize("NFC", label) for label in labels)
    return Domain(name, paths, composed if named else None, source)


Table = dict[str, list[str | None]]


def _read_csv(source: Path) -> Table:
    try:
        with source.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, strict=True)
            columns = [column.strip() for column in next(reader, [])]
            rows = [row for row in reader if row]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise _bad_manifest(source, error) from error
    for number, row in enumerate(rows, start=1):
        if len(row) > len(columns):
            raise UcdirError(
                f"manifest '{source}' has {len(row)} fields in row {number} but {len(columns)} columns. "
                f'Put fields with a comma into "quotes".'
            )
    return {column: [_cell(row[place]) if place < len(row) else None for row in rows] for place, column in enumerate(columns)}


def _read_parquet(source: Path) -> Table:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            names = [name for name in file.schema_arrow.names if name in ("path", "class", "split")]
            if "path" not in names:
                return {name: [] for name in file.schema_arrow.names}
            table = file.read(columns=names)
    except (pyarrow.ArrowException, OSError) as error:
        raise _bad_manifest(source, error) from error
    return {name: [_cell(value) for value in table.column(name).to_pylist()] for name in names}


def _cell(value: Any) -> str | None:
    """The text of one cell; empty, null and NaN are None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def _bad_manifest(source: Path, error: Exception) -> UcdirError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UcdirError(f"cannot read manifest '{source}': {reason}. Save it as UTF-8 .csv or as .parquet.")


def _rows_of_split(table: Table, split: str | None, source: Path) -> list[int]:
    rows = range(len(table["path"]))
    if split is None:
        return list(rows)
    if "split" not in table:
        raise UsageError(f"manifest '{source}' has no column 'split' (found: {', '.join(table)}). Leave out --split.")
    kept = [row for row in rows if table["split"][row] == split]
    if not kept:
        found = ", ".join(sorted({str(value) for value in table["split"]})[:10]) or "none"
        raise UsageError(f"manifest '{source}' has no split '{split}' (found: {found}). Use one of these.")
    return kept


def _refuse_duplicates(paths: Iterable[Path], source: Path) -> None:
    counts = Counter(os.path.normpath(path) for path in paths)
    twice = [path for path, count in counts.items() if count > 1]
    if twice:
        raise UcdirError(f"manifest '{source}' lists {_first_three(twice)} more than once. Keep each path once.")


def _refuse_absent(paths: Iterable[Path], source: Path) -> None:
    absent = [str(path) for path in paths if not os.path.exists(path)]  # noqa: PTH110 (100,000 times)
    if absent:
        raise UcdirError(
            f"manifest '{source}' lists {_first_three(absent)} that do not exist. "
            f"Paths are relative to the folder of the manifest."
        )


def _first_three(paths: Sequence[str]) -> str:
    shown = ", ".join(f"'{path}'" for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    return f"{len(paths)} {'path' if len(paths) == 1 else 'paths'} ({shown})"
