"""FloClient's connection: endpoints, time-outs, broken replies, calls in flight together, reconnecting."""

from __future__ import annotations

import asyncio
import struct

import pytest

import flo
from flo import FloClient
from flo.client import connection
from tests.client.fake_server import Asked, FakeServer, fake_server, reply_frame
from tests.client.real_server import real_server

VALUE = struct.pack("<Q", 7) + b"v"
KV_PUT, KV_GET, DEQUEUE = 0x100, 0x101, 0x171


def never(asked: Asked) -> None:
    return None


def value(asked: Asked) -> bytes:
    return VALUE


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("localhost:9000", "localhost:9000"),
        ("flo://h:1", "h:1"),
        ("[::1]:1", "[::1]:1"),
        ("flo://[::1]:65535", "[::1]:65535"),
        ("10.0.0.1:9000/", "10.0.0.1:9000"),
    ],
)
def test_endpoints_that_are_accepted(endpoint: str, shown: str):
    assert str(FloClient(endpoint).endpoint) == shown


@pytest.mark.parametrize(
    "endpoint",
    ["host", "", "host:", "host:0", "host:65536", "host:x", "host:-1", ":1", "http://h:1", "flos://h:1", "::1:9000",
     "a b:1", "user@h:1", "host:1e3"],
)  # fmt: skip
def test_endpoints_that_are_refused(endpoint: str):
    with pytest.raises(flo.InvalidEndpointError):
        FloClient(endpoint)


async def test_a_client_that_is_not_connected_refuses_calls():
    client = FloClient("127.0.0.1:1")

    with pytest.raises(flo.NotConnectedError, match="not connected"):
        await client.kv.get("k")
    assert not client.is_connected


async def test_nobody_at_the_endpoint_is_a_failed_connection():
    with pytest.raises(flo.ConnectionFailedError) as raised:
        await FloClient("127.0.0.1:1").connect()

    assert isinstance(raised.value, ConnectionError) and isinstance(raised.value, flo.FloError)


async def test_connecting_and_closing_may_be_repeated():
    async with fake_server(value) as server:
        client = FloClient(server.endpoint)
        assert await client.connect() is client
        await client.connect()
        await client.kv.get("k")
        assert client.is_connected and len(server.writers) == 1
        await client.close()
        await client.close()

        assert not client.is_connected
        with pytest.raises(flo.NotConnectedError):
            await client.kv.get("k")


async def test_a_call_without_a_reply_times_out_and_drops_the_connection():
    async with fake_server(never) as server, FloClient(server.endpoint, timeout_ms=100) as client:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(flo.FloTimeoutError) as raised:
            await client.kv.get("k")

        assert 0.09 <= loop.time() - began < 2
        assert isinstance(raised.value, TimeoutError)
        assert not client.is_connected
        with pytest.raises(flo.NotConnectedError, match="not answered in time"):
            await client.kv.get("k")


async def test_calls_beside_one_that_times_out_end_with_the_connection():
    async with fake_server(never) as server, FloClient(server.endpoint, timeout_ms=100) as client:
        waiting = asyncio.create_task(client.kv.get("other", flo.GetOptions(block_ms=60_000)))
        await asyncio.sleep(0)
        with pytest.raises(flo.FloTimeoutError):
            await client.kv.get("k")

        with pytest.raises(flo.NotConnectedError):
            await waiting


async def test_a_wait_extends_the_time_out():
    def late(asked: Asked) -> bytes | None:
        if asked.opcode == DEQUEUE:
            asyncio.get_running_loop().call_later(0.3, lambda: server.send(reply_frame(asked.id, 0, bytes(4))))
            return None
        return VALUE

    async with fake_server(late) as server, FloClient(server.endpoint, timeout_ms=100) as client:
        result = await client.queue.dequeue("q", 1, flo.DequeueOptions(block_ms=1_000))

        assert result.messages == [] and client.is_connected


async def test_a_call_that_was_given_up_does_not_drop_the_connection():
    async with fake_server(lambda asked: None if asked.key == b"slow" else VALUE) as server:
        async with FloClient(server.endpoint, timeout_ms=100) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.kv.get("slow"), 0.01)
            # the time of the first call passes; a second one, later, is answered
            ended = asyncio.get_running_loop().time() + 0.12
            while asyncio.get_running_loop().time() < ended:
                await client.kv.get("k")

            assert client.is_connected


async def test_replies_find_their_calls_in_any_order():
    held: list[Asked] = []

    def reversed_order(asked: Asked) -> None:
        held.append(asked)
        if len(held) == 10:
            for each in reversed(held):
                server.send(reply_frame(each.id, 0, struct.pack("<Q", 1) + each.key))

    async with fake_server(reversed_order) as server, FloClient(server.endpoint) as client:
        results = await asyncio.gather(*(client.kv.get(f"k{i}") for i in range(10)))

    assert [result.value for result in results if result] == [b"k%d" % i for i in range(10)]


