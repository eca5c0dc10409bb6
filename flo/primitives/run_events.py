"""The events of runs (KIND 1–99). All times are epoch ms, payloads are JSON texts or references.

`task` is the prefix of a task (`0`, `0.3~2`), `n` the number of an action in it; the sid is `task.n`.
"""

from __future__ import annotations

from flo.primitives.machine import Event


class RunStarted(Event, frozen=True):
    KIND = 1
    run: str
    bundle: bytes
    flow: str
    args: str
    options: str
    deadline: int  # 0 = none
    username: str
    script: str
    parent: str  # of a detached run: sid address of the action that started it, else ""
    runtime: str  # interpreter and replay version that started it


class Did(Event, frozen=True):
    """An action that was asked for and completed in one frame."""

    KIND = 2
    run: str
    task: str
    n: int
    kind: str
    params: str  # as recorded_params gives them
    outcome: str
    where: str


class Asked(Event, frozen=True):
    """An action that stays open."""

    KIND = 3
    run: str
    task: str
    n: int
    kind: str
    params: str  # whole, or a reference
    recorded: str  # as recorded_params gives them; "" = the same as params
    where: str
    blocking: bool  # its strand waits for it
    due: int  # when its timer ends it, 0 = none
    session: str  # who has claimed it already, "" = nobody


class Claimed(Event, frozen=True):
    KIND = 4
    run: str
    task: str
    n: int
    attempt: int
    session: str


class Answered(Event, frozen=True):
    """An open action has its outcome."""

    KIND = 5
    run: str
    task: str
    n: int
    outcome: str


class AttemptFailed(Event, frozen=True):
    """An attempt of an action failed and its retry policy grants another one at `due`."""

    KIND = 6
    run: str
    task: str
    n: int
    outcome: str
    due: int


class TaskStarted(Event, frozen=True):
    """A flow began under the action `task.n`; what it is stands in `params` (FlowParams)."""

    KIND = 7
    run: str
    task: str
    n: int
    params: str
    recorded: str
    where: str
    blocking: bool
    inline: bool
    deadline: int


class TaskEnding(Event, frozen=True):
    """A task's body has ended: its children are cancelled, its resources closed, then `then` follows."""

    KIND = 8
    run: str
    task: str
    outcome: str
    then: str  # end | retry | continue
    due: int  # of a retry: when the next attempt begins
    args: str  # of a continue: the next arguments


class TaskEnded(Event, frozen=True):
    """A child is over; its history collapses into its caller's record. `outcome` "" = that of TaskEnding."""

    KIND = 9
    run: str
    task: str
    outcome: str


class TaskAgain(Event, frozen=True):
    """The next generation of a task begins."""

    KIND = 10
    run: str
    task: str
    generation: int
    attempt: int
    args: str
    due: int  # its body begins at this time, 0 = at once


class ExitStarted(Event, frozen=True):
    """The `on_exit` part of an ending task begins, as the child `TASK.exit`."""

    KIND = 11
    run: str
    task: str
    deadline: int  # 0 = none; the exit part of a cancelled task has a grace time


class ResourceChanged(Event, frozen=True):
    KIND = 12
    run: str
    task: str
    place: int  # in the order of declaration
    generation: int
    state: str  # opening | waiting | open | closing | closed | failed | lost
    session: str  # who opens or closes it
    value: str  # outcome of the opening


class RunFinished(Event, frozen=True):
    KIND = 13
    run: str
    status: str
    outcome: str


class Printed(Event, frozen=True):
    """The k-th output of a task."""

    KIND = 14
    run: str
    task: str
    k: int
    channel: str
    text: str


class Signalled(Event, frozen=True):
    """A signal came; with n > 0 the waiting action `task.n` takes it, else it is kept."""

    KIND = 15
    run: str
    type: str
    payload: str
    task: str
    n: int


class Sent(Event, frozen=True):
    """A message came to a task's inbox; with n > 0 its waiting action takes it."""

    KIND = 16
    run: str
    task: str
    sender: str
    message: str  # JSON, or the reference of the outcome that taking it has
    n: int


class Took(Event, frozen=True):
    """An action that took the oldest kept signal of a type, or with type "" the oldest message."""

    KIND = 17
    run: str
    task: str
    n: int
    kind: str
    params: str
    outcome: str
    where: str
    type: str


class CancelAsked(Event, frozen=True):
    KIND = 18
    run: str
    by: str
    reason: str


class Paused(Event, frozen=True):
    """The runtime cannot go on with the run; an empty reason ends the pause."""

    KIND = 19
    run: str
    reason: str


class Archived(Event, frozen=True):
    """The collapsed histories up to number `count` of a run lie in a blob now."""

    KIND = 20
    run: str
    count: int
    blob: str
    whole: bool  # the finished run's own history too
    named: list[str]  # references of blobs that are named in there


RUN_EVENTS: tuple[type[Event], ...] = (
    RunStarted, Did, Asked, Claimed, Answered, AttemptFailed, TaskStarted, TaskEnding, TaskEnded, TaskAgain,
    ExitStarted, ResourceChanged, RunFinished, Printed, Signalled, Sent, Took, CancelAsked, Paused, Archived,
)  # fmt: skip
