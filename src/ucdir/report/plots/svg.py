"""Drawings as SVG text: inside the page, or as files that follow the reader's light or dark scheme by themselves."""

from html import escape

from ucdir.report.plots.marks import DARK, LIGHT, Box, Drawing, Line, Mark, Shape, Words

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def inline_svg(drawing: Drawing) -> str:
    """The drawing as an element of the page, whose style sheet colours it."""
    return _element(drawing, "".join(_mark(mark) for mark in drawing.marks))


def svg_file(drawing: Drawing) -> str:
    """The drawing as a file of its own, colours inside, on a card."""
    style = f"<style>{scheme_css()}{mark_css()}svg{{background:var(--card);font-family:{FONT}}}</style>"
    words = _mark(Words(12, 20, drawing.title, size=13, bold=True))
    lower = "".join(_mark(mark) for mark in drawing.marks)
    body = f'{style}<g>{words}</g><g transform="translate(0 28)">{lower}</g>'
    raised = Drawing(drawing.name, drawing.title, max(drawing.width, 7.4 * len(drawing.title) + 24), drawing.height + 28, ())
    return f'<?xml version="1.0" encoding="utf-8"?>\n{_element(raised, body, size=True)}\n'


def scheme_css() -> str:
    """The colours of both schemes as variables."""
    light, dark = (";".join(f"--{name}:{value}" for name, value in scheme.items()) for scheme in (LIGHT, DARK))
    return f":root{{color-scheme:light dark;{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def mark_css() -> str:
    """What the classes of marks mean: f-ROLE is filled, l-ROLE a line."""
    rules = "".join(f".f-{name}{{fill:var(--{name})}}.l-{name}{{stroke:var(--{name});fill:none}}" for name in LIGHT)
    return f"{rules}.bold{{font-weight:600}}"


def escaped(text: str) -> str:
    """Safe inside elements and quoted attributes, whatever a file is called."""
    printable = "".join(
        c if c.isprintable() or c == "\n" else "\ufffd" for c in text.encode("utf-8", "replace").decode("utf-8")
    )
    return escape(printable, quote=True)


def _element(drawing: Drawing, body: str, size: bool = False) -> str:
    width, height = f"{drawing.width:g}", f"{drawing.height:g}"
    fixed = f' width="{width}" height="{height}"' if size else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"{fixed} role="img" '
        f'aria-label="{escaped(drawing.title)}">{body}</svg>'
    )


def _mark(mark: Mark) -> str:
    match mark:
        case Line():
            return _line(mark)
        case Shape():
            return _shape(mark)
        case Box():
            return _box(mark)
        case Words():
            return _words(mark)


def _line(mark: Line) -> str:
    points = " ".join(f"{x:g},{y:g}" for x, y in mark.points)
    dashes = ' stroke-dasharray="4 3"' if mark.dashed else ""
    return f'<polyline class="l-{mark.role}" points="{points}" stroke-width="{mark.width:g}" stroke-linejoin="round"{dashes}/>'


def _shape(mark: Shape) -> str:
    x, y, r = mark.x, mark.y, mark.size
    data = "".join(f' data-{name}="{escaped(value)}"' for name, value in mark.data)
    opacity = f' opacity="{mark.opacity:g}"' if mark.opacity < 1 else ""
    role = f'class="l-{mark.role} mark" stroke-width="1.5"' if mark.kind == "ring" else f'class="f-{mark.role} mark"'
    rest = f"{role}{data}{opacity}"
    paths = {
        "square": f"M{x - r * 0.9:g} {y - r * 0.9:g}h{1.8 * r:g}v{1.8 * r:g}h{-1.8 * r:g}z",
        "diamond": f"M{x:g} {y - 1.25 * r:g}l{1.25 * r:g} {1.25 * r:g}l{-1.25 * r:g} {1.25 * r:g}l{-1.25 * r:g} {-1.25 * r:g}z",
        "triangle": f"M{x:g} {y - 1.2 * r:g}l{1.15 * r:g} {2 * r:g}h{-2.3 * r:g}z",
    }
    tag, place = ("path", f'd="{paths[mark.kind]}"') if mark.kind in paths else ("circle", f'cx="{x:g}" cy="{y:g}" r="{r:g}"')
    return _titled(tag, f"{place} {rest}", mark.title)


def _box(mark: Box) -> str:
    opacity = f' fill-opacity="{mark.opacity:.3g}"' if mark.opacity < 1 else ""
    place = f'x="{mark.x:g}" y="{mark.y:g}" width="{max(mark.width, 0):g}" height="{mark.height:g}"'
    return _titled("rect", f'{place} class="f-{mark.role}"{opacity}', mark.title)


def _words(mark: Words) -> str:
    anchor = "" if mark.anchor == "start" else f' text-anchor="{mark.anchor}"'
    turned = f' transform="rotate(-90 {mark.x:g} {mark.y:g})"' if mark.turned else ""
    bold = " bold" if mark.bold else ""
    place = f'x="{mark.x:g}" y="{mark.y:g}" font-size="{mark.size:g}"'
    return f'<text class="f-{mark.role}{bold}" {place}{anchor}{turned}>{escaped(mark.text)}</text>'


def _titled(tag: str, attributes: str, title: str) -> str:
    return f"<{tag} {attributes}><title>{escaped(title)}</title></{tag}>" if title else f"<{tag} {attributes}/>"
