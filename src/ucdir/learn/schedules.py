"""Learning rate and term weights as pure functions of the epoch. Epochs count from 0."""

import math
from collections.abc import Sequence


def cosine(base: float, epoch: int, epochs: int) -> float:
    """Half a cosine from `base` at epoch 0 to 0 at epoch `epochs`."""
    return base * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def stepped(base: float, epoch: int, milestones: Sequence[int], factor: float = 0.5) -> float:
    """`base` times `factor` for every milestone that `epoch` has reached."""
    return base * factor ** sum(epoch >= milestone for milestone in milestones)


def ramp(start: float, end: float, epoch: int, first: int, last: int) -> float:
    """`start` up to epoch `first`, linearly to `end` at epoch `last`, then `end`; without length, `end` from `last` on."""
    if epoch >= last:
        return end
    if epoch <= first:
        return start
    return start + (end - start) * (epoch - first) / (last - first)
