"""Queues: enqueue, dequeue, batches, leases and delays, in virtual time."""

from __future__ import annotations

import pytest

from flo.primitives.machine import Refused
from flo.primitives.queue_events import QueueDue, QueueExpired, QueueTouched
from flo.primitives.queue_pages import DeadLetterStats, Enqueued, Message, NewMessage, Settled
from flo.primitives.queue_rules import (
    BATCH_BYTES,
    BATCH_MESSAGES,
    DEQUEUE_COUNT,
    PAYLOAD_BYTES,
    SEQS,
)
from flo.primitives.queue_timers import COARSE_MS, FAR_MS, GARBAGE, LOOKS
from tests.support.queue_desk import START, Desk, payloads, seqs


@pytest.fixture
def desk() -> Desk:
    return Desk()


# -- enqueue and dequeue


def test_lower_priorities_come_first_and_equal_ones_in_the_order_of_arrival(desk: Desk):
    for payload, priority in ((b"A", 10), (b"B", 1), (b"C", 1), (b"D", 0), (b"E", 255)):
        desk.enqueue("q", payload, priority=priority)

    assert payloads([desk.dequeue("q")[0] for _ in range(5)]) == [b"D", b"B", b"C", b"A", b"E"]


def test_seqs_count_from_one_and_go_on_after_a_restart(desk: Desk):
    assert [desk.enqueue("q") for _ in range(3)] == [1, 2, 3]
    desk.restart()
    assert desk.enqueue("q") == 4


def test_a_message_tells_when_it_was_enqueued_and_how_often_it_was_delivered(desk: Desk):
    desk.enqueue("q", b"x", priority=7)
    desk.now += 50

    deadline = desk.now + 30_000
    assert desk.dequeue("q") == [Message(1, b"x", 7, START, 1, deadline)]


def test_a_dequeue_hands_out_a_hundred_messages_at_most(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"") for _ in range(150)])

    assert seqs(desk.dequeue("q", 500)) == list(range(1, DEQUEUE_COUNT + 1))
    assert seqs(desk.dequeue("q", 500)) == list(range(101, 151)), "fewer when fewer are ready"


def test_what_is_not_there_is_empty_and_logs_nothing(desk: Desk):
    assert desk.dequeue("never") == []
    assert desk.machine.peek(desk.now, "default", "never") == []
    assert desk.machine.stats(desk.now, "default", "never") is None
    assert desk.machine.length("default", "never") == 0
    assert desk.machine.dlq_list(desk.now, "default", "never").entries == []
    assert desk.machine.dlq_stats(desk.now, "default", "never") == DeadLetterStats(0, 10_000, 0, 0)
    assert desk.do("purge", "never") == desk.do("dlq_purge", "never") == 0
    assert desk.index == 0
    assert desk.machine.bytes == 0


def test_messages_can_be_acknowledged_as_they_are_handed_out(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"a"), NewMessage(b"b")])
    before = desk.index

    messages = desk.dequeue("q", 5, ack=True)

    assert [(m.payload, m.delivery_count, m.lease_expires_at) for m in messages] == [(b"a", 1, 0), (b"b", 1, 0)]
    assert desk.index == before + 1
    assert desk.refused("ack", "q", [1]).kind == "not_found"
    stats = desk.stats("q")
    assert (stats["pending"], stats["dequeued"], stats["acked"], stats["inflight"]) == (0, 2, 2, 0)
    desk.restart()


def test_peeks_see_the_next_messages_and_change_nothing(desk: Desk):
    for priority in (3, 1, 2, 1, 1, 9):
        desk.enqueue("q", priority=priority)
    desk.enqueue("q", delay_ms=10)
    before = desk.machine.dump()

    first, second = (desk.machine.peek(desk.now, "default", "q", 5) for _ in range(2))

    assert first == second
    assert [(m.seq, m.delivery_count) for m in first] == [(2, 0), (4, 0), (5, 0), (3, 0), (1, 0)]
    assert desk.machine.dump() == before
    assert desk.stats("q")["inflight"] == 0
    assert seqs(desk.dequeue("q", 5)) == seqs(first)


def test_deciding_changes_nothing(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"", priority=n % 3) for n in range(9)])
    desk.do("nack", "q", seqs(desk.dequeue("q", 4)))
    before = desk.machine.dump()

    decisions = [desk.machine.decide_dequeue(desk.now, 1, "default", "q", count)[1] for count in (2, 9, 2)]

    assert desk.machine.dump() == before
    assert decisions[0] == decisions[2] == decisions[1][:2]
    assert seqs(decisions[1]) == [1, 4, 7, 2, 5, 8, 3, 6, 9]


