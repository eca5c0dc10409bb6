"""Flo inside a Python program: `async with flo.open("file:DIR") as grid`.

The grid is synchronous and waits for the disk, so one thread of the `AsyncGrid` makes all calls on it. What
the program asks for within one turn of its loop goes to that thread together, and runs and signals among it
go to the log as one batch; what comes back goes to the loop together too. Ten thousand runs cost a few
hops between threads, not ten thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from flo.api.errors import BadArgument, FloError, Overloaded, Unavailable
from flo.api.grid import FINAL, Grid, HistoryEntry, LogLine, RunView, Update
from flo.client.attach import Attachment, attach, data_directory
from flo.client.owner import open_memory, open_node
from flo.client.prepared import Prepared, put_bundle
from flo.client.remote import OwnerLeft, OwnerLost
from flo.client.results import result_of
from flo.client.start import ScriptCache
from flo.client.values import duration_ms, json_text
from flo.grid.gateway import signal_many, start_many

if TYPE_CHECKING:
    from flo.client.grid_transport import GridTransport
    from flo.client.kv import KV
    from flo.client.namespaces import Namespaces
    from flo.client.queue import Queue
    from flo.client.stream import Stream

T = TypeVar("T")

BATCH_MAX: Final = 4_096  # calls that go to the log together
EVENTS_KEPT_MAX: Final = 100_000  # updates of one `Run.events()` that its reader has not taken


class Run:
    """A run of a grid. What answers once is a coroutine; `events` goes on and is an asynchronous iterator."""

    __slots__ = ("_ending", "_grid", "id")

    def __init__(self, grid: AsyncGrid, id: str, ending: _Ending | None = None) -> None:
        self._grid = grid
        self.id = id
        self._ending = ending

    def __repr__(self) -> str:
        return f"<flo.Run {self.id}>"

    async def result(self) -> Any:
        """Waits for the end and gives the flow's value. Raises RunFailed when the run failed, was cancelled or
        timed out, or when the runtime paused it; Unavailable when the grid is lost or closed."""
        return result_of(await self.wait())

    async def wait(self) -> RunView:
        """Waits for the end and gives everything about the run, however it ended."""
        future: asyncio.Future[RunView] = asyncio.get_running_loop().create_future()
        if self._ending is not None and self._ending.tell(future):
            return await future

        def take(update: Update | FloError) -> None:
            if future.done():
                return
            if isinstance(update, FloError):
                future.set_exception(update)
            elif update.view is not None:
                future.set_result(update.view)

        stop = self._grid._follow(self.id, take, every=False)
        try:
            return await future
        finally:
            stop()

    async def view(self) -> RunView:
        """Everything about the run as it is now."""
        return await self._grid._call(lambda grid: grid.show(self.id))

    async def status(self) -> str:
        """`running`, `completed`, `failed`, `cancelled` or `timed_out`."""
        return (await self.view()).status

    async def output(self) -> list[str]:
        """What the run has printed so far, one text per print."""
        return (await self.view()).output

    async def history(self) -> list[HistoryEntry]:
        """What the log holds of the run, oldest first."""
        return await self._grid._call(lambda grid: grid.history(self.id))

    async def logs(self) -> list[LogLine]:
        """Prints, logs, progress and what the run has published so far."""
        return await self._grid._call(lambda grid: grid.logs(self.id))

    async def events(self) -> AsyncIterator[Update]:
        """All output since the beginning, then what is new as it comes, until the run has ended; the last update
        has the final view. Raises Overloaded when EVENTS_KEPT_MAX updates wait to be taken."""
        kept: deque[Update | FloError] = deque()
        arrived = asyncio.Event()

        def take(update: Update | FloError) -> None:
            if len(kept) == EVENTS_KEPT_MAX:
                kept.append(Overloaded(f"over {EVENTS_KEPT_MAX} updates of run {self.id} wait to be taken"))
            elif len(kept) < EVENTS_KEPT_MAX:
                kept.append(update)
            arrived.set()

        stop = self._grid._follow(self.id, take, every=True)
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                while kept:
                    update = kept.popleft()
                    if isinstance(update, FloError):
                        raise update
                    yield update
                    if _ends(update):
                        return
        finally:
            stop()

    async def signal(self, type: str, payload: Any = None) -> None:
        """Delivers a signal; it is durable on return. Raises NotFound, or Conflict when the run is over."""
        await self._grid.signal(self.id, type, payload)

    async def cancel(self, reason: str = "") -> None:
        """Asks for the run's end; `result` tells when it has come. Raises Conflict when the run is over."""
        await self._grid.cancel(self.id, reason)


