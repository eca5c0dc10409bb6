"""Operations of the wire protocol for a process that uses its owner's grid through the owner's socket.

An owner may have no event loop, so a guest's requests are performed by the thread that reads them, one after another;
what was answered leaves once the log is durable up to there, from whichever thread knows. Waits are parked and hold up
nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from flo.api.errors import BadArgument, FloError
from flo.grid.release import unknown_outcome
from flo.log.errors import LogError
from flo.server.operations.session import Wait, WireSession, refuse
from flo.server.turns import SPECULATION_BYTES, STALLED_SECONDS
from flo.wire.frames import RequestScanner

if TYPE_CHECKING:
    from flo.grid.store import Store

ID_AT: Final = slice(8, 16)  # in the frame of a reply

_log = logging.getLogger(__name__)

Answer: TypeAlias = Callable[[int, "bytes | FloError"], None]
"""Takes the number of a request and the frame of its reply, or why there is none. Called in any thread."""


class GuestSession:
    """One guest's requests. `perform` and `close` are called by one thread."""

    def __init__(self, store: Store, answer: Answer) -> None:
        self._store = store
        self._answer = answer
        self._session = _Session(self, self._late, self, self)
        self._unsent = 0  # answers that wait for the log
        self._sent = threading.Condition()
        self._loads: list[tuple[int, Callable[[], bytes]]] | None = None  # of the request that is being performed
        self.number = 0  # of the request that is being answered
        self._readers: ThreadPoolExecutor | None = None

    def perform(self, frame: bytes) -> None:
        """Performs the request in this frame; its answer comes by its request id. Raises BadArgument for what is no
        frame."""
        scanner = RequestScanner()
        requests = scanner.feed(frame)
        if len(requests) != 1 or scanner.unread or scanner.error is not None:
            raise BadArgument(f"no request: {scanner.error.message if scanner.error else 'its frame is cut off'}")
        request = requests[0]
        self._await_room()
        store = self._store
        with store.lock:
            try:
                store.begin(len(frame))
            except FloError as error:
                self._answer(request.request_id, refuse(request, error))
                return
            self._loads = []
            self.number = request.request_id
            try:
                reply = self._session.execute(store, request)
            finally:
                loads, self._loads = self._loads, None
                try:
                    index = store.end()
                except FloError as error:
                    self._answer(request.request_id, error)
                    return
            if reply is not None:
                self._send_after(index, request.request_id, partial(self._answer, request.request_id, reply))
            for number, work in loads:
                self._send_after(index, number, partial(self._begin_load, number, work))
        store.after()

    def settle(self, seconds: float) -> bool:
        """Waits until nothing that was performed waits for the log; False if that takes longer."""
        with self._sent:
            return self._sent.wait_for(lambda: not self._unsent, seconds)

    def close(self) -> None:
        """The guest has gone: its waits end, and what was bound to it is let go."""
        store = self._store
        try:
            with store.lock:
                store.begin(0)
                try:
                    self._session.close(store)
                finally:
                    store.end()
            store.after()
        except FloError as error:  # the grid is lost or closed, and all waits with it
            _log.debug("a guest's end changes nothing more: %s", error)
        if self._readers is not None:
            self._readers.shutdown(wait=False)

    # For the session

    def load(self, owner: Any, size: int, work: Callable[[], bytes]) -> None:
        """A reply whose bytes must be read from a disk. With the lock held, once for a request or its late answer."""
        if self._loads is not None:
            self._loads.append((self.number, work))
        else:
            self._send_after(self._store.last_index, self.number, partial(self._begin_load, self.number, work))

    def _late(self, frame: bytes) -> None:
        number = int.from_bytes(frame[ID_AT], "little")
        self._send_after(self._store.last_index, number, partial(self._answer, number, frame))

    def _send_after(self, index: int, number: int, send: Callable[[], None]) -> None:
        """With the lock held."""
        with self._sent:
            self._unsent += 1

        def release() -> None:
            try:
                send()
            finally:
                self._one_sent()

        def lost(error: LogError) -> None:
            self._answer(number, unknown_outcome(error))
            self._one_sent()

        self._store.releases.after(index, release, lost)

    def _one_sent(self) -> None:
        with self._sent:
            self._unsent -= 1
            if not self._unsent:
                self._sent.notify_all()

    def _begin_load(self, number: int, work: Callable[[], bytes]) -> None:
        if self._readers is None:
            self._readers = ThreadPoolExecutor(1, "flo-guest-reader")
        self._readers.submit(self._load, number, work)

    def _load(self, number: int, work: Callable[[], bytes]) -> None:
        try:
            frame = work()
        except Exception as fault:  # the guest must not wait for ever
            self._answer(number, FloError(f"the records could not be read: {fault}"))
            raise
        self._answer(number, frame)

    def _await_room(self) -> None:
        """While much of the log is unflushed nothing more is begun."""
        store = self._store
        while store.pending_bytes > SPECULATION_BYTES and not store.stalled:
            drained = threading.Event()
            with store.lock:
                store.releases.after(store.last_index, drained.set, partial(_set, drained))
            drained.wait(STALLED_SECONDS)


class _Session(WireSession):
    """A session that tells whose late answer it makes."""

    def __init__(self, guest: GuestSession, send: Callable[[bytes], None], owner: Any, turns: Any) -> None:
        super().__init__(send, owner, turns)
        self._guest = guest

    def answer_late(self, store: Store, wait: Wait, result: Any) -> bytes | None:
        self._guest.number = wait.request.request_id
        return super().answer_late(store, wait, result)


def _set(event: threading.Event, error: LogError) -> None:
    event.set()
