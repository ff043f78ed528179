"""What went in: images, what was left out and why, classes."""

from collections.abc import Sequence

from ucdir.report.facts import DomainFacts
from ucdir.report.page.frame import Section, folded, table
from ucdir.report.page.pictures import Pictures
from ucdir.report.plots.svg import escaped

MAX_REASONS = 200


def data_section(domains: Sequence[DomainFacts], pictures: Pictures) -> Section:
    """A card for each domain, then the table of classes."""
    cards = "".join(_domain(domain, pictures) for domain in domains)
    lead = "The images the run learned from. Training read no classes; only the scores below do, if there are any."
    return Section("data", "Data", f'<div class="two">{cards}</div>{_classes(domains)}', lead)


def _domain(domain: DomainFacts, pictures: Pictures) -> str:
    said = [f"<b>{domain.listed:,}</b> images"]
    said += [f"<b>{len(domain.skipped):,}</b> left out as unreadable"] if domain.skipped else ["none left out"]
    said += [f"<b>{len(domain.missing):,}</b> gone since"] if domain.missing else []
    said += [f"<b>{len(domain.unreadable):,}</b> unreadable now"] if domain.unreadable else []
    shown = "".join(
        f'<li title="{escaped(pictures.name(path))}">{pictures.tag(path, pictures.name(path))}</li>' for path in domain.examples
    )
    return (
        f'<div class="card domain"><h3>{escaped(domain.name)}</h3><p>{", ".join(said)}</p>'
        f'<ul class="tiles">{shown}</ul>{_reasons(domain)}</div>'
    )


def _reasons(domain: DomainFacts) -> str:
    found = [*domain.skipped, *((path, "gone since") for path in domain.missing), *domain.unreadable]
    if not found:
        return ""
    lines = "".join(f"<li><code>{escaped(path)}</code>: {escaped(reason)}</li>" for path, reason in found[:MAX_REASONS])
    more = f"<p>and {len(found) - MAX_REASONS:,} more, in images.csv</p>" if len(found) > MAX_REASONS else ""
    return folded(f"Left out, with reasons ({len(found):,})", f'<ul class="plain wrap">{lines}</ul>{more}')


def _classes(domains: Sequence[DomainFacts]) -> str:
    names = sorted({name for domain in domains for name in domain.classes or ()})
    if not names:
        return '<p class="small">No classes are known, so nothing below tells right hits from wrong ones.</p>'
    head = ["class", *(escaped(domain.name) for domain in domains)]
    rows = [[escaped(name), *(f"{(domain.classes or {}).get(name, 0):,}" for domain in domains)] for name in names]
    return folded(f"Images of each class ({len(names):,} classes)", table("images of each class", head, rows))
