"""Calls by name on a node: what the official clients' operations cannot carry."""

from __future__ import annotations

import pytest

from flo.api.version import VERSION
from flo.primitives.queue_pages import NewMessage
from flo.server.calls import PERFORMERS
from flo.wire import calls, opcodes
from flo.wire.calls import CALLS, Refusal
from flo.wire.layouts import Reader
from flo.wire.statuses import BAD_REQUEST, CONFLICT, GROUP_LOCKED, NO_TRANSACTION, NOT_FOUND
from tests.server.wire_service import CallRefused, Service, Wire


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def wire(service: Service) -> Wire:
    return service.connect()


def refusal(wire: Wire, call: calls.Call, arguments: calls.Arguments, status: int) -> Refusal:
    with pytest.raises(CallRefused) as refused:
        wire.call(call, arguments)
    assert refused.value.status == status
    return refused.value.refusal


def test_every_call_is_performed():
    assert PERFORMERS.keys() == CALLS.keys()


def test_an_unknown_call_and_wrong_arguments_are_bad_requests(wire: Wire):
    unknown = wire.reply(opcodes.CALL, "kv.frobnicate", b"\x80")
    wrong = wire.reply(opcodes.CALL, "kv.get", b"\x80")

    assert unknown.status == wrong.status == BAD_REQUEST
    said = calls.decode_refusal(unknown.body)
    assert (said.code, said.message) == ("unknown_call", "call 'kv.frobnicate' is not known to this server")
    assert "`key`" in calls.decode_refusal(wrong.body).message


# Keys and values


def test_keys(wire: Wire):
    first = wire.call(calls.KV_PUT, calls.KvPut(b"k", b"1", ttl_ms=5_000)).version
    entry = wire.call(calls.KV_GET, calls.KvGet(b"k"))
    assert (entry.value, entry.version, entry.kind) == (b"1", first, "string")
    assert entry.expires_at - entry.written_at == 5_000
    assert wire.call(calls.KV_PERSIST, calls.KvPersist(b"k")) == calls.Persisted(True)
    wire.call(calls.KV_TOUCH, calls.KvTouch(b"k", 9_000))
    second = wire.call(calls.KV_PUT, calls.KvPut(b"k", b"2", cas=first)).version
    assert wire.call(calls.KV_GET, calls.KvGet(b"k", version=first)).value == b"1"
    gone = wire.call(calls.KV_DELETE, calls.KvDelete(b"k", if_match=second)).version
    history = wire.call(calls.KV_HISTORY, calls.KvHistory(b"k")).versions
    assert [(v.version, v.tombstone, v.value, v.size) for v in history] == [
        (gone, True, None, 0),
        (second, False, b"2", 1),
        (first, False, b"1", 1),
    ]
    refusal(wire, calls.KV_HISTORY, calls.KvHistory(b"none"), NOT_FOUND)
    assert wire.call(calls.KV_EXISTS, calls.KvExists(b"k")) == calls.Exists(False)
    assert wire.call(calls.KV_INCR, calls.KvIncr(b"c", 7)).value == 7
    assert wire.call(calls.KV_GET, calls.KvGet(b"c")).kind == "counter"
    many = wire.call(calls.KV_MGET, calls.KvMget([b"c", b"none"]))
    assert ([entry.found for entry in many.entries], many.truncated) == ([True, False], False)
    page = wire.call(calls.KV_SCAN, calls.KvScan(limit=1))
    assert [(row.key, row.value, row.size > 0, row.version > 0) for row in page.rows] == [(b"c", b"7", True, True)]
    assert wire.call(calls.KV_COUNT, calls.NoArguments()) == calls.Count(1)


def test_a_conflict_carries_the_current_version(wire: Wire):
    version = wire.call(calls.KV_PUT, calls.KvPut(b"k", b"1")).version

    assert refusal(wire, calls.KV_PUT, calls.KvPut(b"k", b"2", cas=version + 9), CONFLICT) == Refusal(
        f"Version mismatch: current version {version}", "conflict", {"current_version": version}
    )
    said = refusal(wire, calls.KV_DELETE, calls.KvDelete(b"x", if_match=5), CONFLICT)
    assert said.details == {"current_version": 0}


