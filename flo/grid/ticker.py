"""The thread of a node's timers: it sleeps until the next one is due, and does what must not happen under a command.

Without it runs and clients would wait for ever in silence, so a fault of it is told to the node, which ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

from flo.grid.partition import NEVER, Partition

TICK_MAX_SECONDS: Final = 3600.0
TICK_GAP_SECONDS: Final = 0.001  # after a round of timers: else others would not get the lock while more are due


class Clerk(Protocol):
    """Work in small steps that waits for a quiet moment (flo.grid.archive)."""

    @property
    def wanted(self) -> bool: ...

    def step(self) -> None: ...


class Ticker:
    """The thread begins with the first timer, fault or step of the clerk."""

    def __init__(
        self,
        partition: Partition,
        clerk: Clerk,
        *,
        tick: Callable[[], None],
        rebuild: Callable[[], None],
        on_fault: Callable[[Exception], None],
        over: Callable[[], bool],
    ) -> None:
        self._partition = partition
        self._tick = tick
        self._rebuild = rebuild
        self._on_fault = on_fault
        self._over = over
        self._sleeps_until = NEVER
        self.clerk = clerk
        self.changed = threading.Event()
        self.thread: threading.Thread | None = None

    def see(self) -> None:
        """A command has ended: perhaps a timer is due earlier than before, or the clerk has work."""
        if self._partition.next_due < self._sleeps_until or self.clerk.wanted:
            self.wake()

    def wake(self) -> None:
        self.changed.set()
        if self.thread is None and not self._over():
            with self._partition.lock:
                if self.thread is None:
                    self.thread = threading.Thread(target=self._run, name="flo-timers", daemon=True)
                    self.thread.start()

    def join(self) -> None:
        """Waits for the end, after `over` has come true."""
        self.changed.set()
        if self.thread is not None:
            self.thread.join()

    def _run(self) -> None:
        try:
            self._keep_time()
        except Exception as fault:
            self._on_fault(fault)
            raise

    def _keep_time(self) -> None:
        """Sleeps until the next timer; an idle node sleeps for as long as nothing changes."""
        partition = self._partition
        changed = self.changed
        while not self._over():
            if partition.broken is not None:
                self._rebuild()
                continue
            if self.clerk.wanted:
                self.clerk.step()
            due = partition.next_due
            with partition.lock:
                wait = TICK_MAX_SECONDS if due == NEVER else (due - partition.now()) / 1000
            if wait <= 0:
                self._tick()
                changed.clear()  # what it tells of is looked at in every round
                changed.wait(TICK_GAP_SECONDS)
                continue
            if self.clerk.wanted:
                continue
            self._sleeps_until = due
            if partition.next_due >= due:
                changed.wait(min(wait, TICK_MAX_SECONDS))
            self._sleeps_until = 0
            changed.clear()
