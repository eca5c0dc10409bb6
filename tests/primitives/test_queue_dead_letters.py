"""The dead letters of queues."""

from __future__ import annotations

import msgspec
import pytest

from flo.primitives.machine import Refused
from flo.primitives.queue_pages import DeadLetterStats, NewMessage, Settled
from flo.primitives.queue_rules import (
    LIST_LIMIT,
    PAGE_BYTES,
    PAYLOAD_BYTES,
)
from flo.primitives.queues import Queues
from tests.support.queue_desk import START, Desk, seqs


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize("how", ["nack", "expiry"])
def test_after_five_deliveries_a_message_is_a_dead_letter(desk: Desk, how: str):
    desk.enqueue("q", b"poison", priority=3)
    for delivery in range(1, 6):
        assert [m.delivery_count for m in desk.dequeue("q", visibility_ms=100)] == [delivery]
        if how == "nack":
            desk.do("nack", "q", [1])
        else:
            desk.now += 100

    assert desk.dequeue("q") == []
    page = desk.machine.dlq_list(desk.now, "default", "q")
    assert [msgspec.structs.astuple(entry) for entry in page.entries] == [
        (1, b"poison", 3, 5, desk.now, "max_attempts", START)
    ]
    stats = desk.stats("q")
    assert (stats["dlq"], stats["dlq_moved"], stats["pending"]) == (1, 1, 0)
    assert (stats["nacked"], stats["expired"]) == ((5, 0) if how == "nack" else (0, 5))
    assert desk.refused("ack", "q", [1]).kind == "not_found"
    desk.restart()


def test_the_number_of_attempts_is_set_when_deciding(desk: Desk):
    desk = Desk(max_attempts=1)
    desk.enqueue("q")
    desk.dequeue("q", visibility_ms=100)
    desk.now += 100

    assert desk.dequeue("q") == []
    assert desk.dead("q") == [(1, 1, "max_attempts")]


def test_a_nack_to_the_dead_letters_is_explicit(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"")] * 2 + [NewMessage(b"", delay_ms=1_000)])
    desk.dequeue("q")

    assert desk.do("nack", "q", [1, 2, 3], dlq=True) == Settled(3, [])
    assert desk.dead("q") == [(1, 1, "explicit"), (2, 0, "explicit"), (3, 0, "explicit")]
    assert desk.dequeue("q") == []
    assert desk.machine.next_due() is None
    assert desk.refused("nack", "q", [1], dlq=True).kind == "not_found"


def test_a_requeued_message_is_as_if_never_delivered(desk: Desk):
    desk.enqueue("q", priority=4)
    desk.enqueue("q", priority=4)
    desk.dequeue("q")
    desk.do("nack", "q", [1], dlq=True)
    desk.restart()

    assert desk.do("dlq_requeue", "q", [1, 7]) == Settled(1, [7])
    assert desk.dead("q") == []
    assert desk.refused("ack", "q", [1]).kind == "not_found"
    assert [(m.seq, m.priority, m.delivery_count) for m in desk.dequeue("q", 9)] == [(1, 4, 1), (2, 4, 1)]


def test_a_ready_message_that_went_and_came_back_is_handed_out_once(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"")] * 3)
    for _ in range(3):
        desk.do("nack", "q", [2], dlq=True)
        desk.do("dlq_requeue", "q", [2])

    assert seqs(desk.machine.peek(desk.now, "default", "q", 9)) == [1, 2, 3]
    desk.do("nack", "q", [2], dlq=True)
    desk.do("purge", "q")
    desk.do("dlq_requeue", "q", [2])
    assert seqs(desk.dequeue("q", 9)) == [2]
    desk.restart()


def test_dead_letters_are_bounded_and_the_oldest_goes():
    desk = Desk()
    for _ in range(10):
        desk.do("enqueue_many", "q", [NewMessage(b"")] * 1_000)
    desk.enqueue("q")
    for first in range(1, 10_001, 1_000):
        desk.do("nack", "q", range(first, first + 1_000), dlq=True)
    assert desk.stats("q")["dlq_evicted"] == 0
    desk.now += 5

    desk.do("nack", "q", [10_001], dlq=True)

    assert desk.machine.dlq_stats(desk.now, "default", "q") == DeadLetterStats(10_000, 10_000, 1, START)
    assert desk.dead("q")[0][0] == 2
    assert desk.refused("dlq_requeue", "q", [1]).kind == "not_found"
    desk.restart()


def test_the_capacity_is_a_fact_of_the_move():
    desk = Desk(dlq_capacity=2)
    desk.replica = Queues()
    desk.do("enqueue_many", "q", [NewMessage(b"")] * 4)
    desk.do("nack", "q", [4, 1, 3], dlq=True)
    desk.do("nack", "q", [2], dlq=True)

    assert [seq for seq, _, _ in desk.dead("q")] == [3, 2]
    assert desk.replica.dump() == desk.machine.dump()


def test_dead_letters_are_listed_in_pages_that_a_restart_and_changes_leave_in_order(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"")] * 6)
    desk.do("nack", "q", [6, 5, 4, 3, 2, 1], dlq=True)

    page = desk.machine.dlq_list(desk.now, "default", "q", 2)
    assert ([entry.seq for entry in page.entries], page.has_more) == ([6, 5], True)
    desk.do("dlq_delete", "q", [5, 4])
    desk.restart()
    page = desk.machine.dlq_list(desk.now, "default", "q", 2, page.cursor)
    assert ([entry.seq for entry in page.entries], page.has_more) == ([3, 2], True)
    page = desk.machine.dlq_list(desk.now, "default", "q", 2, page.cursor)
    assert ([entry.seq for entry in page.entries], page.has_more, page.cursor) == ([1], False, "")
    with pytest.raises(Refused, match="invalid cursor"):
        desk.machine.dlq_list(desk.now, "default", "q", 2, "AWE=")


def test_a_page_of_dead_letters_is_bounded_in_bytes(desk: Desk):
    whole = PAGE_BYTES // PAYLOAD_BYTES
    for _ in range(whole + 1):
        desk.enqueue("q", bytes(PAYLOAD_BYTES))
    desk.do("nack", "q", range(1, whole + 2), dlq=True)

    page = desk.machine.dlq_list(desk.now, "default", "q", LIST_LIMIT)

    assert (len(page.entries), page.has_more) == (whole, True)
    assert len(desk.machine.dlq_list(desk.now, "default", "q", LIST_LIMIT, page.cursor).entries) == 1


def test_dead_letters_are_deleted_and_purged(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"xyz")] * 4)
    held = desk.machine.bytes
    desk.do("nack", "q", [1, 2, 3], dlq=True)
    assert desk.machine.bytes == held

    assert desk.do("dlq_delete", "q", [2, 4]) == Settled(1, [4])
    assert desk.do("dlq_purge", "q") == 2
    assert desk.dead("q") == []
    assert seqs(desk.dequeue("q", 9)) == [4]
    assert desk.machine.bytes < held
    desk.restart()
