"""Queues as a whole: purging, deleting, listing, statistics, names, memory and snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from flo.primitives.machine import Refused
from flo.primitives.queue_events import QueueDue, QueueEnqueued, QueueExpired, QueueMoved, QueueTouched
from flo.primitives.queue_pages import Enqueued, NewMessage, Settled
from flo.primitives.queue_rules import (
    DEDUP_KEY_BYTES,
    INSTANT_MAX,
    PAYLOAD_BYTES,
    QUEUE_NAME_BYTES,
)
from flo.primitives.queue_timers import GARBAGE, Agenda, Item
from tests.support.queue_desk import START, Desk, seqs


@pytest.fixture
def desk() -> Desk:
    return Desk()


# -- purge, delete, namespaces


def test_a_purge_removes_all_but_the_dead_letters(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"")] * 13)
    desk.dequeue("q", 3)
    desk.do("nack", "q", [3], dlq=True)

    assert desk.do("purge", "q") == 12
    assert desk.dead("q") == [(3, 1, "explicit")]
    assert desk.refused("ack", "q", [1]).kind == "not_found"
    assert desk.machine.next_due() is None
    stats = desk.stats("q")
    assert (stats["pending"], stats["inflight"], stats["purged"]) == (0, 0, 12)
    assert desk.do("purge", "q") == 0
    desk.restart()
    assert desk.enqueue("q") == 14


def test_a_queue_is_deleted_with_everything_but_its_last_seq(desk: Desk):
    assert desk.refused("delete", "q").message == "queue not found"
    desk.do("enqueue_many", "q", [NewMessage(b"", dedup_key=b"k"), NewMessage(b""), NewMessage(b"", delay_ms=9)])
    desk.do("nack", "q", [2], dlq=True)
    refused = desk.refused("delete", "q")
    assert (refused.kind, refused.message, refused.details) == (
        "conflict",
        "queue is not empty",
        {"pending": 2, "dlq": 1},
    )
    desk.do("purge", "q")
    assert desk.refused("delete", "q").details == {"pending": 0, "dlq": 1}

    desk.do("delete", "q", True)

    assert desk.machine.stats(desk.now, "default", "q") is None
    assert desk.machine.list(desk.now, "default").queues == []
    assert desk.machine.next_due() is None
    desk.restart()
    assert desk.do("enqueue", "q", b"", dedup_key=b"k") == Enqueued(4, False)
    assert desk.stats("q")["enqueued"] == 1
    assert desk.enqueue("other") == 1
    desk.restart()
    desk.do("delete", "other", force=True)
    assert desk.do("enqueue_many", "other", [NewMessage(b"")]) == [Enqueued(2, False)]


def test_an_empty_queue_needs_no_force(desk: Desk):
    desk.enqueue("q")
    desk.dequeue("q", ack=True)

    assert desk.do("delete", "q") is None


def test_a_namespace_is_dropped_with_everything_in_it(desk: Desk):
    desk.enqueue("stays", delay_ms=70)
    held = desk.machine.bytes
    desk.ns = "a"
    for name in ("q", "r", "s"):
        desk.enqueue(name, b"payload", delay_ms=50, dedup_key=b"k")
    desk.do("delete", "s", force=True)

    for machine in (desk.machine, desk.replica):
        machine.drop_namespace("a")
        machine.drop_namespace("a")

    assert desk.machine.bytes == held
    assert desk.machine.next_due() == START + 70
    assert desk.machine.list(desk.now, "a").queues == []
    desk.restart()
    assert [desk.enqueue(name) for name in ("q", "s")] == [1, 1]


def test_namespaces_do_not_see_one_another(desk: Desk):
    desk.ns = "a"
    desk.enqueue("tasks")
    desk.dequeue("tasks")
    desk.ns = "b"

    assert desk.dequeue("tasks") == []
    assert desk.refused("ack", "tasks", [1]).kind == "not_found"
    desk.ns = "a"
    assert desk.do("ack", "tasks", [1]) == Settled(1, [])


def test_queues_are_listed_in_pages_by_name(desk: Desk):
    for name in ("b", "é", "a", "Z"):
        desk.enqueue(name)
    desk.ns = "other"
    desk.enqueue("c")

    whole = desk.machine.list(desk.now, "default")
    assert ([queue.name for queue in whole.queues], whole.has_more, whole.cursor) == (["Z", "a", "b", "é"], False, "")
    page = desk.machine.list(desk.now, "default", 3)
    assert ([queue.name for queue in page.queues], page.has_more) == (["Z", "a", "b"], True)
    rest = desk.machine.list(desk.now, "default", 3, page.cursor)
    assert ([queue.name for queue in rest.queues], rest.has_more) == (["é"], False)
    with pytest.raises(Refused, match="invalid cursor"):
        desk.machine.list(desk.now, "default", 3, "nonsense")


def test_internal_queues_are_hidden_and_not_written_to(desk: Desk):
    desk.commit([QueueEnqueued("default", "_internal", 1, b"", 0, 0, b"")])

    assert desk.machine.list(desk.now, "default").queues == []
    for what, args in (("enqueue", (b"",)), ("enqueue_many", ([NewMessage(b"")],)), ("dequeue", ()), ("ack", ([1],))):
        for name in ("_internal", "_new"):
            refused = desk.refused(what, name, *args)
            assert (refused.kind, refused.details) == ("bad_argument", {"code": "unauthorized"})


def test_statistics_count_everything_that_happened(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"")] * 151)
    got = desk.dequeue("q", 100)
    desk.do("ack", "q", seqs(got[:40]))
    desk.do("nack", "q", seqs(got[40:42]))
    desk.enqueue("q", delay_ms=60_000)
    desk.now += 250

    stats = desk.machine.stats(desk.now, "default", "q")

    assert stats is not None
    assert msgspec.structs.asdict(stats) == {
        "name": "q", "namespace": "default", "pending": 112, "available": 53, "delayed": 1, "inflight": 58,
        "enqueued": 152, "dequeued": 100, "acked": 40, "nacked": 2, "expired": 0, "dlq": 0, "dlq_moved": 0,
        "dlq_evicted": 0, "purged": 0, "oldest_ready_ms": 250,
    }  # fmt: skip
    assert desk.machine.list(desk.now, "default").queues == [stats]


def test_the_oldest_ready_message_is_found_among_all_priorities(desk: Desk):
    desk.enqueue("q", priority=200)
    desk.now += 10
    desk.enqueue("q", priority=1)
    desk.now += 10
    assert desk.stats("q")["oldest_ready_ms"] == 20
    desk.do("nack", "q", [1], dlq=True)
    assert desk.stats("q")["oldest_ready_ms"] == 10
    desk.dequeue("q")
    assert desk.stats("q")["oldest_ready_ms"] == 0


# -- names and arguments


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "queue name is required"),
        ("a\0b", "queue name must not contain NUL"),
        ("é" * 128, "queue name too long (max 255 bytes)"),
        ("\ud800", "queue name must be text in UTF-8"),
    ],
)
def test_names_are_checked_wherever_they_come_in(desk: Desk, name: str, text: str):
    args: dict[str, tuple[Any, ...]] = {
        "enqueue": (b"",), "enqueue_many": ([NewMessage(b"")],), "dequeue": (), "ack": ([1],), "nack": ([1],),
        "touch": ([1],), "purge": (), "delete": (), "dlq_requeue": ([1],), "dlq_delete": ([1],), "dlq_purge": (),
    }  # fmt: skip
    for what, given in args.items():
        refused = desk.refused(what, name, *given)
        assert (refused.kind, refused.message) == ("bad_argument", text)
    for read in (desk.machine.peek, desk.machine.stats, desk.machine.dlq_list, desk.machine.dlq_stats):
        with pytest.raises(Refused):
            read(desk.now, "default", name)
    with pytest.raises(Refused):
        desk.machine.length("default", name)


def test_a_namespace_has_a_name_that_namespaces_may_have(desk: Desk):
    desk.ns = "1st"

    assert desk.refused("enqueue", "q", b"").kind == "bad_argument"
    with pytest.raises(Refused):
        desk.machine.list(desk.now, "1st")


def test_the_longest_name_is_a_name(desk: Desk):
    assert desk.enqueue("q" * QUEUE_NAME_BYTES) == 1


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"priority": 256}, "bad_argument", "priority must be 0..255"),
        ({"priority": -1}, "bad_argument", "priority must be 0..255"),
        ({"delay_ms": -1}, "bad_argument", "delay must not be negative"),
        ({"delay_ms": INSTANT_MAX}, "bad_argument", "delay too large"),
        ({"dedup_key": bytes(DEDUP_KEY_BYTES + 1)}, "bad_argument", "dedup key too long (max 256 bytes)"),
        ({"payload": bytes(PAYLOAD_BYTES + 1)}, "too_large", "payload too large (max 262144 bytes)"),
    ],
)
def test_a_message_that_is_refused_is_not_stored(desk: Desk, options: dict[str, Any], kind: str, text: str):
    payload = options.pop("payload", b"")
    refused = desk.refused("enqueue", "q", payload, **options)

    assert (refused.kind, refused.message) == (kind, text)
    assert desk.machine.stats(desk.now, "default", "q") is None


def test_arguments_of_dequeues_and_what_follows_are_checked(desk: Desk):
    desk.enqueue("q")

    assert desk.refused("dequeue", "q", 0).message == "count must be at least 1"
    assert desk.refused("dequeue", "q", visibility_ms=-1).message == "visibility must not be negative"
    assert desk.refused("dequeue", "q", visibility_ms=INSTANT_MAX).message == "visibility too large"
    assert desk.refused("nack", "q", [1], delay_ms=-1).message == "delay must not be negative"
    assert desk.refused("touch", "q", [1], extend_ms=-1).message == "extend must not be negative"
    with pytest.raises(Refused, match="count must be at least 1"):
        desk.machine.peek(desk.now, "default", "q", 0)


# -- what a machine is


def test_after_a_crash_what_was_acknowledged_stays_gone_and_the_rest_comes_in_order(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"", priority=n % 2) for n in range(100)])
    desk.do("ack", "q", seqs(desk.dequeue("q", 40)))
    desk.dequeue("q", 10)
    desk.restart()

    desk.now += 30_000
    found = desk.dequeue("q", 100)

    order = sorted(range(1, 101), key=lambda seq: ((seq - 1) % 2, seq))
    assert seqs(found) == order[40:]
    assert desk.replica.dump() == desk.machine.dump()


def test_every_message_is_consumed_exactly_once_while_no_lease_ends(desk: Desk):
    for _ in range(10):
        desk.do("enqueue_many", "q", [NewMessage(b"")] * 1_000)
    consumed: list[int] = []
    while True:
        held = [desk.dequeue("q", 7) for _ in range(8)]
        if not any(held):
            break
        for messages in reversed(held):
            if messages:
                desk.do("ack", "q", seqs(messages))
                consumed += seqs(messages)

    assert sorted(consumed) == list(range(1, 10_001))


def test_what_is_acknowledged_out_of_order_takes_no_memory(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"")] * 1_000)
    for _ in range(10):
        desk.dequeue("q", 100)
    desk.do("nack", "q", range(1, 1_001))
    desk.do("ack", "q", range(2, 1_001))

    lane = desk.machine._tables["default"].queues["q"].ready._lanes[0]
    assert len(lane.run) + len(lane.back) <= 2 * GARBAGE + 1
    assert desk.machine._agenda._buckets == {}
    assert seqs(desk.dequeue("q", 9)) == [1]


def test_lanes_of_priorities_that_are_used_no_more_go(desk: Desk):
    for priority in range(256):
        desk.enqueue("q", priority=priority)
    while desk.dequeue("q", 100, ack=True):
        pass

    assert len(desk.machine._tables["default"].queues["q"].ready._lanes) <= 8
    desk.enqueue("q", priority=9)
    assert len(desk.dequeue("q")) == 1


def test_an_event_of_what_is_not_there_is_passed_over(desk: Desk):
    desk.enqueue("q")
    before = desk.machine.dump()

    desk.commit([QueueDue("default", "none", (1,)), QueueDue("none", "q", (1,)), QueueDue("default", "q", (1, 2))])
    desk.commit([QueueExpired("default", "q", (1, 2)), QueueTouched("default", "q", (1, 2), 9)])
    desk.commit([QueueMoved("default", "q", (2,), "explicit", False, 10)])

    assert desk.machine.dump() == before
    assert seqs(desk.dequeue("q", 9)) == [1]


def test_a_snapshot_of_another_version_is_refused(desk: Desk):
    with pytest.raises(ValueError, match="queues snapshot of version 9; this release reads 1"):
        desk.machine.load(b"\x09")
    with pytest.raises(ValueError, match="version None"):
        desk.machine.load(b"")


def test_what_it_holds_in_memory_is_told(desk: Desk):
    desk.enqueue("q", bytes(1_000))
    one = desk.machine.bytes
    desk.enqueue("q", bytes(1_000), dedup_key=bytes(100))

    assert 1_000 < desk.machine.bytes - one - 200 < 1_600
    desk.dequeue("q", 2, ack=True)
    assert desk.machine.bytes < one
    desk.restart()


class NotWalked(dict[Any, Any]):
    """Fails when somebody looks through all of it."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("all buckets are looked through")


def test_a_queue_is_purged_and_deleted_without_a_look_at_the_instants_of_the_others():
    agenda = Agenda()
    items = [Item(seq, b"", 0, b"", 0) for seq in (1, 2, 3)]
    for number, item in enumerate(items):
        item.at = 100 + number
        agenda.bucket(0, item.at, number).add(item)
    agenda._buckets = NotWalked(agenda._buckets)
    agenda.drop(0)
    agenda.remove(items[1])
    agenda.drop(1)

    assert agenda.next() == 102 and [number for number, _ in agenda.due(102)] == [2]
    agenda.drop(2)
    assert agenda.next() is None and len(agenda._buckets) == 0