def test_json(wire: Wire):
    wire.call(calls.KV_JSET, calls.KvJset(b"j", b'{"a":1}'))
    version = wire.call(calls.KV_JSET, calls.KvJset(b"j", b"2", "$.a")).version

    node = wire.call(calls.KV_JGET, calls.KvJget(b"j", "$.a"))
    assert (node.json, node.version) == (b"2", version)
    refusal(wire, calls.KV_JSET, calls.KvJset(b"j", b"3", "$.a", cas=1), CONFLICT)
    refusal(wire, calls.KV_JGET, calls.KvJget(b"j", "$.z"), NOT_FOUND)
    assert wire.call(calls.KV_JDEL, calls.KvJdel(b"j")).version > version


def test_a_transaction(wire: Wire):
    begun = wire.call(calls.KV_BEGIN, calls.KvBegin(b"u"))
    wire.call(calls.KV_PUT, calls.KvPut(b"u", b"1", txn=begun.txn_id))
    assert wire.call(calls.KV_GET, calls.KvGet(b"u", txn=begun.txn_id)).value == b"1"

    committed = wire.call(calls.KV_COMMIT, calls.KvTransaction(begun.txn_id))

    assert committed.op_count == 1
    assert wire.call(calls.KV_GET, calls.KvGet(b"u")).version == committed.commit_index
    said = refusal(wire, calls.KV_COMMIT, calls.KvTransaction(begun.txn_id), NO_TRANSACTION)
    assert (said.message, said.code) == ("transaction not found", "kv_txn_unknown")
    wire.call(calls.KV_ROLLBACK, calls.KvTransaction(begun.txn_id))


def test_a_wait_for_the_next_version_can_be_taken_up_again_and_misses_nothing(service: Service, wire: Wire):
    version = wire.call(calls.KV_PUT, calls.KvPut(b"k", b"1")).version
    waiting = wire.send_call(calls.KV_GET, calls.KvGet(b"k", block_ms=1_000))
    service.advance(1_000)
    with pytest.raises(CallRefused) as ended:
        wire.called(calls.KV_GET, waiting)
    assert ended.value.status == NOT_FOUND
    assert ended.value.refusal.details == {"timed_out": True, "version": version}
    between = wire.call(calls.KV_PUT, calls.KvPut(b"k", b"2")).version

    entry = wire.call(calls.KV_GET, calls.KvGet(b"k", block_ms=1_000, after_version=version))

    assert (entry.value, entry.version) == (b"2", between)


def test_a_wait_that_ends_by_a_delete_has_not_run_out(wire: Wire):
    wire.call(calls.KV_PUT, calls.KvPut(b"k", b"1"))
    waiting = wire.send_call(calls.KV_GET, calls.KvGet(b"k", block_ms=1_000))

    wire.call(calls.KV_DELETE, calls.KvDelete(b"k"))

    with pytest.raises(CallRefused) as ended:
        wire.called(calls.KV_GET, waiting)
    assert ended.value.refusal == Refusal("key not found", "not_found", None)


def test_a_wait_until_a_key_exists(wire: Wire):
    waiting = wire.send_call(calls.KV_GET, calls.KvGet(b"k", wait_ms=1_000))

    wire.put("k", b"now")

    assert wire.called(calls.KV_GET, waiting).value == b"now"


