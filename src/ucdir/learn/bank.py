"""The memory bank: what is remembered of every training image of one domain."""

import torch
from torch import Tensor


class MemoryBank:
    """One unit row per training image of a domain."""

    def __init__(self, rows: Tensor) -> None:
        """Start from the embeddings (M, D) of all images, in order of image id."""
        self.rows = rows.clone()

    def __len__(self) -> int:
        return len(self.rows)

    def write(self, image_ids: Tensor, keys: Tensor) -> None:
        """Overwrite row image_ids[i] with keys[i]; of repeated ids the last key stays.

        image_ids (N,) int64, keys (N, D). Assigning with repeated indices has no defined order on a GPU, so the last
        occurrence of each id is found first.
        """
        order = image_ids.argsort(stable=True)
        last = torch.searchsorted(image_ids[order], image_ids, right=True) - 1
        self.rows[image_ids] = keys.detach()[order[last]].to(self.rows.dtype)
