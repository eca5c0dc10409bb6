"""A client's connection: finds out which protocol it speaks and passes its bytes to that protocol's speaker.

    FLO\\0                        the binary protocol       flo.server.wire_link
    * $ + - :  PING  QUIT        the Redis protocol        flo.server.resp
    GET …                        HTTP: an upgrade to WebSocket, or a redirect to the dashboard
                                                           flo.server.websocket
    anything else                closed

The first bytes decide for the connection's life, however few of them arrive at a time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

from flo.api.clock import Clock, SystemClock
from flo.api.errors import FloError
from flo.server.turn_link import REPLY_BYTES, Link
from flo.server.turns import Turns
from flo.wire.frames import MAGIC

WRITE_HIGH_BYTES: Final = 256 * 1024  # in the transport, above which it is asked how much it holds
WRITE_LOW_BYTES: Final = 64 * 1024
UNREAD_BYTES: Final = 256 * 1024 * 1024  # of requests that have not arrived in full, of all connections together
UNREAD_KEPT_BYTES: Final = 64 * 1024  # a connection that holds no more of them stays all the same
UNSENT_BYTES: Final = 512 * 1024 * 1024  # of replies in all transports whose clients do not read them in time
LINGER_SECONDS: Final = 2.0  # for the client to read the reason before its connection is closed
KEEPALIVE_IDLE_SECONDS: Final = 60
KEEPALIVE_INTERVAL_SECONDS: Final = 20
KEEPALIVE_PROBES: Final = 3
INLINE_LINES: Final = (b"PING\r\n", b"QUIT\r\n", b"ping\r\n", b"quit\r\n", b"PING\n", b"QUIT\n", b"ping\n", b"quit\n")
METHODS: Final = tuple(
    method.encode() + b" "
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
)  # fmt: skip
RESP_FIRST: Final = b"*$+-:"

TOO_MUCH: Final = "too many requests are only in part here, try again"

_log = logging.getLogger(__name__)


class Speaker(Protocol):
    """One protocol on one connection. Made with its link; `link.submit` puts a request in line for `execute`."""

    def feed(self, data: bytes) -> None:
        """Bytes that have arrived. By the loop's thread."""

    def execute(self, store: Any, request: Any) -> bytes | None:
        """Performs a request in a turn: see Link.execute."""

    def refuse(self, request: Any, error: FloError) -> bytes | None:
        """The reply to a request that was not begun."""

    def closed(self) -> None:
        """The client has gone: cancels what it waits for, lets go what is bound to it. With the lock held, within
        a batch, perhaps more than once."""


@dataclass
class WebSocketSettings:
    rate_limit_requests: int = 1_000  # 0: unlimited
    rate_limit_window_ms: int = 1_000
    ping_interval_ms: int = 30_000  # 0: none
    pong_timeout_ms: int = 10_000


@dataclass
class Connections:
    """What all connections of a server share, and the counts of what they did."""

    turns: Turns
    store: Any
    loop: asyncio.AbstractEventLoop
    clock: Clock = field(default_factory=SystemClock)
    dashboard_port: int = 0  # 0: none; plain HTTP then gets 404
    websocket: WebSocketSettings = field(default_factory=WebSocketSettings)
    links: dict[ClientLink, None] = field(default_factory=dict)
    accepted: int = 0
    refused: int = 0  # over the limit of connections
    bytes_in: int = 0
    bytes_out: int = 0
    by_protocol: dict[str, int] = field(default_factory=lambda: {"wire": 0, "resp": 0, "websocket": 0, "http": 0})
    limit: int = 65_536
    unread: int = 0  # bytes of requests that have not arrived in full
    unread_limit: int = UNREAD_BYTES
    unsent: int = 0  # bytes in transports that hold back what they should send
    unsent_limit: int = UNSENT_BYTES
    closing: bool = False
    empty: asyncio.Event = field(default_factory=asyncio.Event)  # set when the last connection is gone while closing
    opened_ms: int = 0  # by the monotonic clock

    def __post_init__(self) -> None:
        self.opened_ms = self.clock.monotonic_ms()


