"""The functions of the host that the prelude calls, one for each kind of crossing.

Each takes one text, because that is the cheapest way across (design.md §6.1), and gives one. They are
shared by all evaluations: the one that calls is found through a thread-local. What a host function raises
ends the evaluation, but the interpreter forgets the exception's type; the reason is kept in the context.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from starlark import EvalOptions

from flo.api.limits import CALL_DEPTH
from flo.worker.values import decode as decode_json
from flo.worker.values import duration_ms

CHECK_STEPS = 1_000  # loop rounds and calls between two calls of check_cancelled


class HostError(Exception):
    """Ends an evaluation; what it means stands in the context."""


class Context(Protocol):
    """What an evaluation on this thread belongs to."""

    def act(self, text: str) -> str: ...
    def act_int(self, text: str) -> int: ...
    def begin(self, text: str) -> str: ...
    def wait_for(self, text: str) -> str: ...
    def enter(self, text: str) -> str: ...
    def call(self, text: str) -> str: ...
    def run(self, text: str) -> str: ...
    def open(self, text: str) -> str: ...
    def describing(self, text: str) -> None: ...
    def continue_as_new(self, text: str) -> None: ...
    def output(self, text: str) -> None: ...
    def context(self, text: str) -> str: ...
    def run_id(self, text: str) -> str: ...
    def new(self, text: str) -> str: ...
    def fail(self, text: str) -> None:
        """Raises HostError for the error of this JSON text."""
        ...

    def tick(self) -> bool:
        """Called once in CHECK_STEPS steps; True ends the evaluation."""
        ...

    def broke(self, error: BaseException) -> None:
        """Notes an exception that no script can be blamed for; it is raised through the interpreter next."""
        ...


class _Current(threading.local):
    context: Context


current = _Current()


class entered:
    """Makes a context this thread's while a `with` block lasts."""

    __slots__ = ("_context", "_before")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._before: Context | None = None

    def __enter__(self) -> None:
        self._before = getattr(current, "context", None)
        current.context = self._context

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            del current.context
        else:
            current.context = self._before


def _crossing(name: str) -> Callable[[str], Any]:
    def cross(text: str) -> Any:
        context = current.context
        try:
            return getattr(context, name)(text)
        except HostError:
            raise
        except BaseException as error:
            context.broke(error)
            raise

    return cross


def _act(text: str) -> str:
    context = current.context
    try:
        return context.act(text)
    except HostError:
        raise
    except BaseException as error:
        context.broke(error)
        raise


def _act_int(text: str) -> int:
    context = current.context
    try:
        return context.act_int(text)
    except HostError:
        raise
    except BaseException as error:
        context.broke(error)
        raise


def _decode(text: str) -> Any:
    try:
        return decode_json(text)
    except (ValueError, RecursionError) as error:
        current.context.fail(f'{{"kind":"bad_argument","message":"json.decode: {_quoted(str(error))}"}}')


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')[:500]


FUNCTIONS: dict[str, Callable[[str], Any]] = {
    "_act": _act,
    "_act_int": _act_int,
    "_decode": _decode,
    "_duration": duration_ms,
    "_begin": _crossing("begin"),
    "_wait_for": _crossing("wait_for"),
    "_enter": _crossing("enter"),
    "_call": _crossing("call"),
    "_run": _crossing("run"),
    "_open": _crossing("open"),
    "_describing": _crossing("describing"),
    "_continue": _crossing("continue_as_new"),
    "_output": _crossing("output"),
    "_context": _crossing("context"),
    "_run_id": _crossing("run_id"),
    "_new": _crossing("new"),
    "_raise": _crossing("fail"),
}


def _tick() -> bool:
    context = current.context
    try:
        return context.tick()
    except BaseException as error:  # noqa: BLE001  # an interrupt of the main thread; broke() keeps it
        context.broke(error)
        return True


_options: dict[int, EvalOptions] = {}


def options(call_depth: int = CALL_DEPTH) -> EvalOptions:
    """Evaluation options for every evaluation with this bound on nested calls."""
    found = _options.get(call_depth)
    if found is None:
        found = _options[call_depth] = EvalOptions(check_cancelled=_tick, max_callstack_size=call_depth)
    return found
