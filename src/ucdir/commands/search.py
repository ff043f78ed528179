"""`ucdir search`: pictures in, the most similar pictures of a gallery out."""

import os
from pathlib import Path

import numpy as np
from torch import Tensor

from ucdir.commands.index import encoder_folder
from ucdir.data.domain import load_domain
from ucdir.errors import ImageError, UcdirError, UsageError
from ucdir.model.device import choose_device, choose_precision
from ucdir.model.encoder import Encoder
from ucdir.progress import Bars, no_bars
from ucdir.retrieval.embed import embed
from ucdir.retrieval.gallery import Gallery, Hit, QueryHits, SearchResult
from ucdir.retrieval.search import nearest


def search(
    gallery: Path,
    query: Path,
    k: int = 10,
    encoder: Path | None = None,
    domain: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
    bars: Bars = no_bars,
) -> SearchResult:
    """The k gallery images most similar to each query image: exact cosine, ties in gallery order.

    query    an image file; or a folder or manifest of them
    k        >= 1; more than the gallery holds gives all of it
    encoder  run or encoder folder, the one that made the gallery; None = where the gallery says it lies
    domain   look only at the images of this domain of the gallery
    """
    if k < 1:
        raise UsageError(f"k={k}: expected 1 or more. Give --k 10, say.")
    opened = Gallery.load(gallery)
    candidates = None if domain is None else opened.rows_of(domain)
    paths = _query_paths(query)
    model, place = _gallery_encoder(opened, encoder), choose_device(device)
    with bars("embedding", len(paths)) as advance:
        embedded = embed(model, paths, place, choose_precision(precision, place), batch_size, workers, advance)
    if len(embedded.rows) == 0:
        raise embedded.unreadable[0] if len(paths) == 1 else _no_query(query, embedded.unreadable)
    wanted = None if candidates is None else np.asarray(candidates)
    found = nearest(_finite(embedded.rows, query).cpu().numpy(), opened.embeddings, k, wanted)
    files, domains = opened.images["path"], opened.images["domain"]
    queries = tuple(
        QueryHits(
            paths[image_id],
            tuple(
                Hit(Path(files[row].as_py()), domains[row].as_py(), value, row) for row, value in zip(rows, values, strict=True)
            ),
        )
        for image_id, rows, values in zip(
            embedded.image_ids.tolist(), found.rows.tolist(), found.similarity.tolist(), strict=True
        )
    )
    size = len(opened) if candidates is None else len(candidates)
    return SearchResult(gallery, size, queries, embedded.unreadable)


def _query_paths(query: Path) -> tuple[Path, ...]:
    if query.is_dir() or query.suffix.lower() in (".csv", ".parquet"):
        return load_domain(query, classes="none").paths
    if not os.path.lexists(query):
        raise UcdirError(f"query not found: '{query}'. Give an image file or a folder of images.")
    return (query,)


def _gallery_encoder(gallery: Gallery, encoder: Path | None) -> Encoder:
    recorded = Path(gallery.info.encoder_path)
    if encoder is None and not (recorded / "model.safetensors").is_file():
        raise UcdirError(
            f"the encoder of gallery '{gallery.folder}' is no longer at '{recorded}'. Say where it is now "
            "with --encoder FOLDER."
        )
    folder = encoder_folder(encoder or recorded)
    model = Encoder.load(folder)
    gallery.require_encoder(model.fingerprint(), folder)
    return model


def _no_query(query: Path, unreadable: tuple[ImageError, ...]) -> UcdirError:
    first = unreadable[0]
    return UcdirError(
        f"none of the {len(unreadable)} query images in '{query}' can be read (the first: '{first.path}': "
        f"{first.reason}). "
        "Give images that open."
    )


def _finite(rows: Tensor, query: Path) -> Tensor:
    if not bool(rows.isfinite().all()):
        raise UcdirError(f"the embedding of '{query}' is not finite: the encoder gives NaN or infinity. Train it again.")
    return rows