class ClientLink(Link, asyncio.Protocol):
    """One connection. Its speaker reaches what it needs through it: `submit`, `reply`, `store`, `turns`, `finish`."""

    __slots__ = (
        "connections", "turns", "store", "number", "protocol", "speaker", "transport", "wrap", "goodbye", "_first",
        "_unread", "_unsent", "_slow", "_linger", "_lingering",
    )  # fmt: skip

    def __init__(self, connections: Connections) -> None:
        super().__init__()
        self.connections = connections
        self.turns = connections.turns
        self.store = connections.store
        self.number = 0  # of the connection, from 1
        self.protocol = ""  # "wire", "resp", "websocket" or "http" once it is known
        self.speaker: Speaker | None = None
        self.transport: asyncio.Transport | None = None
        self.wrap: Callable[[bytes], bytes] | None = None  # replies into the frames of an outer protocol
        self.goodbye: Callable[[], bytes] | None = None  # the outer protocol's last frame
        self._first = b""  # what has arrived before the protocol was known
        self._unread = 0  # this connection's part of what all have
        self._unsent = 0
        self._slow = False  # the transport holds bytes back
        self._linger: asyncio.TimerHandle | None = None
        self._lingering = False

    # --- for speakers

    def submit(self, request: Any, size: int) -> None:
        """Puts a request of `size` bytes in line for the speaker's `execute`."""
        self.turns.submit(self, request, size)

    def reply(self, data: bytes) -> None:
        """Sends a late reply once the log is durable up to here. With the lock held, in any thread."""
        self.turns.reply(self, data)

    def finish(self, last: bytes = b"") -> None:
        """Reads nothing more; answers what has arrived, sends `last` and closes. By the loop's thread."""
        self.turns.finish(self, last)

    def end(self) -> None:
        """The request that is being performed is the last one: its reply, then the connection is closed. With the
        lock held, from `execute`."""
        self.turns.end(self)

    def keeps(self, unread: int) -> bool:
        """Whether so many bytes of a request that has not arrived in full may be kept: all connections together have a
        bound. By the loop's thread."""
        connections = self.connections
        connections.unread += unread - self._unread
        self._unread = unread
        if connections.unread <= connections.unread_limit or unread <= UNREAD_KEPT_BYTES:
            return True
        _log.warning("connection %d is closed: %s", self.number, TOO_MUCH)
        return False

    @property
    def peer(self) -> str:
        """Address and port of the client."""
        return self._name("peername")

    @property
    def local(self) -> tuple[str, int]:
        """Address and port that the client came to."""
        host, _, port = self._name("sockname").rpartition(":")
        return host, int(port)

    def _name(self, which: str) -> str:
        name = None if self.transport is None else self.transport.get_extra_info(which)
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "?:0"

    def send(self, data: bytes) -> None:
        """Sends at once what rests on nothing in the log: the frames of an outer protocol. By the loop's thread."""
        transport = self.transport
        if transport is not None and not self.gone:
            self.connections.bytes_out += len(data)
            transport.write(data)
            if self._slow:
                self._measure()

    def abort(self) -> None:
        """Closes without sending what is left."""
        if self.transport is not None:
            self.transport.abort()

    # --- for Turns

    def execute(self, store: Any, request: Any) -> bytes | None:
        return cast(Speaker, self.speaker).execute(store, request)

    def refuse(self, request: Any, error: FloError) -> bytes | None:
        return cast(Speaker, self.speaker).refuse(request, error)

    def withdraw(self, store: Any) -> None:
        if self.speaker is not None:
            self.speaker.closed()

    def write(self, data: bytes) -> None:
        transport = self.transport
        if transport is None or self._lingering:
            return
        if self.wrap is not None:
            data = self.wrap(data)
        self.connections.bytes_out += len(data)
        transport.write(data)
        if self._slow:
            self._measure()

    def over(self) -> None:
        """Closes so that the client can read the last words even while it is still sending: a socket that is closed
        with unread input resets its connection, and what was sent last is lost."""
        transport = self.transport
        if transport is None or self._lingering or transport.is_closing():
            return
        self._lingering = True
        self.paused = True
        if self.goodbye is not None:
            transport.write(self.goodbye())
        if self.protocol and transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:  # the peer is gone already, and nobody will read the last words
                transport.abort()
                return
            transport.resume_reading()
            self._linger_on(transport.get_write_buffer_size())
        else:
            transport.close()

    def _linger_on(self, unsent: int) -> None:
        """Closes after a while in which nothing was left to send, or of what was nothing was read."""
        self._linger = self.connections.loop.call_later(LINGER_SECONDS, self._stop_lingering, unsent)

    def _stop_lingering(self, unsent: int) -> None:
        transport = self.transport
        if transport is None:
            return
        left = transport.get_write_buffer_size()
        if left < unsent:
            self._linger_on(left)
        else:
            transport.abort()

    def lost(self, error: Exception) -> None:
        if self.transport is not None:
            _log.info("connection %d is closed: %s", self.number, error)
            self.transport.abort()

    def pause(self) -> None:
        if self.transport is not None and not self._lingering:
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.transport is not None and not self._lingering:
            self.transport.resume_reading()

    # --- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = made = cast(asyncio.Transport, transport)
        connections = self.connections
        connections.accepted += 1
        self.number = connections.accepted
        if connections.closing or len(connections.links) >= connections.limit:
            connections.refused += 1
            self.gone = True
            made.abort()
            return
        connections.links[self] = None
        made.set_write_buffer_limits(WRITE_HIGH_BYTES, WRITE_LOW_BYTES)
        _tune(made.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        if self.ending:
            return
        self.connections.bytes_in += len(data)
        speaker = self.speaker
        if speaker is not None:
            speaker.feed(data)
        else:
            self._detect(data)

    def eof_received(self) -> bool:
        """The client has closed, or sends nothing more: what it has sent is answered, its waits end."""
        if self._lingering or self.gone:
            return False
        self.turns.finish(self)
        return True

    def pause_writing(self) -> None:
        self._slow = True
        self._measure()

    def resume_writing(self) -> None:
        self._slow = False
        self._unsend(0)
        self.room = REPLY_BYTES
        self.turns.drained(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self._linger is not None:
            self._linger.cancel()
        connections = self.connections
        self._unsend(0)
        connections.unread -= self._unread
        self._unread = 0
        if connections.links.pop(self, self) is None:
            self.turns.leave(self)
            if connections.closing and not connections.links:
                connections.empty.set()

    # ---

    def _measure(self) -> None:
        transport = self.transport
        if transport is not None:
            unsent = transport.get_write_buffer_size()
            self._unsend(unsent)
            if self.connections.unsent > self.connections.unsent_limit:
                _log.warning("connection %d is closed: clients do not read their replies, it is one", self.number)
                transport.abort()
                return
            self.room = REPLY_BYTES - unsent
            if not self.full and self.replied - self.written > self.room:
                self.turns.filled(self)

    def _unsend(self, size: int) -> None:
        """The transport holds so many bytes now."""
        self.connections.unsent += size - self._unsent
        self._unsent = size

    def _detect(self, data: bytes) -> None:
        first = self._first = self._first + data if self._first else data
        protocol = detect(first)
        if protocol is None:
            return
        self._first = b""
        if protocol == "":
            self.abort()
            return
        self.speak(protocol, self._speaker(protocol))
        self.speaker.feed(first)  # type: ignore[union-attr]

    def speak(self, protocol: str, speaker: Speaker) -> None:
        self.protocol = protocol
        self.connections.by_protocol[protocol] += 1
        self.speaker = speaker

    def _speaker(self, protocol: str) -> Speaker:
        if protocol == "wire":
            from flo.server.wire_link import WireSpeaker

            return WireSpeaker(self)
        if protocol == "resp":
            from flo.server.resp import RespSpeaker

            return RespSpeaker(self)
        from flo.server.websocket import HttpSpeaker

        return HttpSpeaker(self)


def detect(first: bytes) -> str | None:
    """Which protocol a connection that begins so speaks: "wire", "resp" or "http"; "" for none, None for too few
    bytes to tell."""
    if first[:1] in RESP_FIRST:
        return "resp" if first else None
    if first.startswith(MAGIC):
        return "wire"
    if first.startswith(INLINE_LINES):
        return "resp"
    if first.startswith(METHODS):
        return "http"
    for beginning in (MAGIC, *INLINE_LINES, *METHODS):
        if beginning.startswith(first):
            return None
    return ""


def _tune(connection: socket.socket | None) -> None:
    """Small replies leave at once, and a client that vanished without a word is noticed."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    if hasattr(socket, "TCP_KEEPINTVL"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
