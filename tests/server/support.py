"""A store on a real log with a few operations, links that record, and a server of connections on a real port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from flo.api.errors import FloError, Unavailable
from flo.grid.release import Releases
from flo.log.commit import GroupCommit
from flo.log.errors import LogError
from flo.log.memory import MemoryBackend
from flo.server.link import ClientLink, Connections
from flo.server.listener import Listener
from flo.server.turns import Link, Turns
from flo.wire.frames import Reply, ReplyScanner, Request, encode_reply

PUT, GET, WAIT, FILL, BREAK, ECHO = 0x100, 0x101, 0x102, 0x103, 0x104, 0x000


class LittleStore:
    """What Turns needs of a store, over a real group commit: puts are logged, waits are served by puts."""

    def __init__(self, backend: MemoryBackend | None = None, *, thread: bool = True) -> None:
        self.backend = backend or MemoryBackend()
        self.backend.open()
        self.backend.claim()
        self.lock = threading.RLock()
        self.releases = Releases(0)
        self.commit = GroupCommit(self.backend, self.releases.on_durable, self.releases.on_lost, thread=thread)
        self.values: dict[bytes, bytes] = {}
        self.waits: dict[bytes, list[tuple[Any, Callable[[bytes], None]]]] = {}
        self.gone: list[object] = []
        self.batches: list[int] = []  # the requests of each
        self.sizes: list[int] = []
        self.refuses: FloError | None = None
        self.begun = 0
        self.within = False
        self.pending: int | None = None  # pretended bytes of unflushed log
        self.stalled: str | None = None

    @property
    def last_index(self) -> int:
        return self.commit.last_index

    @property
    def durable_index(self) -> int:
        return self.commit.durable_index

    @property
    def pending_bytes(self) -> int:
        return self.commit.pending_bytes if self.pending is None else self.pending

    def begin(self, size: int) -> None:
        assert not self.within
        if self.refuses is not None:
            raise self.refuses
        self.within = True
        self.begun = 0
        self.sizes.append(size)

    def end(self) -> int:
        assert self.within
        self.within = False
        self.batches.append(self.begun)
        return self.commit.last_index

    def after(self) -> None:
        assert not self.within

    def put(self, key: bytes, value: bytes) -> int:
        assert self.within
        self.values[key] = value
        self.commit.add([(1, 1, key + value)], 1)
        for _, done in self.waits.pop(key, []):
            done(value)
        return self.commit.last_index

    def owner_gone(self, owner: object) -> None:
        self.gone.append(owner)

    def close(self) -> None:
        self.backend.release()
        try:
            self.commit.close()
        except LogError:
            assert self.commit.lost is not None or self.commit.stalled


class LittleSession:
    """Stands in for the operations: PUT, GET, WAIT (for a put of the key), FILL (a reply of so many bytes), ECHO."""

    def __init__(self, send: Callable[[bytes], None], owner: Any, turns: Turns, **_: Any) -> None:
        self.send = send
        self.owner = owner
        self.parked: list[tuple[LittleStore, bytes, tuple[Any, Callable[[bytes], None]]]] = []

    def execute(self, store: LittleStore, request: Request) -> bytes | None:
        store.begun += 1
        if request.opcode == PUT:
            version = store.put(request.key, request.value)
            return encode_reply(0, request.request_id, version.to_bytes(8, "little"))
        if request.opcode == GET:
            value = store.values.get(request.key)
            return encode_reply(2 if value is None else 0, request.request_id, value or b"")
        if request.opcode == WAIT:
            wait = (self, lambda value: self.send(encode_reply(0, request.request_id, value)))
            store.waits.setdefault(request.key, []).append(wait)
            self.parked.append((store, request.key, wait))
            return None
        if request.opcode == FILL:
            return encode_reply(0, request.request_id, bytes(int.from_bytes(request.value, "little")))
        if request.opcode == BREAK:
            raise RuntimeError("a defect")
        return encode_reply(0, request.request_id, request.value)

    def close(self, store: LittleStore) -> None:
        for parked_in, key, wait in self.parked:
            if wait in parked_in.waits.get(key, []):
                parked_in.waits[key].remove(wait)
        self.parked.clear()
        store.owner_gone(self.owner)


class RecordingLink(Link):
    """A caller without a socket. A request is a function of the store that returns the reply."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.losses: list[Exception] = []
        self.pauses = 0
        self.closed = False
        self.withdrawn = 0

    def execute(self, store: Any, request: Callable[[Any], bytes | None]) -> bytes | None:
        store.begun += 1
        return request(store)

    def refuse(self, request: object, error: FloError) -> bytes:
        assert isinstance(error, Unavailable)
        return b"refused;"

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def lost(self, error: Exception) -> None:
        assert isinstance(error, LogError | RuntimeError)
        self.losses.append(error)

    def withdraw(self, store: Any) -> None:
        assert store.within
        self.withdrawn += 1

    def over(self) -> None:
        self.closed = True

    def pause(self) -> None:
        self.pauses += 1

    def resume(self) -> None:
        self.pauses -= 1

    @property
    def received(self) -> bytes:
        return b"".join(self.writes)


@asynccontextmanager
async def served(store: Any, *, backend: Any = None, **options: Any) -> AsyncIterator[Connections]:
    """Connections on a free port of this machine: `connections.port`. `backend`: that of a store that does not show
    its own."""
    loop = asyncio.get_running_loop()
    connections = Connections(Turns(loop, store), store, loop, **options)
    listener = Listener(connections)
    await listener.open("127.0.0.1", 0)
    connections.listener = listener  # type: ignore[attr-defined]
    connections.port = listener.addresses[0][1]  # type: ignore[attr-defined]
    try:
        yield connections
    finally:
        (backend or store.backend).release()
        for client in Client.opened:
            client.writer.transport.abort()
        Client.opened.clear()
        await listener.close()


class Client:
    """A raw client of the binary protocol."""

    opened: ClassVar[list[Client]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.scanner = ReplyScanner()
        self.replies: list[Reply] = []

    @classmethod
    async def to(cls, connections: Connections) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", connections.port)  # type: ignore[attr-defined]
        client = cls(reader, writer)
        cls.opened.append(client)
        return client

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> Reply:
        async with asyncio.timeout(10):
            while not self.replies:
                data = await self.reader.read(256 * 1024)
                assert data, "the connection was closed"
                self.replies += self.scanner.feed(data)
                assert self.scanner.error is None
        return self.replies.pop(0)

    async def rest(self) -> bytes:
        """What comes until the server closes; nothing when it resets the connection."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            assert self.writer.is_closing()


async def until(condition: Callable[[], object]) -> None:
    """Lets the loop run until the condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is awaited is the loop's own work
            await asyncio.sleep(0)


def only_link(connections: Connections) -> ClientLink:
    (link,) = connections.links
    return link
