"""What FloClient's calls send, byte for byte, and what they make of replies made by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

import flo
from flo import FloClient, StreamID
from tests.client.fake_server import Asked, fake_server


def u16(n: int) -> bytes:
    return struct.pack("<H", n)


def u32(n: int) -> bytes:
    return struct.pack("<I", n)


def u64(n: int) -> bytes:
    return struct.pack("<Q", n)


def str16(data: bytes) -> bytes:
    return u16(len(data)) + data


def str32(data: bytes) -> bytes:
    return u32(len(data)) + data


def record(ms: int, seq: int, payload: bytes, headers: tuple[tuple[bytes, bytes], ...] = (), tier: int = 0) -> bytes:
    fields = u64(seq) + u64(ms) + bytes([tier]) + u32(0) + b"\1" + str32(b"events") + str32(payload) + u32(len(headers))
    return fields + b"".join(str32(name) + str32(value) for name, value in headers)


RECORDS = u32(2) + record(1_700, 0, b"a", ((b"h", b"v"),)) + record(1_700, 1, b"b", (), 2)
MESSAGES = u32(1) + u64(5) + str32(b"job")
INFO = struct.pack("<6QI", 5, 1, 9, 2, 3, 40, 2)
HISTORY = u32(1) + u64(9) + u64(1_700) + str32(b"old")
MGET = u32(2) + b"\0" + str16(b"a") + u64(3) + str32(b"x") + b"\2" + str16(b"b") + u64(0) + str32(b"")
PAGE = b"\1" + str32(b"CUR") + u32(1) + str16(b"k") + str32(b"v")
CLAIMED = RECORDS + b"\xff" * 16
PENDING = u32(1) + u64(1_700) + u64(2) + u32(4) + str16(b"w")

Call = Callable[[FloClient], Any]

CASES: dict[str, tuple[Call, Asked, bytes, Any]] = {
    "put": (
        lambda c: c.kv.put("k", "v"),
        Asked(0x100, 1, "default", b"k", b"v", []),
        u64(12),
        flo.PutResult(12),
    ),
    "put with all": (
        lambda c: c.kv.put("k", {"a": 1}, flo.PutOptions(ttl_seconds=60, cas_version=3, if_exists=True)),
        Asked(0x100, 1, "default", b"k", b'{"a":1}', [(1, u64(60)), (2, u64(3)), (4, b"")]),
        u64(12),
        flo.PutResult(12),
    ),
    "put with milliseconds that are seconds": (
        lambda c: c.kv.put("k", b"", flo.PutOptions(ttl_ms=5_000, if_not_exists=True)),
        Asked(0x100, 1, "default", b"k", b"", [(1, u64(5)), (3, b"")]),
        u64(1),
        flo.PutResult(1),
    ),
    "get": (
        lambda c: c.kv.get("k", flo.GetOptions(namespace="other")),
        Asked(0x101, 1, "other", b"k", b"", []),
        u64(12) + b"Ada",
        flo.GetResult(b"Ada", 12),
    ),
    "get until it is there": (
        lambda c: c.kv.get("k", flo.GetOptions(block_ms=500)),
        Asked(0x101, 1, "default", b"k", b"", [(0x17, u32(500))]),
        u64(1),
        flo.GetResult(b"", 1),
    ),
    "get the next version": (
        lambda c: c.kv.get("k", flo.GetOptions(watch_ms=500)),
        Asked(0x101, 1, "default", b"k", b"", [(0x18, u32(500))]),
        u64(1),
        flo.GetResult(b"", 1),
    ),
    "a wait of nothing is none": (
        lambda c: c.kv.get("k", flo.GetOptions(block_ms=0)),
        Asked(0x101, 1, "default", b"k", b"", []),
        u64(1),
        flo.GetResult(b"", 1),
    ),
    "delete": (
        lambda c: c.kv.delete("k", flo.DeleteOptions(if_match=4)),
        Asked(0x103, 1, "default", b"k", b"", [(2, u64(4))]),
        b"",
        None,
    ),
    "mget": (
        lambda c: c.kv.mget(["a", b"b"]),
        Asked(0x102, 1, "default", b"", u16(2) + str16(b"a") + str16(b"b"), []),
        MGET,
        [flo.MGetEntry("a", b"x", 3, True), flo.MGetEntry("b", b"", 0, False)],
    ),
    "scan": (
        lambda c: c.kv.scan("u:", flo.ScanOptions(limit=5, cursor=b"C", keys_only=True)),
        Asked(0x104, 1, "default", b"u:", u32(5) + b"C", [(6, b"\1")]),
        PAGE,
        flo.ScanResult([flo.ScanEntry("k", b"v")], b"CUR", True),
    ),
    "scan of nothing": (
        lambda c: c.kv.scan(),
        Asked(0x104, 1, "default", b"", u32(0), []),
        bytes(9),
        flo.ScanResult([], None, False),
    ),
    "history": (
        lambda c: c.kv.history("k", flo.HistoryOptions(limit=3)),
        Asked(0x105, 1, "default", b"k", b"", [(5, u32(3))]),
        HISTORY,
        [flo.VersionEntry(9, 1_700, b"old")],
    ),
    "incr": (
        lambda c: c.kv.incr("k", flo.KVIncrOptions(delta=-3)),
        Asked(0x10B, 1, "default", b"k", struct.pack("<q", -3), []),
        u64(7) + struct.pack("<q", -2),
        -2,
    ),
    "touch": (
        lambda c: c.kv.touch("k", 100, flo.KVTouchOptions(if_match=2)),
        Asked(0x113, 1, "default", b"k", u64(100), [(2, u64(2))]),
        b"",
        None,
    ),
    "persist": (lambda c: c.kv.persist("k"), Asked(0x114, 1, "default", b"k", b"", []), b"", None),
    "exists": (lambda c: c.kv.exists("k"), Asked(0x115, 1, "default", b"k", b"", []), u64(3) + b"\1", True),
    "json_set": (
        lambda c: c.kv.json_set("k", "$.a", "text"),
        Asked(0x10D, 1, "default", b"k", str16(b"$.a") + b'"text"', []),
        u64(3),
        flo.PutResult(3),
    ),
    "json_set of JSON text": (
        lambda c: c.kv.json_set("k", "$", b"[1, 2]"),
        Asked(0x10D, 1, "default", b"k", str16(b"$") + b"[1, 2]", []),
        u64(3),
        flo.PutResult(3),
    ),
    "json_get": (
        lambda c: c.kv.json_get("k", "$.a"),
        Asked(0x10C, 1, "default", b"k", b"$.a", []),
        u64(3) + b"[1]",
        flo.GetResult(b"[1]", 3),
    ),
    "json_del of the key": (
        lambda c: c.kv.json_del("k"),
        Asked(0x10E, 1, "default", b"k", b"$", []),
        b"",
        flo.PutResult(0),
    ),
    "enqueue": (
        lambda c: c.queue.enqueue("q", b"p", flo.EnqueueOptions(priority=9, delay_ms=10, dedup_key="d")),
        Asked(0x170, 1, "default", b"q", b"p", [(0x10, b"\x09"), (0x11, u64(10)), (0x13, b"d")]),
        u64(5),
        5,
    ),
    "enqueue plainly": (
        lambda c: c.queue.enqueue("q", b"p", flo.EnqueueOptions()),
        Asked(0x170, 1, "default", b"q", b"p", []),
        u64(5),
        5,
    ),
    "dequeue": (
        lambda c: c.queue.dequeue("q", 3, flo.DequeueOptions(block_ms=100)),
        Asked(0x171, 1, "default", b"q", b"", [(0x15, u32(3)), (0x12, u32(30_000)), (0x17, u32(100))]),
        MESSAGES,
        flo.DequeueResult([flo.Message(5, b"job")]),
    ),
    "queue touch": (
        lambda c: c.queue.touch("q", [5, 6]),
        Asked(0x17D, 1, "default", b"q", u32(2) + u64(5) + u64(6), []),
        u32(2),
        None,
    ),
    "peek": (
        lambda c: c.queue.peek("q", 2),
        Asked(0x17C, 1, "default", b"q", b"", [(0x15, u32(2))]),
        MESSAGES,
        flo.DequeueResult([flo.Message(5, b"job")]),
    ),
    "dlq_list": (
        lambda c: c.queue.dlq_list("q", flo.DlqListOptions(limit=7)),
        Asked(0x176, 1, "default", b"q", b"", [(5, u32(7))]),
        MESSAGES,
        flo.DlqListResult([flo.DeadLetter(5, b"job")]),
    ),
    "append": (
        lambda c: c.stream.append("events", b"p", flo.StreamAppendOptions({"h": "v"}, partition_key="key")),
        Asked(
            0x130, 1, "default", b"events",
            u32(1) + str32(b"p") + u16(1) + str16(b"h") + str16(b"v"), [(0x25, b"key")],
        ),
        u64(4) + u64(1_700),
        flo.StreamAppendResult(StreamID(1_700, 4)),
    ),
    "append many": (
        lambda c: c.stream.append_many("events", [b"a", "b"], flo.StreamAppendOptions(partition=1)),
        Asked(
            0x130, 1, "default", b"events", u32(2) + str32(b"a") + u16(0) + str32(b"b") + u16(0), [(0x24, u32(1))]
        ),
        u64(4) + u64(1_700),
        flo.StreamAppendManyResult(StreamID(1_700, 4), StreamID(1_700, 5), 2),
    ),
    "read": (
        lambda c: c.stream.read("events", flo.StreamReadOptions(start="1-2", end=StreamID(3, 4), partition=1)),
        Asked(
            0x131, 1, "default", b"events", b"",
            [(0x15, u32(10)), (0x21, struct.pack(">QQ", 1, 2)), (0x22, struct.pack(">QQ", 3, 4)), (0x24, u32(1))],
        ),
        RECORDS,
        flo.StreamReadResult(
            [
                flo.StreamRecord(StreamID(1_700, 0), "events", b"a", {"h": "v"}, 0, "hot", ((b"h", b"v"),)),
                flo.StreamRecord(StreamID(1_700, 1), "events", b"b", {}, 0, "warm"),
            ]
        ),
    ),
    "read after": (
        lambda c: c.stream.read("events", flo.StreamReadOptions(after="1-2", end="7", count=1)),
        Asked(
            0x131, 1, "default", b"events", b"",
            [(0x15, u32(1)), (0x21, struct.pack(">QQ", 1, 3)), (0x22, struct.pack(">QQ", 7, 2**64 - 1))],
        ),
        b"",
        flo.StreamReadResult([]),
    ),
    "read the tail": (
        lambda c: c.stream.read("events", flo.StreamReadOptions(start="$", block_ms=9)),
        Asked(0x131, 1, "default", b"events", b"", [(0x15, u32(10)), (0x23, b""), (0x17, u32(9))]),
        u32(0),
        flo.StreamReadResult([]),
    ),
    "info": (
        lambda c: c.stream.info("events"),
        Asked(0x133, 1, "default", b"events", b"", []),
        INFO,
        flo.StreamInfo(StreamID(5, 1), StreamID(9, 2), 3, 40, 2),
    ),
    "info of nothing": (
        lambda c: c.stream.info("events"),
        Asked(0x133, 1, "default", b"events", b"", []),
        bytes(48) + u32(1),
        flo.StreamInfo(None, None, 0, 0, 1),
    ),
    "trim": (
        lambda c: c.stream.trim("events", flo.StreamTrimOptions(max_age_seconds=60, dry_run=True)),
        Asked(0x132, 1, "default", b"events", b"", [(0x2A, u64(60)), (0x28, b"")]),
        u64(3) + u64(9),
        flo.StreamTrimResult(3),
    ),
    "group_join": (
        lambda c: c.stream.group_join("events", "g", "w"),
        Asked(0x151, 1, "default", b"events", str16(b"g") + str16(b"w"), []),
        b"",
        None,
    ),
    "group_read": (
        lambda c: c.stream.group_read("events", "g", "w", flo.StreamGroupReadOptions(count=2, block_ms=50)),
        Asked(0x153, 1, "default", b"events", str16(b"g") + str16(b"w"), [(0x15, u32(2)), (0x17, u32(50))]),
        u32(1) + record(1_700, 0, b"a"),
        flo.StreamReadResult([flo.StreamRecord(StreamID(1_700, 0), "events", b"a")]),
    ),
    "group_ack": (
        lambda c: c.stream.group_ack("events", "g", ["1-2", StreamID(3, 4)]),
        Asked(
            0x154, 1, "default", b"events",
            str16(b"g") + str16(b"") + u32(2) + u64(1) + u64(2) + u64(3) + u64(4), [],
        ),
        b"",
        None,
    ),
    "group_nack": (
        lambda c: c.stream.group_nack("events", "g", StreamID(1, 2), flo.StreamGroupNackOptions("w", 100)),
        Asked(
            0x159, 1, "default", b"events", str16(b"g") + str16(b"w") + u32(1) + u64(1) + u64(2), [(0x33, u32(100))]
        ),
        b"",
        None,
    ),
    "group_leave": (
        lambda c: c.stream.group_leave("events", "g", "w"),
        Asked(0x152, 1, "default", b"events", str16(b"g") + str16(b"w"), []),
        b"",
        None,
    ),
    "group_claim": (
        lambda c: c.stream.group_claim("events", "g", "w", flo.StreamGroupClaimOptions(5, StreamID(1, 2), 9)),
        Asked(
            0x155, 1, "default", b"events", str16(b"g") + str16(b"w") + u32(5) + u64(1) + u64(2) + u32(9), []
        ),
        u32(1) + record(1_700, 0, b"a") + b"\xff" * 16,
        flo.StreamClaimResult([flo.StreamRecord(StreamID(1_700, 0), "events", b"a")], None),
    ),
    "group_pending": (
        lambda c: c.stream.group_pending("events", "g", flo.StreamGroupPendingOptions("w")),
        Asked(0x156, 1, "default", b"events", str16(b"g") + str16(b"w"), []),
        PENDING,
        flo.PendingResult([flo.PendingEntry(StreamID(1_700, 2), 4, "w")]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_a_call_sends_these_bytes_and_reads_the_reply(case: str):
    call, expected, body, result = CASES[case]
    async with fake_server(lambda asked: body) as server, FloClient(server.endpoint) as client:
        assert await call(client) == result

        assert server.asked == [expected]


@pytest.mark.parametrize("case", [case for case, (_, _, body, _) in CASES.items() if body and "trim" not in case])
async def test_a_reply_that_is_cut_off_is_incomplete(case: str):
    call, _, body, result = CASES[case]
    async with fake_server(lambda asked: body[:-1]) as server, FloClient(server.endpoint) as client:
        if isinstance(result, flo.GetResult) and result.value:  # its value is the rest, however long
            server.answer = lambda asked: body[:7]
        elif case in {"touch", "queue touch"}:
            return  # nothing of it is read
        with pytest.raises(flo.IncompleteResponseError):
            await call(client)
        assert client.is_connected


@pytest.mark.parametrize("case", [case for case, (_, _, body, _) in CASES.items() if body])
async def test_bytes_that_a_newer_server_adds_are_not_looked_at(case: str):
    call, _, body, result = CASES[case]
    if isinstance(result, flo.GetResult) or case in {"group_claim"}:
        return  # the rest is the value
    async with fake_server(lambda asked: body + b"more") as server, FloClient(server.endpoint) as client:
        assert await call(client) == result


async def test_not_found_is_an_answer_where_it_can_be_one():
    async with fake_server(lambda asked: (2, b"no such key")) as server, FloClient(server.endpoint) as client:
        assert await client.kv.get("k") is None
        assert await client.kv.json_get("k") is None
        await client.kv.delete("k")
        with pytest.raises(flo.NotFoundError):
            await client.kv.delete("k", flo.DeleteOptions(if_match=1))
        with pytest.raises(flo.NotFoundError) as raised:
            await client.kv.touch("k", 5)

        assert raised.value.status_code == 2 and isinstance(raised.value, flo.NotFound)


async def test_a_transaction_names_itself_in_every_call():
    def answer(asked: Asked) -> bytes:
        return {
            0x110: b"\0" + u64(77) + u64(5),
            0x100: b"",
            0x10B: struct.pack("<q", 6),
            0x101: u64(0) + b"v",
            0x111: b"\1" + u64(90) + u16(2),
        }[asked.opcode]

    routing, txn = (8, b"user:1"), (9, u64(77))
    async with fake_server(answer) as server, FloClient(server.endpoint) as client:
        transaction = await client.kv.begin("user:1")
        await transaction.put("a", b"1", flo.PutOptions(if_not_exists=True))
        assert await transaction.incr("n", flo.KVIncrOptions(delta=5)) == 6
        assert await transaction.get("a") == flo.GetResult(b"v", 0)
        assert await transaction.commit() == flo.CommitResult(op_count=2, commit_index=90)

        assert [(asked.opcode, asked.key, asked.options) for asked in server.asked] == [
            (0x110, b"user:1", [routing]),
            (0x100, b"a", [routing, txn, (3, b"")]),
            (0x10B, b"n", [routing, txn]),
            (0x101, b"a", [routing, txn]),
            (0x111, b"user:1", [routing, txn]),
        ]


async def test_a_server_without_our_own_operations_gets_the_protocols_acknowledgement():
    def answer(asked: Asked) -> bytes | tuple[int, bytes]:
        return (3, b"unknown operation") if asked.opcode == 0x0F0 else b""

    async with fake_server(answer) as server, FloClient(server.endpoint) as client:
        await client.queue.ack("q", [5])
        await client.queue.nack("q", 6, flo.NackOptions(to_dlq=True))
        await client.queue.dlq_requeue("q", [7])
        with pytest.raises(flo.BadRequestError, match="unknown operation"):
            await client.queue.stats("q")

        sent = [(asked.opcode, asked.value, asked.options) for asked in server.asked if asked.opcode != 0x0F0]
        assert sent == [
            (0x172, u32(1) + u64(5), []),
            (0x174, u32(1) + u64(6), [(0x16, b"\1")]),
            (0x178, u32(1) + u64(7), []),
        ]


async def test_a_long_mget_is_asked_for_in_parts():
    def answer(asked: Asked) -> bytes:
        first = asked.value[4 : 4 + asked.value[2]]
        return u32(1) + b"\0" + str16(first) + u64(1) + str32(b"x")

    async with fake_server(answer) as server, FloClient(server.endpoint) as client:
        rows = await client.kv.mget(["a", "b", "c"])

        assert [row.key for row in rows] == ["a", "b", "c"] and len(server.asked) == 3


async def test_keys_that_are_no_text_come_back_as_they_were_sent():
    key = b"\xff\x00k"
    async with fake_server(lambda asked: b"\0" + str32(b"") + u32(1) + str16(key) + str32(b"")) as server:
        async with FloClient(server.endpoint) as client:
            (entry,) = await client.kv.scan(key)
            await client.kv.scan(entry.key)

            assert [asked.key for asked in server.asked] == [key, key]


def test_stream_ids():
    id = StreamID(1_700_000_000_123, 7)

    assert StreamID.from_bytes(id.to_bytes()) == id and len(id.to_bytes()) == 16
    assert str(id) == "1700000000123-7" and StreamID.parse(str(id)) == id and StreamID.parse("5") == StreamID(5, 0)
    assert StreamID(1, 9) < StreamID(2, 0) < StreamID(2, 1) < id < id.next()
    assert StreamID(1, 2**64 - 1).next() == StreamID(2, 0)
    for wrong in ("", "x", "1-", "-1", "1-2-3", "1--2", "99999999999999999999", " 1"):
        with pytest.raises(flo.ValidationError):
            StreamID.parse(wrong)
    with pytest.raises(flo.ValidationError):
        StreamID.from_bytes(b"short")
