"""Learning the head alone: the backbone is run once for a few views of each image, and what it gives is kept.

The objective, the banks, the clusters and the run folder are those of learning everything; only the views are rows of a
table instead of pictures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ucdir.embedding.backbone_features import ROWS_PER_BATCH, feature_file, keep, kept
from ucdir.embedding.embed import Embeddings, evaluating
from ucdir.errors import ImageError
from ucdir.images.domains import Domain
from ucdir.images.epoch_plan import StepPlan
from ucdir.images.step_batches import StepBatch, step_batch
from ucdir.learn.inputs import Advance, Pictures, plan_steps, refuse_many_unreadable
from ucdir.model.device import autocast
from ucdir.model.encoder import Encoder
from ucdir.model.processes import ALONE, Processes
from ucdir.progress import Progress
from ucdir.settings import Settings

IMAGES_PER_BATCH = 64


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
        """Two different views of each image, drawn again each time."""
        rng = np.random.default_rng([self.settings.run.seed, epoch, 2])
        for step in plan_steps(self.settings, self.domains, epoch, self.processes):
            yield [self._part(plan, rng) for plan in step]

    def embed(self, encoder: Encoder, advance: Advance) -> list[Embeddings]:
        """The plain view of each image through the head of `encoder`."""
        device = next(encoder.parameters()).device
        found = []
        with evaluating(encoder, device), torch.no_grad():
            for table, unreadable in zip(self.tables, self.unreadable, strict=True):
                starts = range(0, len(table.plain), ROWS_PER_BATCH)
                rows = torch.cat([encoder(table.plain[start : start + ROWS_PER_BATCH].to(device)).cpu() for start in starts])
                found.append(Embeddings(rows, torch.arange(len(rows)), unreadable))
                advance(len(rows))
        return found

    def features(self, encoder: Encoder, advance: Advance) -> list[Embeddings]:
        """See `Inputs`: the table, whatever `encoder` is, for no backbone learns here."""
        found = [Embeddings(t.plain, torch.arange(len(t.plain)), u) for t, u in zip(self.tables, self.unreadable, strict=True)]
        advance(sum(len(table.plain) for table in self.tables))
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

        return step_batch(plan, taken(first, plan.query_positions), taken(second, plan.key_positions))


def compute_features(pictures: Pictures, encoder: Encoder, progress: Progress) -> Features:
    """Run the backbone of `encoder` over all images once; what an earlier run left for the same images is taken.

    It is kept in the folder `features` of the pixel cache, if there is one (`embedding/backbone_features.py`). An image
    that vanishes on the way is left out like one that was never readable: then all is made again, from what is kept.
    """
    views, left_out = pictures.settings.data.augmented_views, -1
    while True:
        with progress("backbone, once", sum(len(domain) for domain in pictures.domains) * (views + 1)) as advance:
            plain = pictures.features(encoder, advance)
            for domain, found in zip(pictures.domains, plain, strict=True):
                refuse_many_unreadable(domain.name, len(found.rows), found.unreadable, pictures.settings.data.max_unreadable)
            try:
                return _with_views(pictures, encoder, plain, advance)
            except ImageError:
                unreadable = sum(len(found.unreadable) for found in plain)
                if unreadable <= left_out:  # the last time was of no use
                    raise
                left_out = unreadable


def _with_views(pictures: Pictures, encoder: Encoder, plain: Sequence[Embeddings], advance: Advance) -> Features:
    """The tables of the images that `plain` has; ImageError, in all processes, when one of them cannot be read any more."""
    settings, processes, views = pictures.settings, pictures.processes, pictures.settings.data.augmented_views
    readable = pictures.only([found.image_ids.tolist() for found in plain])
    tables = []
    for domain, found in zip(readable.domains, plain, strict=True):
        one = replace(readable, domains=(domain,))
        file = processes.first(partial(_file, one, encoder))
        made = processes.first(partial(_kept, file))
        if made is None:
            made = _views(one, encoder, advance)
            if processes.is_first and _file(one, encoder) == file:
                keep(file, {"views": made}, pictures.cache)
        else:
            advance(len(domain) * views)
        tables.append(Table(found.rows, made))
    return Features(readable.domains, settings, tuple(tables), tuple(found.unreadable for found in plain), processes)


def _views(pictures: Pictures, encoder: Encoder, advance: Advance) -> Tensor:
    """(V, M, F) float16 of one domain: each process runs its share of the chunks. ImageError, in all processes."""
    settings, processes, (domain,) = pictures.settings, pictures.processes, pictures.domains
    gathered = torch.empty(settings.data.augmented_views, len(domain), encoder.config.feature_dim, dtype=torch.float16)
    for share in processes.each(_share(pictures, encoder, advance)):
        if isinstance(share, ImageError):
            raise share
        for turn, start, rows in share:
            gathered[2 * turn : 2 * turn + 2, start : start + len(rows) // 2] = rows.view(2, -1, rows.shape[1])
    return gathered


def _share(pictures: Pictures, encoder: Encoder, advance: Advance) -> list[tuple[int, int, Tensor]] | ImageError:
    """The chunks of this process: which pair of views, first image, rows (2 n, F) of both views. Or why there are none."""
    settings, processes, (domain,) = pictures.settings, pictures.processes, pictures.domains
    starts = list(range(0, len(domain), IMAGES_PER_BATCH))
    mine = [
        _chunk_plan(turn, start, min(start + IMAGES_PER_BATCH, len(domain)))
        for turn in range(settings.data.augmented_views // 2)
        for start in starts[processes.share(len(starts))]
    ]
    found = []
    try:
        with evaluating(encoder, pictures.device), torch.no_grad():
            for plan, part in zip(mine, pictures.views(mine, (0,)), strict=True):
                both = torch.cat([part.query_views, part.key_views]).to(pictures.device)
                with autocast(pictures.device, pictures.precision):
                    rows = encoder.features(both)
                found.append((plan.step, plan.first, rows.half().cpu()))
                advance(2 * len(part.query_views) * processes.count)
    except ImageError as error:
        return error
    return found


def _chunk_plan(turn: int, start: int, end: int) -> StepPlan:
    places = np.arange(end - start)
    return StepPlan(turn, start, (np.arange(start, end),), places, places)


def _file(pictures: Pictures, encoder: Encoder) -> Path | None:
    """Where the views of these images by this backbone are kept, for all seeds of runs."""
    data, (domain,) = pictures.settings.data, pictures.domains
    made = ("training views", data.augmented_views, data.max_blur_sigma, pictures.precision)
    return feature_file(encoder, domain.paths, pictures.cache, data.workers, *made)


def _kept(file: Path | None) -> Tensor | None:
    return (kept(file) or {}).get("views")
