"""The time of a partition (spec/storage.md §13): never back, and never waiting for a clock that was set back."""

from __future__ import annotations

from flo.api.clock import Clock


class PartitionTime:
    def __init__(self, clock: Clock, last_ms: int = 0) -> None:
        self._clock = clock
        self._base = max(clock.wall_ms(), last_ms)
        self._monotonic = clock.monotonic_ms()
        self._asked = self._monotonic
        self._now = self._base

    def now(self) -> int:
        """Epoch ms: runs on the monotonic clock, and jumps to the wall clock when that is ahead."""
        clock = self._clock
        monotonic = clock.monotonic_ms()
        if monotonic == self._asked:
            return self._now  # the same millisecond: many commands share it
        now = self._base + monotonic - self._monotonic
        wall = clock.wall_ms()
        if wall > now:
            self._base += wall - now
            now = wall
        self._asked = monotonic
        self._now = now
        return now
