"""Group commit: what was added while one flush runs goes out together with the next one.

There is no timer: an idle log flushes at once, and exactly one append is in flight. The queue between the
partition and the flusher is the only hand-off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Final, Protocol

from flo.log.contract import Frame, LogBackend, LoggedEvent
from flo.log.errors import LogError, NoSpace, OutcomeUnknown, TooLarge
from flo.log.frame import BATCH_BYTES, FRAME_BYTES, FRAME_EVENTS, encoded_size

RETRY_SECONDS: Final = 0.5  # between attempts of a frame that had no room, or whose outcome is unknown
SETTLE_ATTEMPTS: Final = 20  # to learn the outcome of an append before the log counts as lost


class FlushMeter(Protocol):
    """Measures appends that succeeded, flush included."""

    def begin(self) -> int: ...
    def end(self, begun: int, frames: Sequence[Frame], size: int) -> None:
        """`begun`: what `begin` gave; `size`: bytes of the frames. Called from the flusher thread."""


_Added = tuple[Sequence[LoggedEvent], int, bytes, int]  # events, time, origin, encoded size


class GroupCommit:
    """Collects events into frames and appends them from a flusher thread of its own.

    `add` must be called by one thread at a time (the partition's lock sees to that). `on_durable(index)` and
    `on_lost(error)` are called from the flusher thread, or from `pump`; `on_lost` once, and nothing after it.
    With `thread=False` nothing happens but in `pump`: for simulations and tests. The backend stays the caller's.
    """

    def __init__(
        self,
        backend: LogBackend,
        on_durable: Callable[[int], None],
        on_lost: Callable[[LogError], None],
        *,
        thread: bool = True,
        meter: FlushMeter | None = None,
    ) -> None:
        self._backend = backend
        self._meter = meter
        self._on_durable = on_durable
        self._on_lost = on_lost
        self._epoch = backend.epoch
        self._last = self._durable = backend.last_index
        self._added_bytes = 0  # written by `add` alone
        self._flushed_bytes = 0  # written by the flusher alone
        self._queue: SimpleQueue[_Added | None] = SimpleQueue()
        self._frames: list[Frame] = []  # taken from the queue, not durable yet
        self._frames_bytes = 0
        self._settling = False
        self._settle_failures = 0
        self._again = threading.Event()
        self._condition = threading.Condition()
        self._waiting = 0
        self._closing = False
        self.stalled: str | None = None  # why the flush does not get on, for people; None when it does
        self.lost: LogError | None = None
        self._flusher: threading.Thread | None = None
        if thread:
            self._flusher = threading.Thread(target=self._run, name="flo-log-flusher", daemon=True)
            self._flusher.start()

    @property
    def next_index(self) -> int:
        """Of the first event of the next `add`."""
        return self._last + 1

    @property
    def last_index(self) -> int:
        """Of the newest added event."""
        return self._last

    @property
    def durable_index(self) -> int:
        return self._durable

    @property
    def added_bytes(self) -> int:
        """Encoded bytes that were added, ever."""
        return self._added_bytes

    @property
    def pending_bytes(self) -> int:
        """Encoded bytes that were added and are not durable yet."""
        return self._added_bytes - self._flushed_bytes

    def add(self, events: Sequence[LoggedEvent], time_ms: int, origin: bytes = b"") -> int:
        """Puts one atomic batch at the end; returns its last index, to wait for. The list must not change
        afterwards. Raises TooLarge (nothing has happened), or the error by which the log was lost."""
        if self.lost is not None:
            raise self.lost
        assert not self._closing, "add after close"
        if not events:
            return self._last
        size = encoded_size(events)
        if size > BATCH_BYTES:
            raise TooLarge(f"{len(events)} events of {size} bytes are over the limit of {BATCH_BYTES} for one batch")
        self._added_bytes += size
        self._last = last = self._last + len(events)
        self._queue.put((events, time_ms, origin, size))
        return last

    def wait(self, index: int, timeout: float | None = None) -> bool:
        """Blocks until this index is durable; False after `timeout` seconds. Raises the error of a lost log."""
        if self._durable >= index:
            return True
        with self._condition:
            self._waiting += 1
            try:
                self._condition.wait_for(lambda: self._durable >= index or self.lost is not None, timeout)
            finally:
                self._waiting -= 1
        if self._durable >= index:
            return True
        if self.lost is not None:
            raise self.lost
        return False

    def retry(self) -> None:
        """Tries a stalled append again now: there may be room, or a connection."""
        self._again.set()

    def pump(self) -> int:
        """Appends all that is pending, in the calling thread; returns the durable index. An append that has no
        room stays pending, and `stalled` says why. Only without a flusher thread."""
        assert self._flusher is None, "the flusher thread pumps"
        while self._pending():
            if not self._frames and (added := self._queue.get_nowait()) is not None:
                self._collect(added)
            if not self._flush():
                break
        return self._durable

    def close(self) -> None:
        """Flushes what is pending and ends the thread. Raises NoSpace or OutcomeUnknown when that cannot be done
        now, or the error by which the log was lost meanwhile."""
        self._closing = True
        if self._flusher is None:
            self.pump()
        else:
            self._queue.put(None)
            self._again.set()
            self._flusher.join()
        if self.lost is not None:
            raise self.lost
        if self._frames:
            raise NoSpace(
                f"the log could not be flushed before it was closed: {self.stalled}",
                hint="nothing of it was acknowledged; what it rests on is done again at the next start",
            )

    def _run(self) -> None:
        while self.lost is None:
            added = self._queue.get()
            if added is None:
                return
            self._collect(added)
            while not self._flush():
                if self._ending():
                    return
                self._again.wait(RETRY_SECONDS)
                self._again.clear()

    def _ending(self) -> bool:
        return self.lost is not None or self._closing

    def _pending(self) -> bool:
        return self.lost is None and (len(self._frames) > 0 or not self._queue.empty())

    def _collect(self, added: _Added) -> None:
        """Builds frames of what is in the queue now. Batches of one time and origin share a frame while it has
        room; the batch that would overfill it begins the next."""
        queue = self._queue
        frames = self._frames
        events, time_ms, origin, size = added
        merged: list[LoggedEvent] | None = None
        index = self._durable + 1
        total = size
        for _ in range(queue.qsize()):
            another = queue.get_nowait()
            if another is None:  # the end, which the run loop must see
                queue.put(None)
                break
            more, more_time_ms, more_origin, more_size = another
            total += more_size
            size += more_size
            if (
                more_time_ms == time_ms
                and size <= FRAME_BYTES
                and more_origin == origin
                and len(events) + len(more) <= FRAME_EVENTS
            ):
                if merged is None:
                    events = merged = list(events)
                merged += more
            else:
                frames.append(Frame(index, time_ms, self._epoch, events, origin))
                index += len(events)
                events, time_ms, origin, size = another
                merged = None
        frames.append(Frame(index, time_ms, self._epoch, events, origin))
        self._frames_bytes = total

    def _flush(self) -> bool:
        """Appends the collected frames. False when they must be tried again, or the log is lost."""
        frames = self._frames
        begun = 0 if self._meter is None else self._meter.begin()
        try:
            if not (self._settling and self._backend.settle(frames)):
                self._backend.append(frames)
        except NoSpace as error:
            self._settling = False
            self.stalled = str(error)
            return False
        except OutcomeUnknown as error:
            self._settling = True
            self._settle_failures += 1
            self.stalled = str(error)
            if self._settle_failures > SETTLE_ATTEMPTS:
                self._lose(error)
                return False
            return self._flush() if self._settle_failures == 1 else False
        except LogError as error:
            self._lose(error)
            return False
        except Exception as error:  # noqa: BLE001 - a defect of the backend must not end the flusher in silence
            lost = LogError(f"the log could not be written: {type(error).__name__}: {error}")
            lost.__cause__ = error
            self._lose(lost)
            return False
        self._settling = False
        self._settle_failures = 0
        self.stalled = None
        if self._meter is not None:
            self._meter.end(begun, frames, self._frames_bytes)
        self._durable = durable = frames[-1].first_index + len(frames[-1].events) - 1
        self._frames = []
        self._flushed_bytes += self._frames_bytes
        self._frames_bytes = 0
        try:
            self._on_durable(durable)
        except Exception as error:  # noqa: BLE001 - whoever waits for this index would wait for ever
            lost = LogError(f"releasing index {durable} failed: {type(error).__name__}: {error}")
            lost.__cause__ = error
            self._lose(lost)
            return False
        if self._waiting:
            with self._condition:
                self._condition.notify_all()
        return True

    def _lose(self, error: LogError) -> None:
        self.lost = error
        self.stalled = str(error)
        with self._condition:
            self._condition.notify_all()
        self._on_lost(error)
