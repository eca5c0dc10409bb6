"""Batches of operations on one partition: what all operations of the store have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from flo.grid.members import Members
from flo.grid.partition import Partition
from flo.grid.pressure import Pressure
from flo.grid.records import Records
from flo.grid.release import Releases
from flo.grid.transactions import Transactions
from flo.grid.waiters import Parked, Topic
from flo.primitives.machine import Event

FORGET_EVENTS: Final = 4  # of a thousand keys each: what one batch drops to relieve memory


class ParkedResult:
    """The operation waits; its `done` is called later."""

    def __repr__(self) -> str:
        return "PARKED"


PARKED: Final = ParkedResult()

Done = Callable[[Any], None]


class Batches:
    def __init__(
        self,
        partition: Partition,
        releases: Releases,
        pressure: Pressure,
        transactions: Transactions,
        records: Records,
        after: Callable[[], None],
    ) -> None:
        self._partition = partition
        self._pressure = pressure
        self._transactions = transactions
        self.releases = releases
        self.records = records
        self.members = Members(self)  # type: ignore[arg-type]  # the chain's end has what it calls
        partition.timers = (partition.waiters, self.members)
        self.lock: threading.RLock = partition.lock
        self._after = after
        self.now = 0
        self.last_parked: Parked | None = None
        self.bind()

    def bind(self) -> None:
        """Takes the machines of a new incarnation of memory."""
        machines = self._partition.machines
        self._kv = machines.kv
        self._queues = machines.queues
        self._streams = machines.streams
        self.groups = machines.groups
        self._namespaces = machines.namespaces

    # -- batches

    def begin(self, size: int = 0) -> int:
        """Starts a batch whose requests have so many bytes: runs what is due, makes room. Returns the time."""
        partition = self._partition
        self.now = now = partition.begin()
        self._transactions.expire(now)
        over = self._pressure.look(now, self.memory_bytes, size, partition.commit_group.pending_bytes)
        if over:
            self._evict(over)
        return now

    def end(self) -> int:
        """Ends the batch; returns the index that must be durable before its answers leave. Raises Unavailable."""
        self._partition.settle()
        return self._partition.last_index

    def after(self) -> None:
        """After a batch, without the lock."""
        if self._partition.stirred:
            self._after()

    @property
    def last_index(self) -> int:
        return self._partition.last_index

    @property
    def durable_index(self) -> int:
        return self._partition.commit_group.durable_index

    @property
    def pending_bytes(self) -> int:
        """Of log that is written and not durable yet."""
        return self._partition.commit_group.pending_bytes

    @property
    def stalled(self) -> str | None:
        """Why the log does not get on; None when it does."""
        return self._partition.commit_group.stalled

    @property
    def refusals(self) -> tuple[bool, int]:
        """Whether writes that grow the state are refused at present, for memory or disk, and how many were ever."""
        return self._pressure.refuses, self._pressure.refused

    @property
    def memory_bytes(self) -> int:
        """Memory that the state and what clients prepare hold, about."""
        return self._partition.machines.memory_bytes + self._transactions.memory_bytes

    def _evict(self, over: int) -> None:
        """Drops history and tombstones, which memory pressure may take, by logged events."""
        target = self._kv.bytes - over
        left = FORGET_EVENTS
        for ns in self._kv.namespaces():
            while left > 0 and self._kv.bytes > target:
                event = self._kv.decide_forget(self.now, self._partition.next_index, ns)
                if event is None:
                    break
                self._partition.emit([event], self.now)
                left -= 1
        self._pressure.evicted(self.memory_bytes)

    def memory_refuses(self, now: int, size: int) -> str:
        """Why a flow's write of so many bytes must not be, or "". It waits for room on the disk like the rest of its
        run, but memory comes back only when something is deleted."""
        over = self._pressure.look_at_memory(now, self.memory_bytes, size)
        if over:
            self.now = now
            self._evict(over)
        return self._pressure.memory_message if self._pressure.memory_is_short else ""

    def _admit(self) -> None:
        """Before every write that grows the state."""
        if self._pressure.refuses:
            raise self._pressure.error()

    def _index_in(self, ns: str) -> int:
        """The index that the first event of a write into the namespace will have: behind the namespace's own."""
        if ns in self._namespaces.created:
            return self._partition.next_index
        return self._partition.next_index + 1

    def _emit(self, ns: str, events: Sequence[Event]) -> None:
        """Applies the events of a write, the first of which makes the namespace."""
        if ns not in self._namespaces.created:
            created = self._namespaces.decide_create(ns)
            assert created is not None
            events = [created, *events]
        self._partition.emit(events, self._partition.command_time)  # a waiter may be served between two batches

    def _check_namespace(self, ns: str) -> None:
        """That a write may make the namespace, before it is decided."""
        if ns not in self._namespaces.created:
            self._namespaces.decide_create(ns)

    def _write(self, ns: str, events: Sequence[Event]) -> None:
        if events:
            self._emit(ns, events)

    def _change(self, events: Sequence[Event]) -> None:
        if events:
            self._partition.emit(events, self._partition.command_time)

    def _park(
        self, topics: Sequence[Topic], attempt: Callable[[], tuple[Any] | None], done: Done, empty: Any,
        timeout_ms: int | None,
    ) -> ParkedResult:  # fmt: skip
        deadline = 0 if timeout_ms is None else self.now + timeout_ms
        self.last_parked = self._partition.waiters.park(topics, attempt, done, empty=empty, deadline=deadline)
        return PARKED
