"""The worker of a process: strands on a bounded pool of threads, of which one evaluates at a time.

The interpreter holds the GIL while it evaluates, so more than one evaluating thread gains nothing and lets
the log's flusher wait (design.md §6.1). The right to evaluate is the **baton**. Whoever holds it passes it on
when its strand ends or waits, and after a millisecond when others are ready. A thread whose strand ends
takes the next one itself, without a hop. A waiting strand keeps its thread for a moment, so that it need
not be replayed; it is evicted at once when a ready one finds no thread.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from flo.api.clock import Clock, SystemClock
from flo.api.errors import Unavailable
from flo.api.limits import CRASHES_BEFORE_PAUSE, EVALUATION_BYTES, STARLARK_STEPS
from flo.api.worker import CRASHING, Lease, Revoked, RunCore
from flo.worker.budget import Budget
from flo.worker.crashguard import SLOTS, CrashGuard, strand_name
from flo.worker.dialect import large_thread
from flo.worker.modules import Modules, shared
from flo.worker.strand import End, Strand, allow_nesting

THREADS_MAX = 128
LINGER_MS = 200  # how long a waiting strand keeps its thread at least
LINGER_MAX_MS = 60_000
IDLE_MS = 10_000  # how long a thread without work stays
SLICE_MS = 1  # how long a strand may hold the baton while others are ready
_ACTIONS_PER_LINGER_MS = 10  # a strand lingers longer, the dearer its replay
_EVICTION_CHOICE = 8
_GC_THRESHOLD = (50_000, 20, 50)  # runs in memory are no garbage: looking for it 70 times as often costs a fifth
_SWITCH_SECONDS = 0.0005  # what keeps the flusher's waits for the GIL short


class _Thread:
    """A thread of the pool, with the gate at which it waits for the baton."""

    __slots__ = ("gate", "strand", "evicted", "name", "number", "since", "thread")

    def __init__(self, number: int) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.strand: Strand | None = None
        self.evicted = False
        self.number = number  # its slot in the crash guard
        self.name = ""  # what stands there while it evaluates
        self.since = 0  # when its strand got the baton, monotonic ms
        self.thread: threading.Thread


class ThreadWorker:
    """Implements flo.api.worker.Worker. Threads are made when they are needed, up to `threads_max`."""

    def __init__(
        self,
        core: RunCore,
        *,
        threads_max: int = THREADS_MAX,
        linger_ms: int = LINGER_MS,
        clock: Clock | None = None,
        crash_guard: CrashGuard | None = None,
        modules: Modules | None = None,
        steps: int = STARLARK_STEPS,
        memory: int = EVALUATION_BYTES,
    ) -> None:
        assert 1 <= threads_max <= SLOTS
        self._core = core
        self._threads_max = threads_max
        self._linger_ms = linger_ms
        self._clock = clock or SystemClock()
        self._guard = crash_guard
        self._modules = modules or shared
        self._steps = steps
        self._memory = memory
        self._lock = threading.Lock()
        self._busy = False  # a thread holds the baton
        self._ready: deque[Strand | _Thread] = deque()  # strands to begin; threads whose strand can go on
        self._idle: list[_Thread] = []
        self._waiting: dict[_Thread, None] = {}  # threads whose strands wait, in the order in which they began to
        self._threads: dict[int, _Thread] = {}
        self._ending: list[threading.Thread] = []  # that had nothing to do for long and have come to their end
        self._stopping = False
        allow_nesting()
        sys.setswitchinterval(_SWITCH_SECONDS)
        if gc.isenabled() and 0 < gc.get_threshold()[0] < _GC_THRESHOLD[0]:
            gc.set_threshold(*_GC_THRESHOLD)

    # -- flo.api.worker.Worker

    def start(self, leases: Sequence[Lease]) -> None:
        with self._lock:
            stopping = self._stopping
            if not stopping:
                for lease in leases:
                    budget = Budget(self._steps, self._memory, clock=self._clock)
                    strand = lease.slot = Strand(lease, self._core, self._modules, self, budget)
                    self._ready.append(strand)
                self._dispatch()
        if stopping:
            for lease in leases:
                self._core.release(lease)

    def wake(self, leases: Sequence[Lease]) -> None:
        with self._lock:
            for lease in leases:
                strand: Strand | None = lease.slot
                if strand is None:
                    continue
                thread = strand.thread
                if thread is not None and thread in self._waiting:
                    del self._waiting[thread]
                    self._ready.append(thread)
                else:
                    strand.woken = True
            self._dispatch()

    def stop(self, timeout_ms: int) -> None:
        with self._lock:
            self._stopping = True
            while self._waiting:
                self._evict(next(iter(self._waiting)))
            begun = [entry for entry in self._ready if isinstance(entry, _Thread)]
            never = [entry for entry in self._ready if isinstance(entry, Strand)]
            self._ready = deque(begun)
            for thread in self._idle:
                thread.gate.release()
            self._idle.clear()
            self._dispatch()
            threads = [*self._ending, *(thread.thread for thread in self._threads.values())]
        for strand in never:
            strand.lease.slot = None
            self._core.release(strand.lease)
        until = self._clock.monotonic_ms() + timeout_ms
        for other in threads:
            if other is not threading.current_thread():
                other.join(max(0, until - self._clock.monotonic_ms()) / 1000)
        if self._guard is not None:
            self._guard.close()

    # -- flo.worker.strand.Waiter, called by the thread that holds the baton

    def wait(self, strand: Strand) -> bool:
        thread: _Thread = strand.thread
        self._got_through(thread)
        with self._lock:
            if strand.woken:
                strand.woken = False
                return True
            if self._stopping:
                return False
            self._waiting[thread] = None
            self._leave(thread)
            if not self._pass_on():
                cheapest = self._cheapest()
                if _cost(thread) <= _cost(cheapest):
                    del self._waiting[thread]  # unwinding this one needs no hop
                    return False
                self._evict(cheapest)
                self._pass_on()
        if not thread.gate.acquire(timeout=self._linger(strand)):
            with self._lock:
                if thread in self._waiting:
                    self._evict(thread)
                    self._dispatch()
            thread.gate.acquire()
        return self._resume(thread)

    def passes(self, strand: Strand) -> bool:
        thread: _Thread = strand.thread
        if self._stopping:
            return False
        if not self._ready or self._clock.monotonic_ms() - thread.since < SLICE_MS:
            return True
        with self._lock:
            if not self._ready:
                return True
            self._ready.append(thread)
            self._leave(thread)
            if not self._pass_on():
                if self._waiting:
                    self._evict(self._cheapest())
                else:
                    # Every thread evaluates: the baton goes round among them until one has ended its strand.
                    self._ready.rotate(-next(i for i, entry in enumerate(self._ready) if isinstance(entry, _Thread)))
                self._pass_on()
        thread.gate.acquire()
        return self._resume(thread)

    # -- the baton, with the lock held

    def _dispatch(self) -> None:
        """Gives the baton to whom is ready, if nobody has it."""
        if not self._busy and not self._pass_on():
            self._evict(self._cheapest())
            self._pass_on()

    def _pass_on(self) -> bool:
        """Passes the baton to the first that is ready, or lays it down. False when that one finds no thread."""
        if not self._ready:
            self._busy = False
            return True
        first = self._ready[0]
        if isinstance(first, Strand):
            thread = self._free_thread()
            if thread is None:
                return False
            self._ready.popleft()
            thread.strand = first
        else:
            thread = first
            self._ready.popleft()
        self._busy = True
        thread.gate.release()
        return True

    def _free_thread(self) -> _Thread | None:
        if self._idle:
            return self._idle.pop()
        if len(self._threads) == self._threads_max or self._stopping:
            return None
        number = next(number for number in range(self._threads_max) if number not in self._threads)
        thread = _Thread(number)
        try:
            thread.thread = large_thread(lambda: self._main(thread), name=f"flo-run-{number}")
        except RuntimeError as error:
            if not self._threads:
                raise Unavailable(f"nothing can be evaluated: {error}") from error
            return None  # the system gives no more: as many as there are must do
        self._threads[number] = thread
        return thread

    def _cheapest(self) -> _Thread:
        """Of the threads whose strands wait longest, the one whose strand is replayed soonest."""
        return min(islice(self._waiting, _EVICTION_CHOICE), key=_cost)

    def _evict(self, thread: _Thread) -> None:
        """A thread whose strand waits gets the baton next, to unwind it."""
        del self._waiting[thread]
        thread.evicted = True
        self._ready.appendleft(thread)

    # -- threads

    def _main(self, thread: _Thread) -> None:
        thread.gate.acquire()
        while True:
            strand = thread.strand
            while strand is not None:
                try:
                    self._evaluate(thread, strand)
                except BaseException as error:  # noqa: BLE001  # the baton must go on, whatever is broken here
                    _report(thread, error)
                strand = self._next(thread)
            if self._stopping or not thread.gate.acquire(timeout=IDLE_MS / 1000):
                with self._lock:
                    if thread in self._idle:
                        self._idle.remove(thread)
                    elif not self._stopping or thread.strand is not None:
                        thread.gate.acquire()  # the baton is on its way here
                        continue
                    del self._threads[thread.number]
                    self._ending = [*(other for other in self._ending if other.is_alive()), thread.thread]
                return

    def _next(self, thread: _Thread) -> Strand | None:
        """What a thread that still has the baton evaluates next; None when it has passed it on. From then on it may
        be given a strand at any time, which comes with the baton: through the gate."""
        with self._lock:
            first = self._ready[0] if self._ready and not self._stopping else None
            if isinstance(first, Strand):
                self._ready.popleft()
                thread.strand = first
                return first
            thread.strand = None
            self._idle.append(thread)
            self._pass_on()
            return None

    def _evaluate(self, thread: _Thread, strand: Strand) -> None:
        strand.thread = thread
        lease = strand.lease
        guard = self._guard
        if guard is not None:
            thread.name = strand_name(lease)
        try:
            if guard is not None and guard.counted and guard.crashes(thread.name) >= CRASHES_BEFORE_PAUSE:
                self._put_aside(guard, thread, lease)
                return
            self._resume(thread)
            end = strand.evaluate()
        except BaseException as error:  # noqa: BLE001  # a fault of ours must not take the other runs with it
            _report(thread, error)
            self._pause(lease, "internal", f"{type(error).__name__}: {error}")
            return
        finally:
            self._leave(thread)
            lease.slot = None
        if end is End.LEFT:
            self._core.release(lease)
        else:
            self._got_through(thread)

    def _pause(self, lease: Lease, kind: str, message: str) -> None:
        try:
            self._core.pause(lease, kind, message)
        except Revoked:
            self._core.release(lease)

    def _put_aside(self, guard: CrashGuard, thread: _Thread, lease: Lease) -> None:
        guard.leave_one_try(thread.name)
        self._pause(
            lease, CRASHING, f"{CRASHES_BEFORE_PAUSE} processes died while they evaluated this run; "
            f"to try once more: flo resume {lease.run}",
        )  # fmt: skip

    def _got_through(self, thread: _Thread) -> None:
        """The strand has come to its end or to a wait, so it is not what kills processes."""
        if self._guard is not None and self._guard.counted:
            self._guard.forget(thread.name)

    def _resume(self, thread: _Thread) -> bool:
        """The thread has the baton; False when it has it to unwind its strand."""
        thread.since = self._clock.monotonic_ms()
        if self._guard is not None and thread.strand is not None:
            self._guard.begin(thread.number, thread.name)
        evicted, thread.evicted = thread.evicted, False
        if thread.strand is not None:
            thread.strand.woken = False
            thread.strand.budget.resumed()
        return not evicted

    def _leave(self, thread: _Thread) -> None:
        """The thread does not evaluate any more, or not now."""
        if self._guard is not None:
            self._guard.end(thread.number)

    def _linger(self, strand: Strand) -> float:
        return min(self._linger_ms + strand.actions / _ACTIONS_PER_LINGER_MS, LINGER_MAX_MS) / 1000


def _cost(thread: _Thread) -> int:
    return thread.strand.actions if thread.strand is not None else 0


def _report(thread: _Thread, error: BaseException) -> None:
    with suppress(OSError, ValueError):  # standard error is closed, so nobody can be told
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, thread.thread)))
