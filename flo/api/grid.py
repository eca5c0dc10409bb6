"""What a person or a program may ask of a grid, the same for the owner of a directory and for a guest.

`flo.grid.Node` implements it in process, `flo.client.remote.RemoteGrid` over the owner's socket. Calls
are synchronous and thread-safe. **Everything that is returned or passed to a watcher is durable**
(design.md §5.3). Methods raise the errors of flo.api.errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

STATUSES = ("running", "completed", "failed", "cancelled", "timed_out")
FINAL = frozenset(STATUSES[1:])


class StartRequest(msgspec.Struct, frozen=True):
    """A run to start. The bundle must have been put before."""

    id: str  # chosen by the caller or made by new_run_id
    bundle: bytes  # SHA-256 digest
    flow: str  # "label::symbol", or "label" when the module itself is the flow
    args: str = "{}"  # JSON object
    options: str = "{}"  # JSON: what flow(…) declared: timeout, retry, resources, exit (flo.api.flows)
    timeout_ms: int = 0  # of the whole run, 0 = none
    username: str = ""
    script: str = ""  # the path as the person gave it, for messages


class RunError(msgspec.Struct, frozen=True):
    """Why a run ended without a result."""

    kind: str
    message: str
    where: str | None = None  # FILE:LINE:COL in a script
    traceback: str = ""  # the flow's own, with source excerpts
    retryable: bool = False
    details: Any = None


class Waiting(msgspec.Struct, frozen=True):
    """One thing that a run waits for now, or one task that is being evaluated."""

    task: str  # sid of the task that waits
    flow: str  # its flow's name
    on: str  # "sleep until 12:00:03", "signal approve", "http.get http://…", "lock deploy", "running"
    since: int  # epoch ms


class RunView(msgspec.Struct, frozen=True):
    """A run as seen from outside."""

    id: str
    flow: str
    status: str  # one of STATUSES
    result: msgspec.Raw | None = None  # JSON of the value, when completed
    error: RunError | None = None
    output: list[str] = []  # what was printed, one text per print
    started_at: int = 0  # epoch ms
    finished_at: int | None = None
    waiting: list[Waiting] = []
    paused: str | None = None  # why the runtime paused it: "NonDeterministic: …", "crashing: …"
    parent: str | None = None  # of a detached run


class HistoryEntry(msgspec.Struct, frozen=True):
    """One thing that a run asked for, or that happened to it, and what came back."""

    index: int  # in the log
    id: str  # structural id, or "" for entries of the run itself
    kind: str  # "http.get", "kv.put", "clock.now", "run.started", "signal.received" …
    at: int  # epoch ms
    status: str  # requested | completed | failed
    params: Any = None
    result: Any = None  # shortened
    error: Any = None
    where: str = ""


class LogLine(msgspec.Struct, frozen=True):
    """One print, log, progress or publish of a run."""

    at: int  # epoch ms
    task: str
    channel: str  # print | log | progress | publish
    text: str  # of a print the text, else JSON


class Update(msgspec.Struct, frozen=True):
    """Something new about a watched run. `view` of a final update is whole; of others it may lack output."""

    lines: list[LogLine]
    view: RunView | None = None


class Grid(Protocol):
    def has_bundle(self, digest: bytes) -> bool: ...

    def put_bundle(self, digest: bytes, data: bytes) -> None:
        """Stores and syncs a bundle; the digest is checked."""
        ...

    def start(self, request: StartRequest, *, execute: bool = True) -> RunView:
        """Starts the run, or attaches to the one with this id (same bundle's flow name and arguments); durable on
        return. Raises Conflict when the id is taken by another flow or other arguments. With `execute` this
        owner executes it as if named in `execute`."""
        ...

    def execute(self, ids: Sequence[str] | None) -> list[str]:
        """Executes these runs, or all unfinished root and detached ones. Returns the unfinished among them; those
        that have ended already are not an error. Raises NotFound."""
        ...

    def show(self, id: str) -> RunView: ...

    def history(self, id: str) -> list[HistoryEntry]: ...

    def logs(self, id: str) -> list[LogLine]: ...

    def signal(self, id: str, type: str, payload: str) -> None:
        """Delivers a signal; `payload` is JSON text. Raises NotFound, or Conflict when the run is over."""
        ...

    def cancel(self, id: str, reason: str = "") -> None:
        """Asks for the run's end. Raises NotFound; a run that is over stays as it is (Conflict)."""
        ...

    def watch(self, id: str, on_update: Callable[[Update], None]) -> Callable[[], None]:
        """Calls `on_update` from a thread of the grid with all output since the beginning, what follows, and last
        the final view. Returns the function that ends the watching. Raises NotFound. When the grid is lost
        (owner died, node fenced) `on_update` gets an Update whose view is None and lines are empty."""
        ...

    def close(self) -> None:
        """A planned stop: jobs not begun are returned, those begun get STOP_GRACE_MS."""
        ...

    # last, for below it `list` means this method in annotations
    def list(self) -> list[RunView]:
        """Root and detached runs, oldest first, without their output."""
        ...
