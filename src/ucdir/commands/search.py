"""`ucdir search`: pictures in, the most similar pictures of a gallery out. Starts without torch where it can."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

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
    """The k gallery images most similar to each query image: exact cosine, equal ones by image id.

    gallery  its folder; for another engine the name of its collection
    query    an image file; or a folder or manifest of them
    k        >= 1; more than the gallery holds gives all of it
    encoder  run or encoder folder, the one that made the gallery; None = the path recorded in the gallery
    domain   look only at the images of this domain of the gallery
    under    look only at the images below this folder, absolute or relative to the folder of each domain
    runtime  auto, torch or onnx, see `load_query_encoder`
    engine   folder or milvus:URI
    expand   hits that a query moves toward before it is answered, see `expansion.expanded`; 0 = none, which is right where one
             very object is looked for; None = what is best for the encoder
    min_confidence  hits that are less sure to be right are left out, from 0 to 1; see `confidence.Confidence`
    as_domain  the domain, among those that the encoder has learned from, to which the queries belong; None = each is recognised
    """
    if k < 1:
        raise UsageError(f"k={k}: expected 1 or more. Give --k 10, say.")
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
            "--min-confidence: the encoder of this gallery has no calibrated confidence. Leave it out, or index with "
            "a run of method align."
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
    """The readable images, their positions in `paths`, and the errors of the others."""
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
