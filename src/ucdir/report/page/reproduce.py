"""What was run, and how to run it again."""

from ucdir.report.facts import EncoderFact, Reproduction
from ucdir.report.page.frame import Section, command, folded, listed, table
from ucdir.report.plots.svg import escaped

MEANING = {
    "frozen": "the backbone before training, no head",
    "last": "what the run ended with",
    "label-free": "chosen without labels",
    "oracle": "chosen with labels, only to compare",
    "aligned": "the backbone as it came, with what it was then tuned on",
}


def reproduction_section(again: Reproduction, notes: tuple[str, ...]) -> Section:
    """Commands, start weights, encoders, versions, settings."""
    rows = [_encoder(fact) for fact in again.encoders]
    versions = " · ".join(f"{escaped(name)} {escaped(number)}" for name, number in again.versions)
    when = f"The log begins {again.when[0]} and ends {again.when[1]}. " if again.when else ""
    body = (
        f'{command(again.command)}{listed(again.notes)}<div class="two">'
        f'<div class="card"><h3>Where the weights came from</h3><p class="wrap">{escaped(again.start)}.</p>'
        f'<p class="said">{escaped(again.labels_said)}</p></div>'
        f'<div class="card"><h3>More of this run</h3>{"".join(map(command, again.others))}</div></div>'
        f"{table('encoders of the run', ('encoder', 'what it is', 'epoch', 'fingerprint'), rows)}"
        f'<p class="small">{when}This report was made with {versions}.</p>'
        f"{folded('All settings of the run', f'<pre class=settings tabindex=0>{escaped(again.settings)}</pre>')}"
    )
    if notes:
        body = f'<div class="notice" role="note">{listed(notes)}</div>{body}'
    return Section("again", "What was run", body, "The same command gives the same run.")


def _encoder(fact: EncoderFact) -> list[str]:
    same = f' <span class="tag">same as {fact.same_as}</span>' if fact.same_as else ""
    mark = f"<code>{fact.fingerprint[:12]}</code>"
    epoch = str(fact.epoch) if fact.epoch is not None else "–"
    tag = ' <span class="tag oracle">uses labels</span>' if fact.kind == "oracle" else ""
    return [f"{fact.kind}{tag}", MEANING[fact.kind], epoch, f'<span title="{fact.fingerprint}">{mark}</span>{same}']
