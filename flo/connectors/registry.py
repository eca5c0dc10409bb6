"""Which connector serves which kind: the built-in ones, those given, and plug-ins found by entry point.

A plug-in is a class (or a callable that makes a connector) named in the entry-point group `flo.connectors`.
Entry points are looked for when somebody asks for a kind that no built-in serves, and never before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from importlib import import_module

from flo.connectors.contract import Connector

GROUP = "flo.connectors"

# Module and factory by kind. A factory returns all connectors that belong together.
_HTTP = "flo.connectors.http:connectors"
_RESOURCES = "flo.connectors.resources:connectors"
BUILTINS: dict[str, str] = {
    **{f"http.{m}": _HTTP for m in ("get", "post", "put", "patch", "delete", "request", "head", "options")},
    **dict.fromkeys(("resource.open", "resource.close", "process.wait"), _RESOURCES),
}

_log = logging.getLogger(__name__)


class Registry:
    """Finds connectors by kind. A kind that is given wins over a built-in one, that over a plug-in's."""

    def __init__(self, connectors: Iterable[Connector] = (), *, builtins: bool = True, plugins: bool = True) -> None:
        self._by_kind: dict[str, Connector] = {}
        self._builtins = builtins
        self._plugins = plugins  # still to be looked for
        self.problems: list[str] = []  # plug-ins that could not be loaded, and why
        for connector in connectors:
            self.add(connector)

    def add(self, connector: Connector) -> None:
        """Adds a connector for those of its kinds that nobody serves yet."""
        for kind in connector.kinds:
            self._by_kind.setdefault(kind, connector)

    def find(self, kind: str) -> Connector | None:
        found = self._by_kind.get(kind)
        if found is None and self._builtins and kind in BUILTINS:
            module, _, factory = BUILTINS[kind].partition(":")
            make: Callable[[], Iterable[Connector]] = getattr(import_module(module), factory)
            for connector in make():
                self.add(connector)
            found = self._by_kind.get(kind)
        if found is None and self._plugins:
            self._plugins = False
            self._load_plugins()
            found = self._by_kind.get(kind)
        return found

    def _load_plugins(self) -> None:
        from importlib.metadata import entry_points  # 25 ms that runs without plug-ins do not pay

        for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
            try:
                connector = entry.load()()
                kinds = connector.kinds
                if isinstance(kinds, str) or not all(isinstance(kind, str) and kind for kind in kinds):
                    raise TypeError("`kinds` must be a tuple of texts")
                if not callable(getattr(connector, "perform", None)):
                    raise TypeError("it has no `perform`")
            except Exception as bad:  # noqa: BLE001 - one broken plug-in must not take the others along
                problem = f"connector plug-in {entry.name} ({entry.value}) cannot be used: {type(bad).__name__}: {bad}"
                self.problems.append(problem)
                _log.warning("%s", problem)
                continue
            for kind in kinds:
                if not (self._builtins and kind in BUILTINS):  # also when the built-in one is not made yet
                    self._by_kind.setdefault(kind, connector)
