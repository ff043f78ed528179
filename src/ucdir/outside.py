"""Code from outside the package: methods and backbones that a user names as module:NAME.

Typing such a name allows its module. A run or encoder folder that contains one may come from anybody, so its code runs only if
the user has named the module in this process, or in the one that started it, or lists it in UCDIR_MODULES.
"""

import os
from importlib import import_module
from typing import Any

from ucdir.errors import UcdirError, UsageError

TRUSTED = "UCDIR_MODULES"


def is_outside(name: str) -> bool:
    """Whether a name means code from outside: module:NAME."""
    return ":" in name


def load_outside(name: str, what: str) -> Any:
    """What `name`, as module:NAME, stands for; `what` says in errors what it should be: a method, a backbone.

    A name from a folder needs `require_trust` first.

    raises    UsageError when the module cannot be imported or has no such name
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:  # a module from outside may fail in any way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(f"cannot load {what} '{name}' ({reason}). Install its package, or correct module:NAME.") from error


def trust(name: str) -> None:
    """Allow the module of a name that the user has given, in this process and in those it starts."""
    if is_outside(name):
        os.environ[TRUSTED] = ",".join(dict.fromkeys([*_trusted(), name.partition(":")[0]]))


def require_trust(name: str, origin: str) -> None:
    """UcdirError if a folder names code from outside that the user has not allowed."""
    module = name.partition(":")[0]
    if is_outside(name) and module not in _trusted():
        raise UcdirError(f"{origin} needs the code of '{name}'. If you trust it, set {TRUSTED}={module} and run again.")


def _trusted() -> list[str]:
    return [module for module in os.environ.get(TRUSTED, "").split(",") if module]
