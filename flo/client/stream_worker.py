"""StreamWorker: has a handler called with each record of some streams, as a consumer of a group.

    async def handle(ctx: StreamContext) -> None:
        order = ctx.json()
        ...

    worker = client.new_stream_worker(stream="orders", group="billing", handler=handle)
    await worker.start()                      # until worker.stop()

A record whose handler returns is acknowledged; one whose handler raises or takes too long is given back and
handed out again, here or to another consumer of the group. So a handler may see a record more than once.

Reading and acknowledging have a connection each: an acknowledgement never waits behind a long read. A handler
that runs longer than the group waits for acknowledgements keeps its record: the worker extends its deadline.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from flo.api.errors import FloError
from flo.client.options import (
    StreamGroupAckOptions,
    StreamGroupClaimOptions,
    StreamGroupNackOptions,
    StreamGroupReadOptions,
    StreamGroupTouchOptions,
)
from flo.client.sdk_errors import BadRequestError, FloConnectionError, ValidationError
from flo.client.transport import refusal, wait_of
from flo.client.types import StreamID, StreamRecord
from flo.wire.layouts import text16, u32

if TYPE_CHECKING:
    from flo.client.flo_client import FloClient

T = TypeVar("T")

WORKER_REGISTER: Final = 0x320  # opcodes of the registry of workers
WORKER_HEARTBEAT: Final = 0x321
WORKER_DEREGISTER: Final = 0x322
STREAM_TYPE: Final = 1  # of a worker, in the registry
HEARTBEAT_SECONDS: Final = 30.0
ACK_IDS: Final = 1_000  # in one acknowledgement
REPORT_TRIES: Final = 3
RECONNECT_SECONDS: Final = 300.0
ERROR_PAUSE: Final = 1.0  # seconds after a read that was refused
EMPTY_PAUSE: Final = 0.05  # seconds after an empty answer that came at once, doubled up to ERROR_PAUSE
EMPTY_AT_ONCE: Final = 0.02  # seconds
KEEP_SHARE: Final = 3  # deadlines are extended at a third of the group's time
KEEP_SHORTEST: Final = 0.1  # seconds

_log = logging.getLogger("flo.client")


class StreamContext:
    """What a handler gets: a record, and where it comes from."""

    __slots__ = ("consumer", "group", "namespace", "record")

    def __init__(self, record: StreamRecord, namespace: str, group: str, consumer: str) -> None:
        self.record = record
        self.namespace = namespace
        self.group = group
        self.consumer = consumer

    @property
    def payload(self) -> bytes:
        """The record's payload."""
        return self.record.payload

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self.record.stream

    @property
    def stream_id(self) -> StreamID:
        """The record's id."""
        return self.record.id

    @property
    def headers(self) -> dict[str, str]:
        """The record's headers, empty if it has none."""
        return self.record.headers

    def text(self) -> str:
        """The payload as UTF-8 text."""
        return self.record.text()

    def json(self) -> Any:
        """The value of the payload's JSON text. Raises ValueError."""
        if not self.record.payload:
            raise ValueError("the record has no payload")
        return self.record.json()

    def into(self, cls: type[T]) -> T:
        """The payload's JSON text as an object of a dataclass, Struct or other type. Raises ValueError."""
        return self.record.into(cls)


Handler: TypeAlias = Callable[[StreamContext], Awaitable[Any] | Any]


