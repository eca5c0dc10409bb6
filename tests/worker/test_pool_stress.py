"""The pool under a core that starts, wakes and revokes at random, from several threads, and stops in the middle.

Strands are scripts of steps here instead of flows: what is tested is who gets the baton. The choices are seeded; the
order in which threads come to run is the system's, so a failure names its round and may take some tries to come again.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest

from flo.api.errors import Unavailable
from flo.api.limits import CRASHES_BEFORE_PAUSE
from flo.api.worker import Lease, Revoked, RunInfo
from flo.worker import pool
from flo.worker.budget import Budget
from flo.worker.dialect import large_thread
from flo.worker.pool import ThreadWorker
from flo.worker.strand import End

ROUNDS = 200  # of each seed
PATIENCE = 60.0  # seconds that bound a hang, and measure nothing
FOR_EVER = 3_600_000
DRIVERS = 2
INFO = RunInfo(id="", name="", parent=None, attempt=1, started_at=0, username="", quota_path="/", limits={})


class Round:
    """One pool and its core, which implements what of RunCore the pool itself and the scripted strands use."""

    def __init__(self, seed: str) -> None:
        self.choose = random.Random(seed)
        self.lock = threading.Lock()
        self.baton = threading.Lock()  # of whoever evaluates; it is never waited for
        self.wrong: list[str] = []
        self.faults: Counter[str] = Counter()  # that were reported
        self.raised: Counter[str] = Counter()  # that were made
        self.scripts = {
            f"run-{n}": "".join(self.choose.choices("awtfr", (4, 4, 4, 0.3, 0.3), k=self.choose.randrange(8)))
            for n in range(self.choose.randrange(1, 12))
        }
        self.done: dict[str, set[int]] = {run: set() for run in self.scripts}
        self.open: set[tuple[str, int]] = set()
        self.over: set[str] = set()
        self.current: dict[str, Lease] = {}
        self.leases: list[Lease] = []
        self.ended: dict[Lease, str] = {}
        self.events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.scarce = self.choose.random() < 0.3  # the system does not give every thread that is asked for
        self.guard = Guard(self)
        # When the pool is stopped: after so many events, or never before all is done.
        self.stop_after = self.choose.choice([None, self.choose.randrange(40)])
        self.stopping = False
        self.worker: ThreadWorker

    # -- what the pool and the strands ask for

    def act(self, lease: Lease, n: int) -> bool:
        """Whether the action is done; else the strand has to wait."""
        run = lease.run
        with self.lock:
            if not lease.alive:
                raise Revoked
            if n in self.done[run]:
                return True
            if self.scripts[run][n] == "a":
                self.done[run].add(n)
                return True
            if (run, n) not in self.open:
                self.open.add((run, n))
                self.events.put(lambda: self.complete(run, n))
            return False

    def finish(self, lease: Lease) -> None:
        with self.lock:
            self._over(lease, "finished")
            self.over.add(lease.run)
            if len(self.over) == len(self.scripts):
                self.leave()

    def pause(self, lease: Lease, kind: str, message: str) -> None:
        with self.lock:
            self._over(lease, "paused")
        self.go_on(lease.run)

    def release(self, lease: Lease) -> None:
        with self.lock:
            lease.alive = False
            self._end(lease, "released")
            fails = "r" in self.scripts[lease.run] and not self.raised["release " + lease.run]
            fails &= threading.current_thread() in self.threads  # others are told of a fault themselves
            self.raised["release " + lease.run] += fails
        self.go_on(lease.run)
        if fails:
            raise LookupError("release")

    def _over(self, lease: Lease, how: str) -> None:
        if not lease.alive:
            raise Revoked
        lease.alive = False
        self._end(lease, how)

    def _end(self, lease: Lease, how: str) -> None:
        if lease in self.ended:
            self.wrong.append(f"{lease.run} is {how} after it was {self.ended[lease]}")
        self.ended[lease] = how

    # -- what goes on meanwhile, in the drivers

    def go_on(self, run: str) -> None:
        self.events.put(lambda: self.start([run]))

    def start(self, runs: list[str]) -> None:
        with self.lock:
            leases = []
            for run in runs:
                lease = self.current[run] = Lease(
                    run=run, task="0", phase="body", bundle=b"", flow="", args="{}", info=INFO, history={}
                )  # fmt: skip
                leases.append(lease)
            self.leases += leases
        self.ask(self.worker.start, leases)

    def complete(self, run: str, n: int) -> None:
        with self.lock:
            what = self.choose.random()
            lease = self.current[run]
            others = self.choose.sample(self.leases, min(2, len(self.leases)))
            if what < 0.15:
                lease.alive = False
                self.events.put(lambda: self.complete(run, n))
            else:
                self.done[run].add(n)
                self.open.discard((run, n))
        wakes = [lease] if what < 0.7 else [*others, lease, lease]
        self.ask(self.worker.wake, wakes)

    def ask(self, method: Callable[[list[Lease]], None], leases: list[Lease]) -> None:
        try:
            method(leases)
        except Unavailable:  # no thread at all: the pool has kept what it was given
            self.events.put(lambda: self.ask(self.worker.wake, []))

    def drive(self) -> None:
        while (event := self.events.get(timeout=PATIENCE)) is not None:
            if self.stop_after is not None:
                with self.lock:
                    self.stop_after -= 1
                    stops = self.stop_after < 0 and not self.stopping
                    self.stopping |= stops
                if stops:
                    self.leave()
                    self.worker.stop(int(PATIENCE * 1000))
            event()

    def leave(self) -> None:
        """Has the drivers end after the events that are there."""
        for _ in range(DRIVERS):
            self.events.put(None)

    # -- a round

    def play(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool, "Strand", ScriptedStrand)
        monkeypatch.setattr(pool, "large_thread", self.thread)
        monkeypatch.setattr(pool, "IDLE_MS", self.choose.choice([0, 1, FOR_EVER]))
        monkeypatch.setattr(threading, "excepthook", self.fault)
        self.worker = ThreadWorker(
            self,  # type: ignore[arg-type]  # as much of a core as ScriptedStrand needs
            threads_max=self.choose.randrange(1, 5),
            linger_ms=self.choose.choice([0, 1, FOR_EVER]),
            clock=Clock(),
            crash_guard=self.guard if self.choose.random() < 0.5 else None,  # type: ignore[arg-type]
        )
        sys.setswitchinterval(1e-5)  # the pool has set it longer
        runs = list(self.scripts)
        self.choose.shuffle(runs)
        cut = self.choose.randrange(len(runs) + 1)
        for run in runs[:cut]:
            self.go_on(run)
        drivers = [threading.Thread(target=self.drive, name=f"driver-{n}") for n in range(DRIVERS)]
        for driver in drivers:
            driver.start()
        if runs[cut:]:
            self.start(runs[cut:])
        if self.stop_after is not None and self.choose.random() < 0.3:
            self.worker.stop(int(PATIENCE * 1000))  # beside the driver's
            with self.lock:
                self.stopping = True
            self.leave()
        for driver in drivers:
            driver.join(PATIENCE)
            if driver.is_alive():
                self.wrong.append(f"{driver.name} hangs")
        self.worker.stop(int(PATIENCE * 1000))
        self.judge()

    def judge(self) -> None:
        worker = self.worker
        assert not self.wrong
        assert [lease.run for lease in self.leases if lease not in self.ended] == [], "every lease ends"
        assert not any(lease.slot for lease in self.leases)
        assert self.stop_after is not None or self.over == set(self.scripts), "every run ends"
        assert not any(thread.is_alive() for thread in self.threads), "no thread is left"
        assert not worker._threads and not worker._ready and not worker._waiting and not worker._idle
        assert not worker._busy and not self.baton.locked() and not self.guard.named
        assert self.faults["LookupError"] == sum(self.raised.values()), "every fault is reported, once"
        assert len(self.faults) <= 1

    def thread(self, body: Callable[[], None], *, name: str) -> threading.Thread:
        if self.scarce and self.choose.random() < 0.3:
            raise RuntimeError("can't start new thread")
        made = large_thread(body, name=name)
        self.threads.append(made)
        return made

    def fault(self, given: Any) -> None:
        self.faults[type(given.exc_value).__name__] += 1
        if not isinstance(given.exc_value, LookupError):
            self.wrong.append("".join(traceback.format_exception(given.exc_value)))


class ScriptedStrand:
    """Takes the steps of a script: `a` acts, `w` waits, `t` lets others go first, `f` fails once and `r` has its
    release fail once."""

    def __init__(self, lease: Lease, core: Round, modules: Any, waiter: ThreadWorker, budget: Budget) -> None:
        self.lease = lease
        self.thread: Any = None
        self.woken = False
        self.core = core
        self.waiter: Any = waiter
        self.budget = budget

    @property
    def actions(self) -> int:
        return len(self.core.done[self.lease.run])

    def evaluate(self) -> End:
        if not self.lease.alive:
            return End.LEFT
        self._has_baton()
        try:
            if not all(self._step(n, step) for n, step in enumerate(self.core.scripts[self.lease.run])):
                return End.LEFT
            self.core.finish(self.lease)
            return End.OVER
        except Revoked:
            return End.LEFT
        finally:
            self.core.baton.release()

    def _step(self, n: int, step: str) -> bool:
        core, run = self.core, self.lease.run
        if step == "t":
            return self._without_baton(self.waiter.passes) and self.lease.alive
        if step == "f" and not core.raised[f"{run} {n}"]:
            core.raised[f"{run} {n}"] += 1
            raise LookupError("step")
        if step in "fr" or core.act(self.lease, n):
            return True
        while n not in core.done[run]:
            if not self.lease.alive or not self._without_baton(self.waiter.wait):
                return False
        return True

    def _without_baton(self, way: Callable[[ScriptedStrand], bool]) -> bool:
        self.core.baton.release()
        try:
            return way(self)
        finally:
            self._has_baton()

    def _has_baton(self) -> None:
        if not self.core.baton.acquire(blocking=False):
            self.core.wrong.append(f"{self.lease.run} is evaluated beside another")
            self.core.baton.acquire()
        if not self.thread.gate.locked():
            self.core.wrong.append(f"{self.lease.run} did not wait for the baton, which it will be given once more")


class Guard:
    """A crash guard that sees that only who evaluates is named; `run-1` has crashed too often."""

    counted = True

    def __init__(self, core: Round) -> None:
        self.core = core
        self.named: dict[int, str] = {}
        self.tried = False

    def crashes(self, name: str) -> int:
        return CRASHES_BEFORE_PAUSE if name == "run-1 0" and not self.tried else 0

    def leave_one_try(self, name: str) -> None:
        self.tried = True

    def forget(self, name: str) -> None:
        assert self.crashes(name) == 0

    def begin(self, slot: int, name: str) -> None:
        self.named[slot] = name
        if len(self.named) > 1:
            self.core.wrong.append(f"{self.named} are evaluated at once")

    def end(self, slot: int) -> None:
        self.named.pop(slot, None)

    def close(self) -> None:
        self.named.clear()


class Clock:
    """Each look at it takes a millisecond, so that whoever may pass the baton on does."""

    def __init__(self) -> None:
        self.now = itertools.count()

    def monotonic_ms(self) -> int:
        return next(self.now)

    wall_ms = monotonic_ms


@pytest.mark.parametrize("seed", range(10))
def test_one_evaluates_and_every_lease_ends_once_whatever_happens_at_once(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sys.getswitchinterval()
    try:
        for n in range(ROUNDS):
            with monkeypatch.context() as patched:
                try:
                    Round(f"{seed} {n}").play(patched)
                except AssertionError as error:
                    error.add_note(f"in round {n} of seed {seed}")
                    raise
    finally:
        sys.setswitchinterval(before)
