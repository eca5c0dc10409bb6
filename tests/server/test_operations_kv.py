"""Operations on keys and values, as frames."""

from __future__ import annotations

import pytest

from flo.wire import opcodes, tlv
from flo.wire.layouts import i64, str16, u32, u64
from flo.wire.layouts_kv import (
    decode_begun,
    decode_committed,
    decode_counted,
    decode_exists,
    decode_history,
    decode_many,
    decode_page,
    decode_value,
    decode_version,
)
from flo.wire.statuses import BAD_REQUEST, CONFLICT, NO_TRANSACTION, NOT_FOUND, UNAUTHORIZED
from tests.server.wire_service import Service, Wire, WireRefused, keys, transaction


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def wire(service: Service) -> Wire:
    return service.connect()


def test_put_get_delete(wire: Wire):
    version = wire.put("k", b"v")

    assert decode_value(wire.body(opcodes.KV_GET, "k")) == (version, b"v")
    assert wire.body(opcodes.KV_DELETE, "k") == b""
    missing = wire.reply(opcodes.KV_GET, "k")
    assert (missing.status, missing.body) == (NOT_FOUND, b"")
    assert wire.reply(opcodes.KV_DELETE, "k").status == NOT_FOUND


def test_conditions_are_conflicts_whose_text_has_the_current_version(wire: Wire):
    version = wire.put("k", b"v")

    with pytest.raises(WireRefused) as stale:
        wire.put("k", b"w", {tlv.CAS_VERSION: u64(version + 1)})
    with pytest.raises(WireRefused) as there:
        wire.put("k", b"w", {tlv.IF_NOT_EXISTS: b""})
    with pytest.raises(WireRefused) as absent:
        wire.put("x", b"w", {tlv.IF_EXISTS: b""})
    assert (stale.value.status, stale.value.text) == (CONFLICT, f"Version mismatch: current version {version}")
    assert (there.value.status, absent.value.status) == (CONFLICT, CONFLICT)
    assert wire.put("k", b"w", {tlv.CAS_VERSION: u64(version)}) > version
    with pytest.raises(WireRefused) as both:
        wire.put("y", b"w", {tlv.IF_EXISTS: b"", tlv.IF_NOT_EXISTS: b""})
    assert both.value.status == BAD_REQUEST


def test_a_ttl_is_in_seconds(service: Service, wire: Wire):
    wire.put("k", b"v", {tlv.TTL_SECONDS: u64(2)})

    service.advance(1_900)
    assert wire.get("k") == b"v"
    wire.body(opcodes.KV_TOUCH, "k", u64(5))
    service.advance(4_900)
    assert wire.get("k") == b"v"
    service.advance(200)
    assert wire.get("k") is None


def test_persist_takes_the_ttl_away(service: Service, wire: Wire):
    wire.put("k", b"v", {tlv.TTL_SECONDS: u64(1)})

    wire.body(opcodes.KV_PERSIST, "k")

    service.advance(5_000)
    assert wire.get("k") == b"v"
    assert wire.reply(opcodes.KV_TOUCH, "none", u64(1)).status == NOT_FOUND


def test_mget_scan_history_exists(wire: Wire):
    first = wire.put("a", b"1")
    second = wire.put("a", b"2")
    wire.put("b", b"3")

    found = decode_many(wire.body(opcodes.KV_MGET, b"", keys("a", "none", "a")))
    page = decode_page(wire.body(opcodes.KV_SCAN, b"", u32(1)))
    rest = decode_page(wire.body(opcodes.KV_SCAN, b"", u32(9) + page.cursor.encode()))
    history = decode_history(wire.body(opcodes.KV_HISTORY, "a", b"", {tlv.LIMIT: u32(5)}))
    assert [(entry.key, entry.found, entry.value) for entry in found] == [
        (b"a", True, b"2"),
        (b"none", False, b""),
        (b"a", True, b"2"),
    ]
    assert ([row.key for row in page.rows], page.has_more) == ([b"a"], True)
    assert ([row.value for row in rest.rows], rest.has_more) == ([b"3"], False)
    only_keys = decode_page(wire.body(opcodes.KV_SCAN, b"", u32(0), {tlv.KEYS_ONLY: b"\1"}))
    assert [(row.key, row.value) for row in only_keys.rows] == [(b"a", b""), (b"b", b"")]
    assert [(v.version, v.value) for v in history] == [(second, b"2"), (first, b"1")]
    assert decode_exists(wire.body(opcodes.KV_EXISTS, "a"))
    assert wire.body(opcodes.KV_EXISTS, "none") == bytes(9)
    assert wire.reply(opcodes.KV_SCAN, b"", u32(1) + b"\xff\xfe").status == BAD_REQUEST
    assert wire.reply(opcodes.KV_HISTORY, "none").status == NOT_FOUND


def test_counters(wire: Wire):
    assert decode_counted(wire.body(opcodes.KV_INCR, "c"), False) == 1
    assert decode_counted(wire.body(opcodes.KV_INCR, "c", i64(-5)), False) == -4
    wire.put("s", b"7")
    assert wire.reply(opcodes.KV_INCR, "s").status == CONFLICT
    assert wire.reply(opcodes.KV_INCR, "c", b"\1").status == BAD_REQUEST


