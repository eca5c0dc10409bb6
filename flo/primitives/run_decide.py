"""Decisions on the life of runs and tasks: start, end, cancel, retry, resources, timers. Pure: they return events.

The end of a task goes in steps, each a command of its own in the same frame when nothing has to be waited
for: *ending* (its children are cancelled) → its `on_exit` part → its resources are closed in reverse →
*ended*, or its next generation (retry, continue_as_new).
"""

from __future__ import annotations

import msgspec

from flo.primitives.flows import FlowOptions, RetryPolicy
from flo.primitives.limits import CANCEL_GRACE_MS, COMMAND_EVENTS
from flo.primitives.locks import LockMachine
from flo.primitives.machine import Event, Refused
from flo.primitives.outcome import error, value
from flo.primitives.payload import is_reference, succeeded
from flo.primitives.run import OF_BACKOFF, OF_DEADLINE, WAITING, RunMachine, nothing
from flo.primitives.run_events import (
    Answered,
    AttemptFailed,
    CancelAsked,
    Claimed,
    ExitStarted,
    Paused,
    ResourceChanged,
    RunFinished,
    RunStarted,
    Signalled,
    TaskAgain,
    TaskEnded,
    TaskEnding,
)  # fmt: skip
from flo.primitives.run_state import Open, Resource, Run, Task

NAMESPACE = "default"  # of every run until quota nodes exist

_options = msgspec.json.Decoder(FlowOptions).decode

STATUS_OF = {"timeout": "timed_out", "cancel": "cancelled"}  # of a root task's `then`; else by its outcome


# -- commands from outside


def start(
    m: RunMachine, now: int, *, id: str, bundle: bytes, flow: str, args: str, options: str, timeout_ms: int,
    username: str, script: str, parent: str, runtime: str,
) -> list[Event]:  # fmt: skip
    """A new run, or no event when this very run exists. Raises Refused(conflict) when the id is taken."""
    old = m.runs.get(id)
    if old is not None:
        if old.root.flow != flow:
            raise Refused("conflict", f"run {id} exists and executes {old.root.flow}, not {flow}")
        if old.root.generation == 1 and not same_arguments(old.root.args, args):
            raise Refused("conflict", f"run {id} exists with other arguments")
        return []
    deadline = now + timeout_ms if timeout_ms else 0
    own = _options(options).timeout
    if own is not None:
        deadline = min(deadline, now + own) if deadline else now + own
    return [RunStarted(id, bundle, flow, args, options, deadline, username, script, parent, runtime)]


def same_arguments(one: str, other: str) -> bool:
    """Whether two texts hold the same arguments; references are of content, so they compare as texts."""
    if one == other:
        return True
    if is_reference(one) or is_reference(other):
        return False
    return bool(msgspec.json.decode(one) == msgspec.json.decode(other))


def running(m: RunMachine, run_id: str) -> Run:
    """The unfinished run. Raises Refused(not_found), or Refused(conflict) when it is over."""
    run = m.runs.get(run_id)
    if run is None:
        raise Refused("not_found", f"no run {run_id}")
    if run.status != "running":
        raise Refused("conflict", f"run {run_id} is over: {run.status}")
    return run


def signal(m: RunMachine, run_id: str, type: str, payload: str, bound: int) -> list[Event]:
    run = running(m, run_id)
    for (task, n), waiting_for in (run.signal_waits or {}).items():
        if waiting_for == type:
            return [Signalled(run_id, type, payload, task.prefix, n)]
    if run.signals is not None and len(run.signals) >= bound:
        raise Refused("quota_exceeded", f"run {run_id} has {bound} signals that it has not taken")
    return [Signalled(run_id, type, payload, "", 0)]


def cancel(m: RunMachine, run_id: str, by: str, reason: str) -> list[Event]:
    run = running(m, run_id)
    if run.cancel is not None:
        return []
    asked = CancelAsked(run_id, by, reason)
    # what had to be paused is not evaluated again, and the way to the end must be free
    return [asked, Paused(run_id, "")] if run.paused else [asked]


def pause(m: RunMachine, run_id: str, reason: str) -> list[Event]:
    run = running(m, run_id)
    return [] if run.paused == reason else [Paused(run_id, reason)]


# -- the end of a task


def finish(m: RunMachine, now: int, task: Task, outcome: str) -> list[Event]:
    """The body of a task, or its exit part, has ended."""
    if not succeeded(outcome) and not task.is_exit and not task.inline:
        policy = task.options.retry
        due = retry_at(policy, outcome, task.attempt, task.started_at, now, of_flow=True)
        if due is not None:
            return [TaskEnding(task.run.id, task.prefix, outcome, "retry", due, "")]
    plain = not task.children and not task.options.exit and (task.resources is None or task.is_exit)
    if plain:
        return [end(task, outcome)]
    return [TaskEnding(task.run.id, task.prefix, outcome, "end", 0, "")]


