"""`ucdir embed`: embeddings for other tools."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ucdir.errors import ImageError, UsageError
from ucdir.gallery.embedder import ImageEmbedder, OldGallery, image_embedder, with_helpers
from ucdir.gallery.folder import write_rows
from ucdir.gallery.journal import Journal
from ucdir.gallery.update import refuse_empty, update
from ucdir.images.domains import load_domains
from ucdir.model.encoder import Encoder
from ucdir.model.encoder_folder import chosen_encoder
from ucdir.model.processes import joined
from ucdir.progress import Progress, no_log, no_progress
from ucdir.storage import atomic_file, clear_write_errors


@dataclass(frozen=True)
class EmbedResult:
    """What `embed` wrote: an array (count, dim) of float32 unit rows, and the table of their images."""

    array: Path
    table: Path
    count: int
    dim: int
    unreadable: tuple[ImageError, ...]


def embed(
    encoder: Path,
    sources: Sequence[str],
    out: Path = Path("embeddings"),
    classes: str = "auto",
    split: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
    overwrite: bool = False,
    progress: Progress = no_progress,
    log: Callable[[str], None] = no_log,
    as_domain: str | None = None,
    views: int | None = None,
    rows: str | None = None,
) -> EmbedResult:
    """Embed every readable image of the sources; write `out`.npy and `out`.parquet, whose rows are the same images.

    as_domain, views, rows   see `index`

    The table has the columns of a gallery's images.parquet: id, path, domain, sha256, width, height, bytes, times, class.
    """
    with joined() as processes:
        if not processes.is_first:
            progress = no_progress
        model = processes.first(lambda: Encoder.load(chosen_encoder(encoder, rows, log)))
        embedder = image_embedder(model, device, precision, batch_size, workers, processes, as_domain, views)
        return with_helpers(embedder, lambda: _embed(sources, out, classes, split, embedder, overwrite, progress))


def _embed(
    sources: Sequence[str],
    out: Path,
    classes: str,
    split: str | None,
    embedder: ImageEmbedder,
    overwrite: bool,
    progress: Progress,
) -> EmbedResult:
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