def test_json(wire: Wire):
    wire.body(opcodes.KV_JSON_SET, "j", str16(b"$") + b'{"a":[1,2]}')
    version = decode_version(wire.body(opcodes.KV_JSON_SET, "j", str16(b"$.a[1]") + b"7"))

    assert decode_value(wire.body(opcodes.KV_JSON_GET, "j", b"$.a")) == (version, b"[1,7]")
    assert wire.reply(opcodes.KV_JSON_GET, "j", b"$.zz").status == NOT_FOUND
    assert len(wire.body(opcodes.KV_JSON_DEL, "j", b"$.a")) == 8
    assert wire.body(opcodes.KV_JSON_DEL, "j") == b""
    assert wire.get("j") is None


def test_a_transaction(wire: Wire):
    txn, _ = decode_begun(wire.body(opcodes.KV_BEGIN, "u", b"", {tlv.ROUTING_KEY: b"u"}))
    inside = transaction(txn)

    assert wire.put("u", b"1", inside) == 0
    assert decode_counted(wire.body(opcodes.KV_INCR, "u:n", b"", inside), True) == 1
    assert wire.get("u", inside) == b"1"
    assert wire.get("u") is None
    assert wire.reply(opcodes.KV_PUT, "u", b"x", inside, "other").status == NO_TRANSACTION
    commit_index, op_count = decode_committed(wire.body(opcodes.KV_COMMIT, "u", b"", inside))
    assert op_count == 2
    assert decode_value(wire.body(opcodes.KV_GET, "u")) == (commit_index, b"1")
    again = wire.reply(opcodes.KV_COMMIT, "u", b"", inside)
    assert (again.status, again.body) == (NO_TRANSACTION, b"transaction not found")
    assert wire.body(opcodes.KV_ROLLBACK, "u", b"", inside) == b""


@pytest.mark.parametrize(
    ("opcode", "value"),
    [
        (opcodes.KV_MGET, keys("a")),
        (opcodes.KV_SCAN, u32(1)),
        (opcodes.KV_HISTORY, b""),
        (opcodes.KV_JSON_GET, b""),
        (opcodes.KV_JSON_SET, str16(b"$") + b"1"),
        (opcodes.KV_JSON_DEL, b""),
    ],
)
def test_what_a_transaction_cannot_hold_is_refused_by_its_code(wire: Wire, opcode: int, value: bytes):
    txn, _ = decode_begun(wire.body(opcodes.KV_BEGIN, "u"))

    reply = wire.reply(opcode, "u", value, transaction(txn))

    assert reply.status == BAD_REQUEST
    assert reply.body.startswith(b"kv_txn_unsupported_op")


def test_a_transaction_that_is_too_large_is_refused_by_its_code(wire: Wire):
    txn, _ = decode_begun(wire.body(opcodes.KV_BEGIN, "u"))
    for number in range(256):
        wire.put(f"u:{number}", b"v", transaction(txn))

    reply = wire.reply(opcodes.KV_PUT, "u:256", b"v", transaction(txn))

    assert reply.status == BAD_REQUEST
    assert reply.body.startswith(b"kv_txn_too_large: ")
    assert decode_committed(wire.body(opcodes.KV_COMMIT, "u", b"", transaction(txn)))[1] == 256


def test_a_get_waits_until_the_key_exists(service: Service, wire: Wire):
    waiting = wire.send(opcodes.KV_GET, "k", b"", {tlv.BLOCK_MS: u32(5_000)})

    service.advance(1_000)
    assert wire.late == {}
    version = service.connect().put("k", b"now")
    assert decode_value(wire.late.pop(waiting).body) == (version, b"now")
    assert wire.session.waits == {}


@pytest.mark.parametrize("tag", [tlv.BLOCK_MS, tlv.WAIT_MS])
def test_a_get_that_waited_for_nothing_is_not_found_without_a_text(service: Service, wire: Wire, tag: int):
    waiting = wire.send(opcodes.KV_GET, "k", b"", {tag: u32(500)})

    service.advance(499)
    assert wire.late == {}
    service.advance(2)
    assert (wire.late[waiting].status, wire.late[waiting].body) == (NOT_FOUND, b"")


def test_a_wait_of_0_is_the_longest(service: Service, wire: Wire):
    waiting = wire.send(opcodes.KV_GET, "k", b"", {tlv.BLOCK_MS: u32(0)})

    service.advance(299_000)
    assert wire.late == {}
    service.advance(1_001)
    assert wire.late[waiting].status == NOT_FOUND


def test_a_get_waits_for_the_next_version(service: Service, wire: Wire):
    wire.put("k", b"old")
    waiting = wire.send(opcodes.KV_GET, "k", b"", {tlv.WAIT_MS: u32(5_000)})

    assert wire.late == {}
    version = wire.put("k", b"new")
    assert decode_value(wire.late.pop(waiting).body) == (version, b"new")


def test_both_ways_of_waiting_exclude_one_another(wire: Wire):
    options = {tlv.WAIT_MS: u32(5_000), tlv.BLOCK_MS: u32(5_000)}

    assert wire.reply(opcodes.KV_GET, "k", b"", options).status == BAD_REQUEST


def test_reserved_keys_and_bad_names_are_refused(wire: Wire):
    assert wire.reply(opcodes.KV_PUT, "_sys:x", b"1").status == UNAUTHORIZED
    assert wire.reply(opcodes.KV_GET, "_sys:x").status == UNAUTHORIZED
    assert wire.reply(opcodes.KV_PUT, "", b"1").status == BAD_REQUEST
    assert wire.reply(opcodes.KV_PUT, "k" * 4_097, b"1").status == BAD_REQUEST
    assert wire.reply(opcodes.KV_PUT, "k", bytes(262_145)).status == BAD_REQUEST
    assert wire.reply(opcodes.KV_PUT, "k", b"1", None, "1abc").status == BAD_REQUEST