@pytest.mark.parametrize(
    ("call", "arguments", "field"),
    [
        (calls.KV_GET, calls.KvGet(b"k", wait_ms=300_001), "wait_ms"),
        (calls.KV_GET, calls.KvGet(b"k", block_ms=-1), "block_ms"),
        (calls.KV_GET, calls.KvGet(b"k", wait_ms=1, block_ms=1), "exclude one another"),
        (calls.KV_GET, calls.KvGet(b"k", wait_ms=1, txn=7), "transaction"),
        (calls.QUEUE_DEQUEUE, calls.QueueDequeue("q", wait_ms=300_001), "wait_ms"),
        (calls.STREAM_READ, calls.StreamRead("s", wait_ms=300_001), "wait_ms"),
        (calls.GROUP_READ, calls.GroupRead("s", "g", "c", wait_ms=300_001), "wait_ms"),
        (calls.STREAM_READ, calls.StreamRead("s", start="0", after="0-1"), "start and after"),
        (calls.STREAM_READ, calls.StreamRead("s", start="nonsense"), "invalid stream id"),
        (calls.GROUP_CREATE, calls.GroupCreate("s", "g", mode="nonsense"), "nonsense"),
        (calls.QUEUE_ENQUEUE, calls.QueueEnqueue("q", b"x", priority=-1), "priority must be 0..255"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(wire: Wire, call: calls.Call, arguments: calls.Arguments, field: str):
    assert field in refusal(wire, call, arguments, BAD_REQUEST).message


# Queues


def test_messages(service: Service, wire: Wire):
    assert wire.call(calls.QUEUE_ENQUEUE, calls.QueueEnqueue("q", b"a", 5, dedup_key=b"k")).deduplicated is False
    again = wire.call(calls.QUEUE_ENQUEUE, calls.QueueEnqueue("q", b"b", dedup_key=b"k"))
    assert (again.seq, again.deduplicated) == (1, True)
    wire.call(calls.QUEUE_ENQUEUE_MANY, calls.QueueEnqueueMany("q", [NewMessage(b"x"), NewMessage(b"y", 9)]))
    assert [m.seq for m in wire.call(calls.QUEUE_PEEK, calls.QueuePeek("q", 5)).messages] == [2, 1, 3]

    (message,) = wire.call(calls.QUEUE_DEQUEUE, calls.QueueDequeue("q", visibility_ms=5_000)).messages

    assert (message.payload, message.priority, message.delivery_count) == (b"x", 0, 1)
    assert message.lease_expires_at - message.enqueued_at == 5_000
    assert wire.call(calls.QUEUE_TOUCH, calls.QueueTouch("q", [2], 60_000)).count == 1
    settled = wire.call(calls.QUEUE_ACK, calls.QueueSeqs("q", [2, 77]))
    assert (settled.count, settled.missing) == (1, [77])
    said = refusal(wire, calls.QUEUE_ACK, calls.QueueSeqs("q", [2]), NOT_FOUND)
    assert said.message == "message not found in this queue"
    (taken,) = wire.call(calls.QUEUE_DEQUEUE, calls.QueueDequeue("q", ack=True)).messages
    refusal(wire, calls.QUEUE_ACK, calls.QueueSeqs("q", [taken.seq]), NOT_FOUND)
    stats = wire.call(calls.QUEUE_STATS, calls.QueueName("q"))
    assert (stats.name, stats.pending, stats.enqueued, stats.dequeued, stats.acked) == ("q", 1, 3, 2, 2)
    refusal(wire, calls.QUEUE_STATS, calls.QueueName("none"), NOT_FOUND)


def test_a_dequeue_waits(service: Service, wire: Wire):
    served = wire.send_call(calls.QUEUE_DEQUEUE, calls.QueueDequeue("q", wait_ms=1_000))
    empty = wire.send_call(calls.QUEUE_DEQUEUE, calls.QueueDequeue("q", wait_ms=1_000))

    wire.enqueue("q", b"m")
    service.advance(1_000)

    assert [m.payload for m in wire.called(calls.QUEUE_DEQUEUE, served).messages] == [b"m"]
    assert wire.called(calls.QUEUE_DEQUEUE, empty).messages == []


def test_dead_letters(wire: Wire):
    wire.enqueue("q", b"a")
    wire.enqueue("q", b"b")
    wire.call(calls.QUEUE_DEQUEUE, calls.QueueDequeue("q", 2))
    wire.call(calls.QUEUE_NACK, calls.QueueNack("q", [1, 2], dlq=True))

    page = wire.call(calls.QUEUE_DLQ_LIST, calls.QueuePage("q", 1))
    (dead,) = page.entries
    assert (dead.seq, dead.payload, dead.attempts, dead.reason, page.has_more) == (1, b"a", 1, "explicit", True)
    rest = wire.call(calls.QUEUE_DLQ_LIST, calls.QueuePage("q", 1, page.cursor))
    assert [entry.seq for entry in rest.entries] == [2]
    assert wire.call(calls.QUEUE_DLQ_REQUEUE, calls.QueueSeqs("q", [1])).count == 1
    assert wire.call(calls.QUEUE_DLQ_STATS, calls.QueueName("q")).count == 1
    refusal(wire, calls.QUEUE_DLQ_DELETE, calls.QueueSeqs("q", [1]), NOT_FOUND)
    assert wire.call(calls.QUEUE_DLQ_PURGE, calls.QueueName("q")) == calls.Count(1)
    assert wire.call(calls.QUEUE_PURGE, calls.QueueName("q")) == calls.Count(1)
    assert [queue.name for queue in wire.call(calls.QUEUE_LIST, calls.ListPage()).queues] == ["q"]
    wire.call(calls.QUEUE_DELETE, calls.QueueDelete("q"))
    assert wire.call(calls.QUEUE_LIST, calls.ListPage()).queues == []


# Streams


def append(wire: Wire, *payloads: bytes) -> list[str]:
    records = [calls.RecordToAppend(payload, ((b"h", b"1"),)) for payload in payloads]
    appended = wire.call(calls.STREAM_APPEND, calls.StreamAppend("s", records))
    assert appended.count == len(payloads)
    ms, seq = appended.first_id.split("-")
    return [f"{ms}-{int(seq) + number}" for number in range(len(payloads))]


def test_streams(wire: Wire):
    ids = append(wire, b"a", b"b", b"c")

    page = wire.call(calls.STREAM_READ, calls.StreamRead("s", after=ids[0], limit=1))
    (record,) = page.records
    assert (record.id, record.payload, record.headers, record.tier) == (ids[1], b"b", ((b"h", b"1"),), "hot")
    assert (page.has_more, page.next) == (True, ids[1])
    assert [r.id for r in wire.call(calls.STREAM_READ, calls.StreamRead("s", skip=2)).records] == [ids[2]]
    assert wire.call(calls.STREAM_READ, calls.StreamRead("s", start="$")).next == ids[2]
    whole_ms = ids[0].split("-")[0]
    assert len(wire.call(calls.STREAM_READ, calls.StreamRead("s", start=whole_ms, end=whole_ms)).records) == 3
    trimmed = wire.call(calls.STREAM_TRIM, calls.StreamTrim("s", before=ids[1], dry_run=True))
    assert (trimmed.trimmed, trimmed.first_id) == (1, ids[1])
    wire.call(calls.STREAM_TRIM, calls.StreamTrim("s", max_records=1))
    info = wire.call(calls.STREAM_INFO, calls.StreamName("s"))
    assert (info.first_id, info.last_id, info.records, info.partitions) == (ids[2], ids[2], 1, 1)
    assert (info.bytes, info.groups, [each.records for each in info.by_partition]) == (3, [], [1])
    refusal(wire, calls.STREAM_INFO, calls.StreamName("none"), NOT_FOUND)
    refusal(wire, calls.STREAM_TRIM, calls.StreamTrim("s"), BAD_REQUEST)


def test_a_read_waits_at_the_tail(service: Service, wire: Wire):
    append(wire, b"old")
    served = wire.send_call(calls.STREAM_READ, calls.StreamRead("s", start="$", wait_ms=1_000))
    (at,) = append(wire, b"new")
    empty = wire.send_call(calls.STREAM_READ, calls.StreamRead("s", start="$", wait_ms=1_000))
    service.advance(1_000)

    assert [record.id for record in wire.called(calls.STREAM_READ, served).records] == [at]
    page = wire.called(calls.STREAM_READ, empty)
    assert (page.records, page.next) == ([], at)


def test_settings_of_streams(wire: Wire):
    wire.call(calls.STREAM_CREATE, calls.StreamCreate("s", 4, max_age_ms=1_000))
    wire.call(calls.STREAM_CREATE, calls.StreamCreate("s", 4, max_age_ms=1_000))
    refusal(wire, calls.STREAM_CREATE, calls.StreamCreate("s"), CONFLICT)
    wire.call(calls.STREAM_ALTER, calls.StreamAlter("s", max_records=5))

    (stream,) = wire.call(calls.STREAM_LIST, calls.ListPage()).streams
    assert (stream.name, stream.partitions, stream.retention) == ("s", 4, calls.RetentionBounds(1_000, 5, 0))
    wire.call(
        calls.STREAM_APPEND, calls.StreamAppend("s", [calls.RecordToAppend(b"x")], partition_key=b"alice")
    )  # fmt: skip
    (record,) = wire.call(calls.STREAM_READ, calls.StreamRead("s", partition_key=b"alice")).records
    assert record.partition_key == b"alice"
    refusal(wire, calls.STREAM_DELETE, calls.StreamDelete("s"), CONFLICT)
    wire.call(calls.STREAM_DELETE, calls.StreamDelete("s", force=True))


# Consumer groups


def test_groups(service: Service, wire: Wire):
    ids = append(wire, b"a", b"b", b"c")
    wire.call(calls.GROUP_CREATE, calls.GroupCreate("s", "g", ack_timeout_ms=5_000))
    wire.call(calls.GROUP_JOIN, calls.GroupMember("s", "g", "w"))

    delivery = wire.call(calls.GROUP_READ, calls.GroupRead("s", "g", "w", 2))
    assert [(r.id, r.delivery_count) for r in delivery.records] == [(ids[0], 1), (ids[1], 1)]
    assert wire.call(calls.GROUP_ACK, calls.GroupAck("s", "g", [ids[0], "1-1"])) == calls.Count(1)
    assert wire.call(calls.GROUP_TOUCH, calls.GroupTouch("s", "g", [ids[1]], "w", 60_000)) == calls.Count(1)
    (entry,) = wire.call(calls.GROUP_PENDING, calls.GroupPending("s", "g")).entries
    assert (entry.id, entry.consumer, entry.delivery_count, entry.state) == (ids[1], "w", 1, "pending")
    info = wire.call(calls.GROUP_INFO, calls.GroupName("s", "g"))
    assert (info.mode, info.consumers, info.pending, info.lag, info.ack_timeout_ms) == ("shared", 1, 1, 1, 5_000)
    assert (info.last_delivered, info.ack_floor) == (ids[1], ids[0])
    assert [member.consumer for member in info.members] == ["w"]
    assert wire.call(calls.GROUP_LIST, calls.StreamName("s")).groups == [info]
    assert wire.call(calls.STREAM_INFO, calls.StreamName("s")).groups == ["g"]
    assert wire.call(calls.GROUP_NACK, calls.GroupNack("s", "g", [ids[1]], delay_ms=1_000)) == calls.Count(1)
    service.advance(1_000)
    claimed = wire.call(calls.GROUP_CLAIM, calls.GroupClaim("s", "g", "v", [ids[1]]))
    assert ([r.id for r in claimed.records], claimed.next) == ([ids[1]], None)
    service.advance(100)
    scanned = wire.call(calls.GROUP_AUTOCLAIM, calls.GroupAutoclaim("s", "g", "w", 50))
    assert [(r.id, r.delivery_count) for r in scanned.records] == [(ids[1], 3)]
    wire.call(calls.GROUP_LEAVE, calls.GroupMember("s", "g", "w"))
    wire.call(calls.GROUP_DELETE, calls.GroupName("s", "g"))
    refusal(wire, calls.GROUP_DELETE, calls.GroupName("s", "g"), NOT_FOUND)
    refusal(wire, calls.GROUP_INFO, calls.GroupName("s", "g"), NOT_FOUND)
    refusal(wire, calls.GROUP_ACK, calls.GroupAck("s", "g", [ids[0]]), NOT_FOUND)


def test_a_group_may_begin_at_the_tail(wire: Wire):
    append(wire, b"old")
    wire.call(calls.GROUP_CREATE, calls.GroupCreate("s", "g", start="$"))
    (at,) = append(wire, b"new")

    assert [r.id for r in wire.call(calls.GROUP_READ, calls.GroupRead("s", "g", "c")).records] == [at]


def test_a_group_read_waits(service: Service, wire: Wire):
    served = wire.send_call(calls.GROUP_READ, calls.GroupRead("s", "g", "c", wait_ms=60_000))
    service.advance(30_000)
    (at,) = append(wire, b"new")

    assert [r.id for r in wire.called(calls.GROUP_READ, served).records] == [at]
    waiting = wire.send_call(calls.GROUP_READ, calls.GroupRead("s", "g", "c", wait_ms=60_000))
    wire.call(calls.GROUP_DELETE, calls.GroupName("s", "g"))
    with pytest.raises(CallRefused) as gone:
        wire.called(calls.GROUP_READ, waiting)
    assert gone.value.status == NOT_FOUND


def test_a_member_is_bound_to_its_connection_only_if_it_asks_for_it(service: Service, wire: Wire):
    settings = calls.GroupCreate("s", "g", "exclusive", 600_000, max_standbys=0)
    wire.call(calls.GROUP_CREATE, settings)
    one, two = service.connect(), service.connect()
    one.call(calls.GROUP_JOIN, calls.GroupMember("s", "g", "w1"))
    one.close()

    said = refusal(two, calls.GROUP_JOIN, calls.GroupMember("s", "g", "w2"), GROUP_LOCKED)
    assert said.code == "group_locked"
    wire.call(calls.GROUP_LEAVE, calls.GroupMember("s", "g", "w1"))
    two.call(calls.GROUP_JOIN, calls.GroupMember("s", "g", "w2", bound=True))
    two.close()
    wire.call(calls.GROUP_JOIN, calls.GroupMember("s", "g", "w3"))


# Namespaces, the server


def test_namespaces(wire: Wire):
    assert wire.call(calls.NAMESPACE_CREATE, calls.NamespaceName("a")) == calls.NamespaceCreated(True)
    assert wire.call(calls.NAMESPACE_CREATE, calls.NamespaceName("a")) == calls.NamespaceCreated(False)
    wire.put("k", b"v", ns="b")

    assert {"a", "b"} <= set(wire.call(calls.NAMESPACE_LIST, calls.NoArguments()).namespaces)
    assert wire.call(calls.NAMESPACE_EXISTS, calls.NamespaceName("c")) == calls.Exists(False)
    info = wire.call(calls.NAMESPACE_INFO, calls.NamespaceName("b"))
    assert (info.keys, info.queues, info.streams) == (1, 0, 0)
    refusal(wire, calls.NAMESPACE_INFO, calls.NamespaceName("c"), NOT_FOUND)
    refusal(wire, calls.NAMESPACE_DELETE, calls.NamespaceDelete("b"), CONFLICT)
    refusal(wire, calls.NAMESPACE_DELETE, calls.NamespaceDelete("default"), CONFLICT)
    wire.call(calls.NAMESPACE_DELETE, calls.NamespaceDelete("b", force=True))
    assert wire.get("k", ns="b") is None


def test_namespaces_and_the_cluster_by_the_official_operations(wire: Wire):
    wire.body(opcodes.NAMESPACE_CREATE, "a")
    wire.put("k", b"v", ns="b")

    listed = Reader(wire.body(opcodes.NAMESPACE_LIST, b"", b"\0"))
    assert {b"a", b"b"} <= {listed.str16() for _ in range(listed.u32())}
    assert wire.body(opcodes.NAMESPACE_INFO, "a") == b"\1\1\0a"
    assert wire.body(opcodes.NAMESPACE_INFO, "z") == b"\0\1\0z"
    assert wire.reply(opcodes.NAMESPACE_DELETE, "b", b"\0").status == CONFLICT
    wire.body(opcodes.NAMESPACE_DELETE, "b", b"\1")
    status = Reader(wire.body(opcodes.CLUSTER_STATUS))
    assert (status.u32(), status.u32(), status.u64(), status.u8(), status.u32()) == (1, 1, 1, 2, 1)
    members = Reader(wire.body(opcodes.CLUSTER_MEMBERS))
    assert (members.u32(), members.u32(), members.u8(), members.str16()) == (1, 1, 2, b"")


def test_the_servers_status(wire: Wire):
    wire.put("k", b"v")

    status = wire.call(calls.SERVER_STATUS, calls.NoArguments())

    assert status.version == VERSION
    assert status.last_index >= 1
    assert status.namespaces >= 1
