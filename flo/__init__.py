"""Flo: durable workflows in Starlark, embedded in a Python program.

    import flo

    async with flo.open("file:./data") as grid:
        run = await grid.run("order.flow::main", args={"id": 7})
        print(await run.result())

A name is imported when it is first used, so that `import flo` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flo.api.version import VERSION as __version__

if TYPE_CHECKING:
    from flo.api.errors import (
        BadArgument,
        Conflict,
        FloError,
        NotFound,
        Overloaded,
        RunFailed,
        ScriptError,
        Unavailable,
    )
    from flo.api.grid import HistoryEntry, LogLine, RunError, RunView, Update
    from flo.client.aio import AsyncGrid, Run, open

__all__ = [
    "__version__",
    "AsyncGrid",
    "BadArgument",
    "Conflict",
    "FloError",
    "HistoryEntry",
    "LogLine",
    "NotFound",
    "open",
    "Overloaded",
    "Run",
    "RunError",
    "RunFailed",
    "RunView",
    "ScriptError",
    "Unavailable",
    "Update",
]

_HOMES = {
    "flo.api.errors": (
        "BadArgument", "Conflict", "FloError", "NotFound", "Overloaded", "RunFailed", "ScriptError", "Unavailable",
    ),
    "flo.api.grid": ("HistoryEntry", "LogLine", "RunError", "RunView", "Update"),
    "flo.client.aio": ("AsyncGrid", "Run", "open"),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'flo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
