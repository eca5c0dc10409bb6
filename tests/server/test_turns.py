"""Turns on a real group commit, without sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from flo.api.clock import FakeClock
from flo.api.errors import Unavailable
from flo.log.errors import LogError
from flo.server import turns as module
from flo.server.turn_link import REPLY_BYTES
from flo.server.turns import Turns
from tests.server.support import LittleStore, RecordingLink, until


def put(key: bytes, answer: bytes) -> Callable[[LittleStore], bytes]:
    def request(store: LittleStore) -> bytes:
        store.put(key, b"v")
        return answer

    return request


def say(answer: bytes) -> Callable[[LittleStore], bytes]:
    return lambda store: answer


def turns_of(store: Any, **options: Any) -> Turns:
    return Turns(asyncio.get_running_loop(), store, **options)


async def test_all_that_arrives_in_one_round_of_the_loop_is_one_batch_and_one_write_for_each_link(store):
    turns = turns_of(store)
    links = [RecordingLink() for _ in range(10)]
    for number in range(5):
        for link in links:
            turns.submit(link, put(b"k", b"%d;" % number), 10)

    await turns.settle()

    assert store.batches == [50]
    assert store.sizes == [500]
    assert [link.writes for link in links] == [[b"0;1;2;3;4;"]] * 10


async def test_nothing_leaves_before_the_log_is_durable(store):
    turns = turns_of(store)
    link = RecordingLink()
    store.backend.hold()
    turns.submit(link, put(b"k", b"written;"), 10)
    await asyncio.to_thread(store.backend.wait_held)
    turns.submit(link, say(b"read;"), 10)
    await until(lambda: len(store.batches) == 2)

    assert link.writes == []
    store.backend.release()
    await turns.settle()
    assert link.received == b"written;read;"


async def test_what_rests_on_nothing_unflushed_leaves_in_the_same_round(store):
    turns = turns_of(store)
    link = RecordingLink()
    turns.submit(link, say(b"read;"), 10)
    await asyncio.sleep(0)

    assert link.writes == [b"read;"]


async def test_batches_of_one_flush_leave_in_one_write(store):
    turns = turns_of(store)
    link = RecordingLink()
    store.backend.hold()
    for number in range(4):
        turns.submit(link, put(b"k", b"%d;" % number), 10)
        await until(lambda: len(store.batches) == number + 1)  # noqa: B023
    store.backend.release()
    await turns.settle()

    assert link.received == b"0;1;2;3;"
    assert len(link.writes) <= 2  # the first frame was on its way alone


async def test_a_late_reply_waits_for_the_log_too_and_does_not_hold_back_others(store):
    turns = turns_of(store)
    link, other = RecordingLink(), RecordingLink()
    late: list[Callable[[bytes], None]] = []

    def park(store: LittleStore) -> None:
        late.append(lambda data: turns.reply(link, data))

    turns.submit(link, park, 10)
    turns.submit(link, say(b"next;"), 10)
    await turns.settle()
    assert link.received == b"next;"

    def serve(store: LittleStore) -> bytes:
        store.put(b"k", b"v")
        late[0](b"late;")
        return b"served;"

    store.backend.hold()
    turns.submit(other, serve, 10)
    await asyncio.to_thread(store.backend.wait_held)
    assert link.received == b"next;" and other.received == b""
    store.backend.release()
    await turns.settle()
    assert link.received == b"next;late;" and other.received == b"served;"


async def test_late_replies_from_another_thread_leave_in_order_with_one_write(store):
    turns = turns_of(store)
    link = RecordingLink()

    def serve() -> None:
        with store.lock:
            store.begin(0)
            store.put(b"k", b"v")
            for number in range(3):
                turns.reply(link, b"%d;" % number)
            store.end()

    store.backend.hold()
    await asyncio.to_thread(serve)
    await asyncio.to_thread(store.backend.wait_held)
    store.backend.release()
    await until(lambda: link.writes)

    assert link.writes == [b"0;1;2;"]


async def test_a_link_that_holds_begins_nothing_before_its_late_reply_has_left(store):
    turns = turns_of(store)
    link = RecordingLink()
    order: list[str] = []

    def park(store: LittleStore) -> None:
        turns.hold(link)
        order.append("parked")

    turns.submit(link, park, 10)
    for number in range(3):
        turns.submit(link, put(b"k", b"%d;" % number), 10)
    await turns.settle()
    turns.submit(link, say(b"3;"), 10)
    await turns.settle()
    assert link.received == b""

    def serve() -> None:
        with store.lock:
            store.begin(0)
            turns.reply(link, b"late;")
            store.end()

    await asyncio.to_thread(serve)
    await until(lambda: link.received.endswith(b"3;"))
    assert link.received == b"late;0;1;2;3;"


async def test_a_load_runs_without_the_lock_after_the_log_is_durable_and_ends_a_hold(store):
    turns = turns_of(store)
    link = RecordingLink()
    free: list[bool] = []

    def work() -> bytes:
        free.append(store.lock.acquire(blocking=False))
        store.lock.release()
        return b"loaded;"

    def read(store: LittleStore) -> None:
        store.put(b"k", b"v")
        turns.hold(link)
        turns.load(link, 100, work)

    turns.submit(link, read, 10)
    turns.submit(link, say(b"next;"), 10)
    await until(lambda: link.received.endswith(b"next;"))

    assert link.received == b"loaded;next;"
    assert free == [True]
    assert link.replied == link.written == 105


async def test_a_load_that_fails_ends_the_link(store):
    turns = turns_of(store)
    link = RecordingLink()

    def work() -> bytes:
        raise RuntimeError("unreadable")

    turns.submit(link, lambda store: turns.load(link, 100, work), 10)
    await until(lambda: link.losses)

    assert str(link.losses[0]) == "unreadable"


async def test_a_lost_log_ends_the_links_whose_answers_rested_on_it_and_no_other(store):
    turns = turns_of(store)
    link, reader = RecordingLink(), RecordingLink()
    store.backend.hold()
    store.backend.fail(1, LogError("the disk is gone"))
    turns.submit(reader, say(b"read;"), 10)
    await asyncio.sleep(0)
    turns.submit(link, put(b"k", b"written;"), 10)
    await asyncio.to_thread(store.backend.wait_held)
    store.backend.release()
    await until(lambda: link.losses)

    assert link.received == b""
    assert reader.received == b"read;" and reader.losses == []


async def test_memory_thrown_away_abandons_what_waits_even_if_its_index_comes_again(store):
    turns = turns_of(store)
    link = RecordingLink()
    store.backend.hold()
    turns.submit(link, put(b"k", b"written;"), 10)
    await asyncio.to_thread(store.backend.wait_held)
    with store.lock:
        store.releases.abandon(LogError("rebuilt"))
    store.backend.release()
    await until(lambda: link.losses)

    assert link.received == b""


async def test_a_node_that_cannot_begin_refuses_each_request_in_order(store):
    turns = turns_of(store)
    link = RecordingLink()
    turns.submit(link, say(b"0;"), 10)
    await asyncio.sleep(0)
    store.refuses = Unavailable("stopping")
    turns.submit(link, say(b"1;"), 10)
    turns.submit(link, say(b"2;"), 10)
    await turns.settle()

    assert link.received == b"0;refused;refused;"


async def test_a_batch_that_breaks_at_its_end_answers_nobody(store):
    turns = turns_of(store)
    link = RecordingLink()
    end = store.end

    def broken() -> int:
        end()
        raise Unavailable("memory broke")

    store.end = broken
    turns.submit(link, say(b"0;"), 10)
    await turns.settle()

    assert link.received == b"" and len(link.losses) == 1


async def test_a_request_that_breaks_ends_its_link_alone(store):
    turns = turns_of(store)
    link, other = RecordingLink(), RecordingLink()

    def broken(store: LittleStore) -> bytes:
        raise RuntimeError("a defect")

    turns.submit(link, broken, 10)
    turns.submit(link, say(b"never;"), 10)
    turns.submit(other, say(b"0;"), 10)
    await until(lambda: link.losses)

    assert other.received == b"0;"
    assert link.received == b""


async def test_a_turn_is_bounded_in_requests_and_the_loop_runs_between(store):
    turns = turns_of(store, clock=FakeClock())
    link = RecordingLink()
    ran: list[int] = []
    for number in range(3 * module.TURN_REQUESTS):
        turns.submit(link, say(b"%d;" % number), 1)
    asyncio.get_running_loop().call_soon(lambda: ran.append(len(store.batches)))
    await turns.settle()

    assert store.batches == [module.TURN_REQUESTS] * 3
    assert ran == [1]
    assert link.received == b"".join(b"%d;" % number for number in range(3 * module.TURN_REQUESTS))


async def test_a_turn_is_bounded_in_time(store):
    clock = FakeClock()
    turns = turns_of(store, clock=clock)
    links = [RecordingLink() for _ in range(2)]

    def slow(store: LittleStore) -> bytes:
        clock.advance(1)
        return b"x"

    for link in links:
        for _ in range(100):
            turns.submit(link, slow, 1)
    await turns.settle()

    assert store.batches == [64, 36, 64, 36]
    assert [link.received for link in links] == [b"x" * 100] * 2


async def test_large_requests_have_turns_of_their_own(store):
    turns = turns_of(store)
    links = [RecordingLink() for _ in range(3)]
    for link in links:
        turns.submit(link, say(b"x"), module.TURN_BYTES - 1)
    await turns.settle()

    assert store.batches == [1, 1, 1]


async def test_while_much_is_unflushed_no_turn_begins_until_it_has_drained(store):
    turns = turns_of(store)
    link = RecordingLink()
    store.backend.hold()
    turns.submit(link, put(b"k", b"0;"), 10)
    await asyncio.to_thread(store.backend.wait_held)
    store.pending = module.SPECULATION_BYTES + 1
    turns.submit(link, say(b"1;"), 10)
    for _ in range(10):
        await asyncio.sleep(0)
    assert store.batches == [1]

    store.pending = None
    store.backend.release()
    await turns.settle()
    assert link.received == b"0;1;"


async def test_a_log_without_room_does_not_stop_the_turns(store):
    turns = turns_of(store)
    link = RecordingLink()
    store.pending = module.SPECULATION_BYTES + 1
    store.stalled = "no space left"
    turns.submit(link, say(b"0;"), 10)
    await turns.settle()

    assert link.received == b"0;"


async def test_a_log_that_runs_out_of_room_later_is_noticed(store, monkeypatch):
    monkeypatch.setattr(module, "STALLED_SECONDS", 0.001)
    turns = turns_of(store)
    link = RecordingLink()
    store.backend.hold()
    turns.submit(link, put(b"k", b"0;"), 10)
    await asyncio.to_thread(store.backend.wait_held)
    store.pending = module.SPECULATION_BYTES + 1
    turns.submit(link, say(b"1;"), 10)
    await asyncio.sleep(0)
    store.stalled = "no space left"
    await until(lambda: len(store.batches) == 2)


async def test_replies_that_wait_for_one_link_are_bounded_and_it_goes_on_when_they_have_left(store):
    turns = turns_of(store)
    link, other = RecordingLink(), RecordingLink()
    size = REPLY_BYTES // 4

    def large(store: LittleStore) -> bytes:
        store.put(b"k", b"v")
        return bytes(size)

    store.backend.hold()
    for _ in range(20):
        turns.submit(link, large, 10)
    turns.submit(other, say(b"x"), 10)
    await asyncio.to_thread(store.backend.wait_held)
    for _ in range(10):
        await asyncio.sleep(0)
    assert store.batches == [6]
    assert link.full and link.pauses == 1
    store.backend.release()
    await until(lambda: len(link.received) == 20 * size)
    assert sum(store.batches) == 21
    assert not link.full and link.pauses == 0


async def test_a_link_with_much_that_is_not_begun_is_not_read(store):
    turns = turns_of(store)
    link = RecordingLink()
    store.pending = module.SPECULATION_BYTES + 1
    for _ in range(3):
        turns.submit(link, say(b"x"), module.ARRIVED_BYTES // 2)
    assert link.pauses == 1
    store.pending = None
    turns._unblock()
    await turns.settle()
    assert link.pauses == 0


async def test_a_link_that_leaves_withdraws_its_waits_at_once_and_begins_nothing_more(store):
    turns = turns_of(store)
    link = RecordingLink()
    ran: list[int] = []
    turns.submit(link, lambda store: ran.append(1), 10)
    turns.leave(link)
    await asyncio.sleep(0)

    assert link.withdrawn == 1
    assert ran == [] and link.received == b""


async def test_a_link_leaves_even_while_no_turn_may_begin(store):
    turns = turns_of(store)
    link, other = RecordingLink(), RecordingLink()
    store.pending = module.SPECULATION_BYTES + 1
    turns.submit(other, say(b"x"), 10)
    await asyncio.sleep(0)
    turns.leave(link)
    await asyncio.sleep(0)

    assert link.withdrawn == 1
    assert other.received == b""
    store.pending = None


async def test_a_link_that_finishes_is_answered_what_has_arrived_then_its_last_words(store):
    turns = turns_of(store)
    link = RecordingLink()
    turns.submit(link, put(b"k", b"0;"), 10)
    turns.finish(link, b"bye")
    turns.submit(link, say(b"never;"), 10)
    await turns.settle()

    assert link.received == b"0;bye"
    assert link.closed and link.withdrawn >= 1


async def test_a_request_may_be_the_last_of_its_link(store):
    turns = turns_of(store)
    link = RecordingLink()

    def quit(store: LittleStore) -> bytes:
        turns.end(link)
        return b"OK;"

    turns.submit(link, quit, 10)
    turns.submit(link, say(b"never;"), 10)
    await turns.settle()
    turns.submit(link, say(b"never;"), 10)
    await turns.settle()

    assert link.received == b"OK;"
    assert link.closed


async def test_what_holds_when_its_client_ends_is_withdrawn_and_what_had_arrived_is_answered(store):
    turns = turns_of(store)
    link = RecordingLink()
    turns.submit(link, lambda store: turns.hold(link), 10)
    turns.submit(link, say(b"0;"), 10)
    await turns.settle()
    turns.finish(link)
    await until(lambda: link.closed)

    assert link.received == b"0;"


async def test_a_wait_begun_after_the_client_ended_is_withdrawn_at_once(store):
    turns = turns_of(store)
    link = RecordingLink()
    turns.submit(link, lambda store: turns.hold(link), 10)
    turns.finish(link)
    await until(lambda: link.closed)

    assert link.withdrawn == 3


async def test_many_threads_and_links_at_once_keep_the_order_of_each(store):
    turns = turns_of(store)
    links = [RecordingLink() for _ in range(8)]
    late = RecordingLink()

    def disturb() -> None:
        for number in range(500):
            with store.lock:
                store.begin(0)
                if number % 3 == 0:
                    store.put(b"k", b"v")
                turns.reply(late, b"%d;" % number)
                store.end()

    thread = threading.Thread(target=disturb)
    thread.start()
    for number in range(300):
        for link in links:
            turns.submit(link, put(b"k", b"%d;" % number) if number % 2 else say(b"%d;" % number), 10)
        if number % 7 == 0:
            await asyncio.sleep(0)
    await asyncio.to_thread(thread.join)
    await turns.settle()
    await until(lambda: late.received.endswith(b";499;"))

    assert {link.received for link in links} == {b"".join(b"%d;" % number for number in range(300))}
    assert late.received == b"".join(b"%d;" % number for number in range(500))


async def test_a_load_keeps_its_place_when_the_client_asks_for_nothing_more(store):
    turns = turns_of(store)
    link = RecordingLink()
    go = threading.Event()

    def read(store: LittleStore) -> None:
        def work() -> bytes:
            assert go.wait(10)
            return b"loaded;"

        turns.hold(link, loads=True)
        turns.load(link, 100, work)

    turns.submit(link, read, 10)
    await asyncio.sleep(0)
    for request in (say(b"0;"), read, say(b"1;")):
        turns.submit(link, request, 10)
    turns.finish(link, b"bye")
    await asyncio.sleep(0)
    go.set()
    await until(lambda: link.closed)

    assert link.received == b"loaded;0;loaded;1;bye"


async def test_an_answer_that_is_on_its_way_when_its_wait_is_withdrawn_ends_no_later_hold(store):
    turns = turns_of(store)
    link = RecordingLink()
    go = threading.Event()

    def work() -> bytes:
        assert go.wait(10)
        return b"loaded;"

    def read(store: LittleStore) -> None:
        turns.hold(link, loads=True)
        turns.load(link, 100, work)

    for request in (lambda store: turns.hold(link), read, say(b"0;")):
        turns.submit(link, request, 10)
    await asyncio.sleep(0)
    store.backend.hold()
    with store.lock:
        store.begin(0)
        store.put(b"k", b"v")
        turns.reply(link, b"late;")
        store.end()
    turns.finish(link)
    await until(lambda: link.loads)
    store.backend.release()
    await until(lambda: link.received == b"late;")
    for _ in range(10):
        await asyncio.sleep(0)
    go.set()
    await until(lambda: link.closed)

    assert link.received == b"late;loaded;0;"
