"""Operations on queues, as frames."""

from __future__ import annotations

import struct

import pytest

from flo.primitives.queue_pages import NewMessage
from flo.wire import opcodes, tlv
from flo.wire.layouts import Reader, u32, u64
from flo.wire.layouts_queue import decode_messages, decode_seqs, encode_new_messages, encode_seqs
from flo.wire.statuses import BAD_REQUEST, NOT_FOUND
from tests.server.wire_service import Service, Wire


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def wire(service: Service) -> Wire:
    return service.connect()


def test_lower_priorities_come_first(wire: Wire):
    for payload, priority in ((b"A", 10), (b"B", 1), (b"C", 1), (b"D", 0)):
        wire.enqueue("q", payload, {tlv.PRIORITY: bytes([priority])})

    assert [payload for _, payload in wire.dequeue("q", 5)] == [b"D", b"B", b"C", b"A"]
    assert wire.body(opcodes.QUEUE_DEQUEUE, "q") == bytes(4)
    assert wire.body(opcodes.QUEUE_DEQUEUE, "none") == bytes(4)


def test_a_delay_and_a_dedup_key(service: Service, wire: Wire):
    later = wire.enqueue("q", b"later", {tlv.DELAY_MS: u64(1_000)})
    first = wire.enqueue("q", b"a", {tlv.DEDUP_KEY: b"k"})

    assert wire.enqueue("q", b"b", {tlv.DEDUP_KEY: b"k"}) == first
    assert wire.dequeue("q", 5) == [(first, b"a")]
    service.advance(1_000)
    assert wire.dequeue("q", 5) == [(later, b"later")]


def test_a_repeated_ack_is_fine(service: Service, wire: Wire):
    seq = wire.enqueue("q", b"m")
    wire.dequeue("q", visibility_ms=300)

    assert wire.settle(opcodes.QUEUE_ACK, "q", [seq]) == b""
    assert wire.settle(opcodes.QUEUE_ACK, "q", [seq]) == b""
    assert wire.settle(opcodes.QUEUE_NACK, "q", [seq]) == b""
    service.advance(1_000)
    assert wire.dequeue("q") == []


def test_a_lease_ends_and_is_touched(service: Service, wire: Wire):
    seq = wire.enqueue("q", b"m")
    wire.dequeue("q", visibility_ms=1_000)

    service.advance(900)
    assert wire.settle(opcodes.QUEUE_TOUCH, "q", [seq]) == u32(1)
    service.advance(900)
    assert wire.dequeue("q") == []
    assert wire.settle(opcodes.QUEUE_EXTEND_LEASE, "q", [seq], {tlv.EXTEND_MS: u32(5_000)}) == u32(1)
    service.advance(4_900)
    assert wire.dequeue("q") == []
    service.advance(200)
    assert wire.dequeue("q") == [(seq, b"m")]


def test_a_touch_of_what_is_not_leased_is_not_found(wire: Wire):
    seq = wire.enqueue("q", b"m")

    assert wire.reply(opcodes.QUEUE_TOUCH, "q", encode_seqs([seq, 99])).status == NOT_FOUND


def test_dead_letters(wire: Wire):
    seq = wire.enqueue("q", b"m")
    wire.dequeue("q")
    wire.settle(opcodes.QUEUE_NACK, "q", [seq], {tlv.SEND_TO_DLQ: b"\1"})

    assert decode_messages(wire.body(opcodes.QUEUE_DLQ_LIST, "q", b"", {tlv.LIMIT: u32(10)})) == [(seq, b"m")]
    assert struct.unpack("<4Q", wire.body(opcodes.QUEUE_DLQ_STATS, "q"))[:3] == (1, 10_000, 0)
    wire.settle(opcodes.QUEUE_DLQ_REQUEUE, "q", [seq, 99])
    assert decode_messages(wire.body(opcodes.QUEUE_PEEK, "q", b"", {tlv.COUNT: u32(3)})) == [(seq, b"m")]
    wire.settle(opcodes.QUEUE_NACK, "q", [seq], {tlv.SEND_TO_DLQ: b"\1"})
    wire.settle(opcodes.QUEUE_DLQ_DELETE, "q", [seq])
    assert wire.body(opcodes.QUEUE_DLQ_LIST, "q") == bytes(4)
    for opcode in (opcodes.QUEUE_DLQ_DELETE, opcodes.QUEUE_DLQ_REQUEUE):
        assert wire.reply(opcode, "q", encode_seqs([seq])).status == NOT_FOUND


