"""The run machine: what the events of runs do to the state (total), and the timers that they set.

What is decided lies beside it: run_decide (life of runs and tasks), run_actions (actions of flows).
`notes` tell the partition what to do outside (lease, wake, hand out); `follow_ups` are commands that an
event sets off and that belong into the same frame. Both are thrown away by a replay, and what they would
have led to is derived from the state when a partition opens (`flo.grid`).
"""

from __future__ import annotations

import heapq
import sys
from collections import deque
from collections.abc import Callable
from typing import ClassVar

import msgspec

from flo.primitives.flows import FlowOptions, FlowParams
from flo.primitives.history import Record, pack
from flo.primitives.ids import ROOT, task_prefix
from flo.primitives.limits import CANCEL_GRACE_MS
from flo.primitives.machine import Event
from flo.primitives.outcome import error
from flo.primitives.payload import is_reference
from flo.primitives.run_events import (
    RUN_EVENTS,
    Answered,
    Archived,
    Asked,
    AttemptFailed,
    CancelAsked,
    Claimed,
    Did,
    ExitStarted,
    Paused,
    Printed,
    ResourceChanged,
    RunFinished,
    RunStarted,
    Sent,
    Signalled,
    TaskAgain,
    TaskEnded,
    TaskEnding,
    TaskStarted,
    Took,
)  # fmt: skip
from flo.primitives.run_state import NO_OPTIONS, Note, Open, Resource, Run, Task

OF_DEADLINE = -1  # numbers of timers that belong to no action
OF_BACKOFF = -2
TIMERS_KEPT = 1_024  # void ones stay until as many again have been set

CANCELLED = error("cancelled", "cancelled because the flow that asked for it ended")

_params = msgspec.json.Decoder(FlowParams).decode
_options = msgspec.json.Decoder(FlowOptions).decode
_packed_output = msgspec.msgpack.Encoder().encode


class DeclaredResource(msgspec.Struct):
    """One element of the parameters of `resources.open`."""

    name: str
    kind: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


class WaitParams(msgspec.Struct):
    handles: list[str]
    count: int | None = None
    timeout: int | None = None


class SignalParams(msgspec.Struct):
    type: str
    timeout: int | None = None


class ReadParams(msgspec.Struct):
    after: str


_declared = msgspec.json.Decoder(list[DeclaredResource]).decode
_read_params = msgspec.json.Decoder(ReadParams).decode
wait_params = msgspec.json.Decoder(WaitParams).decode
signal_params = msgspec.json.Decoder(SignalParams).decode


