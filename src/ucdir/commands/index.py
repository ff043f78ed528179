"""`ucdir index`: embed collections once, so that they can be searched."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ucdir.data.domain import Domain, load_domains
from ucdir.data.image import open_rgb
from ucdir.errors import ImageError, UcdirError
from ucdir.model.device import choose_device, choose_precision
from ucdir.model.encoder import Encoder
from ucdir.progress import Bars, no_bars
from ucdir.retrieval.embed import embed
from ucdir.retrieval.gallery import Gallery, GalleryImage, check_place, describe, unreadable_entry

CHUNK = 1024


@dataclass(frozen=True)
class IndexResult:
    """What `index` wrote.

    folder      the gallery
    count       images in it
    domains     (name, images in the gallery) in the order given
    unreadable  skipped files, also listed in gallery.json
    """

    folder: Path
    count: int
    domains: tuple[tuple[str, int], ...]
    unreadable: tuple[ImageError, ...]


def index(
    encoder: Path,
    sources: Sequence[str],
    out: Path,
    classes: str = "auto",
    split: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 64,
    workers: int = 0,
    overwrite: bool = False,
    bars: Bars = no_bars,
) -> IndexResult:
    """Embed every readable image of the sources and write the gallery folder `out`, whole or not at all.

    encoder    an encoder folder, or a run folder whose last encoder is taken
    sources    folders or manifests, each PATH or NAME=PATH
    classes    auto, folders or none: only noted beside each image, never used to search
    overwrite  replace an existing gallery; anything else at `out` is never touched
    bars       show progress
    """
    check_place(out, overwrite)
    folder = encoder_folder(encoder)
    model = Encoder.load(folder)
    place = choose_device(device)
    exactness = choose_precision(precision, place)
    domains = load_domains(sources, classes=classes, split=split)
    rows: list[Tensor] = []
    images: list[GalleryImage] = []
    unreadable: list[tuple[str, ImageError]] = []
    with bars("embedding", sum(len(domain) for domain in domains)) as advance:
        for chunk in _chunks(domains):
            embedded = embed(model, chunk.paths, place, exactness, batch_size, workers, advance)
            entries = _describe_all(chunk.subset(embedded.image_ids.tolist()), workers)
            described = [number for number, entry in enumerate(entries) if isinstance(entry, GalleryImage)]
            rows.append(embedded.rows[described])
            images.extend(entry for entry in entries if isinstance(entry, GalleryImage))
            failed = [*embedded.unreadable, *(entry for entry in entries if isinstance(entry, ImageError))]
            unreadable.extend((chunk.name, error) for error in failed)
    if not images:
        first = unreadable[0][1]
        raise UcdirError(
            f"none of the {len(unreadable)} images can be read (the first: '{first.path}': {first.reason}), "
            f"so no gallery was written. Run ucdir check {' '.join(sources)} to see why."
        )
    skipped = [unreadable_entry(error, name) for name, error in unreadable]
    gallery = Gallery.create(out, _finite(torch.cat(rows), folder), images, model.fingerprint(), folder, skipped, overwrite)
    counts = gallery.domains()
    named = tuple((domain.name, counts.get(domain.name, 0)) for domain in domains)
    return IndexResult(out, len(gallery), named, tuple(error for _, error in unreadable))


def encoder_folder(path: Path) -> Path:
    """The encoder folder at `path`: itself, or the last encoder of a run folder; else UcdirError."""
    if (path / "model.safetensors").is_file():
        return path
    if (path / "encoder" / "model.safetensors").is_file():
        return path / "encoder"
    if not path.exists():
        raise UcdirError(f"encoder not found: '{path}'. Give a run folder or an encoder folder that ucdir train wrote.")
    raise UcdirError(
        f"'{path}' is neither a run nor an encoder folder: no model.safetensors in it or in its encoder/. "
        "Give a folder that ucdir train wrote."
    )


def _chunks(domains: Sequence[Domain]) -> Iterator[Domain]:
    """A thousand images of a domain at a time, so that their files are still cached when described."""
    for domain in domains:
        for start in range(0, len(domain), CHUNK):
            yield domain.subset(range(start, min(start + CHUNK, len(domain))))


def _describe_all(domain: Domain, workers: int) -> list[GalleryImage | ImageError]:
    classes = domain.classes or (None,) * len(domain)
    with ThreadPoolExecutor(workers or None) as pool:
        return list(pool.map(_describe, domain.paths, (domain.name,) * len(domain), classes))


def _describe(path: Path, domain: str, class_name: str | None) -> GalleryImage | ImageError:
    try:
        str(path).encode()
        content = path.read_bytes()
        return describe(content, path, domain, class_name, open_rgb(io.BytesIO(content)).size)
    except UnicodeEncodeError:
        return ImageError(ascii(str(path)), "its name is not valid Unicode")
    except OSError as error:
        return ImageError(path, error.strerror or str(error))
    except ImageError as error:
        return ImageError(path, error.reason)


def _finite(rows: Tensor, folder: Path) -> Tensor:
    bad = int((~rows.isfinite().all(dim=1)).sum())
    if bad:
        raise UcdirError(f"encoder '{folder}' gives NaN or infinity for {bad} of {len(rows)} images. Train it again.")
    return rows
