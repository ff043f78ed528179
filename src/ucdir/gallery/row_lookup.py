"""Find rows of a long table by a hex digest without a dictionary of a million strings."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

DIGITS = 16


class RowLookup:
    """Rows of a column of hex digests (16 digits or more), 16 bytes of memory a row."""

    def __init__(self, digests: pa.ChunkedArray) -> None:
        self._digests = digests
        keys = np.fromiter((int(part[:DIGITS], 16) for part in _strings(digests)), np.uint64, len(digests))
        self._rows = np.argsort(keys, kind="stable")
        self._keys = keys[self._rows]

    def row(self, digest: str) -> int | None:
        """The first row with this digest; None if there is none, or if it is not a digest."""
        return next(self.rows(digest), None)

    def rows(self, digest: str) -> Iterator[int]:
        """All rows with this digest, rising."""
        try:
            key = np.uint64(int(digest[:DIGITS], 16))
        except (ValueError, OverflowError):
            return
        start, stop = (int(np.searchsorted(self._keys, key, side)) for side in ("left", "right"))
        for row in self._rows[start:stop].tolist():
            if self._digests[row].as_py() == digest:
                yield row


def _strings(column: pa.ChunkedArray) -> Iterator[str]:
    for chunk in column.chunks:
        yield from chunk.to_pylist()
