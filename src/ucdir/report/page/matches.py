"""What the domains have in common: groups that correspond, side by side, and groups without a partner."""

from collections.abc import Iterator, Sequence

from ucdir.report.match_tables import GROUPS, PAIRS, FoundGroup
from ucdir.report.page.frame import Section, folded
from ucdir.report.page.pictures import Pictures
from ucdir.report.plots.svg import escaped

MAX_CORRESPONDENCES = 24  # correspondences that are shown


def matches_section(groups: Sequence[FoundGroup], pictures: Pictures) -> Section:
    """Pairs of groups, the most certain first, then groups without a partner."""
    links = sorted(_links(groups), key=lambda link: -link[2])
    pairs = [_pair(*link, pictures) for link in links]
    alone = [group for group in groups if not group.partners]
    body = f"<p>{escaped(_summary(groups, alone))}</p>{''.join(pairs[:MAX_CORRESPONDENCES])}"
    if len(pairs) > MAX_CORRESPONDENCES:
        body += folded(f"{len(pairs) - MAX_CORRESPONDENCES:,} less certain ones", "".join(pairs[MAX_CORRESPONDENCES:]))
    if alone:
        cards = "".join(_group(group, pictures) for group in alone)
        body += f'<h3>Without a partner</h3><div class="two">{cards}</div>'
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


def _pair(one: FoundGroup, other: FoundGroup, certainty: float, pictures: Pictures) -> str:
    return (
        f'<div class="match"><p class="sure">certainty <b>{certainty:.2f}</b></p>'
        f'<div class="two">{_group(one, pictures)}{_group(other, pictures)}</div></div>'
    )


def _group(group: FoundGroup, pictures: Pictures) -> str:
    tiles = "".join(
        f'<li title="{escaped(pictures.name(path))}">{pictures.tag(path, pictures.name(path))}</li>' for path in group.typical
    )
    return (
        f'<div class="card"><h3>{escaped(group.domain)}, group {group.number} <small>{group.images:,} images</small></h3>'
        f'<ul class="tiles">{tiles}</ul></div>'
    )
