"""Embeddings saved by an unfinished `index`, so that none are lost if it is killed."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ucdir.gallery.interface import GalleryImage
from ucdir.storage import clear_write_errors, write_text

FLUSH_EVERY = 256


@dataclass(frozen=True)
class JournalEntry:
    """An embedding of an earlier, unfinished run."""

    position: int
    width: int
    height: int
    domain: str = ""


class Journal:
    """A growing file of embeddings, and next to it one line for each with its content hash.

    known    content hash -> what an earlier run left
    """

    def __init__(self, folder: Path, made_with: str, dim: int) -> None:
        """Continue the journal in `folder`, which is created on first use; entries made differently are deleted.

        made_with   fingerprint and precision of the encoder
        """
        self.folder, self._dim = folder, dim
        self._rows, self._lines = folder / "rows.f32", folder / "images.jsonl"
        self._note, self._made_with = folder / "made-with.txt", f"{made_with} {dim}"
        if not self._note.is_file() or self._note.read_text(encoding="utf-8") != self._made_with:
            shutil.rmtree(folder, ignore_errors=True)
        self.known, self._count = self._restore()
        self._waiting: list[tuple[GalleryImage, np.ndarray]] = []

    def add(self, images: Sequence[GalleryImage], rows: np.ndarray) -> range:
        """Note embeddings (n, D); returns their positions. They are safe once some hundreds are together."""
        first = self._count + len(self._waiting)
        self._waiting += zip(images, rows, strict=True)
        if len(self._waiting) >= FLUSH_EVERY:
            self.flush()
        return range(first, first + len(images))

    def flush(self) -> None:
        """Write what is waiting: the rows first, then the lines that speak of them."""
        if not self._waiting:
            return
        lines = [json.dumps([image.sha256, image.width, image.height, image.domain]) for image, _ in self._waiting]
        rows = np.stack([row for _, row in self._waiting]).astype(np.float32)
        if not self._note.exists():
            write_text(self._note, self._made_with)
        with clear_write_errors(self.folder):
            _append(self._rows, rows.tobytes())
            _append(self._lines, "".join(f"{line}\n" for line in lines).encode())
        self._count += len(self._waiting)
        self._waiting = []

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """(n, D) embeddings at these positions, after `flush`."""
        if len(positions) == 0:
            return np.empty((0, self._dim), np.float32)
        return np.array(np.memmap(self._rows, np.float32, "r", shape=(self._count, self._dim))[positions])

    def remove(self) -> None:
        """The gallery is written: nothing here is needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _restore(self) -> tuple[dict[str, JournalEntry], int]:
        """Read what is whole, cut off what is not; what is known, and the number of rows."""
        lines = _whole_lines(self._lines)
        size = self._rows.stat().st_size if self._rows.exists() else 0
        count = min(len(lines), size // (4 * self._dim))
        with clear_write_errors(self.folder):
            _cut(self._rows, count * self._dim * 4)
            _cut(self._lines, sum(len(line) for line in lines[:count]))
        noted = (json.loads(line) for line in lines[:count])
        return {sha256: JournalEntry(position, *rest) for position, (sha256, *rest) in enumerate(noted)}, count


def _whole_lines(file: Path) -> list[bytes]:
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    return lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines


def _cut(file: Path, size: int) -> None:
    if file.exists():
        os.truncate(file, size)


def _append(file: Path, content: bytes) -> None:
    with file.open("ab") as opened:
        opened.write(content)
