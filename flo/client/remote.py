"""A guest's view of the grid that another process owns, over the owner's socket."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from flo.api import guests
from flo.api.errors import Conflict, FloError, Overloaded, Unavailable
from flo.api.grid import FINAL, HistoryEntry, LogLine, RunView, StartRequest, Update
from flo.api.guests import Answer, Call, FrameReader, Hello, ProtocolError
from flo.wire.frames import encode_request

CONNECT_SECONDS = 5.0  # for the owner's hello


class OwnerLeft(Unavailable):
    """The owner has left as planned, or was never reached: the call was not begun and can be made again."""


class OwnerLost(Unavailable):
    """The connection to the owner broke: the call may or may not have been carried out."""


class RemoteGrid:
    """`flo.api.grid.Grid` over the owner's socket. Raises OwnerLeft when nobody listens, Overloaded when the
    owner has guests enough, Conflict when it speaks another version of the protocol.

    Watchers are called from the thread that reads the socket: they must not call the grid. A watcher that
    is slow holds up the connection, in the end until the owner drops it.
    """

    def __init__(self, path: str, *, version: str = "") -> None:
        self._sock = _connect(path)
        self._reader = FrameReader(self._sock, guests.ANSWER_BYTES)
        self._lock = threading.Lock()  # of the tables
        self._sending = threading.Lock()
        self._number = 0
        self._calls: dict[int, _Waiter | _Answered] = {}
        self._watchers: dict[int, Callable[[Update], None]] = {}
        self._end: FloError | None = None
        try:
            self.owner = self._greet(version)
        except BaseException:
            self._sock.close()
            raise
        self._thread = threading.Thread(target=self._read, name="flo-remote", daemon=True)
        self._thread.start()

    def has_bundle(self, digest: bytes) -> bool:
        return guests.decode_flag(self._ask("has_bundle", data=digest))

    def put_bundle(self, digest: bytes, data: bytes) -> None:
        assert len(digest) == 32
        self._ask("put_bundle", data=digest + data)

    def start(self, request: StartRequest, *, execute: bool = True) -> RunView:
        return guests.decode_view(self._ask("start", request, execute))

    def start_many(self, requests: Sequence[StartRequest], *, execute: bool = True) -> list[RunView | FloError]:
        return guests.decode_started(self._ask("start_many", requests, execute))

    def execute(self, ids: Sequence[str] | None) -> list[str]:
        return guests.decode_ids(self._ask("execute", ids))

    def show(self, id: str) -> RunView:
        return guests.decode_view(self._ask("show", id))

    def history(self, id: str) -> list[HistoryEntry]:
        return guests.decode_history(self._ask("history", id))

    def logs(self, id: str) -> list[LogLine]:
        return guests.decode_lines(self._ask("logs", id))

    def signal(self, id: str, type: str, payload: str) -> None:
        self._ask("signal", id, type, payload)

    def signal_many(self, signals: Sequence[tuple[str, str, str]]) -> list[FloError | None]:
        return guests.decode_errors(self._ask("signal_many", signals))

    def cancel(self, id: str, reason: str = "") -> None:
        self._ask("cancel", id, reason)

    def wire(
        self,
        opcode: int,
        ns: str,
        key: bytes,
        value: bytes,
        options: dict[int, bytes] | None,
        on_answer: Callable[[bytes | FloError], None],
    ) -> None:
        """Sends an operation of the wire protocol. `on_answer` gets the frame of its reply, or why there is none, from
        the thread that reads the socket: it must not call the grid. Raises OwnerLeft."""
        number = self._next_number()
        frame = encode_request(opcode, number, ns, key, value, options)
        with self._lock:
            if self._end is not None:
                raise OwnerLeft(self._end.message)
            self._calls[number] = _Answered(on_answer)
        try:
            self._send(Call(number, "wire", data=frame))
        except BaseException:
            with self._lock:
                self._calls.pop(number, None)
            raise

    def watch(self, id: str, on_update: Callable[[Update], None]) -> Callable[[], None]:
        number = 0

        def unwatch() -> None:
            with self._lock:
                if self._watchers.pop(number, None) is None:
                    return
            if threading.current_thread() is self._thread:
                self._send(Call(self._next_number(), "unwatch", guests.encode_json([number])))
            else:
                with suppress(Unavailable):  # the watch has ended with the connection
                    self._ask("unwatch", number)

        number, waiter = self._begin("watch", id, watcher=on_update)
        try:
            waiter.answer()
        except BaseException:
            with self._lock:
                self._watchers.pop(number, None)
            raise
        return unwatch

    def close(self) -> None:
        """Closes the connection. The owner goes on with what was started here."""
        self._stop(OwnerLeft("the connection to the owner is closed"))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # last of the public ones, for below it `list` means this method in annotations
    def list(self) -> list[RunView]:
        return guests.decode_views(self._ask("list"))

    def _greet(self, version: str) -> Hello:
        sock = self._sock
        try:
            if not guests.is_same_user(sock):
                raise Conflict("the socket of this directory's owner belongs to another user")
            sock.settimeout(CONNECT_SECONDS)
            with suppress(BrokenPipeError):  # a refusal may be there to read
                sock.sendall(guests.framed(Hello(guests.PROTOCOL, version, os.getpid()), guests.REQUEST_BYTES))
            frame = self._reader.read()
            if frame is None:
                raise OwnerLeft("the owner of the directory has just left")
            try:
                owner = guests.decode_hello(frame)
            except msgspec.ValidationError:
                answer = guests.decode_answer(frame)
                if answer.kind == guests.ERROR:
                    raise guests.decode_error(answer.body) from None
                raise OwnerLeft("the owner of the directory has just left") from None
            if owner.protocol != guests.PROTOCOL:
                raise Conflict(
                    f"process {owner.pid} owns the directory and runs another version of Flo ({owner.version}), "
                    f"which cannot be attached to",
                    hint="use that version, or end the process",
                )
            sock.settimeout(None)
        except TimeoutError:
            raise OwnerLeft(f"the owner of the directory does not answer within {CONNECT_SECONDS:g} s") from None
        except (OSError, msgspec.MsgspecError) as error:
            raise OwnerLeft(f"the owner of the directory has just left: {error}") from error
        return owner

    def _ask(self, method: str, *arguments: Any, data: bytes = b"") -> bytes:
        return self._begin(method, *arguments, data=data)[1].answer()

    def _begin(
        self, method: str, *arguments: Any, data: bytes = b"", watcher: Callable[[Update], None] | None = None
    ) -> tuple[int, _Waiter]:
        assert threading.current_thread() is not self._thread, "a watcher must not call the grid"
        number = self._next_number()
        call = Call(number, method, guests.encode_json(arguments), data)
        waiter = _Waiter()
        with self._lock:
            if self._end is not None:
                raise OwnerLeft(self._end.message)
            self._calls[number] = waiter
            if watcher is not None:
                self._watchers[number] = watcher
        try:
            self._send(call)
        except BaseException:
            with self._lock:
                self._calls.pop(number, None)
                self._watchers.pop(number, None)
            raise
        return number, waiter

    def _next_number(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def _send(self, call: Call) -> None:
        frame = guests.framed(call, guests.REQUEST_BYTES)
        try:
            with self._sending:
                self._sock.sendall(frame)
        except OSError:
            return  # the reading thread meets the same end, and answers what waits with what it knows

    def _read(self) -> None:
        end: FloError = OwnerLost("the owner of the directory is gone", hint="the run goes on with the next owner")
        try:
            while (frame := self._reader.read()) is not None:
                answer = guests.decode_answer(frame)
                if answer.number:
                    self._take(answer)
                elif answer.kind == guests.ERROR:
                    error = guests.decode_error(answer.body)
                    end = OwnerLost(error.message, hint=error.hint)
                    break
                else:
                    end = OwnerLeft("the owner of the directory has left")
                    break
        except OSError:
            pass  # as if it had closed
        except (ProtocolError, msgspec.MsgspecError) as error:
            end = OwnerLost(f"the owner of the directory is not understood: {error}")
        self._stop(end)
        with self._lock:
            watchers, self._watchers = list(self._watchers.values()), {}
        for watcher in watchers:
            watcher(Update(lines=[]))

    def _take(self, answer: Answer) -> None:
        if answer.kind == guests.UPDATE:
            with self._lock:
                watcher = self._watchers.get(answer.number)
            if watcher is None:
                return  # unwatched meanwhile
            update = guests.decode_update(answer.body)
            if update.view is not None and update.view.status in FINAL:
                with self._lock:
                    self._watchers.pop(answer.number, None)
            watcher(update)
            return
        with self._lock:
            waiter = self._calls.pop(answer.number, None)
        if waiter is None:
            return  # an unwatch that nobody waits for
        if answer.kind == guests.ERROR:
            waiter.fail(guests.decode_error(answer.body))
        else:
            waiter.finish(answer.body)

    def _stop(self, end: FloError) -> None:
        with self._lock:
            if self._end is None:
                self._end = end
            end = self._end
            calls, self._calls = list(self._calls.values()), {}
        with suppress(OSError):  # the other end may have closed first
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        for waiter in calls:
            waiter.fail(end)


class _Waiter:
    """One call's answer."""

    __slots__ = ("_body", "_done", "_error")

    def __init__(self) -> None:
        self._done = threading.Event()
        self._body = b""
        self._error: FloError | None = None

    def finish(self, body: bytes) -> None:
        self._body = body
        self._done.set()

    def fail(self, error: FloError) -> None:
        self._error = error
        self._done.set()

    def answer(self) -> bytes:
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._body


class _Answered:
    """One call whose answer is told, not waited for."""

    __slots__ = ("fail", "finish")

    def __init__(self, on_answer: Callable[[bytes | FloError], None]) -> None:
        self.finish = on_answer
        self.fail = on_answer


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(CONNECT_SECONDS)
        sock.connect(path)
    except BlockingIOError:
        sock.close()
        raise Overloaded("too many processes are attaching to the directory's owner at once") from None
    except OSError as error:
        sock.close()
        raise OwnerLeft(f"nobody listens at {path}: {error}") from error
    return sock
