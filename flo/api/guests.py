"""What an owner of a data directory and its guests say to each other over the owner's socket.

A **frame** is a length (4 bytes, big-endian) and that many bytes of MessagePack. The guest begins with a
`Hello` and gets one back; then it sends `Call`s and gets `Answer`s with the call's number: one RESULT or
ERROR for each call, any number of UPDATEs for a watch, and a BYE (number 0) before an owner that leaves as
planned closes the connection. Calls that have no answer when BYE comes were not begun. The answer to a `wire` call
is the frame of its reply; it may wait, and those after it are answered meanwhile.

Bodies are JSON inside the MessagePack: results of flows are JSON text already, and hold integers of any size.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from flo.api.errors import BadArgument, FloError, ScriptError, Unavailable
from flo.api.grid import HistoryEntry, LogLine, RunError, RunView, StartRequest, Update, Waiting

PROTOCOL: Final = 1
REQUEST_BYTES: Final = 33 * 1024 * 1024  # of a frame from a guest: a bundle and arguments at their hard limits
ANSWER_BYTES: Final = 256 * 1024 * 1024  # of a frame from the owner: a whole history, all output of a run
UPDATE_BYTES: Final = 1024 * 1024  # of text in one update; longer output goes in several

RESULT, ERROR, UPDATE, BYE = range(4)

_LENGTH = struct.Struct(">I")
_CREDENTIALS = struct.Struct("3i")


class Hello(msgspec.Struct, array_like=True, frozen=True):
    protocol: int
    version: str  # of the package, for messages
    pid: int
    server: bool = False  # the owner is a server: when it leaves it is likely to come back


class Call(msgspec.Struct, array_like=True, frozen=True):
    number: int  # from 1, chosen by the guest
    method: str  # of flo.api.grid.Grid, or start_many, signal_many, unwatch, wire
    body: bytes = b"[]"  # JSON array of the arguments
    data: bytes = b""  # a bundle; of `wire` the frame of a request, whose id is the call's number


class Answer(msgspec.Struct, array_like=True, frozen=True):
    number: int
    kind: int
    body: bytes = b"null"


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    message: str
    hint: str = ""
    where: str = ""


class _View(msgspec.Struct, frozen=True):
    """A RunView as it is decoded: msgspec knows no union with Raw."""

    id: str
    flow: str
    status: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: RunError | None = None
    output: list[str] = []
    started_at: int = 0
    finished_at: int | None = None
    waiting: list[Waiting] = []
    paused: str | None = None
    parent: str | None = None

    def whole(self) -> RunView:
        return RunView(
            id=self.id, flow=self.flow, status=self.status,
            result=msgspec.Raw(bytes(self.result)) if self.status == "completed" else None,
            error=self.error, output=self.output, started_at=self.started_at, finished_at=self.finished_at,
            waiting=self.waiting, paused=self.paused, parent=self.parent,
        )  # fmt: skip


class _Update(msgspec.Struct, frozen=True):
    lines: list[LogLine]
    view: _View | None = None


class _Started(msgspec.Struct, frozen=True):
    view: _View | None = None
    error: ErrorBody | None = None


encode_json = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode

ARGUMENTS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    name: msgspec.json.Decoder(types)
    for name, types in {
        "has_bundle": tuple[()],
        "put_bundle": tuple[()],
        "start": tuple[StartRequest, bool],
        "start_many": tuple[list[StartRequest], bool],
        "execute": tuple[list[str] | None],
        "show": tuple[str],
        "list": tuple[()],
        "history": tuple[str],
        "logs": tuple[str],
        "signal": tuple[str, str, str],
        "signal_many": tuple[list[tuple[str, str, str]]],
        "cancel": tuple[str, str],
        "watch": tuple[str],
        "unwatch": tuple[int],
        "wire": tuple[()],
    }.items()
}

decode_hello = msgspec.msgpack.Decoder(Hello).decode
decode_call = msgspec.msgpack.Decoder(Call).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
decode_flag = msgspec.json.Decoder(bool).decode
decode_ids = msgspec.json.Decoder(list[str]).decode
decode_history = msgspec.json.Decoder(list[HistoryEntry]).decode
decode_lines = msgspec.json.Decoder(list[LogLine]).decode
_decode_view = msgspec.json.Decoder(_View).decode
_decode_views = msgspec.json.Decoder(list[_View]).decode
_decode_update = msgspec.json.Decoder(_Update).decode
_decode_started = msgspec.json.Decoder(list[_Started]).decode
_decode_errors = msgspec.json.Decoder(list[ErrorBody | None]).decode
_decode_error = msgspec.json.Decoder(ErrorBody).decode


def decode_view(body: bytes) -> RunView:
    return _decode_view(body).whole()


def decode_views(body: bytes) -> list[RunView]:
    return [view.whole() for view in _decode_views(body)]


def decode_update(body: bytes) -> Update:
    update = _decode_update(body)
    return Update(lines=update.lines, view=None if update.view is None else update.view.whole())


def encode_update(update: Update) -> Iterator[bytes]:
    """Bodies of at most about UPDATE_BYTES of lines each; the last one has the view."""
    lines: list[LogLine] = []
    size = 0
    for line in update.lines:
        if lines and size + len(line.text) > UPDATE_BYTES:
            yield encode_json(Update(lines=lines))
            lines, size = [], 0
        lines.append(line)
        size += len(line.text)
    yield encode_json(Update(lines=lines, view=update.view))


def encode_started(results: list[RunView | FloError]) -> bytes:
    return encode_json([
        {"error": error_body(result)} if isinstance(result, FloError) else {"view": result} for result in results
    ])  # fmt: skip


def decode_started(body: bytes) -> list[RunView | FloError]:
    results: list[RunView | FloError] = []
    for started in _decode_started(body):
        if started.error is not None:
            results.append(error_of(started.error))
        elif started.view is not None:
            results.append(started.view.whole())
    return results


def encode_errors(errors: list[FloError | None]) -> bytes:
    return encode_json([None if error is None else error_body(error) for error in errors])


def decode_errors(body: bytes) -> list[FloError | None]:
    return [None if error is None else error_of(error) for error in _decode_errors(body)]


def error_body(error: BaseException) -> ErrorBody:
    if not isinstance(error, FloError):
        return ErrorBody("internal", f"the owner of the directory failed: {type(error).__name__}: {error}")
    return ErrorBody(error.code, error.message, error.hint, getattr(error, "where", None) or "")


def encode_error(error: BaseException) -> bytes:
    return encode_json(error_body(error))


def decode_error(body: bytes) -> FloError:
    return error_of(_decode_error(body))


def error_of(body: ErrorBody) -> FloError:
    """The error with this code, as the owner raised it."""
    if body.code == ScriptError.code:
        return ScriptError(body.message, where=body.where, hint=body.hint)
    kinds = list(FloError.__subclasses__())
    for kind in kinds:  # grows while it is walked
        if kind.code == body.code and kind.__init__ is FloError.__init__:
            return kind(body.message, hint=body.hint)
        kinds.extend(kind.__subclasses__())
    return FloError(body.message, hint=body.hint)


class ProtocolError(Unavailable):
    """The other end of the socket does not keep to what stands here, or speaks another version of it."""


def framed(message: Hello | Call | Answer, limit: int) -> bytes:
    """Raises BadArgument when the message is over `limit` bytes."""
    packed = _pack(message)
    if len(packed) > limit:
        raise BadArgument(f"a message of {len(packed)} bytes is over the limit of {limit}")
    return _LENGTH.pack(len(packed)) + packed


class FrameReader:
    """Reads whole frames from a blocking socket."""

    def __init__(self, sock: socket.socket, limit: int) -> None:
        self._sock = sock
        self._limit = limit
        self._buffer = bytearray()

    def read(self) -> bytes | None:
        """The next frame's content, None when the other end has closed. Raises ProtocolError, OSError."""
        head = self._take(_LENGTH.size)
        if head is None:
            return None
        (length,) = _LENGTH.unpack(head)
        if length > self._limit:
            raise ProtocolError(f"a frame of {length} bytes is over the limit of {self._limit}")
        return self._take(length)

    def _take(self, size: int) -> bytes | None:
        buffer = self._buffer
        while len(buffer) < size:
            got = self._sock.recv(max(65_536, min(size - len(buffer), 1 << 20)))
            if not got:
                return None
            buffer += got
        taken = bytes(memoryview(buffer)[:size])
        del buffer[:size]
        return taken


def is_same_user(sock: socket.socket) -> bool:
    """Whether the process at the other end may have this user's data: it runs as this user or as root, or we do."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return uid in (os.geteuid(), 0) or os.geteuid() == 0
