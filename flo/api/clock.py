"""The one clock of the code base: nothing else reads wall or monotonic time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def wall_ms(self) -> int:
        """Milliseconds since the epoch; may jump in both directions."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back, from an arbitrary start."""
        ...


class SystemClock:
    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


def elapsed_ns() -> int:
    """Nanoseconds from an arbitrary start, to measure how long something took."""
    return time.perf_counter_ns()


class FakeClock:
    """Time that moves only when told: `advance(ms)` moves both clocks, `set_wall(ms)` the wall alone."""

    def __init__(self, wall_ms: int = 1_750_000_000_000) -> None:
        self._wall = wall_ms
        self._monotonic = 1_000

    def wall_ms(self) -> int:
        return self._wall

    def monotonic_ms(self) -> int:
        return self._monotonic

    def advance(self, ms: int) -> None:
        assert ms >= 0
        self._wall += ms
        self._monotonic += ms

    def set_wall(self, ms: int) -> None:
        self._wall = ms
