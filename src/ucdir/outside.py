"""Code from outside the package: methods and backbones that a user names as module:NAME.

Whoever types such a name runs that code. A run or encoder folder that contains one may come from anybody, so its code runs
only if the module was imported before or is listed in UCDIR_MODULES.
"""

import os
import sys
from importlib import import_module
from typing import Any

from ucdir.errors import UcdirError, UsageError

TRUSTED = "UCDIR_MODULES"


def is_outside(name: str) -> bool:
    """Whether a name means code from outside: module:NAME."""
    return ":" in name


def load_outside(name: str, what: str) -> Any:
    """What `name`, as module:NAME, stands for; `what` says in errors what it should be: a method, a backbone.

    raises    UsageError when the module cannot be imported or has no such name
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:  # a module from outside may fail in any way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(f"cannot load {what} '{name}' ({reason}). Install its package, or correct module:NAME.") from error


def require_trust(name: str, origin: str) -> None:
    """UcdirError if a folder names code from outside that nobody has allowed."""
    module = name.partition(":")[0]
    if not is_outside(name) or module in sys.modules or module in os.environ.get(TRUSTED, "").split(","):
        return
    raise UcdirError(f"{origin} needs the code of '{name}'. If you trust it, set {TRUSTED}={module} and run again.")
