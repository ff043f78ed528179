"""Drawings as SVG text: inside the page, or as files that follow the reader's light or dark scheme by themselves."""

from markupsafe import Markup

from ucdir.palette import LIGHT, palette_css
from ucdir.report.plots.marks import Drawing, Shape, Words
from ucdir.report.rendering import ENVIRONMENT, render

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
TITLE = 28  # px


def inline_svg(drawing: Drawing) -> Markup:
    """The drawing as an element of the page, whose style sheet colours it."""
    return render("inline.svg", drawing=drawing)


def svg_file(drawing: Drawing) -> str:
    """The drawing as a file of its own, colours inside, on a card."""
    style = f"{palette_css()}{mark_css()}svg{{background:var(--card);font-family:{FONT}}}"
    title = Words(12, 20, drawing.title, size=13, bold=True)
    size = (max(drawing.width, 7.4 * len(drawing.title) + 24), drawing.height + TITLE)
    return render("file.svg", drawing=drawing, title=title, size=size, lower=TITLE, style=Markup(style))


def mark_css() -> str:
    """What the classes of marks mean: f-ROLE is filled, l-ROLE a line."""
    colours = [role for role, value in LIGHT.items() if value.startswith("#")]
    rules = "".join(f".f-{role}{{fill:var(--{role})}}.l-{role}{{stroke:var(--{role});fill:none}}" for role in colours)
    return f"{rules}.bold{{font-weight:600}}"


def outline(mark: Shape) -> str:
    """The path of a shape with corners; empty for a disc or a ring."""
    x, y, r = mark.x, mark.y, mark.size
    paths = {
        "square": f"M{x - r * 0.9:g} {y - r * 0.9:g}h{1.8 * r:g}v{1.8 * r:g}h{-1.8 * r:g}z",
        "diamond": f"M{x:g} {y - 1.25 * r:g}l{1.25 * r:g} {1.25 * r:g}l{-1.25 * r:g} {1.25 * r:g}l{-1.25 * r:g} {-1.25 * r:g}z",
        "triangle": f"M{x:g} {y - 1.2 * r:g}l{1.15 * r:g} {2 * r:g}h{-2.3 * r:g}z",
    }
    return paths.get(mark.kind, "")


ENVIRONMENT.globals |= {"svg": inline_svg, "outline": outline}
