"""Learning the head alone: the backbone is run once for a few views of each image, and what it gives is kept.

The objective, the banks, the clusters and the run folder are those of learning everything; only the views are rows of a
table instead of pictures.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ucdir.config import Settings
from ucdir.data.batches import StepBatch, step_batch
from ucdir.data.domain import Domain
from ucdir.data.image import read_file
from ucdir.data.plan import StepPlan
from ucdir.data.reading import read_ahead
from ucdir.errors import ImageError, UcdirError
from ucdir.learn.inputs import Pictures, Progress, plan_steps
from ucdir.learn.processes import ALONE, Processes
from ucdir.model.device import autocast
from ucdir.model.encoder import Encoder
from ucdir.progress import Bars
from ucdir.retrieval.embed import Embeddings, evaluating
from ucdir.storage import atomic_file, clear_write_errors

VERSION = "1"  # of how features are computed and stored
CHUNK = 64
LARGE = 4096
SHARE = 4  # of the limit of the cache, at most


@dataclass(frozen=True)
class Table:
    """What a frozen backbone makes of the images of a domain.

    plain      (M, F) float32 of the evaluation views
    views      (V, M, F) float16 of V training views of each image
    """

    plain: Tensor
    views: Tensor


@dataclass(frozen=True)
class Features:
    """Views that are rows of a table. See `inputs.Inputs`."""

    domains: tuple[Domain, ...]
    settings: Settings
    tables: tuple[Table, ...]
    unreadable: tuple[tuple[ImageError, ...], ...]
    processes: Processes = ALONE

    def steps(self, epoch: int) -> Iterator[list[StepBatch]]:
        """Two different views of each image, drawn anew each time."""
        rng = np.random.default_rng([self.settings.run.seed, epoch, 2])
        for step in plan_steps(self.settings, self.domains, epoch, self.processes):
            yield [self._part(plan, rng) for plan in step]

    def embed(self, encoder: Encoder, progress: Progress) -> list[Embeddings]:
        """The plain view of each image through the head of `encoder`."""
        device = next(encoder.parameters()).device
        found = []
        with evaluating(encoder, device), torch.no_grad():
            for table, unreadable in zip(self.tables, self.unreadable, strict=True):
                starts = range(0, len(table.plain), LARGE)
                rows = torch.cat([encoder(table.plain[start : start + LARGE].to(device)).cpu() for start in starts])
                found.append(Embeddings(rows, torch.arange(len(rows)), unreadable))
                progress(len(rows))
        return found

    def only(self, image_ids: Sequence[Sequence[int]]) -> "Features":
        """See `Inputs`. What could not be read has been told and is forgotten."""
        tables = tuple(Table(t.plain[list(ids)], t.views[:, list(ids)]) for t, ids in zip(self.tables, image_ids, strict=True))
        domains = tuple(domain.subset(ids) for domain, ids in zip(self.domains, image_ids, strict=True))
        return replace(self, domains=domains, tables=tables, unreadable=tuple(() for _ in domains))

    def _part(self, plan: StepPlan, rng: np.random.Generator) -> StepBatch:
        images = np.concatenate(plan.image_ids)
        domain = np.repeat(np.arange(len(plan.image_ids)), len(plan.image_ids[0]))
        views = len(self.tables[0].views)
        first = rng.integers(views, size=len(images))
        second = (first + rng.integers(1, views, size=len(images))) % views

        def taken(view: np.ndarray, places: np.ndarray) -> Tensor:
            rows = torch.empty(len(places), self.tables[0].views.shape[2])
            for number, table in enumerate(self.tables):
                here = domain[places] == number
                rows[torch.from_numpy(here)] = table.views[view[places[here]], images[places[here]]].float()
            return rows

        return step_batch(plan, taken(first, plan.query_places), taken(second, plan.key_places))


def compute_features(pictures: Pictures, encoder: Encoder, bars: Bars) -> Features:
    """Run the backbone of `encoder` over all images once; what an earlier run left for the same images is taken.

    It is kept in the folder `features` of the pixel cache, where there is one, in at most a quarter of its limit.
    """
    settings, processes = pictures.settings, pictures.processes
    views = settings.data.augmented_views
    with bars("backbone, once", sum(len(domain) for domain in pictures.domains) * (views + 1)) as advance:
        plain = pictures.embed(encoder, advance, features=True)
        readable = pictures.only([found.image_ids.tolist() for found in plain])
        tables = []
        for domain, found in zip(readable.domains, plain, strict=True):
            one = replace(readable, domains=(domain,))
            file = processes.first(partial(_file, one, encoder))
            kept = processes.first(partial(_kept, file))
            if kept is None:
                kept = _views(one, encoder, advance)
                if file is not None and processes.is_first:
                    _keep(file, kept, 0 if pictures.cache is None else pictures.cache.limit // SHARE)
            else:
                advance(len(domain) * views)
            tables.append(Table(found.rows, kept))
    return Features(readable.domains, settings, tuple(tables), tuple(found.unreadable for found in plain), processes)


def _views(pictures: Pictures, encoder: Encoder, progress: Progress) -> Tensor:
    """(V, M, F) float16 of one domain: each process runs its share of the chunks."""
    settings, processes, (domain,) = pictures.settings, pictures.processes, pictures.domains
    starts = list(range(0, len(domain), CHUNK))
    mine = [
        _chunk_plan(turn, start, min(start + CHUNK, len(domain)))
        for turn in range(settings.data.augmented_views // 2)
        for start in starts[processes.share(len(starts))]
    ]
    found = []
    with evaluating(encoder, pictures.device), torch.no_grad():
        for plan, part in zip(mine, pictures.views(mine, (0,)), strict=True):
            both = torch.cat([part.query_views, part.key_views]).to(pictures.device)
            with autocast(pictures.device, pictures.precision):
                rows = encoder.features(both)
            found.append((plan.step, plan.first, rows.half().cpu()))
            progress(2 * len(part.query_views) * processes.count)
    gathered = torch.empty(settings.data.augmented_views, len(domain), encoder.config.feature_dim, dtype=torch.float16)
    for turn, start, rows in (piece for pieces in processes.each(found) for piece in pieces):
        gathered[2 * turn : 2 * turn + 2, start : start + len(rows) // 2] = rows.view(2, -1, rows.shape[1])
    return gathered


def _chunk_plan(turn: int, start: int, end: int) -> StepPlan:
    places = np.arange(end - start)
    return StepPlan(turn, start, (np.arange(start, end),), places, places)


def _file(pictures: Pictures, encoder: Encoder) -> Path | None:
    """Where the views of these images by this backbone are kept: named by contents, not by paths, for all seeds of runs."""
    if pictures.cache is None:
        return None
    settings, precision, (domain,) = pictures.settings, pictures.precision, pictures.domains
    digest = hashlib.blake2b(digest_size=20)
    deciding = {key: value for key, value in asdict(encoder.config).items() if key not in ("start", "hidden", "dim")}
    made = (VERSION, settings.data.augmented_views, settings.data.strongest_blur, precision, sorted(deciding.items()))
    digest.update(repr(made).encode())
    for name, tensor in sorted(encoder.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for contents in read_ahead(domain.paths, _content, CHUNK, settings.data.workers):
        digest.update(b"".join(contents))
    return pictures.cache.folder / "features" / f"{digest.hexdigest()}.safetensors"


def _content(path: Path) -> bytes:
    return hashlib.blake2b(read_file(path), digest_size=20).digest()


def _kept(file: Path | None) -> Tensor | None:
    """The views that an earlier run left; None where there are none, or damaged ones."""
    try:
        if file is None or not file.is_file():
            return None
        views = load_file(file)["views"]
        os.utime(file)
    except (SafetensorError, OSError, KeyError):
        return None
    return views


def _keep(file: Path, views: Tensor, limit: int) -> None:
    """Keep views for later runs, if `limit` bytes hold them; those used longest ago go. Without room a run is as good."""
    if views.nbytes > limit:
        return
    with suppress(OSError, UcdirError):
        file.parent.mkdir(parents=True, exist_ok=True)
        others = sorted(file.parent.glob("*.safetensors"), key=lambda other: other.stat().st_mtime, reverse=True)
        held = views.nbytes
        for other in others:
            held += other.stat().st_size
            if held > limit:
                other.unlink()
        with atomic_file(file) as draft, clear_write_errors(file):
            save_file({"views": views}, draft)
