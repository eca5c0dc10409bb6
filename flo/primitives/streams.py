"""The stream machine: append-only ordered records by namespace."""

from __future__ import annotations

from flo.primitives.stream_state import Stream


class Streams:
    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Stream]] = {}

    def find(self, ns: str, name: str) -> Stream | None:
        table = self._tables.get(ns)
        return None if table is None else table.get(name)
