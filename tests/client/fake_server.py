"""A server of the wire protocol (D2) made by hand, byte by byte: it shares no code with the client it is a test for."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple


class Asked(NamedTuple):
    """A request as it came."""

    opcode: int
    id: int
    ns: str
    key: bytes
    value: bytes
    options: list[tuple[int, bytes]]


Answer = Callable[[Asked], "bytes | tuple[int, bytes] | None"]
"""The body of an OK, or a status and a body; None: nothing is answered."""


def crc(header: bytes, payload: bytes) -> int:
    return zlib.crc32(header[:16] + header[20:] + payload)


def reply_frame(
    id: int, status: int, body: bytes, *, magic: bytes = b"FLO\0", version: int = 1, wrong: int = 0
) -> bytes:
    header = magic + struct.pack("<IQIBBHQ", len(body), id, 0, version, status, 0, 0)
    return header[:16] + struct.pack("<I", crc(header, body) ^ wrong) + header[20:] + body


def parse_request(header: bytes, payload: bytes) -> Asked:
    magic, length, id, checksum, opcode, version, flags, reserved = struct.unpack("<4sIQIHBBQ", header)
    assert (magic, version, flags, reserved) == (b"FLO\0", 1, 0, 0)
    assert length == len(payload) and checksum == crc(header, payload)
    at = 0

    def take(width: int) -> bytes:
        nonlocal at
        size = int.from_bytes(payload[at : at + width], "little")
        at += width + size
        return payload[at - size : at]

    ns, key, value, tlv = take(2), take(2), take(4), take(2)
    assert at == len(payload)
    options = []
    while tlv:
        options.append((tlv[0], tlv[2 : 2 + tlv[1]]))
        tlv = tlv[2 + tlv[1] :]
    return Asked(opcode, id, ns.decode(), key, value, options)


class FakeServer:
    """Answers what `answer` says, in the order of arrival. `asked` has all requests."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.reads = 0  # how many times bytes arrived
        self.writers: list[asyncio.StreamWriter] = []
        self.connected = asyncio.Event()
        self.got = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def send(self, data: bytes) -> None:
        self.writers[-1].write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.writers.append(writer)
        self.connected.set()
        buffer = b""
        try:
            while data := await reader.read(1 << 20):
                self.reads += 1
                buffer += data
                while len(buffer) >= 32 and len(buffer) >= 32 + int.from_bytes(buffer[4:8], "little"):
                    size = 32 + int.from_bytes(buffer[4:8], "little")
                    asked = parse_request(buffer[:32], buffer[32:size])
                    buffer = buffer[size:]
                    self.asked.append(asked)
                    self.got.set()
                    answer = self.answer(asked)
                    if answer is not None:
                        status, body = (0, answer) if isinstance(answer, bytes) else answer
                        writer.write(reply_frame(asked.id, status, body))
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def fake_server(answer: Answer) -> AsyncIterator[FakeServer]:
    server = FakeServer(answer)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
