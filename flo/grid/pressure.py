"""When growing writes are refused: no room on the disk, or the memory budget is used up (spec/storage.md §9, §13).

Refused before they are decided, with an error that says to try again; deletes, acknowledgements, trims and reads
go on. What may be dropped to relieve memory (history, tombstones) goes first, by logged events. Called with the
partition's lock held.
"""

from __future__ import annotations

from typing import Final

from flo.api.errors import Overloaded
from flo.log.contract import LogBackend

MEMORY_BUDGET: Final = 2 * 1024 * 1024 * 1024
HIGH: Final = 0.85  # of the budget: growing writes are refused while more is held
EVICT: Final = 0.10  # of the budget: so much headroom below that is made, where there is something to drop
LOOK_MS: Final = 1_000  # between two looks at what is held
LARGE_BYTES: Final = 65_536  # of requests since the last look are a reason for another


class Pressure:
    def __init__(self, backend: LogBackend, budget: int = MEMORY_BUDGET) -> None:
        self._backend = backend
        self._looked_at = -LOOK_MS
        self._unseen = 0  # bytes of requests since then
        self._no_memory = False
        self._no_space = False
        self.budget = budget
        self.refuses = False  # looked at by every growing write
        self.refused = 0  # writes, ever

    def look(self, now: int, held: int, size: int, pending: int) -> int:
        """At the beginning of a batch of `size` bytes, while `held` bytes of memory are in use and `pending` bytes of
        log are not written yet: how many bytes of memory should be evicted."""
        self._no_space = not self._backend.reserve(2 * size + 4_096, pending)
        over = self.look_at_memory(now, held, size)
        self.refuses = self._no_memory or self._no_space
        return over

    @property
    def memory_is_short(self) -> bool:
        return self._no_memory

    def look_at_memory(self, now: int, held: int, size: int) -> int:
        """As `look`, at memory alone."""
        self._unseen += size
        if not self._no_memory and self._unseen < LARGE_BYTES and now - self._looked_at < LOOK_MS:
            return 0
        self._looked_at = now
        self._unseen = 0
        self._no_memory = held > HIGH * self.budget
        return int(held - (HIGH - EVICT) * self.budget) if self._no_memory else 0

    def evicted(self, held: int) -> None:
        """Something was dropped: perhaps it was enough."""
        self._no_memory = held > HIGH * self.budget
        self.refuses = self._no_memory or self._no_space

    def error(self) -> Overloaded:
        self.refused += 1
        if self._no_space:
            return Overloaded("no space: the disk has no room for the log", hint="free some: writes then go on")
        return Overloaded(self.memory_message, hint="delete something, or raise [storage] memory_budget")

    @property
    def memory_message(self) -> str:
        return f"ShardMemoryPressure: the memory budget of {self.budget} bytes is used up"
