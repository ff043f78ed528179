"""`ucdir export`: write an ONNX file, so that searching does not need torch."""

from dataclasses import dataclass
from pathlib import Path

from ucdir.commands.command import command


@dataclass(frozen=True)
class Exported:
    """An ONNX file.

    difference  largest difference between its embeddings and those of the torch encoder
    """

    file: Path
    difference: float


def export(encoder: Path) -> Exported:
    """Write model.onnx into an encoder folder, so that search and serve start in a second, without torch.

    encoder   Run or encoder folder.
    """
    from ucdir.model.encoder_folder import encoder_folder
    from ucdir.model.export import export_onnx
    from ucdir.model.runtime import EXPORTED

    folder = encoder_folder(encoder)
    return Exported(folder / EXPORTED, export_onnx(folder))


def show_exported(result: Exported) -> None:
    """Print the written files."""
    print(f"Wrote {result.file}: agrees with the weights to {result.difference:.0e}. search and serve use it from now on.")


export_command = command(export, show_exported)
