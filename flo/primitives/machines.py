"""The machines of one partition as one: they share its log, its frames and its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from flo.primitives.groups import Groups
from flo.primitives.history import unpack
from flo.primitives.kv import KV
from flo.primitives.locks import LockGranted, LockMachine
from flo.primitives.machine import Event, Machine
from flo.primitives.namespace_events import NamespaceDeleted
from flo.primitives.namespaces import Namespaces
from flo.primitives.outcome import error
from flo.primitives.payload import digest_of, is_reference
from flo.primitives.queues import Queues
from flo.primitives.run import RunMachine
from flo.primitives.run_actions import Actions
from flo.primitives.run_decide import advance, parent_answer, resolve, stop, sweep, timer
from flo.primitives.run_state import Note, Run
from flo.primitives.run_storage import StorageActions
from flo.primitives.stream_events import StreamDeleted, StreamTrimmed
from flo.primitives.streams import Streams

RUN_BYTES: Final = 2_048  # memory of a run, about
FIRST_SECTIONS: Final = frozenset(
    {"runs", "kv", "locks"}
)  # of every snapshot; later machines begin empty without theirs

encode = msgspec.msgpack.Encoder().encode


class UnknownEvent(Exception):
    """The log holds an event of a kind or version that this program does not know."""


class Machines:
    """`kv` and `queues`: new ones with settings of their own, which no entry of the log depends on."""

    def __init__(self, runtime: str = "", *, kv: KV | None = None, queues: Queues | None = None) -> None:
        self.runs = RunMachine()
        self.kv = KV() if kv is None else kv
        self.locks = LockMachine()
        self.namespaces = Namespaces()
        self.queues = Queues() if queues is None else queues
        self.streams = Streams()
        self.groups = Groups(self.streams)
        storage = StorageActions(self.kv, self.queues, self.streams, self.groups)
        self.actions = Actions(self.runs, storage, runtime)
        self._all: tuple[Machine, ...] = (
            self.runs, self.kv, self.locks, self.namespaces, self.queues, self.streams, self.groups
        )  # fmt: skip
        self._timed: tuple[Machine, ...] = (self.kv, self.queues, self.streams, self.groups)  # besides the runs
        self._decoders: dict[tuple[int, int], msgspec.msgpack.Decoder[Event]] = {}
        self.by_kind: dict[int, Callable[[Event, int, int], None]] = {}  # what applies an event
        for machine in self._all:
            for (kind, version), type_ in machine.events.items():
                self._decoders[kind, version] = msgspec.msgpack.Decoder(type_)
                self.by_kind[kind] = machine.apply
        self.by_kind.update(self.runs.by_kind)
        self.by_kind[LockGranted.KIND] = self._lock_granted
        self.by_kind[StreamTrimmed.KIND] = self._stream_trimmed
        self.by_kind[StreamDeleted.KIND] = self._stream_deleted
        self.by_kind[NamespaceDeleted.KIND] = self._namespace_deleted

    def apply(self, event: Event, index: int, now: int) -> None:
        self.by_kind[event.KIND](event, index, now)

    def decode(self, kind: int, version: int, payload: bytes) -> Event:
        """The event in a log's entry. Raises UnknownEvent."""
        decoder = self._decoders.get((kind, version))
        if decoder is None:
            raise UnknownEvent(f"event of kind {kind}, version {version}")
        return decoder.decode(payload)

    def _lock_granted(self, event: Event, index: int, now: int) -> None:
        self.locks.apply(event, index, now)
        assert isinstance(event, LockGranted)
        run = self.runs.runs.get(event.run)
        task = run.task(event.task) if run is not None and run.status == "running" else None
        if run is not None and task is not None:
            self.runs.follow_ups.append(("advance", run, task, 0))

    def _stream_trimmed(self, event: Event, index: int, now: int) -> None:
        self.streams.apply(event, index, now)
        assert isinstance(event, StreamTrimmed)
        self.groups.trimmed(event.ns, event.stream, event.first_ordinal)

    def _stream_deleted(self, event: Event, index: int, now: int) -> None:
        self.streams.apply(event, index, now)
        assert isinstance(event, StreamDeleted)
        self.groups.stream_deleted(event.ns, event.stream)

    def _namespace_deleted(self, event: Event, index: int, now: int) -> None:
        self.namespaces.apply(event, index, now)
        assert isinstance(event, NamespaceDeleted)
        self.groups.drop_namespace(event.ns)
        self.streams.drop_namespace(event.ns)
        self.queues.drop_namespace(event.ns)
        self.kv.drop_namespace(event.ns)

    @property
    def memory_bytes(self) -> int:
        """Memory that the state holds, about."""
        held = self.kv.bytes + self.queues.bytes + self.streams.bytes + self.groups.bytes
        return held + RUN_BYTES * len(self.runs.runs)

    def follow_up(self, now: int) -> list[Event]:
        """Decides the next command that an applied event has set off; it belongs into the same frame."""
        what, run, task, n = self.runs.follow_ups.popleft()
        if what == "parent":
            return parent_answer(self.runs, run)
        if run.status != "running" or task is None or task.phase == "ended":
            return []
        if what == "advance":
            return advance(self.runs, self.locks, now, task)
        if what == "resolve":
            return resolve(task, n)
        assert what == "cancel"
        reason = f": {run.cancel}" if run.cancel else ""
        return stop(task, error("cancelled", f"run {run.id} was cancelled{reason}"), "cancel")

    def peek_due(self) -> int | None:
        """At or before the next timer of any machine."""
        earliest = self.runs.peek_due()
        for machine in self._timed:
            due = machine.next_due()
            if due is not None and (earliest is None or due < earliest):
                earliest = due
        return earliest

    def due(self, now: int, index: int) -> list[Event] | None:
        """Decides one timer that is due, of any machine; None when none is."""
        if self.runs.sweeps:
            return sweep(self.runs)
        popped = self.runs.pop_due(now)
        if popped is not None:
            task, n = popped
            events = timer(self.runs, now, task, n)
            if not events and n >= 0:
                self.runs.notes.append(Note("job", task.run, task, n))
            return events
        for machine in self._timed:
            due = machine.next_due()
            if due is not None and due <= now:
                return machine.due(now, index)
        return None

    def take_notes(self) -> list[Note]:
        notes = self.runs.notes
        self.runs.notes = []
        return notes

    def dump(self) -> dict[str, bytes]:
        """A snapshot's sections by machine name."""
        return {machine.name: machine.dump() for machine in self._all}

    def load(self, sections: dict[str, bytes]) -> None:
        """Replaces all states by a snapshot's. Raises ValueError naming a section that is missing or unknown."""
        known = {machine.name for machine in self._all}
        given = set(sections)
        if not FIRST_SECTIONS <= given <= known:
            raise ValueError(f"a snapshot with the sections {sorted(given)}, this program knows {sorted(known)}")
        for machine in self._all:
            if machine.name in sections:
                machine.load(sections[machine.name])

    def named_blobs(self) -> frozenset[bytes]:
        """The digests of all blobs that the state names."""
        found: set[bytes] = set()

        def see(text: str) -> None:
            if is_reference(text):
                found.add(digest_of(text.partition(" ")[0]))

        for run in self.runs.runs.values():
            found.add(run.bundle)
            see(run.outcome)
            for name in run.archives or ():
                see(name)
            for task in run.all_tasks():
                for text in (task.args, task.outcome, task.next_args):
                    see(text)
                for opened in (task.open or {}).values():
                    see(opened.params)
                for _, message in task.inbox or ():
                    see(message)
                for record in task.records() if b"@" in task.packed else ():
                    see(record.outcome)
            for _, count, packed in run.attic or ():
                for record in unpack(packed, count) if b"@" in packed else ():
                    see(record.outcome)
        return frozenset(found)

    def live_runs(self) -> list[Run]:
        return [run for run in self.runs.runs.values() if run.status == "running"]
