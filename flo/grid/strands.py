"""Strands: who may evaluate what. The core's side of flo.api.worker.

A strand is leased to the worker when a run that this node executes could go on. Leases live in memory only:
what a worker does passes through here and is fenced by `Lease.alive`, so a lease that is lost with the
process loses nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from msgspec.structs import replace

from flo.api import limits
from flo.api.errors import FloError, Unavailable
from flo.api.outcome import Outcome, error
from flo.api.worker import Lease, OpenAction, Revoked, RunInfo, TaskHistory, Worker
from flo.grid.members import Members
from flo.grid.partition import Partition
from flo.grid.payloads import Payloads, size_of, too_large
from flo.grid.records import Records
from flo.primitives.history import Record, recorded_params
from flo.primitives.machine import Event, Refused
from flo.primitives.payload import is_reference
from flo.primitives.run_actions import Ask
from flo.primitives.run_decide import again, finish, pause
from flo.primitives.run_events import Did, Printed, TaskStarted
from flo.primitives.run_state import Note, Run, Task
from flo.primitives.run_storage import GROWING, Load, PayloadsAway

LARGE_CHARS = limits.PAYLOAD_SOFT_BYTES // 4  # a text of fewer is within the soft limit in any script
EVALUATING_MAX = 64  # leases of strands that do not wait; more would only hold memory


class Strands:
    """Implements flo.api.worker.RunCore. `claim_for` names the session that performs an external action at once."""

    def __init__(
        self,
        partition: Partition,
        payloads: Payloads,
        records: Records,
        members: Members,
        memory_refuses: Callable[[int, int], str],
        load_bundle: Callable[[bytes], bytes],
        claim_for: Callable[[str], str],
        entropy: Callable[[int], bytes],
        after: Callable[[], None],
        *,
        speculation_bytes: int = limits.SPECULATION_BYTES,
    ) -> None:
        self._partition = partition
        self._payloads = payloads
        self._records = records
        self._members = members
        self._memory_refuses = memory_refuses  # why a write of so many bytes must not be, or ""
        self._load_bundle = load_bundle
        self._claim_for = claim_for
        self._entropy = entropy
        self._speculation_bytes = speculation_bytes
        self._after = after  # called without the lock when a command may have set something off
        self.worker: Worker | None = None
        self._leases: dict[tuple[str, str], Lease] = {}
        self._ready: deque[Task] = deque()
        self._queued: set[tuple[str, str]] = set()
        self._evaluating = 0
        self._starts: list[Lease] = []
        self._wakes: list[Lease] = []

    # -- what the partition tells (with its lock held)

    def note(self, note: Note) -> None:
        what, task = note.what, note.task
        assert task is not None
        if what == "record":
            lease = self._leases.get((note.run.id, task.strand.prefix))
            if lease is not None:
                assert note.record is not None
                history = lease.history.get(task.prefix)
                if history is not None:
                    history.records[note.n] = note.record
                    history.open.pop(note.n, None)
        elif what == "ready":
            self.ready(task)
        else:
            assert what == "revoke"
            self._revoke(note.run, note.prefix, note.text)

    def ready(self, task: Task) -> None:
        """A strand could go on: its worker is woken, or it waits for a lease."""
        key = (task.run.id, task.prefix)
        lease = self._leases.get(key)
        if lease is not None:
            if lease.waiting:
                lease.waiting = False
                self._evaluating += 1
                self._wakes.append(lease)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.append(task)

    def forget(self, run: Run) -> None:
        """The run is over: nothing of it is evaluated any more."""
        for task in run.all_tasks():
            if not task.inline:
                self._revoke(run, task.prefix, "ended")

    def revoke_all(self, reason: str) -> None:
        for lease in list(self._leases.values()):
            self._end(lease, reason)

    def restart(self) -> None:
        """The partition throws its memory away: every lease is over, and what is ready will be found anew."""
        self.revoke_all("lost")
        self._ready.clear()
        self._queued.clear()
        self._evaluating = 0

    def _revoke(self, run: Run, prefix: str, reason: str) -> None:
        lease = self._leases.get((run.id, prefix))
        if lease is not None:
            self._end(lease, reason)

    def _end(self, lease: Lease, reason: str) -> None:
        lease.alive = False
        lease.reason = reason
        if not lease.waiting:
            self._evaluating -= 1
        del self._leases[lease.run, lease.task]
        self._wakes.append(lease)

    # -- handing out

    def hand_out(self, executes: Callable[[Run], bool]) -> tuple[list[Lease], list[Lease]]:
        """Leases what is ready, within bounds; returns what to start and what to wake. With the lock held."""
        if self.worker is not None:
            while self._ready and self._evaluating < EVALUATING_MAX:
                task = self._ready.popleft()
                key = (task.run.id, task.prefix)
                self._queued.discard(key)
                if not self._partition.machines.runs.is_ready(task) or task.run.status != "running":
                    continue
                if not executes(task.run) or key in self._leases:
                    continue
                lease = self._lease(task)
                self._leases[key] = lease
                self._evaluating += 1
                self._starts.append(lease)
        starts, wakes = self._starts, self._wakes
        if starts:
            self._starts = []
        if wakes:
            self._wakes = []
        return starts, wakes

    def deliver(self, starts: list[Lease], wakes: list[Lease]) -> None:
        """Gives leases to the worker. Without the lock: large arguments are read from their blobs here."""
        assert self.worker is not None
        readable = [lease for lease in starts if not is_reference(lease.args) or self._load_args(lease)]
        if readable:
            self.worker.start(readable)
        if wakes:
            self.worker.wake(wakes)

    def _load_args(self, lease: Lease) -> bool:
        """Reads large arguments; a run whose arguments cannot be read is paused, and says why."""
        try:
            lease.args = self._payloads.load(lease.args)
        except (KeyError, FloError) as fault:
            with suppress(Revoked):
                self.pause(lease, "internal", f"its arguments cannot be read: {fault}")
            return False
        return True

    @property
    def pending(self) -> bool:
        """Whether there is something to hand out."""
        return bool(self._starts or self._wakes or (self._ready and self._evaluating < EVALUATING_MAX))

    def _lease(self, task: Task) -> Lease:
        run = task.run
        history = {task.prefix: _history(task)}
        for inline in (task.inlines or {}).values():
            if inline.phase == "body":
                history[inline.prefix] = _history(inline)
        owner = task.parent if task.is_exit and task.parent is not None else task
        info = RunInfo(
            id=owner.address(),
            name=task.flow.rpartition("::")[2] or task.flow,
            parent=owner.parent.address() if owner.parent is not None else (run.parent.rpartition("/")[0] or None),
            attempt=owner.attempt,
            started_at=owner.started_at,
            username=run.username,
            quota_path=f"/{run.username}",
            limits={},
            outcome=self._payloads.load(task.outcome) if task.is_exit else None,
        )
        return Lease(
            run=run.id, task=task.prefix, phase="exit" if task.is_exit else "body", bundle=run.bundle, flow=task.flow,
            args=task.args, info=info, history=history,
        )  # fmt: skip

    # -- RunCore

    def act(
        self, lease: Lease, task: str, n: int, kind: str, params: str, where: str, *, handle: bool = False,
        large: tuple[Outcome, str] | None = None, loaded: Load | None = None,
    ) -> Outcome | None:  # fmt: skip
        """As in RunCore. Files are not touched with the lock held: `large` is an outcome that another try came to, and
        the reference under which it is stored now, `loaded` gives payloads that another try did not find in memory."""
        partition = self._partition
        if partition.commit_group.pending_bytes > self._speculation_bytes:
            self._wait_for_room(lease)
        actions = partition.machines.actions
        stored, refused = params, ""
        if len(params) > limits.PAYLOAD_SOFT_BYTES:
            if size_of(params) > limits.PAYLOAD_HARD_BYTES:
                refused = too_large(f"the parameters of {kind}", size_of(params))
            elif kind == "flow" or kind == "send" or kind not in actions.internal:
                stored = self._payloads.store_params(kind, params)
        try:
            with partition.lock:
                now = self._begin(lease)
                target = self._task(lease, task)
                index = partition.next_index
                session = ""
                if kind in GROWING and not refused:
                    refused = self._refused_for_memory(now, kind, len(params), where)
                if kind not in actions.internal and not refused:
                    try:
                        session = self._claim_for(kind)
                    except Refused as refusal:
                        refused = _error(refusal)
                outcome: str | None
                if refused:
                    events: list[Event] = [
                        Did(lease.run, task, n, kind, recorded_params(params), refused, where),
                    ]
                    outcome = refused
                else:
                    load = loaded or self._records.load_hot
                    ask = Ask(now, index, target, n, kind, params, stored, where, handle, session, self._entropy, load)
                    events, outcome = actions.decide(ask)
                    if outcome is not None and len(outcome) > LARGE_CHARS:
                        events, outcome = _referred(events, outcome, large)
                partition.commit(events, now)
                if kind.startswith("stream.group_"):
                    self._members.noticed(now, events)
                if handle:
                    if outcome is not None:
                        record = Record(n, kind, recorded_params(params), outcome, index, now, where)
                        lease.history[task].records[n] = record
                elif outcome is None:
                    if target.strand.blocked is not None:
                        lease.waiting = True
                        self._evaluating -= 1
                    elif (done := lease.history[task].records.get(n)) is not None:
                        outcome = done.outcome
        except PayloadsAway as away:
            loaded = self._records.loaded(away.records, loaded)
            return self.act(lease, task, n, kind, params, where, handle=handle, large=large, loaded=loaded)
        except _Large as over:
            large = over.outcome, self._payloads.store(over.outcome)
            try:
                return self.act(lease, task, n, kind, params, where, handle=handle, large=large, loaded=loaded)
            finally:
                self._payloads.unpin(large[1])
        except Unavailable:
            raise Revoked from None
        finally:
            if stored is not params:
                self._payloads.unpin(stored)
        if partition.stirred:
            self._after()
        return outcome if outcome is None or outcome[0] != "@" else self._payloads.load(outcome)

    def _refused_for_memory(self, now: int, kind: str, size: int, where: str) -> Outcome:
        """The error of a write that would make the state grow when it must not, "" when it may."""
        why = self._memory_refuses(now, size)
        return error("quota_exceeded", f"{kind}: {why}", retryable=True, where=where or None) if why else ""

    def enter(self, lease: Lease, task: str, n: int, params: str, where: str) -> None:
        if self._partition.commit_group.pending_bytes > self._speculation_bytes:
            self._wait_for_room(lease)
        if len(params) > LARGE_CHARS and size_of(params) > limits.PAYLOAD_HARD_BYTES:
            self._fail(lease, too_large("the arguments of a flow", size_of(params)))
        stored = self._payloads.store_params("flow", params)
        with self._partition.lock:
            now = self._begin(lease)
            self._task(lease, task)
            recorded = recorded_params(params)
            event = TaskStarted(
                lease.run, task, n, stored, "" if recorded == stored else recorded, where, False, True, 0
            )
            self._commit([event], now)
            lease.history[f"{task}.{n}"] = TaskHistory()
        if stored is not params:
            self._payloads.unpin(stored)

    def leave(self, lease: Lease, prefix: str, outcome: Outcome) -> Outcome:
        stored = self._payloads.outcome(outcome, "the result of a flow")
        with self._partition.lock:
            now = self._begin(lease)
            task = self._task(lease, prefix)
            self._commit(finish(self._partition.machines.runs, now, task, stored), now)
            lease.history.pop(prefix, None)
        self._payloads.unpin(stored)
        self._after()
        return outcome if stored == outcome or is_reference(stored) else stored

    def continue_as_new(self, lease: Lease, prefix: str, args: str) -> None:
        if len(args) > LARGE_CHARS and size_of(args) > limits.PAYLOAD_HARD_BYTES:
            self._fail(lease, too_large("the arguments of continue_as_new", size_of(args)))
        stored = self._payloads.store(args)
        refused = ""
        try:
            with self._partition.lock:
                now = self._begin(lease)
                task = self._task(lease, prefix)
                try:
                    events = again(task, stored)
                except Refused as refusal:
                    refused = _error(refusal)
                else:
                    self._commit(events, now)
                    if task.inline:
                        lease.history.pop(prefix, None)
                        lease.history[task.prefix] = TaskHistory()
        finally:
            self._payloads.unpin(stored)
        if refused:
            self._fail(lease, refused)
        self._after()

    def output(self, lease: Lease, task: str, k: int, channel: str, text: str) -> None:
        if len(text) > LARGE_CHARS:
            text = _cut(text)
        if self._partition.commit_group.pending_bytes > self._speculation_bytes:
            self._wait_for_room(lease)
        with self._partition.lock:
            now = self._begin(lease)
            over = self._task(lease, task).run.output_count >= limits.OUTPUT_LINES
            if not over:
                self._commit([Printed(lease.run, task, k, channel, text)], now)
        if over:
            self._fail(lease, error("quota_exceeded", f"the run has written its limit of {limits.OUTPUT_LINES} lines"))
        self._after()

    def _fail(self, lease: Lease, why: Outcome) -> NoReturn:
        """Ends the strand for what its script cannot take as the result of an action."""
        with suppress(Revoked):  # it is over already
            self.finish(lease, why)
        raise Revoked

    def finish(self, lease: Lease, outcome: Outcome) -> None:
        stored = self._payloads.outcome(outcome, "the result of the flow")
        with self._partition.lock:
            now = self._begin(lease)
            task = self._task(lease, lease.task)
            self._end_quietly(lease)
            self._commit(finish(self._partition.machines.runs, now, task, stored), now)
        self._payloads.unpin(stored)
        self._after()

    def pause(self, lease: Lease, kind: str, message: str) -> None:
        with self._partition.lock:
            now = self._begin(lease)
            self._end_quietly(lease)
            self._commit(pause(self._partition.machines.runs, lease.run, f"{kind}: {message}"), now)
        self._after()

    def release(self, lease: Lease) -> None:
        with self._partition.lock:
            if lease.alive:
                self._end_quietly(lease)
                run = self._partition.machines.runs.runs.get(lease.run)
                task = run.task(lease.task) if run is not None and run.status == "running" else None
                if task is not None and self._partition.machines.runs.is_ready(task):
                    self.ready(task)
        self._after()

    def load_bundle(self, digest: bytes) -> bytes:
        return self._load_bundle(digest)

    def load_text(self, reference: str) -> str:
        return self._payloads.load(reference)

    # -- shared

    def _begin(self, lease: Lease) -> int:
        """Begins a command of this lease; timers that run first may end it."""
        if not lease.alive:
            raise Revoked
        try:
            now = self._partition.begin()
        except Unavailable:
            raise Revoked from None
        if not lease.alive:
            raise Revoked
        return now

    def _task(self, lease: Lease, prefix: str) -> Task:
        task = self._partition.machines.runs.runs[lease.run].task(prefix)
        if task is None:
            raise Revoked
        return task

    def _end_quietly(self, lease: Lease) -> None:
        """The worker itself ends the lease, so it is not woken."""
        lease.alive = False
        lease.reason = "ended"
        if not lease.waiting:
            self._evaluating -= 1
        del self._leases[lease.run, lease.task]

    def _commit(self, events: list[Event], now: int) -> None:
        try:
            self._partition.commit(events, now)
        except Unavailable:
            raise Revoked from None

    def _wait_for_room(self, lease: Lease) -> None:
        """Back-pressure: a run thread waits while too much is speculative (design.md §5.2)."""
        group = self._partition.commit_group
        while lease.alive and group.pending_bytes > self._speculation_bytes:
            try:
                group.wait(group.durable_index + 1, timeout=1.0)
            except FloError:
                raise Revoked from None


def _history(task: Task) -> TaskHistory:
    history = TaskHistory()
    history.records = {record.n: record for record in task.records()}
    if task.open is not None:
        history.open = {n: OpenAction(o.kind, o.recorded) for n, o in task.open.items()}
    history.outputs = task.outputs
    if task.inline and task.generation > 1:
        history.args = task.args
    return history


class _Large(Exception):
    """An outcome that must be stored before it can be logged."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


def _referred(events: list[Event], outcome: Outcome, large: tuple[Outcome, str] | None) -> tuple[list[Event], str]:
    """The same events, with the reference of an outcome over the soft limit in its place. Raises _Large."""
    if size_of(outcome) <= limits.PAYLOAD_SOFT_BYTES:
        return events, outcome
    if large is None or large[0] != outcome:
        raise _Large(outcome)
    *before, last = events
    return [*before, replace(last, outcome=large[1])], large[1]


def _error(refused: Refused) -> str:
    return error(refused.kind, refused.message, details=refused.details)


def _cut(text: str) -> str:
    """An output line within its bound, and what was cut of it."""
    data = text.encode()
    bound = limits.PAYLOAD_SOFT_BYTES
    if len(data) <= bound:
        return text
    return data[:bound].decode(errors="ignore") + f"… ({len(data)} bytes, cut)"
