"""Dedup keys of queues."""

from __future__ import annotations

import pytest

from flo.primitives.queue_dedup import DEDUP_WINDOW_MS, DROPS
from flo.primitives.queue_pages import Enqueued
from tests.support.queue_desk import START, Desk, payloads


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_dedup_key_answers_with_the_message_that_has_it(desk: Desk):
    assert desk.do("enqueue", "q", b"a", dedup_key=b"k") == Enqueued(1, False)
    assert desk.do("enqueue", "q", b"b", dedup_key=b"k") == Enqueued(1, True)
    assert desk.do("enqueue", "other", b"c", dedup_key=b"k") == Enqueued(1, False)
    desk.ns = "b"
    assert desk.do("enqueue", "q", b"d", dedup_key=b"k") == Enqueued(1, False)
    desk.ns = "default"
    desk.restart()
    assert desk.do("enqueue", "q", b"e", dedup_key=b"k") == Enqueued(1, True)
    assert payloads(desk.dequeue("q", 9)) == [b"a"]


@pytest.mark.parametrize("end", ["ack", "purge", "dlq_delete"])
def test_a_dedup_key_is_taken_for_five_minutes_though_its_message_has_gone(desk: Desk, end: str):
    desk.enqueue("q", dedup_key=b"k")
    desk.dequeue("q")
    if end == "ack":
        desk.do("ack", "q", [1])
    elif end == "purge":
        desk.do("purge", "q")
    else:
        desk.do("nack", "q", [1], dlq=True)
        desk.do("dlq_delete", "q", [1])
    desk.restart()
    desk.now = START + DEDUP_WINDOW_MS - 1
    assert desk.do("enqueue", "q", b"", dedup_key=b"k") == Enqueued(1, True)
    desk.now += 1

    assert desk.do("enqueue", "q", b"", dedup_key=b"k") == Enqueued(2, False)


@pytest.mark.parametrize("more", [0, DROPS + 1])
def test_a_dedup_key_is_taken_while_a_live_message_carries_it(desk: Desk, more: int):
    desk.enqueue("q", delay_ms=2 * DEDUP_WINDOW_MS, dedup_key=b"k")
    desk.now += DEDUP_WINDOW_MS
    for n in range(more):
        desk.enqueue("q", priority=1, dedup_key=b"%d" % n)
    desk.restart()
    assert desk.do("enqueue", "q", b"", dedup_key=b"k") == Enqueued(1, True)
    desk.now += DEDUP_WINDOW_MS
    desk.dequeue("q")
    assert desk.do("enqueue", "q", b"", dedup_key=b"k") == Enqueued(1, True)
    desk.do("ack", "q", [1])

    assert desk.do("enqueue", "q", b"", dedup_key=b"k") == Enqueued(more + 2, False)


def test_a_requeued_message_takes_its_key_again(desk: Desk):
    desk.enqueue("q", dedup_key=b"k")
    desk.do("nack", "q", [1], dlq=True)
    desk.now += DEDUP_WINDOW_MS
    assert desk.enqueue("q", dedup_key=b"k") == 2, "a dead letter is not live"
    desk.do("dlq_requeue", "q", [1])
    assert desk.do("enqueue", "q", b"", dedup_key=b"k") == Enqueued(2, True)
    desk.dequeue("q", 2)
    desk.do("ack", "q", [2])
    desk.now += DEDUP_WINDOW_MS
    desk.restart()

    assert desk.do("enqueue", "q", b"", dedup_key=b"k") == Enqueued(1, True)
    desk.do("ack", "q", [1])
    assert desk.do("enqueue", "q", b"", dedup_key=b"k") == Enqueued(3, False)


def test_the_dedup_table_shrinks_as_enqueues_go_on(desk: Desk):
    for n in range(3_000):
        desk.enqueue("q", dedup_key=b"%d" % n)
    desk.dequeue("q")
    desk.do("purge", "q")
    held = desk.machine.bytes
    desk.now += DEDUP_WINDOW_MS
    for _ in range(3_000 // DROPS + 1):
        desk.enqueue("q")
    desk.do("purge", "q")

    assert held - desk.machine.bytes > 3_000 * 100
    dedup = desk.machine._tables["default"].queues["q"].dedup
    assert (dedup.entries, dedup._owners, len(dedup._keys) < 2_000) == (0, {}, True)
    desk.restart()


def test_of_several_live_messages_with_a_key_the_newest_has_it(desk: Desk):
    for seq in (1, 2, 3):
        desk.enqueue("q", dedup_key=b"k")
        desk.do("nack", "q", [seq], dlq=True)
        desk.now += DEDUP_WINDOW_MS
    desk.do("dlq_requeue", "q", [2, 1, 3])
    desk.enqueue("q")  # which drops what is over

    for seq in (3, 2, 1):
        assert desk.do("enqueue", "q", b"", dedup_key=b"k") == Enqueued(seq, True)
        desk.do("nack", "q", [seq], dlq=True)
    assert desk.do("enqueue", "q", b"", dedup_key=b"k") == Enqueued(5, False)
