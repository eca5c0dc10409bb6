"""The owner's socket: other processes on the machine use the owner's grid through it.

Each guest has a thread that reads its calls and makes them on the grid, one after another. Answers and
watch updates are sent by whoever has them, without waiting: what the socket does not take at once is
kept, up to `buffer_bytes_max`, and sent by a second thread. A guest that reads slower than that is
dropped and told so; nobody else notices.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from flo.api import guests, limits
from flo.api.errors import BadArgument, FloError, Overloaded, Unavailable
from flo.api.grid import FINAL, Grid, RunView, StartRequest, Update
from flo.api.guests import Answer, FrameReader, Hello, ProtocolError

SOCKET_NAME: Final = "flo.sock"
SOCKET_PATH_BYTES: Final = 100  # the kernel takes 107
GUEST_BUFFER_BYTES: Final = 32 * 1024 * 1024  # kept for a guest that does not read
HELLO_SECONDS: Final = 5.0  # in which a guest must say who it is
LEAVE_SECONDS: Final = 1.0  # for a guest's call in progress, and for what it has not read, at a planned stop
CALLS: Final = frozenset(guests.ARGUMENTS)


def socket_path(directory: str) -> str:
    """Where the owner of a data directory listens, unless the lock file says otherwise: in the directory, or if its
    path is too long in a private one."""
    inside = os.path.join(os.path.realpath(directory), SOCKET_NAME)
    return inside if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES else outside_path(directory)


def outside_path(directory: str) -> str:
    """A path in a private directory, for data directories that can hold no socket."""
    import hashlib  # few need it, and it is slow to import

    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    parent = os.path.join(runtime, "flo") if runtime else ""
    if not parent or len(os.fsencode(parent)) > SOCKET_PATH_BYTES - 38:
        parent = f"/tmp/flo-{os.geteuid()}"
    name = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:32]
    return os.path.join(parent, name + ".sock")


class Wire(Protocol):
    """Performs a guest's operations of the wire protocol (flo.server.guest_session)."""

    def perform(self, frame: bytes) -> None:
        """Performs the request in this frame, which is answered later. Raises BadArgument."""

    def settle(self, seconds: float) -> bool:
        """Waits until everything performed is answered, but for what waits for something to happen."""

    def close(self) -> None:
        """The guest has gone."""


OpenWire: TypeAlias = Callable[[Callable[[int, "bytes | FloError"], None]], Wire]
"""Gets what takes a call's number and the frame of its reply, or why there is none."""


