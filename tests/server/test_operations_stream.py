"""Operations on streams and consumer groups, as frames."""

from __future__ import annotations

import pytest

from flo.primitives.stream_pages import NewRecord
from flo.wire import opcodes, tlv
from flo.wire.layouts import Reader, u32, u64
from flo.wire.layouts_stream import (
    Held,
    Range,
    decode_claimed,
    decode_info,
    decode_pending,
    decode_records,
    decode_trimmed,
    encode_batch,
    encode_claim,
    encode_group,
    encode_ids,
    encode_member,
)
from flo.wire.statuses import BAD_REQUEST, CONFLICT, GROUP_LOCKED, NOT_FOUND, OK
from tests.server.wire_service import Service, Wire, WireRefused


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def wire(service: Service) -> Wire:
    return service.connect()


def test_a_raw_value_is_one_record(wire: Wire):
    at = wire.append("s", b"raw \x00\xff")

    ((name, record),) = decode_records(wire.body(opcodes.STREAM_READ, "s"))
    assert ((record.ms, record.seq), record.payload, record.headers) == (at, b"raw \x00\xff", ())
    assert (name, record.partition, record.tier) == ("s", 0, "hot")


def test_a_batch_keeps_its_headers(wire: Wire):
    headers = ((b"k", b"1"), (b"k", b"2"), (b"bin", b"\x00\xff"))

    ms, seq = wire.append("s", encode_batch([NewRecord(b"a", headers), NewRecord(b"b")]))

    records = [record for _, record in decode_records(wire.body(opcodes.STREAM_READ, "s"))]
    assert [(record.ms, record.seq) for record in records] == [(ms, seq), (ms, seq + 1)]
    assert [record.headers for record in records] == [headers, ()]


def test_a_batch_over_the_limit_stores_nothing(wire: Wire):
    reply = wire.reply(opcodes.STREAM_APPEND, "s", encode_batch([NewRecord(b"x")] * 1_001))

    assert reply.status == BAD_REQUEST
    assert b"a batch of 1001 records is over the limit of 1000" in reply.body
    assert decode_info(wire.body(opcodes.STREAM_INFO, "s")).count == 0


def test_ranges(wire: Wire):
    ids = [wire.append("s", b"%d" % number) for number in range(5)]

    def between(start: int, end: int) -> dict[int, bytes]:
        return {
            tlv.STREAM_START: tlv.encode_stream_id(ids[start]),
            tlv.STREAM_END: tlv.encode_stream_id(ids[end]),
        }

    assert wire.read("s", between(1, 3)) == [b"1", b"2", b"3"]
    assert wire.read("s", between(1, 3) | {tlv.COUNT: u32(2)}) == [b"1", b"2"]
    assert wire.read("s", between(4, 0)) == []
    assert wire.read("s", {tlv.STREAM_TAIL: b""}) == []
    assert wire.read("none") == []
    assert wire.reply(opcodes.STREAM_READ, "s", b"", {tlv.COUNT: u32(0)}).status == BAD_REQUEST


def test_partitions(wire: Wire):
    wire.body(opcodes.STREAM_CREATE, "s", b"", {tlv.PARTITION: u32(4)})
    wire.append("s", b"p3", {tlv.PARTITION: u32(3)})
    wire.append("s", b"keyed", {tlv.PARTITION_KEY: b"alice"})

    assert wire.read("s", {tlv.PARTITION: u32(3)})[0] == b"p3"
    assert b"keyed" in wire.read("s", {tlv.PARTITION_KEY: b"alice"})
    assert decode_info(wire.body(opcodes.STREAM_INFO, "s")).partitions == 4
    assert wire.reply(opcodes.STREAM_APPEND, "s", b"x", {tlv.PARTITION: u32(4)}).status == BAD_REQUEST
    both = {tlv.PARTITION: u32(0), tlv.PARTITION_KEY: b"k"}
    assert wire.reply(opcodes.STREAM_APPEND, "s", b"x", both).status == BAD_REQUEST
    assert wire.reply(opcodes.STREAM_CREATE, "s", b"", {tlv.PARTITION: u32(5)}).status == CONFLICT