def test_an_empty_payload_and_the_largest_are_messages(desk: Desk):
    desk.enqueue("q", b"")
    desk.enqueue("q", bytes(PAYLOAD_BYTES))

    assert [len(m.payload) for m in desk.dequeue("q", 2)] == [0, PAYLOAD_BYTES]


# -- batches


def test_a_batch_is_one_event_with_consecutive_seqs(desk: Desk):
    desk.enqueue("q")
    before = desk.index

    enqueued = desk.do("enqueue_many", "q", [NewMessage(b"a", 5), NewMessage(b"b", 1), NewMessage(b"c", 0, 100)])

    assert enqueued == [Enqueued(2, False), Enqueued(3, False), Enqueued(4, False)]
    assert desk.index == before + 1
    desk.now += 100
    assert seqs(desk.dequeue("q", 9)) == [1, 4, 3, 2]


@pytest.mark.parametrize(
    ("messages", "kind", "text"),
    [
        ([], "bad_argument", "a batch needs at least one message"),
        ([NewMessage(b"")] * 1_001, "bad_argument", "a batch of 1001 messages is over the limit of 1000"),
        ([NewMessage(b""), NewMessage(b"", 256)], "bad_argument", "priority must be 0..255"),
        ([NewMessage(b""), NewMessage(b"", 0, -1)], "bad_argument", "delay must not be negative"),
        (
            [NewMessage(bytes(PAYLOAD_BYTES))] * 65,
            "too_large",
            "a batch of 17039360 bytes is over the limit of 16777216",
        ),
    ],
)
def test_a_batch_that_is_refused_stores_nothing(desk: Desk, messages: list[NewMessage], kind: str, text: str):
    refused = desk.refused("enqueue_many", "q", messages)

    assert (refused.kind, refused.message) == (kind, text)
    assert desk.machine.stats(desk.now, "default", "q") is None


def test_a_batch_of_the_largest_size_is_taken(desk: Desk):
    assert len(desk.do("enqueue_many", "q", [NewMessage(b"")] * BATCH_MESSAGES)) == BATCH_MESSAGES
    assert len(desk.do("enqueue_many", "q", [NewMessage(bytes(PAYLOAD_BYTES))] * (BATCH_BYTES // PAYLOAD_BYTES))) == 64


def test_dedup_keys_count_within_a_batch(desk: Desk):
    desk.enqueue("q", dedup_key=b"old")

    enqueued = desk.do(
        "enqueue_many",
        "q",
        [
            NewMessage(payload, dedup_key=key)
            for payload, key in ((b"a", b"k"), (b"b", b"k"), (b"c", b"old"), (b"d", b""))
        ],
    )

    assert enqueued == [Enqueued(2, False), Enqueued(2, True), Enqueued(1, True), Enqueued(3, False)]
    assert payloads(desk.dequeue("q", 9)) == [b"job", b"a", b"d"]
    before = desk.index
    assert desk.do("enqueue_many", "q", [NewMessage(b"e", dedup_key=b"k")]) == [Enqueued(2, True)]
    assert desk.index == before


# -- leases


def test_a_lease_that_ends_makes_the_message_ready_again(desk: Desk):
    desk.enqueue("q")
    desk.dequeue("q", visibility_ms=300)
    assert desk.dequeue("q") == []
    assert desk.machine.next_due() == START + 300
    desk.now += 299
    assert desk.dequeue("q") == []
    desk.now += 1

    assert [m.delivery_count for m in desk.dequeue("q")] == [2]
    assert desk.stats("q")["expired"] == 1


def test_a_lease_that_is_past_is_not_handed_out_before_its_event(desk: Desk):
    desk.enqueue("q")
    desk.dequeue("q", visibility_ms=300)
    desk.now += 300

    assert desk.machine.decide_dequeue(desk.now, 1, "default", "q") == ([], [])
    with pytest.raises(Refused, match="message not found in this queue"):
        desk.machine.decide_touch(desk.now, 1, "default", "q", [1])
    assert desk.machine.due(desk.now, 1) == [QueueExpired("default", "q", (1,))]


def test_what_is_acknowledged_is_gone_also_after_a_restart(desk: Desk):
    desk.enqueue("q")
    desk.dequeue("q")

    assert desk.do("ack", "q", [1]) == Settled(1, [])
    desk.restart()

    desk.now += 60_000
    assert desk.dequeue("q") == []
    assert desk.stats("q")["acked"] == 1
    refused = desk.refused("ack", "q", [1])
    assert (refused.kind, refused.message) == ("not_found", "message not found in this queue")


def test_leases_and_delays_survive_a_restart_as_they_are(desk: Desk):
    desk.enqueue("q", b"leased")
    desk.enqueue("q", b"delayed", delay_ms=40_000)
    desk.dequeue("q", visibility_ms=20_500)
    desk.now += 10_000
    desk.restart()

    desk.now = START + 20_499
    assert desk.dequeue("q") == []
    desk.now += 1
    assert payloads(desk.dequeue("q", 9, visibility_ms=60_000)) == [b"leased"]
    desk.now = START + 39_999
    assert desk.dequeue("q") == []
    desk.now += 1
    assert payloads(desk.dequeue("q", 9)) == [b"delayed"]


def test_of_several_seqs_the_known_ones_are_settled_and_the_others_named(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"")] * 3)
    desk.dequeue("q", 3)

    assert desk.do("ack", "q", [3, 9, 3, 8]) == Settled(1, [9, 8])
    assert desk.do("nack", "q", [2, 3]) == Settled(1, [3])
    assert desk.do("touch", "q", [1, 2]) == Settled(1, [2])
    for what in ("ack", "nack", "touch", "dlq_requeue", "dlq_delete"):
        refused = desk.refused(what, "q", [8, 9])
        assert (refused.kind, refused.message) == ("not_found", "message not found in this queue")


@pytest.mark.parametrize("what", ["ack", "nack", "touch", "dlq_requeue", "dlq_delete"])
def test_lists_of_seqs_are_bounded(desk: Desk, what: str):
    desk.enqueue("q")

    assert desk.refused(what, "q", []).message == "at least one seq is required"
    assert desk.refused(what, "q", range(SEQS + 1)).message == "too many seqs (max 1000)"
    assert desk.refused(what, "q", range(2, SEQS + 2)).kind == "not_found"


def test_an_ack_counts_for_a_message_whose_lease_has_ended_or_was_renewed(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"")] * 2)
    desk.dequeue("q", 2, visibility_ms=100)
    desk.now += 100
    assert desk.do("ack", "q", [1]) == Settled(1, [])
    desk.dequeue("q")

    assert desk.do("ack", "q", [2]) == Settled(1, [])
    assert desk.stats("q")["pending"] == 0


