"""The one place that says which Starlark scripts are written in, and that parses it.

Everything that reaches the interpreter's parser goes through `parse`, which first bounds the depth of
the text: the parser and the compiler recurse with it and would end the process (design.md §6.1).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from starlark import AstModule, Dialect, DialectTypes, Globals, LibraryExtension
from starlark import parse as _parse

from flo.worker.source import Excess, Scan, scan

STACK_BYTES = 16 * 1024 * 1024  # what EXPRESSION_DEPTH and BLOCK_DEPTH need, with a wide margin

_EXTENSIONS = [
    LibraryExtension.StructType,
    LibraryExtension.RecordType,
    LibraryExtension.EnumType,
    LibraryExtension.Map,
    LibraryExtension.Filter,
    LibraryExtension.Partial,
    LibraryExtension.Print,
    LibraryExtension.Typing,
]

T = TypeVar("T")
_stack_size = threading.Lock()  # threading.stack_size is the process's; one thread at a time may change it


class TooDeep(Exception):
    """The text is nested too deeply, or holds too many names, to be given to the interpreter."""

    def __init__(self, excess: Excess) -> None:
        super().__init__(f"{excess.what}: more than {excess.limit:,} at {excess.at.line}:{excess.at.col}")
        self.excess = excess


def _script_dialect() -> Dialect:
    dialect = Dialect.extended()
    dialect.enable_f_strings = True
    # Annotations are kept and not enforced (flowmetal.md R-7): ENABLE would check them at run time.
    dialect.enable_types = DialectTypes.PARSE_ONLY
    return dialect


DIALECT = _script_dialect()
GLOBALS = Globals.extended_by(_EXTENSIONS)
# The prelude guards json's limits and reads the call stack; scripts get neither directly.
PRELUDE_GLOBALS = Globals.extended_by([*_EXTENSIONS, LibraryExtension.Json, LibraryExtension.CallStack])


def parse(label: str, text: str, *, scanned: Scan | None = None) -> AstModule:
    """Parses a module. Call it on a thread with STACK_BYTES of stack (`on_large_stack`).

    Raises TooDeep before the interpreter sees the text, and StarlarkError for what it refuses.
    """
    found = scanned or scan(text)
    if found.excess is not None:
        raise TooDeep(found.excess)
    return _parse(label, text, DIALECT)


def on_large_stack(work: Callable[[], T]) -> T:
    """Runs `work` on a thread with a stack that deep texts need, and returns or raises what it does."""
    done: list[T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - carried to the caller whatever it is, also a panic of the interpreter
            failed.append(error)

    thread = large_thread(body, name="flo-parse")
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def large_thread(body: Callable[[], None], *, name: str) -> threading.Thread:
    """Starts a daemon thread with STACK_BYTES of stack."""
    thread = threading.Thread(target=body, name=name, daemon=True)
    with _stack_size:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    return thread
