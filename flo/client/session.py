"""A command's use of a data directory: run or resume to the end, whoever owns the directory meanwhile.

All calls on the grid are made by a thread of the session. The caller's thread only waits, so a Ctrl-C
that reaches it never interrupts a command of the core (design.md §5.2), and callbacks run in it.

    with Session(directory) as session:
        view = session.run(prepared, on_update)
        ...                                 # show the result; leaving the block may take STOP_GRACE_MS
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from flo.api.errors import Unavailable
from flo.api.grid import FINAL, Grid, RunView, Update
from flo.client.attach import Attachment, attach
from flo.client.prepared import Prepared, put_bundle
from flo.client.remote import OwnerLeft, OwnerLost

T = TypeVar("T")
OnUpdate = Callable[[str, Update], None]  # id of the run, what is new about it
OnEnd = Callable[[RunView], None]


class Attach(Protocol):
    def __call__(self, directory: str, *, stopping: threading.Event) -> Attachment: ...


class Session:
    """Attached to `directory` from the first call on until the block is left. Used from one thread."""

    def __init__(self, directory: str, *, attach: Attach = attach) -> None:
        self._directory = directory
        self._attach = attach
        self._stopping = threading.Event()
        self._attachment: Attachment | None = None
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._hands: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def owner(self) -> bool:
        """Whether this process owns the directory now."""
        attachment = self._attachment
        return attachment is not None and attachment.owner

    def run(
        self,
        prepared: Prepared,
        on_update: OnUpdate | None = None,
        on_end: OnEnd | None = None,
        *,
        detach: bool = False,
    ) -> RunView:
        """Starts the run, or attaches to the one with this id, and follows it to its end or pause.

        Each line of output reaches `on_update` once, also when the owner dies and another executes the run
        (perhaps this process). With `detach` returns after the durable start; an owner that is there executes
        the run. Raises what Grid.start raises.
        """
        request = prepared.request

        def start(grid: Grid, execute: bool) -> RunView:
            put_bundle(grid, prepared)
            return grid.start(request, execute=execute)

        if detach:
            return self.call(lambda grid: start(grid, not self.owner))

        def begin(grid: Grid, remaining: Sequence[str]) -> list[str]:
            start(grid, True)
            return [request.id]

        return self._follow(begin, on_update, on_end)[0]

    def resume(
        self, ids: Sequence[str] | None, on_update: OnUpdate | None = None, on_end: OnEnd | None = None
    ) -> list[RunView]:
        """Executes these runs to their end, or all unfinished ones when `ids` is None. `on_end` gets each view as
        the run ends (or pauses); those that had ended before come too when they are named. Raises NotFound."""
        named = None if ids is None else list(dict.fromkeys(ids))

        def begin(grid: Grid, remaining: Sequence[str]) -> list[str]:
            if remaining:
                grid.execute(remaining)
                return list(remaining)
            unfinished = grid.execute(named)
            return unfinished if named is None else named

        return self._follow(begin, on_update, on_end)

    def call(self, fn: Callable[[Grid], T], *, repeatable: bool = True) -> T:
        """The value of fn(grid), executed by the session's thread. When the owner leaves before a call was begun
        `fn` is called again with the next one's grid; when the outcome is unknown, only if it is `repeatable`."""
        while True:
            try:
                return self._do(lambda: fn(self._attached().grid))
            except OwnerLeft:
                if self._stopping.is_set():
                    raise
            except OwnerLost:
                if not repeatable or self._stopping.is_set():
                    raise
            self._do(self._detach)

    def close(self) -> None:
        """Leaves the directory. What interrupts this wait leaves the session's thread to end with the process."""
        self._stopping.set()
        hands, self._hands = self._hands, None
        if hands is not None:
            leaving = _Task(self._detach)
            self._tasks.put(leaving)
            self._tasks.put(None)
            leaving.value()

    def _follow(
        self,
        begin: Callable[[Grid, Sequence[str]], list[str]],
        on_update: OnUpdate | None,
        on_end: OnEnd | None,
    ) -> list[RunView]:
        ids: list[str] | None = None
        ended: dict[str, RunView] = {}
        shown: dict[str, int] = {}  # lines of each run that on_update has got
        while ids is None or len(ended) < len(ids):
            following, updates = self.call(_watching(begin, [id for id in ids or () if id not in ended]))
            if ids is None:
                ids = following
            skip = dict(shown)
            while len(ended) < len(ids):
                id, update = updates.get()
                if update.view is None and not update.lines:
                    self._lost()
                    break
                if id in ended:
                    continue
                repeated = min(skip.get(id, 0), len(update.lines))
                if repeated:
                    skip[id] -= repeated
                    update = Update(lines=update.lines[repeated:], view=update.view)
                shown[id] = shown.get(id, 0) + len(update.lines)
                if on_update is not None and (update.lines or update.view is not None):
                    on_update(id, update)
                if update.view is not None and (update.view.status in FINAL or update.view.paused is not None):
                    ended[id] = update.view
                    if on_end is not None:
                        on_end(update.view)
        return [ended[id] for id in ids]

    def _lost(self) -> None:
        """The grid is gone. A guest looks for the next owner; an owner has nobody to turn to."""
        if self.owner:
            raise Unavailable("the data directory cannot be used any more", hint="flo resume goes on with the run")
        self._do(self._detach)

    def _attached(self) -> Attachment:
        if self._attachment is None:
            self._attachment = self._attach(self._directory, stopping=self._stopping)
        return self._attachment

    def _detach(self) -> None:
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.close()

    def _do(self, fn: Callable[[], T]) -> T:
        """Has the session's thread do it, and waits."""
        if self._hands is None:
            assert not self._stopping.is_set(), "the session is closed"
            self._hands = threading.Thread(target=self._work, name="flo-session", daemon=True)
            self._hands.start()
        task = _Task(fn)
        self._tasks.put(task)
        value: T = task.value()
        return value

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task.do()


class _Task:
    """Something for the session's thread to do."""

    def __init__(self, fn: Callable[[], Any]) -> None:
        self._fn = fn
        self._done: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def do(self) -> None:
        try:
            self._done.put((self._fn(), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._done.put((None, error))

    def value(self) -> Any:
        value, error = self._done.get()
        if error is not None:
            raise error
        return value


def _watching(
    begin: Callable[[Grid, Sequence[str]], list[str]], remaining: Sequence[str]
) -> Callable[[Grid], tuple[list[str], SimpleQueue[tuple[str, Update]]]]:
    """Begins, and watches the runs that `begin` names."""

    def watch_one(grid: Grid, id: str, updates: SimpleQueue[tuple[str, Update]]) -> None:
        grid.watch(id, lambda update: updates.put((id, update)))

    def watch(grid: Grid) -> tuple[list[str], SimpleQueue[tuple[str, Update]]]:
        # a queue for each grid: one that is gone still tells so
        updates: SimpleQueue[tuple[str, Update]] = SimpleQueue()
        ids = begin(grid, remaining)
        for id in ids:
            watch_one(grid, id, updates)
        return ids, updates

    return watch