def test_an_ack_does_not_remove_what_nobody_was_given(desk: Desk):
    desk.enqueue("q")
    desk.enqueue("q", delay_ms=10)

    assert desk.refused("ack", "q", [1, 2]).kind == "not_found"
    desk.dequeue("q")
    assert desk.do("ack", "q", [1, 2]) == Settled(1, [2])


def test_a_nacked_message_goes_back_to_its_place(desk: Desk):
    for priority in (1, 1, 0, 1):
        desk.enqueue("q", priority=priority)
    assert seqs(desk.dequeue("q", 3)) == [3, 1, 2]

    assert desk.do("nack", "q", [2, 3]) == Settled(2, [])

    assert [(m.seq, m.delivery_count) for m in desk.dequeue("q", 9)] == [(3, 2), (2, 2), (4, 1)]
    assert desk.stats("q")["nacked"] == 2


def test_a_nack_may_delay_the_message(desk: Desk):
    desk.enqueue("q")
    desk.dequeue("q")
    desk.do("nack", "q", [1], delay_ms=500)

    stats = desk.stats("q")
    assert (stats["delayed"], stats["inflight"], stats["available"]) == (1, 0, 0)
    assert desk.do("nack", "q", [1]) == Settled(1, []), "of what is not leased nothing happens"
    desk.now += 499
    assert desk.dequeue("q") == []
    desk.now += 1
    assert [m.delivery_count for m in desk.dequeue("q")] == [2]


def test_a_nack_of_a_ready_message_does_nothing(desk: Desk):
    desk.enqueue("q")
    before = desk.index

    assert desk.do("nack", "q", [1], delay_ms=500) == Settled(1, [])
    assert desk.index == before
    assert seqs(desk.dequeue("q")) == [1]


def test_a_touch_sets_the_end_of_a_lease_from_now(desk: Desk):
    desk.enqueue("q")
    desk.dequeue("q", visibility_ms=300)
    desk.now += 250
    desk.do("touch", "q", [1], extend_ms=60_000)
    desk.now += 750
    assert desk.dequeue("q") == []
    desk.now = START + 250 + 59_999
    assert desk.dequeue("q") == []
    desk.now += 1
    assert [m.delivery_count for m in desk.dequeue("q")] == [2]


