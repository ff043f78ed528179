"""The galleries being served, each in its latest version; if a new version is damaged, the old one stays in use."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from mmap import mmap
from threading import Lock

import numpy as np

from ucdir.errors import UcdirError, UsageError
from ucdir.gallery.ask import SearchOptions, ask
from ucdir.gallery.folder import Gallery
from ucdir.gallery.interface import EVERYWHERE, Engine, GalleryHits, Where

CHECK_SECONDS = 1.0
IN_MEMORY = 256 * 2**20
NO_ID = "0" * 24

log = logging.getLogger("ucdir.web")


class Unavailable(UcdirError):
    """A gallery that cannot be searched at the moment."""


class Served:
    """One gallery under its name. Its methods may wait for a disk or a server: call them off the event loop."""

    def __init__(self, name: str, engine: Engine, in_memory: int = IN_MEMORY) -> None:
        """in_memory: embeddings of up to this many bytes are read into memory, out of reach of changes on disk."""
        self.name = name
        self.problem: str | None = None
        self._in_memory = in_memory
        self._engine = self._ready(engine)
        self._domains = self._engine.domains()
        self._checked = time.monotonic()
        self._checking = Lock()

    @property
    def fingerprint(self) -> str:
        """Of the encoder."""
        return self._engine.info.fingerprint

    def engine(self) -> Engine:
        """The gallery to begin a request with; looks for an update when the last look was a second ago."""
        if time.monotonic() - self._checked >= CHECK_SECONDS and self._checking.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._checking.release()
        return self._engine

    def domains(self) -> dict[str, int]:
        """Domain -> number of its images, of `engine()`."""
        self.engine()
        return self._domains

    def search(
        self, engine: Engine, queries: np.ndarray, k: int, where: Where = EVERYWHERE, way: SearchOptions | None = None
    ) -> GalleryHits:
        """`ask.ask`, on the successor of an engine that can no longer be read; Unavailable if there is none."""
        return ask(self._readable(engine), queries, k, where, way)

    def embedding(self, engine: Engine, wanted: str) -> np.ndarray | None:
        """`engine.embedding`, as in `search`."""
        return self._readable(engine).embedding(wanted)

    def _readable(self, engine: Engine) -> Engine:
        if is_whole(engine):
            return engine
        with self._checking:
            self._refresh()
        if is_whole(self._engine):
            return self._engine
        raise Unavailable(f"gallery '{self.name}' is damaged on disk. Index it again, then search again.")

    def _refresh(self) -> None:
        try:
            found = self._engine.current()
            if found is not self._engine:
                self._adopt(found)
            self._say(None)
        except (UcdirError, OSError) as error:
            self._say(str(error))
        self._checked = time.monotonic()

    def _adopt(self, found: Engine) -> None:
        if found.info.fingerprint != self.fingerprint:
            raise UcdirError(
                f"gallery '{self.name}' was indexed with another encoder since, {found.info.fingerprint[:8]}.... "
                "Start ucdir serve again to serve it."
            )
        engine = self._ready(found)
        self._engine, self._domains = engine, engine.domains()
        log.info("gallery '%s' was updated: %d images", self.name, len(engine))

    def _say(self, problem: str | None) -> None:
        """Note a problem, once in the log however long it lasts."""
        if problem is not None and problem != self.problem:
            log.warning("gallery '%s' cannot be updated, so its last good version is served: %s", self.name, problem)
        if problem is None and self.problem is not None:
            log.info("gallery '%s' is readable again", self.name)
        self.problem = problem

    def _ready(self, engine: Engine) -> Engine:
        """Everything that the first request would otherwise wait for."""
        if isinstance(engine, Gallery) and engine.embeddings.nbytes <= self._in_memory:
            engine = replace(engine, embeddings=np.array(engine.embeddings))
        engine.find(NO_ID)
        return engine


class Catalogue:
    """The served galleries by name; the first is the one meant when no name is given."""

    def __init__(self, served: Sequence[Served]) -> None:
        self._served = {each.name: each for each in served}

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def __len__(self) -> int:
        return len(self._served)

    def get(self, name: str | None) -> Served:
        """The gallery of this name; UsageError if there is none."""
        found = next(iter(self)) if name is None else self._served.get(name)
        if found is None:
            names = ", ".join(f"'{each.name}'" for each in self)
            raise UsageError(f"no gallery is called '{name[:80] if name else ''}'. Choose one of: {names}.")
        return found


def is_whole(engine: Engine) -> bool:
    """Whether all that is mapped of a gallery's file is still there: reading what is not would kill the process."""
    mapped: object = engine.embeddings.base if isinstance(engine, Gallery) else None
    return not isinstance(mapped, mmap) or mapped.size() >= len(mapped)
