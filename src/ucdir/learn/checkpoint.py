"""The resume state of a run: everything the next epoch depends on, in one file that appears whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ucdir.errors import UcdirError
from ucdir.learn.clusters import Clusters
from ucdir.learn.label_free import Reference
from ucdir.storage import atomic_file

FORMAT_VERSION = 1


@dataclass(frozen=True)
class BestEpoch:
    """The epoch with the highest score of one kind so far."""

    epoch: int
    score: float


@dataclass(frozen=True)
class ResumeState:
    """All that training carries from one epoch to the next. Random numbers are drawn again from (seed, epoch).

    epoch           epochs done
    encoder, momentum_encoder, objective, optimiser   their state dicts
    banks           (M, D) rows of each domain
    clusterings     per domain, one per cluster count, for the next epoch; empty before clustering starts
    reference       what is found without training; None in checkpoints from before there was one
    best            per kind of choice (`label-free`, `oracle`)
    seconds         time spent so far
    """

    epoch: int
    encoder: Mapping[str, Tensor]
    momentum_encoder: Mapping[str, Tensor]
    objective: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    banks: tuple[Tensor, ...]
    clusterings: tuple[tuple[Clusters, ...], ...]
    reference: Reference | None
    best: Mapping[str, BestEpoch]
    seconds: float


def save_checkpoint(file: Path, state: ResumeState) -> None:
    """Write `state` to `file`, whole or not at all."""
    content = {
        "format_version": FORMAT_VERSION,
        "epoch": state.epoch,
        "encoder": dict(state.encoder),
        "momentum_encoder": dict(state.momentum_encoder),
        "objective": dict(state.objective),
        "optimiser": dict(state.optimiser),
        "banks": list(state.banks),
        "clusterings": [[(c.assignment, c.prototypes, c.inertia) for c in domain] for domain in state.clusterings],
        "reference": None if state.reference is None else (list(state.reference.image_ids), list(state.reference.hits)),
        "best": {kind: (best.epoch, best.score) for kind, best in state.best.items()},
        "seconds": state.seconds,
    }
    write_content(file, content)


def write_content(file: Path, content: Mapping[str, Any]) -> None:
    """Write tensors, numbers and texts as torch does, whole or not at all."""
    with atomic_file(file) as draft:
        try:
            torch.save(dict(content), draft)
        except RuntimeError as error:
            raise UcdirError(f"could not write '{file}': {error}. Is the disk full?") from error


def load_checkpoint(file: Path) -> ResumeState:
    """Read a resume state; UcdirError when the file is absent, damaged or of another format."""
    if not file.is_file():
        raise UcdirError(f"there is nothing to resume: no checkpoint at '{file}'. Start again with --overwrite.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        if content["format_version"] != FORMAT_VERSION:
            raise UcdirError(f"checkpoint '{file}' has format {content['format_version']}, expected {FORMAT_VERSION}.")
        return ResumeState(
            epoch=content["epoch"],
            encoder=content["encoder"],
            momentum_encoder=content["momentum_encoder"],
            objective=content.get("objective", {}),  # absent before methods had states of their own
            optimiser=content["optimiser"],
            banks=tuple(content["banks"]),
            clusterings=tuple(tuple(Clusters(*parts) for parts in domain) for domain in content["clusterings"]),
            reference=_reference(content.get("reference")),
            best={kind: BestEpoch(*parts) for kind, parts in content["best"].items()},
            seconds=content["seconds"],
        )
    except UcdirError:
        raise
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        raise UcdirError(
            f"checkpoint '{file}' is damaged ({type(error).__name__}). Its encoder folders may still be whole; "
            "to start over, use --overwrite."
        ) from error


def _reference(parts: tuple[list[Tensor], list[Tensor]] | None) -> Reference | None:
    return None if parts is None else Reference(*map(tuple, parts))
