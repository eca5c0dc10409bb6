"""A real HTTP server on the loopback interface that remembers what it was asked and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

WAIT_SECONDS = 30.0  # the longest that a request is waited for, or held


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # without the query
    headers: dict[str, str]
    body: bytes
    number: int  # 1 for the first request on this path

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """`drop` closes the connection without a byte; `hold` is waited for before the answer."""

    status: int = 200
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    hold: threading.Event | None = None


Handler = Callable[[Request], Answer]


class HttpServer:
    """`answer(path, …)` plans the answers of a path: one per request in turn, the last one stays. An answer may be
    a function of the request. What is not planned gets 200 and an empty object."""

    def __init__(self) -> None:
        self._plans: dict[str, list[Answer | Handler]] = {}
        self._requests: list[Request] = []
        self._changed = threading.Condition()
        self._held: list[threading.Event] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def answer(self, path: str, *answers: Answer | Handler) -> None:
        with self._changed:
            self._plans[path] = list(answers)

    def hold(self, path: str, *then: Answer | Handler) -> threading.Event:
        """Holds the next request on `path` until the returned event is set; `then` are the answers from there on."""
        event = threading.Event()
        self._held.append(event)
        self.answer(path, Answer(hold=event, json={}), *(then or (Answer(json={}),)))
        return event

    def requests(self, path: str | None = None) -> list[Request]:
        with self._changed:
            return [request for request in self._requests if path is None or request.path == path]

    def count(self, path: str) -> int:
        return len(self.requests(path))

    def wait(self, path: str, count: int = 1) -> list[Request]:
        """Waits until `path` was requested this often."""
        with self._changed:
            arrived = self._changed.wait_for(
                lambda: sum(request.path == path for request in self._requests) >= count, WAIT_SECONDS
            )
        assert arrived, f"fewer than {count} requests on {path}, saw {[r.path for r in self.requests()]}"
        return self.requests(path)

    def close(self) -> None:
        for event in self._held:
            event.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                """Requests are remembered, not printed."""

            def _any(self) -> None:
                owner._serve(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        handler.close_connection = True
        with self._changed:
            number = 1 + sum(request.path == path for request in self._requests)
            headers = {name.lower(): value for name, value in handler.headers.items()}
            request = Request(handler.command, path, headers, body, number)
            self._requests.append(request)
            plan = self._plans.get(path) or [Answer(json={})]
            planned = plan.pop(0) if len(plan) > 1 else plan[0]
            self._changed.notify_all()
        answer = planned if isinstance(planned, Answer) else planned(request)
        if answer.hold is not None:
            answer.hold.wait(WAIT_SECONDS)
        if answer.drop:
            return
        payload = json.dumps(answer.json).encode()
        try:
            handler.send_response(answer.status)
            for name, value in {"content-type": "application/json", **answer.headers}.items():
                handler.send_header(name, value)
            handler.send_header("content-length", str(len(payload)))
            handler.send_header("connection", "close")
            handler.end_headers()
            handler.wfile.write(payload)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client was killed while it waited; that is what some tests are about


@contextmanager
def http_server() -> Iterator[HttpServer]:
    server = HttpServer()
    try:
        yield server
    finally:
        server.close()