async def test_calls_of_one_turn_of_the_loop_travel_together():
    async with fake_server(value) as server, FloClient(server.endpoint) as client:
        await asyncio.gather(*(client.kv.get(f"k{i}") for i in range(200)))

        assert len(server.asked) == 200 and server.reads == 1


async def test_a_reply_that_comes_in_pieces_and_one_nobody_waits_for():
    def answer(asked: Asked) -> None:
        frame = reply_frame(999, 0, b"for nobody") + reply_frame(asked.id, 0, VALUE)
        for at in range(len(frame)):
            server.send(frame[at : at + 1])

    async with fake_server(answer) as server, FloClient(server.endpoint) as client:
        assert await client.kv.get("k") == flo.GetResult(b"v", 7)


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (reply_frame(1, 0, VALUE, magic=b"HTTP"), flo.InvalidMagicError),
        (reply_frame(1, 0, VALUE, version=2), flo.UnsupportedVersionError),
        (reply_frame(1, 0, VALUE, wrong=1), flo.InvalidChecksumError),
        (b"FLO\0" + struct.pack("<I", 2**31) + bytes(12) + b"\1" + bytes(11), flo.PayloadTooLargeError),
    ],
)
async def test_a_broken_reply_is_a_protocol_error_and_closes(frame: bytes, error: type[flo.ProtocolError]):
    def broken(asked: Asked) -> None:
        server.send(frame)

    async with fake_server(broken) as server, FloClient(server.endpoint) as client:
        with pytest.raises(error):
            await client.kv.get("k")
        assert not client.is_connected


async def test_reserved_bytes_that_are_not_zero_are_a_protocol_error():
    def broken(asked: Asked) -> None:
        from tests.client.fake_server import crc

        header = bytearray(reply_frame(asked.id, 0, b""))
        header[25] = 1
        header[16:20] = struct.pack("<I", crc(bytes(header), b""))
        server.send(bytes(header))

    async with fake_server(broken) as server, FloClient(server.endpoint) as client:
        with pytest.raises(flo.InvalidReservedFieldError):
            await client.kv.get("k")


async def test_a_refusal_without_a_request_ends_the_connection_with_its_text():
    def refused(asked: Asked) -> None:
        server.send(reply_frame(0, 3, b"too many cooks"))

    async with fake_server(refused) as server, FloClient(server.endpoint) as client:
        with pytest.raises(flo.BadRequestError, match="too many cooks"):
            await client.kv.get("k")
        assert not client.is_connected


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (1, flo.GenericServerError), (3, flo.BadRequestError), (4, flo.GenericServerError), (7, flo.UnauthorizedError),
        (8, flo.ConflictError), (9, flo.InternalServerError), (10, flo.OverloadedError), (11, flo.RateLimitedError),
        (12, flo.GenericServerError), (200, flo.GenericServerError),
    ],
)  # fmt: skip
async def test_a_status_becomes_its_error_and_leaves_the_connection(status: int, error: type[flo.ServerError]):
    async with fake_server(lambda asked: (status, b"because")) as server, FloClient(server.endpoint) as client:
        with pytest.raises(error, match="because") as raised:
            await client.kv.get("k")
        assert raised.value.status_code == status and client.is_connected

        server.answer = lambda asked: (status, b"")
        with pytest.raises(error) as raised:
            await client.kv.get("k")
        assert raised.value.message


async def test_the_server_closes_in_mid_call():
    async with fake_server(lambda asked: server.writers[-1].close()) as server:
        async with FloClient(server.endpoint) as client:
            with pytest.raises(flo.UnexpectedEofError):
                await client.kv.get("k")
            assert not client.is_connected


async def test_interrupt_ends_a_long_wait():
    async with fake_server(never) as server, FloClient(server.endpoint) as client:
        waiting = asyncio.create_task(client.kv.get("k", flo.GetOptions(block_ms=300_000)))
        await server.got.wait()
        client.interrupt()

        with pytest.raises(flo.NotConnectedError, match="interrupted"):
            await waiting
        assert not client.is_connected


async def test_reconnect_finds_the_server_that_comes_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flo.client.flo_client.RECONNECT_FIRST", 0.01)
    server = FakeServer(value)
    await server.start()
    client = await FloClient(server.endpoint).connect()
    await server.stop()

    again = asyncio.create_task(client.reconnect(30))
    asyncio.get_running_loop().call_later(
        0.1, lambda: restarted.append(asyncio.ensure_future(server.start(server.port)))
    )
    restarted: list[asyncio.Future[None]] = []
    await again

    assert client.is_connected and await client.kv.get("k") == flo.GetResult(b"v", 7)
    await client.close()
    await server.stop()