def end(task: Task, outcome: str) -> Event:
    """The last event of a task; `outcome` "" means the one of its TaskEnding."""
    if task.parent is not None:
        return TaskEnded(task.run.id, task.prefix, outcome)
    status = STATUS_OF.get(task.then) or ("completed" if succeeded(outcome or task.outcome) else "failed")
    return RunFinished(task.run.id, status, outcome)


def stop(task: Task, outcome: str, then: str) -> list[Event]:
    """Ends a task from outside its body (cancel, deadline, a resource that failed)."""
    if task.phase == "ended" or (task.phase == "ending" and task.then not in ("retry", "continue")):
        return []
    return [TaskEnding(task.run.id, task.prefix, outcome, then, 0, "")]


def again(task: Task, args: str) -> list[Event]:
    """continue_as_new: an inline task goes on at once, a strand when its children and resources are gone."""
    if not task.inline:
        return [TaskEnding(task.run.id, task.prefix, "+null", "continue", 0, args)]
    events: list[Event] = [
        TaskEnding(task.run.id, child.prefix, CANCELLED_BY_PARENT, "cancel", 0, "") for child in children_of(task)
    ]
    if len(events) > COMMAND_EVENTS:
        raise Refused("quota_exceeded", f"continue_as_new with more than {COMMAND_EVENTS} unfinished children")
    return [*events, TaskAgain(task.run.id, task.prefix, task.generation + 1, 1, args, 0)]


CANCELLED_BY_PARENT = error("cancelled", "cancelled because the flow that started it ended")


def children_of(task: Task) -> list[Task]:
    """The children that are not ending yet: each is an open action."""
    found = [opened.child for opened in (task.open or {}).values() if opened.child is not None]
    return [child for child in found if child.phase != "ending"]


def sweep(m: RunMachine) -> list[Event]:
    """Cancels children of ending tasks, at most COMMAND_EVENTS in one command."""
    events: list[Event] = []
    while m.sweeps and len(events) < COMMAND_EVENTS:
        task = m.sweeps[0]
        left = children_of(task)
        room = COMMAND_EVENTS - len(events)
        events += [TaskEnding(task.run.id, c.prefix, CANCELLED_BY_PARENT, "cancel", 0, "") for c in left[:room]]
        if len(left) > room:
            break
        m.sweeps.popleft()
    return events


def advance(m: RunMachine, locks: LockMachine, now: int, task: Task) -> list[Event]:
    """The next step of a task whose resources are being opened, or that is ending."""
    if task.run.status != "running" or task.phase == "ended":
        return []
    if task.phase == "body":
        return open_resources(m, locks, now, task)
    if task.phase != "ending" or task.children:
        return []
    if task.options.exit and not task.exited and task.then not in ("retry", "continue"):
        hurried = task.then == "cancel" or task.run.cancel is not None
        grace = now + CANCEL_GRACE_MS if hurried else 0
        return [ExitStarted(task.run.id, task.prefix, grace)]
    for place in range(len(task.resources or ()) - 1, -1, -1):
        assert task.resources is not None
        resource = task.resources[place]
        if resource.state == "closing" or (resource.state == "opening" and resource.session):
            return []  # its connector answers first
        if resource.state in ("opening", "waiting", "open", "lost"):
            return close_resource(locks, task, place, resource)
    if task.then == "retry":
        return [TaskAgain(task.run.id, task.prefix, task.generation + 1, task.attempt + 1, "", max(task.due, 1))]
    if task.then == "continue":
        return [TaskAgain(task.run.id, task.prefix, task.generation + 1, 1, task.next_args, 0)]
    return [end(task, "")]


# -- resources


def open_resources(m: RunMachine, locks: LockMachine, now: int, task: Task) -> list[Event]:
    """Opens the first declared resource that is not open; when all are, the strand gets their values."""
    if task.resources is None:
        return []
    for place, resource in enumerate(task.resources):
        if resource.state == "open":
            continue
        if resource.kind == "lock":
            return open_lock(locks, now, task, place, resource)
        if resource.state == "opening":
            return []
        return [ResourceChanged(task.run.id, task.prefix, place, resource.generation + 1, "opening", "", "")]
    if task.open is not None and 0 in task.open:
        return [Answered(task.run.id, task.prefix, 0, opened_values(task.resources))]
    return []


def opened_values(resources: list[Resource]) -> str:
    """The outcome of `resources.open`: an object of what each shows to the script."""
    values = {r.name: msgspec.Raw(r.value[1:].encode()) for r in resources}
    return "+" + msgspec.json.encode(values).decode()