def test_a_touch_renews_by_the_visibility_that_each_message_was_taken_with(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"")] * 3)
    desk.dequeue("q", 1, visibility_ms=3_000)
    desk.dequeue("q", 1)
    desk.dequeue("q", 1, visibility_ms=3_000)
    desk.now += 1_000
    events, settled = desk.machine.decide_touch(desk.now, 1, "default", "q", [1, 2, 3])

    assert settled == Settled(3, [])
    assert events == [
        QueueTouched("default", "q", (1, 3), desk.now + 3_000),
        QueueTouched("default", "q", (2,), desk.now + 30_000),
    ]


def test_what_is_not_leased_cannot_be_touched(desk: Desk):
    desk.enqueue("q")
    desk.enqueue("q", delay_ms=1_000)

    assert desk.refused("touch", "q", [1]).kind == "not_found"
    assert desk.refused("touch", "q", [2]).kind == "not_found"


def test_a_lease_touched_again_and_again_takes_no_memory(desk: Desk):
    desk.do("enqueue_many", "q", [NewMessage(b"")] * 2)
    desk.dequeue("q", 2, visibility_ms=60_000)
    for _ in range(10 * GARBAGE):
        desk.now += 1
        desk.do("touch", "q", [1, 2])

    buckets = desk.machine._agenda._buckets
    assert sum(len(bucket.items) for bucket in buckets.values()) <= 2 * (2 + GARBAGE)
    desk.now += 59_999
    assert desk.dequeue("q", 9) == []
    desk.now += 1
    assert seqs(desk.dequeue("q", 9)) == [1, 2]


# -- delays


def test_a_delayed_message_is_pending_but_not_available(desk: Desk):
    desk.enqueue("q", delay_ms=1_000)

    assert desk.dequeue("q") == []
    stats = desk.stats("q")
    assert (stats["pending"], stats["available"], stats["delayed"]) == (1, 0, 1)
    assert desk.machine.length("default", "q") == 1
    assert desk.machine.next_due() == START + 1_000
    desk.now += 1_000
    assert seqs(desk.dequeue("q")) == [1]


def test_what_was_delayed_competes_by_priority_and_seq(desk: Desk):
    desk.enqueue("q", delay_ms=200)
    desk.enqueue("q", priority=1, delay_ms=100)
    desk.enqueue("q", delay_ms=100)
    desk.enqueue("q")
    desk.now += 200

    assert seqs(desk.dequeue("q", 9)) == [1, 3, 4, 2]


@pytest.mark.parametrize("delay", [1, COARSE_MS, FAR_MS, FAR_MS + 1, FAR_MS + 999, 86_400_123])
def test_a_delay_of_any_length_ends_to_the_millisecond(desk: Desk, delay: int):
    desk.enqueue("q", delay_ms=delay)
    for early in (delay, 2_000, 999, 1):
        desk.now = max(desk.now, START + delay - early)
        assert desk.dequeue("q") == []
    desk.now = START + delay

    assert seqs(desk.dequeue("q")) == [1]
    desk.restart()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_call_of_due_does_bounded_work_and_goes_on(desk: Desk, restarted: bool):
    for n in range(12):
        desk.do("enqueue_many", "q", [NewMessage(b"", delay_ms=10_000 + n % 2)] * 1_000)
    if restarted:
        desk.restart()
    desk.now += 10_001

    calls = 0
    while desk.machine.next_due() is not None:
        calls += 1
        events = desk.machine.due(desk.now, desk.index + 1)
        assert events == desk.machine.due(desk.now, desk.index + 1)
        assert sum(len(event.seqs) for event in events if isinstance(event, QueueDue)) <= LOOKS
        desk.commit(events)

    assert calls <= 10
    assert desk.stats("q")["available"] == 12_000
    assert seqs(desk.dequeue("q", 3)) == [1, 2, 3]


def test_an_instant_that_was_given_up_and_taken_again_is_looked_at_once(desk: Desk):
    desk.enqueue("q", delay_ms=50)
    for seq in (2, 3):
        desk.enqueue("q", delay_ms=100)
        desk.do("nack", "q", [seq], dlq=True)
    desk.enqueue("q", delay_ms=100)
    desk.now += 100

    assert desk.machine.due(desk.now, 1) == [QueueDue("default", "q", (1,)), QueueDue("default", "q", (4,))]
