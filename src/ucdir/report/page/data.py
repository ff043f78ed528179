"""What went in: images, what was left out and why, classes."""

from collections.abc import Sequence

from ucdir.report.facts import DomainFacts
from ucdir.report.page.frame import Section
from ucdir.report.page.pictures import Pictures
from ucdir.report.rendering import render

MAX_REASONS = 200


def data_section(domains: Sequence[DomainFacts], pictures: Pictures) -> Section:
    """A card for each domain, then the table of classes."""
    names = sorted({name for domain in domains for name in domain.classes or ()})
    body = render(
        "data",
        domains=domains,
        examples={domain.name: [pictures.picture(path) for path in domain.examples] for domain in domains},
        left_out={domain.name: _left_out(domain) for domain in domains},
        most=MAX_REASONS,
        head=["class", *(domain.name for domain in domains)],
        classes=[[name, *(f"{(domain.classes or {}).get(name, 0):,}" for domain in domains)] for name in names],
    )
    lead = "The images the run learned from. Training read no classes; only the scores below do, if there are any."
    return Section("data", "Data", body, lead)


def _left_out(domain: DomainFacts) -> list[tuple[str, str]]:
    """(path, reason) of all images that were not used."""
    return [*domain.skipped, *((path, "gone since") for path in domain.missing), *domain.unreadable]
