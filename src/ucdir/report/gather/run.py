"""Gather the facts of a report on a run: read the run folder, embed its images once with each encoder, score, pick, project."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ucdir.embedding.backbone_features import embed_with
from ucdir.embedding.compute import Compute
from ucdir.images.domains import Domain, class_ids
from ucdir.learn.run_log import ListedImage, listed_images
from ucdir.model.encoder import Encoder
from ucdir.progress import Progress
from ucdir.report.facts import DomainFacts, MapFacts, MapPoint, RunFacts
from ucdir.report.gather.hits import SHOWN, ShownImages, run_directions, run_scores
from ucdir.report.gather.matches import find_matches
from ucdir.report.gather.run_files import ALWAYS, KINDS, encoder_facts, how_to_reproduce, read_curves
from ucdir.scoring.picks import sample_rows, shares
from ucdir.scoring.projection import principal_plane
from ucdir.settings import stored_settings

EXAMPLES, MOST_IMAGES, MOST_ON_MAP = 12, 20_000, 1_500


@dataclass(frozen=True)
class ReportOptions:
    """How images are embedded for a report, and the seed of every draw."""

    compute: Compute
    seed: int
    progress: Progress


def gather_run(folder: Path, options: ReportOptions) -> RunFacts:
    """Everything about the run in `folder`; UcdirError when it is not finished, or its encoders are damaged."""
    settings = stored_settings(folder)
    curves = None if settings.aligns else read_curves(folder)
    encoders = {kind: Encoder.load(folder / part) for kind, part in KINDS.items() if kind in ALWAYS or (folder / part).is_dir()}
    facts = encoder_facts(folder, encoders, {} if curves is None else curves.chosen)
    distinct = {fact.kind: encoders[fact.kind] for fact in facts if fact.same_as is None}
    images = listed_images(folder)
    present, notes = _present(images, options.seed)
    shown, domains = _embed_all(images, present, distinct, {fact.kind: fact.same_as or fact.kind for fact in facts}, options)
    class_names, _ = class_ids([part.domain for part in shown])
    scores, unscored = run_scores(shown, class_names, facts, options.progress)
    usable = len(shown) > 1 and all(len(part.domain) for part in shown)
    groups, pairs = find_matches([part.domain for part in shown], [part.rows["last"] for part in shown]) if usable else ((), ())
    return RunFacts(
        name=folder.absolute().name,
        again=how_to_reproduce(folder, settings, encoders["last"], facts),
        domains=domains,
        curves=curves,
        learned="trained (last epoch)" if curves is not None else _learned(encoders["last"].config.rows),
        scores=scores,
        unscored=unscored,
        class_names=class_names,
        directions=run_directions(shown, class_names, scores) if usable else (),
        map=_map(shown, options.seed) if usable else None,
        groups=groups,
        pairs=pairs,
        root=_root(images),
        notes=notes,
    )


def _learned(rows: str) -> str:
    """The name of an encoder without epochs in the tables, which already have a row for each training-free method."""
    return rows if rows in ("aligned", "tuned") else f"{rows}, as the run ended"


# Images


def _present(images: Sequence[ListedImage], seed: int) -> tuple[tuple[Domain, ...], tuple[str, ...]]:
    """Of each domain the images that are still there; of very many a part, drawn from the seed. And sentences about it."""
    names = list(dict.fromkeys(image.domain for image in images))
    kept = {name: [i for i in images if i.domain == name and not i.skipped and os.path.exists(i.path)] for name in names}  # noqa: PTH110
    wanted = sum(not image.skipped for image in images)
    here = sum(map(len, kept.values()))
    notes = []
    if here < wanted:
        notes.append(f"{wanted - here:,} of the {wanted:,} images of the run no longer exist; this report leaves them out.")
    parts = shares([len(part) for part in kept.values()], MOST_IMAGES)
    if sum(parts) < here:
        notes.append(
            f"Scores, grids and maps cover {sum(parts):,} of {here:,} images, drawn with seed {seed}, the same fraction of "
            "each domain. ucdir evaluate scores all."
        )
    chosen = (
        [part[row] for row in sample_rows(len(part), most, seed)] for part, most in zip(kept.values(), parts, strict=True)
    )
    return tuple(_domain(name, part) for name, part in zip(names, chosen, strict=True)), tuple(notes)


def _domain(name: str, images: Sequence[ListedImage]) -> Domain:
    classes = tuple(image.class_name for image in images)
    return Domain(name, tuple(Path(image.path) for image in images), classes if any(classes) else None, Path(name))


def _embed_all(
    images: Sequence[ListedImage],
    present: Sequence[Domain],
    encoders: Mapping[str, Encoder],
    same: Mapping[str, str],
    options: ReportOptions,
) -> tuple[tuple[ShownImages, ...], tuple[DomainFacts, ...]]:
    """Each image once with each distinct encoder; images that cannot be read now are left out everywhere."""
    with options.progress("embedding", len(encoders) * sum(map(len, present))) as advance:
        found = [embed_with(encoders, domain.paths, options.compute, advance, domain.name) for domain in present]
    _, labels = class_ids(present)
    first = [next(iter(part.values())) for part in found]
    shown, facts = [], []
    for number, domain in enumerate(present):
        ids = first[number].image_ids
        rows = {kind: found[number][source].rows for kind, source in same.items()}
        shown.append(ShownImages(domain.subset(ids.tolist()), labels[number][ids.numpy()], rows))
        errors = tuple((error.path, error.reason) for error in first[number].unreadable)
        facts.append(_domain_facts(images, shown[-1].domain, errors, options.seed))
    return tuple(shown), tuple(facts)


def _domain_facts(images: Sequence[ListedImage], shown: Domain, errors: tuple[tuple[str, str], ...], seed: int) -> DomainFacts:
    own = [image for image in images if image.domain == shown.name]
    used = [image for image in own if not image.skipped]
    told = {path for path, _ in errors}
    gone = [image.path for image in used if not os.path.exists(image.path)]  # noqa: PTH110
    counts = Counter(image.class_name for image in used if image.class_name)
    examples = tuple(shown.paths[row] for row in sample_rows(len(shown), EXAMPLES, seed))
    return DomainFacts(
        name=shown.name,
        listed=len(used),
        shown=len(shown),
        missing=tuple(path for path in gone if path not in told),
        skipped=tuple((image.path, image.skipped) for image in own if image.skipped),
        unreadable=errors,
        classes=dict(sorted(counts.items())) if counts else None,
        examples=examples,
    )


def _root(images: Sequence[ListedImage]) -> Path:
    """The folder that contains all images."""
    folders = {os.path.dirname(image.path) for image in images}  # noqa: PTH120
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        return Path(os.sep)


# The map


def _map(shown: Sequence[ShownImages], seed: int) -> MapFacts:
    parts = shares([len(part.domain) for part in shown], MOST_ON_MAP)
    rows = [sample_rows(len(part.domain), most, seed) for part, most in zip(shown, parts, strict=True)]
    points = tuple(
        MapPoint(number, int(part.labels[row]), part.domain.paths[row])
        for number, (part, chosen) in enumerate(zip(shown, rows, strict=True))
        for row in chosen
    )
    planes = {
        name: principal_plane(
            np.concatenate([part.rows[kind].numpy()[chosen] for part, chosen in zip(shown, rows, strict=True)])
        )
        for name, kind in SHOWN.items()
    }
    return MapFacts(points, planes)