def test_a_read_waits_for_its_stream_and_at_the_tail(service: Service, wire: Wire):
    wire.append("old", b"old")
    tail = wire.send(opcodes.STREAM_READ, "old", b"", {tlv.STREAM_TAIL: b"", tlv.BLOCK_MS: u32(5_000)})
    created = wire.send(opcodes.STREAM_READ, "new", b"", {tlv.BLOCK_MS: u32(5_000)})
    empty = wire.send(opcodes.STREAM_READ, "none", b"", {tlv.BLOCK_MS: u32(5_000)})

    other = service.connect()
    other.append("old", b"later")
    other.append("new", b"first")
    service.advance(5_000)

    assert [record.payload for _, record in decode_records(wire.late[tail].body)] == [b"later"]
    assert [record.payload for _, record in decode_records(wire.late[created].body)] == [b"first"]
    assert (wire.late[empty].status, wire.late[empty].body) == (OK, bytes(4))


def test_records_that_are_not_in_memory_are_read_outside_of_the_turn(service: Service, wire: Wire):
    wire.append("s", b"x" * 100)
    service.bench.node.pump()
    service.bench.node.hot.clear()

    ((_, record),) = decode_records(wire.body(opcodes.STREAM_READ, "s"))
    assert record.payload == b"x" * 100
    assert record.tier != "hot"
    assert wire.loads == [100 + 64]
    assert [payload for _, payload in wire.group_read("s", "g", "c")] == [b"x" * 100]


def test_info_of_what_is_not_there_is_zeros(wire: Wire):
    assert decode_info(wire.body(opcodes.STREAM_INFO, "none")) == Range((0, 0), (0, 0), 0, 0, 1)
    assert wire.body(opcodes.STREAM_TRIM, "none", b"", {tlv.MAX_COUNT: u64(1)}) == bytes(16)


def test_trims(service: Service, wire: Wire):
    ids = [wire.append("s", b"%02d" % number) for number in range(10)]

    def trim(options: dict[int, bytes]) -> int:
        return decode_trimmed(wire.body(opcodes.STREAM_TRIM, "s", b"", options))

    assert trim({tlv.MAX_COUNT: u64(6), tlv.DRY_RUN: b""}) == 4
    assert decode_info(wire.body(opcodes.STREAM_INFO, "s")).count == 10
    assert trim({tlv.MAX_COUNT: u64(6)}) == 4
    assert trim({tlv.MAX_BYTES: u64(7)}) == 3
    info = decode_info(wire.body(opcodes.STREAM_INFO, "s"))
    assert (info.first, info.last, info.count, info.bytes) == (ids[7], ids[9], 3, 6)
    service.advance(5_000)
    wire.append("s", b"young")
    assert trim({tlv.MAX_AGE_SECONDS: u64(3)}) == 3
    assert wire.reply(opcodes.STREAM_TRIM, "s").status == BAD_REQUEST
    two = {tlv.MAX_COUNT: u64(6), tlv.MAX_BYTES: u64(7)}
    assert wire.reply(opcodes.STREAM_TRIM, "s", b"", two).status == BAD_REQUEST


def test_list_alter_delete(service: Service, wire: Wire):
    for name in ("a", "b", "c"):
        wire.append(name, b"x")

    page = Reader(wire.body(opcodes.STREAM_LIST, b"", u32(2)))
    assert [(page.str32(), page.u32()) for _ in range(page.u32())] == [(b"a", 1), (b"b", 1)]
    assert page.u8() == 1
    rest = Reader(wire.body(opcodes.STREAM_LIST, b"", u32(2) + page.str16()))
    assert (rest.u32(), rest.str32()) == (1, b"c")
    wire.body(opcodes.STREAM_ALTER, "a", b"", {tlv.MAX_AGE_SECONDS: u64(1)})
    service.advance(12_000)
    assert wire.read("a") == []
    assert wire.reply(opcodes.STREAM_ALTER, "none", b"", {tlv.MAX_COUNT: u64(1)}).status == NOT_FOUND
    assert wire.reply(opcodes.STREAM_DELETE, "b").status == CONFLICT
    wire.body(opcodes.STREAM_DELETE, "b", b"", {tlv.FORCE: b""})
    wire.body(opcodes.STREAM_DELETE, "b")


