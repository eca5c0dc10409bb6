"""Connections on real sockets: which protocol they speak, the binary protocol, its bounds, their end."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from typing import Any

import pytest

from flo.log.errors import LogError
from flo.server.link import INLINE_LINES, ClientLink, detect
from flo.server.listener import Listener, PortUnusable
from flo.server.turn_link import REPLY_BYTES
from flo.wire.frames import MAGIC, REQUEST_PAYLOAD_BYTES, ReplyScanner, encode_reply, encode_request
from flo.wire.statuses import OVERLOADED
from tests.server.support import BREAK, ECHO, FILL, GET, PUT, WAIT, Client, LittleStore, only_link, served, until

pytestmark = pytest.mark.usefixtures("little")


def put(id: int, key: bytes = b"k", value: bytes = b"v") -> bytes:
    return encode_request(PUT, id, "default", key, value)


def echo(id: int, value: bytes = b"v") -> bytes:
    return encode_request(ECHO, id, "default", b"", value)


def fill(id: int, size: int) -> bytes:
    return encode_request(FILL, id, "default", b"", size.to_bytes(8, "little"))


@pytest.mark.parametrize(
    ("first", "protocol"),
    [
        (b"", None),
        (b"F", None),
        (b"FLO", None),
        (b"FLO\0", "wire"),
        (b"FLO\1", ""),
        (b"FOO", ""),
        (b"*1\r\n", "resp"),
        (b"$", "resp"),
        (b":", "resp"),
        (b"P", None),
        (b"PING", None),
        (b"PING\r\n", "resp"),
        (b"quit\n", "resp"),
        (b"Ping\r\n", ""),
        (b"PING hello\r\n", ""),
        (b"PUT / HTTP/1.1", "http"),
        (b"GE", None),
        (b"GET ", "http"),
        (b"GET\r\n", ""),
        (b"get k\r\n", ""),
        (b"\x16\x03\x01", ""),
    ],
)
def test_the_first_bytes_tell_the_protocol(first, protocol):
    assert detect(first) == protocol


def test_a_protocol_is_told_the_same_however_few_bytes_arrive_at_a_time():
    for line in (*INLINE_LINES, MAGIC, b"GET / HTTP/1.1\r\n", b"*1\r\n", b"xyz"):
        told = [protocol for end in range(len(line) + 1) if (protocol := detect(line[:end])) is not None]
        assert set(told) == {detect(line)}


async def test_a_request_is_answered(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(put(7))
        reply = await client.reply()

        assert (reply.status, reply.request_id, reply.body) == (0, 7, (1).to_bytes(8, "little"))
        assert connections.by_protocol["wire"] == 1
        assert connections.bytes_in == len(put(7))
        assert connections.bytes_out == len(encode_reply(0, 7, bytes(8)))
        await client.close()


async def test_requests_that_arrive_byte_by_byte_are_answered(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in put(1) + echo(2, b"abc"):
            seen = connections.bytes_in
            client.send(bytes((byte,)))
            await until(lambda: connections.bytes_in > seen)  # noqa: B023

        assert (await client.reply()).status == 0
        assert (await client.reply()).body == b"abc"
        await client.close()


async def test_thousands_of_requests_in_flight_are_answered_in_order_in_few_batches(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(b"".join(put(number) for number in range(5_000)))
        ids = [(await client.reply()).request_id for _ in range(5_000)]

        assert ids == list(range(5_000))
        assert len(store.batches) < 200
        await client.close()


async def test_many_connections_at_once_are_served_in_few_batches(store):
    async with served(store) as connections:
        clients = [await Client.to(connections) for _ in range(50)]
        for client in clients:
            client.send(put(1))
        for client in clients:
            assert (await client.reply()).status == 0
        assert sum(store.batches) == 50
        for client in clients:
            await client.close()


async def test_a_reply_leaves_only_when_its_batch_is_durable(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        store.backend.hold()
        client.send(put(1) + encode_request(GET, 2, "default", b"k"))
        await asyncio.to_thread(store.backend.wait_held)
        await until(lambda: sum(store.batches) == 2)
        assert connections.bytes_out == 0

        store.backend.release()
        assert (await client.reply()).request_id == 1
        assert (await client.reply()).body == b"v"
        await client.close()


async def test_a_lost_log_closes_the_connection_without_an_answer(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        store.backend.fail(1, LogError("the disk is gone"))
        client.send(put(1))
        assert await client.rest() == b""
        await until(lambda: not connections.links)


async def test_a_wait_holds_back_no_later_request_and_is_served_later(store):
    async with served(store) as connections:
        client, other = await Client.to(connections), await Client.to(connections)
        client.send(encode_request(WAIT, 1, "default", b"k") + echo(2))
        assert (await client.reply()).request_id == 2

        other.send(put(1, b"k", b"here"))
        reply = await client.reply()
        assert (reply.request_id, reply.body) == (1, b"here")
        assert (await other.reply()).status == 0
        await client.close()
        await other.close()


async def test_waits_of_a_closed_connection_are_cancelled_at_once_and_what_it_held_is_let_go(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(encode_request(WAIT, 1, "default", b"k"))
        await until(lambda: store.waits.get(b"k"))
        link = only_link(connections)
        await client.close()

        await until(lambda: store.gone)
        assert store.waits[b"k"] == []
        assert set(store.gone) == {link}
        await until(lambda: not connections.links)


async def test_waits_of_a_reset_connection_are_cancelled(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(encode_request(WAIT, 1, "default", b"k"))
        await until(lambda: store.waits.get(b"k"))
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()

        await until(lambda: not store.waits[b"k"])
        await until(lambda: not connections.links)


async def test_a_client_that_sends_nothing_more_is_still_answered(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(put(1) + encode_request(WAIT, 2, "default", b"other") + echo(3))
        client.writer.write_eof()
        assert (await client.reply()).request_id == 1
        assert (await client.reply()).request_id == 3
        assert await client.rest() == b""
        assert store.waits[b"other"] == []
        await until(lambda: not connections.links)


# --- frames that cannot be served

GOOD = put(1)


def broken(at: int, to: int) -> bytes:
    return GOOD[:at] + bytes((to,)) + GOOD[at + 1 :]


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (broken(16, GOOD[16] ^ 1), b"checksum"),
        (broken(40, GOOD[40] ^ 1), b"checksum"),
        (broken(22, 9), b"version"),
        (broken(22, 1)[:4] + struct.pack("<I", REQUEST_PAYLOAD_BYTES + 1) + GOOD[8:32], b"limit"),
    ],
)
async def test_a_frame_that_cannot_be_served_is_answered_with_id_0_and_the_connection_closed(store, frame, text):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(echo(5) + frame + echo(6))
        assert (await client.reply()).request_id == 5
        reply = await client.reply()
        assert (reply.status, reply.request_id) == (3, 0)
        assert text in reply.body
        assert await client.rest() == b""
        await client.close()
        await until(lambda: not connections.links)


async def test_an_announced_payload_over_the_limit_is_refused_before_it_arrives(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(MAGIC + struct.pack("<I", 100 * 1024 * 1024) + GOOD[8:24])
        reply = await client.reply()
        assert (reply.status, reply.request_id) == (3, 0)
        assert await client.rest() == b""
        await client.close()


async def test_the_reason_reaches_a_client_that_is_still_sending(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(MAGIC + struct.pack("<I", 100 * 1024 * 1024) + GOOD[8:32] + bytes(8 * 1024 * 1024))
        assert (await client.reply()).status == 3
        assert await client.rest() == b""
        await client.close()


async def test_a_wrong_magic_closes_the_connection_without_a_word(store):
    async with served(store) as connections:
        for first in (b"FLX\0" + bytes(40), b"\x16\x03\x01" + bytes(40), echo(1)[:4] + b"x"):
            client = await Client.to(connections)
            client.send(first)
            client.writer.write_eof()
            assert await client.rest() == b""


async def test_clients_of_other_dialects_are_told_in_their_own_frames(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        client.send(
            bytes.fromhex("464c4f001a0000006500000000000000a746bcab01300000070064656661756c740600757365723a3101")
        )
        told = await client.rest()
        assert told[:4] == MAGIC and told[8:16] == bytes(8)
        assert (told[20], told[21]) == (1, 3)
        assert len(told) == 24 + struct.unpack_from("<I", told, 4)[0]
        assert b"compact" in told
        await client.close()

        client = await Client.to(connections)
        client.send(bytes.fromhex("464c4f001e00000065000000000000004daa0dca00010200301894aed97dba2f070064656661756c74"))
        told = await client.rest()
        assert (told[20], told[21]) == (2, 3) and told[24:32].hex() == "301894aed97dba2f"
        assert struct.unpack_from("<HB", told, 32) == (3, 0)
        await client.close()


async def test_a_request_that_breaks_closes_its_connection_and_no_other(store):
    async with served(store) as connections:
        client, other = await Client.to(connections), await Client.to(connections)
        client.send(encode_request(BREAK, 1))
        assert await client.rest() == b""
        other.send(echo(1))
        assert (await other.reply()).status == 0
        await other.close()


class SlowTransport:
    """Of a client that reads what is left in some steps."""

    def __init__(self, *left: int) -> None:
        self.left = [*left]
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.left.pop(0)

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("left", [(900, 500, 100, 0, 0), (900, 500, 500), (0, 0)])
async def test_a_client_that_sends_nothing_more_has_time_while_it_reads(store, left, monkeypatch):
    class Loop:
        def __init__(self) -> None:
            self.later: list[tuple[Any, tuple[Any, ...]]] = []

        def call_later(self, seconds: float, call: Any, *args: Any) -> None:
            self.later.append((call, args))

    async with served(store) as connections:
        link = ClientLink(connections)
        link.protocol = "wire"
        link.transport = transport = SlowTransport(*left)
        monkeypatch.setattr(connections, "loop", loop := Loop())
        link.over()
        while loop.later:
            assert not transport.aborted
            call, args = loop.later.pop()
            call(*args)
        assert transport.aborted and not transport.left
        monkeypatch.undo()


# --- bounds


async def test_a_client_that_does_not_read_is_bounded_and_harms_nobody(store):
    size = 1024 * 1024
    async with served(store) as connections:
        client = await Client.to(connections)
        client.writer.transport.pause_reading()
        client.send(b"".join(fill(number, size) for number in range(200)))
        await until(lambda: only_link(connections).full)
        begun = sum(store.batches)
        assert begun * size <= REPLY_BYTES + 12 * size  # the sockets hold some

        other = await Client.to(connections)
        other.send(echo(1))
        assert (await other.reply()).status == 0
        assert sum(store.batches) == begun + 1

        client.writer.transport.resume_reading()
        for number in range(200):
            assert (await client.reply()).request_id == number
        await client.close()
        await other.close()


async def test_a_client_that_sends_faster_than_it_is_served_is_not_read_on(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        store.pending = 1 << 40
        block = b"".join(echo(number, bytes(1_000)) for number in range(1_000))
        client.send(block * 40)
        await until(lambda: connections.links and only_link(connections).paused)
        read = connections.bytes_in
        for _ in range(50):
            await asyncio.sleep(0)
        assert connections.bytes_in == read < 4 * 1024 * 1024
        store.pending = 0
        connections.turns._unblock()
        for number in range(40_000):
            assert (await client.reply()).request_id == number % 1_000
        await client.close()


async def test_requests_that_never_arrive_in_full_have_a_bound_together(store):
    half = put(7, value=bytes(200_000))[:150_000]
    async with served(store, unread_limit=400_000) as connections:
        clients = [await Client.to(connections) for _ in range(4)]
        for number, client in enumerate(clients[:2]):
            client.send(half)
            await until(lambda number=number: connections.unread == (number + 1) * len(half))
        clients[2].send(half)
        told = await clients[2].reply()
        assert (told.status, told.request_id) == (OVERLOADED, 0) and b"try again" in told.body

        clients[3].send(put(1))  # whoever sends whole requests is served
        assert (await clients[3].reply()).status == 0
        await clients[0].close()
        await clients[2].close()
        await until(lambda: connections.unread == len(half))
        clients[1].send(put(7, value=bytes(200_000))[150_000:])
        assert (await clients[1].reply()).request_id == 7
        assert connections.unread == 0
        await clients[1].close()
        await clients[3].close()


async def test_replies_that_nobody_reads_have_a_bound_together(store):
    size = 1024 * 1024
    async with served(store, unsent_limit=12 * size) as connections:
        clients = [await Client.to(connections) for _ in range(4)]
        for client in clients:
            client.writer.transport.pause_reading()
            client.send(b"".join(fill(number, size) for number in range(16)))
        await until(lambda: len(connections.links) < 4)
        other = await Client.to(connections)
        other.send(echo(1))
        assert (await other.reply()).status == 0
        assert connections.unsent <= 12 * size

        for client in clients:
            client.writer.transport.abort()
        await until(lambda: len(connections.links) == 1)
        assert connections.unsent == 0
        await other.close()


async def test_connections_over_the_limit_are_closed_and_those_before_go_on(store):
    async with served(store, limit=2) as connections:
        clients = [await Client.to(connections) for _ in range(2)]
        for client in clients:
            client.send(echo(1))
            await client.reply()
        third = await Client.to(connections)
        assert await third.rest() == b""
        assert connections.refused == 1
        clients[0].send(echo(2))
        assert (await clients[0].reply()).request_id == 2
        for client in (*clients, third):
            await client.close()


async def fuzz(frames: int, seed: int) -> None:
    """Sends damaged, cut and joined frames over many connections; the server must answer or close, and live on."""
    chance = random.Random(seed)
    store = LittleStore()
    samples = [put(1), echo(2, b"x" * 300), encode_request(GET, 3, "ns", b"key"), GOOD[:31], b"GET / HTTP/1.1\r\n\r\n"]
    sent = 0
    try:
        async with served(store) as connections:
            while sent < frames:
                client = await Client.to(connections)
                parts = []
                for _ in range(chance.randrange(1, 60)):
                    frame = bytearray(chance.choice(samples))
                    for _ in range(chance.choice((0, 0, 0, 1, 3))):
                        frame[chance.randrange(len(frame))] = chance.randrange(256)
                    if chance.random() < 0.02:
                        del frame[chance.randrange(len(frame)) :]
                    parts.append(bytes(frame))
                    sent += 1
                data = b"".join(parts)
                while data:
                    cut = chance.choice((1, 7, 40, 1 << 20))
                    client.send(data[:cut])
                    data = data[cut:]
                    if chance.random() < 0.1:
                        await asyncio.sleep(0)
                client.writer.write_eof()
                answered = await client.rest()
                if answered.startswith(MAGIC) and answered[20] == 1 and len(answered) >= 32:
                    scanner = ReplyScanner()
                    scanner.feed(answered)
                    assert scanner.error is None or answered[22:24] == b"\0\0"
                await client.close()
            await until(lambda: not connections.links)
            client = await Client.to(connections)
            client.send(echo(1))
            assert (await client.reply()).status == 0
            await client.close()
            assert connections.turns._arrived == 0
    finally:
        store.close()


async def test_damaged_frames_are_answered_or_end_their_connection(request):
    await fuzz(3_000, seed=20_260)


# --- the port


async def test_a_port_in_use_is_one_clear_error(store):
    async with served(store) as connections:
        with pytest.raises(PortUnusable) as told:
            await Listener(connections).open("127.0.0.1", connections.port)
        assert str(connections.port) in str(told.value) and "in use" in str(told.value)
        with pytest.raises(PortUnusable):
            await Listener(connections).open("203.0.113.9", 0)


async def test_a_server_that_stops_answers_what_has_arrived_and_closes(store):
    async with served(store) as connections:
        client = await Client.to(connections)
        store.backend.hold()
        client.send(put(1) + encode_request(WAIT, 2, "default", b"other"))
        await asyncio.to_thread(store.backend.wait_held)
        await until(lambda: sum(store.batches) == 2)
        stopping = asyncio.ensure_future(connections.listener.close())
        await until(lambda: store.waits[b"other"] == [])
        store.backend.release()
        await stopping
        assert (await client.reply()).request_id == 1
        assert await client.rest() == b""
