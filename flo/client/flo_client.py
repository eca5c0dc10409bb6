"""FloClient: a server's keys, queues and streams over TCP.

    async with FloClient("localhost:9000") as client:
        await client.kv.put("user:1", {"name": "Ada"})
        await client.queue.enqueue("mail", "hello")
        await client.stream.append("events", b"started")

One client may be shared by any number of tasks: calls in flight at the same time travel together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from flo.client.connection import Connection
from flo.client.endpoint import parse_endpoint
from flo.client.kv import KV
from flo.client.namespaces import Namespaces
from flo.client.queue import Queue
from flo.client.sdk_errors import ConnectionFailedError, NotConnectedError, ValidationError
from flo.client.stream import Stream
from flo.client.transport import Tags
from flo.wire.frames import Reply

if TYPE_CHECKING:
    from flo.client.stream_worker import Handler, StreamWorker

TIMEOUT_MS: Final = 5_000
RECONNECT_SECONDS: Final = 300.0
RECONNECT_FIRST: Final = 1.0  # seconds between two tries, doubled up to RECONNECT_LONGEST
RECONNECT_LONGEST: Final = 30.0

_log = logging.getLogger("flo.client")


class FloClient:
    """A connection to the server at `endpoint` (`host:port`, `[v6]:port`, `flo://host:port`). Nothing is connected
    before `connect` or `async with`. Used from one event loop.

    A call may take `timeout_ms`, and as long again as it asks to wait. One that takes longer raises FloTimeoutError
    and drops the connection; `reconnect` makes another. `debug` logs connections to the logger `flo.client`.
    """

    def __init__(
        self, endpoint: str, namespace: str = "default", timeout_ms: int = TIMEOUT_MS, debug: bool = False
    ) -> None:
        self.endpoint = parse_endpoint(endpoint)
        if timeout_ms <= 0:
            raise ValidationError(f"timeout_ms must be over 0, not {timeout_ms}")
        self._namespace = namespace
        self._timeout_ms = timeout_ms
        self._debug = debug
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._made = 0  # counts connections
        self._kv = KV(self)
        self._queue = Queue(self)
        self._stream = Stream(self)
        self._namespaces = Namespaces(self)

    def __repr__(self) -> str:
        return f"<FloClient {self.endpoint} {'connected' if self.is_connected else 'not connected'}>"

    @property
    def kv(self) -> KV:
        """Keys and values."""
        return self._kv

    @property
    def queue(self) -> Queue:
        """Queues."""
        return self._queue

    @property
    def stream(self) -> Stream:
        """Streams and consumer groups."""
        return self._stream

    @property
    def namespaces(self) -> Namespaces:
        """Namespaces."""
        return self._namespaces

    @property
    def namespace(self) -> str:
        """Of calls whose options name none."""
        return self._namespace

    def get_namespace(self, override: str | None = None) -> str:
        """The namespace that a call with this override is made in."""
        return self._namespace if override is None else override

    @property
    def is_connected(self) -> bool:
        """Whether calls can be made."""
        return self._connection is not None and self._connection.is_open

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self) -> Self:
        """Connects, unless it is connected. Raises ConnectionFailedError."""
        async with self._connecting:
            if not self.is_connected:
                await self._connect(self._timeout_ms / 1000)
        return self

    async def close(self) -> None:
        """Disconnects; calls in flight end with NotConnectedError. May be called again."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.is_open:
            connection.close("the client was closed")
            self._note("closed")

    def interrupt(self) -> None:
        """Ends the calls in flight, such as a long wait, with NotConnectedError, and drops the connection. What they
        asked for may have been carried out."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop("the client was interrupted")
            self._note("interrupted")

    async def reconnect(self, timeout: float = RECONNECT_SECONDS) -> None:  # noqa: ASYNC109 - of all tries together
        """Drops the connection and makes another, trying again after 1 s, 2 s … up to 30 s. Tasks that call it
        together share the new connection. Raises ConnectionFailedError after `timeout` seconds."""
        made = self._made
        async with self._connecting:
            if self._made != made and self.is_connected:
                return  # another task's reconnect
            await self.close()
            loop = asyncio.get_running_loop()
            give_up = loop.time() + timeout
            pause = RECONNECT_FIRST
            while True:
                left = give_up - loop.time()
                try:
                    await self._connect(max(0.001, min(self._timeout_ms / 1000, left)))
                    return
                except ConnectionFailedError as error:
                    left = give_up - loop.time()
                    if left <= 0:
                        raise ConnectionFailedError(
                            f"no connection to {self.endpoint} within {timeout:g} s: {error.message}"
                        ) from error
                    self._note("%s; trying again", error)
                await asyncio.sleep(min(pause, left))
                pause = min(pause * 2, RECONNECT_LONGEST)

    def new_stream_worker(
        self,
        *,
        handler: Handler,
        stream: str | None = None,
        streams: Sequence[str] = (),
        group: str = "default",
        consumer: str | None = None,
        concurrency: int = 10,
        batch_size: int = 10,
        block_ms: int = 30_000,
        message_timeout: float = 300.0,
        **options: Any,
    ) -> StreamWorker:
        """A worker that has `handler` called with each record of these streams; see StreamWorker. It makes connections
        of its own."""
        from flo.client.stream_worker import StreamWorker

        return StreamWorker(
            self.clone,
            handler=handler,
            streams=[*([] if stream is None else [stream]), *streams],
            group=group,
            consumer=consumer,
            concurrency=concurrency,
            batch_size=batch_size,
            block_ms=block_ms,
            message_timeout=message_timeout,
            **options,
        )

    def clone(self) -> FloClient:
        """A client with the same settings and no connection."""
        return FloClient(str(self.endpoint), namespace=self._namespace, timeout_ms=self._timeout_ms, debug=self._debug)

    def send(
        self, opcode: int, ns: str, key: bytes, value: bytes = b"", tags: Tags | None = None, wait_ms: int = 0
    ) -> Awaitable[Reply]:
        """One operation of the wire protocol; what `kv`, `queue` and `stream` are made of. Raises NotConnectedError,
        and the awaitable whatever ends the connection. A refusal is a reply like others."""
        connection = self._connection
        if connection is None:
            raise NotConnectedError(f"not connected to {self.endpoint}", hint="call connect(), or use `async with`")
        return connection.send(opcode, ns, key, value, tags, wait_ms)

    def abandon(self, reply: Awaitable[Reply]) -> None:
        """The protocol has nothing that ends a wait: what it takes after all is given back."""

    async def _connect(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        make: Callable[[], Connection] = lambda: Connection(loop, self._timeout_ms)  # noqa: E731
        try:
            async with asyncio.timeout(seconds):
                _, self._connection = await loop.create_connection(make, *self.endpoint)
        except TimeoutError:
            raise ConnectionFailedError(f"{self.endpoint} does not answer within {seconds:g} s") from None
        except OSError as error:
            raise ConnectionFailedError(f"nobody can be reached at {self.endpoint}: {error}") from error
        self._made += 1
        self._note("connected")

    def _note(self, what: str, *arguments: Any) -> None:
        if self._debug:
            _log.info("%s: " + what, self.endpoint, *arguments)