class StreamWorker:
    """Made by `client.new_stream_worker`. A handler is `async def`, or a plain function, which runs in a thread.

    `concurrency` handlers run at most, over all streams; `message_timeout` is in seconds. `consumer` is generated
    unless it is given. `start` runs until `stop`.
    """

    def __init__(
        self,
        connect: Callable[[], FloClient],
        *,
        handler: Handler,
        streams: Sequence[str],
        group: str = "default",
        consumer: str | None = None,
        concurrency: int = 10,
        batch_size: int = 10,
        block_ms: int = 30_000,
        message_timeout: float = 300.0,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.streams = [*dict.fromkeys(streams)]
        if not self.streams:
            raise ValidationError("a StreamWorker needs a stream at least")
        if concurrency < 1 or batch_size < 1:
            raise ValidationError("concurrency and batch_size are 1 at least")
        if message_timeout <= 0:
            raise ValidationError("message_timeout is over 0")
        self.group = group
        self.consumer = consumer or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._handler = handler
        self._plain = not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object whose call is a coroutine
        )
        self._concurrency = concurrency
        self._batch_size = batch_size
        self._block_ms = wait_of(block_ms) or 1
        self._timeout = message_timeout
        self._metadata = metadata
        self._reader = connect()
        self._reporter = connect()
        self._slots = asyncio.Semaphore(concurrency)
        self._busy = 0
        self._running: dict[tuple[str, StreamID], asyncio.Task[None]] = {}
        self._reports: dict[str, _Reports] = {}
        self._ended: asyncio.Future[None] | None = None
        self._recovering = asyncio.Lock()
        self._halt = asyncio.Event()  # set by stop: ends pauses

    async def start(self) -> None:
        """Joins the group and handles records until `stop`. Raises ConnectionFailedError when the server cannot be
        reached, also after it was lost for five minutes."""
        if self._ended is not None:
            raise ValidationError("the worker was started or stopped already")
        self._ended = asyncio.get_running_loop().create_future()
        try:
            await self._run()
        finally:
            await self._reader.close()
            await self._reporter.close()
            if not self._ended.done():
                self._ended.set_result(None)

    def stop(self) -> asyncio.Future[None]:
        """Reads no more; handlers that run may end. The future is done when the worker has left its group; there is
        no need to wait for it."""
        loop = asyncio.get_running_loop()
        if not self._halt.is_set():
            self._halt.set()
            self._reader.interrupt()
        if self._ended is None:  # it was never started
            self._ended = loop.create_future()
            self._ended.set_result(None)
        return asyncio.shield(self._ended)

    async def close(self) -> None:
        """Stops without waiting for handlers: they are cancelled and their records given back."""
        stopped = self.stop()
        for task in self._running.values():
            task.cancel()
        await stopped

    async def drain(self) -> None:
        """Stops, and waits until the handlers that run have ended."""
        await self.stop()

    async def __aenter__(self) -> StreamWorker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self) -> None:
        await self._reporter.connect()
        await self._reader.connect()
        await self._join()
        await self._register()
        self._reports = {stream: _Reports(self, stream) for stream in self.streams}
        helpers = [asyncio.create_task(self._heartbeat()), asyncio.create_task(self._keep())]
        polls = [asyncio.create_task(self._poll(stream)) for stream in self.streams]
        try:
            await asyncio.gather(*polls)
            while self._running:
                await asyncio.wait(self._running.values())
            for reports in self._reports.values():
                await reports.settled()
            await self._leave()
        finally:
            rest = [*polls, *helpers, *self._running.values(), *(r.task for r in self._reports.values() if r.task)]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    # Reading

    async def _join(self) -> None:
        """On the connection that reads: a member of an exclusive group is one for as long as that is open."""
        for stream in self.streams:
            await self._reader.stream.group_join(stream, self.group, self.consumer)

    async def _poll(self, stream: str) -> None:
        pause = EMPTY_PAUSE
        loop = asyncio.get_running_loop()
        while not self._halt.is_set():
            await self._slots.acquire()  # what is read can be begun
            self._slots.release()
            if self._halt.is_set():
                return
            count = max(1, min(self._batch_size, self._concurrency - self._busy))
            began = loop.time()
            try:
                result = await self._reader.stream.group_read(
                    stream, self.group, self.consumer, StreamGroupReadOptions(count=count, block_ms=self._block_ms)
                )
            except FloConnectionError as error:
                if self._halt.is_set():
                    return
                _log.warning("the worker %s lost its connection: %s", self.consumer, error)
                await self._recover()
            except FloError as error:
                _log.warning("the worker %s could not read %s: %s", self.consumer, stream, error)
                await self._pause(ERROR_PAUSE)
            else:
                for record in result.records:
                    await self._begin(stream, record)
                if result.records or loop.time() - began > EMPTY_AT_ONCE:
                    pause = EMPTY_PAUSE
                else:
                    await self._pause(pause)
                    pause = min(pause * 2, ERROR_PAUSE)

    async def _recover(self) -> None:
        """After a lost connection: another one, once for all streams, and what was handed out to nobody."""
        async with self._recovering:
            if self._reader.is_connected:
                return
            await self._until_halted(self._reader.reconnect(RECONNECT_SECONDS))
            if self._halt.is_set():
                return
            try:
                await self._join()
                for stream in self.streams:
                    await self._claim(stream)
            except FloError as error:
                _log.warning("the worker %s could not join its group again: %s", self.consumer, error)

    async def _claim(self, stream: str) -> None:
        """Takes what the group holds this consumer responsible for, and which it does not know: replies that were
        lost with the connection."""
        following: StreamID | None = StreamID(0, 0)
        while following is not None and not self._halt.is_set():
            options = StreamGroupClaimOptions(min_idle_ms=0, start=following, count=self._batch_size)
            claimed = await self._reader.stream.group_claim(stream, self.group, self.consumer, options)
            for record in claimed.records:
                await self._begin(stream, record)
            following = claimed.next

    async def _until_halted(self, work: Awaitable[Any]) -> None:
        """Waits for it, but not after `stop`."""
        task = asyncio.ensure_future(work)
        halted = asyncio.create_task(self._halt.wait())
        try:
            await asyncio.wait((task, halted), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            halted.cancel()
            await asyncio.gather(task, halted, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        await self._until_halted(asyncio.sleep(seconds))

    # Handling

    async def _begin(self, stream: str, record: StreamRecord) -> None:
        """Begins the handling of a record once there is room for it."""
        key = (stream, record.id)
        if key in self._running:
            return  # its deadline passed while the handler runs: handed out again, to ourselves
        await self._slots.acquire()
        self._busy += 1
        task = asyncio.create_task(self._handle(stream, record))
        self._running[key] = task
        task.add_done_callback(lambda _: self._done(key))

    def _done(self, key: tuple[str, StreamID]) -> None:
        del self._running[key]
        self._busy -= 1
        self._slots.release()

    async def _handle(self, stream: str, record: StreamRecord) -> None:
        context = StreamContext(record, self._reader.namespace, self.group, self.consumer)
        done = False
        try:
            async with asyncio.timeout(self._timeout) as limit:
                if self._plain:
                    result = await asyncio.to_thread(self._handler, context)
                    if inspect.isawaitable(result):
                        await result
                else:
                    await self._handler(context)
            done = True
        except Exception as error:  # noqa: BLE001 - whatever a handler raises gives the record back
            if isinstance(error, TimeoutError) and limit.expired():
                _log.warning("record %s of %s: the handler took over %g s", record.id, stream, self._timeout)
            else:
                _log.warning("record %s of %s: the handler failed", record.id, stream, exc_info=True)
        finally:
            self._reports[stream].add(record.id, done)

    async def _keep(self) -> None:
        """Extends the deadlines of records whose handlers run for long."""
        seconds: dict[str, float] = {}
        try:
            for stream in self.streams:
                info = await self._reporter.stream.group_info(stream, self.group)
                if info.settings.ack_timeout_ms:
                    seconds[stream] = max(KEEP_SHORTEST, info.settings.ack_timeout_ms / 1000 / KEEP_SHARE)
        except FloError as error:
            _log.debug("deadlines are not extended: %s", error)
        if seconds:
            await asyncio.gather(*(self._keep_stream(stream, every) for stream, every in seconds.items()))

    async def _keep_stream(self, stream: str, seconds: float) -> None:
        before: set[StreamID] = set()
        while True:
            await asyncio.sleep(seconds)
            running = {id for name, id in self._running if name == stream}
            long = sorted(running & before)  # begun before the last look
            before = running
            for first in range(0, len(long), ACK_IDS):
                try:
                    await self._reporter.stream.group_touch(
                        stream, self.group, self.consumer, long[first : first + ACK_IDS], StreamGroupTouchOptions()
                    )
                except FloError as error:
                    _log.warning("the worker %s could not keep its records: %s", self.consumer, error)

    # The group and the registry

    async def _leave(self) -> None:
        for stream in self.streams:
            try:
                await self._reporter.stream.group_leave(stream, self.group, self.consumer)
            except FloError as error:
                _log.warning("the worker %s could not leave its group: %s", self.consumer, error)
                return  # what it holds goes to others when its deadlines pass
        try:
            await self._registry(WORKER_DEREGISTER, b"")
        except FloError as error:
            _log.debug("the worker %s is not taken out of the registry: %s", self.consumer, error)

    async def _register(self) -> None:
        processes = b"".join(text16(f"{stream}/{self.group}") + b"\0" for stream in self.streams)
        labels = {"streams": self.streams, "group": self.group, "consumer": self.consumer, **(self._metadata or {})}
        metadata = text16(json.dumps(labels, ensure_ascii=False))
        count = len(self.streams).to_bytes(2, "little")
        value = bytes((STREAM_TYPE,)) + u32(self._concurrency) + count + processes + b"\1" + metadata + b"\0"
        try:
            await self._registry(WORKER_REGISTER, value)
        except BadRequestError as error:  # the server keeps no registry
            _log.debug("the worker %s is not in the registry: %s", self.consumer, error)
        except FloError as error:
            _log.warning("the worker %s is not in the registry: %s", self.consumer, error)

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self._registry(WORKER_HEARTBEAT, u32(self._busy))
            except FloError as error:
                _log.debug("no heartbeat of the worker %s: %s", self.consumer, error)

    async def _registry(self, opcode: int, value: bytes) -> None:
        client = self._reporter
        reply = await client.send(opcode, client.namespace, self.consumer.encode(), value)
        if reply.status:
            raise refusal(reply)


class _Reports:
    """Acknowledgements of one stream: those that are due while one is under way go together in the next."""

    def __init__(self, worker: StreamWorker, stream: str) -> None:
        self._worker = worker
        self._stream = stream
        self._due: dict[bool, list[StreamID]] = {True: [], False: []}
        self.task: asyncio.Task[None] | None = None

    def add(self, id: StreamID, done: bool) -> None:
        self._due[done].append(id)
        if self.task is None:
            self.task = asyncio.create_task(self._send())

    async def settled(self) -> None:
        while self.task is not None:
            await asyncio.wait((self.task,))

    async def _send(self) -> None:
        try:
            while self._due[True] or self._due[False]:
                for done in (True, False):
                    ids, self._due[done] = self._due[done][:ACK_IDS], self._due[done][ACK_IDS:]
                    if ids:
                        await self._report(ids, done)
        finally:
            self.task = None

    async def _report(self, ids: Sequence[StreamID], done: bool) -> None:
        worker = self._worker
        client = worker._reporter
        for _ in range(REPORT_TRIES):
            try:
                if not client.is_connected:
                    await client.reconnect(RECONNECT_SECONDS)
                if done:
                    await client.stream.group_ack(
                        self._stream, worker.group, ids, StreamGroupAckOptions(worker.consumer)
                    )
                else:
                    await client.stream.group_nack(
                        self._stream, worker.group, ids, StreamGroupNackOptions(worker.consumer)
                    )
                return
            except FloError as error:  # in the end the records are handed out again, when their deadlines pass
                _log.warning("the worker %s could not report: %s", worker.consumer, error)
                if not isinstance(error, FloConnectionError):
                    return
