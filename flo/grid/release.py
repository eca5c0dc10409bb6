"""The output-commit rule (design.md §5.3): what leaves the node waits here until the log it rests on is durable.

Whoever answers somebody outside puts the answer here, with the partition's last index at the moment it was
computed. The log's flusher thread lets it go. When the log is lost, what waits is never let go: each gets
`lost` instead.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from flo.api.errors import Unavailable
from flo.log.errors import LogError


class Releases:
    """Answers in the order of their indexes. `after` is called with the partition's lock held."""

    def __init__(self, durable_index: int) -> None:
        self._waiting: deque[tuple[int, Callable[[], None], Callable[[LogError], None]]] = deque()
        self._lock = threading.Lock()
        self._durable = durable_index
        self._lost: LogError | None = None
        self._releasing = False

    def after(self, index: int, release: Callable[[], None], lost: Callable[[LogError], None]) -> None:
        """Calls `release` once this index is durable, from the flusher's thread; or `lost`, when it never will be.
        What is durable already is released at once, in this thread, unless something else goes before it."""
        with self._lock:
            if self._lost is None:
                self._waiting.append((index, release, lost))
                if self._releasing or index > self._durable:
                    return
        if self._lost is not None:
            lost(self._lost)
        else:
            self._release()

    def on_durable(self, index: int) -> None:
        with self._lock:
            self._durable = index
            if self._releasing or not self._waiting:
                return
        self._release()

    def _release(self) -> None:
        """Lets go what is durable, one after another: a single thread at a time does it, so that nothing overtakes."""
        while True:
            with self._lock:
                if self._releasing or not self._waiting or self._waiting[0][0] > self._durable:
                    return
                self._releasing = True
                ready = []
                while self._waiting and self._waiting[0][0] <= self._durable:
                    ready.append(self._waiting.popleft()[1])
            for release in ready:
                try:
                    release()
                except Exception as fault:  # noqa: BLE001  # one receiver's fault must not stop the others or the log
                    _report(fault)
            with self._lock:
                self._releasing = False

    def abandon(self, error: LogError) -> None:
        """Ends everything that waits now: it rests on memory that cannot be trusted."""
        with self._lock:
            left = [lost for _, _, lost in self._waiting]
            self._waiting.clear()
        for lost in left:
            lost(error)

    def on_lost(self, error: LogError) -> None:
        with self._lock:
            self._lost = error
            left = [lost for _, _, lost in self._waiting]
            self._waiting.clear()
        for lost in left:
            lost(error)


def _report(fault: Exception) -> None:
    threading.excepthook(threading.ExceptHookArgs((type(fault), fault, fault.__traceback__, None)))


def unknown_outcome(error: LogError) -> Unavailable:
    """What a caller gets whose answer rests on a log that was lost."""
    return Unavailable(f"outcome unknown: {error.message}", hint="look at the run again when a node serves the log")
