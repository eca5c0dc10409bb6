"""When leases and delays of groups end.

This is a cache of the state, not state: it is rebuilt from the groups and stands in no snapshot. What one request
hands out ends together and has one slot. A slot stays when its records are acknowledged or their lease is extended,
which shows when it is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from flo.primitives.group_state import Group


class Timers:
    __slots__ = ("_count", "_heap", "size")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Group, Sequence[int]]] = []
        self._count = 0  # orders slots of the same time
        self.size = 0  # records in all slots

    def add(self, time: int, group: Group, ordinals: Sequence[int]) -> None:
        self._count += 1
        self.size += len(ordinals)
        heappush(self._heap, (time, self._count, group, ordinals))

    def next(self) -> int | None:
        """At or before the end of the next lease or delay."""
        return self._heap[0][0] if self._heap else None

    def take(self, now: int) -> tuple[Group, Sequence[int]] | None:
        """Removes a slot whose time has come."""
        if not self._heap or self._heap[0][0] > now:
            return None
        _, _, group, ordinals = heappop(self._heap)
        self.size -= len(ordinals)
        return group, ordinals

    def rebuild(self, groups: Iterable[Group]) -> None:
        self._heap = []
        self._count = 0
        self.size = 0
        for group in groups:
            by_time: dict[int, list[int]] = {}
            for ordinal, entry in group.pending.items():
                if entry.due:
                    by_time.setdefault(entry.due, []).append(ordinal)
            for time, ordinals in by_time.items():
                self.add(time, group, ordinals)
