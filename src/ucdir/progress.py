"""How a long job reports its progress, without knowing who listens."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""A bar for (description, total): a context that yields a function taking the number of things just finished."""


@contextmanager
def no_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    yield lambda count: None


def no_log(sentence: str) -> None:
    """Log nothing."""
