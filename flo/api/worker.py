"""The contract between the core and a worker in the same process.

The core hands out **leases**: the right to evaluate one *strand*, that is one task (the root flow, or a
flow started by `run`, or the `on_exit` part of one) with every flow that it calls directly (*inline*
tasks). All effects of the evaluation go through `RunCore`; calls are plain synchronous functions, safe
from any thread, cheap, and never wait for the disk except for back-pressure. The worker's obligations:

1. Evaluate the strand from its beginning. Count the actions of each task: the n-th action (from 1) of the
   task with prefix P has the sid `P.n`. Prints, logs, progress and publish have a counter of their own.
2. For each action look at `lease.history[P]` first. In `records`: kind and `recorded_params(params)` must
   equal what is recorded, else `pause(lease, …NonDeterministic…)` and unwind; the recorded outcome is the
   answer, with no effect. In `open`: compare likewise, then wait for it (step 4) or give its handle.
   Neither: call `act`.
3. `act` answers with an outcome (done), or None: the action is open.
4. To wait: when `records` of the task gets the number n, its outcome is the answer. The core inserts the
   records of open actions into `lease.history` as they complete and then calls `Worker.wake`.
5. A lease whose `alive` is False must not act any more: every `RunCore` call raises `Revoked`. Unwind,
   then `release(lease)`. A waiting strand may be unwound at any time for its thread (eviction) and is
   `release`d too; the core leases it again when what it waits for has completed.
6. When the task's body has ended call `finish(lease, outcome)`; the lease is over then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from flo.api.outcome import Outcome
from flo.primitives.history import Record as Record
from flo.primitives.history import recorded_params as recorded_params

CRASHING = "crashing"  # why a run is paused whose evaluation keeps killing the process


class Revoked(BaseException):
    """The lease is over: unwind and release it. A BaseException so that no `except Exception` keeps it."""


class OpenAction:
    """An action that is in the log and has not completed. Read only for workers."""

    __slots__ = ("kind", "params")

    def __init__(self, kind: str, params: str) -> None:
        self.kind = kind
        self.params = params  # as recorded_params gives them


class TaskHistory:
    """What the log holds of one task. The core adds records while the lease lives; workers only read."""

    __slots__ = ("records", "open", "outputs", "args")

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}
        self.open: dict[int, OpenAction] = {}
        self.outputs = 0  # how many prints, logs … of this task are in the log already
        self.args = ""  # of an inline task that was continued as new: its arguments now (or a reference), else ""


class RunInfo:
    """Plain data for `fctx.run` and `fctx.quota` of one task."""

    __slots__ = ("id", "name", "parent", "attempt", "started_at", "username", "quota_path", "limits", "outcome")

    def __init__(
        self,
        *,
        id: str,
        name: str,
        parent: str | None,
        attempt: int,
        started_at: int,
        username: str,
        quota_path: str,
        limits: dict[str, Any],
        outcome: Outcome | None = None,
    ) -> None:
        self.id = id  # the run's id for the root task, run/sid for a child
        self.name = name  # the flow's name
        self.parent = parent  # id of the parent task, None for a root
        self.attempt = attempt  # 1-based attempt of a retried flow
        self.started_at = started_at  # epoch ms
        self.username = username
        self.quota_path = quota_path
        self.limits = limits
        self.outcome = outcome  # in an on_exit part: how the body ended


class Lease:
    """The right to evaluate one strand. Made and owned by the core; workers read it, and may set `slot`."""

    __slots__ = (
        "run",
        "task",
        "phase",
        "bundle",
        "flow",
        "args",
        "info",
        "history",
        "alive",
        "reason",
        "waiting",
        "slot",
    )

    def __init__(
        self, *, run: str, task: str, phase: str, bundle: bytes, flow: str, args: str, info: RunInfo,
        history: dict[str, TaskHistory],
    ) -> None:  # fmt: skip
        self.run = run
        self.task = task  # prefix of the strand's own task: "0", "0.3", "0.3~2", for exit parts "0.3.exit"
        self.phase = phase  # "body" or "exit"
        self.bundle = bundle  # SHA-256 digest
        self.flow = flow  # "label::symbol", or "label" when the module itself is the flow
        self.args = args  # JSON object
        self.info = info
        self.history = history  # by task prefix: the strand's task and its open inline tasks
        self.alive = True
        self.reason = ""  # why it was revoked: "cancelled", "timeout", "fenced", "stopping"
        self.waiting = False  # the core's own: whether the strand waits for an open action
        self.slot: Any = None  # the worker's own


class RunCore(Protocol):
    """What a worker may ask of the core. Every method raises Revoked when the lease is over."""

    def act(
        self, lease: Lease, task: str, n: int, kind: str, params: str, where: str, *, handle: bool = False
    ) -> Outcome | None:
        """Asks for action `task.n`. `params` is canonical JSON text, of any size up to the hard limit (over it
        the outcome is `too_large`). With `handle` the strand does not wait for it. `where` is FILE:LINE or "".
        Returns the outcome of what is done at once, None for what is open now."""
        ...

    def enter(self, lease: Lease, task: str, n: int, params: str, where: str) -> None:
        """Begins an inline task (a direct call of a flow without options) under the sid `task.n`.
        `params` is the JSON object {"flow": "label::symbol", "args": {…}}; kind in the history is `flow`."""
        ...

    def leave(self, lease: Lease, prefix: str, outcome: Outcome) -> Outcome:
        """Ends the inline task with this prefix; its history collapses into the record of its caller.
        Returns the outcome to use: the same, or `too_large` when the value is over the hard limit."""
        ...

    def continue_as_new(self, lease: Lease, prefix: str, args: str) -> None:
        """Begins the next generation of a task. For the strand's own task the lease ends (Revoked follows); an
        inline one goes on under the next generation's prefix, with its arguments, in the same strand."""
        ...

    def output(self, lease: Lease, task: str, k: int, channel: str, text: str) -> None:
        """The k-th output (from 1) of the task: channel `print` (text), `log`, `progress`, `publish` (JSON)."""
        ...

    def finish(self, lease: Lease, outcome: Outcome) -> None: ...

    def pause(self, lease: Lease, kind: str, message: str) -> None:
        """The run cannot go on (`NonDeterministic`, `crashing`); it stays `running` and the lease ends."""
        ...

    def release(self, lease: Lease) -> None:
        """The strand was unwound without an end. Allowed for a revoked lease, once."""
        ...

    def load_bundle(self, digest: bytes) -> bytes: ...

    def load_text(self, reference: str) -> str:
        """The outcome behind a Record whose outcome is a reference: a text that begins with `@`."""
        ...


class Worker(Protocol):
    """What the core asks of a worker; neither call may block or evaluate anything itself."""

    def start(self, leases: Sequence[Lease]) -> None:
        """Takes strands to evaluate."""
        ...

    def wake(self, leases: Sequence[Lease]) -> None:
        """Something these strands wait for has completed, or they were revoked."""
        ...

    def stop(self, timeout_ms: int) -> None:
        """Unwinds everything and ends the threads."""
        ...
