"""The errors a user can cause. The command line prints them as one sentence, without a traceback."""


class UcdirError(Exception):
    """Something a user can fix. The message says what was found, what was expected and what to do."""

    exit_code = 1
    told_elsewhere = False  # another process of the same run says it


class UsageError(UcdirError):
    """A setting or an argument that contradicts itself or does not exist."""

    exit_code = 2


class InterruptedRun(UcdirError):
    """The user stopped a run; what was finished is kept."""

    exit_code = 130


class ImageError(UcdirError):
    """One image that cannot be used. `reason` is short and without the path, for tables."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"cannot use image '{path}': {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        """Keep both arguments when a loader process hands the error back."""
        return type(self), (self.path, self.reason)


class TooManyPixels(ImageError):
    """An image with more pixels than the limit; none of them was decoded."""


def require_at_least(flag: str, value: float, least: float) -> None:
    """UsageError when a number on the command line is too small."""
    if value < least:
        raise UsageError(f"{flag} {value:g}: expected {least:g} or more.")
