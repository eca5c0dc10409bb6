"""The run machine's section of a snapshot. What can be derived (timers, counts, who waits for signals) is left out."""

from __future__ import annotations

from collections import deque

import msgspec

from flo.primitives.flows import FlowOptions
from flo.primitives.run import RunMachine
from flo.primitives.run_state import NO_OPTIONS, Open, Resource, Run, Task

VERSION = 1


class OpenImage(msgspec.Struct, array_like=True, gc=False):
    n: int
    kind: str
    params: str
    recorded: str
    where: str
    index: int
    at: int
    blocking: bool
    due: int
    session: str
    attempt: int
    waiters: list[int] | None
    left: int
    handles: list[int] | None
    child: str | None  # prefix of the task that it is


class ResourceImage(msgspec.Struct, array_like=True, gc=False):
    name: str
    kind: str
    params: str
    generation: int
    state: str
    session: str
    value: str


class TaskImage(msgspec.Struct, array_like=True, gc=False):
    prefix: str
    base: str
    generation: int
    attempt: int
    parent: str | None
    inline: bool
    n: int
    flow: str
    args: str
    options: FlowOptions | None
    started_at: int
    index: int
    where: str
    packed: bytes
    count: int
    open: list[OpenImage]
    blocked: tuple[str, int] | None
    outputs: int
    deadline: int
    phase: str
    outcome: str
    then: str
    due: int
    next_args: str
    resources: list[ResourceImage] | None
    inbox: list[tuple[str, str]] | None
    is_exit: bool
    exited: bool


class RunImage(msgspec.Struct, array_like=True, gc=False):
    id: str
    bundle: bytes
    options: str
    username: str
    script: str
    parent: str
    runtime: str
    started_at: int
    index: int
    deadline: int
    status: str
    outcome: str
    finished_at: int
    finished_index: int
    signals: list[tuple[str, str]] | None
    cancel: str | None
    paused: str
    output: bytes
    output_count: int
    attic: list[tuple[str, int, bytes]] | None
    archives: list[str] | None
    tasks: list[TaskImage]  # the root first


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[RunImage]).decode


def dump_runs(machine: RunMachine) -> bytes:
    return bytes([VERSION]) + _encode([_run_image(run) for run in machine.runs.values()])


def load_runs(machine: RunMachine, data: bytes) -> None:
    """Replaces the machine's state. Raises ValueError for a version it does not know."""
    if not data or data[0] != VERSION:
        raise ValueError(f"runs section of version {data[0] if data else 'none'}, this program knows {VERSION}")
    machine.runs = {}
    for image in _decode(memoryview(data)[1:]):
        machine.runs[image.id] = _run(image)


def _run_image(run: Run) -> RunImage:
    return RunImage(
        run.id, run.bundle, run.options, run.username, run.script, run.parent, run.runtime, run.started_at, run.index,
        run.deadline, run.status, run.outcome, run.finished_at, run.finished_index, run.signals, run.cancel, run.paused,
        bytes(run.output), run.output_count, run.attic, run.archives, [_task_image(t) for t in run.all_tasks()],
    )  # fmt: skip


def _task_image(task: Task) -> TaskImage:
    resources = None
    if task.resources is not None:
        resources = [
            ResourceImage(r.name, r.kind, r.params, r.generation, r.state, r.session, r.value) for r in task.resources
        ]
    return TaskImage(
        task.prefix, task.base, task.generation, task.attempt, task.parent.prefix if task.parent else None, task.inline,
        task.n, task.flow, task.args, None if task.options == NO_OPTIONS else task.options, task.started_at, task.index,
        task.where, bytes(task.packed), task.count, [_open_image(n, o) for n, o in (task.open or {}).items()],
        (task.blocked[0].prefix, task.blocked[1]) if task.blocked is not None else None, task.outputs, task.deadline,
        task.phase, task.outcome, task.then, task.due, task.next_args, resources,
        list(task.inbox) if task.inbox is not None else None, task.is_exit, task.exited,
    )  # fmt: skip


