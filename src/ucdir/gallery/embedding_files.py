"""Embeddings as files for other tools: an array and a table."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ucdir.errors import ImageError, UsageError
from ucdir.gallery.embedder import ImageEmbedder, OldGallery
from ucdir.gallery.folder import write_rows
from ucdir.gallery.journal import Journal
from ucdir.gallery.update import refuse_empty, update
from ucdir.images.domains import load_domains
from ucdir.progress import Progress
from ucdir.storage import atomic_file, clear_write_errors


@dataclass(frozen=True)
class EmbedResult:
    """What was written: an array (count, dim) of float32 unit rows, and the table of their images."""

    array: Path
    table: Path
    count: int
    dim: int
    unreadable: tuple[ImageError, ...]


def write_embeddings(
    sources: Sequence[str],
    out: Path,
    classes: str,
    split: str | None,
    embedder: ImageEmbedder,
    overwrite: bool,
    progress: Progress,
) -> EmbedResult:
    """Write `out`.npy and `out`.parquet: both, or neither."""
    array, table = (out.with_name(f"{out.name}{suffix}") for suffix in (".npy", ".parquet"))
    for file in (array, table):
        if file.exists() and not overwrite:
            raise UsageError(f"'{file}' exists. Add --overwrite to replace it, or give another --out.")
    model = embedder.encoder
    domains = load_domains(sources, classes=classes, split=split)
    with clear_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp"))
    try:
        journal = Journal(scratch / "journal", model.fingerprint(), model.config.length)
        with progress("embedding", sum(len(domain) for domain in domains)) as advance:
            updated = update(domains, OldGallery.empty(), journal, embedder, advance=advance)
        refuse_empty(updated, domains)
        count = updated.images.num_rows
        with atomic_file(array) as array_draft, atomic_file(table) as table_draft:
            write_rows(array_draft, updated.rows, count, model.config.length)
            pq.write_table(updated.images, table_draft)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return EmbedResult(array, table, count, model.config.length, tuple(error for _, error in updated.unreadable))
