"""A plot as plain marks: drawn once, written as SVG (inline or a file) or PNG. Colours are roles, for two schemes."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

Anchor = Literal["start", "middle", "end"]
Kind = Literal["disc", "square", "diamond", "triangle", "ring"]
KINDS: tuple[Kind, ...] = ("disc", "diamond", "square", "triangle")

NUM_COLOURS = 10


@dataclass(frozen=True)
class Line:
    """A polyline through points (x, y) in px."""

    form: ClassVar = "line"
    points: tuple[tuple[float, float], ...]
    role: str
    width: float = 1.5
    dashed: bool = False


@dataclass(frozen=True)
class Shape:
    """A small mark with its centre at (x, y). `title` says what it is; `data` are attributes for the page's script."""

    form: ClassVar = "shape"
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

    form: ClassVar = "box"
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

    form: ClassVar = "words"
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
