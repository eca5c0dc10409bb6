"""Connections of all protocols on one node: what they share, and what the end of one means."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from flo.grid.node import Node
from flo.log.memory import MemoryBackend
from flo.primitives.queue_events import QueueHandedOut
from flo.primitives.stream_pages import GroupSettings
from flo.wire import opcodes
from flo.wire.frames import encode_request
from flo.wire.layouts import text16
from flo.wire.statuses import OVERLOADED
from flo.wire.tlv import BLOCK_MS
from tests.server.support import Client, served, until


class Nodes:
    """A node as `served` wants it: its store, with the backend that may be held."""

    def __init__(self) -> None:
        self.backend = MemoryBackend()
        self.node = Node.open(self.backend)
        self.store = self.node.store


@pytest.fixture
def node() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.backend.release()
    nodes.node.close()


def enqueue(id: int, payload: bytes) -> bytes:
    return encode_request(opcodes.QUEUE_ENQUEUE, id, "default", b"jobs", payload)


def dequeue(id: int, block_ms: int | None = None) -> bytes:
    options = {} if block_ms is None else {BLOCK_MS: block_ms.to_bytes(4, "little")}
    return encode_request(opcodes.QUEUE_DEQUEUE, id, "default", b"jobs", b"", options)


async def test_what_one_protocol_writes_the_other_reads(node):
    async with served(node.store, backend=node.backend) as connections:
        wire, resp = await Client.to(connections), await Client.to(connections)
        wire.send(encode_request(opcodes.KV_PUT, 1, "default", b"k", b"v"))
        assert (await wire.reply()).status == 0
        resp.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
        assert await resp.reader.readexactly(7) == b"$1\r\nv\r\n"
        assert connections.by_protocol == {"wire": 1, "resp": 1, "websocket": 0, "http": 0}


async def test_a_parked_dequeue_is_served_by_another_connection_and_holds_back_nothing(node):
    async with served(node.store, backend=node.backend) as connections:
        consumer, producer = await Client.to(connections), await Client.to(connections)
        consumer.send(dequeue(1, 60_000) + encode_request(opcodes.PING, 2))
        assert (await consumer.reply()).request_id == 2
        node.backend.hold()
        producer.send(enqueue(1, b"job"))
        await asyncio.to_thread(node.backend.wait_held)
        out = connections.bytes_out
        node.backend.release()
        reply = await consumer.reply()
        assert reply.request_id == 1 and b"job" in reply.body
        assert connections.bytes_out > out
        assert (await producer.reply()).status == 0


async def test_a_closed_connection_takes_no_message_with_it(node):
    async with served(node.store, backend=node.backend) as connections:
        gone, here = await Client.to(connections), await Client.to(connections)
        gone.send(dequeue(1, 60_000))
        await until(lambda: connections.turns.requests == 1)
        await gone.close()
        await until(lambda: len(connections.links) == 1)
        here.send(enqueue(1, b"job"))
        assert (await here.reply()).status == 0
        here.send(dequeue(2))
        assert b"job" in (await here.reply()).body


async def test_a_member_bound_to_a_connection_leaves_with_it(node):
    with node.store.lock:
        node.store.begin(0)
        node.store.group_create("default", "s", "g", GroupSettings(mode="exclusive", max_standbys=0), None)
        node.store.end()
    join = encode_request(opcodes.GROUP_JOIN, 1, "default", b"s", text16("g") + text16("one"))
    other = encode_request(opcodes.GROUP_JOIN, 2, "default", b"s", text16("g") + text16("two"))
    async with served(node.store, backend=node.backend) as connections:
        first, second = await Client.to(connections), await Client.to(connections)
        first.send(join)
        assert (await first.reply()).status == 0
        second.send(other)
        assert (await second.reply()).status != 0
        await first.close()
        await until(lambda: len(connections.links) == 1)
        second.send(other)
        assert (await second.reply()).status == 0


async def test_a_fault_in_memory_ends_what_rests_on_it_and_the_next_memory_serves_at_once(node):
    def fault(*_: object) -> None:
        raise RuntimeError("injected")

    async with served(node.store, backend=node.backend) as connections:
        wire, resp, writer, later = [await Client.to(connections) for _ in range(4)]
        writer.send(enqueue(1, b"job"))
        assert (await writer.reply()).status == 0
        wire.send(
            encode_request(opcodes.KV_GET, 1, "default", b"none", b"", {BLOCK_MS: (60_000).to_bytes(4, "little")})
        )
        resp.send(b"*3\r\n$5\r\nBRPOP\r\n$5\r\nother\r\n$1\r\n0\r\n")
        await until(lambda: node.node.partition.waiters.count == 2)
        with node.store.lock:
            node.node.partition.machines.by_kind[QueueHandedOut.KIND] = fault
        writer.send(enqueue(2, b"job") + enqueue(3, b"job") + dequeue(4))

        assert await writer.rest() == b""  # what is in the log is not known
        told = await wire.reply()
        assert told.request_id == 1 and told.status == OVERLOADED and b"outcome unknown" in told.body
        assert (await resp.reader.readline()).startswith(b"-CLUSTERDOWN outcome unknown")
        await until(lambda: node.node.partition.broken is None)
        for number in range(3):
            later.send(enqueue(number, b"job"))
            assert (await later.reply()).status == 0
        wire.send(dequeue(2))
        assert b"job" in (await wire.reply()).body
    assert node.node.lost is None
