"""Performs jobs in this process: one asyncio loop in one thread, which starts with the first job.

The caller's threads only put jobs into an inbox. Everything else here happens on the loop: which job
runs, which waits for a slot of its connector, and which result has not been accepted yet. Results that
ended in one turn of the loop are answered in one call.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from flo.api import outcome as outcomes
from flo.api.clock import Clock, SystemClock
from flo.api.errors import Unavailable
from flo.api.jobs import Job, JobCore
from flo.api.outcome import Outcome
from flo.connectors._values import encode_value
from flo.connectors.contract import SLOTS_DEFAULT, Connector, ConnectorContext, ConnectorError
from flo.connectors.registry import Registry
from flo.connectors.secrets import SecretStore

if TYPE_CHECKING:
    import asyncio

REMEMBERED_JOBS = 65_536  # ended jobs that are still recognised when they are handed out a second time
ANSWER_RETRY_MS = 50  # before a refused answer is offered again, doubled up to
ANSWER_RETRY_MAX_MS = 1_000
CLOSE_MS = 2_000  # what the connectors get at a planned stop after the last job
UNWIND_MS = 1_000  # what cancelled jobs get to unwind at a planned stop
ERROR_TEXT = 4_096  # characters of an error's message

Key: TypeAlias = tuple[str, str, int]

_log = logging.getLogger(__name__)


class LocalHost:
    """A ConnectorHost for the built-in connectors, those given and plug-ins.

    `directory` is where resources keep files; it is made when needed.
    """

    def __init__(
        self,
        connectors: Registry | Iterable[Connector] = (),
        *,
        directory: Path,
        clock: Clock | None = None,
        secrets: SecretStore | None = None,
    ) -> None:
        self._registry = connectors if isinstance(connectors, Registry) else Registry(connectors)
        self._registry_lock = threading.Lock()
        self._secrets = secrets if secrets is not None else SecretStore()
        self._context = ConnectorContext(clock=clock or SystemClock(), secrets=self._secrets, directory=directory)
        self._core: JobCore | None = None

        self._lock = threading.Lock()  # guards the next five
        self._inbox: list[Callable[[], None]] = []  # to be done on the loop
        self._woken = False  # the loop knows that the inbox is not empty
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False

        # The rest belongs to the loop.
        self._lanes: dict[int, _Lane] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._queued: set[Key] = set()  # waiting for a slot
        self._cancelled: set[Key] = set()
        self._ended: dict[Key, tuple[Job, Outcome]] = {}  # not accepted by the core yet
        self._accepted: OrderedDict[Key, None] = OrderedDict()
        self._answer_due: asyncio.Handle | None = None
        self._answer_delay_ms = ANSWER_RETRY_MS
        self._unbegun: list[Job] | None = None  # a list while stopping

    # -- from any thread

    def attach(self, core: JobCore) -> None:
        """May be called again with the core's next incarnation: what is not accepted yet is offered to it."""
        self._core = core
        self._post(self._answer_now, start=False)

    def slots(self, kind: str) -> int:
        connector = self._find(kind)
        return 0 if connector is None else _slots(connector)

    def repeatable(self, kind: str) -> bool:
        """Whether the kind's connector declares that a job may be performed twice without harm."""
        connector = self._find(kind)
        return connector is not None and bool(getattr(connector, "repeatable", False))

    @property
    def problems(self) -> list[str]:
        """Plug-ins that could not be loaded, and why."""
        return list(self._registry.problems)

    def warm(self, kinds: Iterable[str]) -> None:
        """Opens the connectors of these kinds in the background, so that their first job finds them ready."""
        wanted = tuple(kinds)
        self._post(lambda: self._open(wanted), start=True)

    def submit(self, jobs: Sequence[Job]) -> None:
        if self._core is None:
            raise RuntimeError("submit before attach")
        if not self._post(lambda: self._take(jobs), start=True):
            raise Unavailable("the connector host has stopped")

    def cancel(self, jobs: Sequence[Job]) -> None:
        self._post(lambda: self._cancel(jobs), start=False)

    def stop(self, timeout_ms: int) -> list[Job]:
        """Waits for begun jobs, at most this long, cancels the rest (they are answered as `interrupted`) and ends.
        Returns the jobs not begun: nothing was done for them and they are not answered."""
        with self._lock:
            thread, already = self._thread, self._stopped
            self._stopped = True
        if thread is None or already:
            return []
        import asyncio

        self._ready.wait()
        assert self._loop is not None
        unbegun = asyncio.run_coroutine_threadsafe(self._stop(timeout_ms), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join()
        return unbegun

    def _find(self, kind: str) -> Connector | None:
        with self._registry_lock:
            return self._registry.find(kind)

    def _post(self, what: Callable[[], None], *, start: bool) -> bool:
        """Has `what` called on the loop. False when the host has stopped, or does not run and need not start."""
        with self._lock:
            if self._stopped:
                return False
            if self._thread is None:
                if not start:
                    return False
                self._ready = threading.Event()
                self._thread = threading.Thread(target=self._run, name="flo-connectors", daemon=True)
                self._thread.start()
            self._inbox.append(what)
            if self._loop is not None and not self._woken:
                self._woken = True
                self._loop.call_soon_threadsafe(self._empty_inbox)
            return True

    # -- the thread

    def _run(self) -> None:
        import asyncio

        try:
            import uvloop

            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        except ImportError:
            loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        with self._lock:
            self._loop = loop
            self._woken = True
        loop.call_soon(self._empty_inbox)
        self._ready.set()
        try:
            loop.run_forever()
        finally:
            loop.close()

    def _empty_inbox(self) -> None:
        with self._lock:
            inbox, self._inbox = self._inbox, []
            self._woken = False
        for what in inbox:
            what()

    # -- jobs, on the loop

    def _take(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            key = _key(job)
            if key in self._running or key in self._queued:
                continue  # its one result will answer both
            if key in self._ended:
                self._answer_now()
                continue
            if key in self._accepted and not self.repeatable(job.kind):
                self._end(job, outcomes.error("interrupted", "this attempt was performed before; its result was given"))
                continue
            if self._unbegun is not None:
                self._unbegun.append(job)
                continue
            lane = self._lane(job.kind)
            if lane is None:
                self._end(job, outcomes.error("connector", self._nobody(job.kind)))
                continue
            lane.queue.append(job)
            self._queued.add(key)
            self._begin(lane)

    def _lane(self, kind: str) -> _Lane | None:
        connector = self._find(kind)
        if connector is None:
            return None
        lane = self._lanes.get(id(connector))
        if lane is None:
            lane = self._lanes[id(connector)] = _Lane(connector)
        return lane

    def _nobody(self, kind: str) -> str:
        return "; ".join([f"no connector serves {kind}", *self._registry.problems])

    def _begin(self, lane: _Lane) -> None:
        assert self._loop is not None
        while lane.queue and lane.running < lane.slots and self._unbegun is None:
            job = lane.queue.popleft()
            self._queued.discard(_key(job))
            lane.running += 1
            self._running[_key(job)] = self._loop.create_task(self._perform(lane, job))

    async def _perform(self, lane: _Lane, job: Job) -> None:
        try:
            outcome = await self._outcome(lane, job)
        finally:
            lane.running -= 1
            self._running.pop(_key(job))
        self._cancelled.discard(_key(job))
        self._end(job, outcome)
        self._begin(lane)

    async def _outcome(self, lane: _Lane, job: Job) -> Outcome:
        import asyncio

        try:
            await self._opened(lane)
            value = await lane.connector.perform(job)
            return self._secrets.mask_outcome("+" + encode_value(value))
        except asyncio.CancelledError:
            if _key(job) in self._cancelled:
                return outcomes.error("cancelled", f"{job.kind} was cancelled")
            if self._unbegun is not None:
                return outcomes.error("interrupted", f"{job.kind} was not done when its node stopped")
            return outcomes.error("connector", f"{job.kind}: the connector cancelled itself")
        except ConnectorError as bad:
            return self._error(bad.kind, bad.message, retryable=bad.retryable, details=bad.details)
        # Of foreign code: it must not end the loop, and becomes the action's error.
        except (Exception, SystemExit, KeyboardInterrupt) as bad:  # noqa: BLE001
            return self._error("connector", f"{job.kind}: {bad}" if str(bad) else f"{job.kind}: {type(bad).__name__}")

    def _error(self, kind: str, message: str, *, retryable: bool = False, details: Any = None) -> Outcome:
        message = self._secrets.mask(message).encode(errors="replace").decode()
        if len(message) > ERROR_TEXT:
            message = message[:ERROR_TEXT] + " …"
        try:
            encode_value(details)
        except ConnectorError as bad:
            details = f"not recorded: {bad.message}"
        return outcomes.error(kind, message, retryable=retryable, details=self._secrets.mask_details(details))

    async def _opened(self, lane: _Lane) -> None:
        """Opens the lane's connector once; those who come meanwhile wait for the same attempt."""
        import asyncio

        if lane.opening is None or (lane.opening.done() and lane.opening.exception() is not None):
            lane.opening = self._start_opening(lane)
        if not lane.opening.done():
            await asyncio.shield(lane.opening)
        lane.opening.result()

    def _open(self, kinds: Sequence[str]) -> None:
        for kind in kinds:
            lane = self._lane(kind)
            if lane is not None and lane.opening is None:
                lane.opening = self._start_opening(lane)

    def _start_opening(self, lane: _Lane) -> asyncio.Future[None]:
        assert self._loop is not None
        opening = self._loop.create_task(_open(lane.connector, self._context))
        opening.add_done_callback(lambda task: task.cancelled() or task.exception())  # perhaps no job ever asks
        return opening

    def _cancel(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            key = _key(job)
            task = self._running.get(key)
            lane = self._lane(job.kind)
            if lane is None:
                continue
            if key in self._queued:
                self._queued.discard(key)
                lane.queue.remove(next(waiting for waiting in lane.queue if _key(waiting) == key))
                self._end(job, outcomes.error("cancelled", f"{job.kind} was cancelled before it was begun"))
            elif task is None:
                continue  # it has ended
            elif getattr(lane.connector, "cancellable", True) and key not in self._cancelled:
                self._cancelled.add(key)
                task.cancel()

    # -- answers, on the loop

    def _end(self, job: Job, outcome: Outcome) -> None:
        assert self._loop is not None
        self._ended[_key(job)] = (job, outcome)
        if self._answer_due is None:  # else it is due at the end of this turn, or in a pause after a refusal
            self._answer_due = self._loop.call_soon(self._answer)

    def _answer_now(self) -> None:
        """Offers what is kept without waiting out the pause after a refusal."""
        assert self._loop is not None
        if self._answer_due is not None:
            self._answer_due.cancel()
        self._answer_due = self._loop.call_soon(self._answer)

    def _answer(self) -> None:
        assert self._loop is not None and self._core is not None
        self._answer_due = None
        if not self._ended:
            return
        batch = list(self._ended.values())
        try:
            self._core.answer(batch)
        except Exception as bad:  # noqa: BLE001 - whatever the core's trouble is, no result may be lost by it
            _log.warning("%d results are kept and offered again: %s: %s", len(batch), type(bad).__name__, bad)
            self._answer_due = self._loop.call_later(self._answer_delay_ms / 1_000, self._answer)
            self._answer_delay_ms = min(2 * self._answer_delay_ms, ANSWER_RETRY_MAX_MS)
            return
        self._answer_delay_ms = ANSWER_RETRY_MS
        for job, _ in batch:
            key = _key(job)
            self._ended.pop(key, None)
            self._accepted[key] = None
        while len(self._accepted) > REMEMBERED_JOBS:
            self._accepted.popitem(last=False)

    # -- the end, on the loop

    async def _stop(self, timeout_ms: int) -> list[Job]:
        import asyncio

        self._empty_inbox()
        unbegun = self._unbegun = []
        for lane in self._lanes.values():
            unbegun.extend(lane.queue)
            lane.queue.clear()
        self._queued.clear()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=timeout_ms / 1_000)
        for task in self._running.values():
            task.cancel()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=UNWIND_MS / 1_000)
        if self._core is not None:
            self._answer()
        closing = []
        for lane in self._lanes.values():
            if lane.opening is not None and lane.opening.done():
                closing.append(asyncio.ensure_future(_close(lane.connector)))
            elif lane.opening is not None:
                lane.opening.cancel()
        if closing:
            done, late = await asyncio.wait(closing, timeout=CLOSE_MS / 1_000)
            for task in late:
                task.cancel()
            for task in done:
                if (bad := task.exception()) is not None:
                    _log.warning("a connector could not be closed: %s: %s", type(bad).__name__, bad)
        if self._answer_due is not None:
            self._answer_due.cancel()
        return unbegun


class _Lane:
    """A connector with what runs on it and what waits for its slots."""

    __slots__ = ("connector", "slots", "running", "queue", "opening")

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.slots = _slots(connector)
        self.running = 0
        self.queue: deque[Job] = deque()
        self.opening: asyncio.Future[None] | None = None


def _key(job: Job) -> Key:
    return (job.run, job.sid, job.attempt)


def _slots(connector: Connector) -> int:
    return max(1, int(getattr(connector, "slots", SLOTS_DEFAULT)))


async def _open(connector: Connector, context: ConnectorContext) -> None:
    # A plug-in need not inherit from Connector, so it may lack the life cycle.
    if (hook := getattr(connector, "open", None)) is not None:
        await hook(context)


async def _close(connector: Connector) -> None:
    if (hook := getattr(connector, "close", None)) is not None:
        await hook()