def lock_name(resource: Resource) -> str:
    return str(msgspec.json.decode(resource.params)["name"])


def lock_owner(task: Task, resource: Resource) -> tuple[str, str, str]:
    return task.run.id, task.prefix, resource.name


def open_lock(locks: LockMachine, now: int, task: Task, place: int, resource: Resource) -> list[Event]:
    """Takes the lock, or its place in the line; the machine's grant comes back as a follow-up."""
    name, owner = lock_name(resource), lock_owner(task, resource)
    run, prefix = task.run.id, task.prefix
    if resource.state == "waiting":
        if locks.holder(NAMESPACE, name) != owner:
            return []
        shown = "+" + msgspec.json.encode({"name": name}).decode()
        return [ResourceChanged(run, prefix, place, resource.generation, "open", "", shown)]
    generation = resource.generation + 1
    try:
        events = locks.decide_acquire(NAMESPACE, name, owner)
    except Refused as refused:
        outcome = error(refused.kind, refused.message, where=task.where or None)
        return [
            ResourceChanged(run, prefix, place, generation, "failed", "", outcome),
            *resource_failed(now, task, outcome),
        ]
    return [*events, ResourceChanged(run, prefix, place, generation, "waiting", "", "")]


def close_resource(locks: LockMachine, task: Task, place: int, resource: Resource) -> list[Event]:
    run, prefix = task.run.id, task.prefix
    if resource.kind != "lock":
        state = "closed" if resource.state == "opening" else "closing"
        return [ResourceChanged(run, prefix, place, resource.generation, state, "", "")]
    events = locks.decide_release(NAMESPACE, lock_name(resource), lock_owner(task, resource))
    return [*events, ResourceChanged(run, prefix, place, resource.generation, "closed", "", "")]


def claim_resource(task: Task, place: int, session: str) -> list[Event]:
    """A connector of this session opens or closes the resource now."""
    assert task.resources is not None
    r = task.resources[place]
    assert r.state in ("opening", "closing") and not r.session
    return [ResourceChanged(task.run.id, task.prefix, place, r.generation, r.state, session, "")]


def resource_answer(
    m: RunMachine, now: int, run_id: str, prefix: str, place: int, generation: int, state: str, outcome: str
) -> list[Event]:
    """A connector has opened or closed a resource; an answer that fits no claim any more changes nothing."""
    run = m.runs.get(run_id)
    task = run.task(prefix) if run is not None and run.status == "running" else None
    if task is None or task.resources is None:
        return []
    resource = task.resources[place]
    if resource.generation != generation or resource.state != state:
        return []
    if state == "closing":
        return [ResourceChanged(run_id, prefix, place, generation, "closed", "", "")]
    if succeeded(outcome):
        return [ResourceChanged(run_id, prefix, place, generation, "open", resource.session, outcome)]
    details = value(outcome)
    failed = error(
        "resource", f"resource {resource.name!r} could not be opened: {details['message']}",
        details={"resource": resource.name, "kind": details["kind"]}, where=task.where or None,
    )  # fmt: skip
    return [
        ResourceChanged(run_id, prefix, place, generation, "failed", "", outcome),
        *resource_failed(now, task, failed),
    ]


def resource_failed(now: int, task: Task, outcome: str) -> list[Event]:
    if task.phase != "body":
        return []
    due = retry_at(task.options.retry, outcome, task.attempt, task.started_at, now, of_flow=True)
    then = "end" if due is None else "retry"
    return [TaskEnding(task.run.id, task.prefix, outcome, then, due or 0, "")]


# -- external actions


def claim(task: Task, n: int, session: str) -> list[Event]:
    """A connector of this session performs the action now."""
    opened = (task.open or {})[n]
    assert not opened.session
    return [Claimed(task.run.id, task.prefix, n, opened.attempt, session)]


def answer(m: RunMachine, now: int, run_id: str, prefix: str, n: int, attempt: int, outcome: str) -> list[Event]:
    """The outcome of an attempt of an external action; one that fits no open attempt changes nothing."""
    run = m.runs.get(run_id)
    task = run.task(prefix) if run is not None and run.status == "running" else None
    opened = task.open.get(n) if task is not None and task.open is not None else None
    if task is None or opened is None or opened.attempt != attempt or not opened.session:
        return []
    if not succeeded(outcome):
        due = retry_at(action_retry(opened), outcome, attempt, opened.at, now, of_flow=False)
        if due is not None:
            return [AttemptFailed(run_id, prefix, n, outcome, due)]
    return [Answered(run_id, prefix, n, outcome)]


class RetryParams(msgspec.Struct):
    retry: RetryPolicy | None = None


_retry = msgspec.json.Decoder(RetryParams).decode


