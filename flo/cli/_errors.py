"""How errors look on stderr: the message, a stable word for it, what to do; never our own traceback."""

from __future__ import annotations

import json
import os
import sys
import traceback

from flo.api.errors import FloError, RunFailed, ScriptError
from flo.cli import _exit, _out
from flo.cli._exit import ExitCode


def report(error: FloError, *, as_json: bool = False) -> ExitCode:
    """Shows the error and returns the exit code that belongs to it. In JSON also one object on stderr."""
    if isinstance(error, RunFailed) and error.traceback:
        _out.note(error.traceback.rstrip("\n"))
    message = error.message
    if isinstance(error, ScriptError) and error.problems:
        for problem in error.problems:
            _out.note(str(problem))
        count = len(error.problems)
        message = f"{count} error{'s' if count > 1 else ''} in the script; nothing was run"
    elif (where := getattr(error, "where", None)) and where not in message:
        message = f"{where}: {message}"
    status = _exit.status_of(error)
    _out.note(_out.styled("Error:", "red", sys.stderr) + f" {message} [{status}]")
    if error.hint:
        _out.note(_out.styled("hint:", "cyan", sys.stderr) + f" {error.hint}")
    if as_json:
        _out.note(json.dumps({"error": error.message, "status": status, "hint": error.hint}))
    return _exit.of_error(error)


def report_unexpected(error: Exception) -> ExitCode:
    """An exception that Flo should not have let out. Our traceback is shown to those who ask for it."""
    if os.environ.get("FLO_DEBUG"):
        _out.note("".join(traceback.format_exception(error)).rstrip("\n"))
    return report(
        FloError(
            f"{type(error).__name__}: {error}",
            hint="this is a bug in Flo: please report it in the project's issue tracker, "
            "with what the same command shows when FLO_DEBUG=1 is set",
        )
    )
