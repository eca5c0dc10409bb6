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
    ExitCode.FAILED: "not found, false, or empty; the run failed or is paused; the data directory cannot be used",
    ExitCode.USAGE: "wrong usage, or an error in the script; nothing was done",
    ExitCode.REFUSED: "refused: a wrong argument, a conflict, a transaction that cannot go on",
    ExitCode.RETRYABLE: "try again: overloaded, unavailable, no space, no reply in time",
    ExitCode.DISCONNECTED: "cannot connect, or the connection broke",
    ExitCode.CANCELLED: "the run was cancelled",
    ExitCode.TIMED_OUT: "the run timed out",
    ExitCode.HUNG_UP: "the terminal went away; otherwise as Ctrl-C",
    ExitCode.INTERRUPTED: "Ctrl-C: a run stays resumable, and the message says how",
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
    "connection_failed": ExitCode.DISCONNECTED,
    "connection_lost": ExitCode.DISCONNECTED,
    "protocol": ExitCode.DISCONNECTED,
    "timeout": ExitCode.RETRYABLE,
}

SERVER_STATUSES: Final = {
    1: "error",
    2: "not_found",
    3: "bad_request",
    4: "cross_core_transaction",
    5: "no_active_transaction",
    6: "group_locked",
    7: "unauthorized",
    8: "conflict",
    9: "internal_error",
    10: "overloaded",
    11: "rate_limited",
    12: "unavailable",
}
"""What a server's refusal is called, by the status of its reply."""

BY_SERVER_STATUS: Final = {
    2: ExitCode.FAILED,
    10: ExitCode.RETRYABLE,
    11: ExitCode.RETRYABLE,
    12: ExitCode.RETRYABLE,
}


def of_view(view: RunView) -> ExitCode:
    """What `flo run` ends with when this is the last that it saw of its run."""
    return BY_STATUS[view.status]


def status_of(error: FloError) -> str:
    """The word for an error, in brackets behind its message: a server's status, else the error's code."""
    return SERVER_STATUSES.get(getattr(error, "status_code", 0), error.code)


def of_error(error: FloError) -> ExitCode:
    """By a server's status, else by the error's code; a code that the table does not know counts by whether the call
    may be repeated."""
    status = getattr(error, "status_code", None)
    if status is not None:
        return BY_SERVER_STATUS.get(status, ExitCode.REFUSED)
    return BY_CODE.get(error.code, ExitCode.RETRYABLE if error.retryable else ExitCode.FAILED)


def of_signal(number: int) -> ExitCode:
    return ExitCode(128 + number)