def _open_image(n: int, o: Open) -> OpenImage:
    return OpenImage(
        n, o.kind, o.params, o.recorded, o.where, o.index, o.at, o.blocking, o.due, o.session, o.attempt, o.waiters,
        o.left, o.handles, o.child.prefix if o.child is not None else None,
    )  # fmt: skip


def _run(image: RunImage) -> Run:
    run = Run(
        image.id, bundle=image.bundle, options=image.options, username=image.username, script=image.script,
        parent=image.parent, runtime=image.runtime, started_at=image.started_at, index=image.index,
        deadline=image.deadline,
    )  # fmt: skip
    run.status = image.status
    run.outcome = image.outcome
    run.finished_at = image.finished_at
    run.finished_index = image.finished_index
    run.signals = image.signals
    run.cancel = image.cancel
    run.paused = image.paused
    run.output = image.output
    run.output_count = image.output_count
    run.attic = image.attic
    run.attic_bytes = sum(len(packed) for _, _, packed in image.attic or ())
    run.archives = image.archives
    by_prefix: dict[str, Task] = {}
    for each in image.tasks:
        by_prefix[each.prefix] = _bare_task(run, each)
    if len(image.tasks) > 1:
        run.tasks = {each.prefix: by_prefix[each.prefix] for each in image.tasks if each.parent is not None}
    for each in sorted(image.tasks, key=lambda t: t.index):  # a parent began before its children
        _connect(run, by_prefix, each)
    signal_waits = [
        (o.recorded, t, n, o.index) for t in by_prefix.values() for n, o in (t.open or {}).items() if o.kind == "signal"
    ]
    if signal_waits and run.status == "running":
        signal_waits.sort(key=lambda wait: wait[3])
        run.signal_waits = {(t, n): str(msgspec.json.decode(text)["type"]) for text, t, n, _ in signal_waits}
    return run


def _bare_task(run: Run, image: TaskImage) -> Task:
    task = Task(
        run, image.prefix, None, flow=image.flow, args=image.args, options=image.options or NO_OPTIONS,
        started_at=image.started_at, index=image.index, where=image.where, deadline=image.deadline, inline=False,
        is_exit=image.is_exit,
    )  # fmt: skip
    task.base = image.base
    task.generation = image.generation
    task.attempt = image.attempt
    task.n = image.n
    task.packed = image.packed
    task.count = image.count
    task.outputs = image.outputs
    task.phase = image.phase
    task.outcome = image.outcome
    task.then = image.then
    task.due = image.due
    task.next_args = image.next_args
    task.inbox = deque(image.inbox) if image.inbox is not None else None
    task.exited = image.exited
    if image.resources is not None:
        task.resources = []
        for r in image.resources:
            resource = Resource(r.name, r.kind, r.params)
            resource.generation = r.generation
            resource.state = r.state
            resource.session = r.session
            resource.value = r.value
            task.resources.append(resource)
    return task


def _connect(run: Run, by_prefix: dict[str, Task], image: TaskImage) -> None:
    task = by_prefix[image.prefix]
    if image.parent is None:
        run.root = task
    else:
        parent = by_prefix[image.parent]
        task.parent = parent
        parent.children += 1
        if image.inline:
            task.strand = parent.strand
            if task.strand.inlines is None:
                task.strand.inlines = {}
            task.strand.inlines[task.prefix] = task
    for o in image.open:
        opened = Open(
            kind=o.kind, params=o.params, recorded=o.recorded, where=o.where, index=o.index, at=o.at,
            blocking=o.blocking, due=o.due, session=o.session, attempt=o.attempt,
        )  # fmt: skip
        opened.waiters = o.waiters
        opened.left = o.left
        opened.handles = o.handles
        opened.child = by_prefix[o.child] if o.child is not None else None
        if task.open is None:
            task.open = {}
        task.open[o.n] = opened
        run.open_count += 1
    if image.blocked is not None:
        task.blocked = (by_prefix[image.blocked[0]], image.blocked[1])
