"""What the files of a run folder tell: the log, what was kept, and how to run it again."""

import platform
import re
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ucdir import __version__
from ucdir.errors import UcdirError
from ucdir.learn.checkpoint import load_checkpoint
from ucdir.model.encoder import Encoder
from ucdir.model.pretrained import WITHOUT_FILE
from ucdir.report.facts import Curves, EncoderFact, Reproduction, Series
from ucdir.run_folder import ALIGNED, CHECKPOINT, CHOSEN, ENCODER, FROZEN, LOG, SETTINGS, read_epochs
from ucdir.settings import Settings

ALWAYS = {"frozen": FROZEN, "last": ENCODER}
KINDS = {**ALWAYS, **CHOSEN, "aligned": ALIGNED}  # folders of the encoders that are scored, if a run has them
NEVER = "Training read no labels of your images; classes, if any, were used only to choose the oracle epoch and for the scores."
LOG_TIME = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) ", re.MULTILINE)


def read_curves(folder: Path) -> Curves:
    """metrics.jsonl: whatever names are in it. A term has no value in epochs in which its weight is 0."""
    lines = read_epochs(folder)
    if not lines:
        raise UcdirError(
            f"the run '{folder}' has no finished epoch: no line in its metrics.jsonl. "
            f"Let it finish an epoch: ucdir train --out {shlex.quote(str(folder))} --resume"
        )
    epochs = tuple(int(line["epoch"]) for line in lines)
    names = dict.fromkeys((section, name) for line in lines for section, part in line.items() for name in _numbers(part))
    series = tuple(Series(section, name, tuple(_value(line, section, name) for line in lines)) for section, name in names)
    return Curves(epochs, series, {"last": epochs[-1], **_chosen(folder)})


def _numbers(part: Any) -> dict[str, float]:
    items = part.items() if isinstance(part, dict) else ()
    return {name: float(value) for name, value in items if isinstance(value, int | float) and not isinstance(value, bool)}


def _value(line: Mapping[str, Any], section: str, name: str) -> float | None:
    value = _numbers(line.get(section)).get(name)
    off = section == "terms" and _numbers(line.get("weights")).get(name) == 0
    return None if value is None or off or not np.isfinite(value) else value


def _chosen(folder: Path) -> dict[str, int]:
    """Epochs of the label-free and the oracle encoder, from the checkpoint; none where that is gone or damaged."""
    try:
        return {kind: best.epoch for kind, best in load_checkpoint(folder / CHECKPOINT).best.items()}
    except UcdirError:
        return {}


def encoder_facts(folder: Path, encoders: Mapping[str, Encoder], chosen: Mapping[str, int]) -> tuple[EncoderFact, ...]:
    """The facts about each encoder; one with the same weights as an earlier one names it."""
    facts: list[EncoderFact] = []
    seen: dict[str, str] = {}
    for kind, encoder in encoders.items():
        fingerprint = encoder.fingerprint()
        facts.append(EncoderFact(kind, str(folder / KINDS[kind]), chosen.get(kind), fingerprint, seen.get(fingerprint)))
        seen.setdefault(fingerprint, kind)
    return tuple(facts)


def how_to_reproduce(folder: Path, settings: Settings, encoder: Encoder, encoders: tuple[EncoderFact, ...]) -> Reproduction:
    """The command that gives the run again, and what it was."""
    config, out = folder / SETTINGS, folder.with_name(f"{folder.absolute().name}-again")
    command = shlex.join(["ucdir", "train", *settings.data.domains, "--config", str(config), "--out", str(out)])
    others = tuple(shlex.join(["ucdir", name, str(folder)]) for name in ("evaluate", "report"))
    weights = settings.encoder.weights
    named = weights not in WITHOUT_FILE
    notes = [f"The weights are named by a relative path ('{weights}'): run it in the folder where it ran before."]
    return Reproduction(
        command=command,
        others=others,
        notes=tuple(notes) if named and not Path(weights).is_absolute() else (),
        settings=settings.to_toml(),
        start=encoder.config.start,
        labels_said=labels_of_start(weights),
        when=_when(folder),
        versions=(("ucdir", __version__), ("Python", platform.python_version()), *_versions()),
        encoders=encoders,
    )


def labels_of_start(weights: str) -> str:
    """Whether labels were used to make the initial weights of a run, judging by their name."""
    name = weights.lower()
    if name == "none":
        return "Training started from random numbers: no labels of any kind were used for this encoder."
    if name == "default":
        return f"These are the library's own weights, usually trained with ImageNet's labels. {NEVER}"
    if "imagenet" in name or "in1k" in name:
        return f"Judging by its name, this file was trained with ImageNet's labels. {NEVER}"
    if "moco" in name:
        return "Judging by its name, this file was made by MoCo, which learns from images without labels."
    return "The name of this file does not say whether labels were used to make it."


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in ("torch", "torchvision", "timm", "numpy", "pillow"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def _when(folder: Path) -> tuple[str, str] | None:
    log = folder / LOG
    times = LOG_TIME.findall(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else []
    return (times[0], times[-1]) if times else None
