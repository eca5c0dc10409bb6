"""HTTP on the client port: WebSocket connections of browsers (RFC 6455), and the way to the dashboard for all others.

A binary message holds exactly one request of the binary protocol, and replies come in binary messages; text messages
are ignored. Browsers may read, and append to streams; everything else is refused.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    Request,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from flo.api.errors import FloError
from flo.server.operations.session import WireSession, refuse
from flo.server.wire_link import D1_HEADER_BYTES, D3_VERSION, VERSION_AT, other_dialect
from flo.wire import frames, opcodes
from flo.wire.frames import HEADER_BYTES, REQUEST_PAYLOAD_BYTES, RequestScanner, encode_reply
from flo.wire.statuses import BAD_REQUEST, RATE_LIMITED

if TYPE_CHECKING:
    from flo.server.link import ClientLink

SUBPROTOCOL: Final = "flo-proto"
HEAD_BYTES: Final = 16 * 1024
HEAD_SECONDS: Final = 10.0
MESSAGE_BYTES: Final = HEADER_BYTES + REQUEST_PAYLOAD_BYTES
ALLOWED: Final = frozenset(
    {
        opcodes.PING,
        opcodes.KV_GET,
        opcodes.KV_MGET,
        opcodes.KV_SCAN,
        opcodes.KV_HISTORY,
        opcodes.KV_EXISTS,
        opcodes.KV_JSON_GET,
        opcodes.STREAM_APPEND,
        opcodes.STREAM_READ,
        opcodes.STREAM_INFO,
        opcodes.GROUP_JOIN,
        opcodes.GROUP_LEAVE,
        opcodes.GROUP_READ,
        opcodes.GROUP_ACK,
        opcodes.GROUP_NACK,
    }
)

_host = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")


class HttpSpeaker:
    """Reads the head of one HTTP request: an upgrade to WebSocket goes on as such, the rest is answered and ends."""

    def __init__(self, link: ClientLink) -> None:
        self._link = link
        self._head = bytearray()
        self._timer = link.connections.loop.call_later(HEAD_SECONDS, link.abort)

    def feed(self, data: bytes) -> None:
        head = self._head
        searched = max(len(head) - 3, 0)
        head += data
        end = head.find(b"\r\n\r\n", searched)
        if (end if end >= 0 else len(head)) > HEAD_BYTES:
            self._answer("431 Request Header Fields Too Large", f"the head is over {HEAD_BYTES} bytes\n")
        elif end >= 0:
            self._timer.cancel()
            self._read(bytes(head))

    def execute(self, store: Any, request: Any) -> bytes | None:
        raise AssertionError("HTTP puts nothing in line")

    def refuse(self, request: Any, error: FloError) -> bytes | None:
        raise AssertionError("HTTP puts nothing in line")

    def closed(self) -> None:
        self._timer.cancel()

    def _read(self, arrived: bytes) -> None:
        head = arrived[: arrived.index(b"\r\n\r\n")].decode("latin-1")
        request, *lines = head.split("\r\n")
        method, _, _ = request.partition(" ")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name.strip().lower(), value.strip())
        if headers.get("upgrade", "").lower() == "websocket":
            self._upgrade(arrived)
        elif method not in ("GET", "HEAD"):
            self._answer("405 Method Not Allowed", "this port speaks HTTP only to redirect\n", "Allow: GET, HEAD\r\n")
        else:
            self._redirect(headers.get("host", ""))

    def _upgrade(self, arrived: bytes) -> None:
        link = self._link
        connection = WSConnection(ConnectionType.SERVER)
        try:
            connection.receive_data(arrived)
            event = next(connection.events(), None)
        except RemoteProtocolError as error:
            self._answer("400 Bad Request", f"this is no upgrade to WebSocket: {error}\n")
            return
        if not isinstance(event, Request):
            self._answer("400 Bad Request", "this is no upgrade to WebSocket\n")
            return
        if event.subprotocols and SUBPROTOCOL not in event.subprotocols:
            self._answer("400 Bad Request", f"the sub-protocol of this server is {SUBPROTOCOL}\n")
            return
        chosen = SUBPROTOCOL if event.subprotocols else None
        link.send(connection.send(AcceptConnection(subprotocol=chosen)))
        speaker = WebSocketSpeaker(link, connection)
        link.speak("websocket", speaker)
        speaker.handle()

    def _redirect(self, host: str) -> None:
        link = self._link
        port = link.connections.dashboard_port
        if not port:
            self._answer("404 Not Found", "there is no dashboard\n")
            return
        named = _host.fullmatch(host)
        name = named[1] if named else link.local[0]
        if ":" in name and not name.startswith("["):
            name = f"[{name}]"
        self._answer("307 Temporary Redirect", "", f"Location: http://{name}:{port}/\r\n")

    def _answer(self, status: str, text: str, headers: str = "") -> None:
        self._timer.cancel()
        body = text.encode("ascii", "replace")
        kind = "Content-Type: text/plain\r\n" if body else ""
        self._link.finish(
            f"HTTP/1.1 {status}\r\n{headers}{kind}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )


class WebSocketSpeaker:
    def __init__(self, link: ClientLink, connection: WSConnection) -> None:
        connections = link.connections
        self._link = link
        self._connection = connection
        self._scanner = RequestScanner()
        self._session = WireSession(link.reply, link, link.turns, allowed=ALLOWED)
        self._message = bytearray()
        self._settings = connections.websocket
        self._clock = connections.clock
        self._loop = connections.loop
        self._window = 0  # when the current one began, monotonic ms
        self._requests = 0  # in it
        self._close_code = int(CloseReason.NORMAL_CLOSURE)
        self._timer: asyncio.TimerHandle | None = None
        link.wrap = self._wrap
        link.goodbye = self._goodbye
        if self._settings.ping_interval_ms:
            self._timer = self._loop.call_later(self._settings.ping_interval_ms / 1_000, self._ping)

    def feed(self, data: bytes) -> None:
        try:
            self._connection.receive_data(data)
        except RemoteProtocolError as error:
            self._end(error)
            return
        self.handle()

    def handle(self) -> None:
        """What has arrived, as far as it is whole."""
        link = self._link
        try:
            for event in self._connection.events():
                if isinstance(event, BytesMessage):
                    self._message += event.data
                    if len(self._message) > MESSAGE_BYTES:
                        self._close(CloseReason.MESSAGE_TOO_BIG)
                        return
                    if event.message_finished:
                        message = bytes(self._message)
                        self._message.clear()
                        self._request(message)
                    if not link.keeps(len(self._message)):
                        self._close(CloseReason.TRY_AGAIN_LATER)
                        return
                elif isinstance(event, Ping):
                    link.send(self._connection.send(event.response()))
                elif isinstance(event, Pong):
                    self._rearm(self._settings.ping_interval_ms, self._ping)
                elif isinstance(event, CloseConnection):
                    link.send(self._connection.send(event.response()))
                    link.finish()
                if link.ending:
                    return
        except RemoteProtocolError as error:
            self._end(error)

    def execute(self, store: Any, request: frames.Request) -> bytes | None:
        return self._session.execute(store, request)

    def refuse(self, request: frames.Request, error: FloError) -> bytes:
        return refuse(request, error)

    def closed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._session.close(self._link.store)

    def _request(self, message: bytes) -> None:
        link = self._link
        if (
            len(message) >= D1_HEADER_BYTES
            and message.startswith(frames.MAGIC)
            and message[VERSION_AT] in (0, D3_VERSION)
        ):
            self._close(CloseReason.PROTOCOL_ERROR, other_dialect(message))
            return
        scanner = self._scanner
        requests = scanner.feed(message)
        if scanner.error is not None or scanner.unread or len(requests) != 1:
            what = scanner.error.message if scanner.error is not None else "a message holds exactly one request"
            self._close(CloseReason.PROTOCOL_ERROR, encode_reply(BAD_REQUEST, 0, what.encode()))
        elif self._is_over_rate():
            limit = (
                f"more than {self._settings.rate_limit_requests} requests in {self._settings.rate_limit_window_ms} ms"
            )
            link.send(self._wrap(encode_reply(RATE_LIMITED, requests[0].request_id, limit.encode())))
        else:
            link.submit(requests[0], len(message))

    def _is_over_rate(self) -> bool:
        settings = self._settings
        if not settings.rate_limit_requests:
            return False
        now = self._clock.monotonic_ms()
        if now - self._window >= settings.rate_limit_window_ms:
            self._window = now
            self._requests = 0
        self._requests += 1
        return self._requests > settings.rate_limit_requests

    # --- the connection itself

    def _wrap(self, replies: bytes) -> bytes:
        if not replies or self._connection.state is not ConnectionState.OPEN:
            return b""
        return self._connection.send(BytesMessage(data=replies))

    def _goodbye(self) -> bytes:
        if self._connection.state is not ConnectionState.OPEN:
            return b""
        return self._connection.send(CloseConnection(code=self._close_code))

    def _close(self, code: CloseReason, last: bytes = b"") -> None:
        self._close_code = int(code)
        self._link.finish(last)

    def _end(self, error: RemoteProtocolError) -> None:
        """The client broke the rules of WebSocket: closes with the code that says which."""
        hint = error.event_hint
        try:
            if isinstance(hint, CloseConnection):
                self._link.send(self._connection.send(hint))
        except LocalProtocolError:
            self._link.abort()
        else:
            self._link.finish()

    def _ping(self) -> None:
        if self._connection.state is ConnectionState.OPEN:
            self._link.send(self._connection.send(Ping()))
            self._rearm(self._settings.pong_timeout_ms, self._dead)

    def _dead(self) -> None:
        if self._link.paused:  # its pong may be among what is not read yet
            self._rearm(self._settings.pong_timeout_ms, self._dead)
        else:
            self._link.abort()

    def _rearm(self, ms: int, then: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_later(ms / 1_000, then)
