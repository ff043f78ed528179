"""Weights from elsewhere: reads MoCo, torchvision, timm and our own files, and says exactly what matched."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ucdir.errors import UcdirError

PREFIXES = ("module.encoder_q.", "encoder_q.", "module.", "model.", "backbone.", "encoder.", "")
WITHOUT_FILE = ("default", "none")  # weights that are not a path: the library's own, and random numbers
MOCO_HEAD = {"fc.0.": "0.", "fc.2.": "2."}  # MoCo v2 keeps its projection head where a ResNet classifies


@dataclass(frozen=True)
class MatchReport:
    """Which tensors of a network a file filled.

    matched, wanted   tensors of the backbone found in the file, and all it has
    head_matched      tensors of the projection head that were filled too
    unused            names in the file that nothing here asked for
    prefix            what stood before the names in the file
    filled            (our name, name in the file, shape) of every tensor that was filled
    """

    source: str
    matched: int
    wanted: int
    head_matched: int
    head_wanted: int
    unused: tuple[str, ...]
    prefix: str
    filled: tuple[tuple[str, str, tuple[int, ...]], ...]

    def table(self) -> str:
        """CSV, a line for each tensor: ours, in_file, shape; what nothing here asked for has no `ours`."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("ours", "in_file", "shape"))
        rows.writerows((ours, theirs, " x ".join(map(str, shape)) or "1") for ours, theirs, shape in self.filled)
        rows.writerows(("", self.prefix + name, "") for name in self.unused)
        return text.getvalue()

    def sentence(self) -> str:
        """One line for logs and model cards."""
        head = "no projection head in the file; it starts from random numbers"
        if self.head_wanted == 0:
            head = "no projection head wanted"
        elif self.head_matched:
            head = f"projection head {self.head_matched} of {self.head_wanted}"
        unused = f", {len(self.unused)} unused ({', '.join(self.unused[:3])} ...)" if self.unused else ""
        return f"weights '{self.source}': {self.matched} of {self.wanted} backbone tensors, {head}{unused}"


def load_weights(path: Path, backbone: nn.Module, head: nn.Module | None) -> MatchReport:
    """Fill `backbone`, and `head` where the file has one of the same shape, from a weights file.

    path      MoCo v2 `.pth.tar`, a torchvision or timm state dict (`.pth`, `.pt`, `.safetensors`), or our encoder folder
    raises    UcdirError when the file is absent, unreadable, or leaves any backbone tensor unfilled
    """
    tensors, prefix = _without_prefix(_read(path), backbone)
    wanted = {name: value for name, value in backbone.state_dict().items() if not name.endswith("num_batches_tracked")}
    fitting = {name: tensors[name] for name, value in wanted.items() if name in tensors and tensors[name].shape == value.shape}
    if len(fitting) < len(wanted):
        raise UcdirError(_poor_match(path, wanted, tensors, fitting))
    counters = {name: tensors[name] for name in backbone.state_dict() if name not in wanted and name in tensors}
    backbone.load_state_dict({**fitting, **counters}, strict=False)
    head_names = _load_head(tensors, head)
    used = {*fitting, *counters, *head_names.values()}
    ours = {**{f"backbone.{name}": name for name in (*fitting, *counters)}, **{f"head.{a}": b for a, b in head_names.items()}}
    return MatchReport(
        source=path.name,
        matched=len(fitting),
        wanted=len(wanted),
        head_matched=len(head_names),
        head_wanted=0 if head is None else len(head.state_dict()),
        unused=tuple(sorted(name for name in tensors if name not in used)),
        prefix=prefix,
        filled=tuple((name, prefix + theirs, tuple(tensors[theirs].shape)) for name, theirs in ours.items()),
    )


def require_weights(path: Path) -> None:
    """UcdirError when there is nothing at `path`."""
    if not path.exists():
        raise UcdirError(f"pretrained weights not found: '{path}'. Give an existing file or encoder folder (--weights PATH).")


def require_start(weights: str) -> None:
    """UcdirError when `weights` (see `build_encoder`) is a path and there is nothing."""
    if weights not in WITHOUT_FILE:
        require_weights(Path(weights))


def _read(path: Path) -> Mapping[str, Any]:
    require_weights(path)
    if path.is_dir():
        return _read_encoder_folder(path)
    try:
        if _is_safetensors(path):
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle's own errors, of a module that may not be imported for them
        raise _unreadable(path, error) from error
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise UcdirError(f"weights '{path}' contain no state dict. Give a checkpoint with named tensors (--weights PATH).")
    return content


def _is_safetensors(path: Path) -> bool:
    """By its name, or because it begins as one: with the length of a list of tensors, then the list."""
    with path.open("rb") as opened:
        return path.suffix == ".safetensors" or opened.read(9)[8:] == b"{"


def _read_encoder_folder(path: Path) -> Mapping[str, Tensor]:
    """Our own tensors under the names that a MoCo file has: backbone.X -> X, head.X -> fc.X."""
    file = path / "model.safetensors"
    if not file.is_file():
        raise UcdirError(f"'{path}' contains no model.safetensors. Give a weights file or an encoder folder (--weights PATH).")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    renamed = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    head = {f"fc.{name.removeprefix('head.')}": tensor for name, tensor in tensors.items() if name.startswith("head.")}
    return renamed | head


def _unreadable(path: Path, error: Exception) -> UcdirError:
    reason = str(error).strip().splitlines()[0][:160].rstrip(".") if str(error).strip() else type(error).__name__
    if isinstance(error, UnpicklingError):  # of which torch says how to run whatever code the file holds
        reason = "the pickle contains more than tensors; not loading it, because pickles can run code"
    return UcdirError(f"weights '{path}' cannot be read: {reason}. Download the file again, or give another (--weights PATH).")


def _without_prefix(content: Mapping[str, Any], backbone: nn.Module) -> tuple[dict[str, Tensor], str]:
    """Names as the backbone knows them: the prefix under which most of them are found is taken off."""
    wanted = backbone.state_dict().keys()
    named = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    prefix = max(PREFIXES, key=lambda prefix: sum(prefix + name in named for name in wanted))
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}, prefix


def _load_head(tensors: Mapping[str, Tensor], head: nn.Module | None) -> dict[str, str]:
    """Fill the whole projection head or nothing of it; gives its names and those in the file."""
    if head is None:
        return {}
    state = head.state_dict()
    found = {}
    for before, after in MOCO_HEAD.items():
        found.update({after + name.removeprefix(before): name for name in tensors if name.startswith(before)})
    fits = found.keys() == state.keys() and all(tensors[found[name]].shape == state[name].shape for name in state)
    if not fits:
        return {}
    head.load_state_dict({name: tensors[found[name]] for name in state})
    return found


def _poor_match(path: Path, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], fitting: Mapping[str, Tensor]) -> str:
    missing = [name for name in wanted if name not in tensors]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} where {tuple(value.shape)} is needed"
        for name, value in wanted.items()
        if name in tensors and name not in fitting
    ]
    examples = ", ".join([*(f"no {name}" for name in missing[:2]), *shapes[:2]])
    return (
        f"weights '{path}' fill only {len(fitting)} of the {len(wanted)} tensors of the backbone ({examples}). "
        "Give the weights of the same network, or use the matching --backbone."
    )
