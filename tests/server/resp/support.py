"""A server that speaks the Redis protocol on a port of this machine, and a small client of it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flo.api.clock import Clock
from flo.grid.node import Node
from flo.server.link import Connections
from flo.server.listener import Listener
from flo.server.turns import Turns

SECONDS = 20.0


class RespError(Exception):
    """An error reply."""


def encode(*args: object) -> bytes:
    parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


class RespClient:
    """Replies as Python values: status as str, bulk as bytes, nil as None, maps as dict; errors are returned."""

    def __init__(self, address: int | str) -> None:
        """A port of this machine, or the path of a socket."""
        if isinstance(address, int):
            self.socket = socket.create_connection(("127.0.0.1", address), timeout=SECONDS)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(SECONDS)
            self.socket.connect(address)
        self.file = self.socket.makefile("rb")
        self.last_nil = b""

    def send(self, *args: object) -> None:
        self.socket.sendall(encode(*args))

    def read(self) -> Any:
        line = self.file.readline()
        if not line:
            raise ConnectionResetError("the server closed the connection")
        assert line.endswith(b"\r\n"), line
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return RespError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"_" or rest == b"-1":
            self.last_nil = line
            return None
        if kind == b"$":
            data = self.file.read(int(rest) + 2)
            assert data.endswith(b"\r\n")
            return data[:-2]
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        assert kind == b"%", line
        return {self.read(): self.read() for _ in range(int(rest))}

    def __call__(self, *args: object) -> Any:
        self.send(*args)
        return self.read()

    def refused(self, *args: object) -> str:
        """The text of the error."""
        reply = self(*args)
        assert isinstance(reply, RespError), f"{args}: {reply!r}"
        return str(reply)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class RespServer:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.port = 0
        self.clients: list[RespClient] = []
        self.connections: Connections | None = None
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._started.wait(SECONDS)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        store = self.node.store
        self.connections = Connections(Turns(self._loop, store), store, self._loop)
        listener = Listener(self.connections)
        self.port = await listener.open("127.0.0.1", 0)
        self._started.set()
        await self._stop.wait()
        await listener.close()

    def client(self) -> RespClient:
        self.clients.append(RespClient(self.port))
        return self.clients[-1]

    def close(self) -> None:
        for client in self.clients:
            client.close()
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(SECONDS)


@contextmanager
def resp_server(clock: Clock | None = None, url: str = "memory:", **options: Any) -> Iterator[RespServer]:
    node = Node.open(url, clock=clock, **options)
    server = RespServer(node)
    try:
        yield server
    finally:
        server.close()
        node.close()
