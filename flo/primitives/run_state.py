"""What the run machine remembers: runs, their tasks, open actions and resources.

A parked run lives here for months, so the classes have slots, what is rarely there is None, and finished
actions are packed bytes (flo.primitives.history).
"""

from __future__ import annotations

from collections import deque

from flo.primitives.flows import FlowOptions
from flo.primitives.history import Record, unpack

NO_OPTIONS = FlowOptions()


class Open:
    """An action in the log that has not completed."""

    __slots__ = (
        "kind", "params", "recorded", "where", "index", "at", "blocking", "due", "session", "attempt",
        "waiters", "left", "handles", "child",
    )  # fmt: skip

    def __init__(
        self, *, kind: str, params: str, recorded: str, where: str, index: int, at: int, blocking: bool, due: int = 0,
        session: str = "", attempt: int = 1,
    ) -> None:  # fmt: skip
        self.kind = kind
        self.params = params
        self.recorded = recorded
        self.where = where
        self.index = index
        self.at = at
        self.blocking = blocking
        self.due = due
        self.session = session
        self.attempt = attempt
        self.waiters: list[int] | None = None  # numbers of the `wait` actions of the task that name this one
        self.left = 0  # of a wait: how many more must end
        self.handles: list[int] | None = None  # of a wait: the numbers it names
        self.child: Task | None = None  # of a flow


class Resource:
    """A declared resource of a task's generation."""

    __slots__ = ("name", "kind", "params", "generation", "state", "session", "value")

    def __init__(self, name: str, kind: str, params: str) -> None:
        self.name = name
        self.kind = kind
        self.params = params
        self.generation = 0
        self.state = "declared"  # declared, opening, waiting, open, closing, closed, failed, lost
        self.session = ""
        self.value = ""


class Task:
    """One execution of a flow: the root, a child, an inline call, or the exit part of one of these."""

    __slots__ = (
        "run", "prefix", "base", "generation", "attempt", "parent", "strand", "n", "flow", "args", "options",
        "started_at", "index", "where", "packed", "count", "open", "blocked", "outputs", "deadline", "phase",
        "outcome", "then", "due", "next_args", "resources", "inbox", "children", "inlines", "is_exit", "exited",
    )  # fmt: skip

    def __init__(
        self, run: Run, prefix: str, parent: Task | None, *, flow: str, args: str, options: FlowOptions,
        started_at: int, index: int, where: str, deadline: int, inline: bool, is_exit: bool = False,
    ) -> None:  # fmt: skip
        self.run = run
        self.prefix = prefix
        self.base = prefix
        self.generation = 1
        self.attempt = 1
        self.parent = parent
        self.strand: Task = parent.strand if inline and parent is not None else self
        self.n = 0  # number of the parent's action that this task is; 0 for the root, exit parts and what nobody awaits
        self.flow = flow
        self.args = args
        self.options = options
        self.started_at = started_at
        self.index = index
        self.where = where
        self.packed: bytes | bytearray = b""
        self.count = 0
        self.open: dict[int, Open] | None = None
        self.blocked: tuple[Task, int] | None = None  # of a strand: the action that its evaluation waits for
        self.outputs = 0
        self.deadline = deadline
        self.phase = "body"  # body, backoff, ending; a run's end removes it
        self.outcome = ""
        self.then = ""
        self.due = 0
        self.next_args = ""
        self.resources: list[Resource] | None = None
        self.inbox: deque[tuple[str, str]] | None = None  # (sender, message)
        self.children = 0  # live tasks directly below
        self.inlines: dict[str, Task] | None = None  # of a strand: its live inline tasks by prefix
        self.is_exit = is_exit
        self.exited = False  # the exit part has run

    @property
    def inline(self) -> bool:
        return self.strand is not self

    def records(self) -> list[Record]:
        return unpack(self.packed, self.count)

    def address(self) -> str:
        """The id by which messages reach it: the run's for the root, run/sid for others."""
        return self.run.id if self.parent is None else f"{self.run.id}/{self.base}"


class Run:
    """One run. When it is final only what `show`, `history` and `logs` need is left."""

    __slots__ = (
        "id", "bundle", "options", "username", "script", "parent", "runtime", "started_at", "index", "deadline",
        "status", "outcome", "finished_at", "finished_index", "root", "tasks", "signals", "signal_waits", "cancel",
        "paused", "output", "output_count", "attic", "attic_bytes", "archives", "open_count",
    )  # fmt: skip

    def __init__(
        self, id: str, *, bundle: bytes, options: str, username: str, script: str, parent: str, runtime: str,
        started_at: int, index: int, deadline: int,
    ) -> None:  # fmt: skip
        self.id = id
        self.bundle = bundle
        self.options = options
        self.username = username
        self.script = script
        self.parent = parent
        self.runtime = runtime
        self.started_at = started_at
        self.index = index
        self.deadline = deadline
        self.status = "running"
        self.outcome = ""
        self.finished_at = 0
        self.finished_index = 0
        self.root: Task
        self.tasks: dict[str, Task] | None = None  # all but the root, by prefix
        self.signals: list[tuple[str, str]] | None = None  # (type, payload) that nobody has taken
        self.signal_waits: dict[tuple[Task, int], str] | None = None  # types by (task, n), oldest first
        self.cancel: str | None = None
        self.paused = ""
        self.output: bytes | bytearray = b""  # packed (at, task, channel, text)
        self.output_count = 0
        self.attic: list[tuple[str, int, bytes]] | None = None  # (prefix, count, packed) of collapsed tasks
        self.attic_bytes = 0
        self.archives: list[str] | None = None  # blobs that held the attic, oldest first, each after what it names
        self.open_count = 0

    def task(self, prefix: str) -> Task | None:
        """The live task with this prefix (of this very generation)."""
        root = self.root
        if root.prefix == prefix:
            return root
        return self.tasks.get(prefix) if self.tasks is not None else None

    def all_tasks(self) -> list[Task]:
        return [self.root, *self.tasks.values()] if self.tasks else [self.root]


class Note:
    """Something that happened in `apply` which the partition acts on; no part of the state, lost in a replay.

    what: ready (a strand can go on), record (an action of a strand's tasks completed), job (an external action
    wants a connector), unjob (its result is of no interest any more), resource (a resource wants its connector),
    revoke (a strand must stop), output, final, started, view (what waits has changed).
    """

    __slots__ = ("what", "run", "task", "n", "record", "text", "line", "prefix")

    def __init__(
        self, what: str, run: Run, task: Task | None = None, n: int = 0, record: Record | None = None, text: str = "",
        line: tuple[int, str, str, str] | None = None, prefix: str = "",
    ) -> None:  # fmt: skip
        self.what = what
        self.run = run
        self.task = task
        self.n = n
        self.record = record
        self.text = text
        self.line = line  # of an output: at, task, channel, text
        self.prefix = prefix  # of a revoke: the task's when it happened; its next generation has another