async def test_reconnect_gives_up_in_time():
    client = FloClient("127.0.0.1:1")

    with pytest.raises(flo.ConnectionFailedError, match=r"within 0\.05 s"):
        await client.reconnect(0.05)


async def test_tasks_that_reconnect_together_share_the_connection():
    async with fake_server(value) as server:
        client = FloClient(server.endpoint)
        await asyncio.gather(*(client.reconnect(5) for _ in range(5)))

        assert len(server.writers) == 1
        await client.reconnect(5)
        await client.kv.get("k")
        assert len(server.writers) == 2
        await client.close()


async def test_a_server_that_does_not_read_is_not_fed_without_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "OUTGOING_BYTES", 1_000)
    async with fake_server(value) as server, FloClient(server.endpoint) as client:
        calls = [client.kv.put(f"k{i}", b"x" * 600) for i in range(4)]
        results = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(result) for result in results].count(flo.OverloadedError) == 2


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda c: c.kv.get("k" * 65_536), flo.KeyTooLargeError),
        (lambda c: c.kv.put("k", bytes(16 * 1024 * 1024 + 1)), flo.ValueTooLargeError),
        (lambda c: c.kv.get("k", flo.GetOptions(namespace="n" * 256)), flo.NamespaceTooLargeError),
        (lambda c: c.kv.get("k", flo.GetOptions(namespace="é" * 128)), flo.NamespaceTooLargeError),
        (lambda c: c.kv.get("k", flo.GetOptions(block_ms=300_001)), flo.BlockTooLongError),
        (lambda c: c.queue.dequeue("q", 1, flo.DequeueOptions(block_ms=300_001)), flo.BlockTooLongError),
        (lambda c: c.stream.read("s", flo.StreamReadOptions(block_ms=300_001)), flo.BlockTooLongError),
        (lambda c: c.kv.get("k", flo.GetOptions(block_ms=1, watch_ms=1)), flo.ValidationError),
        (lambda c: c.kv.put("k", b"", flo.PutOptions(if_not_exists=True, if_exists=True)), flo.ValidationError),
        (lambda c: c.kv.put("k", b"", flo.PutOptions(if_not_exists=True, cas_version=1)), flo.ValidationError),
        (lambda c: c.kv.put("k", b"", flo.PutOptions(ttl_seconds=1, ttl_ms=1)), flo.ValidationError),
        (lambda c: c.kv.put("k", b"", flo.PutOptions(ttl_seconds=-1)), flo.ValidationError),
        (lambda c: c.kv.put("k", object()), flo.ValidationError),
        (lambda c: c.kv.mget([str(i) for i in range(257)]), flo.ValidationError),
        (lambda c: c.kv.mget([]), flo.ValidationError),
        (lambda c: c.kv.incr("k", flo.KVIncrOptions(delta=2**63)), flo.ValidationError),
        (lambda c: c.kv.touch("k"), flo.ValidationError),
        (lambda c: c.queue.enqueue("q", b"", flo.EnqueueOptions(priority=256)), flo.ValidationError),
        (lambda c: c.queue.enqueue("q", b"", flo.EnqueueOptions(dedup_key="k" * 257)), flo.ValidationError),
        (lambda c: c.queue.ack("q", []), flo.ValidationError),
        (lambda c: c.stream.append("s", b"", flo.StreamAppendOptions({}, "k", 0)), flo.ValidationError),
        (lambda c: c.stream.trim("s", flo.StreamTrimOptions()), flo.ValidationError),
        (lambda c: c.stream.trim("s", flo.StreamTrimOptions(max_len=1, max_bytes=1)), flo.ValidationError),
        (lambda c: c.stream.read("s", flo.StreamReadOptions(start="x")), flo.ValidationError),
        (lambda c: c.stream.read("s", flo.StreamReadOptions(start="1-0", after="1-0")), flo.ValidationError),
        (lambda c: c.stream.group_ack("s", "g", []), flo.ValidationError),
    ],
)  # fmt: skip
async def test_what_cannot_be_sent_is_refused_before_it_is(call, error: type[flo.ValidationError]):
    async with fake_server(value) as server, FloClient(server.endpoint) as client:
        with pytest.raises(error) as raised:
            await call(client)

        assert server.asked == [] and isinstance(raised.value, flo.BadArgument)


async def test_two_hundred_tasks_share_a_client():
    async with real_server() as server, FloClient(server.endpoint) as client:
        results = await asyncio.gather(*(client.kv.incr("n") for _ in range(200)))

    assert sorted(results) == list(range(1, 201))


async def test_reconnect_after_the_server_was_restarted():
    async with real_server() as server, FloClient(server.endpoint) as client:
        await client.kv.put("before", b"1")
        await server.stop()
        await server.start()
        await client.reconnect(30)

        assert bytes(await client.kv.get("before") or b"") == b"1"
