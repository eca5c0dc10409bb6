"""The exit codes of every command, in one table."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from flo.api.errors import FloError
from flo.api.grid import RunView


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    RETRYABLE = 4
    DISCONNECTED = 5
    CANCELLED = 6
    TIMED_OUT = 7
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS: Final = {
    ExitCode.OK: "success; the run completed",
    ExitCode.FAILED: "not found, or empty; the run failed or is paused; the data directory cannot be used",
    ExitCode.USAGE: "wrong usage, or an error in the script; nothing was done",
    ExitCode.REFUSED: "refused: a wrong argument, a conflict",
    ExitCode.RETRYABLE: "try again: overloaded, unavailable, no space",
    ExitCode.DISCONNECTED: "cannot connect",
    ExitCode.CANCELLED: "the run was cancelled",
    ExitCode.TIMED_OUT: "the run timed out",
    ExitCode.HUNG_UP: "the terminal went away; otherwise as Ctrl-C",
    ExitCode.INTERRUPTED: "Ctrl-C: the run stays resumable, and the message says how",
    ExitCode.TERMINATED: "SIGTERM; otherwise as Ctrl-C",
}

BY_STATUS: Final = {
    "completed": ExitCode.OK,
    "running": ExitCode.FAILED,  # only when a command ends before its run does: the runtime paused it
    "failed": ExitCode.FAILED,
    "cancelled": ExitCode.CANCELLED,
    "timed_out": ExitCode.TIMED_OUT,
}

BY_CODE: Final = {
    "internal": ExitCode.FAILED,
    "script": ExitCode.USAGE,
    "bad_argument": ExitCode.REFUSED,
    "not_found": ExitCode.FAILED,
    "conflict": ExitCode.REFUSED,
    "run_failed": ExitCode.FAILED,
    "cannot_connect": ExitCode.DISCONNECTED,
}


def of_view(view: RunView) -> ExitCode:
    """What `flo run` ends with when this is the last that it saw of its run."""
    return BY_STATUS[view.status]


def of_error(error: FloError) -> ExitCode:
    """By the error's code; a code that the table does not know counts by whether the call may be repeated."""
    return BY_CODE.get(error.code, ExitCode.RETRYABLE if error.retryable else ExitCode.FAILED)


def of_signal(number: int) -> ExitCode:
    return ExitCode(128 + number)
