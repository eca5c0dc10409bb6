"""Runs that wait for a key, a message or a record stand in line with the waiting clients (spec/storage.md §13).

The wait itself is state of the run, an open action; here is its place in the line. It is found again at every start.
Called with the partition's lock held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flo.api.outcome import error
from flo.grid.members import Members
from flo.grid.partition import Partition
from flo.grid.payloads import Payloads
from flo.grid.records import Records
from flo.grid.waiters import Parked, Topic
from flo.log.errors import LogError
from flo.primitives.machine import Event, Refused
from flo.primitives.run import WAITING
from flo.primitives.run_actions import Ask
from flo.primitives.run_events import Answered
from flo.primitives.run_state import Note, Task
from flo.primitives.run_storage import named


class RunWaits:
    def __init__(
        self,
        partition: Partition,
        payloads: Payloads,
        records: Records,
        members: Members,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._partition = partition
        self._payloads = payloads
        self._records = records
        self._entropy = entropy
        self._members = members
        self._parked: dict[tuple[str, str, int], Parked] = {}

    def __bool__(self) -> bool:
        return bool(self._parked)

    def note(self, note: Note) -> None:
        """An action waits from now on ("park"), or is answered ("record")."""
        assert note.task is not None
        if note.what == "park":
            self._park(note.task, note.n)
            return
        parked = self._parked.pop((note.run.id, note.task.prefix, note.n), None)
        if parked is not None:
            parked.cancel()

    def started(self) -> None:
        """The memory is new: what waited before waits again, in the order in which it began to."""
        self._parked.clear()
        waiting: list[tuple[int, Task, int]] = []
        for run in self._partition.machines.live_runs():
            for task in run.all_tasks():
                for n, opened in (task.open or {}).items():
                    if opened.kind in WAITING:
                        waiting.append((opened.index, task, n))
        for _, task, n in sorted(waiting, key=lambda entry: entry[0]):
            self._park(task, n)

    def _park(self, task: Task, n: int) -> None:
        assert task.open is not None
        opened = task.open[n]
        run_id, prefix = task.run.id, task.prefix
        storage = self._partition.machines.actions.storage
        topic = storage.topic(opened.kind, opened.params)
        there = storage.is_there(opened.kind, opened.params)
        self._parked[run_id, prefix, n] = parked = self._partition.waiters.park(
            [topic], lambda: self._attempt(run_id, prefix, n, topic, there), _nobody, limited=False
        )
        if opened.kind == "stream.group_read":
            member = storage.member(opened.params)
            self._members.seen(self._partition.command_time, *member, None)
            self._members.parked(*member, parked)

    def _attempt(self, run_id: str, prefix: str, n: int, topic: Topic, there: bool) -> tuple[None] | None:
        """Tries the action again; what it does and its answer are one command. `there`: the stream or the group that
        it reads from was there when it began to wait, and one that is made anew is another."""
        partition = self._partition
        machines = partition.machines
        run = machines.runs.runs.get(run_id)
        task = run.task(prefix) if run is not None and run.status == "running" else None
        opened = task.open.get(n) if task is not None and task.open is not None else None
        if task is None or opened is None:
            self._parked.pop((run_id, prefix, n), None)
            return (None,)  # it has ended otherwise
        now = partition.command_time
        ask = Ask(
            now, partition.next_index, task, n, opened.kind, opened.params, opened.params, opened.where, False, "",
            self._entropy, self._records.load,
        )  # fmt: skip
        storage = machines.actions.storage
        events: Sequence[Event] = ()
        try:
            if there and not storage.is_there(opened.kind, opened.params):
                stored = storage.without(ask)
            else:
                events, value = storage.perform(ask)
                if storage.is_empty(opened.kind, value):
                    if events:  # a consumer has joined, or a part of the records was not for it: there may be more
                        partition.commit(list(events), now)
                        self._members.noticed(now, events)
                        partition.waiters.stir([topic])
                    return None
                stored = self._payloads.store(storage.answer(opened.kind, value))
        except Refused as refused:
            events, stored = (), _error(ask, refused.kind, refused.message, refused.details)
        except LogError as fault:  # a damaged record, or no room for a large result: nothing has been taken
            events, stored = (), _error(ask, "failed", fault.message, None)
        self._parked.pop((run_id, prefix, n), None)  # whoever served it takes it from the line
        try:
            partition.commit([*events, Answered(run_id, prefix, n, stored)], now)
            self._members.noticed(now, events)
        finally:
            self._payloads.unpin(stored)
        return (None,)


def _error(ask: Ask, kind: str, message: str, details: Any) -> str:
    return error(kind, f"{named(ask)}: {message}", details=details, where=ask.where or None)


def _nobody(result: object) -> None:
    """The run has its answer by the event; nobody else waits for it."""
