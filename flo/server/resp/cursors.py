"""SCAN's cursors are numbers, the store's are opaque texts: this table maps the ones to the others."""

from __future__ import annotations

from typing import Final

CURSORS: Final = 100_000  # the newest are kept
CURSOR_BYTES: Final = 32 * 1024 * 1024  # of their texts, and of the overhead of each
CURSOR_OVERHEAD: Final = 200
CURSOR_MS: Final = 600_000


class Cursors:
    """One table for all connections. Gone after a restart, as clients are told by `invalid cursor`."""

    __slots__ = ("_bytes", "_last", "_positions")

    def __init__(self) -> None:
        self._positions: dict[int, tuple[str, str, int]] = {}  # namespace, position, when it was given; oldest first
        self._bytes = 0
        self._last = 0

    def __len__(self) -> int:
        return len(self._positions)

    def give(self, now: int, ns: str, position: str) -> int:
        """The number under which the scan of a namespace goes on at this position."""
        self._last += 1
        self._positions[self._last] = (ns, position, now)
        self._bytes += len(position) + CURSOR_OVERHEAD
        while True:
            oldest = next(iter(self._positions))
            _, text, given = self._positions[oldest]
            if len(self._positions) <= CURSORS and self._bytes <= CURSOR_BYTES and now - given < CURSOR_MS:
                return self._last
            del self._positions[oldest]
            self._bytes -= len(text) + CURSOR_OVERHEAD

    def find(self, now: int, ns: str, number: int) -> str | None:
        """The position, while it is known. It may be asked for again: a reply can get lost."""
        found = self._positions.get(number)
        if found is None or found[0] != ns or now - found[2] >= CURSOR_MS:
            return None
        return found[1]
