"""What `ucdir data` found and what it knows, in lines for people and as JSON documents."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ucdir.datasets.catalogue import DatasetSpec, DomainSpec, RemoteFile
from ucdir.datasets.prepare import Prepared

MAX_LISTED = 20


def prepared_lines(prepared: Prepared) -> Iterator[str]:
    """What was written, from where, and what differs."""
    for domain in prepared.domains:
        how = "unpacked from" if domain.unpacked else "in"
        yield f"{domain.manifest}: {domain.images:,} images of {domain.classes} classes, {how} {domain.place}"
    for difference in prepared.differences[:MAX_LISTED]:
        yield f"not as known: {difference}"
    if len(prepared.differences) > MAX_LISTED:
        yield f"and {len(prepared.differences) - MAX_LISTED:,} more differences; dataset.json lists all"
    count = len(prepared.differences)
    agrees = f"{count} {'difference' if count == 1 else 'differences'} noted" if count else "counts as known"
    yield f"Wrote {prepared.folder}: {prepared.spec.title}, {len(prepared.pairs)} pairs, {agrees}."


def prepared_document(prepared: Prepared) -> dict[str, Any]:
    """Plain data: folder, name, domains [name, manifest, images, classes, place, unpacked], pairs, differences."""
    return {
        "folder": str(prepared.folder),
        "name": prepared.spec.name,
        "domains": [asdict(domain) | {"manifest": str(domain.manifest)} for domain in prepared.domains],
        "pairs": [list(pair) for pair in prepared.pairs],
        "differences": [asdict(difference) for difference in prepared.differences],
    }


def overview_lines(specs: Sequence[DatasetSpec]) -> Iterator[str]:
    """One line for each data set."""
    for spec in specs:
        domains = ", ".join(domain.name for domain in spec.domains)
        yield f"{spec.name:<12} {spec.title}: {spec.num_classes} classes; {domains}"
    yield "Next: ucdir data info NAME"


def info_lines(spec: DatasetSpec) -> Iterator[str]:
    """Where a data set comes from, what may be done with it, what to fetch, how to check it, the next command."""
    yield f"{spec.title} ({spec.name})"
    yield f"  paper    {spec.paper}"
    yield f"  site     {spec.site}"
    yield f"  terms    {spec.licence}"
    yield f"  layout   {spec.layout}"
    yield f"  pairs    {', '.join('-'.join(pair) for pair in spec.pairs)}; k {' '.join(map(str, spec.ks))}"
    yield "  images asserted"
    yield from (f"    {_domain_line(domain)}" for domain in spec.domains)
    yield from (f"  {remark}" for remark in spec.remarks)
    yield "  files"
    yield from (f"    {_file_line(file)}" for file in spec.files)
    source = "--download" if spec.downloadable else "--source FOLDER_WITH_THESE_FILES"
    yield f"Next: ucdir data prepare {spec.name} {source}"


def info_document(spec: DatasetSpec) -> dict[str, Any]:
    """Everything that is known of a data set as plain data; null = not known."""
    return asdict(spec) | {"downloadable": spec.downloadable}


def _domain_line(domain: DomainSpec) -> str:
    total = "total not known" if domain.images is None else f"{domain.images:,}"
    classes = ", ".join(f"{name} {count:,}" for name, count in domain.classes.items())
    return f"{domain.name}: {total}{f' ({classes})' if classes else ''}"


def _file_line(file: RemoteFile) -> str:
    size = "" if file.size is None else f", {file.size:,} bytes"
    known = "" if file.md5 is None else f", MD5 {file.md5}"
    return f"{file.name if file.url is None else file.url}{size}{known}"
