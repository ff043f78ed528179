"""What a training writes to its run folder on the way."""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ucdir.errors import ImageError, UcdirError
from ucdir.images.domains import Domain
from ucdir.learn.trainer import EpochReport
from ucdir.run_folder import IMAGES, LOG, METRICS, TENSORBOARD
from ucdir.storage import atomic_file, clear_write_errors, write_text


def write_images(folder: Path, domains: Sequence[Domain], skipped: Mapping[str, Sequence[ImageError]]) -> None:
    """Record which image has which id: images.csv with columns domain, path, class, skipped (the reason, or empty)."""
    with (
        atomic_file(folder / IMAGES) as draft,
        draft.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened,
    ):
        table = csv.writer(opened)
        table.writerow(("domain", "path", "class", "skipped"))
        for domain in domains:
            classes = domain.classes or [None] * len(domain)
            table.writerows((domain.name, path, name or "", "") for path, name in zip(domain.paths, classes, strict=True))
            table.writerows((domain.name, error.path, "", error.reason) for error in skipped[domain.name])


@dataclass(frozen=True)
class ListedImage:
    """A line of images.csv; `skipped` is the reason why the run left the image out, or empty."""

    domain: str
    path: str
    class_name: str | None
    skipped: str


def restrict_to_images(folder: Path, domains: Sequence[Domain], also_skipped: bool = False) -> tuple[Domain, ...]:
    """The domains with exactly the images, in the order, that the run in `folder` began with.

    Images that were added since are left out; one that is gone ends in UcdirError.

    also_skipped  with those that could not be read then, so that they are skipped once more
    """
    used = [image for image in listed_images(folder) if also_skipped or not image.skipped]
    return tuple(_restricted(domain, [image.path for image in used if image.domain == domain.name]) for domain in domains)


def skipped_images(folder: Path) -> tuple[ImageError, ...]:
    """The unreadable images that the run in `folder` left out."""
    return tuple(ImageError(image.path, image.skipped) for image in listed_images(folder) if image.skipped)


def listed_images(folder: Path) -> tuple[ListedImage, ...]:
    """All images of the run in `folder`, from images.csv; UcdirError when that cannot be read."""
    file = folder / IMAGES
    try:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as opened:
            rows = csv.DictReader(opened)
            return tuple(ListedImage(row["domain"], row["path"], row["class"] or None, row["skipped"]) for row in rows)
    except (OSError, KeyError, csv.Error) as error:
        raise UcdirError(
            f"'{file}' cannot be read, so the images of this run are unknown (columns domain, path, class, skipped are "
            "expected). Start again with --overwrite."
        ) from error


def _restricted(domain: Domain, wanted: Sequence[str]) -> Domain:
    rows = {str(path): row for row, path in enumerate(domain.paths)}
    gone = [path for path in wanted if path not in rows]
    if gone:
        raise UcdirError(
            f"{len(gone)} images of domain '{domain.name}' that this run was trained on are gone, for example '{gone[0]}'. "
            "Put them back, or start again with --overwrite."
        )
    return domain.subset([rows[path] for path in wanted])


class RunLog:
    """metrics.jsonl, train.log and TensorBoard events of a run folder."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        """Continue the logs of `folder` after `epochs_done` epochs; lines of later epochs are dropped."""
        self.folder = folder
        self.file = folder / METRICS
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True) if self.file.exists() else []
        write_text(self.file, "".join(line for line in lines if _epoch_of(line) <= epochs_done))
        self.board = _tensorboard(folder, epochs_done)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.board is not None:
            self.board.close()

    def line(self, sentence: str) -> None:
        """Append a timestamped line to train.log."""
        file = self.folder / LOG
        with clear_write_errors(file), file.open("a", encoding="utf-8", errors="surrogateescape") as opened:
            opened.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence}\n")

    def epoch(self, report: EpochReport, oracle: Mapping[str, float] | None) -> None:
        """Add the figures of an epoch everywhere."""
        figures = epoch_figures(report, oracle)
        with clear_write_errors(self.file), self.file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(figures) + "\n")
        if self.board is not None:
            for section, values in figures.items():
                if isinstance(values, dict):
                    for name, value in values.items():
                        self.board.add_scalar(f"{section}/{name}", value, report.epoch)
            self.board.flush()


def epoch_figures(report: EpochReport, oracle: Mapping[str, float] | None) -> dict[str, Any]:
    """One line of metrics.jsonl. Epochs count from 1; `oracle` (scores with labels) only where classes exist."""
    figures: dict[str, Any] = {
        "epoch": report.epoch,
        "terms": dict(report.terms),
        "weights": dict(report.weights),
        "label_free": asdict(report.label_free),
        "collapsed": list(report.collapsed),
        "speed": {
            "learning_rate": report.learning_rate,
            "train_seconds": report.train_seconds,
            "embed_seconds": report.embed_seconds,
            "images_per_second": report.images_per_second,
        },
    }
    return figures if oracle is None else {**figures, "oracle": dict(oracle)}


def _epoch_of(line: str) -> int:
    with suppress(ValueError, KeyError, TypeError):
        return int(json.loads(line)["epoch"])
    return 2**31  # half a line of a killed run


def _tensorboard(folder: Path, epochs_done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / TENSORBOARD), purge_step=epochs_done + 1)
