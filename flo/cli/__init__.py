"""The `flo` command: everything public, at a terminal. `flo.cli:main` is the console script.

Data goes to stdout, everything else to stderr; exit codes are those of flo.cli._exit. A command's module is
imported when the command is called, and what it needs when it runs, so that start-up stays short.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs one command (the process's own arguments without `argv`) and ends the process with its exit code."""
    import os
    import sys

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called: what is written is meant for nobody
            setattr(sys, name, open(os.devnull, "w"))
    try:
        from flo.cli._app import command_line

        code = command_line(argv)
    except KeyboardInterrupt:  # nothing was begun yet
        code = 130
    sys.exit(code)
