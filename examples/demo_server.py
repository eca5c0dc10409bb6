"""The other systems that the examples talk to, in one small HTTP server: python3 examples/demo_server.py

It prints each request, so that you can see what a flow does, and what it does not do twice. It needs nothing but
Python, keeps everything in memory and listens on the loopback interface only.

    GET    /contacts?page=N            a CRM's contacts, page by page
    PUT    /newsletter/contacts/ID     another system's copy of them; every fourth request fails with 503
    POST   /thumbnails                 makes a thumbnail; 422 for an image whose name holds "broken"
    POST   /deployments                deploys a version
    POST   /inventory/reservations     reserves stock;   DELETE /inventory/reservations/ID gives it back
    POST   /payments                   charges a card; 402 above 500; the same Idempotency-Key charges once
    POST   /shipments                  sends a parcel; 409 to the country "XX"
    GET    /events?after=N             a feed, at most three events at a time
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PORT = 8321
PAGES = [
    [{"id": 1, "name": "Ann", "email": "ann@example.org"}, {"id": 2, "name": "Ben", "email": "ben@example.org"}],
    [{"id": 3, "name": "Cho", "email": "cho@example.org"}, {"id": 4, "name": "Dee", "email": "dee@example.org"}],
    [{"id": 5, "name": "Eve", "email": "eve@example.org"}],
]
EVENTS = [{"number": n, "text": f"event {n}"} for n in range(1, 11)]


class Systems:
    """What all these systems remember."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newsletter_requests = 0
        self._payments: dict[str, dict[str, Any]] = {}
        self._numbers = 0

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, key: str) -> tuple[int, Any]:
        with self._lock:
            match method, path.strip("/").split("/"):
                case "GET", ["contacts"]:
                    page = int(query.get("page", "1"))
                    return 200, {"contacts": PAGES[page - 1], "next": page + 1 if page < len(PAGES) else None}
                case "PUT", ["newsletter", "contacts", id]:
                    self._newsletter_requests += 1
                    if self._newsletter_requests % 4 == 0:
                        return 503, {"error": "try again later"}
                    return 200, {"id": id}
                case "POST", ["thumbnails"]:
                    image = str(body["image"])
                    return (422, {"error": "no image"}) if "broken" in image else (200, {"thumbnail": f"small-{image}"})
                case "POST", ["deployments"]:
                    return 201, {"id": self._number(), "version": body["version"]}
                case "POST", ["inventory", "reservations"]:
                    return 201, {"id": self._number()}
                case "DELETE", ["inventory", "reservations", id]:
                    return 200, {"id": id}
                case "POST", ["payments"]:
                    return self._pay(body, key)
                case "POST", ["payments", id, "refund"]:
                    return 200, {"id": id}
                case "POST", ["shipments"]:
                    if body["country"] == "XX":
                        return 409, {"error": "we do not deliver to XX"}
                    return 201, {"id": self._number()}
                case "GET", ["events"]:
                    after = int(query.get("after", "0"))
                    return 200, {"events": [event for event in EVENTS if int(str(event["number"])) > after][:3]}
                case _:
                    return 404, {"error": f"no {method} {path} here"}

    def _pay(self, body: Any, key: str) -> tuple[int, Any]:
        if body["amount"] > 500:
            return 402, {"error": "card declined"}
        if not key or key not in self._payments:
            self._payments[key] = {"id": self._number(), "amount": body["amount"]}
        return 201, self._payments[key]

    def _number(self) -> str:
        self._numbers += 1
        return str(self._numbers)


def make_server(port: int, *, quiet: bool = False) -> ThreadingHTTPServer:
    """A server on the loopback interface; port 0 takes a free one."""
    systems = Systems()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            if not quiet:
                sys.stderr.write(f"{format % args}\n")

        def _any(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            key = self.headers.get("idempotency-key") or ""
            status, answer = systems.answer(self.command, parts.path, query, json.loads(raw or b"null"), key)
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_DELETE = _any

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=PORT)
    with make_server(parser.parse_args().port) as server:
        sys.stderr.write(f"listening on http://127.0.0.1:{server.server_address[1]}, Ctrl-C ends\n")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stderr.write("\n")
