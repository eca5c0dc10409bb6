"""A command's use of a data directory, as its owner or as a guest of its owner."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from flo.api.grid import Grid
from flo.cli import _out, _signals
from flo.client.attach import attach, data_directory
from flo.client.session import Session

T = TypeVar("T")


def open_session(data_dir: str | None) -> Session:
    return Session(data_directory(data_dir), attach=partial(attach, on_warning=_warn))


def ask(data_dir: str | None, question: Callable[[Grid], T], *, repeatable: bool = True) -> T:
    """The answer of the grid to one call, executing nothing. Ctrl-C ends the process at once."""
    _signals.end_at_once()
    with open_session(data_dir) as session:
        return session.call(question, repeatable=repeatable)


def _warn(message: str) -> None:
    """What the owner of a directory should tell a person about it: a torn tail that was cut, a bad snapshot."""
    _out.note(_out.styled("warning:", "yellow", sys.stderr) + f" {message}")
