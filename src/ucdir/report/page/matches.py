"""What the domains have in common: groups that correspond, side by side, and groups without a partner."""

from collections.abc import Iterator, Sequence

from ucdir.report.match_tables import GROUPS, PAIRS, FoundGroup
from ucdir.report.page.frame import Section
from ucdir.report.page.pictures import Pictures
from ucdir.report.rendering import render

MAX_CORRESPONDENCES = 24  # correspondences that are shown


def matches_section(groups: Sequence[FoundGroup], pictures: Pictures) -> Section:
    """Pairs of groups, the most certain first, then groups without a partner."""
    alone = [group for group in groups if not group.partners]
    body = render(
        "matches",
        summary=_summary(groups, alone),
        links=sorted(_links(groups), key=lambda link: -link[2]),
        alone=alone,
        most=MAX_CORRESPONDENCES,
        typical=lambda group: [pictures.picture(path) for path in group.typical],
    )
    lead = (
        "Groups of images that the encoder finds similar, found without labels. Two groups correspond if the images of each "
        f"find those of the other; certainty is the fraction that do. {GROUPS} lists all groups, {PAIRS} the best candidates "
        "of every image."
    )
    return Section("matches", "What was found", body, lead)


def _links(groups: Sequence[FoundGroup]) -> Iterator[tuple[FoundGroup, FoundGroup, float]]:
    """Every two groups that correspond, once."""
    numbered = {(group.domain, group.number): (place, group) for place, group in enumerate(groups)}
    for place, group in enumerate(groups):
        for domain, number, certainty in group.partners:
            there, partner = numbered[domain, number]
            if place < there:
                yield group, partner, certainty


def _summary(groups: Sequence[FoundGroup], alone: Sequence[FoundGroup]) -> str:
    names = dict.fromkeys(group.domain for group in groups)
    counts = [f"{name} {sum(group.domain == name for group in groups)}" for name in names]
    lone = [f"{sum(group.domain == name for group in alone)} of {name}" for name in names]
    without = f"without a partner: {', '.join(lone)}" if alone else "each has a partner"
    return f"Groups: {', '.join(counts)}; {without}."