class AsyncGrid:
    """An open grid, used from one event loop. Made by `flo.open`."""

    def __init__(self, open_attachment: Callable[[threading.Event], Attachment]) -> None:
        self._open = open_attachment
        self._loop: asyncio.AbstractEventLoop
        self._scripts = ScriptCache()
        self._bundles: set[bytes] = set()  # which this grid is known to hold
        self._attachment: Attachment | None = None
        self._stopping = threading.Event()
        self._closed = False
        self._asked: list[_Op] = []  # in this turn of the loop
        self._ops: SimpleQueue[list[_Op]] = SimpleQueue()
        self._hands: threading.Thread | None = None
        self._follows: set[_Follow] = set()
        self._arrivals: deque[tuple[_Follow, Update | FloError]] = deque()
        self._drain_planned = False
        self._attached = 0  # counts attachments: one that is gone may tell so after the next has begun
        self._transport: GridTransport | None = None
        self._kv: KV | None = None  # these three are made when they are first asked for
        self._queue: Queue | None = None
        self._stream: Stream | None = None
        self._ours: dict[str, Prepared | None] = {}  # a guest's runs, started or resumed, not known to have ended

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._hands = threading.Thread(target=self._work, name="flo-aio", daemon=True)
        self._hands.start()
        try:
            await self._call(lambda grid: None)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def run(
        self,
        script: str,
        args: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        timeout: float | str | None = None,  # noqa: ASYNC109 - the run's, not the call's
    ) -> Run:
        """Starts "PATH::FLOW", or "PATH" for the module itself, and returns when the start is durable.

        With an `id` that exists attaches to that run: same flow and arguments, else Conflict. `timeout` (seconds
        or a text like "5m") bounds the whole run. Raises ScriptError, BadArgument.
        """
        timeout_ms = 0 if timeout is None else duration_ms(timeout)
        return await self.start(self._scripts.prepare(script, args, id=id, timeout_ms=timeout_ms))

    async def start(self, prepared: Prepared) -> Run:
        """Starts what `flo.client.start.prepare` made."""
        ending = _Ending(prepared.request.id)
        self._follows.add(ending)
        try:
            view: RunView = await self._ask(_Op("start", (prepared, ending)))
        except BaseException:
            self._follows.discard(ending)
            raise
        return Run(self, view.id, ending)

    async def get(self, id: str) -> Run:
        """The run with this id. Raises NotFound."""
        return Run(self, (await self._call(lambda grid: grid.show(id))).id)

    async def resume(self, ids: Iterable[str] | None = None) -> Sequence[Run]:
        """Executes these runs, or all unfinished ones; those that are over already are left out. Raises NotFound."""
        named = None if ids is None else [*ids]

        def execute(grid: Grid) -> Sequence[str]:
            unfinished = grid.execute(named)
            if not self._owner:
                self._ours.update((id, self._ours.get(id)) for id in unfinished)
            return unfinished

        return [Run(self, id) for id in await self._call(execute)]

    async def signal(self, id: str, type: str, payload: Any = None) -> None:
        """Delivers a signal; it is durable on return. Raises NotFound, or Conflict when the run is over."""
        await self._ask(_Op("signal", (id, type, json_text(payload, "payload"))))

    async def cancel(self, id: str, reason: str = "") -> None:
        """Asks for the run's end. Raises NotFound, or Conflict when the run is over."""
        await self._call(lambda grid: grid.cancel(id, reason), repeatable=False)

    @property
    def kv(self) -> KV:
        """Keys and values, as those of FloClient."""
        if self._kv is None:
            from flo.client.kv import KV

            self._kv = KV(self._operations())
        return self._kv

    @property
    def queue(self) -> Queue:
        """Queues, as those of FloClient."""
        if self._queue is None:
            from flo.client.queue import Queue

            self._queue = Queue(self._operations())
        return self._queue

    @property
    def stream(self) -> Stream:
        """Streams and consumer groups, as those of FloClient."""
        if self._stream is None:
            from flo.client.stream import Stream

            self._stream = Stream(self._operations())
        return self._stream

    @property
    def namespaces(self) -> Namespaces:
        """Namespaces, as those of FloClient."""
        from flo.client.namespaces import Namespaces

        return Namespaces(self._operations())

    async def close(self) -> None:
        """A planned stop of what this process executes; what is not finished can be resumed."""
        if self._hands is None or self._closed:
            return
        self._stopping.set()
        if self._transport is not None:
            self._transport.close()
        closing = self._ask(_Op("close", None))
        self._closed = True
        try:
            await asyncio.shield(closing)
        finally:
            gone = Unavailable("the grid is closed", hint="what was not finished can be resumed")
            for follow in list(self._follows):
                follow.take(gone)

    # last of the public ones, for below it `list` means this method in annotations
    async def list(self) -> Sequence[RunView]:
        """Root and detached runs, oldest first, without their output."""
        return await self._call(lambda grid: grid.list())

    # What follows runs on the loop.

    @property
    def attachment(self) -> Attachment | None:
        """How this grid is attached now; None while it looks for an owner."""
        return self._attachment

    def have(self, work: Callable[[Any], None]) -> asyncio.Future[Any]:
        """Has the thread that makes calls do this with the grid, with the next one's if the owner has left."""
        return self._ask(_Op("call", work))

    def _operations(self) -> GridTransport:
        if self._transport is None:
            from flo.client.grid_transport import GridTransport  # programs that only run flows need none of it

            if self._hands is None:
                raise Unavailable("the grid is not open: use `async with`")
            self._transport = GridTransport(self, self._loop)
        return self._transport

    async def _call(self, fn: Callable[[Grid], T], *, repeatable: bool = True) -> T:
        value: T = await self._ask(_Op("call" if repeatable else "once", fn))
        return value

    def _ask(self, op: _Op) -> asyncio.Future[Any]:
        if self._closed or self._hands is None:
            raise Unavailable("the grid is closed" if self._closed else "the grid is not open: use `async with`")
        op.future = self._loop.create_future()
        if not self._asked:
            self._loop.call_soon(self._flush)
        self._asked.append(op)
        return op.future

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        self._ops.put(asked)

    def _follow(self, id: str, take: Callable[[Update | FloError], None], *, every: bool) -> Callable[[], None]:
        """Has `take` called on the loop with the final update of the run, or with every one since the beginning.
        Returns the function that ends it."""
        follow = _Follow(id, take, every)
        self._follows.add(follow)
        watching = self._ask(_Op("watch", follow))

        def failed(watching: asyncio.Future[Any]) -> None:
            error = None if watching.cancelled() else watching.exception()
            if isinstance(error, FloError):
                follow.take(error)

        def stop() -> None:
            self._follows.discard(follow)
            if not follow.ended and not self._closed:
                self._ask(_Op("unwatch", follow))

        watching.add_done_callback(failed)
        return stop

    def _resolve(self, results: Sequence[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
        for future, value, error in results:
            if future.done():
                continue  # whoever asked was cancelled
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _drain(self) -> None:
        self._drain_planned = False
        while self._arrivals:
            follow, update = self._arrivals.popleft()
            if follow in self._follows:
                if type(follow) is _Ending:
                    self._follows.discard(follow)
                follow.take(update)

    # What follows runs in threads of the grid.

    def _updated(self, follow: _Follow, attached: int, update: Update) -> None:
        if update.view is None and not update.lines:
            if not self._stopping.is_set():
                self._ops.put([_Op("recover", attached)])
            return
        if follow.skip:
            skipped = min(follow.skip, len(update.lines))
            follow.skip -= skipped
            update = Update(lines=update.lines[skipped:], view=update.view)
        follow.shown += len(update.lines)
        if _ends(update):
            follow.ended = True
            self._ours.pop(follow.id, None)
        elif not follow.every or (update.view is None and not update.lines):
            return
        self._deliver(follow, update)

    def _deliver(self, follow: _Follow, update: Update | FloError) -> None:
        self._arrivals.append((follow, update))
        if not self._drain_planned:
            self._drain_planned = True
            self._soon(self._drain)

    def _soon(self, fn: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed with the grid open: nobody waits any more
            self._loop.call_soon_threadsafe(fn, *args)

    # What follows runs in the thread that makes the calls.

    @property
    def _owner(self) -> bool:
        return self._attachment is not None and self._attachment.owner

    def _grid(self) -> Grid:
        if self._attachment is None:
            self._attachment = self._open(self._stopping)
        return self._attachment.grid

    def _detach(self) -> None:
        attachment, self._attachment = self._attachment, None
        self._attached += 1
        self._bundles.clear()
        if attachment is not None:
            attachment.close()

    def _work(self) -> None:
        waiting: deque[_Op] = deque()
        while True:
            if not waiting:
                waiting.extend(self._ops.get())
            with contextlib.suppress(Empty):
                while len(waiting) < BATCH_MAX:
                    waiting.extend(self._ops.get_nowait())
            results: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
            closing = False
            while waiting and not closing:
                kind = waiting[0].kind
                batch = [waiting.popleft()]
                if kind in _BATCHED:
                    while waiting and waiting[0].kind == kind and len(batch) < BATCH_MAX:
                        batch.append(waiting.popleft())
                answers = self._make(kind, batch)
                results.extend(
                    (op.future, *answer) for op, answer in zip(batch, answers, strict=True) if op.future is not None
                )
                closing = kind == "close"
                if kind in _BATCHED or not waiting:
                    self._soon(self._resolve, results)
                    results = []
            if closing:
                return

    def _make(self, kind: str, batch: Sequence[_Op]) -> Sequence[tuple[Any, BaseException | None]]:
        """Makes the calls, for a guest with the next owner when one has gone. Values or errors stand in order."""
        while True:
            try:
                return self._try(kind, batch)
            except OwnerLeft as error:
                failure: BaseException = error
                again = not self._stopping.is_set() and self._attachment is not None
            except OwnerLost as error:
                failure = error
                again = not self._stopping.is_set() and kind not in ("signal", "once")
            except BaseException as error:  # noqa: BLE001 - given to whoever asked
                failure, again = error, False
            if not again:
                return [(None, failure)] * len(batch)
            try:
                self._recover()
            except BaseException as error:  # noqa: BLE001 - given to whoever asked
                return [(None, error)] * len(batch)

    def _try(self, kind: str, batch: Sequence[_Op]) -> Sequence[tuple[Any, BaseException | None]]:
        if kind == "close":
            self._detach()
            return [(None, None)]
        grid = self._grid()
        if kind == "start":
            return self._start_and_follow(grid, [op.payload for op in batch])
        if kind == "signal":
            return [(None, error) for error in signal_many(grid, [op.payload for op in batch])]
        if kind == "watch":
            return [self._watch(grid, op.payload) for op in batch]
        if kind == "unwatch":
            for op in batch:
                op.payload.unwatch()
            return [(None, None)] * len(batch)
        if kind == "recover":
            self._after_loss(batch[0].payload)
            return [(None, None)]
        return [(op.payload(grid), None) for op in batch]

    def _start_and_follow(
        self, grid: Grid, batch: Sequence[tuple[Prepared, _Ending]]
    ) -> Sequence[tuple[Any, BaseException | None]]:
        """Whoever starts a run mostly waits for its end, so that is asked for in the same turn."""
        answers = self._start(grid, [prepared for prepared, _ in batch])
        for (_, ending), (_, error) in zip(batch, answers, strict=True):
            if error is None:
                self._watch(grid, ending)
        return answers

    def _start(self, grid: Grid, batch: Sequence[Prepared]) -> Sequence[tuple[Any, BaseException | None]]:
        for prepared in batch:
            digest = prepared.request.bundle
            if digest not in self._bundles:
                put_bundle(grid, prepared)
                self._bundles.add(digest)
        answers = start_many(grid, [prepared.request for prepared in batch])
        if not self._owner:
            self._ours.update((prepared.request.id, prepared) for prepared in batch)
        return [(None, answer) if isinstance(answer, FloError) else (answer, None) for answer in answers]

    def _watch(self, grid: Grid, follow: _Follow) -> tuple[Any, BaseException | None]:
        follow.skip = follow.shown
        try:
            on_update = partial(self._updated, follow, self._attached)
            watch = grid.watch if follow.every else getattr(grid, "watch_end", grid.watch)
            unwatch = watch(follow.id, on_update)
            if type(follow) is not _Ending:  # that one is never given up, and there may be very many
                follow.unwatch = unwatch
        except (OwnerLeft, OwnerLost):
            raise
        except FloError as error:
            return None, error
        return None, None

    def _after_loss(self, attached: int) -> None:
        if attached != self._attached:
            return  # another call has seen it first
        try:
            if self._owner:
                self._attached += 1
                raise Unavailable("the data directory cannot be used any more", hint="flo resume goes on with its runs")
            self._recover()
        except FloError as error:
            for follow in list(self._follows):
                self._deliver(follow, error)

    def _recover(self) -> None:
        """Attaches to the next owner, or becomes it, and goes on with the runs of this process."""
        while True:
            self._detach()
            grid = self._grid()
            try:
                known = [prepared for prepared in list(self._ours.values()) if prepared is not None]
                for first in range(0, len(known), BATCH_MAX):
                    self._start(grid, known[first : first + BATCH_MAX])
                resumed = [id for id, prepared in list(self._ours.items()) if prepared is None]
                if resumed:
                    grid.execute(resumed)
                for follow in list(self._follows):
                    if not follow.ended:
                        self._watch(grid, follow)
                return
            except (OwnerLeft, OwnerLost):
                if self._stopping.is_set():
                    raise


class _Op:
    __slots__ = ("future", "kind", "payload")

    def __init__(self, kind: str, payload: Any) -> None:
        self.kind = kind  # start, signal, watch, unwatch, call, once, recover, close
        self.payload = payload
        self.future: asyncio.Future[Any] | None = None


_BATCHED: Final = frozenset({"start", "signal", "watch", "unwatch"})


class _Follow:
    """One wait for a run's end, or one reader of its updates."""

    __slots__ = ("ended", "every", "id", "shown", "skip", "take", "unwatch")

    def __init__(self, id: str, take: Callable[[Update | FloError], None], every: bool) -> None:
        self.id = id
        self.take = take
        self.every = every
        self.ended = False
        self.shown = 0  # lines that have arrived
        self.skip = 0  # lines of the present watch that had arrived before
        self.unwatch: Callable[[], None] = _nothing


class _Ending(_Follow):
    """The end of a run that was started here, for everybody who waits for it."""

    __slots__ = ("_futures", "_last")

    def __init__(self, id: str) -> None:
        super().__init__(id, self._take, every=False)
        self._last: Update | FloError | None = None
        self._futures: list[asyncio.Future[RunView]] | None = None

    def tell(self, future: asyncio.Future[RunView]) -> bool:
        """Has the future get the view at the end. False when this knows of no end any more: the run was paused, or
        the grid lost."""
        last = self._last
        if last is None:
            self._futures = [*(other for other in self._futures or () if not other.done()), future]
        elif isinstance(last, FloError) or last.view is None or last.view.status not in FINAL:
            return False
        else:
            future.set_result(last.view)
        return True

    def _take(self, update: Update | FloError) -> None:
        self._last = update
        futures, self._futures = self._futures, None
        for future in futures or ():
            if future.done():
                continue
            if isinstance(update, FloError):
                future.set_exception(update)
            elif update.view is not None:
                future.set_result(update.view)


def _nothing() -> None:
    """Ends a watch that has not begun."""


def _ends(update: Update) -> bool:
    return update.view is not None and (update.view.status in FINAL or update.view.paused is not None)


def open(url: str = "", *, durability: str = "sync") -> AsyncGrid:
    """A grid for `async with`: `memory:`, or `file:DIR` (a plain path will do), by default the data directory of the
    command line. The directory may be in use by another process: then that one executes the runs for as long as
    it is there.

    `durability` is `sync` (what is reported is on disk), `async_flush` (the last moments may be lost with the
    machine) or `ephemeral` (all may be lost). Entering raises what opening a directory raises (flo.log.errors).
    """
    if url == "memory:":
        return AsyncGrid(lambda stopping: open_memory())
    directory = data_directory(url.removeprefix("file:") or None)
    scheme, colon, _ = url.partition(":")
    if colon and scheme != "file" and "/" not in scheme:
        raise BadArgument(f"no grid can be opened at {url!r}", hint="memory: or file:DIR")
    return AsyncGrid(
        lambda stopping: attach(directory, open_owner=partial(open_node, durability=durability), stopping=stopping)
    )
