"""Turns: what all connections ask for in one round of the event loop runs as one batch, under the lock once.

    data_received → submit … submit            one round of the loop, any number of connections
    one turn:  lock, begin, execute …, end     all of them, one after another
    durable:   one wake-up of the loop         for every batch that one flush of the log made durable
    write:     once for each connection        its replies joined

Nothing that was answered leaves before the log it rests on is durable, and replies of a connection leave in the
order in which they were computed. A turn ends after a bounded amount of work, so that the loop can read and write in
between; while much of the log is unflushed no turn begins. The loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from flo.api.clock import Clock, SystemClock, elapsed_ns
from flo.api.errors import Unavailable
from flo.log.errors import FloError, LogError
from flo.server.turn_link import Batch, BatchStore, Chunk
from flo.server.turn_link import Link as Link

TURN_REQUESTS: Final = 4_096
TURN_BYTES: Final = 4 * 1024 * 1024  # of requests; a larger one has a turn of its own
TURN_MS: Final = 5
RUN_REQUESTS: Final = 64  # between two looks at the clock
SPECULATION_BYTES: Final = 8 * 1024 * 1024  # of unflushed log, above which no turn begins
ARRIVED_BYTES: Final = 1024 * 1024  # of requests not begun, above which their connection is not read
ARRIVED_BYTES_ALL: Final = 64 * 1024 * 1024  # the same for all connections together
SAMPLED: Final = 64  # of so many requests about one is measured
STALLED_SECONDS: Final = 0.1  # between two looks at a log that may have run out of room

_log = logging.getLogger(__name__)


class Turns:
    """Runs the requests of all links of one event loop on one store."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: BatchStore, clock: Clock | None = None) -> None:
        self.requests = 0  # begun so far
        self.batches = 0
        self.sampler: Callable[[Any, int], None] | None = None  # gets one of SAMPLED requests and its nanoseconds
        self._sample_at = 0
        self._loop = loop
        self._store = store
        self._clock = SystemClock() if clock is None else clock
        self._queue: deque[Chunk] = deque()
        self._tail: Chunk | None = None  # the queue's last chunk while it may grow
        self._arrived = 0  # bytes in the queue and in backlogs
        self._paused: list[Link] = []
        self._leaving: list[Link] = []
        self._scheduled = False
        self._blocked = False  # waits for the log to drain
        self._timer: asyncio.TimerHandle | None = None
        self._open: Batch | None = None  # of the turn that runs now; the lock is held
        self._touched: list[Link] = []  # links with pieces in it
        self._outbox: deque[Batch] = deque()
        self._outbox_lock = threading.Lock()  # a late reply is put in by any thread
        self._woken = False
        self._loading = 0
        self._idle: asyncio.Future[None] | None = None

    def submit(self, link: Link, request: Any, size: int) -> None:
        """Puts a request of `size` bytes in line. By the loop's thread alone."""
        tail = self._tail
        if tail is not None and tail.link is link and tail.size < ARRIVED_BYTES:
            tail.requests.append(request)
            tail.size += size
        else:
            self._tail = tail = Chunk(link, [request], size)
            self._queue.append(tail)
        self._arrive(link, size)

    def submit_many(self, link: Link, requests: list[Any], size: int) -> None:
        """Puts requests of `size` bytes together in line; the list is Turns' from now on."""
        if requests:
            self._tail = None
            self._queue.append(Chunk(link, requests, size))
            self._arrive(link, size)

    def reply(self, link: Link, data: bytes) -> None:
        """Sends a late reply once the log is durable up to here. With the lock held, in any thread. If the link
        holds, it goes on after it."""
        if self._open is not None:  # the lock is ours: so this is the turn itself
            self._add(link, data)
            if link.holds:
                self._free(self._open, link)
            return
        with self._outbox_lock:
            batch, fresh = self._late()
            batch.replies.append((link, data))
            batch.late = True
            link.replied += len(data)
            if link.holds:
                self._free(batch, link)
        if fresh:
            self._store.releases.after(batch.index, batch.release, batch.lose)

    def load(self, link: Link, size: int, work: Callable[[], bytes]) -> None:
        """Like `reply` with what `work` returns: it runs in a thread without the lock, once the log is durable up
        to here, for what must be read from a disk. `size` is about what it will return, in bytes."""
        link.replied += size
        if self._open is not None:
            self._put_load(self._open, link, size, work)
            return
        with self._outbox_lock:
            batch, fresh = self._late()
            self._put_load(batch, link, size, work)
        if fresh:
            self._store.releases.after(batch.index, batch.release, batch.lose)

    def hold(self, link: Link, *, loads: bool = False) -> None:
        """Begins no further request of this link before its next late reply or load has been written: for protocols
        whose replies come in order. With the lock held, from `execute`, which then returns None. `loads`: a load it
        is, which comes even when the client asks for nothing more."""
        link.held += 1
        link.holds = link.held
        link.loads = loads

    def end(self, link: Link) -> None:
        """The request that is being performed is the link's last: what follows it is dropped, and once its reply has
        been written comes the link's `over`. With the lock held, from `execute`."""
        self._last_words(link, b"")

    def filled(self, link: Link) -> None:
        """The link's transport holds too much: nothing more is begun until `drained`. By the loop's thread."""
        link.full = True
        if not link.paused:
            self._pause(link)

    def drained(self, link: Link) -> None:
        """The link's transport has room again, or holds no longer what it did. By the loop's thread."""
        if link.full and link.replied - link.written <= link.room:
            link.full = False
            self._requeue(link)

    def finish(self, link: Link, last: bytes = b"") -> None:
        """The client asks for nothing more: what it waits for is withdrawn at once; what has arrived is answered,
        then comes `last`, then the link's `over`. By the loop's thread."""
        if not link.ending:
            link.ending = True
            self._leaving.append(link)
            self._tail = None
            self._queue.append(Chunk(link, [], 0, last))
            self._schedule_now()

    def leave(self, link: Link) -> None:
        """The link is closed: what it waits for is withdrawn at once, and what is not begun is dropped. By the
        loop's thread."""
        link.gone = link.ending = True
        for chunk in link.backlog:
            self._arrived -= chunk.size
        link.backlog.clear()
        self._leaving.append(link)
        self._schedule_now()

    async def settle(self) -> None:
        """Waits until all that was submitted is answered and durable, and who left is gone. Parked waits do not
        count, nor what a link that is full or holds has not begun."""
        while self._works():
            if self._idle is None:
                self._idle = self._loop.create_future()
            await self._idle

    def wake(self) -> None:
        """Lets go in the loop's thread what is durable. In any thread."""
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._let_go)
            except RuntimeError:
                _log.debug("the loop was closed before its last replies were durable")

    # --- arrival

    def _arrive(self, link: Link, size: int) -> None:
        self._arrived += size
        link.arrived += size
        if not self._scheduled and not self._blocked:
            self._scheduled = True
            self._loop.call_soon(self._turn)
        if (link.arrived > ARRIVED_BYTES or self._arrived > ARRIVED_BYTES_ALL) and not link.paused:
            self._pause(link)

    def _pause(self, link: Link) -> None:
        link.paused = True
        self._paused.append(link)
        link.pause()

    def _resume(self) -> None:
        if self._arrived > ARRIVED_BYTES_ALL // 2:
            return
        still = []
        for link in self._paused:
            if link.gone:
                continue
            if link.full or link.arrived > ARRIVED_BYTES // 2:
                still.append(link)
            else:
                link.paused = False
                link.resume()
        self._paused = still

    def _requeue(self, link: Link) -> None:
        """Puts what waited for this link in line again, in front of what arrived after it."""
        self._tail = None
        self._queue.extendleft(reversed(link.backlog))
        link.backlog.clear()
        if self._queue:
            self._schedule()
        elif self._paused:
            self._resume()

    def _schedule(self) -> None:
        if not self._blocked:
            self._schedule_now()

    def _schedule_now(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    # --- a turn

    def _turn(self) -> None:
        self._scheduled = False
        self._tail = None
        chunks: list[Chunk] = []
        size = 0
        if self._queue and not self._must_wait():
            chunks, size = self._take()
        if not chunks and not self._leaving:
            self._rest()
            return
        store = self._store
        self.batches += 1
        with store.lock:
            self._open = batch = Batch(self.wake, 0)
            try:
                store.begin(size)
            except Exception as fault:  # noqa: BLE001  # whoever asked must get an answer
                # What was answered by then rests on memory that is thrown away, and all waits went with it.
                self._break(batch, fault)
                self._leaving.clear()
                self._refuse(chunks, fault)
            else:
                try:
                    self._withdraw()
                    self._execute(chunks)
                finally:
                    self._end(batch)
        store.after()
        self._let_go()
        if self._paused:
            self._resume()
        if self._queue:
            self._schedule()

    def _take(self) -> tuple[list[Chunk], int]:
        queue = self._queue
        chunks: list[Chunk] = []
        size = count = 0
        while queue and count < TURN_REQUESTS:
            chunk = queue[0]
            if size and size + chunk.size > TURN_BYTES:
                break
            queue.popleft()
            link = chunk.link
            if link.gone or link.ended:
                self._finish(chunk)
            elif link.full or link.holds:
                link.backlog.append(chunk)
            else:
                chunks.append(chunk)
                size += chunk.size
                count += len(chunk.requests)
        return chunks, size

    def _execute(self, chunks: list[Chunk]) -> None:
        clock = self._clock
        ends = clock.monotonic_ms() + TURN_MS
        left = TURN_REQUESTS
        for number, chunk in enumerate(chunks):
            link = chunk.link
            requests = chunk.requests
            done = 0
            while done < len(requests):
                if left <= 0 or ((done or number) and clock.monotonic_ms() >= ends):
                    self._give_back(chunks, number, done)
                    return
                stop = min(done + RUN_REQUESTS, len(requests))
                run = self._run if self.requests < self._sample_at else self._run_sampled
                begun = run(link, requests, done, stop)
                left -= begun - done
                done = begun
                if begun < stop:
                    break
            if (done < len(requests) or chunk.last is not None) and link.stops() and not (link.gone or link.ended):
                del requests[:done]
                link.backlog.append(chunk)
            else:
                self._finish(chunk)
                if chunk.last is not None and not (link.gone or link.ended):
                    link.withdraw(self._store)
                    self._last_words(link, chunk.last)

    def _run_sampled(self, link: Link, requests: list[Any], at: int, stop: int) -> int:
        """As `_run`, with the first request measured."""
        self._sample_at = self.requests + SAMPLED
        begun = elapsed_ns()
        done = self._run(link, requests, at, at + 1)
        if done > at and self.sampler is not None:
            self.sampler(requests[at], elapsed_ns() - begun)
        return self._run(link, requests, done, stop) if at < done < stop else done

    def _run(self, link: Link, requests: list[Any], at: int, stop: int) -> int:
        """Performs requests until `stop`, or until the link can take no more; the position after the last one."""
        if link.stops():
            return at
        store = self._store
        execute = link.execute
        pieces = link.pieces
        if pieces is None:
            link.pieces = pieces = []
            self._touched.append(link)
        limit = link.written + link.room
        first = at
        while at < stop:
            request = requests[at]
            at += 1
            try:
                reply = execute(store, request)
            except Exception as fault:  # noqa: BLE001  # one client's request must not end the others'
                _log.exception("a request broke; its connection is closed")
                link.gone = True
                self._loop.call_soon(link.lost, fault)
                break
            if reply is None:
                if link.ending:
                    self._withdraw_one(link)
                if link.stops():
                    break
            else:
                pieces.append(reply)
                replied = link.replied = link.replied + len(reply)
                if replied > limit or link.ended:
                    break
        if link.replied > limit:
            self.filled(link)
        self.requests += at - first
        return at

    def _withdraw(self) -> None:
        leaving, self._leaving = self._leaving, []
        for link in leaving:
            self._withdraw_one(link)

    def _withdraw_one(self, link: Link) -> None:
        waits = link.holds > 0 and not link.loads
        if waits:
            link.holds = 0  # before it answers: that answer must not let go what it holds for next
        try:
            link.withdraw(self._store)
        except FloError as error:  # memory is lost, and all waits with it
            _log.debug("a connection's end changes nothing more: %s", error)
        if waits:
            self._requeue(link)

    def _refuse(self, chunks: list[Chunk], fault: Exception) -> None:
        """Answers all with an error that rests on nothing in the log."""
        error = fault if isinstance(fault, FloError) else Unavailable("the node cannot serve")
        self._open = batch = Batch(self.wake, 0)
        for chunk in chunks:
            for request in chunk.requests:
                reply = chunk.link.refuse(request, error)
                if reply is not None:
                    self._add(chunk.link, reply)
            self._finish(chunk)
            if chunk.last is not None:
                self._last_words(chunk.link, chunk.last)
        self._close(batch, 0)

    def _last_words(self, link: Link, last: bytes) -> None:
        self._add(link, last)
        link.ended = True

    def _give_back(self, chunks: list[Chunk], number: int, done: int) -> None:
        """Puts back in front what this turn has not come to."""
        del chunks[number].requests[:done]
        self._queue.extendleft(reversed(chunks[number:]))

    def _finish(self, chunk: Chunk) -> None:
        self._arrived -= chunk.size
        chunk.link.arrived -= chunk.size

    def _add(self, link: Link, data: bytes) -> None:
        if link.pieces is None:
            link.pieces = []
            self._touched.append(link)
        link.pieces.append(data)
        link.replied += len(data)

    def _end(self, batch: Batch) -> None:
        try:
            index = self._store.end()
        except Exception as fault:  # noqa: BLE001  # whoever asked must learn that the batch broke
            self._break(batch, fault)
        else:
            self._close(batch, index)

    def _break(self, batch: Batch, fault: Exception) -> None:
        """Nothing that was answered in this batch may leave."""
        if not isinstance(fault, FloError):
            _log.error("a batch broke; the connections that it answered are closed", exc_info=fault)
        batch.error = LogError(f"outcome unknown: {fault}")
        self._close(batch, 0)

    def _close(self, batch: Batch, index: int) -> None:
        """Puts what this turn has answered in line for the log. With the lock held."""
        self._open = None
        for link in self._touched:
            pieces = link.pieces
            link.pieces = None
            if pieces:
                batch.replies.append((link, pieces[0] if len(pieces) == 1 else b"".join(pieces)))
        self._touched.clear()
        if not batch.replies and batch.loads is None:
            return
        batch.index = index
        batch.ready = index <= self._store.durable_index
        with self._outbox_lock:
            self._outbox.append(batch)
        if not batch.ready:
            self._store.releases.after(index, batch.release, batch.lose)

    # --- late replies

    def _late(self) -> tuple[Batch, bool]:
        """The batch for a reply that is computed now, and whether it must be put in line for the log."""
        index = self._store.last_index
        outbox = self._outbox
        if outbox and outbox[-1].index == index and outbox[-1].error is None:
            return outbox[-1], False
        batch = Batch(self.wake, index)
        outbox.append(batch)
        return batch, True

    @staticmethod
    def _free(batch: Batch, link: Link) -> None:
        if batch.freed is None:
            batch.freed = []
        batch.freed.append((link, link.holds))

    @staticmethod
    def _put_load(batch: Batch, link: Link, size: int, work: Callable[[], bytes]) -> None:
        if batch.loads is None:
            batch.loads = []
        batch.loads.append((link, link.holds, size, work))

    # --- leaving

    def _let_go(self) -> None:
        """Writes what has become durable, once for each link."""
        self._woken = False
        outbox = self._outbox
        ready: list[Batch] = []
        with self._outbox_lock:
            while outbox and outbox[0].ready:
                ready.append(outbox.popleft())
        if len(ready) == 1 and ready[0].error is None and not ready[0].late:
            for link, data in ready[0].replies:
                self._write(link, data)
        elif ready:
            self._write_joined(ready)
        for batch in ready:
            if batch.freed is not None:
                for link, hold in batch.freed:
                    self._go_on(link, hold)
            if batch.loads is not None and batch.error is None:
                for link, hold, size, work in batch.loads:
                    self._begin_load(link, hold, size, work)
        if self._blocked:
            self._unblock()
        if self._idle is not None:
            self._rest()

    def _works(self) -> bool:
        return bool(self._queue or self._leaving or self._outbox or self._loading)

    def _rest(self) -> None:
        if self._idle is not None and not self._works():
            self._idle.set_result(None)
            self._idle = None

    def _write(self, link: Link, data: bytes) -> None:
        link.written += len(data)
        if link.gone:
            return
        try:
            if data:
                link.write(data)
            if link.full:
                self.drained(link)
            if link.ended and link.written == link.replied:
                link.over()
        except Exception:  # noqa: BLE001  # one link's transport must not keep the others' replies from leaving
            _log.exception("replies could not be written; their connection is closed")
            link.gone = True
            link.lost(ConnectionError("its replies could not be written"))

    def _write_joined(self, ready: list[Batch]) -> None:
        joined: dict[Link, list[bytes]] = {}
        lost: dict[Link, LogError] = {}
        for batch in ready:
            if batch.error is not None:
                for link, _ in batch.replies:
                    lost[link] = batch.error
                for link, _, _, _ in batch.loads or ():
                    lost[link] = batch.error
            else:
                for link, data in batch.replies:
                    if link not in lost:
                        joined.setdefault(link, []).append(data)
        for link, pieces in joined.items():
            self._write(link, b"".join(pieces))
        for link, error in lost.items():
            if not link.gone:
                link.lost(error)

    def _go_on(self, link: Link, hold: int) -> None:
        """Ends a hold, unless it has ended already."""
        if hold and link.holds == hold:
            link.holds = 0
            link.loads = False
            if link.backlog and not link.full:
                self._requeue(link)

    def _begin_load(self, link: Link, hold: int, size: int, work: Callable[[], bytes]) -> None:
        self._loading += 1
        future = self._loop.run_in_executor(None, work)
        future.add_done_callback(lambda done: self._loaded(link, hold, size, done))

    def _loaded(self, link: Link, hold: int, size: int, done: asyncio.Future[bytes]) -> None:
        self._loading -= 1
        fault = done.exception()
        if fault is None:
            data = done.result()
            link.written += size - len(data)
            self._write(link, data)
        else:
            link.written += size
            _log.error("a reply could not be loaded; its connection is closed", exc_info=fault)
            if not link.gone:
                link.lost(fault if isinstance(fault, Exception) else RuntimeError(str(fault)))
        self._go_on(link, hold)
        self._let_go()

    # --- the log is behind

    def _must_wait(self) -> bool:
        store = self._store
        if self._blocked:
            return True
        if store.pending_bytes <= SPECULATION_BYTES or store.stalled:
            return False
        self._blocked = True
        with store.lock:
            store.releases.after(store.last_index, self.wake, lambda error: self.wake())
        # A log that runs out of room meanwhile makes nothing durable, and is no reason to wait any more.
        self._timer = self._loop.call_later(STALLED_SECONDS, self._unblock)
        return True

    def _unblock(self) -> None:
        self._blocked = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue:
            self._schedule()
