"""A partition: the one writer of a log, and the machines on it. Synchronous, behind a lock, without I/O of its own.

Every command goes the same way: timers that are due first, then *decide* (pure), then *apply* its events
and the follow-ups they set off, then hand all of them to the log as one atomic piece of a frame. What
happened is told to `on_notes` while the lock is held; `last_index` is what an answer has to wait for.

Commands on storage come in batches: between `begin` and `settle` each `emit`s its events, which are applied at
once and handed to the log together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from flo.api.errors import Unavailable
from flo.api.limits import COMMAND_EVENTS
from flo.grid.release import unknown_outcome
from flo.grid.time import PartitionTime
from flo.grid.waiters import Waiters
from flo.log.commit import GroupCommit
from flo.log.contract import Frame, LoggedEvent
from flo.log.errors import LogDamaged, LogError
from flo.log.hot import HotBuffer
from flo.primitives.kv_events import KvIncremented, KvPut
from flo.primitives.machine import Event, Refused
from flo.primitives.machines import Machines, UnknownEvent, encode
from flo.primitives.run_events import Did
from flo.primitives.run_state import Note
from flo.primitives.stream_events import StreamAppended, StreamCopied

T = TypeVar("T")

TIMERS_PER_COMMAND = 256  # timers that one command may have to run first; the rest are due again at once
TIMER_BYTES = 64 * 1024  # of what they bring: one timer of a machine may concern thousands of keys or messages
NEVER: Final = 1 << 62
QUIET: Final = frozenset({Did.KIND, KvIncremented.KIND})  # events that set no timer and make nothing ready
LOADED: Final = frozenset({StreamAppended.KIND, StreamCopied.KIND})  # events whose payloads are read again
PUT: Final = KvPut.KIND
HAND_OVER_EVENTS: Final = 1024  # emitted, then handed to the log in one piece; a command's events stay together
HAND_OVER_BYTES: Final = 256 * 1024


class GridTimer(Protocol):
    """What has deadlines that are no state of a machine. Called with the lock held."""

    def next_due(self) -> int | None: ...

    def expire(self, now: int) -> None: ...


class Partition:
    def __init__(
        self,
        machines: Machines,
        commit: GroupCommit,
        time: PartitionTime,
        on_notes: Callable[[list[Note]], None],
        on_broken: Callable[[], None],
        hot: HotBuffer | None = None,
    ) -> None:
        self.machines = machines
        self.lock = threading.RLock()
        self.commit_group = commit
        self.broken: str | None = None  # why memory cannot be trusted; nothing is answered from it any more
        self.incarnation = 1  # of the memory: what was computed in another one is void
        self.stirred = False  # a command may have made something ready, or set a timer; who looks takes it back
        self.next_due = NEVER  # at or before the next timer; read without the lock by who waits for it
        self._time = time
        self._on_notes = on_notes
        self._on_broken = on_broken
        self.waiters = Waiters()
        self.timers: tuple[GridTimer, ...] = (self.waiters,)  # besides those of the machines
        self.hot = hot if hot is not None else HotBuffer()
        self._index = commit.next_index
        self._now = 0
        self._emitted: list[LoggedEvent] = []  # applied, not handed to the log yet
        self._emitted_bytes = 0
        self._emitted_at = 0  # the time by which they were applied, and which their frame must bear
        self._serving = False  # waiters are being served: what they bring stirs the lines that are served next

    @property
    def next_index(self) -> int:
        return self._index

    @property
    def last_index(self) -> int:
        """What an answer computed now has to wait for."""
        return self._index - 1

    def now(self) -> int:
        """The time of the next frame; call with the lock held."""
        now = self._time.now()
        if now < self._now:
            now = self._now
        self._now = now
        return now

    @property
    def command_time(self) -> int:
        """The time of the command that runs now: all that it does happens at once. Call with the lock held."""
        return self._now

    def begin(self) -> int:
        """Starts a command: refuses when broken, runs what is due, and returns the time. Holds the lock before."""
        if self.broken is not None:
            raise unknown_outcome(LogError(self.broken))
        now = self._time.now()
        if now < self._now:
            now = self._now
        else:
            self._now = now
        if now >= self.next_due:
            self._run_timers(now)
        return self._now

    def emit(self, events: Sequence[Event], now: int) -> None:
        """Applies the events of one storage command. They go to the log together, at `settle` at the latest; raises
        as `commit` does."""
        emitted = self._room(now)
        by_kind = self.machines.by_kind
        waiters = self.waiters
        index = self._index
        payloads = [encode(event) for event in events]  # first: what cannot be logged changes nothing
        try:
            for at in range(len(payloads)):
                event = events[at]
                payload = payloads[at]
                kind = event.KIND
                by_kind[kind](event, index, now)
                emitted.append((kind, event.VERSION, payload))
                self._emitted_bytes += len(payload)
                if kind in LOADED:
                    self.hot.put(index, payload)
                if waiters.count:
                    waiters.saw(event)
                index += 1
                self._index = index
        except Exception as fault:
            raise self.broke(f"event {index} could not be applied", fault) from fault
        except BaseException as interrupt:
            self.broke(f"event {index} was not applied to its end", interrupt)
            raise

    def put(self, ns: str, key: bytes, value: bytes) -> int:
        """Decides and emits the commonest command, the put of a key without conditions; its index, 0 when the
        namespace is new and nothing has happened. Raises Refused, and what `emit` raises."""
        now = self._now
        emitted = self._room(now)
        index = self._index
        try:
            payload = self.machines.kv.put(now, index, ns, key, value)
            if not payload:
                return 0
            emitted.append((PUT, 1, payload))
            self._emitted_bytes += len(payload)
            if self.waiters.count:
                self.waiters.saw_put(ns, key)
            self._index = index + 1
        except Refused:
            raise
        except Exception as fault:
            raise self.broke(f"event {index} could not be applied", fault) from fault
        except BaseException as interrupt:
            self.broke(f"event {index} was not applied to its end", interrupt)
            raise
        return index

    def _room(self, now: int) -> list[LoggedEvent]:
        """The list that takes the events of a command at this time."""
        if self.broken is not None:
            raise unknown_outcome(LogError(self.broken))
        if (
            now != self._emitted_at
            or len(self._emitted) >= HAND_OVER_EVENTS
            or self._emitted_bytes >= HAND_OVER_BYTES
        ):  # fmt: skip
            self._hand_over()
            self._emitted_at = now
        return self._emitted

    def _hand_over(self) -> None:
        """Gives the log what was emitted."""
        emitted = self._emitted
        if emitted:
            self._emitted = []
            self._emitted_bytes = 0
            try:
                self.commit_group.add(emitted, self._emitted_at)
            except Exception as fault:
                raise self.broke(f"the events before {self._index} could not be logged", fault) from fault

    def settle(self) -> None:
        """Ends a batch: serves who waited for what it brought, and hands everything to the log."""
        if self.broken is not None:
            raise unknown_outcome(LogError(self.broken))
        if self.waiters.stirred:
            self._serve()
        self._hand_over()
        machines = self.machines
        if machines.runs.notes:
            self._on_notes(machines.take_notes())
            self.stirred = True
        self._set_next_due()

    def _serve(self) -> None:
        """What the served do stirs lines that are served in the same go."""
        self._serving = True
        try:
            self.waiters.serve()
        except Unavailable:
            raise
        except Exception as fault:
            raise self.broke(f"a waiter could not be served before event {self._index}", fault) from fault
        finally:
            self._serving = False

    def _set_next_due(self) -> None:
        due = self.machines.peek_due()
        for timer in self.timers:
            other = timer.next_due()
            if other is not None and (due is None or other < due):
                due = other
        due = NEVER if due is None else due
        if due != self.next_due:
            self.next_due = due
            self.stirred = True

    def commit(self, events: list[Event], now: int) -> None:
        """Applies the events of one command and what they set off, and hands them to the log. Total: what raises
        here is a fault of ours, after which memory cannot be trusted. Then it raises Unavailable."""
        if self.broken is not None:
            raise unknown_outcome(LogError(self.broken))
        if self._emitted:
            self._hand_over()
        logged = [(e.KIND, e.VERSION, encode(e)) for e in events]
        machines = self.machines
        by_kind = machines.by_kind
        waiters = self.waiters
        index = self._index
        quiet = len(events) > 0
        try:
            for at, event in enumerate(events):
                kind = event.KIND
                by_kind[kind](event, index, now)
                if kind not in QUIET:
                    quiet = False
                    if kind in LOADED:
                        self.hot.put(index, logged[at][2])
                if waiters.count:
                    waiters.saw(event)
                index += 1
            follow_ups = machines.runs.follow_ups
            while follow_ups:
                more = machines.follow_up(now)
                logged += [(e.KIND, e.VERSION, encode(e)) for e in more]
                for event in more:
                    by_kind[event.KIND](event, index, now)
                    index += 1
            if logged:
                self.commit_group.add(logged, now)
            self._index = index
        except Exception as fault:
            raise self.broke(f"event {index} could not be applied", fault) from fault
        except BaseException as interrupt:
            self.broke(f"event {index} was not applied to its end", interrupt)
            raise
        if waiters.stirred and not self._serving:
            self._serve()
            self._hand_over()
        if quiet and not machines.runs.notes:
            return
        try:
            self._set_next_due()
            if machines.runs.notes:
                self._on_notes(machines.take_notes())
            self.stirred = True  # last: who takes it back, without the lock, must find all that it stands for
        except Exception as fault:
            raise self.broke(f"what event {index - 1} set off could not be told", fault) from fault
        except BaseException as interrupt:
            self.broke(f"what event {index - 1} set off was not told to its end", interrupt)
            raise

    def broke(self, what: str, fault: BaseException) -> Unavailable:
        """A fault in the middle of a command: nothing more is answered from this memory."""
        lost = self.commit_group.lost
        if self.broken is None:
            self.broken = f"{what}: {type(fault).__name__}: {fault}" if lost is None else lost.message
            self.incarnation += 1
            self._emitted = []
            self._emitted_bytes = 0
            self._index = self.commit_group.next_index  # nobody may wait for what the log will never have
            if lost is None:
                self._on_broken()
        return unknown_outcome(LogError(self.broken))

    def restart(self, machines: Machines, commit: GroupCommit) -> None:
        """Begins a new incarnation on machines that were rebuilt from the log. Call with the lock held."""
        self.machines = machines
        self.commit_group = commit
        self._index = commit.next_index
        self.broken = None

    def tick(self) -> None:
        """Runs what is due now; whoever keeps the time calls it at `next_due`."""
        with self.lock:
            if self.broken is None:
                now = self.now()
                if now >= self.next_due:
                    with suppress(Unavailable):  # the memory is broken: whoever rebuilds it sets the timers again
                        self._run_timers(now)

    def _run_timers(self, now: int) -> None:
        first, added = self._index, self.commit_group.added_bytes
        for _ in range(TIMERS_PER_COMMAND):
            if self._index - first >= COMMAND_EVENTS or self.commit_group.added_bytes - added >= TIMER_BYTES:
                break  # whoever holds the lock has done enough; the rest is due at once
            try:
                events = self.machines.due(now, self._index)
            except Exception as fault:  # its timer is off the heap already, and only a rebuild sets it again
                raise self.broke(f"a timer could not be decided before event {self._index}", fault) from fault
            if events is None:
                break
            self.commit(events, now)
        for timer in self.timers:
            due = timer.next_due()
            if due is not None and due <= now:
                timer.expire(now)
        if self.waiters.stirred and not self._serving:
            self._serve()
        self._hand_over()
        self._set_next_due()


def replay(machines: Machines, frames: Iterable[Frame], from_index: int) -> int:
    """Applies the events from this index on; returns the last one's index. Raises LogDamaged for what is unknown."""
    last = from_index - 1
    runs = machines.runs
    for frame in frames:
        index = frame.first_index
        now = frame.time_ms
        try:
            for kind, version, payload in frame.events:
                if index >= from_index:
                    machines.apply(machines.decode(kind, version, payload), index, now)
                    last = index
                index += 1
        except UnknownEvent as unknown:
            raise LogDamaged(
                f"{unknown} at index {index} is not known to this program",
                hint="it was written by a newer release: use that or a newer one",
            ) from None
        except Exception as fault:
            raise LogDamaged(
                f"event {index} could not be applied: {type(fault).__name__}: {fault}",
                hint="`flo log verify DIR` tells whether the log is sound; if it is, this release has a fault",
            ) from fault
        runs.notes.clear()
        runs.follow_ups.clear()
        runs.sweeps.clear()
    return last
