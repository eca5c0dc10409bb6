"""Errors that cross the surfaces, and the outcomes of actions.

FloError (flo.log.errors)
├── ScriptError     a script or bundle is wrong; nothing was run            exit 2
├── BadArgument     an argument of a call or run is wrong; nothing was run  exit 3
├── NotFound        the run, flow or secret does not exist                  exit 1
├── Conflict        the run id exists with another flow or arguments …      exit 3
├── Unavailable     the owner went away, the node is stopping or fenced     exit 4
├── Overloaded      a bound is reached; try again                           exit 4
└── RunFailed       a run ended without a result (embedding API)            exit 1, 6, 7
"""

from __future__ import annotations

from typing import Any

from flo.log.errors import FloError as FloError


class ScriptError(FloError):
    """One or more problems in a script. `problems` holds every one with its place."""

    code = "script"

    def __init__(self, message: str, *, where: str = "", problems: tuple[Any, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.where = where
        self.problems = problems


class BadArgument(FloError):
    """An argument of a call or of a run is wrong; nothing was run."""

    code = "bad_argument"


class NotFound(FloError):
    """The run, flow or secret does not exist."""

    code = "not_found"


class Conflict(FloError):
    """What was asked for is at odds with what is there: the id belongs to another run, or the run is over."""

    code = "conflict"


class Unavailable(FloError):
    """The grid cannot answer: its owner went away, or it is stopping or fenced. Trying again may help."""

    code = "unavailable"
    retryable = True


class Overloaded(FloError):
    """A bound that protects the process is reached; nothing was done. Trying again may help."""

    code = "overloaded"
    retryable = True


class RunFailed(FloError):
    """The run ended as failed, cancelled or timed out. `kind`, `message` and `where` are its error's."""

    code = "run_failed"

    def __init__(
        self, *, id: str, status: str, kind: str, message: str, where: str | None, traceback: str = ""
    ) -> None:
        super().__init__(message)
        self.id = id
        self.status = status
        self.kind = kind
        self.where = where
        self.traceback = traceback

    def __str__(self) -> str:
        return f"run {self.id} {self.status}: {self.kind}: {self.message}" + (f" at {self.where}" if self.where else "")
