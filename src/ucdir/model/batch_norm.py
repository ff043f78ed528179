"""Batch norm with other statistics than those of a batch: of groups of it, or of the batches of several processes.

Split batch norm takes statistics per interleaved group of images.

A batch statistic is a leak: a key can be recognised by the statistics of the batch it was normalised with. The momentum
encoder therefore sees the batch in another order and in groups, so that query and key are never normalised together
(He et al. 2020, shuffling batch norm; here without several GPUs).

Everything in an encoder but batch norm treats each image alone. Running the whole encoder once per group is therefore
the same as splitting inside every batch norm, and works for any layer, memory format and batch length.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def split_forward(encoder: nn.Module, images: Tensor, splits: int) -> Tensor:
    """Encode images i, i + splits, i + 2 splits ... as one group with statistics of their own.

    images    (N, ...); groups of unequal length if N is not a multiple of `splits`
    returns   (N, ...) in the order of `images`

    In training mode each running statistic becomes the mean over the groups of what each group alone would have made
    of it; `num_batches_tracked` stays. In evaluation mode this is a plain forward pass.
    """
    if splits == 1 or not encoder.training:
        return encoder(images)  # type: ignore[no-any-return]
    norms = [module for module in encoder.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]
    before = [_statistics(norm) for norm in norms]
    sums = [tuple(torch.zeros_like(value) for value in values) for values in before]
    rows: Tensor | None = None
    for group in range(splits):
        _restore(norms, before)
        encoded = encoder(images[group::splits])
        rows = encoded.new_empty(len(images), *encoded.shape[1:]) if rows is None else rows
        rows[group::splits] = encoded
        for norm, total in zip(norms, sums, strict=True):
            for value, part in zip(_statistics(norm), total, strict=True):
                part.add_(value, alpha=1 / splits)
    _restore(norms, sums)
    for norm in norms:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.sub_(splits)
    assert rows is not None
    return rows


def _statistics(norm: _BatchNorm) -> tuple[Tensor, ...]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean.clone(), norm.running_var.clone()


def _restore(norms: list[_BatchNorm], statistics: list[tuple[Tensor, ...]]) -> None:
    for norm, (mean, variance) in zip(norms, statistics, strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def synchronise(network: nn.Module) -> None:
    """Let batch norm take its statistics over the images of all processes, in place; alone a process keeps its own.

    Training by several processes then learns what one process would from the same images. Unlike torch's own
    synchronised batch norm it also runs on a CPU.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = _synchronised(type(module))


def _synchronised(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    """A subclass of `kind` that synchronises in training mode."""

    class Synchronised(kind):  # type: ignore[misc, valid-type]
        def forward(self, images: Tensor) -> Tensor:
            if not self.training:
                return super().forward(images)  # type: ignore[no-any-return]
            normalised = _over_all_processes(self, images)
            for after in ("drop", "act"):  # timm's batch norms hold what follows them
                normalised = getattr(self, after, nn.Identity())(normalised)
            return normalised

    return Synchronised


def _over_all_processes(norm: _BatchNorm, images: Tensor) -> Tensor:
    """Normalise (n, C, ...) with the mean and variance over the images of all processes, equally many in each."""
    values = images.float() if images.dtype in (torch.bfloat16, torch.float16) else images
    over = [dim for dim in range(values.ndim) if dim != 1]
    shape = [1, -1, *[1] * (values.ndim - 2)]
    mean = _Mean.apply(values.mean(dim=over))
    centred = values - mean.view(shape)
    variance = _Mean.apply(centred.square().mean(dim=over))
    _remember(norm, mean, variance, dist.get_world_size() * values.numel() // values.shape[1])
    scale = torch.rsqrt(variance + norm.eps) if norm.weight is None else torch.rsqrt(variance + norm.eps) * norm.weight
    normalised = centred * scale.view(shape)
    if norm.bias is not None:
        normalised = normalised + norm.bias.view(shape)
    result: Tensor = normalised.to(images.dtype)
    return result


@torch.no_grad()
def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move the running statistics; the variance counted is the unbiased one, as in torch."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    weight = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), weight)
    norm.running_var.lerp_((variance * count / max(count - 1, 1)).to(norm.running_var.dtype), weight)


class _Mean(torch.autograd.Function):
    """Mean over the processes, of values and of gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return _mean(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient)


def _mean(values: Tensor) -> Tensor:
    total: Tensor = values.detach().clone().contiguous()
    dist.all_reduce(total)
    total /= dist.get_world_size()
    return total
