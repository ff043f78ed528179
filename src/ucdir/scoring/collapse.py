"""Has an encoder collapsed: does it give almost the same embedding for every image?"""

from collections.abc import Sequence

from torch import Tensor

COLLAPSED_BELOW = 1e-4


def spread(rows: Tensor) -> float:
    """Mean squared distance of the rows from their mean.

    rows     (N, D) unit rows of one domain, N >= 1; zero rows count as they are
    returns  in [0, 1]; of unit rows 1 - |mean| ** 2, the share of their squared length that is not along the mean direction,
             whatever D is. 0 when all rows are equal
    """
    rows = rows.double()
    return float((rows - rows.mean(dim=0)).square().sum(dim=1).mean())


def is_collapsed(rows: Tensor) -> bool:
    """Whether the rows (N, D) of a domain are all almost the same: their spread is below COLLAPSED_BELOW. A lone row is not.

    At that spread rows are half a degree from their mean direction; a few images far from all others make it larger. What
    rounding to bfloat16 leaves of equal rows is below it (2 ** -18 for the last rounding, some times that for those of all
    layers). Encoders with random weights were measured at 3e-4 and more on small drawn images, where their features differed
    at all, and a MobileNetV2 trained on ImageNet at 0.3 to 0.5 on photographs, paintings and sketches.
    """
    return len(rows) > 1 and spread(rows) < COLLAPSED_BELOW


def collapse_sentence(domains: Sequence[str]) -> str:
    """A sentence about an encoder that has collapsed in these domains."""
    names = " and of ".join(f"domain '{name}'" for name in domains)
    return f"all images of {names} have almost the same embedding (collapsed)"
