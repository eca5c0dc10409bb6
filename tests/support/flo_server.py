"""A real `flo server start` process on free ports, with a home and a data directory of its own."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from flo.wire import opcodes
from flo.wire.frames import Reply, ReplyScanner, encode_request
from tests.support.flo_command import COMMAND_SECONDS, flo_command

READY_SECONDS = 60.0
HOST = "127.0.0.1"


def free_ports(count: int = 3) -> int:
    """The first of so many neighbouring ports that are free now."""
    while True:
        with socket.socket() as first:
            first.bind((HOST, 0))
            base = int(first.getsockname()[1])
            others: list[socket.socket] = []
            try:
                for port in range(base + 1, base + count):
                    others.append(socket.socket())
                    others[-1].bind((HOST, port))
                return base
            except (OSError, OverflowError):
                continue
            finally:
                for other in others:
                    other.close()


class FloServer:
    """`start()` waits for the line that says that it is ready."""

    def __init__(self, folder: Path, *words: str, port: int = 0) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = port or free_ports()
        self.words = words
        self.ready = ""
        self.process: subprocess.Popen[str] | None = None
        self._clients: list[WireClient] = []
        (folder / "home").mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(encoding="utf-8")

    def spawn(self, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        self.kill()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FLO_")}
        clean |= {"HOME": str(self.folder / "home"), "NO_COLOR": "1"} | (env or {})
        argv = [*flo_command(), "server", "start", "-p", str(self.port), "-d", str(self.data), *self.words, *words]
        with open(self.folder / "server.log", "a") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=clean,
                cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        return self.process

    def start(self, *words: str, env: dict[str, str] | None = None) -> FloServer:
        process = self.spawn(*words, env=env)
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
        self.ready = process.stdout.readline() if readable else ""
        assert self.ready, f"not ready: {self.log}"
        return self

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code."""
        assert self.process is not None
        return self.process.wait(COMMAND_SECONDS)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        while self._clients:
            self._clients.pop().close()
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(COMMAND_SECONDS)
            assert self.process.stdout is not None
            self.process.stdout.close()

    def get(self, path: str, offset: int = 2) -> tuple[int, str]:
        """Status and text of a page on the client port + offset."""
        connection = http.client.HTTPConnection(HOST, self.port + offset, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/health")[1])
        return found

    def connect(self) -> WireClient:
        """A connection, closed with the server."""
        self._clients.append(WireClient(self.port))
        return self._clients[-1]

    def flo(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Another command, with the same home and data directory."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FLO_")}
        clean |= {"HOME": str(self.folder / "home"), "FLO_DATA_DIR": str(self.data), "NO_COLOR": "1"} | (env or {})
        return subprocess.run(
            [*flo_command(), *words], text=True, capture_output=True, timeout=COMMAND_SECONDS, env=clean,
            cwd=self.folder, stdin=subprocess.DEVNULL,
        )  # fmt: skip


class WireClient:
    """One connection of the binary protocol, a request at a time."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection((HOST, port), timeout=COMMAND_SECONDS)
        self._scanner = ReplyScanner()
        self._replies: list[Reply] = []
        self._id = 0

    def send(self, opcode: int, key: bytes, value: bytes = b"", options: dict[int, bytes] | None = None) -> int:
        self._id += 1
        self.sock.sendall(encode_request(opcode, self._id, "default", key, value, options))
        return self._id

    def receive(self) -> Reply | None:
        """None when the server has closed."""
        while not self._replies:
            data = self.sock.recv(65_536)
            if not data:
                return None
            self._replies += self._scanner.feed(data)
        return self._replies.pop(0)

    def call(self, opcode: int, key: bytes, value: bytes = b"") -> Reply:
        self.send(opcode, key, value)
        reply = self.receive()
        assert reply is not None, "the server has closed"
        return reply

    def put(self, key: str, value: bytes) -> None:
        reply = self.call(opcodes.KV_PUT, key.encode(), value)
        assert reply.status == 0, reply

    def get(self, key: str) -> bytes | None:
        reply = self.call(opcodes.KV_GET, key.encode())
        return reply.body[8:] if reply.status == 0 else None

    def close(self) -> None:
        self.sock.close()
