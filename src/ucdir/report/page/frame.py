"""The frame of a report: one HTML file that asks nobody for anything, with its style and script inside."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from ucdir.report.plots.marks import Drawing
from ucdir.report.plots.svg import escaped, inline_svg, mark_css, scheme_css


@dataclass(frozen=True)
class Section:
    """A part of the page. `body` is HTML; `lead` a plain sentence under the heading."""

    anchor: str
    title: str
    body: str
    lead: str = ""


def page(title: str, kind: str, summary: Sequence[tuple[str, str]], sections: Sequence[Section], verdict: str = "") -> str:
    """The whole file.

    kind      what is reported on, in a word or two
    summary   (name, value) pairs at the top
    verdict   a plain sentence below them
    """
    style, script = f"{scheme_css()}{mark_css()}{_asset('report.css')}", _asset("report.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<li><a href="#{part.anchor}">{escaped(part.title)}</a></li>' for part in sections)
    facts = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in summary)
    said = f'<p class="verdict">{escaped(verdict)}</p>' if verdict else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escaped(title)} · ucdir report</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header class="top">
<p class="kind">{escaped(kind)}</p>
<h1>{escaped(title)}</h1>
<dl class="facts">{facts}</dl>{said}
</header>
<nav class="bar" aria-label="Sections"><ul>{links}</ul></nav>
<main id="content" tabindex="-1">
{"".join(map(_section, sections))}</main>
<footer>Made by <code>ucdir report</code>. This file holds everything it shows and asks for nothing from elsewhere.</footer>
<script>{script}</script>
</body>
</html>
"""


def _section(part: Section) -> str:
    lead = f'<p class="lead">{escaped(part.lead)}</p>' if part.lead else ""
    return f'<section id="{part.anchor}">\n<h2>{escaped(part.title)}</h2>{lead}\n{part.body}\n</section>\n'


def table(label: str, head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", strong: Sequence[int] = ()) -> str:
    """A table in a box that scrolls by itself. Cells are HTML, the first of each row is its name; `strong` rows are bold.

    label   plain words for those who cannot see it
    """
    said = f"<caption>{caption}</caption>" if caption else ""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(_row(row, number in strong) for number, row in enumerate(rows))
    return scrolled(label, f"<table>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>")


def heading(name: str) -> str:
    """A figure's name above its column; `capped` above its P@k, so that the column is as narrow as its figures."""
    return escaped(name).replace("capped ", "capped<br>")


def scrolled(label: str, body: str) -> str:
    """A box that scrolls by itself, by keyboard too; its edge is shaded where there is more to see."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(label)}">{body}</div>'


def command(text: str) -> str:
    """A line for a terminal, with a button that copies it where scripts run."""
    return (
        f'<div class="command"><pre tabindex="0"><code>{escaped(text)}</code></pre>'
        '<button type="button" class="copy" hidden>Copy</button></div>'
    )


def plot_card(drawing: Drawing, narrow: Drawing | None = None) -> str:
    """A plot on a card, wide ones scroll inside it. `narrow` takes its place where the screen is."""
    body = scrolled(drawing.title, inline_svg(drawing))
    if narrow is not None:
        body = f'<div class="wide">{body}</div><div class="narrow">{inline_svg(narrow)}</div>'
    return f'<figure class="card drawing"><figcaption><span>{escaped(drawing.title)}</span></figcaption>{body}</figure>'


def folded(title: str, body: str) -> str:
    """Something that is shown when asked for."""
    return f"<details><summary>{escaped(title)}</summary>{body}</details>"


def listed(items: Sequence[str]) -> str:
    """Plain sentences as a list."""
    return f"<ul class='plain'>{''.join(f'<li>{escaped(item)}</li>' for item in items)}</ul>" if items else ""


def _row(cells: Sequence[str], strong: bool) -> str:
    first, *rest = cells
    name = f'<th scope="row">{first}</th>'
    return f"<tr{' class=strong' if strong else ''}>{name}{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>"


def _asset(name: str) -> str:
    return resources.files("ucdir.report.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
