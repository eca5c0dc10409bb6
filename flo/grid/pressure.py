"""When growing writes are refused: no room on the disk, or the memory budget is used up (spec/storage.md §9, §13).

Refused before they are decided, with an error that says to try again; deletes, acknowledgements, trims and reads
go on. What may be dropped to relieve memory (history, tombstones) goes first, by logged events. Called with the
partition's lock held.
"""

from __future__ import annotations

from typing import Final

from flo.api.errors import Overloaded
from flo.log.contract import LogBackend
from flo.primitives.machines import Machines

MEMORY_BUDGET: Final = 2 * 1024 * 1024 * 1024
HIGH: Final = 0.85  # of the budget: growing writes are refused while more is held
EVICT: Final = 0.10  # of the budget: so much headroom below that is made, where there is something to drop
LOOK_MS: Final = 1_000  # between two looks at what is held
LARGE_BYTES: Final = 65_536  # a batch of so many is a reason to look


class Pressure:
    def __init__(self, backend: LogBackend, budget: int = MEMORY_BUDGET) -> None:
        self._backend = backend
        self._looked_at = -LOOK_MS
        self._no_memory = False
        self._no_space = False
        self.budget = budget
        self.refuses = False  # looked at by every growing write
        self.refused = 0  # writes, ever

    def look(self, now: int, machines: Machines, size: int, pending: int) -> int:
        """At the beginning of a batch of `size` bytes, while `pending` bytes of log are not written yet: how many bytes
        of memory should be evicted."""
        self._no_space = not self._backend.reserve(2 * size + 4_096, pending)
        over = 0
        if self._no_memory or size >= LARGE_BYTES or now - self._looked_at >= LOOK_MS:
            self._looked_at = now
            held = machines.memory_bytes
            self._no_memory = held > HIGH * self.budget
            if self._no_memory:
                over = int(held - (HIGH - EVICT) * self.budget)
        self.refuses = self._no_memory or self._no_space
        return over

    def evicted(self, machines: Machines) -> None:
        """Something was dropped: perhaps it was enough."""
        self._no_memory = machines.memory_bytes > HIGH * self.budget
        self.refuses = self._no_memory or self._no_space

    def error(self) -> Overloaded:
        self.refused += 1
        if self._no_space:
            return Overloaded("no space: the disk has no room for the log", hint="free some: writes then go on")
        return Overloaded(
            f"ShardMemoryPressure: the memory budget of {self.budget} bytes is used up",
            hint="delete something, or raise [storage] memory_budget",
        )
