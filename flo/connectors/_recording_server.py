"""A real HTTP server on the loopback interface for tests: it remembers every request, and answers as told."""

from __future__ import annotations

import json
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

WAIT_MS = 30_000  # the longest that a request is waited for, or held back
REQUEST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Recorded:
    """A request as it was received. Names of headers are in lower case."""

    method: str
    path: str  # without the query
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    number: int  # 1 for the first on this path
    connection: int  # 1 for the first connection to the server

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What to answer: `json`, or else `body`, or else an object with path and number.

    `drop` closes the connection instead: `silent` without a byte, `reset` likewise and with a reset, `headers` in the
    status line, `body` in the middle of the body. `close` closes it after the answer without having said so. `raw` is
    sent as it is, and then the connection is closed.
    """

    status: int = 200
    json: Any = None
    body: bytes | str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None  # waited for before the answer
    delay_ms: int = 0
    drop: str | None = None
    close: bool = False
    raw: bytes | None = None


Plan: TypeAlias = Answer | Callable[[Recorded], Answer]


class RecordingServer:
    """A context manager; `url` is its address. Connections are kept alive."""

    def __init__(self) -> None:
        self._plans: dict[str, list[Plan]] = {}
        self._seen: list[Recorded] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._holds: list[threading.Event] = []
        self.connections = 0
        recorder = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                recorder._serve(self)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> RecordingServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def on(self, path: str, *answers: Plan) -> None:
        """The answers of a path, one for each request in turn; the last stays. `*` is for every other path."""
        with self._changed:
            self._plans[path] = list(answers)

    def hold(self, path: str, answer: Answer | None = None) -> threading.Event:
        """Holds the answers of a path until the event that is returned is set."""
        answer = answer if answer is not None else Answer()
        answer.hold = threading.Event()
        self._holds.append(answer.hold)
        self.on(path, answer)
        return answer.hold

    def seen(self, path: str | None = None) -> list[Recorded]:
        with self._changed:
            return [one for one in self._seen if path is None or one.path == path]

    def count(self, path: str | None = None) -> int:
        return len(self.seen(path))

    def wait(self, path: str | None = None, number: int = 1) -> list[Recorded]:
        """Waits for so many requests on the path and returns all of them."""
        with self._changed:
            there = self._changed.wait_for(lambda: self._count(path) >= number, WAIT_MS / 1_000)
        assert there, f"{self.count(path)} requests on {path or 'any path'} within {WAIT_MS} ms, not {number}"
        return self.seen(path)

    def close(self) -> None:
        self._closing.set()
        for event in self._holds:
            event.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _count(self, path: str | None) -> int:
        return sum(1 for one in self._seen if path is None or one.path == path)

    def _serve(self, handler: socketserver.StreamRequestHandler) -> None:
        with self._changed:
            self.connections += 1
            connection = self.connections
        try:
            while self._exchange(handler, connection):
                pass
        except OSError:
            return  # the other side has gone, which is its right

    def _exchange(self, handler: socketserver.StreamRequestHandler, connection: int) -> bool:
        """One request and its answer. False when the connection is over."""
        parts = handler.rfile.readline(65_536).decode("latin-1").split()
        if len(parts) != 3 or not parts[2].startswith("HTTP/"):
            return False  # another protocol, TLS for example: its random bytes may look like a line of three words
        headers: dict[str, str] = {}
        while line := handler.rfile.readline(65_536).decode("utf-8", "replace").strip("\r\n"):
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = handler.rfile.read(min(int(headers.get("content-length") or 0), REQUEST_BYTES))
        split = urlsplit(parts[1])
        with self._changed:
            request = Recorded(
                parts[0], split.path, parse_qs(split.query), headers, body, 1 + self._count(split.path), connection
            )
            self._seen.append(request)
            plans = self._plans.get(split.path) or self._plans.get("*") or [Answer()]
            plan = plans.pop(0) if len(plans) > 1 else plans[0]
            self._changed.notify_all()
        answer = plan(request) if callable(plan) else plan
        if answer.delay_ms:
            self._closing.wait(answer.delay_ms / 1_000)
        if answer.hold is not None:
            answer.hold.wait(WAIT_MS / 1_000)
        return self._send(handler, request, answer)

    def _send(self, handler: socketserver.StreamRequestHandler, request: Recorded, answer: Answer) -> bool:
        if answer.body is not None:
            payload = answer.body.encode() if isinstance(answer.body, str) else answer.body
            media_type = "text/plain; charset=utf-8"
        else:
            told = answer.json if answer.json is not None else {"path": request.path, "n": request.number}
            payload, media_type = json.dumps(told).encode(), "application/json"
        head = {"content-type": media_type, "content-length": str(len(payload))}
        head.update({name.lower(): value for name, value in answer.headers.items()})
        lines = [f"HTTP/1.1 {answer.status} Answer", *(f"{name}: {value}" for name, value in head.items())]
        start = ("\r\n".join(lines) + "\r\n\r\n").encode()
        empty = request.method == "HEAD" or answer.status in (204, 304)
        whole = answer.raw if answer.raw is not None else start + (b"" if empty else payload)
        parts = {None: whole, "headers": start[:7], "body": start + payload[: len(payload) // 2]}
        handler.wfile.write(parts.get(answer.drop, b""))
        handler.wfile.flush()
        if answer.drop == "reset":
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return answer.drop is None and not answer.close and answer.raw is None and head.get("connection") != "close"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def shutdown_request(self, request: Any) -> None:
        """Without the orderly shutdown of the base class, which would come before a reset."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is part of a test; it is not to be printed."""
