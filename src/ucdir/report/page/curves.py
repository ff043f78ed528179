"""How terms and scores went over the epochs."""

from collections.abc import Iterator
from dataclasses import dataclass

from ucdir.report.facts import Curves, Series
from ucdir.report.page.frame import Section
from ucdir.report.plots.curves import curve, said
from ucdir.report.plots.marks import Drawing
from ucdir.report.rendering import render

HEADINGS = {
    "label_free": ("Label-free scores", "Computed without any label; the label-free epoch is chosen by them."),
    "oracle": ("Oracle scores", "Computed with labels, only to compare: nothing that was learned has seen them."),
    "terms": (
        "Terms",
        "Means over the steps of an epoch; drawn where a term's weight is above 0. The total is their sum times their weights: "
        "it rises while a weight rises, even if every term falls.",
    ),
    "weights": ("Weights of the terms", "What each term counts in the total."),
    "speed": ("Learning rate and speed", ""),
}
MEANINGS = {
    "cycle_agreement": "Share of images whose nearest image across domains leads back to their own cluster. Larger is better.",
    "cluster_stability": "Share of image pairs that are together or apart as in the epoch before. Near 1: settled.",
    "centre_similarity": "How near the mean embeddings of the domains are. Large when the domains overlap.",
    "cluster_information": "What the cluster of the nearest image across domains tells of one's own (nats). Larger is better.",
    "training_free_agreement": "Share of first hits that the frozen backbone, smoothed, finds too. Small: they contradict it.",
    "score": "Cluster information × training-free agreement. Larger is better: the largest is the label-free epoch.",
}  # of the label-free scores
FOLDED = ("weights", "speed")
FIRST = ("learning_rate",)


@dataclass(frozen=True)
class Plot:
    """A small plot; `drawing` is None if the weight of the term was always 0."""

    name: str
    last: str
    meaning: str
    drawing: Drawing | None


@dataclass(frozen=True)
class Group:
    """Plots of one section of metrics.jsonl."""

    title: str
    lead: str
    plots: tuple[Plot, ...]
    is_folded: bool
    is_oracle: bool


def curves_section(curves: Curves) -> Section:
    """A small plot for every name in metrics.jsonl."""
    sections = dict.fromkeys(series.section for series in curves.series)
    order = [name for name in HEADINGS if name in sections] + [name for name in sections if name not in HEADINGS]
    lead = (
        "Point at a plot, tap it, or focus it and use the arrow keys: every plot then shows its value at that epoch. "
        "Dashed lines mark the epochs whose encoders were kept."
    )
    return Section("curves", "Over the epochs", render("curves", groups=[_group(name, curves) for name in order]), lead)


def curve_drawings(curves: Curves) -> Iterator[Drawing]:
    """Every plot of the section."""
    return (curve(series, curves.epochs, curves.chosen) for series in curves.series)


def _group(section: str, curves: Curves) -> Group:
    title, lead = HEADINGS.get(section, (section, ""))
    found = sorted((s for s in curves.series if s.section == section), key=lambda s: s.name not in FIRST)
    return Group(title, lead, tuple(_plot(series, curves) for series in found), section in FOLDED, section == "oracle")


def _plot(series: Series, curves: Curves) -> Plot:
    last = series.values[-1]
    shown = said(series, last) if last is not None else "off"
    meaning = MEANINGS.get(series.name, "") if series.section == "label_free" else ""
    is_drawn = any(value is not None for value in series.values)
    drawing = curve(series, curves.epochs, curves.chosen) if is_drawn else None
    return Plot(series.name.replace("_", " "), shown, meaning, drawing)
