"""The hot tier: payloads of recent events in memory, by index.

hot = HotBuffer(64 * 1024 * 1024)
hot.put(7, b"payload")     # the event's batch is on its way to the log
hot.get(7)                 # b"payload"; None once it was evicted, then the log has it
hot.durable(7)             # from here on it may be evicted
"""

from __future__ import annotations

from collections import deque
from typing import Final

HOT_BYTES: Final = 64 * 1024 * 1024  # of one partition group
ENTRY_BYTES: Final = 160  # what an entry takes besides its payload's bytes


class HotBuffer:
    """`put` is called with ascending indexes by one thread at a time, `durable` by another one thread at a time (the
    log's flusher), `get` by any thread. What is not durable is never evicted, so that over `capacity_bytes` it holds
    at most what the log has not flushed yet."""

    __slots__ = ("_capacity", "_evicted", "_order", "_payloads", "_put")

    def __init__(self, capacity_bytes: int = HOT_BYTES) -> None:
        self._capacity = capacity_bytes
        self._payloads: dict[int, bytes] = {}
        self._order: deque[int] = deque()
        self._put = 0  # bytes ever; written by `put` alone, as the next is by `durable`
        self._evicted = 0

    def put(self, index: int, payload: bytes) -> None:
        self._payloads[index] = payload
        self._order.append(index)  # second: what `durable` finds here is in the other
        self._put += len(payload) + ENTRY_BYTES

    def get(self, index: int) -> bytes | None:
        return self._payloads.get(index)

    def durable(self, index: int) -> None:
        """Up to this index everything is in the log: evicts the oldest of it while the buffer is over capacity."""
        order = self._order
        while self._put - self._evicted > self._capacity and order:
            oldest = order[0]
            if oldest > index:
                return
            order.popleft()
            self._evicted += len(self._payloads.pop(oldest)) + ENTRY_BYTES

    @property
    def held_bytes(self) -> int:
        """The memory held, by estimate."""
        return self._put - self._evicted

    def clear(self) -> None:
        """Forgets everything, as when memory is rebuilt from the log; call while neither `put` nor `durable` runs."""
        self._payloads.clear()
        self._order.clear()
        self._put = self._evicted = 0
