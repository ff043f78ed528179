"""What `ucdir index` did, in lines for people and as one JSON document."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ucdir.gallery.update import IndexResult

MAX_LISTED = 5


def index_lines(result: IndexResult) -> Iterator[str]:
    """What was skipped, what changed, what the gallery holds now."""
    for error in result.unreadable[:MAX_LISTED]:
        yield f"skipped {error.path}: {error.reason}"
    if len(result.unreadable) > MAX_LISTED:
        yield f"and {len(result.unreadable) - MAX_LISTED:,} more skipped; gallery.json lists all"
    changes = result.changes
    counts = {name: getattr(changes, name) for name in ("added", "changed", "moved", "removed")}
    what = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing changed"
    yield f"{what}; {changes.unchanged:,} unchanged, {changes.embedded:,} embedded."
    domains = ", ".join(f"{name} {count:,}" for name, count in result.domains)
    yield f"Gallery {result.gallery}: {result.count:,} images ({domains}), {len(result.unreadable):,} unreadable."


def index_document(result: IndexResult) -> dict[str, Any]:
    """Plain data: gallery, count, domains, changes, unreadable."""
    return {
        "gallery": result.gallery,
        "count": result.count,
        "domains": dict(result.domains),
        "changes": asdict(result.changes),
        "unreadable": [{"path": error.path, "reason": error.reason} for error in result.unreadable],
    }
