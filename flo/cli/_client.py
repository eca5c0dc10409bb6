"""The commands' own client: one connection, one call at a time, no event loop, so that a command starts quickly."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

import typer

from flo.api.clock import Clock, SystemClock
from flo.api.errors import BadArgument, FloError
from flo.api.version import VERSION
from flo.cli import _client_options, _out, _signals
from flo.cli._exit import ExitCode
from flo.client.endpoint import Endpoint, parse_endpoint
from flo.client.sdk_errors import (
    ConnectionFailedError,
    FloTimeoutError,
    IncompleteResponseError,
    OverloadedError,
    ServerError,
    UnexpectedEofError,
    protocol_error,
    server_error,
)
from flo.wire import opcodes
from flo.wire.calls import A, Call, CallError, R, decode_refusal, decode_result, encode
from flo.wire.frames import FrameError, Reply, ReplyScanner, encode_request

CONNECT_SECONDS: Final = 5.0  # for one address of the server
RECEIVE_BYTES: Final = 256 * 1024
WAIT_MS: Final = 60_000  # of one request; a longer wait asks again, so that a server which vanished is noticed
FOLLOW_MS: Final = 5_000
BACK_OFF_SECONDS: Final = 0.1  # doubled with each try
BACK_OFF_MAX_SECONDS: Final = 2.0


def open_client(ctx: typer.Context, *, follows: bool = False, at_once: bool = True) -> Client:
    """A client for this command, closed with it. Ctrl-C ends the process from now on (not without `at_once`);
    `follows`: that is the usual way to end the command, which exits 0 then."""
    asked = _client_options.settings(ctx)
    if at_once:
        _signals.end_at_once(ctrl_c=ExitCode.OK if follows else ExitCode.INTERRUPTED)
    tell = _tell if asked.verbose else _silent
    tell(
        f"flo {VERSION}: {asked.endpoint} ({asked.endpoint_from}), namespace {asked.namespace} ({asked.namespace_from})"
    )
    client = Client(parse_endpoint(asked.endpoint), asked.namespace, timeout_ms=asked.timeout_ms, tell=tell)
    ctx.call_on_close(client.close)
    return client


class Client:
    """Calls of a server, by name. Connects with the first call, and again after an error of the connection."""

    def __init__(
        self,
        endpoint: Endpoint,
        namespace: str,
        *,
        timeout_ms: int,
        clock: Clock | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.namespace = namespace
        self._timeout_ms = timeout_ms
        self._clock = clock or SystemClock()
        self._tell = tell or _silent
        self._socket: socket.socket | None = None
        self._scanner = ReplyScanner()
        self._last_id = 0

    def call(self, call: Call[A, R], arguments: A, *, wait_ms: int = 0) -> R:
        """The result. The server has `wait_ms` longer than the request's own time-out. Raises typer.BadParameter for
        what cannot be sent, ServerError when it is refused, FloConnectionError, ProtocolError."""
        try:
            value = encode(arguments)
            self._last_id += 1
            frame = encode_request(opcodes.CALL, self._last_id, self.namespace, call.name.encode(), value)
        except UnicodeEncodeError as error:
            raise typer.BadParameter(f"{error.object!r} is no UTF-8 text") from None
        except FrameError as error:
            raise BadArgument(error.message) from None
        began = self._clock.monotonic_ms()
        try:
            reply = self._exchange(frame, self._last_id, began + self._timeout_ms + wait_ms)
        except FloError as error:
            self.close()
            self._tell(f"{call.name}: {error.message}")
            raise
        took = self._clock.monotonic_ms() - began
        self._tell(f"{call.name}: status {reply.status}, {len(frame)} bytes out, {len(reply.body)} in, {took} ms")
        if reply.status:
            raise _refusal(reply)
        try:
            return decode_result(call, reply.body)
        except CallError as error:
            raise IncompleteResponseError(f"the reply is not understood: {error}") from None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, frame: bytes, id: int, deadline: int) -> Reply:
        connection = self._connected()
        try:
            connection.settimeout(self._left(deadline))
            connection.sendall(frame)
            while True:
                connection.settimeout(self._left(deadline))
                data = connection.recv(RECEIVE_BYTES)
                if not data:
                    raise _lost("the server has closed the connection")
                for reply in self._scanner.feed(data):
                    if reply.request_id == id:
                        return reply
                    if reply.request_id == 0 and reply.status:
                        raise _refusal(reply)  # the server could not read the request, and closes
                if (wrong := self._scanner.error) is not None:
                    message = f"what came from {self.endpoint} is not understood: {wrong.message}"
                    raise protocol_error(FrameError(wrong.kind, message))
        except TimeoutError:
            raise FloTimeoutError(
                f"no reply from {self.endpoint} in time", hint="whether the request was carried out is not known"
            ) from None
        except OSError as error:
            raise _lost(f"the connection broke: {error.strerror or error}") from None

    def _left(self, deadline: int) -> float:
        """Seconds for what is left of the time; never 0, which would mean not to wait at all."""
        return max(deadline - self._clock.monotonic_ms(), 1) / 1_000

    def _connected(self) -> socket.socket:
        if self._socket is None:
            seconds = min(CONNECT_SECONDS, self._timeout_ms / 1_000)
            try:
                self._socket = socket.create_connection(self.endpoint, timeout=seconds)
            except OSError as error:
                raise ConnectionFailedError(
                    f"cannot connect to {self.endpoint}: {error.strerror or error}",
                    hint="is a server running there? `flo server start` starts one",
                ) from None
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._scanner = ReplyScanner()
        return self._socket


class Persistence:
    """Goes on where a connection breaks: tries again, less and less often. Only what was answered once is tried
    again: a command that never reached its server ends with the error."""

    def __init__(self) -> None:
        self._answered = False
        self._tries = 0

    def answered(self) -> None:
        if self._tries:
            _out.note("connected again")
        self._answered = True
        self._tries = 0

    def failed(self, error: FloError) -> None:
        """Waits before the next try. Raises the error when trying again cannot help."""
        if not self._answered or not isinstance(error, _PASSING):
            raise error
        if not self._tries:
            _out.note(f"{error.message}; trying again")
        threading.Event().wait(min(BACK_OFF_SECONDS * 2**self._tries, BACK_OFF_MAX_SECONDS))
        self._tries = min(self._tries + 1, 10)


_PASSING: Final = (ConnectionFailedError, UnexpectedEofError, FloTimeoutError, OverloadedError)


def waits(total_ms: int | None, clock: Clock | None = None) -> Iterator[int]:
    """How long to wait with each request, until the whole wait is over. None: one request that does not wait;
    0: without end."""
    if total_ms is None:
        yield 0
        return
    clock = clock or SystemClock()
    end = clock.monotonic_ms() + total_ms
    left = total_ms or WAIT_MS
    while left > 0:
        yield min(left, WAIT_MS)
        left = end - clock.monotonic_ms() if total_ms else WAIT_MS


def _refusal(reply: Reply) -> ServerError:
    try:
        told = decode_refusal(reply.body)
    except CallError:  # a server that has no calls by name answers with a text
        return server_error(reply.status, reply.body.decode("utf-8", "replace"))
    return server_error(reply.status, told.message, told.details if isinstance(told.details, dict) else None)


def _lost(message: str) -> UnexpectedEofError:
    return UnexpectedEofError(message, hint="whether the request was carried out is not known")


def _tell(text: str) -> None:
    _out.note(_out.styled(text, "dim", sys.stderr))


def _silent(text: str) -> None:
    """Nobody asked for it."""
