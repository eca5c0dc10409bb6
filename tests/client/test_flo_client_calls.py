"""FloClient's calls against a real server: what they do, over the wire and in process alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import product

import pytest

import flo
from flo import FloClient, QueueMessage, StreamID
from flo.client.aio import AsyncGrid
from tests.client.real_server import real_server

Client = FloClient | AsyncGrid


@pytest.fixture(params=["wire", "in process"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    if request.param == "wire":
        async with real_server() as server, FloClient(server.endpoint) as connected:
            yield connected
    else:
        async with flo.open("memory:") as grid:
            yield grid


@dataclass
class Order:
    id: int
    name: str = ""


async def waiting(work) -> asyncio.Task:
    """The task of a call that has reached the store and waits there."""
    task = asyncio.ensure_future(work)
    for _ in range(200):
        await asyncio.sleep(0)
    assert not task.done()
    return task


# Keys and values


async def test_a_value_comes_back_with_its_version(client: Client):
    put = await client.kv.put("k", {"id": 7})
    got = await client.kv.get("k")

    assert got is not None and (got.version, bytes(got), got.json()) == (put.version, b'{"id":7}', {"id": 7})
    assert got.into(Order) == Order(7) and got.text() == '{"id":7}'
    assert await client.kv.get("missing") is None


async def test_conditions_decide_whether_a_put_happens(client: Client):
    first = await client.kv.put("k", b"1", flo.PutOptions(cas_version=0))
    for options in (flo.PutOptions(cas_version=0), flo.PutOptions(if_not_exists=True)):
        with pytest.raises(flo.ConflictError) as raised:
            await client.kv.put("k", b"2", options)
        assert raised.value.status_code == 8 and isinstance(raised.value, flo.Conflict)
    with pytest.raises(flo.ConflictError) as raised:
        await client.kv.put("k", b"2", flo.PutOptions(cas_version=first.version + 9))
    assert raised.value.current_version == first.version
    with pytest.raises(flo.ConflictError):
        await client.kv.put("none", b"2", flo.PutOptions(if_exists=True))

    assert (await client.kv.put("k", b"2", flo.PutOptions(cas_version=first.version))).version > first.version


async def test_a_time_to_live_may_be_a_part_of_a_second(client: Client):
    await client.kv.put("k", b"1", flo.PutOptions(ttl_ms=1_500))
    info = await client.kv.info("k")
    assert info is not None and info.expires_at == info.written_at + 1_500

    await client.kv.touch("k", 0.25)
    await client.kv.touch("k", options=flo.KVTouchOptions(ttl_ms=86_400_001))
    await client.kv.persist("k")
    info = await client.kv.info("k")
    assert info is not None and (info.expires_at, info.kind, info.size) == (0, "string", 1)
    with pytest.raises(flo.ConflictError):
        await client.kv.put("k", b"", flo.PutOptions(ttl_ms=1_500, if_not_exists=True))
    assert await client.kv.info("none") is None


async def test_history_tells_deletions_apart_when_asked(client: Client):
    one = (await client.kv.put("k", b"1")).version
    await client.kv.put("k", b"2")
    await client.kv.delete("k")

    assert [entry.value for entry in await client.kv.history("k")] == [b"", b"2", b"1"]
    assert [entry.tombstone for entry in await client.kv.versions("k")] == [True, False, False]
    assert await client.kv.version("k", one) == flo.GetResult(b"1", one)
    assert await client.kv.version("k", 10**9) is None
    with pytest.raises(flo.NotFoundError):
        await client.kv.history("none")


async def test_scan_goes_on_from_its_cursor(client: Client):
    for n in range(25):
        await client.kv.put(f"s:{n:02}", b"x")
    page = await client.kv.scan("s:", flo.ScanOptions(limit=10))
    rest = await client.kv.scan("s:", flo.ScanOptions(limit=100, cursor=page.cursor))
    keys = [entry.key async for entry in client.kv.scan_all("s:", flo.ScanOptions(limit=7, keys_only=True))]

    assert (len(page.entries), page.has_more, len(rest.entries), rest.has_more) == (10, True, 15, False)
    assert keys == [f"s:{n:02}" for n in range(25)]


async def test_parts_of_json_documents(client: Client):
    await client.kv.json_set("j", "$", {"a": {"b": [1, 2]}})
    document = await client.kv.json_set("j", "$.s", "text")
    part = await client.kv.json_get("j", "$.a.b")

    assert part is not None and (part.json(), part.version) == ([1, 2], document.version)
    assert await client.kv.json_get("j", "$.zz") is None
    with pytest.raises(flo.ConflictError):
        await client.kv.json_set("j", "$.s", 1, flo.KVJsonOptions(cas_version=1))
    with pytest.raises(flo.ConflictError):
        await client.kv.json_del("j", "$.s", flo.KVJsonOptions(cas_version=1))
    changed = await client.kv.json_set("j", "$.s", 1, flo.KVJsonOptions(cas_version=document.version))
    await client.kv.json_del("j", "$.s", flo.KVJsonOptions(cas_version=changed.version))
    assert (await client.kv.json_get("j")).json() == {"a": {"b": [1, 2]}}  # type: ignore[union-attr]


async def test_a_get_waits_for_the_key_or_for_its_next_version(client: Client):
    there = await waiting(client.kv.get("k", flo.GetOptions(block_ms=60_000)))
    await client.kv.put("k", b"1")
    assert bytes(await there) == b"1"

    changed = await waiting(client.kv.get("k", flo.GetOptions(watch_ms=60_000)))
    await client.kv.put("k", b"2")
    assert bytes(await changed) == b"2"
    assert await client.kv.get("never", flo.GetOptions(block_ms=20)) is None


async def test_a_namespace_in_the_options_counts_for_that_call_only(client: Client):
    await client.kv.put("k", b"there", flo.PutOptions(namespace="other"))

    assert await client.kv.get("k") is None
    assert bytes(await client.kv.get("k", flo.GetOptions(namespace="other")) or b"") == b"there"
    assert "other" in await client.namespaces.list()
    assert (await client.namespaces.info("other")).keys == 1


async def test_namespaces_are_made_and_deleted(client: Client):
    assert await client.namespaces.create("n1") is True
    assert await client.namespaces.create("n1") is False
    assert await client.namespaces.exists("n1")
    await client.kv.put("k", b"", flo.PutOptions(namespace="n1"))
    with pytest.raises(flo.ConflictError):
        await client.namespaces.delete("n1")
    await client.namespaces.delete("n1", force=True)
    assert not await client.namespaces.exists("n1")


# Transactions


async def test_a_transaction_is_seen_at_its_commit(client: Client):
    txn = await client.kv.begin("u")
    await txn.put("u:name", "Jane")
    assert await txn.incr("u:visits") == 1
    assert bytes(await txn.get("u:name") or b"") == b"Jane" and await txn.exists("u:visits")
    assert await client.kv.get("u:name") is None
    done = await txn.commit()

    assert done.op_count == 2
    assert (await client.kv.get("u:name")).version == done.commit_index  # type: ignore[union-attr]
    for call in (txn.put("k", b""), txn.commit()):
        with pytest.raises(flo.ServerError, match="no active transaction"):
            await call
    await txn.rollback()
    await txn.rollback()


async def test_a_transaction_that_is_left_without_a_commit_leaves_no_trace(client: Client):
    async def leave() -> None:
        async with await client.kv.begin("u") as txn:
            await txn.put("u", b"x")
            await txn.delete("none")
            raise RuntimeError("leave")

    with pytest.raises(RuntimeError, match="leave"):
        await leave()
    assert await client.kv.get("u") is None


async def test_what_a_transaction_cannot_do_is_refused_here(client: Client):
    async with await client.kv.begin("u") as txn:
        for call in (
            txn.scan("u"),
            txn.mget(["u"]),
            txn.history("u"),
            txn.json_get("u"),
            txn.json_set("u", "$", 1),
            txn.json_del("u"),
            txn.get("u", flo.GetOptions(block_ms=1)),
        ):
            with pytest.raises(flo.TxnUnsupportedOpError):
                await call
        with pytest.raises(flo.ValidationError):
            await txn.put("u", b"", flo.PutOptions(namespace="other"))
        await txn.put("u", b"1")
        assert (await txn.commit()).op_count == 1


async def test_a_commit_whose_condition_fails_writes_nothing(client: Client):
    version = (await client.kv.put("u", b"1")).version
    txn = await client.kv.begin("u")
    await txn.put("u", b"2", flo.PutOptions(cas_version=version))
    await client.kv.put("u", b"outside")

    with pytest.raises(flo.ConflictError):
        await txn.commit()
    assert bytes(await client.kv.get("u") or b"") == b"outside"


# Queues


async def test_messages_come_by_priority_and_go_when_acknowledged(client: Client):
    for priority in (5, 0, 9):
        await client.queue.enqueue("q", b"%d" % priority, flo.EnqueueOptions(priority=priority))
    taken = await client.queue.dequeue("q", 3)
    assert [message.payload for message in taken] == [b"0", b"5", b"9"]

    await client.queue.touch("q", taken.messages[0].seq)
    await client.queue.ack("q", [message.seq for message in taken.messages[:2]])
    with pytest.raises(flo.NotFoundError, match="message not found in this queue"):
        await client.queue.ack("q", taken.messages[0].seq)
    await client.queue.nack("q", taken.messages[2].seq, flo.NackOptions(to_dlq=True))
    (dead,) = await client.queue.dlq_list("q", flo.DlqListOptions(details=True))
    assert (dead.payload, dead.attempts, dead.reason, dead.priority) == (b"9", 1, "explicit", 9)
    assert (await client.queue.dlq_stats("q")).count == 1
    await client.queue.dlq_requeue("q", dead.seq)
    assert [message.payload for message in await client.queue.peek("q", 5)] == [b"9"]


async def test_many_messages_go_together(client: Client):
    results = await client.queue.enqueue_many("q", [b"a", QueueMessage({"n": 1}, priority=1, dedup_key="d")])
    again = await client.queue.enqueue_many("q", [QueueMessage(b"x", dedup_key="d")])

    assert [(each.seq, each.deduplicated) for each in results] == [(1, False), (2, False)]
    assert [(each.seq, each.deduplicated) for each in again] == [(2, True)]
    assert await client.queue.enqueue("q", b"x", flo.EnqueueOptions(dedup_key="d")) == 2
    long = flo.EnqueueOptions(dedup_key="k" * 256)
    assert await client.queue.enqueue("q", b"x", long) == await client.queue.enqueue("q", b"x", long)


async def test_a_dequeue_waits_for_a_message(client: Client):
    task = await waiting(client.queue.dequeue("q", 1, flo.DequeueOptions(block_ms=60_000)))
    await client.queue.enqueue("q", b"woken")

    assert [message.text() for message in await task] == ["woken"]
    assert not (await client.queue.dequeue("q", 1, flo.DequeueOptions(block_ms=20))).messages


async def test_a_dequeue_that_is_given_up_takes_nothing(client: Client):
    task = await waiting(client.queue.dequeue("q", 1, flo.DequeueOptions(block_ms=60_000)))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await client.queue.enqueue("q", b"kept")

    taken = await client.queue.dequeue("q", 1, flo.DequeueOptions(block_ms=5_000))
    assert [message.payload for message in taken] == [b"kept"]


async def test_what_is_handed_to_a_dequeue_that_is_given_up_at_that_moment_is_there_for_others_at_once(client: Client):
    wait = flo.DequeueOptions(block_ms=60_000)
    for before, between in product(range(4), range(6)):
        task = asyncio.ensure_future(client.queue.dequeue("q", 1, wait))
        for _ in range(before):
            await asyncio.sleep(0)
        enqueuing = asyncio.ensure_future(client.queue.enqueue("q", b"kept"))
        for _ in range(between):
            await asyncio.sleep(0)
        task.cancel()
        await enqueuing
        (taken,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(taken, BaseException):
            taken = await client.queue.dequeue("q", 1, flo.DequeueOptions(block_ms=5_000))
        (message,) = taken.messages
        await client.queue.ack("q", message.seq)


async def test_numbers_and_life_of_a_queue(client: Client):
    await client.queue.enqueue_many("q", [b"1", b"2", b"3"])
    (message,) = await client.queue.dequeue("q", 1, flo.DequeueOptions(details=True))
    assert (message.delivery_count, message.priority) == (1, 0) and message.lease_expires_at > message.enqueued_at
    (peeked,) = await client.queue.peek("q", 1, flo.PeekOptions(details=True))
    assert (peeked.seq, peeked.delivery_count) == (2, 0)
    await client.queue.nack("q", message.seq, flo.NackOptions(delay_ms=60_000))
    stats = await client.queue.stats("q")

    assert (stats.pending, stats.available, stats.delayed, stats.nacked) == (3, 2, 1, 1)
    assert [queue.name for queue in await client.queue.list()] == ["q"]
    await client.queue.nack("q", [2, 3], flo.NackOptions(to_dlq=True))
    await client.queue.dlq_delete("q", [2])
    assert await client.queue.dlq_purge("q") == 1
    assert await client.queue.purge("q") == 1
    await client.queue.enqueue("q", b"")
    with pytest.raises(flo.ConflictError):
        await client.queue.delete("q")
    await client.queue.delete("q", flo.QueueDeleteOptions(force=True))
    with pytest.raises(flo.NotFoundError):
        await client.queue.stats("q")


# Streams


async def test_records_come_back_in_order_with_their_headers(client: Client):
    first = (await client.stream.append("s", {"id": 1}, flo.StreamAppendOptions(headers={"h": "v"}))).id
    many = await client.stream.append_many("s", [b"2", flo.NewStreamRecord(b"3", [("n", b"x"), ("n", "y")])])
    read = await client.stream.read("s", flo.StreamReadOptions(start=first))

    assert [record.payload for record in read] == [b'{"id":1}', b"2", b"3"]
    assert read.records[0].headers == {"h": "v"} and read.records[0].into(Order) == Order(1)
    assert read.records[2].raw_headers == ((b"n", b"x"), (b"n", b"y")) and read.records[2].headers == {"n": "y"}
    assert [record.id for record in read][1:] == many.ids and read.next == many.last_id.next()
    assert [r.id for r in await client.stream.read("s", flo.StreamReadOptions(after=first))] == many.ids
    info = await client.stream.info("s")
    assert (info.first, info.last, info.count, info.partitions) == (first, many.last_id, 3, 1)


async def test_a_read_waits_for_an_append_and_follow_goes_on(client: Client):
    task = await waiting(client.stream.read("s", flo.StreamReadOptions(tail=True, block_ms=60_000)))
    await client.stream.append("s", b"0")
    assert [record.payload for record in await task] == [b"0"]

    seen = []
    await client.stream.append("s", b"1")
    async for record in client.stream.follow("s", "0"):
        seen.append(record.payload)
        if len(seen) < 5:
            await client.stream.append("s", b"%d" % (len(seen) + 1))
        if len(seen) == 5:
            break
    assert seen == [b"0", b"1", b"2", b"3", b"4"]


async def test_settings_and_bounds_of_a_stream(client: Client):
    await client.stream.create("s", flo.StreamCreateOptions(partitions=4, max_records=1_000))
    await client.stream.create("s", flo.StreamCreateOptions(partitions=4, max_records=1_000))
    with pytest.raises(flo.ConflictError):
        await client.stream.create("s", flo.StreamCreateOptions(partitions=3))
    await client.stream.alter("s", flo.StreamAlterOptions(max_age_ms=60_000, max_records=0))
    for n in range(10):
        await client.stream.append("s", b"%d" % n, flo.StreamAppendOptions(partition_key=f"k{n}"))
    described = await client.stream.describe("s")

    assert described.retention == flo.Retention(max_age_ms=60_000)
    assert described.records == 10 and sum(each.records for each in described.partitions) == 10
    assert [stream.name for stream in await client.stream.list()] == ["s"]
    with pytest.raises(flo.NotFoundError):
        await client.stream.describe("none")


async def test_a_trim_counts_first_if_asked(client: Client):
    many = await client.stream.append_many("s", [b"%d" % n for n in range(10)])

    assert (await client.stream.trim("s", flo.StreamTrimOptions(max_len=4, dry_run=True))).trimmed == 6
    assert (await client.stream.info("s")).count == 10
    assert (await client.stream.trim("s", flo.StreamTrimOptions(max_len=4))).trimmed == 6
    assert (await client.stream.trim("s", flo.StreamTrimOptions(before=many.last_id))).trimmed == 3
    with pytest.raises(flo.ConflictError):
        await client.stream.delete("s")
    await client.stream.delete("s", flo.StreamDeleteOptions(force=True))
    assert (await client.stream.info("s")).last is None


async def test_a_group_hands_each_record_to_one_consumer(client: Client):
    await client.stream.append_many("s", [b"%d" % n for n in range(20)])
    await client.stream.group_create("s", "g", flo.StreamGroupCreateOptions(ack_timeout_ms=60_000, max_deliver=3))
    await client.stream.group_join("s", "g", "w1")
    one = await client.stream.group_read("s", "g", "w1")
    two = await client.stream.group_read("s", "g", "w2", flo.StreamGroupReadOptions(details=True))
    assert not {record.id for record in one} & {record.id for record in two} and len(one) == len(two) == 10
    assert {record.delivery_count for record in two} == {1}

    await client.stream.group_ack("s", "g", [record.id for record in one])
    assert await client.stream.group_touch("s", "g", "w2", [two.records[0].id, one.records[0].id]) == 1
    pending = await client.stream.group_pending("s", "g", flo.StreamGroupPendingOptions(details=True))
    assert len(pending) == 10 and {entry.consumer for entry in pending} == {"w2"}
    assert len(await client.stream.group_pending("s", "g")) == 10
    claimed = await client.stream.group_claim("s", "g", "w1", flo.StreamGroupClaimOptions(min_idle_ms=0))
    assert claimed.records == [] and claimed.next is None
    await client.stream.group_nack("s", "g", two.records[0].id)
    claimed = await client.stream.group_claim("s", "g", "w1")
    assert [record.id for record in claimed] == [two.records[0].id]
    info = await client.stream.group_info("s", "g")
    assert (info.pending, info.lag, info.settings.max_deliver) == (10, 0, 3)
    await client.stream.group_leave("s", "g", "w2")
    assert [group.group for group in await client.stream.group_list("s")] == ["g"]
    await client.stream.group_delete("s", "g")
    with pytest.raises(flo.NotFoundError):
        await client.stream.group_info("s", "g")


async def test_a_group_read_waits_and_one_that_is_given_up_takes_nothing(client: Client):
    options = flo.StreamGroupReadOptions(block_ms=60_000)
    task = await waiting(client.stream.group_read("s", "g", "w", options))
    id = (await client.stream.append("s", b"1")).id
    assert [record.id for record in await task] == [id]
    await client.stream.group_ack("s", "g", id)

    task = await waiting(client.stream.group_read("s", "g", "w", options))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    kept = (await client.stream.append("s", b"2")).id
    assert [record.id for record in await client.stream.group_read("s", "g", "w", options)] == [kept]


async def test_a_reading_without_acknowledgements_leaves_nothing_pending(client: Client):
    await client.stream.append_many("s", [b"1", b"2"])
    read = await client.stream.group_read("s", "g", "w", flo.StreamGroupReadOptions(no_ack=True))

    assert len(read) == 2 and len(await client.stream.group_pending("s", "g")) == 0


async def test_ids_from_the_server_are_ordered(client: Client):
    ids = [(await client.stream.append("s", b"")).id for _ in range(50)]

    assert ids == sorted(ids) and len(set(ids)) == 50 and all(isinstance(id, StreamID) for id in ids)
