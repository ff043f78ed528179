"""`ucdir search`: find the most similar images of a gallery. Starts without torch if the encoder is exported."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ucdir.commands.command import command
from ucdir.commands.console import note, show, show_json
from ucdir.errors import ImageError, UcdirError, UsageError
from ucdir.gallery.ask import SearchOptions, ask
from ucdir.gallery.interface import Where
from ucdir.gallery.locate import FOLDER, gallery_encoder, open_engine
from ucdir.gallery.search_result import QueryHits, SearchResult
from ucdir.images.domains import load_domain
from ucdir.images.evaluation_view import Viewing
from ucdir.images.reading import read_seen
from ucdir.model.confidence import Confidence
from ucdir.model.runtime import Encoded, QueryEncoder, joined
from ucdir.progress import Progress, no_progress
from ucdir.retrieval.expansion import hits_of


def search(
    gallery: Path,
    query: Path,
    k: int = 10,
    encoder: Path | None = None,
    domain: str | None = None,
    under: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
    runtime: str = "auto",
    engine: str = FOLDER,
    progress: Progress = no_progress,
    as_domain: str | None = None,
    expand: int | None = None,
    min_confidence: float = 0.0,
) -> SearchResult:
    """Find the images of a gallery that are most similar to a picture: exact cosine, ties in order of image id.

    gallery          Gallery folder, or the name of a collection for another engine.
    query            Image to search with, or a folder or manifest of them.
    k                Hits per query.
    encoder          Run or encoder folder, if it has moved.
    domain           Search only this domain of the gallery.
    under            Search only images below this folder, absolute or relative to the folder of each domain.
    device           auto, cpu, cuda, cuda:1 or mps.
    precision        auto, float32 or bfloat16.
    batch_size       images per batch
    workers          Threads for reading images; 0 = one per core.
    runtime          auto, torch, or onnx for the file that ucdir export wrote.
    engine           Storage of the gallery: folder, or milvus:URI.
    as_domain        Domain that the queries belong to, as the encoder names it. Default: recognised.
    expand           Move a query toward its N best hits and search again; 0 searches for this exact object. Default: the best
                     number for the encoder.
    min_confidence   Omit hits whose probability of being right is lower than this, from 0 to 1.
    """
    if k < 1:
        raise UsageError(f"k={k}: expected 1 or more. For example: --k 10.")
    if expand is not None and expand < 0:
        raise UsageError(f"expand={expand}: expected 0 or more. Use --expand 0 to search with the unchanged query.")
    opened = open_engine(gallery, engine)
    paths = _query_paths(query)
    encode = gallery_encoder(opened.info, str(gallery), encoder, device, precision, runtime, engine)
    with progress("embedding", len(paths)) as advance:
        encoded, image_ids, unreadable = _embed(encode, paths, as_domain, batch_size, workers, advance)
    if not image_ids:
        raise unreadable[0] if len(paths) == 1 else _no_query(query, unreadable)
    way = SearchOptions(hits_of(encode.rows, expand), encode.confidence, _least(min_confidence, encode.confidence))
    found = ask(opened, _finite(encoded.rows, query), k, Where(domain, under), way)
    answers = zip(image_ids, found.hits, encoded.domains, encoded.is_strange, found.confidence, strict=True)
    queries = tuple(QueryHits(paths[image], hits, name, strange, sure) for image, hits, name, strange, sure in answers)
    return SearchResult(str(gallery), found.searched, queries, unreadable, way.expand)


def _least(wanted: float, confidence: Confidence | None) -> float:
    if not 0 <= wanted <= 1:
        raise UsageError(f"min_confidence={wanted}: expected a number from 0 to 1.")
    if wanted and confidence is None:
        raise UsageError(
            "--min-confidence: the encoder of this gallery has no calibrated confidence. Leave the flag out, or index "
            "with a run of method align."
        )
    return wanted


def _embed(
    encode: QueryEncoder,
    paths: tuple[Path, ...],
    as_domain: str | None,
    batch_size: int,
    workers: int,
    advance: Callable[[int], None],
) -> tuple[Encoded, list[int], tuple[ImageError, ...]]:
    """Return the embeddings of the readable images, their positions in `paths`, and the errors of the others."""
    parts: list[Encoded] = []
    image_ids: list[int] = []
    unreadable: list[ImageError] = []
    step = max(1, batch_size // max(1, len(encode.views)))
    for views in read_seen(paths, Viewing(encode.image_size, encode.views), step, workers):
        if views.image_ids:
            parts.append(encode(views.pixels, (as_domain,) * len(views.image_ids)))
        image_ids += views.image_ids
        unreadable += views.unreadable
        advance(len(views))
    return joined(parts), image_ids, tuple(unreadable)


def _query_paths(query: Path) -> tuple[Path, ...]:
    if query.is_dir() or query.suffix.lower() in (".csv", ".parquet"):
        return load_domain(query, classes="none").paths
    if not os.path.lexists(query):
        raise UcdirError(f"query not found: '{query}'. Give an image file or a folder of images.")
    return (query,)


def _no_query(query: Path, unreadable: tuple[ImageError, ...]) -> UcdirError:
    first = unreadable[0]
    return UcdirError(
        f"none of the {len(unreadable)} query images in '{query}' can be read (the first: '{first.path}': "
        f"{first.reason}). Give images that open."
    )


def _finite(rows: np.ndarray, query: Path) -> np.ndarray:
    if not np.isfinite(rows).all():
        raise UcdirError(f"the embedding of '{query}' is not finite: the encoder gives NaN or infinity. Train it again.")
    return rows


def show_hits(result: SearchResult, k: int = 10, html: Path | None = None, json: bool = False) -> None:
    """Print the hits.

    html   Also write a page with the pictures of the hits.
    json   Print one JSON document instead of a table.
    """
    from ucdir.report.search_page import write_search_page
    from ucdir.report.terminal.hits import hit_document, hit_table

    if json:
        show_json(hit_document(result))
    else:
        show(hit_table(result))
    if k > result.searched:
        note(f"--k {k:,} is more than the {result.searched:,} images of {result.gallery} that were searched.")
    if html is not None:
        write_search_page(result, html)
        note(f"Wrote {html}: open it in a browser.")


search_command = command(search, show_hits)