class RunMachine:
    name: ClassVar[str] = "runs"
    events: ClassVar[dict[tuple[int, int], type[Event]]] = {(e.KIND, e.VERSION): e for e in RUN_EVENTS}

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.notes: list[Note] = []
        self.follow_ups: deque[tuple[str, Run, Task | None, int]] = deque()
        self.sweeps: deque[Task] = deque()  # ending tasks whose children have still to be cancelled
        self.attics: dict[str, Run] = {}  # runs with something that could be archived, oldest first
        self.attics_bytes = 0  # of them
        self._timers: list[tuple[int, int, Run, Task, int]] = []
        self._timer_count = 0
        self._timers_bound = TIMERS_KEPT
        self.by_kind: dict[int, Callable[..., None]] = {
            RunStarted.KIND: self._run_started,
            Did.KIND: self._did,
            Asked.KIND: self._asked,
            Claimed.KIND: self._claimed,
            Answered.KIND: self._answered,
            AttemptFailed.KIND: self._attempt_failed,
            TaskStarted.KIND: self._task_started,
            TaskEnding.KIND: self._task_ending,
            TaskEnded.KIND: self._task_ended,
            TaskAgain.KIND: self._task_again,
            ExitStarted.KIND: self._exit_started,
            ResourceChanged.KIND: self._resource_changed,
            RunFinished.KIND: self._run_finished,
            Printed.KIND: self._printed,
            Signalled.KIND: self._signalled,
            Sent.KIND: self._sent,
            Took.KIND: self._took,
            CancelAsked.KIND: self._cancel_asked,
            Paused.KIND: self._paused,
            Archived.KIND: self._archived,
        }

    def apply(self, event: Event, index: int, now: int) -> None:
        self.by_kind[event.KIND](event, index, now)

    def task(self, run_id: str, prefix: str) -> Task:
        """The live task; the caller knows that it is there."""
        task = self.runs[run_id].task(prefix)
        assert task is not None, f"no task {prefix} in run {run_id}"
        return task

    # -- runs

    def _run_started(self, e: RunStarted, index: int, now: int) -> None:
        run = Run(
            e.run, bundle=e.bundle, options=_shared(e.options), username=_shared(e.username),
            script=_shared(e.script), parent=e.parent, runtime=_shared(e.runtime), started_at=now, index=index,
            deadline=e.deadline,
        )  # fmt: skip
        options = NO_OPTIONS if e.options == "{}" else _options(e.options)
        root = Task(
            run, ROOT, None, flow=_shared(e.flow), args=_shared(e.args), options=options, started_at=now, index=index,
            where="", deadline=e.deadline, inline=False,
        )  # fmt: skip
        run.root = root
        self.runs[e.run] = run
        if e.deadline:
            self.set_timer(e.deadline, root, OF_DEADLINE)
        self.notes.append(Note("started", run))
        self.notes.append(Note("ready", run, root))

    def _run_finished(self, e: RunFinished, index: int, now: int) -> None:
        run = self.runs[e.run]
        root = run.root
        self._drop_open(root)
        run.status = e.status
        run.outcome = e.outcome or root.outcome
        run.finished_at = now
        run.finished_index = index
        run.tasks = None
        run.signals = None
        run.signal_waits = None
        run.paused = ""
        root.phase = "ended"
        root.inbox = None
        root.resources = None
        root.blocked = None
        root.inlines = None
        root.packed = bytes(root.packed)
        run.output = bytes(run.output)
        self.attics[run.id] = run
        self.attics_bytes += len(root.packed) + len(run.output)
        self.notes.append(Note("final", run))
        if run.parent:
            self.follow_ups.append(("parent", run, None, 0))

    def _cancel_asked(self, e: CancelAsked, index: int, now: int) -> None:
        run = self.runs[e.run]
        run.cancel = e.reason
        for task in run.all_tasks():
            if task.is_exit and not task.deadline:  # one that began before the cancel gets the same grace
                task.deadline = now + CANCEL_GRACE_MS
                self.set_timer(task.deadline, task, OF_DEADLINE)
        self.follow_ups.append(("cancel", run, run.root, 0))

    def _paused(self, e: Paused, index: int, now: int) -> None:
        run = self.runs[e.run]
        run.paused = e.reason
        if e.reason:
            for task in run.all_tasks():
                if not task.inline:
                    self.notes.append(Note("revoke", run, task, text="paused", prefix=task.prefix))
            self.notes.append(Note("view", run))
        else:
            for task in run.all_tasks():
                if self.is_ready(task):
                    self.notes.append(Note("ready", run, task))

    def _archived(self, e: Archived, index: int, now: int) -> None:
        run = self.runs[e.run]
        if run.attic is not None:
            gone = sum(len(packed) for _, _, packed in run.attic[: e.count])
            run.attic_bytes -= gone
            self.attics_bytes -= gone
            run.attic = run.attic[e.count :] or None
        run.archives = [*(run.archives or ()), *e.named, e.blob]
        if e.whole:
            self.attics_bytes -= len(run.root.packed) + len(run.output)
            run.root.packed = b""
            run.root.count = 0
            run.output = b""
        if run.attic is None and (run.status == "running" or e.whole):
            self.attics.pop(run.id, None)

    # -- tasks

    def _task_started(self, e: TaskStarted, index: int, now: int) -> None:
        parent = self.task(e.run, e.task)
        run = parent.run
        if is_reference(e.params):  # large arguments: the flow's name and options stand in front of the reference
            reference, _, head = e.params.partition(" ")
            params = _params(head)
            args = reference
        else:
            params = _params(e.params)
            args = bytes(params.args).decode()
        task = Task(
            run, f"{e.task}.{e.n}", parent, flow=params.flow, args=args, options=params.options, started_at=now,
            index=index, where=e.where, deadline=e.deadline, inline=e.inline,
        )  # fmt: skip
        task.n = e.n
        opened = Open(
            kind="flow", params="", recorded=e.recorded or e.params, where=e.where, index=index, at=now,
            blocking=e.blocking,
        )  # fmt: skip
        opened.child = task
        self._add_open(parent, e.n, opened)
        if run.tasks is None:
            run.tasks = {}
        run.tasks[task.prefix] = task
        parent.children += 1
        if e.inline:
            strand = task.strand
            if strand.inlines is None:
                strand.inlines = {}
            strand.inlines[task.prefix] = task
        else:
            if e.deadline:
                self.set_timer(e.deadline, task, OF_DEADLINE)
            self.notes.append(Note("ready", run, task))

    def _exit_started(self, e: ExitStarted, index: int, now: int) -> None:
        parent = self.task(e.run, e.task)
        run = parent.run
        task = Task(
            run, f"{e.task}.exit", parent, flow=parent.flow, args=parent.args, options=NO_OPTIONS, started_at=now,
            index=index, where=parent.where, deadline=e.deadline, inline=False, is_exit=True,
        )  # fmt: skip
        task.outcome = parent.outcome
        if e.deadline:
            self.set_timer(e.deadline, task, OF_DEADLINE)
        if run.tasks is None:
            run.tasks = {}
        run.tasks[task.prefix] = task
        parent.children += 1
        self.notes.append(Note("ready", run, task))

    def _task_ending(self, e: TaskEnding, index: int, now: int) -> None:
        task = self.task(e.run, e.task)
        task.phase = "ending"
        task.outcome = e.outcome
        task.then = e.then
        task.due = e.due
        task.next_args = e.args
        self._drop_open(task)
        task.blocked = None
        if task.inline:
            assert task.parent is not None
            self._complete(task.parent, task.n, e.outcome)
        else:
            self.notes.append(Note("revoke", task.run, task, text=e.then, prefix=e.task))
        if task.children:
            self.sweeps.append(task)
        self.follow_ups.append(("advance", task.run, task, 0))

    def _task_ended(self, e: TaskEnded, index: int, now: int) -> None:
        task = self.task(e.run, e.task)
        run, parent = task.run, task.parent
        assert parent is not None and run.tasks is not None
        told = task.inline and task.phase == "ending"
        self._drop_open(task)
        del run.tasks[task.prefix]
        if task.inline and task.strand.inlines is not None:
            task.strand.inlines.pop(task.prefix, None)
        self._to_attic(task)
        parent.children -= 1
        task.phase = "ended"
        if task.is_exit:
            parent.exited = True
        elif task.n and not told:
            self._complete(parent, task.n, e.outcome or task.outcome)
        if parent.phase == "ending":
            self.follow_ups.append(("advance", run, parent, 0))

    def _task_again(self, e: TaskAgain, index: int, now: int) -> None:
        task = self.task(e.run, e.task)
        run = task.run
        if e.generation != task.generation:
            self._drop_open(task)
            self._disown(task)
            self._to_attic(task)
            prefix = task_prefix(task.base, e.generation)
            if task.parent is not None:
                assert run.tasks is not None
                del run.tasks[task.prefix]
                run.tasks[prefix] = task
            if task.inline and task.strand.inlines is not None:
                task.strand.inlines.pop(task.prefix, None)
                task.strand.inlines[prefix] = task
            task.prefix = prefix
            task.generation = e.generation
        task.attempt = e.attempt
        if e.args:
            task.args = e.args
        task.packed = b""
        task.count = 0
        task.outputs = 0
        task.resources = None
        task.exited = False
        task.outcome = task.then = task.next_args = ""
        task.due = e.due
        task.phase = "backoff" if e.due else "body"
        if e.due:
            self.set_timer(e.due, task, OF_BACKOFF)
        elif not task.inline:
            self.notes.append(Note("ready", run, task))

    def _to_attic(self, task: Task) -> None:
        if task.count:
            run = task.run
            if run.attic is None:
                run.attic = []
            packed = bytes(task.packed)
            run.attic.append((task.prefix, task.count, packed))
            run.attic_bytes += len(packed)
            self.attics_bytes += len(packed)
            self.attics[run.id] = run

    # -- actions

    def _did(self, e: Did, index: int, now: int) -> None:
        self._record(self.task(e.run, e.task), Record(e.n, e.kind, e.params, e.outcome, index, now, e.where))

    def _took(self, e: Took, index: int, now: int) -> None:
        task = self.task(e.run, e.task)
        if e.type:
            signals = task.run.signals
            assert signals is not None
            for place, (type_, _) in enumerate(signals):
                if type_ == e.type:
                    del signals[place]
                    break
            task.run.signals = signals or None
        else:
            assert task.inbox is not None
            task.inbox.popleft()
            task.inbox = task.inbox or None
        self._record(task, Record(e.n, e.kind, e.params, e.outcome, index, now, e.where))

    def _asked(self, e: Asked, index: int, now: int) -> None:
        task = self.task(e.run, e.task)
        opened = Open(
            kind=_shared(e.kind), params="" if e.kind in SELF_TIMED else e.params,
            recorded=_shared(e.recorded or e.params), where=_shared(e.where), index=index, at=now,
            blocking=e.blocking, due=e.due, session=e.session,
        )  # fmt: skip
        self._add_open(task, e.n, opened)
        if e.due:
            self.set_timer(e.due, task, e.n)
        kind = e.kind
        if kind == "wait":
            self._begin_wait(task, e.n, opened, wait_params(e.params))
        elif kind == "signal":
            if task.run.signal_waits is None:
                task.run.signal_waits = {}
            task.run.signal_waits[task, e.n] = signal_params(e.params).type
        elif kind == "resources.open":
            task.resources = [Resource(d.name, d.kind, bytes(d.params).decode()) for d in _declared(e.params)]
            self.follow_ups.append(("advance", task.run, task, 0))
        elif kind in WAITING:
            self.notes.append(Note("park", task.run, task, e.n))
        elif kind not in SELF_TIMED:
            self.notes.append(Note("job", task.run, task, e.n))
        if e.blocking:
            self.notes.append(Note("view", task.run))

    def _begin_wait(self, task: Task, n: int, opened: Open, params: WaitParams) -> None:
        assert task.open is not None
        opened.handles = numbers = [int(sid[sid.rindex(".") + 1 :]) for sid in params.handles]
        waited = [task.open[number] for number in numbers if number in task.open]
        for other in waited:
            if other.waiters is None:
                other.waiters = []
            other.waiters.append(n)
        wanted = len(numbers) if params.count is None else min(params.count, len(numbers))
        opened.left = wanted - (len(numbers) - len(waited))

    def _claimed(self, e: Claimed, index: int, now: int) -> None:
        opened = self._opened(self.task(e.run, e.task), e.n)
        opened.session = e.session
        opened.attempt = e.attempt
        opened.due = 0

    def _answered(self, e: Answered, index: int, now: int) -> None:
        self._complete(self.task(e.run, e.task), e.n, e.outcome)

    def _attempt_failed(self, e: AttemptFailed, index: int, now: int) -> None:
        task = self.task(e.run, e.task)
        opened = self._opened(task, e.n)
        opened.attempt += 1
        opened.session = ""
        opened.due = e.due
        self.set_timer(e.due, task, e.n)

    def _printed(self, e: Printed, index: int, now: int) -> None:
        task = self.task(e.run, e.task)
        run = task.run
        task.outputs = e.k
        line = (now, e.task, e.channel, e.text)
        run.output = _joined(run.output, _packed_output(line))
        run.output_count += 1
        self.notes.append(Note("output", run, line=line))

    # -- signals and messages

    def _signalled(self, e: Signalled, index: int, now: int) -> None:
        run = self.runs[e.run]
        if e.n:
            self._complete(self.task(e.run, e.task), e.n, "+" + e.payload)
            return
        if run.signals is None:
            run.signals = []
        run.signals.append((e.type, e.payload))

    def _sent(self, e: Sent, index: int, now: int) -> None:
        task = self.task(e.run, e.task)
        if e.n:
            self._complete(task, e.n, delivered(e.message))
            return
        if task.inbox is None:
            task.inbox = deque()
        task.inbox.append((e.sender, e.message))

    # -- resources

    def _resource_changed(self, e: ResourceChanged, index: int, now: int) -> None:
        task = self.task(e.run, e.task)
        assert task.resources is not None
        resource = task.resources[e.place]
        resource.generation = e.generation
        resource.state = e.state
        resource.session = e.session
        if e.value:
            resource.value = e.value
        if e.state in ("opening", "closing") and not e.session:
            self.notes.append(Note("resource", task.run, task, e.place))
        if e.state in ("open", "closed", "failed", "lost"):
            self.follow_ups.append(("advance", task.run, task, 0))
            if task.phase == "body" and task.open is None and self.is_ready(task):
                self.notes.append(Note("ready", task.run, task))
        if e.state == "lost":
            self.notes.append(Note("revoke", task.run, task, text="resource lost", prefix=e.task))

    # -- what they share

    def is_ready(self, task: Task) -> bool:
        """Whether a worker could go on with this strand now."""
        if task.inline or task.phase != "body" or task.blocked is not None or task.run.paused:
            return False
        return task.resources is None or all(r.state == "open" for r in task.resources)

    def _opened(self, task: Task, n: int) -> Open:
        assert task.open is not None
        return task.open[n]

    def _add_open(self, task: Task, n: int, opened: Open) -> None:
        if task.open is None:
            task.open = {}
        task.open[n] = opened
        task.run.open_count += 1
        if opened.blocking:
            task.strand.blocked = (task, n)

    def _record(self, task: Task, record: Record) -> None:
        task.packed = _joined(task.packed, pack(record))
        task.count += 1

    def _complete(self, task: Task, n: int, outcome: str) -> None:
        """An open action gets its outcome; whoever waits for it is told."""
        if task.open is None or n not in task.open:
            return  # the task dropped it when it ended
        opened = task.open.pop(n)
        if not task.open:
            task.open = None
        run = task.run
        run.open_count -= 1
        if opened.session:
            self.notes.append(Note("unjob", run, task, n))
        record = Record(n, opened.kind, opened.recorded, outcome, opened.index, opened.at, opened.where)
        self._record(task, record)
        if opened.kind == "signal" and run.signal_waits is not None:
            run.signal_waits.pop((task, n), None)
            if not run.signal_waits:
                run.signal_waits = None
        strand = task.strand
        self.notes.append(Note("record", run, task, n, record))
        if strand.blocked is not None and strand.blocked[1] == n and strand.blocked[0] is task:
            strand.blocked = None
            self.notes.append(Note("ready", run, strand))
        if opened.waiters is not None and task.open is not None:
            for number in opened.waiters:
                waiting = task.open.get(number)
                if waiting is not None:
                    waiting.left -= 1
                    if waiting.left == 0:
                        self.follow_ups.append(("resolve", run, task, number))

    def _drop_open(self, task: Task) -> None:
        """Ends what a task has asked for and no longer wants; its children are ended by commands of their own."""
        if task.open is None:
            return
        for n, opened in list(task.open.items()):
            if opened.child is None:
                opened.waiters = None
                self._complete(task, n, CANCELLED)

    def _disown(self, task: Task) -> None:
        """What a generation started and left unfinished is nobody's action any more: the next one has the numbers."""
        for n, opened in list((task.open or {}).items()):
            assert opened.child is not None
            opened.child.n = 0
            self._complete(task, n, CANCELLED)

    # -- timers

    def set_timer(self, due: int, task: Task, n: int) -> None:
        if len(self._timers) >= self._timers_bound:
            self._timers = [timer for timer in self._timers if self._is_set(timer[0], *timer[2:])]
            heapq.heapify(self._timers)
            self._timers_bound = TIMERS_KEPT + 2 * len(self._timers)
        self._timer_count += 1
        heapq.heappush(self._timers, (due, self._timer_count, task.run, task, n))

    def next_due(self) -> int | None:
        if self.sweeps:
            return 0
        timers = self._timers
        while timers:
            due, _, run, task, n = timers[0]
            if self._is_set(due, run, task, n):
                return due
            heapq.heappop(timers)
        return None

    def pop_due(self, now: int) -> tuple[Task, int] | None:
        """The next timer that is due, taken off the heap: its task and number. The caller decides it at once."""
        due = self.next_due()
        if due is None or due > now or self.sweeps:
            return None
        _, _, _, task, n = heapq.heappop(self._timers)
        return task, n

    def peek_due(self) -> int | None:
        """At or before the next timer that is due: a void one may stand in front of it. Cheaper than next_due."""
        if self.sweeps:
            return 0
        return self._timers[0][0] if self._timers else None

    def _is_set(self, due: int, run: Run, task: Task, n: int) -> bool:
        """Timers are not taken back: one is void when the state no longer agrees with it."""
        if run.status != "running" or task.phase == "ended":
            return False
        if n == OF_DEADLINE:
            return task.deadline == due and (task.phase != "ending" or task.then in ("retry", "continue"))
        if n == OF_BACKOFF:
            return task.phase == "backoff" and task.due == due
        opened = task.open.get(n) if task.open is not None else None
        return opened is not None and opened.due == due

    def dump(self) -> bytes:
        from flo.primitives.run_snapshot import dump_runs  # it needs this module's class

        return dump_runs(self)

    def load(self, data: bytes) -> None:
        from flo.primitives.run_snapshot import load_runs

        load_runs(self, data)

    def due(self, now: int, index: int) -> list[Event]:
        raise NotImplementedError("timers of runs are decided by flo.primitives.machines, with pop_due")

    def rebuild_derived(self) -> None:
        """Timers, sweeps and follow-ups of a state that came from a snapshot or whose notes were thrown away."""
        self._timers = []
        self.sweeps.clear()
        self.follow_ups.clear()
        self.notes.clear()
        self.attics = {}
        self.attics_bytes = 0
        for run in self.runs.values():
            self.attics_bytes += run.attic_bytes
            if run.status != "running":
                self.attics_bytes += len(run.root.packed) + len(run.output)
                if run.root.count or run.output or run.attic:
                    self.attics[run.id] = run
                continue
            if run.attic:
                self.attics[run.id] = run
            if run.cancel is not None:
                self.follow_ups.append(("cancel", run, run.root, 0))
            for task in run.all_tasks():
                self._derive_task(run, task)

    def _derive_task(self, run: Run, task: Task) -> None:
        if task.deadline:
            self.set_timer(task.deadline, task, OF_DEADLINE)
        if task.phase == "backoff":
            self.set_timer(task.due, task, OF_BACKOFF)
        if task.phase == "ending":
            if task.children:
                self.sweeps.append(task)
            self.follow_ups.append(("advance", run, task, 0))
        if task.resources is not None and task.phase == "body":
            self.follow_ups.append(("advance", run, task, 0))
        for n, opened in (task.open or {}).items():
            if opened.due:
                self.set_timer(opened.due, task, n)
            if opened.kind == "wait" and opened.left <= 0:
                self.follow_ups.append(("resolve", run, task, n))