def action_retry(opened: Open) -> RetryPolicy | None:
    """The policy that the action's parameters declare."""
    if is_reference(opened.params):
        head = opened.params.partition(" ")[2]  # large parameters: what the core needs stands after the reference
        return _retry(head).retry if head else None
    return _retry(opened.params).retry if '"retry"' in opened.params else None


def retry_at(
    policy: RetryPolicy | None, outcome: str, attempt: int, began: int, now: int, *, of_flow: bool
) -> int | None:
    """When the next attempt begins, or None when this failure is final."""
    if policy is None or attempt >= policy.max_attempts:
        return None
    kind = "failed" if is_reference(outcome) else str(value(outcome)["kind"])
    if policy.on is not None:
        retried = kind in policy.on
    elif of_flow:
        retried = kind not in ("cancelled", "bad_argument")
    else:
        retried = kind == "connector"
    if not retried:
        return None
    due = now + policy.delay_ms(attempt)
    return None if policy.within is not None and due > began + policy.within else due


# -- timers and recovery


def timer(m: RunMachine, now: int, task: Task, n: int) -> list[Event]:
    """A timer of a task is due."""
    run = task.run
    if n == OF_DEADLINE:
        took = task.deadline - task.started_at
        what = f"flow {task.flow.rpartition('::')[2]}" if task.parent is not None else f"run {run.id}"
        outcome = error("timeout", f"{what} did not end within {took / 1000:g} s", where=task.where or None)
        return stop(task, outcome, "timeout")
    if n == OF_BACKOFF:
        return [TaskAgain(run.id, task.prefix, task.generation, task.attempt, "", 0)]
    opened = (task.open or {})[n]
    if opened.kind in ("clock.sleep", "clock.timer"):
        return [Answered(run.id, task.prefix, n, "+null")]
    if opened.kind == "wait":
        return [Answered(run.id, task.prefix, n, wait_outcome(task, opened, timed_out=True))]
    if opened.kind == "signal" or opened.kind == "receive":
        what = "signal" if opened.kind == "signal" else "message"
        return [Answered(run.id, task.prefix, n, error("timeout", f"no {what} came in time"))]
    if opened.kind in WAITING:
        return [Answered(run.id, task.prefix, n, nothing(opened.kind, opened.params))]
    return []  # the pause before a retry is over: the partition's note claims the action anew


def wait_outcome(task: Task, opened: Open, *, timed_out: bool) -> str:
    """Which of the handles are final, by their places in the list."""
    still = task.open or {}
    done = [place for place, n in enumerate(opened.handles or ()) if n not in still]
    return "+" + msgspec.json.encode({"done": done, "timeout": timed_out}).decode()


def resolve(task: Task, n: int) -> list[Event]:
    """A wait has what it waits for."""
    opened = task.open.get(n) if task.open is not None else None
    if opened is None or opened.kind != "wait":
        return []
    return [Answered(task.run.id, task.prefix, n, wait_outcome(task, opened, timed_out=False))]


def recover(m: RunMachine, now: int, task: Task, session: str) -> list[Event]:
    """What a dead owner of this task's jobs and resources leaves behind, when `session` begins to execute it."""
    events: list[Event] = []
    run, prefix = task.run.id, task.prefix
    for n, opened in (task.open or {}).items():
        if opened.session and opened.session != session:
            interrupted = error(
                "interrupted", f"{opened.kind} was interrupted: what performed it died", where=opened.where or None
            )
            due = retry_at(action_retry(opened), interrupted, opened.attempt, opened.at, now, of_flow=False)
            if due is not None:
                events.append(AttemptFailed(run, prefix, n, interrupted, due))
            else:
                events.append(Answered(run, prefix, n, interrupted))
    for place, r in enumerate(task.resources or ()):
        if not r.session or r.session == session:
            continue
        if r.state == "opening" and task.phase == "body":
            events.append(ResourceChanged(run, prefix, place, r.generation + 1, "opening", "", ""))
        elif r.state in ("opening", "closing"):
            events.append(ResourceChanged(run, prefix, place, r.generation, "closing", "", ""))
        elif r.state == "open":
            events.append(ResourceChanged(run, prefix, place, r.generation, "lost", "", ""))
    return events


def parent_answer(m: RunMachine, run: Run) -> list[Event]:
    """A detached run is over: the handle of the flow that started it, if it still runs, gets the outcome."""
    address, _, sid = run.parent.rpartition("/")
    parent = m.runs.get(address)
    prefix, _, n = sid.rpartition(".")
    task = parent.task(prefix) if parent is not None and parent.status == "running" else None
    if task is None or task.open is None or int(n) not in task.open:
        return []
    return [Answered(address, prefix, int(n), run.outcome)]