# Consumer groups


def held(wire: Wire, consumer: str = "") -> list[Held]:
    return decode_pending(wire.body(opcodes.GROUP_PENDING, "s", encode_group("g", consumer)))


def test_a_group_shares_its_records(wire: Wire):
    ids = [wire.append("s", b"%d" % number) for number in range(4)]
    wire.body(opcodes.GROUP_JOIN, "s", encode_member("g", "a"))

    mine = wire.group_read("s", "g", "a", 2)
    others = wire.group_read("s", "g", "b")
    assert [payload for _, payload in mine + others] == [b"0", b"1", b"2", b"3"]
    assert held(wire, "a") == [Held(ids[0], 1, "a"), Held(ids[1], 1, "a")]
    wire.group_settle(opcodes.GROUP_ACK, "s", "g", "a", [ids[0], (1, 1)])
    wire.group_settle(opcodes.GROUP_ACK, "s", "g", "", [ids[2]])
    assert [each.id for each in held(wire)] == [ids[1], ids[3]]
    wire.body(opcodes.GROUP_LEAVE, "s", encode_member("g", "a"))
    assert wire.group_read("s", "g", "b") == [(ids[1], b"1")]
    wire.body(opcodes.GROUP_LEAVE, "s", encode_member("g", "nobody"))


def test_what_is_acknowledged_in_a_group_that_is_not_there_was_acked(wire: Wire):
    ids = encode_ids("none", "c", [(1, 1)])

    for stream in ("s", "none"):
        assert wire.body(opcodes.GROUP_ACK, stream, ids) == b""
        assert wire.body(opcodes.GROUP_NACK, stream, ids) == b""
        assert wire.body(opcodes.GROUP_LEAVE, stream, encode_member("none", "c")) == b""
        assert wire.body(opcodes.GROUP_PENDING, stream, encode_group("none")) == bytes(4)
        assert decode_claimed(wire.body(opcodes.GROUP_CLAIM, stream, encode_claim("g", "c", 0, (0, 0), 5))) == (
            [],
            None,
        )
        assert wire.reply(opcodes.GROUP_INFO, stream, encode_group("none")).status == NOT_FOUND
        assert wire.reply(opcodes.GROUP_DELETE, stream, encode_group("none")).status == NOT_FOUND
        wire.append("s", b"x")


def test_a_nack_with_a_delay_and_a_touch(service: Service, wire: Wire):
    at = wire.append("s", b"r")
    wire.group_read("s", "g", "a")
    wire.group_settle(opcodes.GROUP_NACK, "s", "g", "a", [at], {tlv.REDELIVERY_DELAY_MS: u32(2_000)})

    service.advance(1_900)
    assert wire.group_read("s", "g", "b") == []
    service.advance(100)
    assert wire.group_read("s", "g", "b") == [(at, b"r")]
    assert held(wire) == [Held(at, 2, "b")]
    extended = wire.group_settle(opcodes.GROUP_TOUCH, "s", "g", "b", [at], {tlv.EXTEND_ACK_MS: u32(60_000)})
    assert extended == u32(1)
    service.advance(50_000)
    assert wire.group_read("s", "g", "a") == []


def test_a_group_read_waits_at_most_five_seconds(service: Service, wire: Wire):
    value = encode_member("g", "c")
    served = wire.send(opcodes.GROUP_READ, "s", value, {tlv.BLOCK_MS: u32(30_000)})
    service.connect().append("s", b"new")

    assert [record.payload for _, record in decode_records(wire.late.pop(served).body)] == [b"new"]
    empty = wire.send(opcodes.GROUP_READ, "s", value, {tlv.BLOCK_MS: u32(30_000)})
    service.advance(4_990)
    assert wire.late == {}
    service.advance(20)
    assert (wire.late[empty].status, wire.late[empty].body) == (OK, bytes(4))