def test_a_nacked_message_may_wait(service: Service, wire: Wire):
    seq = wire.enqueue("q", b"m")
    wire.dequeue("q")
    wire.settle(opcodes.QUEUE_NACK, "q", [seq], {tlv.DELAY_MS: u64(1_000)})

    assert wire.dequeue("q") == []
    service.advance(1_000)
    assert wire.dequeue("q") == [(seq, b"m")]


def test_a_dequeue_waits_for_a_message(service: Service, wire: Wire):
    waiting = wire.send(opcodes.QUEUE_DEQUEUE, "q", b"", {tlv.COUNT: u32(5), tlv.BLOCK_MS: u32(5_000)})
    empty = wire.send(opcodes.QUEUE_DEQUEUE, "q", b"", {tlv.BLOCK_MS: u32(1_000)})

    seq = service.connect().enqueue("q", b"m")
    assert decode_messages(wire.late.pop(waiting).body) == [(seq, b"m")]
    service.advance(1_000)
    assert wire.late.pop(empty).body == bytes(4)


def test_many_at_once(wire: Wire):
    messages = [NewMessage(b"a", 5), NewMessage(b"b"), NewMessage(b"c", dedup_key=b"k")]

    assert decode_seqs(wire.body(opcodes.QUEUE_ENQUEUE_MANY, "q", encode_new_messages(messages))) == [1, 2, 3]
    assert [payload for _, payload in wire.dequeue("q", 5)] == [b"b", b"c", b"a"]
    over = encode_new_messages([NewMessage(b"x")] * 1_001)
    assert wire.reply(opcodes.QUEUE_ENQUEUE_MANY, "other", over).status == BAD_REQUEST


def test_statistics_lists_and_purge(wire: Wire):
    for number in range(3):
        wire.enqueue(f"q{number}", b"m")
    wire.dequeue("q0")

    pending, available, delayed, inflight, enqueued, *_ = struct.unpack("<9Q", wire.body(opcodes.QUEUE_STATS, "q0"))
    assert (pending, available, delayed, inflight, enqueued) == (1, 0, 0, 1, 1)
    assert wire.body(opcodes.QUEUE_STATS, "none") == bytes(72)
    page = Reader(wire.body(opcodes.QUEUE_LIST, b"", u32(2)))
    names = [(page.str16(), page.u64(), page.u64(), page.u64())[0] for _ in range(page.u32())]
    assert (names, page.u8()) == ([b"q0", b"q1"], 1)
    rest = Reader(wire.body(opcodes.QUEUE_LIST, b"", u32(2) + page.str16()))
    assert (rest.u32(), rest.str16()) == (1, b"q2")
    assert wire.body(opcodes.QUEUE_PURGE, "q0") == u64(1)
    assert wire.body(opcodes.QUEUE_PURGE, "none") == u64(0)


def test_limits(wire: Wire):
    assert wire.reply(opcodes.QUEUE_ENQUEUE, "", b"x").status == BAD_REQUEST
    assert wire.reply(opcodes.QUEUE_ENQUEUE, b"\xff", b"x").status == BAD_REQUEST
    assert wire.reply(opcodes.QUEUE_ENQUEUE, "q", bytes(262_145)).status == BAD_REQUEST
    assert wire.reply(opcodes.QUEUE_ENQUEUE, "q", b"x", {tlv.PRIORITY: u32(256)}).status == BAD_REQUEST
    assert wire.enqueue("q", b"") == 1
