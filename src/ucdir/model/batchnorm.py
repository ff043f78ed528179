"""Split batch norm: statistics per interleaved group of images.

A batch statistic is a leak: a key can be recognised by the statistics of the batch it was normalised with. The momentum
encoder therefore sees the batch in another order and in groups, so that query and key are never normalised alike
(He et al. 2020, shuffling batch norm; here without several GPUs).

Everything in an encoder but batch norm treats each image alone. Running the whole encoder once per group is therefore
the same as splitting inside every batch norm, and works for any layer, memory format and batch length.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def split_forward(encoder: nn.Module, images: Tensor, splits: int) -> Tensor:
    """Encode images i, i + splits, i + 2 splits ... as one group with statistics of their own.

    images    (N, ...); groups of unequal length when N is no multiple of `splits`
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
