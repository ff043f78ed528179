"""The pose of a specimen in a picture: size, turn, lean, position, which way it faces."""

from dataclasses import dataclass, replace

import numpy as np

from ucdir.drawing.curves import Points
from ucdir.drawing.kinds import Specimen


@dataclass(frozen=True)
class Freedom:
    """How far poses vary: `turn` in degrees and `lean` as shear, either way; `size` as a share of the canvas."""

    turn: float
    size: tuple[float, float]
    lean: float


def posed(specimen: Specimen, rng: np.random.Generator, canvas: int, freedom: Freedom) -> Specimen:
    """The specimen in pixels of a square canvas, wholly or almost wholly inside it."""
    angle = np.radians(rng.uniform(-freedom.turn, freedom.turn))
    scale = rng.uniform(*freedom.size)
    aspect = rng.uniform(0.88, 1.14)
    flip = rng.choice([-1.0, 1.0])
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    lean = np.array([[1.0, 0.0], [rng.uniform(-freedom.lean, freedom.lean), 1.0]])
    matrix = np.diag([flip * aspect, 1 / aspect]) @ lean @ rotation * scale * canvas
    centre = canvas * (0.5 + rng.uniform(-1, 1, size=2) * (1.02 - scale) / 2)

    def place(line: Points) -> Points:
        placed: Points = (line - 0.5) @ matrix + centre
        return placed

    return tuple(replace(part, line=place(part.line)) for part in specimen)
