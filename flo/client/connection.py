"""One TCP connection to a server. Replies are matched by request id, so any number of calls may be in flight.

What the tasks of a program send within one turn of the loop is written together. A call that times out drops
the connection: its reply, late, could belong to anything once the server is in doubt.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from flo.api.errors import FloError
from flo.client.sdk_errors import (
    FloTimeoutError,
    NotConnectedError,
    OverloadedError,
    UnexpectedEofError,
    protocol_error,
)
from flo.client.transport import Tags, refusal
from flo.wire import statuses
from flo.wire.frames import Reply, ReplyScanner, encode_request

OUTGOING_BYTES: Final = 256 * 1024 * 1024  # that may wait for a server that does not read


class Connection(asyncio.Protocol):
    """Made by `loop.create_connection`. `timeout_ms` is what a call may take without its own wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_ms: int) -> None:
        self._loop = loop
        self._timeout = timeout_ms / 1000
        self._transport: asyncio.Transport | None = None
        self._scanner = ReplyScanner()
        self._calls: dict[int, tuple[asyncio.Future[Reply], float]] = {}
        self._last_id = 0
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0
        self._flush_planned = False
        self._paused = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._why_closed = ""

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def send(
        self, opcode: int, ns: str, key: bytes, value: bytes, tags: Tags | None, wait_ms: int
    ) -> asyncio.Future[Reply]:
        """Raises NotConnectedError, OverloadedError."""
        if self._transport is None:
            raise NotConnectedError(self._why_closed or "the connection is closed")
        if self._outgoing_bytes > OUTGOING_BYTES:
            raise OverloadedError(statuses.OVERLOADED, f"over {OUTGOING_BYTES} bytes wait to be sent")
        id = self._last_id + 1
        frame = encode_request(opcode, id, ns, key, value, tags)
        self._last_id = id
        future: asyncio.Future[Reply] = self._loop.create_future()
        deadline = self._loop.time() + self._timeout + wait_ms / 1000
        self._calls[id] = (future, deadline)
        if deadline < self._alarm_at:
            self._set_alarm(deadline)
        self._outgoing.append(frame)
        self._outgoing_bytes += len(frame)
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush)
        return future

    def close(self, why: str) -> None:
        """Sends what waits to be sent, and ends what is in flight with NotConnectedError."""
        self._flush()
        self._end(why, lambda: NotConnectedError(why), abort=False)

    def drop(self, why: str) -> None:
        """As `close`, at once."""
        self._end(why, lambda: NotConnectedError(why))

    # What follows is called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        replies = self._scanner.feed(data)
        calls = self._calls
        for reply in replies:
            call = calls.pop(reply.request_id, None)
            if call is not None:
                if not call[0].done():
                    call[0].set_result(reply)
            elif reply.request_id == 0 and reply.status:
                # the server could not read what was sent, and is about to close
                text = reply.body.decode("utf-8", "replace")
                self._end(f"the server has refused the connection: {text}", partial(refusal, reply))
                return
        if self._scanner.error is not None:
            error = self._scanner.error
            self._end(f"the server is not understood: {error.message}", lambda: protocol_error(error))

    def connection_lost(self, error: Exception | None) -> None:
        text = "the server has closed the connection" + (f": {error}" if error else "")
        self._end(text, lambda: UnexpectedEofError(text, hint="whether the call was carried out is not known"))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def _flush(self) -> None:
        self._flush_planned = False
        if self._paused or self._transport is None or not self._outgoing:
            return
        outgoing, self._outgoing, self._outgoing_bytes = self._outgoing, [], 0
        self._transport.write(b"".join(outgoing) if len(outgoing) > 1 else outgoing[0])

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        """One timer for all calls: it looks for those that are late and is set to the next that could be."""
        now = self._loop.time() + 0.001  # the loop rings up to its clock's resolution early
        late = [id for id, (future, deadline) in self._calls.items() if deadline <= now]
        expired = [future for future, _ in map(self._calls.pop, late) if not future.done()]
        self._alarm, self._alarm_at = None, math.inf
        if expired:
            for future in expired:
                future.set_exception(
                    FloTimeoutError("no reply in time", hint="the connection was dropped; reconnect() makes another")
                )
            self.drop("the connection was dropped: a call was not answered in time")
        elif self._calls:
            self._set_alarm(min(deadline for _, deadline in self._calls.values()))

    def _end(self, why: str, error: Callable[[], FloError], *, abort: bool = True) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        self._why_closed = why
        if self._alarm is not None:
            self._alarm.cancel()
        self._outgoing.clear()
        calls, self._calls = self._calls, {}
        for future, _ in calls.values():
            if not future.done():
                future.set_exception(error())
        if abort:
            transport.abort()
        else:
            transport.close()