def test_a_group_that_goes_while_it_is_read_is_empty(wire: Wire):
    waiting = wire.send(opcodes.GROUP_READ, "s", encode_member("g", "c"), {tlv.BLOCK_MS: u32(4_000)})

    wire.body(opcodes.GROUP_DELETE, "s", encode_group("g"))

    assert (wire.late[waiting].status, wire.late[waiting].body) == (OK, bytes(4))


def test_claims(service: Service, wire: Wire):
    wire.append("s", encode_batch([NewRecord(b"a"), NewRecord(b"b"), NewRecord(b"c")]))
    mine = wire.group_read("s", "g", "w1")

    def claim(consumer: str, min_idle_ms: int, start: tuple[int, int] = (0, 0), count: int = 10):
        body = wire.body(opcodes.GROUP_CLAIM, "s", encode_claim("g", consumer, min_idle_ms, start, count))
        records, following = decode_claimed(body)
        return [(record.ms, record.seq) for _, record in records], following

    assert claim("w2", 600_000) == ([], None)
    assert claim("w2", 0) == ([], None)
    assert claim("w1", 0) == ([at for at, _ in mine], None)
    service.advance(100)
    first, following = claim("w2", 50, count=2)
    assert following is not None
    second, end = claim("w2", 50, following)
    assert (first + second, end) == ([at for at, _ in mine], None)
    assert {(each.delivery_count, each.consumer) for each in held(wire)} == {(3, "w2")}


def test_settings_of_a_group(wire: Wire):
    single = {tlv.SUBSCRIPTION_MODE: b"\1", tlv.MAX_STANDBYS: u32(0)}
    wire.body(opcodes.GROUP_CREATE, "s", encode_group("g"), single)
    wire.body(opcodes.GROUP_CREATE, "s", encode_group("g"), single)

    assert wire.reply(opcodes.GROUP_CREATE, "s", encode_group("g")).status == CONFLICT
    assert (
        wire.reply(opcodes.GROUP_CREATE, "s", encode_group("h"), {tlv.SUBSCRIPTION_MODE: b"\7"}).status == BAD_REQUEST
    )
    wire.body(opcodes.GROUP_JOIN, "s", encode_member("g", "w1"))
    assert wire.reply(opcodes.GROUP_JOIN, "s", encode_member("g", "w2")).status == GROUP_LOCKED
    wire.append("s", b"x")
    wire.group_read("s", "g", "w1")
    info = Reader(wire.body(opcodes.GROUP_INFO, "s", encode_group("g")))
    assert (info.u64(), info.u32(), info.u64()) == (1, 1, 0)


@pytest.mark.parametrize("mode", [1, 2])
def test_a_member_whose_connection_closes_gives_up_its_records(service: Service, wire: Wire, mode: int):
    options = {tlv.SUBSCRIPTION_MODE: bytes([mode]), tlv.ACK_TIMEOUT_MS: u32(600_000)}
    wire.body(opcodes.GROUP_CREATE, "s", encode_group("g"), options)
    wire.append("s", b"x")
    gone = service.connect()
    gone.body(opcodes.GROUP_JOIN, "s", encode_member("g", "w1"))
    assert len(gone.group_read("s", "g", "w1")) == 1
    wire.body(opcodes.GROUP_JOIN, "s", encode_member("g", "w2"))
    assert wire.group_read("s", "g", "w2") == []

    gone.close()

    assert [payload for _, payload in wire.group_read("s", "g", "w2")] == [b"x"]


def test_a_wildcard_is_refused(wire: Wire):
    with pytest.raises(WireRefused) as refused:
        wire.group_read("events.*", "g", "c")

    assert refused.value.status == BAD_REQUEST
    assert "wildcard group reads are not supported" in refused.value.text


def test_a_read_without_acks(wire: Wire):
    wire.append("s", b"x")

    body = wire.body(opcodes.GROUP_READ, "s", encode_member("g", "c"), {tlv.NO_ACK: b""})

    assert len(decode_records(body)) == 1
    assert held(wire) == []
