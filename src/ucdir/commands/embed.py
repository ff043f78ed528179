"""`ucdir embed`: write embeddings for other tools."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ucdir.commands.command import command
from ucdir.commands.console import show_json
from ucdir.progress import Progress, no_log, no_progress

if TYPE_CHECKING:
    from ucdir.gallery.embedding_files import EmbedResult


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
) -> "EmbedResult":
    """Write embeddings for other tools: an array, and a table that names the image of each row.

    encoder         Run or encoder folder.
    sources         Folders or .csv/.parquet manifests, one per domain; NAME=DIR sets its name.
    out             Name of the files to write: OUT.npy and OUT.parquet.
    classes         Whether to record the class of each image: auto, folders or none.
    split           Use only the rows of a manifest with this split.
    device          auto, cpu, cuda, cuda:1 or mps.
    precision       auto, float32 or bfloat16.
    batch_size      images per batch
    workers         Threads for reading images; 0 = one per core.
    overwrite       Replace existing files.
    progress, log   report progress; print a line
    as_domain       Domain that all images belong to, as the encoder names it. Default: the one with the name of their folder.
    views           Views per image. 1 is fastest. Default: all views of the encoder.
    rows            Embeddings of the run to use: frozen, centred, smoothed, aligned or tuned. Default: the best it has.

    The table has the columns of a gallery's images.parquet: id, path, domain, sha256, width, height, bytes, times, class.
    """
    from ucdir.gallery.embedder import image_embedder, with_helpers
    from ucdir.gallery.embedding_files import write_embeddings
    from ucdir.model.encoder import Encoder
    from ucdir.model.encoder_folder import chosen_encoder
    from ucdir.model.processes import joined

    with joined() as processes:
        if not processes.is_first:
            progress = no_progress
        model = processes.first(lambda: Encoder.load(chosen_encoder(encoder, rows, log)))
        embedder = image_embedder(model, device, precision, batch_size, workers, processes, as_domain, views)
        return with_helpers(embedder, lambda: write_embeddings(sources, out, classes, split, embedder, overwrite, progress))


def show_files(result: "EmbedResult", json: bool = False) -> None:
    """Print the written files.

    json   Print one JSON document instead of lines.
    """
    if json:
        unreadable = [{"path": error.path, "reason": error.reason} for error in result.unreadable]
        show_json({"array": str(result.array), "table": str(result.table), "count": result.count, "unreadable": unreadable})
        return
    for error in result.unreadable:
        print(f"skipped {error.path}: {error.reason}")
    print(
        f"Wrote {result.array} ({result.count:,} x {result.dim} float32 unit rows) and {result.table} (the image of each row)."
    )


embed_command = command(embed, show_files)
