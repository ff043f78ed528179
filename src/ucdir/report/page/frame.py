"""The frame of a report: one HTML file that asks nobody for anything, with its style and script inside."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ucdir.palette import palette_css
from ucdir.report.plots.svg import mark_css
from ucdir.report.rendering import asset, render


@dataclass(frozen=True)
class Section:
    """A part of the page. `lead` is a plain sentence under the heading."""

    anchor: str
    title: str
    body: Markup
    lead: str = ""


def page(title: str, kind: str, summary: Sequence[tuple[str, str]], sections: Sequence[Section], verdict: str = "") -> str:
    """The whole file.

    kind      what is reported on, in a word or two
    summary   (name, value) pairs at the top
    verdict   a plain sentence below them
    """
    style = Markup(f"{palette_css()}{mark_css()}{asset('report.css')}")
    parts = {"title": title, "kind": kind, "summary": summary, "sections": sections, "verdict": verdict}
    return render("page", style=style, script=asset("report.js"), **parts)
