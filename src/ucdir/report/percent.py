"""The one way in which reports write fractions."""

import math


def percent(value: float) -> str:
    """A fraction in [0, 1] as percent with one decimal; a dash if it is not a number."""
    return f"{100 * value:.1f}" if math.isfinite(value) else "–"
