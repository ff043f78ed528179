"""What was run, and how to run it again."""

from ucdir.report.facts import Reproduction
from ucdir.report.page.frame import Section
from ucdir.report.rendering import render

MEANINGS = {
    "frozen": "the backbone before training, no head",
    "last": "what the run ended with",
    "label-free": "chosen without labels",
    "oracle": "chosen with labels, only to compare",
    "aligned": "the backbone as it came, with what it was then tuned on",
}


def reproduction_section(again: Reproduction, notes: tuple[str, ...]) -> Section:
    """Commands, start weights, encoders, versions, settings."""
    body = render("reproduce", again=again, notes=notes, meanings=MEANINGS)
    return Section("again", "What was run", body, "The same command gives the same run.")
