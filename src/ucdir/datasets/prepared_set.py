"""dataset.json, which `ucdir data prepare` writes next to its manifests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ucdir.datasets.matching import Difference
from ucdir.documents import from_json
from ucdir.errors import UcdirError

DOCUMENT = "dataset.json"
FORMAT_VERSION = 1

Name = Annotated[str, Field(min_length=1, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]


@dataclass(frozen=True)
class DomainEntry:
    """A domain; its manifest is in the same folder."""

    name: Name
    manifest: Name
    images: int = 0


@dataclass(frozen=True)
class PreparedDocument:
    """What is in the file. `differences`: counts that are not as they are known."""

    name: Name
    domains: tuple[DomainEntry, ...]
    pairs: tuple[tuple[Name, Name], ...]
    ks: tuple[Count, ...]
    preset: Name | None
    num_clusters: Count
    differences: tuple[Difference, ...]
    title: str = ""


@dataclass(frozen=True)
class PreparedSet:
    """A prepared data set: manifests by domain, which pairs to compare, at which cut-offs, with which settings.

    differences    how many counts are not as they are known
    """

    name: str
    domains: tuple[tuple[str, Path], ...]
    pairs: tuple[tuple[str, str], ...]
    ks: tuple[int, ...]
    preset: str | None
    num_clusters: int
    differences: int = 0


def load_prepared(folder: Path) -> PreparedSet:
    """Read the dataset.json of a folder that `ucdir data prepare` wrote.

    raises    UcdirError when it is absent, damaged or of a newer version, or when a manifest is gone
    """
    file = folder / DOCUMENT
    again = "Run ucdir data prepare again."
    try:
        document = from_json(PreparedDocument, file.read_text(encoding="utf-8"), FORMAT_VERSION, f"'{file}'")
        found = _prepared(folder, document)
    except FileNotFoundError as error:
        raise UcdirError(f"'{folder}' contains no {DOCUMENT}. Give a folder that ucdir data prepare wrote.") from error
    except OSError as error:
        raise UcdirError(f"cannot read '{file}': {error.strerror or error}. Allow reading it.") from error
    except ValueError as error:
        raise UcdirError(f"'{file}' is damaged: {error}. {again}") from error
    gone = [str(manifest) for _, manifest in found.domains if not manifest.is_file()]
    if gone:
        raise UcdirError(f"'{file}' names the manifest '{gone[0]}', which does not exist. {again}")
    return found


def _prepared(folder: Path, document: PreparedDocument) -> PreparedSet:
    names = [domain.name for domain in document.domains]
    strange = [name for pair in document.pairs for name in pair if name not in names]
    if len(set(names)) < max(len(names), 2) or not document.pairs or strange:
        raise ValueError("it must name two domains or more, each once, and pairs of them")
    domains = tuple((domain.name, folder / domain.manifest) for domain in document.domains)
    differences = len(document.differences)
    return PreparedSet(document.name, domains, document.pairs, document.ks, document.preset, document.num_clusters, differences)
