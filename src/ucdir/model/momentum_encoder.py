"""The momentum encoder: a slow copy of the encoder that makes keys, banks and the embeddings people search with."""

import copy
from itertools import compress

import torch
from torch import Tensor, nn

from ucdir.model.batch_norm import split_forward


class MomentumEncoder:
    """An exponential moving average of an encoder's parameters.

    Batch-norm statistics are not averaged: they come from the forward passes of the copy itself, as in the released code.
    """

    def __init__(self, encoder: nn.Module, encoder_momentum: float, batch_norm_splits: int) -> None:
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.encoder_momentum = encoder_momentum
        self.batch_norm_splits = batch_norm_splits

    @torch.no_grad()
    def update(self, encoder: nn.Module) -> None:
        """Move each parameter that learns: slow = momentum * slow + (1 - momentum) * fast. Buffers are not touched."""
        learning = [parameter.requires_grad for parameter in encoder.parameters()]
        slow: list[Tensor] = list(compress(self.encoder.parameters(), learning))
        fast: list[Tensor] = list(compress(encoder.parameters(), learning))
        torch._foreach_mul_(slow, self.encoder_momentum)
        torch._foreach_add_(slow, fast, alpha=1 - self.encoder_momentum)

    @torch.no_grad()
    def keys(self, images: Tensor) -> Tensor:
        """Embed key views (N, 3, H, W), shuffled by the caller, in groups -> (N, D)."""
        return split_forward(self.encoder, images, self.batch_norm_splits)
