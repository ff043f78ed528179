"""Figures that others published for the public data sets, each with its source. They start from MoCo v2 and a ResNet-50."""

from collections.abc import Collection

from ucdir.report.benchmark_facts import ALL, PublishedFigure

UEM = "mean of 3 seeds, as reported by UEM (NeurIPS 2024)"
RERUN = "a rerun of the released UCDIR code by others"
CLASSES = {"domainnet": 7, "office-home": 65}  # that the figures are about
AVERAGES = {
    "domainnet": {"UCDIR": 0.304, "CoDA": 0.304, "DG-UCDIR": 0.308, "UEM": 0.344},
    "office-home": {"UCDIR": 0.487, "CoDA": 0.468, "DG-UCDIR": 0.493, "UEM": 0.524},
}
OFFICE_HOME_RERUN = {
    ("product", "clipart"): {"capped P@1": 0.420, "capped P@5": 0.394, "capped P@15": 0.348},
    ("clipart", "product"): {"capped P@1": 0.281, "capped P@5": 0.280, "capped P@15": 0.270},
}


def published_figures(
    name: str, num_classes: int, pairs: Collection[frozenset[str]], whole: bool
) -> tuple[PublishedFigure, ...]:
    """What is known of a data set: single directions of `pairs`, and the averages where these are the `whole` data set."""
    if CLASSES.get(name) != num_classes:
        return ()
    averages = [PublishedFigure(ALL, ALL, method, "mAP@All", value, UEM) for method, value in AVERAGES[name].items() if whole]
    single = [
        PublishedFigure(query, gallery, "UCDIR", metric, value, RERUN)
        for (query, gallery), figures in (OFFICE_HOME_RERUN if name == "office-home" else {}).items()
        for metric, value in figures.items()
        if frozenset((query, gallery)) in pairs
    ]
    return (*averages, *single)
