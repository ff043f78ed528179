"""`python -m ucdir` and the `ucdir` command."""

import os
import sys

from ucdir.cli import main


def main_of_several() -> None:
    """`main` in a process that torchrun started: one that is done leaves at once.

    Threads of torch's process group, when they are torn down with the interpreter, now and then abort a process that has
    finished (pytorch/pytorch#179291), and torchrun then calls the whole command failed.
    """
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        main_of_several()
    else:
        main()
