"""What a backbone gives for images, kept on disk, and embeddings of several encoders that share a backbone."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ucdir.embedding.compute import Compute
from ucdir.embedding.domain_members import Members, embed_members
from ucdir.embedding.embed import Embeddings, embed, evaluating
from ucdir.errors import ImageError, UcdirError
from ucdir.images.opening import open_rgb
from ucdir.images.pixel_cache import FEATURES, PixelCache
from ucdir.images.reading import read_ahead
from ucdir.model.device import autocast
from ucdir.model.encoder import Encoder, backbone_digest, save_tensors

VERSION = "2"  # of how features are computed and stored
FILES_PER_BATCH = 64
ROWS_PER_BATCH = 4096
MAX_CACHE_DIVISOR = 4  # of the limit of the cache, at most
MAX_HEADER_BYTES = 1024  # bytes, at most, before the numbers in a file
UNREADABLE = b"unreadable"  # what counts as the content of a file that cannot be read

Advance = Callable[[int], None]


def backbone_features(
    encoder: Encoder,
    paths: Sequence[Path],
    compute: Compute,
    advance: Advance | None = None,
) -> Embeddings:
    """What the backbone of `encoder` makes of the evaluation views: rows (M, feature_dim), not of unit length.

    They are kept in the cache of `compute` for the next time, by the contents of the files, unless a file changes meanwhile.
    """
    place = partial(feature_file, encoder, paths, compute.cache, compute.workers, "evaluation view", compute.precision)
    file = place()
    kept = _taken(file, paths)
    if kept is not None:
        if advance is not None:
            advance(len(paths))
        return kept
    found = embed(encoder, paths, compute, advance, features=True)
    if place() == file:
        keep(file, {"rows": found.rows, "image_ids": found.image_ids}, compute.cache)
    return found


def embed_with(
    encoders: Mapping[str, Encoder],
    paths: Sequence[Path],
    compute: Compute,
    advance: Advance | None = None,
    domain: str = "",
) -> dict[str, Embeddings]:
    """Embed files with several encoders: the same images with each, so an image that one could not read is left out of all.

    A backbone that several have, or that has no head, is run once and kept; equal encoders are one.

    advance     called with a number of images for each encoder
    domain      to which the files belong, for encoders that know domains
    """
    aware = {name: encoder for name, encoder in encoders.items() if encoder.config.domains}
    if aware:
        placed = {
            name: embed_members(Members.of(encoder, domain), paths, compute, advance or _nothing)
            for name, encoder in aware.items()
        }
        others = {name: encoder for name, encoder in encoders.items() if name not in aware}
        found = embed_with(others, paths, compute, advance)
        return _of_the_same_images({name: placed.get(name) or found[name] for name in encoders}, paths)
    fingerprints = {name: encoder.fingerprint() for name, encoder in encoders.items()}
    sharing: dict[str, dict[str, list[str]]] = {}  # digest of a backbone -> fingerprint of an encoder on it -> its names
    for name, encoder in encoders.items():
        sharing.setdefault(backbone_digest(encoder), {}).setdefault(fingerprints[name], []).append(name)
    found = {}
    for names in sharing.values():
        distinct = {fingerprint: encoders[same[0]] for fingerprint, same in names.items()}
        fingerprint, first = next(iter(distinct.items()))
        every = None if advance is None else _times(advance, sum(map(len, names.values())))
        if len(distinct) == 1 and first.head is not None:
            found[fingerprint] = embed(first, paths, compute, every)
            continue
        given = backbone_features(first, paths, compute, every)
        found |= {fingerprint: _through_head(encoder, given, compute) for fingerprint, encoder in distinct.items()}
    return _of_the_same_images({name: found[fingerprints[name]] for name in encoders}, paths)


def _of_the_same_images(found: Mapping[str, Embeddings], paths: Sequence[Path]) -> dict[str, Embeddings]:
    """Leave out everywhere what came or went between two encoders, with the error of the one that could not read it."""
    errors = {error.path: error for embeddings in found.values() for error in embeddings.unreadable}
    if all(len(embeddings.unreadable) == len(errors) for embeddings in found.values()):
        return dict(found)
    unreadable = tuple(errors[str(path)] for path in paths if str(path) in errors)
    gone = torch.tensor([row for row, path in enumerate(paths) if str(path) in errors], dtype=torch.int64)
    kept = {name: ~torch.isin(embeddings.image_ids, gone) for name, embeddings in found.items()}
    return {
        name: Embeddings(embeddings.rows[kept[name]], embeddings.image_ids[kept[name]], unreadable)
        for name, embeddings in found.items()
    }


def _nothing(count: int) -> None:
    """Progress that nobody watches."""


def _times(advance: Advance, factor: int) -> Advance:
    return lambda count: advance(count * factor)


def _through_head(encoder: Encoder, features: Embeddings, compute: Compute) -> Embeddings:
    with evaluating(encoder, compute.device), torch.no_grad(), autocast(compute.device, compute.precision):
        parts = [encoder(part.to(compute.device)).float().cpu() for part in torch.split(features.rows, ROWS_PER_BATCH)]
    return Embeddings(torch.cat(parts), features.image_ids, features.unreadable)


def feature_file(
    encoder: Encoder, paths: Sequence[Path], cache: PixelCache | None, workers: int, *deciding: object
) -> Path | None:
    """Where features of these images by this backbone are kept: named by contents, not by paths. None without a cache.

    Files that cannot be read are all one content, so that one of them does not keep the features of the others from the cache.
    """
    if cache is None:
        return None
    digest = hashlib.blake2b(repr((VERSION, deciding)).encode(), digest_size=20)
    digest.update(backbone_digest(encoder).encode())
    for contents in read_ahead(paths, partial(_content, cache=cache), FILES_PER_BATCH, workers):
        for content in contents:
            digest.update(content)
    return cache.folder / FEATURES / f"{digest.hexdigest()}.safetensors"


def _content(path: Path, cache: PixelCache) -> bytes:
    """A digest of what is in a file, or UNREADABLE."""
    try:
        return cache.content(path)
    except ImageError:
        return UNREADABLE


def kept(file: Path | None) -> dict[str, Tensor] | None:
    """The tensors that an earlier run stored; None if there are none, or if they are damaged."""
    try:
        if file is None or not file.is_file():
            return None
        tensors = load_file(file)
        os.utime(file)
    except (SafetensorError, OSError):
        return None
    return tensors


def keep(file: Path | None, tensors: Mapping[str, Tensor], cache: PixelCache | None) -> None:
    """Keep tensors for later runs in at most a part of the cache; those used longest ago go, and pixels where it is full.

    Without room a run is as good.
    """
    size = MAX_HEADER_BYTES + sum(tensor.nbytes for tensor in tensors.values())
    if file is None or cache is None or size > cache.limit // MAX_CACHE_DIVISOR:
        return
    with suppress(OSError):
        _drop_oldest(file.parent, cache.limit // MAX_CACHE_DIVISOR - size)
        if cache.displace(size):
            try:
                save_tensors(file, tensors)
            except UcdirError:
                cache.make_room(-size)


def _drop_oldest(folder: Path, room: int) -> None:
    """Remove what was used longest ago, until the rest takes at most `room` bytes."""
    held = 0
    for file in sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True):
        held += file.stat().st_size
        if held > room:
            file.unlink()


def _taken(file: Path | None, paths: Sequence[Path]) -> Embeddings | None:
    """Features from the file, with the errors of the images that were unreadable then and are now."""
    tensors = kept(file)
    if tensors is None or not {"rows", "image_ids"} <= tensors.keys():
        return None
    readable = set(tensors["image_ids"].tolist())
    errors = [_error(path) for row, path in enumerate(paths) if row not in readable]
    found = tuple(error for error in errors if error is not None)
    return Embeddings(tensors["rows"], tensors["image_ids"], found) if len(found) == len(errors) else None


def _error(path: Path) -> ImageError | None:
    try:
        open_rgb(path)
    except ImageError as error:
        return error
    return None
