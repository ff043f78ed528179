"""Points of lines and outlines. Coordinates are in the unit square, x to the right, y down."""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (P, 2)


def points(*pairs: tuple[float, float]) -> Points:
    """The given (x, y) pairs as an array (P, 2)."""
    return np.array(pairs, dtype=np.float64)


def ellipse(
    centre: tuple[float, float],
    radius: tuple[float, float],
    start: float = 0.0,
    stop: float = 360.0,
    tilt: float = 0.0,
    count: int = 36,
) -> Points:
    """An ellipse or a part of it. Degrees run clockwise from the right; `tilt` turns the whole."""
    angle = np.radians(np.linspace(start, stop, count, endpoint=abs(stop - start) < 360))
    flat = np.column_stack([radius[0] * np.cos(angle), radius[1] * np.sin(angle)])
    return np.add(turn(flat, tilt), centre)


def turn(line: Points, degrees: float, about: tuple[float, float] = (0.0, 0.0)) -> Points:
    """Rotate clockwise about a point."""
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned: Points = (line - np.array(about)) @ rotation + np.array(about)
    return turned


def mirror(line: Points, x: float = 0.5) -> Points:
    """The reflection in the vertical line at `x`."""
    return np.column_stack([2 * x - line[:, 0], line[:, 1]])


def smooth(corners: Points, closed: bool = True, count: int = 64) -> Points:
    """A Catmull-Rom curve through the corners, about `count` points."""
    if closed:
        padded = np.concatenate([corners[-1:], corners, corners[:2]])
    else:
        padded = np.concatenate([corners[:1], corners, corners[-1:]])
    pieces = len(padded) - 3
    t = np.linspace(0, 1, max(count // pieces, 3), endpoint=False)[:, None]
    before, first, second, after = (padded[i : i + pieces, None] for i in range(4))
    curve = 0.5 * (
        2 * first
        + (second - before) * t
        + (2 * before - 5 * first + 4 * second - after) * t**2
        + (3 * first - before - 3 * second + after) * t**3
    )
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, corners[-1:]])


def band(line: Points, width: float | Points) -> Points:
    """The closed outline of an open line drawn with a pen of `width` (one number, or one per point)."""
    direction = np.gradient(line, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True).clip(1e-9)
    normal = np.column_stack([-direction[:, 1], direction[:, 0]])
    half = np.broadcast_to(np.asarray(width) / 2, len(line))[:, None]
    return np.concatenate([line + normal * half, (line - normal * half)[::-1]])


def rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    """The four corners, clockwise."""
    return points((left, top), (right, top), (right, bottom), (left, bottom))


def resample(line: Points, spacing: float, closed: bool) -> Points:
    """Points at an even distance of about `spacing` along the line; a closed line ends where it began."""
    if closed:
        line = np.concatenate([line, line[:1]])
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate([[0.0], steps.cumsum()])
    wanted = np.linspace(0, along[-1], max(round(float(along[-1]) / spacing), 2) + 1)
    return np.column_stack([np.interp(wanted, along, line[:, axis]) for axis in (0, 1)])
