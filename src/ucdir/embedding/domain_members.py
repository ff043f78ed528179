"""Embeddings of images as members of a domain that an encoder knows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ucdir.embedding.compute import Compute
from ucdir.embedding.embed import Embeddings
from ucdir.embedding.view_features import digests, view_features
from ucdir.errors import ImageError
from ucdir.model.alignment import Alignment
from ucdir.model.encoder import Encoder
from ucdir.model.runtime import domain_numbers

IMAGES_PER_BLOCK = 512  # images at a time


@dataclass(frozen=True)
class Members:
    """One domain of an encoder that knows domains."""

    encoder: Encoder
    number: int

    @classmethod
    def of(cls, encoder: Encoder, name: str) -> "Members":
        """The domain called `name`; UsageError for one that the encoder does not know."""
        (number,) = domain_numbers(encoder.config.domains, [name], 1).tolist()
        return cls(encoder, number)

    @property
    def name(self) -> str:
        """Of the domain."""
        return self.encoder.config.domains[self.number]

    @property
    def alignment(self) -> Alignment:
        """Of the encoder."""
        assert self.encoder.alignment is not None
        return self.encoder.alignment

    @cached_property
    def _row_of(self) -> Mapping[bytes, int]:
        contents = self.alignment.memories[self.number].contents.cpu().numpy()
        return {content.tobytes(): row for row, content in enumerate(contents)}

    def remembered(self, content: bytes) -> Tensor | None:
        """(E,) float32, what an image with this SHA-256 became when the encoder learned from it; None for another one."""
        row = self._row_of.get(content)
        return None if row is None else self.alignment.memories[self.number].embeddings[row].float().cpu()

    def placed(self, features: np.ndarray, device: torch.device) -> Tensor:
        """(N, V, F) float16 features of the first V views -> (N, E) float32 unit rows on the CPU."""
        alignment: Alignment = self.alignment.to(device)
        found = [torch.empty(0, alignment.length)]
        for start in range(0, len(features), IMAGES_PER_BLOCK):
            block = torch.from_numpy(np.array(features[start : start + IMAGES_PER_BLOCK])).to(device).float()
            found.append(alignment(block, torch.full((len(block),), self.number, device=device)).rows.cpu())
        return torch.cat(found)


def embed_members(
    members: Members,
    paths: Sequence[Path],
    compute: Compute,
    advance: Callable[[int], None] = lambda count: None,
    views: int | None = None,
) -> Embeddings:
    """Embed image files as members of a domain: (M, E) unit rows.

    A training image of the encoder keeps its embedding from training. Others are embedded from the first `views` of the
    encoder's views, None = all.
    """
    contents = digests(paths, compute.workers)
    found: dict[int, Tensor] = {}
    for position, content in enumerate(contents):
        learned = None if isinstance(content, ImageError) else members.remembered(content)
        if learned is not None:
            found[position] = learned
    advance(len(found))
    new = [position for position in range(len(paths)) if position not in found]
    wanted = members.encoder.config.views[:views]
    files, known = [paths[position] for position in new], [contents[position] for position in new]
    seen = view_features(members.encoder, files, wanted, compute, advance, contents=known)
    for row, place in zip(members.placed(seen.values, compute.device), seen.image_ids.tolist(), strict=True):
        found[new[place]] = row
    positions = sorted(found)
    rows = torch.stack([found[position] for position in positions]) if found else torch.empty(0, members.alignment.length)
    return Embeddings(rows, torch.tensor(positions, dtype=torch.int64), seen.unreadable)
