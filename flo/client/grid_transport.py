"""How `grid.kv`, `grid.queue` and `grid.stream` reach the grid: the store of this process while it owns the directory,
else the owner's socket. Owners come and go; what was not begun, or may be repeated, goes on with the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from flo.api.errors import FloError, Unavailable
from flo.client.remote import OwnerLeft, OwnerLost, RemoteGrid
from flo.client.transport import Tags
from flo.wire import opcodes
from flo.wire.frames import HEADER_BYTES, Reply

if TYPE_CHECKING:
    from flo.client.attach import Attachment
    from flo.client.local import LocalTransport

STATUS_AT: Final = 21  # in the frame of a reply
REPEATABLE: Final = frozenset(
    {
        opcodes.KV_GET, opcodes.KV_MGET, opcodes.KV_SCAN, opcodes.KV_HISTORY, opcodes.KV_JSON_GET, opcodes.KV_EXISTS,
        opcodes.QUEUE_PEEK, opcodes.QUEUE_DLQ_LIST, opcodes.QUEUE_ACK, opcodes.STREAM_READ, opcodes.STREAM_INFO,
        opcodes.GROUP_JOIN, opcodes.GROUP_LEAVE, opcodes.GROUP_ACK, opcodes.GROUP_PENDING,
    }
)  # fmt: skip
REPEATABLE_CALLS: Final = frozenset(
    {
        b"kv.get", b"kv.mget", b"kv.scan", b"kv.history", b"kv.exists", b"kv.jget", b"kv.persist", b"queue.peek",
        b"queue.list", b"queue.stats", b"queue.dlq_list", b"queue.dlq_stats", b"stream.read", b"stream.info",
        b"stream.list", b"group.info", b"group.list", b"group.pending", b"namespace.list", b"namespace.info",
        b"namespace.exists", b"server.status",
    }
)  # fmt: skip


class Hands(Protocol):
    """What the transport needs of an AsyncGrid."""

    @property
    def attachment(self) -> Attachment | None:
        """How the grid is attached now; None while it looks for an owner."""
        ...

    def have(self, work: Callable[[Any], None]) -> asyncio.Future[Any]:
        """Has the thread that makes calls do this with the grid, with the next one's if the owner has left."""
        ...


class GridTransport:
    """Implements flo.client.transport.Transport. For one event loop."""

    namespace = "default"

    def __init__(self, hands: Hands, loop: asyncio.AbstractEventLoop) -> None:
        self._hands = hands
        self._loop = loop
        self._attachment: Attachment | None = None  # to which `_local` belongs
        self._local: LocalTransport | None = None
        self._jobs: set[_Job] = set()
        self._arrived: deque[tuple[_Job, bytes | FloError]] = deque()
        self._drain_planned = False

    def send(
        self, opcode: int, ns: str, key: bytes, value: bytes = b"", tags: Tags | None = None, wait_ms: int = 0
    ) -> Awaitable[Reply]:
        attachment = self._hands.attachment
        if attachment is not self._attachment or attachment is None:
            self._attached(attachment)
        if self._local is not None:
            return self._local.send(opcode, ns, key, value, tags, wait_ms)
        job = _Job(self, (opcode, ns, key, value, tags, wait_ms))
        self._begin(job)
        return job.future

    def abandon(self, reply: Awaitable[Reply]) -> None:
        """As LocalTransport's; a guest's wait goes on, and what it takes is given back."""
        if self._local is not None:
            self._local.abandon(reply)

    def close(self) -> None:
        """Ends what is in flight with Unavailable."""
        if self._local is not None:
            self._local.close()
        for job in list(self._jobs):
            self._end(job, Unavailable("the grid is closed"))

    def _attached(self, attachment: Attachment | None) -> None:
        """This process has become the owner, or is one no more."""
        from flo.client.local import LocalTransport  # a guest needs none of it

        self._attachment = attachment
        local, self._local = self._local, None
        if local is not None:
            local.close()
        store = getattr(attachment.grid, "store", None) if attachment is not None and attachment.owner else None
        if store is not None:
            self._local = LocalTransport(store, self._loop, self.namespace)

    # A guest's operations

    def _begin(self, job: _Job) -> None:
        self._jobs.add(job)
        self._hands.have(job.perform).add_done_callback(lambda made: self._made(job, made))

    def _made(self, job: _Job, made: asyncio.Future[Any]) -> None:
        error = None if made.cancelled() else made.exception()
        if error is not None:
            self._end(job, error)
        elif job.here:
            job.here = False
            self._jobs.discard(job)
            self._forward(job)

    def _forward(self, job: _Job) -> None:
        """This process is the owner by now."""
        reply = self.send(*job.arguments)
        if isinstance(reply, asyncio.Future):
            reply.add_done_callback(job.copy)

    def arrived(self, job: _Job, answer: bytes | FloError) -> None:
        """In the thread that reads the owner's socket."""
        self._arrived.append((job, answer))
        if not self._drain_planned:
            self._drain_planned = True
            with suppress(RuntimeError):  # the loop was closed with the grid open: nobody waits any more
                self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._drain_planned = False
        while self._arrived:
            job, answer = self._arrived.popleft()
            if isinstance(answer, bytes):
                self._jobs.discard(job)
                if not job.future.done():
                    job.future.set_result(Reply(answer[STATUS_AT], 0, answer[HEADER_BYTES:]))
            elif not job.future.done() and (
                isinstance(answer, OwnerLeft) or (isinstance(answer, OwnerLost) and job.repeatable)
            ):
                self._begin(job)
            elif isinstance(answer, OwnerLost):
                text = f"outcome unknown: {answer.message}"
                self._end(job, OwnerLost(text, hint="look whether it was done before you repeat it"))
            else:
                self._end(job, answer)

    def _end(self, job: _Job, error: BaseException) -> None:
        self._jobs.discard(job)
        if not job.future.done():
            job.future.set_exception(error)


class _Job:
    """One operation of a guest."""

    __slots__ = ("_transport", "arguments", "future", "here")

    def __init__(self, transport: GridTransport, arguments: tuple[int, str, bytes, bytes, Tags | None, int]) -> None:
        self._transport = transport
        self.arguments = arguments
        self.future: asyncio.Future[Reply] = transport._loop.create_future()
        self.here = False  # to be performed by this process itself

    @property
    def repeatable(self) -> bool:
        opcode, _, key, _, _, wait_ms = self.arguments
        # a wait that is repeated costs at most a delivery, whose lease runs out
        return wait_ms > 0 or opcode in REPEATABLE or (opcode == opcodes.CALL and key in REPEATABLE_CALLS)

    def perform(self, grid: Any) -> None:
        """In the thread that makes calls."""
        if isinstance(grid, RemoteGrid):
            opcode, ns, key, value, tags, _ = self.arguments
            grid.wire(opcode, ns, key, value, tags, lambda answer: self._transport.arrived(self, answer))
        elif getattr(grid, "store", None) is None:
            raise Unavailable("this grid has no store for keys, queues and streams")
        else:
            self.here = True

    def copy(self, reply: asyncio.Future[Reply]) -> None:
        if self.future.done() or reply.cancelled():
            return
        error = reply.exception()
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(reply.result())
