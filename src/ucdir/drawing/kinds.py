"""The kinds of thing in the collections: each function makes one new specimen as parts in the unit square.

A specimen is what a photograph and a drawing have in common: outlines and inner lines. Proportions vary.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from ucdir.drawing.curves import Points, band, ellipse, mirror, points, rectangle, smooth, turn

Material = Literal["paint", "second", "accent", "wood", "leaf", "glass", "metal", "dark", "light", "hole"]


@dataclass(frozen=True)
class Part:
    """One outline or one inner line; later parts are in front of earlier ones."""

    line: Points  # (P, 2) in [0, 1], y down
    material: Material  # a hole shows what is behind the whole thing
    closed: bool = True  # an outline that is filled, or an open line


Specimen = tuple[Part, ...]


def _stroke(line: Points, material: Material = "dark") -> Part:
    return Part(line, material, closed=False)


def _straight(x0: float, y0: float, x1: float, y1: float, material: Material = "dark") -> Part:
    return _stroke(points((x0, y0), (x1, y1)), material)


def boat(rng: np.random.Generator) -> Specimen:
    """A hull with planks, a mast, two sails and a pennant."""
    deck, keel, mast = rng.uniform(0.66, 0.73), rng.uniform(0.84, 0.92), rng.uniform(0.42, 0.56)
    top, bow = rng.uniform(0.06, 0.14), rng.uniform(0.02, 0.07)
    hull = smooth(
        points((0.08, deck), (0.3, deck + 0.02), (0.7, deck + 0.02), (0.95, deck - bow)),
        closed=False,
        count=24,
    )
    bottom = smooth(points((0.84, keel - 0.03), (0.7, keel), (0.35, keel), (0.2, keel - 0.03)), closed=False, count=24)
    main_foot, jib_foot = deck - 0.06, deck - 0.05
    belly = rng.uniform(0.0, 0.08)
    main_back = rng.uniform(0.1, 0.17)
    main = smooth(
        points(
            (mast - 0.02, top + 0.06),
            (mast - 0.2 - belly, (top + main_foot) / 2 + 0.06),
            (main_back, main_foot),
        ),
        closed=False,
    )
    front = rng.uniform(0.82, 0.92)
    jib = smooth(
        points(
            (mast + 0.03, top + rng.uniform(0.08, 0.2)),
            (mast + 0.2 + belly, main_foot - 0.22),
            (front, jib_foot),
        ),
        closed=False,
    )
    plank = (deck + keel) / 2
    return (
        Part(band(points((mast, top - 0.02), (mast, deck + 0.02)), 0.022), "wood"),
        Part(points((mast, top - 0.03), (mast - 0.13, top + 0.005), (mast, top + 0.035)), "accent"),
        Part(np.concatenate([main, points((mast - 0.02, main_foot))]), "light"),
        Part(np.concatenate([jib, points((mast + 0.03, jib_foot))]), "second"),
        _straight(mast - 0.02, (top + main_foot) / 2, mast - 0.17 - belly, (top + main_foot) / 2 + 0.03),
        _straight(mast - 0.02, main_foot - 0.12, mast - 0.26 - belly, main_foot - 0.1),
        Part(np.concatenate([hull, bottom]), "paint"),
        _stroke(smooth(points((0.15, plank), (0.5, plank + 0.02), (0.88, plank - 0.02)), closed=False, count=20)),
    )


def butterfly(rng: np.random.Generator) -> Specimen:
    """Two pairs of wings with spots, a body and feelers."""
    span, height = rng.uniform(0.36, 0.43), rng.uniform(0.3, 0.38)
    low, tail = rng.uniform(0.24, 0.32), rng.uniform(0.84, 0.92)
    waist = rng.uniform(0.5, 0.56)
    upper = smooth(
        points(
            (0.5, waist),
            (0.53, waist - 0.16),
            (0.5 + span * 0.6, waist - height),
            (0.5 + span, waist - height * 0.85),
            (0.5 + span * 0.93, waist - 0.08),
            (0.62, waist + 0.02),
        )
    )
    lower = smooth(
        points(
            (0.5, waist - 0.02),
            (0.66, waist),
            (0.5 + low, waist + 0.1),
            (0.5 + low * 0.85, tail - 0.04),
            (0.57, tail - 0.14),
        )
    )
    spot = ellipse((0.5 + span * 0.68, waist - height * 0.55), (rng.uniform(0.04, 0.075),) * 2)
    dot = ellipse((0.5 + low * 0.62, waist + 0.17), (rng.uniform(0.03, 0.05),) * 2)
    vein = points((0.53, waist - 0.03), (0.5 + span * 0.86, waist - height * 0.25))
    feeler = smooth(points((0.51, waist - 0.16), (0.54, waist - 0.27), (0.62, waist - 0.36)), closed=False, count=14)
    parts: list[Part] = []
    wings = (Part(lower, "second"), Part(upper, "paint"), Part(spot, "accent"), Part(dot, "light"))
    for wing in wings:
        parts += [wing, replace(wing, line=mirror(wing.line))]
    parts += [_stroke(line) for line in (vein, mirror(vein), feeler, mirror(feeler))]
    body = ellipse((0.5, waist + 0.02), (rng.uniform(0.025, 0.045), rng.uniform(0.17, 0.22)))
    head = ellipse((0.5, waist - 0.17), (0.035, 0.035))
    return (*parts, Part(body, "dark"), Part(head, "dark"))


def car(rng: np.random.Generator) -> Specimen:
    """Seen from the side: body, cabin with two windows, two wheels, door, lights."""
    roof, belt, sill = rng.uniform(0.25, 0.34), rng.uniform(0.45, 0.52), rng.uniform(0.68, 0.74)
    back, front = rng.uniform(0.2, 0.32), rng.uniform(0.56, 0.66)
    hood, tail = rng.uniform(0.76, 0.84), rng.uniform(0.08, 0.15)
    wheel = rng.uniform(0.085, 0.115)
    left, right = rng.uniform(0.22, 0.27), rng.uniform(0.73, 0.79)
    shell = points(
        (0.05, sill),
        (0.05, belt + 0.06),
        (tail, belt),
        (back, roof + 0.02),
        (back + 0.06, roof),
        (front - 0.04, roof),
        (front + 0.02, roof + 0.03),
        (hood, belt + 0.01),
        (0.93, belt + 0.06),
        (0.96, belt + 0.13),
        (0.95, sill),
    )
    post = (back + front) / 2 + 0.02
    rear = points((tail + 0.1, belt), (back + 0.035, roof + 0.045), (post - 0.015, roof + 0.045), (post - 0.015, belt))
    fore = points((post + 0.015, belt), (post + 0.015, roof + 0.045), (front - 0.02, roof + 0.045), (hood - 0.08, belt))
    parts = [Part(shell, "paint"), Part(rear, "glass"), Part(fore, "glass")]
    parts += [
        _straight(post, belt, post, sill),
        _straight(post - 0.08, belt + 0.06, post - 0.03, belt + 0.06),
    ]
    parts += [
        Part(ellipse((0.92, belt + 0.11), (0.03, 0.025)), "light"),
        Part(rectangle(0.05, belt + 0.08, 0.085, belt + 0.14), "accent"),
    ]
    for x in (left, right):
        parts += [
            Part(ellipse((x, sill), (wheel, wheel)), "dark"),
            Part(ellipse((x, sill), (wheel * 0.5, wheel * 0.5)), "metal"),
        ]
    return tuple(parts)


def cup(rng: np.random.Generator) -> Specimen:
    """A cup with a handle on a saucer, sometimes with a band around it."""
    top, bottom = rng.uniform(0.24, 0.36), rng.uniform(0.74, 0.8)
    wide, narrow, lip = rng.uniform(0.24, 0.3), rng.uniform(0.13, 0.22), rng.uniform(0.04, 0.075)
    middle = 0.44
    side = smooth(
        points((middle + wide, top), (middle + wide * 0.97, (top + bottom) / 2), (middle + narrow, bottom)),
        closed=False,
        count=20,
    )
    foot = ellipse((middle, bottom), (narrow, lip * 0.6), 0, 180, count=16)
    body = np.concatenate([side, foot, mirror(side, middle)[::-1]])
    reach, drop = rng.uniform(0.14, 0.2), rng.uniform(0.11, 0.16)
    grip = ellipse((middle + wide * 0.9, top + 0.06 + drop), (reach, drop), -85, 95, count=24)
    saucer = ellipse((middle, bottom + 0.04), (rng.uniform(0.34, 0.4), rng.uniform(0.06, 0.085)))
    parts = [Part(saucer, "second"), Part(band(grip, rng.uniform(0.04, 0.055)), "paint"), Part(body, "paint")]
    parts += [
        Part(ellipse((middle, top), (wide, lip)), "light"),
        Part(ellipse((middle, top + 0.012), (wide * 0.86, lip * 0.66)), "wood"),
    ]
    for share in rng.choice([0.35, 0.45, 0.55, 0.65], size=rng.integers(0, 3), replace=False):
        y, half = top + (bottom - top) * share, wide + (narrow - wide) * share * 0.75
        parts.append(_stroke(ellipse((middle, y), (half * 0.97, lip * 0.8), 12, 168, count=20), "accent"))
    return tuple(parts)


def fish(rng: np.random.Generator) -> Specimen:
    """A fish with tail, fins, an eye, a gill and a few scales."""
    tall, length = rng.uniform(0.17, 0.26), rng.uniform(0.32, 0.36)
    middle, nose, root = rng.uniform(0.47, 0.53), 0.07, 0.07 + 2 * length
    back = smooth(
        points((nose, middle), (0.22, middle - tall * 0.8), (0.4, middle - tall), (root, middle - 0.05)),
        closed=False,
        count=28,
    )
    belly = smooth(
        points((root, middle + 0.05), (0.4, middle + tall * 0.95), (0.2, middle + tall * 0.7), (nose, middle)),
        closed=False,
        count=28,
    )
    fork, spread = rng.uniform(0.02, 0.1), rng.uniform(0.15, 0.22)
    tail = smooth(
        points((root - 0.02, middle), (0.94, middle - spread), (0.94 - fork, middle), (0.94, middle + spread)),
        count=40,
    )
    peak = middle - tall - rng.uniform(0.08, 0.14)
    dorsal = smooth(
        points(
            (0.3, middle - tall * 0.85),
            (0.42, peak),
            (0.58, middle - tall * 0.6),
            (0.45, middle - tall * 0.7),
        )
    )
    fin = smooth(
        points((0.38, middle + 0.05), (0.53, middle + 0.04), (0.5, middle + rng.uniform(0.11, 0.16))),
        count=24,
    )
    parts = [Part(tail, "second"), Part(dorsal, "second"), Part(np.concatenate([back, belly]), "paint")]
    parts += [_straight(0.9, middle + offset * 1.8, root + 0.02, middle + offset) for offset in (-0.05, 0.0, 0.05)]
    for column, row in ((0.48, -0.09), (0.56, -0.06), (0.56, 0.03), (0.63, -0.01), (0.47, -0.01)):
        parts.append(_stroke(ellipse((column, middle + row), (0.035, 0.045), -75, 75, count=10)))
    parts += [_stroke(ellipse((0.23, middle), (0.07, tall * 0.75), -60, 60, count=16)), Part(fin, "accent")]
    parts += [
        Part(ellipse((0.19, middle - tall * 0.28), (0.035, 0.035)), "light"),
        Part(ellipse((0.185, middle - tall * 0.28), (0.017, 0.017)), "dark"),
    ]
    return tuple(parts)


def flower(rng: np.random.Generator) -> Specimen:
    """A stem with two leaves and a head of petals around a disc."""
    x, y = 0.5 + rng.uniform(-0.04, 0.04), rng.uniform(0.3, 0.36)
    petals, reach = int(rng.integers(6, 10)), rng.uniform(0.2, 0.26)
    disc, plump = rng.uniform(0.07, 0.105), rng.uniform(0.75, 1.0)
    foot = 0.5 + rng.uniform(-0.08, 0.08)
    stem = smooth(
        points((x, y), ((x + foot) / 2 + rng.uniform(-0.03, 0.03), 0.65), (foot, 0.96)),
        closed=False,
        count=20,
    )
    parts = [Part(band(stem, 0.03), "leaf")]
    for side in (-1, 1):
        root = stem[int(rng.integers(11, 16))]
        tip = root + np.array([side * rng.uniform(0.2, 0.28), -rng.uniform(0.08, 0.18)])
        bulge = np.array([0.0, rng.uniform(0.05, 0.08)])
        leaf = smooth(np.stack([root, (root + tip) / 2 - bulge, tip, (root + tip) / 2 + bulge]), count=32)
        parts += [Part(leaf, "leaf"), _stroke(np.stack([root, tip * 0.8 + root * 0.2]))]
    first = rng.uniform(0, 360)
    width = plump * np.pi * reach / petals
    for angle in first + np.arange(petals) * 360 / petals:
        petal = ellipse((x + (disc + reach) / 2, y), ((reach - disc) / 2 + 0.03, width * 0.62), count=24)
        crease = points((x + disc, y), (x + disc + (reach - disc) * 0.6, y))
        parts += [Part(turn(petal, angle, (x, y)), "paint"), _stroke(turn(crease, angle, (x, y)))]
    return (
        *parts,
        Part(ellipse((x, y), (disc, disc)), "accent"),
        _stroke(ellipse((x, y), (disc * 0.5, disc * 0.5))),
    )


def house(rng: np.random.Generator) -> Specimen:
    """Walls, a pitched roof with a chimney, a door and windows with crosses."""
    left, eaves, ground = rng.uniform(0.12, 0.22), rng.uniform(0.42, 0.52), rng.uniform(0.86, 0.92)
    right, ridge = 1 - left, rng.uniform(0.1, 0.2)
    over, flat = rng.uniform(0.03, 0.07), rng.uniform(0.0, 0.16)
    peak = 0.5 + rng.uniform(-0.05, 0.05)
    roof = points((left - over, eaves), (peak - flat, ridge), (peak + flat, ridge), (right + over, eaves))
    pipe = rng.choice([rng.uniform(0.26, 0.34), rng.uniform(0.64, 0.72)])
    door, wide, high = rng.uniform(0.4, 0.58), rng.uniform(0.12, 0.16), rng.uniform(0.24, 0.3)
    parts = [
        Part(rectangle(pipe - 0.04, ridge - 0.02, pipe + 0.04, eaves - 0.04), "accent"),
        Part(rectangle(left, eaves - 0.01, right, ground), "paint"),
    ]
    parts.append(Part(roof, "second"))
    for share in (0.36, 0.68):
        y = ridge + (eaves - ridge) * share
        parts.append(
            _straight(
                peak - flat - (peak - flat - left + over) * share,
                y,
                peak + flat + (right + over - peak - flat) * share,
                y,
            )
        )
    parts += [Part(rectangle(door - wide / 2, ground - high, door + wide / 2, ground), "wood")]
    parts.append(Part(ellipse((door + wide * 0.3, ground - high / 2), (0.014, 0.014)), "light"))
    half = rng.uniform(0.055, 0.075)
    y = eaves + rng.uniform(0.11, 0.14)
    for x in ((left + door - wide / 2) / 2, (right + door + wide / 2) / 2):
        parts.append(Part(rectangle(x - half, y - half, x + half, y + half), "glass"))
        parts += [_straight(x, y - half, x, y + half), _straight(x - half, y, x + half, y)]
    return tuple(parts)


def key(rng: np.random.Generator) -> Specimen:
    """A ring, a shaft with a collar and a bit with teeth."""
    ring, inner, y = rng.uniform(0.15, 0.2), rng.uniform(0.5, 0.64), rng.uniform(0.44, 0.5)
    x, thick = 0.06 + ring, rng.uniform(0.05, 0.07)
    squash = rng.uniform(0.85, 1.15)
    end = rng.uniform(0.92, 0.96)
    shaft = rectangle(x + ring * 0.8, y - thick / 2, end, y + thick / 2)
    teeth, depth = int(rng.integers(2, 4)), rng.uniform(0.11, 0.16)
    width = rng.uniform(0.045, 0.06)
    parts = [Part(shaft, "metal")]
    for tooth in range(teeth):
        left = end - width - 0.01 - tooth * (width + 0.025)
        parts.append(
            Part(
                rectangle(left, y + thick / 2 - 0.01, left + width, y + depth * rng.uniform(0.75, 1.1)),
                "metal",
            )
        )
    parts.append(Part(ellipse((x, y), (ring, ring * squash)), "metal"))
    parts.append(Part(ellipse((x, y), (ring * inner, ring * inner * squash)), "hole"))
    collar = x + ring + rng.uniform(0.03, 0.06)
    parts += [Part(rectangle(collar, y - thick * 0.85, collar + 0.035, y + thick * 0.85), "metal")]
    return (*parts, _straight(collar + 0.08, y, end - 0.24, y))


def tree(rng: np.random.Generator) -> Specimen:
    """A trunk with roots and boughs under a round, lobed crown."""
    high, wide = rng.uniform(0.23, 0.29), rng.uniform(0.28, 0.38)
    y, lobes = rng.uniform(0.33, 0.38), int(rng.integers(7, 12))
    thick = rng.uniform(0.045, 0.075)
    trunk = smooth(
        points(
            (0.5 - thick * 0.8, y),
            (0.5 - thick * 0.8, 0.78),
            (0.5 - thick * 2.2, 0.95),
            (0.5, 0.91),
            (0.5 + thick * 2.2, 0.95),
            (0.5 + thick * 0.8, 0.78),
            (0.5 + thick * 0.8, y),
        ),
        count=56,
    )
    angle = np.linspace(0, 360, 120, endpoint=False)
    bump = 1 + rng.uniform(0.06, 0.1) * (2 * np.abs(np.sin(np.radians(angle * lobes / 2 + rng.uniform(0, 360)))) - 1)
    round_ = ellipse((0.0, 0.0), (wide, high), count=120) * bump[:, None]
    parts = [Part(trunk, "wood"), Part(round_ + np.array([0.5, y]), "leaf")]
    for _ in range(int(rng.integers(4, 7))):
        far, where = np.sqrt(rng.uniform(0.02, 0.55)), rng.uniform(0, 2 * np.pi)
        spot = (0.5 + wide * far * np.cos(where), y + high * far * np.sin(where))
        parts.append(_stroke(ellipse(spot, (rng.uniform(0.05, 0.08), rng.uniform(0.035, 0.05)), 180, 350, count=12)))
    parts += [_straight(0.5, y + high * 1.02 + 0.06, 0.5 - thick * 0.2, 0.8)]
    return tuple(parts)


def umbrella(rng: np.random.Generator) -> Specimen:
    """An open canopy with ribs and a scalloped hem, a shaft and a hooked handle."""
    top, hem, half = rng.uniform(0.12, 0.18), rng.uniform(0.46, 0.54), rng.uniform(0.38, 0.45)
    panels, sag = int(rng.integers(4, 7)), rng.uniform(0.05, 0.08)
    dome = ellipse((0.5, hem), (half, hem - top), 180, 360, count=40)
    edges = np.linspace(0.5 + half, 0.5 - half, panels + 1)
    scallops = [ellipse(((a + b) / 2, hem), ((a - b) / 2, sag), 0, -180, count=10) for a, b in pairwise(edges)]
    bottom, hook = rng.uniform(0.84, 0.88), rng.uniform(0.05, 0.08)
    grip = np.concatenate([points((0.5, bottom - 0.1)), ellipse((0.5 - hook, bottom), (hook, hook), 0, 170, count=16)])
    parts = [
        Part(band(points((0.5, top - 0.05), (0.5, bottom - 0.08)), 0.022), "metal"),
        Part(band(grip, 0.035), "wood"),
    ]
    parts.append(Part(np.concatenate([dome, *scallops]), "paint"))
    for x in edges[1:-1]:
        bend = points((0.5, top), (0.5 + (x - 0.5) * 0.75, (top * 1.3 + hem * 0.7) / 2), (x, hem))
        parts.append(_stroke(smooth(bend, closed=False, count=14)))
    return tuple(parts)


KINDS: dict[str, Callable[[np.random.Generator], Specimen]] = {
    draw.__name__: draw for draw in (boat, butterfly, car, cup, fish, flower, house, key, tree, umbrella)
}
