"""Operations on the store of this process: what `grid.kv`, `grid.queue` and `grid.stream` of `flo.open` send over.

No socket and no frame: a request goes to the store as it is. What the tasks of a program ask for within one turn of
the loop is one batch under the lock, and is answered together once the log is durable up to there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flo.api.errors import FloError, Unavailable
from flo.client.transport import Tags
from flo.server.operations.session import Wait, WireSession, refuse
from flo.server.turn_link import Link
from flo.server.turns import Turns
from flo.wire.frames import HEADER_BYTES, Reply, Request

if TYPE_CHECKING:
    from flo.grid.store import Store

REQUEST_BYTES: Final = 64  # what a request counts besides key and value
STATUS_AT: Final = 21  # in the frame of a reply
ID_AT: Final = 8
ID_BYTES: Final = 8
WAITS_MAX: Final = 100_000  # parked at a time

_no_tags: Final[Tags] = {}


class LocalTransport:
    """A client of a store in this process, for one event loop. Implements flo.client.transport.Transport."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, namespace: str = "default") -> None:
        self.namespace = namespace
        self.store = store
        self._turns = Turns(loop, store)
        self._loop = loop
        self._link = _LocalLink(self._turns, store)
        self._closed = False

    def send(
        self, opcode: int, ns: str, key: bytes, value: bytes = b"", tags: Tags | None = None, wait_ms: int = 0
    ) -> asyncio.Future[Reply]:
        """Raises Unavailable once it is closed."""
        link = self._link
        if link.gone:
            if self._closed:
                raise Unavailable("the grid is closed")
            self._link = link = _LocalLink(self._turns, self.store)  # a fault has ended the other
        link.last_id = id = link.last_id + 1
        future: asyncio.Future[Reply] = self._loop.create_future()
        link.futures[id] = future
        request = Request(opcode, id, ns, key, value, _no_tags if tags is None else tags)
        self._turns.submit(link, request, REQUEST_BYTES + len(key) + len(value))
        if wait_ms:
            link.waiting[future] = id
            future.add_done_callback(partial(_given_up, link))
        return future

    def abandon(self, reply: Any) -> None:
        """The caller has given up a wait: it ends, and takes nothing more."""
        link = self._link
        id = link.waiting.get(reply)
        if id is not None:
            link.withdraw_one(id)

    def close(self) -> None:
        """Ends what is in flight with Unavailable, and lets go what was bound to this client."""
        self._closed = True
        self._turns.leave(self._link)
        self._link.end("the grid is closed")


class _LocalLink(Link):
    """The caller as Turns knows it. What Turns carries as a reply is the request's id; the reply itself lies in
    `answers` meanwhile."""

    __slots__ = ("_session", "_store", "_turns", "answers", "futures", "last_id", "unwanted", "waiting")

    def __init__(self, turns: Turns, store: Store) -> None:
        super().__init__()
        self.last_id = 0
        self.futures: dict[int, asyncio.Future[Reply]] = {}
        self.answers: dict[int, bytes] = {}
        self.waiting: dict[Any, int] = {}  # the ids of those futures whose requests may wait
        self.unwanted: set[int] = set()  # requests given up that are not parked: not begun yet, or served already
        self._turns = turns
        self._store = store
        self._session = _LocalSession(self._late, self)

    def execute(self, store: Any, request: Request) -> bytes | None:
        frame = self._session.execute(store, request)
        if frame is None:
            return None
        id = request.request_id
        self.answers[id] = frame
        return id.to_bytes(ID_BYTES, "little")

    def refuse(self, request: Request, error: FloError) -> bytes:
        return self._keep(refuse(request, error))

    def withdraw(self, store: Any) -> None:
        self._session.close(store)

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), ID_BYTES):
            id = int.from_bytes(data[at : at + ID_BYTES], "little")
            frame = self.answers.pop(id)
            self.unwanted.discard(id)
            future = self.futures.pop(id, None)
            if future is not None and not future.done():
                future.set_result(Reply(frame[STATUS_AT], id, frame[HEADER_BYTES:]))

    def lost(self, error: Exception) -> None:
        self._turns.leave(self)  # what waits must take nothing more
        self.end(f"outcome unknown: {error}", "look whether it was done before you repeat it")

    def load(self, link: Any, size: int, work: Callable[[], bytes]) -> None:
        """As Turns.load, for the session."""
        self._turns.load(self, size, lambda: self._keep(work()))

    def end(self, why: str, hint: str = "") -> None:
        futures, self.futures = self.futures, {}
        self.answers.clear()
        for future in futures.values():
            if not future.done():
                future.set_exception(Unavailable(why, hint=hint))

    def withdraw_one(self, id: int) -> None:
        """Ends a wait that nobody waits for any more. What it has been given already is still told to its future, for
        whoever gives it back."""
        with self._store.lock:
            if not self._session.end_wait(id):
                self.unwanted.add(id)
                return
        self.futures.pop(id, None)

    def _late(self, frame: bytes) -> None:
        self._turns.reply(self, self._keep(frame))

    def _keep(self, frame: bytes) -> bytes:
        marker = frame[ID_AT : ID_AT + ID_BYTES]
        id = int.from_bytes(marker, "little")
        self.answers[id] = frame
        self._session.by_id.pop(id, None)
        return marker


class _LocalSession(WireSession):
    """A session whose waits can be ended one by one."""

    waits_max = WAITS_MAX

    def __init__(self, send: Callable[[bytes], None], link: _LocalLink) -> None:
        super().__init__(send, link, link)
        self._link = link
        self.by_id: dict[int, Wait] = {}

    def parked(self, store: Store, wait: Wait) -> None:
        super().parked(store, wait)
        id = wait.request.request_id
        self.by_id[id] = wait
        if id in self._link.unwanted:
            self._link.unwanted.discard(id)
            self._link.withdraw_one(id)

    def end_wait(self, id: int) -> bool:
        """Whether the request was parked. With the lock held."""
        wait = self.by_id.pop(id, None)
        if wait is None or wait.parked is None:
            return False
        wait.parked.cancel()
        self.waits.pop(wait, None)
        return True


def _given_up(link: _LocalLink, future: asyncio.Future[Reply]) -> None:
    id = link.waiting.pop(future)
    if future.cancelled():
        link.withdraw_one(id)
