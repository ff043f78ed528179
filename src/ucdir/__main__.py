"""`python -m ucdir` and the `ucdir` command."""

from ucdir.cli import main

if __name__ == "__main__":
    main()
