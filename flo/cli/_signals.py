"""Ctrl-C and its relatives: the first asks, the second ends the process at once.

The command's own thread makes no call of the core (see flo.client.session), so an exception may be raised
in it at any place. Ending the process needs no care either: the log survives that at every instant.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Final

from flo.cli import _exit, _out
from flo.cli._exit import ExitCode

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The first signal. A BaseException so that no `except Exception` keeps it."""

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code)
        self.code = code


class Signals:
    """While entered, the first signal raises Interrupted and the second ends the process. After
    `leaving(code)` the next one ends the process with that code."""

    def __init__(self) -> None:
        self._code: ExitCode | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._handle) for number in NUMBERS if not _ignored(number)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def leaving(self, code: ExitCode) -> None:
        """All is shown; what is left to do may take seconds, and nobody has to wait for it."""
        self._code = code

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._code is not None:
            _end(self._code)
        self._code = _exit.of_signal(number)
        raise Interrupted(self._code)


def end_at_once(*, ctrl_c: ExitCode = ExitCode.INTERRUPTED) -> None:
    """From now on a signal ends the process: for commands that have nothing to say about it. `ctrl_c`: their exit
    code when it is the usual way to end them."""
    for number in NUMBERS:
        if not _ignored(number):
            code = ctrl_c if number == signal.SIGINT else _exit.of_signal(number)
            signal.signal(number, lambda number, frame, code=code: _end(code))  # type: ignore[misc]


def _ignored(number: int) -> bool:
    """`nohup` and the like have settled it already."""
    return signal.getsignal(number) is signal.SIG_IGN


def _end(code: ExitCode) -> None:
    if _out.is_terminal(sys.stderr):
        os.write(2, b"\x1b[?25h")  # the live tree hides the cursor
    os._exit(code)
