"""When which keys have to be looked at because they may be reaped.

This is a cache of the state, not state: it is rebuilt from the keys and stands in no snapshot. Every key
with an instant of reaping has a slot at or before that instant; a slot may be too early, or of a key that
has none any more, which shows when it is taken. Far instants share one slot per hour, so that a million
keys that expire within a year need a few thousand buckets; they are sorted finely when their hour comes.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

FINE_MS: Final = 1_000
COARSE_MS: Final = 3_600_000


class Deadlines:
    __slots__ = ("_buckets", "_times", "size")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[str, list[bytes]]] = {}
        self._times: list[int] = []
        self.size = 0

    def add(self, now: int, instant: int, ns: str, key: bytes) -> None:
        if instant - now > COARSE_MS:
            time = instant - instant % COARSE_MS
        else:
            time = instant + -instant % FINE_MS
        bucket = self._buckets.get(time)
        if bucket is None:
            bucket = self._buckets[time] = {}
            heappush(self._times, time)
        keys = bucket.get(ns)
        if keys is None:
            bucket[ns] = [key]
        else:
            keys.append(key)
        self.size += 1

    def next(self) -> int | None:
        return self._times[0] if self._times else None

    def take(self, now: int) -> tuple[str, bytes] | None:
        """Removes a slot whose time has come."""
        if not self._times or self._times[0] > now:
            return None
        bucket = self._buckets[self._times[0]]
        ns = next(iter(bucket))
        keys = bucket[ns]
        key = keys.pop()
        self.size -= 1
        if not keys:
            del bucket[ns]
            if not bucket:
                del self._buckets[heappop(self._times)]
        return ns, key
