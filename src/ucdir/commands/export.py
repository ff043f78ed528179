"""`ucdir export`: an encoder that searches without torch."""

from dataclasses import dataclass
from pathlib import Path

from ucdir.commands.command import command


@dataclass(frozen=True)
class Exported:
    """The file, and the largest difference between its embeddings and those of the weights."""

    file: Path
    difference: float


def export(encoder: Path) -> Exported:
    """Write model.onnx into an encoder folder: search and serve then start in a second, without torch.

    encoder   Run or encoder folder.
    """
    from ucdir.model.encoder_folder import encoder_folder
    from ucdir.model.export import export_onnx
    from ucdir.model.runtime import EXPORTED

    folder = encoder_folder(encoder)
    return Exported(folder / EXPORTED, export_onnx(folder))


def show_exported(result: Exported) -> None:
    """Print what was written."""
    print(f"Wrote {result.file}: agrees with the weights to {result.difference:.0e}. search and serve use it from now on.")


export_command = command(export, show_exported)