WAITING = frozenset({"kv.wait", "queue.dequeue", "stream.read", "stream.group_read"})  # in line with clients
EMPTY = {"kv.wait": "+null", "queue.dequeue": "+[]", "stream.group_read": "+[]"}
SELF_TIMED = frozenset(
    {"clock.sleep", "clock.timer", "wait", "signal", "receive", "resources.open", "flow"}
)  # the core ends these itself


def nothing(kind: str, params: str) -> str:
    """The outcome of an action that has waited for nothing; a read can go on where it began."""
    if kind == "stream.read":
        return f'+{{"records":[],"next":"{_read_params(params).after}","has_more":false}}'
    return EMPTY[kind]


def delivered(message: str) -> str:
    """The outcome of taking a message; a large one came as the reference of it."""
    return message if is_reference(message) else "+" + message


def _shared(text: str) -> str:
    """One copy of a short text that many parked runs hold alike."""
    return sys.intern(text) if len(text) < 64 else text


def _joined(packed: bytes | bytearray, more: bytes) -> bytes | bytearray:
    """Appends; a short one stays bytes, which take less memory, a long one grows in place."""
    if type(packed) is bytearray:
        packed += more
        return packed
    if len(packed) + len(more) < 512:
        return packed + more
    return bytearray(packed) + more
