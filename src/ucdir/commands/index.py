"""`ucdir index`: build a gallery, or update it after its folders have changed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ucdir.commands.command import command
from ucdir.commands.console import show_json
from ucdir.progress import Progress, no_log, no_progress

if TYPE_CHECKING:
    from ucdir.gallery.update import IndexResult


def index(
    encoder: Path,
    sources: Sequence[str] = (),
    out: Path = Path("gallery"),
    classes: str = "auto",
    split: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
    overwrite: bool = False,
    drop: Sequence[str] = (),
    engine: str = "folder",
    export: bool = True,
    progress: Progress = no_progress,
    log: Callable[[str], None] = no_log,
    as_domain: str | None = None,
    views: int | None = None,
    rows: str | None = None,
) -> "IndexResult":
    """Embed folders of images for searching. Run it again after images were added, changed, moved or deleted.

    encoder         Run or encoder folder. Of a run, the label-free epoch is used if there is one, otherwise the last encoder.
    sources         Folders or manifests, one per domain; NAME=DIR sets its name. Default: those of the gallery. Other domains
                    of the gallery stay unchanged.
    out             Gallery to create or update: a folder, or the name of a collection for another engine.
    classes         Whether to record the class of each image: auto, folders or none. Classes are never used to search.
    split           Use only the rows of a manifest with this split.
    device          auto, cpu, cuda, cuda:1 or mps.
    precision       auto, float32 or bfloat16; used for new images only.
    batch_size      images per batch
    workers         Threads for reading images; 0 = one per core.
    overwrite       Delete the gallery first and embed everything.
    drop            Remove this domain from the gallery.
    engine          Storage of the gallery: folder, or milvus:URI.
    export          Also export the encoder, if the extra onnx is installed, so that searching starts without torch.
    progress, log   report progress; print a line
    as_domain       Domain that all images belong to, as the encoder names it. Default: the one with the name of their folder.
    views           Views per new image. 1 is fastest. Default: all views of the encoder.
    rows            Embeddings of the run to use: frozen, centred, smoothed, aligned or tuned. Default: the best it has.
    raises          UcdirError; the gallery is then unchanged, and the next try reuses what was embedded

    The new gallery replaces the old one in one step, so that readers always see a complete gallery. Processes started by
    torchrun divide the images among themselves; the first one writes, and all return the same result.
    """
    from ucdir.gallery.embedder import image_embedder, with_helpers
    from ucdir.gallery.indexing import Wanted, bring_up_to_date, export_once
    from ucdir.gallery.locate import engine_flag, gallery_writer
    from ucdir.model.encoder import Encoder
    from ucdir.model.encoder_folder import chosen_encoder
    from ucdir.model.processes import joined

    with joined() as processes:
        if not processes.is_first:
            progress = no_progress
        folder = processes.first(lambda: chosen_encoder(encoder, rows, log))
        model = processes.first(lambda: Encoder.load(folder))
        embedder = image_embedder(model, device, precision, batch_size, workers, processes, as_domain, views)

        def work() -> "IndexResult":
            wanted = Wanted(folder, sources, classes, split, drop, str(out), engine_flag(engine))
            return bring_up_to_date(gallery_writer(out, engine, overwrite), wanted, embedder, progress, log)

        result = with_helpers(embedder, work)
        if export and processes.is_first:
            export_once(folder, log)
    return result


def show_gallery(result: "IndexResult", out: Path = Path("gallery"), engine: str = "folder", json: bool = False) -> None:
    """Print the changes.

    json   Print one JSON document instead of lines.
    """
    from ucdir.gallery.locate import engine_flag
    from ucdir.report.terminal.index import index_document, index_lines

    if json:
        show_json(index_document(result))
        return
    for line in index_lines(result):
        print(line)
    gallery = f"{out}{engine_flag(engine)}"
    print(f"Next: ucdir search {gallery} QUERY.png    or    ucdir serve {gallery}")


index_command = command(index, show_gallery, optional=["sources"])
