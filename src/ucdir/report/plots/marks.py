"""A plot as plain marks: drawn once, written as SVG (inline or a file) or PNG. Colours are roles, for two schemes."""

from dataclasses import dataclass, field
from typing import Literal

Anchor = Literal["start", "middle", "end"]
Kind = Literal["disc", "square", "diamond", "triangle", "ring"]
KINDS: tuple[Kind, ...] = ("disc", "diamond", "square", "triangle")

LIGHT = {
    "ground": "#f6f6f4",
    "card": "#ffffff",
    "ink": "#1c1d20",
    "quiet": "#5d6169",
    "line": "#dfe0dd",
    "mat": "#ececea",
    "accent": "#2b5fd9",
    "on-accent": "#ffffff",
    "heat": "#2b5fd9",
    "on-heat": "#ffffff",
    "plain": "#9a9ea6",
    "oracle": "#8a4b00",
    "right": "#1a7f4e",
    "wrong": "#c23434",
    "s0": "#2b5fd9",
    "s1": "#d1602a",
    "s2": "#1b8a6b",
    "s3": "#a0389b",
    "s4": "#8a7400",
    "s5": "#0e86a8",
    "s6": "#c0345a",
    "s7": "#5b6b1f",
    "s8": "#6a50c7",
    "s9": "#7a5a45",
}
DARK = {
    "ground": "#141518",
    "card": "#1e2024",
    "ink": "#ececee",
    "quiet": "#a4a8b0",
    "line": "#32353b",
    "mat": "#2a2c31",
    "accent": "#8fb0ff",
    "on-accent": "#10182c",
    "heat": "#3b60c8",
    "on-heat": "#ffffff",
    "plain": "#7b8089",
    "oracle": "#f3c987",
    "right": "#5fc795",
    "wrong": "#ff8f87",
    "s0": "#8fb0ff",
    "s1": "#ff9d6b",
    "s2": "#55caa5",
    "s3": "#e58fe0",
    "s4": "#d9c34a",
    "s5": "#5cc4e6",
    "s6": "#ff86a5",
    "s7": "#b3c766",
    "s8": "#b3a1ff",
    "s9": "#cda88e",
}
NUM_COLOURS = 10


@dataclass(frozen=True)
class Line:
    """A polyline through points (x, y) in px."""

    points: tuple[tuple[float, float], ...]
    role: str
    width: float = 1.5
    dashed: bool = False


@dataclass(frozen=True)
class Shape:
    """A small mark with its centre at (x, y). `title` says what it is; `data` are attributes for the page's script."""

    x: float
    y: float
    role: str
    size: float = 3.0
    kind: Kind = "disc"
    title: str = ""
    data: tuple[tuple[str, str], ...] = ()
    opacity: float = 1.0


@dataclass(frozen=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    role: str
    opacity: float = 1.0
    title: str = ""


@dataclass(frozen=True)
class Words:
    """A line of text whose baseline is at y."""

    x: float
    y: float
    text: str
    role: str = "ink"
    size: float = 12.0
    anchor: Anchor = "start"
    bold: bool = False
    turned: bool = False  # reads upwards


Mark = Line | Shape | Box | Words


@dataclass(frozen=True)
class Drawing:
    """A plot.

    name     of its file, without a suffix
    title    what it shows, for screen readers and as a heading if it is a file of its own
    """

    name: str
    title: str
    width: float
    height: float
    marks: tuple[Mark, ...] = field(repr=False)


def colour(number: int) -> str:
    """Role of a series, a domain or a class by its number."""
    return f"s{number % NUM_COLOURS}"
