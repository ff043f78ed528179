"""`ucdir COMMAND` in this process: what the command line does, without the seconds in which Python imports torch again.

What a process of its own is needed for (signals, torchrun, what is imported) starts one in its own test.
"""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from ucdir import cli


@dataclass(frozen=True)
class Ended:
    """Exit code and output."""

    returncode: int
    stdout: str
    stderr: str


def ucdir(*arguments: object, fails: bool | None = False) -> Ended:
    """Run a command to its end, which is an error exactly if `fails`; None = either will do."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", ["ucdir", *map(str, arguments)]):
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    assert fails is None or (code != 0) == fails, err.getvalue()
    return Ended(code, out.getvalue(), err.getvalue())