class Gateway:
    """Serves `grid` on a unix socket. The caller owns the data directory: whatever lies at the path is stale.

    Close the gateway before the grid, and both before the directory's lock is given up.
    """

    def __init__(
        self,
        grid: Grid,
        directory: str,
        *,
        version: str = "",
        wire: OpenWire | None = None,
        server: bool = False,
        guests_max: int = limits.GUESTS,
        buffer_bytes_max: int = GUEST_BUFFER_BYTES,
    ) -> None:
        self._grid = grid
        self._open_wire = wire
        self._hello = Hello(guests.PROTOCOL, version, os.getpid(), server)
        self._guests_max = guests_max
        self._buffer_bytes_max = buffer_bytes_max
        self._lock = threading.Lock()
        self._guests: set[_Guest] = set()
        self._closing = threading.Event()
        self._listener, self.path = _listen(directory)
        self._inode = os.stat(self.path).st_ino
        threading.Thread(target=self._accept, name="flo-gateway", daemon=True).start()

    @property
    def guests(self) -> int:
        """How many processes are attached now."""
        return len(self._guests)

    def close(self) -> None:
        """Lets calls in progress end, tells the guests that the owner leaves, and removes the socket."""
        if self._closing.is_set():
            return
        self._closing.set()
        with suppress(FileNotFoundError):
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        with suppress(OSError):  # some systems refuse it; closing the socket is what counts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            leaving = list(self._guests)
        threads = [threading.Thread(target=guest.leave, daemon=True) for guest in leaving]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.ENOMEM, errno.EINTR):
                    return  # closed
                self._closing.wait(0.05)
                continue
            threading.Thread(target=self._serve, args=(sock,), name="flo-guest", daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        guest = _Guest(sock, self._grid, self._buffer_bytes_max, self._open_wire)
        with self._lock:
            full = len(self._guests) >= self._guests_max
            if not full:
                self._guests.add(guest)
        try:
            if not guests.is_same_user(sock):
                return
            if full:
                guest.refuse(Overloaded(f"{self._guests_max} processes are attached to this directory already"))
                return
            if self._closing.is_set():
                guest.leave()
                return
            guest.serve(self._hello)
        finally:
            guest.close()
            with self._lock:
                self._guests.discard(guest)


class _Guest:
    """One attached process."""

    def __init__(
        self, sock: socket.socket, grid: Grid, buffer_bytes_max: int, open_wire: OpenWire | None = None
    ) -> None:
        self._sock = sock
        self._grid = grid
        self._open_wire = open_wire
        self._wires: Wire | None = None
        self._buffer_bytes_max = buffer_bytes_max
        self._busy = threading.Lock()  # held while a call is made
        self._leaving = False
        self._watches: dict[int, Callable[[], None]] = {}
        self._watches_lock = threading.Lock()
        self._ready = threading.Condition()
        self._outgoing: deque[memoryview] = deque()
        self._outgoing_bytes = 0
        self._writer: threading.Thread | None = None
        self._closed = False
        self._dropped = False

    def serve(self, hello: Hello) -> None:
        """Answers calls until the guest goes or is dropped."""
        reader = FrameReader(self._sock, guests.REQUEST_BYTES)
        try:
            self._sock.settimeout(HELLO_SECONDS)
            first = reader.read()
            if first is None:
                return
            theirs = guests.decode_hello(first)
            self._send(guests.framed(hello, guests.ANSWER_BYTES))
            if theirs.protocol != guests.PROTOCOL:
                return  # the guest reads our hello and says what does not fit
            self._sock.settimeout(None)
            while (frame := reader.read()) is not None:
                with self._busy:
                    if self._leaving:
                        return
                    self._call(guests.decode_call(frame))
        except (ProtocolError, msgspec.MsgspecError) as error:
            self.refuse(ProtocolError(f"not understood: {error}"))
        except OSError:
            return  # the guest is gone, which is its right
        if self._dropped:
            self._drain()

    def leave(self) -> None:
        """A planned stop: the call in progress is answered, those after it were not begun."""
        idle = self._busy.acquire(timeout=LEAVE_SECONDS)
        self._leaving = True
        # what is not answered by then may have been begun: the guest must not be told that it was not
        if idle and (self._wires is None or self._wires.settle(LEAVE_SECONDS)):
            self._send(guests.framed(Answer(0, guests.BYE), guests.ANSWER_BYTES))
        if idle:
            self._busy.release()
        self._drain()
        self.close()

    def refuse(self, error: FloError) -> None:
        self._send(guests.framed(Answer(0, guests.ERROR, guests.encode_error(error)), guests.ANSWER_BYTES))
        self._drain()

    def close(self) -> None:
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        with self._watches_lock:
            watches, self._watches = self._watches, {}
        for unwatch in watches.values():
            unwatch()
        wires, self._wires = self._wires, None
        if wires is not None:
            wires.close()
        with suppress(OSError):  # the guest may have closed first
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _call(self, call: guests.Call) -> None:
        try:
            if call.method not in CALLS:
                raise BadArgument(f"the owner of the directory knows no call {call.method!r}")
            arguments = guests.ARGUMENTS[call.method].decode(call.body)
            body = getattr(self, "_" + call.method)(call, *arguments)
            if body is None:
                return  # it is answered later
            frame = guests.framed(Answer(call.number, guests.RESULT, body), guests.ANSWER_BYTES)
        except Exception as error:  # noqa: BLE001 - the guest gets whatever went wrong
            frame = guests.framed(Answer(call.number, guests.ERROR, guests.encode_error(error)), guests.ANSWER_BYTES)
        self._send(frame)

    def _has_bundle(self, call: guests.Call) -> bytes:
        return guests.encode_json(self._grid.has_bundle(call.data))

    def _put_bundle(self, call: guests.Call) -> bytes:
        self._grid.put_bundle(call.data[:32], call.data[32:])
        return b"null"

    def _start(self, call: guests.Call, request: StartRequest, execute: bool) -> bytes:
        return guests.encode_json(self._grid.start(request, execute=execute))

    def _start_many(self, call: guests.Call, requests: list[StartRequest], execute: bool) -> bytes:
        return guests.encode_started(start_many(self._grid, requests, execute=execute))

    def _execute(self, call: guests.Call, ids: list[str] | None) -> bytes:
        return guests.encode_json(self._grid.execute(ids))

    def _show(self, call: guests.Call, id: str) -> bytes:
        return guests.encode_json(self._grid.show(id))

    def _list(self, call: guests.Call) -> bytes:
        return guests.encode_json(self._grid.list())

    def _history(self, call: guests.Call, id: str) -> bytes:
        return guests.encode_json(self._grid.history(id))

    def _logs(self, call: guests.Call, id: str) -> bytes:
        return guests.encode_json(self._grid.logs(id))

    def _signal(self, call: guests.Call, id: str, type: str, payload: str) -> bytes:
        self._grid.signal(id, type, payload)
        return b"null"

    def _signal_many(self, call: guests.Call, signals: list[tuple[str, str, str]]) -> bytes:
        return guests.encode_errors(signal_many(self._grid, signals))

    def _cancel(self, call: guests.Call, id: str, reason: str) -> bytes:
        self._grid.cancel(id, reason)
        return b"null"

    def _watch(self, call: guests.Call, id: str) -> bytes:
        number = call.number
        ended = threading.Event()

        def forward(update: Update) -> None:
            for body in guests.encode_update(update):
                self._send(guests.framed(Answer(number, guests.UPDATE, body), guests.ANSWER_BYTES))
            if update.view is not None and update.view.status in FINAL:
                ended.set()
                with self._watches_lock:
                    self._watches.pop(number, None)

        unwatch = self._grid.watch(id, forward)
        with self._watches_lock:
            keep = not self._closed and not ended.is_set()
            if keep:
                self._watches[number] = unwatch
        if not keep:
            unwatch()
        return b"null"

    def _wire(self, call: guests.Call) -> None:
        if self._wires is None:
            if self._open_wire is None:
                raise BadArgument("the owner of the directory keeps no keys, queues and streams")
            self._wires = self._open_wire(self._answer_wire)
        self._wires.perform(call.data)

    def _answer_wire(self, number: int, answer: bytes | FloError) -> None:
        if isinstance(answer, FloError):
            sent = Answer(number, guests.ERROR, guests.encode_error(answer))
        else:
            sent = Answer(number, guests.RESULT, answer)
        self._send(guests.framed(sent, guests.ANSWER_BYTES))

    def _unwatch(self, call: guests.Call, number: int) -> bytes:
        with self._watches_lock:
            unwatch = self._watches.pop(number, None)
        if unwatch is not None:
            unwatch()
        return b"null"

    def _send(self, frame: bytes) -> None:
        """Sends without waiting. What the socket does not take is kept for the writer; too much of it is the end."""
        with self._ready:
            if self._closed or self._dropped:
                return
            rest = memoryview(frame)
            if not self._outgoing:
                try:
                    rest = rest[self._sock.send(rest, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
                except BlockingIOError:
                    pass
                except OSError:
                    self._closed = True  # the reading thread sees the same and cleans up
                    return
                if not rest:
                    return
            if self._outgoing_bytes > self._buffer_bytes_max:
                self._drop()
                return
            self._outgoing.append(rest)
            self._outgoing_bytes += len(rest)
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="flo-guest-writer", daemon=True)
                self._writer.start()
            self._ready.notify_all()

    def _drop(self) -> None:
        """Under the lock: forgets what is kept but the frame that is half sent, and ends with an error."""
        self._dropped = True
        error = Unavailable(
            f"this process reads too slowly: over {self._buffer_bytes_max} bytes were waiting for it",
            hint="attach again",
        )
        last = guests.framed(Answer(0, guests.ERROR, guests.encode_error(error)), guests.ANSWER_BYTES)
        begun = self._outgoing[0]
        self._outgoing.clear()
        self._outgoing.extend((begun, memoryview(last)))
        self._outgoing_bytes = len(begun) + len(last)
        with suppress(OSError):  # ends the reading thread's wait
            self._sock.shutdown(socket.SHUT_RD)

    def _write(self) -> None:
        while True:
            with self._ready:
                while not self._outgoing and not self._closed:
                    self._ready.wait()
                if self._closed:
                    return
                head = self._outgoing[0]
            try:
                sent = self._sock.send(head[: 1 << 20], socket.MSG_NOSIGNAL)
            except OSError:
                with self._ready:
                    self._closed = True
                    self._outgoing.clear()
                    self._ready.notify_all()
                return
            with self._ready:
                # _drop keeps the head, so it is still the one that was sent from
                self._outgoing_bytes -= sent
                if sent == len(head):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = head[sent:]
                if not self._outgoing:
                    self._ready.notify_all()

    def _drain(self) -> None:
        """Waits a moment for the writer to send what is kept."""
        with self._ready:
            self._ready.wait_for(lambda: not self._outgoing or self._closed, LEAVE_SECONDS)


def start_many(grid: Grid, requests: Sequence[StartRequest], *, execute: bool = True) -> list[RunView | FloError]:
    """Starts runs in one batch where the grid can, else one by one. The answers stand in order."""
    many: Any = getattr(grid, "start_many", None)
    if many is not None:
        return list(many(requests, execute=execute))
    answers: list[RunView | FloError] = []
    for request in requests:
        try:
            answers.append(grid.start(request, execute=execute))
        except FloError as error:
            answers.append(error)
    return answers


def signal_many(grid: Grid, signals: Sequence[tuple[str, str, str]]) -> list[FloError | None]:
    """Delivers signals (id, type, payload) in one batch where the grid can; None stands for a delivered one."""
    many: Any = getattr(grid, "signal_many", None)
    if many is not None:
        return list(many(signals))
    answers: list[FloError | None] = []
    for id, type, payload in signals:
        try:
            grid.signal(id, type, payload)
            answers.append(None)
        except FloError as error:
            answers.append(error)
    return answers


def _listen(directory: str) -> tuple[socket.socket, str]:
    path, outside = socket_path(directory), outside_path(directory)
    if path != outside:
        try:
            return _bind(path), path
        except OSError as error:
            # some file systems hold no sockets
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    _make_private(os.path.dirname(outside))
    return _bind(outside), outside


def _bind(path: str) -> socket.socket:
    with suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(sock.fileno(), 0o600)  # before bind, so that the file never has another mode
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock


def _make_private(directory: str) -> None:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise Unavailable(
            f"{directory} belongs to somebody else, so no socket can be made there",
            hint="set XDG_RUNTIME_DIR to a directory of your own",
        )
    if found.st_mode & 0o077:
        os.chmod(directory, 0o700)
