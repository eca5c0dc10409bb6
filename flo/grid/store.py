"""What clients do with keys, queues, streams and namespaces: the operations of every surface, in batches.

    with store.lock:
        store.begin(size)                 # bytes of the requests
        try:
            version = store.put("default", b"k", b"v")        # any number of operations of any number of clients
        finally:
            index = store.end()           # what was answered may leave once this index is durable
    store.after()                         # without the lock: timers and workers learn of it

An operation is refused by `Refused` or a FloError and changes nothing; the others of its batch go on. `end` raises
Unavailable when memory broke within the batch: nothing that was answered in it may leave then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

from flo.grid.members import Members
from flo.grid.partition import Partition
from flo.grid.pressure import Pressure
from flo.grid.records import Records
from flo.grid.release import Releases, unknown_outcome
from flo.grid.transactions import Transactions
from flo.grid.waiters import Parked, Topic
from flo.log.errors import LogError
from flo.primitives.kv_entry import EXPIRES
from flo.primitives.kv_pages import Entry, JsonNode, Many, Page, Version
from flo.primitives.kv_rules import HISTORY_LIMIT_DEFAULT, check_key, check_namespace
from flo.primitives.kv_txn import TxnDelete, TxnIncr, TxnOp, TxnPut, TxnTouch
from flo.primitives.machine import Event, Refused
from flo.primitives.queue_pages import (
    DeadLetters,
    DeadLetterStats,
    Enqueued,
    Message,
    NewMessage,
    QueueList,
    QueueStats,
    Settled,
)
from flo.primitives.stream_pages import (
    Appended,
    Claimed,
    Delivered,
    GroupInfo,
    GroupSettings,
    NewRecord,
    PendingPage,
    PlacedPage,
    Retention,
    StreamId,
    StreamInfo,
    StreamList,
    Trimmed,
)

WAIT_MAX_MS: Final = 300_000
SCANS: Final = 64  # steps of a key-shared read that finds records of other consumers only
FORGET_EVENTS: Final = 4  # of a thousand keys each: what one batch drops to relieve memory


class _ParkedResult:
    """The operation waits; its `done` is called later."""

    def __repr__(self) -> str:
        return "PARKED"


PARKED: Final = _ParkedResult()

Done = Callable[[Any], None]


class Store:
    def __init__(
        self,
        partition: Partition,
        releases: Releases,
        pressure: Pressure,
        transactions: Transactions,
        records: Records,
        after: Callable[[], None],
    ) -> None:
        self._partition = partition
        self._pressure = pressure
        self._transactions = transactions
        self.releases = releases
        self.records = records
        self.members = Members(self)
        partition.timers = (partition.waiters, self.members)
        self.lock: threading.RLock = partition.lock
        self._after = after
        self.now = 0
        self.last_parked: Parked | None = None
        self.bind()

    def bind(self) -> None:
        """Takes the machines of a new incarnation of memory."""
        machines = self._partition.machines
        self._kv = machines.kv
        self._queues = machines.queues
        self._streams = machines.streams
        self.groups = machines.groups
        self._namespaces = machines.namespaces

    # -- batches

    def begin(self, size: int = 0) -> int:
        """Starts a batch whose requests have so many bytes: runs what is due, makes room. Returns the time."""
        partition = self._partition
        self.now = now = partition.begin()
        over = self._pressure.look(now, partition.machines, size)
        if over:
            self._evict(over)
        return now

    def end(self) -> int:
        """Ends the batch; returns the index that must be durable before its answers leave. Raises Unavailable."""
        self._partition.settle(self.now)
        return self._partition.last_index

    def after(self) -> None:
        """After a batch, without the lock."""
        if self._partition.stirred:
            self._after()

    @property
    def last_index(self) -> int:
        return self._partition.last_index

    @property
    def durable_index(self) -> int:
        return self._partition.commit_group.durable_index

    @property
    def pending_bytes(self) -> int:
        """Of log that is written and not durable yet."""
        return self._partition.commit_group.pending_bytes

    @property
    def stalled(self) -> str | None:
        """Why the log does not get on; None when it does."""
        return self._partition.commit_group.stalled

    def _evict(self, over: int) -> None:
        """Drops history and tombstones, which memory pressure may take, by logged events."""
        target = self._kv.bytes - over
        for ns in self._kv.namespaces():
            for _ in range(FORGET_EVENTS):
                event = self._kv.decide_forget(self.now, self._partition.next_index, ns)
                if event is None:
                    break
                self._partition.emit([event], self.now)
                if self._kv.bytes <= target:
                    break
        self._pressure.evicted(self._partition.machines)

    def _admit(self) -> None:
        """Before every write that grows the state."""
        if self._pressure.refuses:
            raise self._pressure.error()

    def _index_in(self, ns: str) -> int:
        """The index that the first event of a write into the namespace will have: behind the namespace's own."""
        if ns in self._namespaces.created:
            return self._partition.next_index
        return self._partition.next_index + 1

    def _emit(self, ns: str, events: Sequence[Event]) -> None:
        """Applies the events of a write, the first of which makes the namespace."""
        if ns not in self._namespaces.created:
            created = self._namespaces.decide_create(ns)
            assert created is not None
            events = [created, *events]
        self._partition.emit(events, self.now)

    def _check_namespace(self, ns: str) -> None:
        """That a write may make the namespace, before it is decided."""
        if ns not in self._namespaces.created:
            self._namespaces.decide_create(ns)

    # -- keys and values

    def put(
        self, ns: str, key: bytes, value: bytes, *, ttl_ms: int = 0, nx: bool = False, xx: bool = False,
        cas: int | None = None, keep_ttl: bool = False, txn: int = 0, routing_key: bytes = b"",
    ) -> int:  # fmt: skip
        """The version; 0 in a transaction."""
        if self._pressure.refuses:
            raise self._pressure.error()
        if txn:
            self._buffer(ns, txn, TxnPut(key, value, ttl_ms, nx, xx, cas, keep_ttl))
            return 0
        partition = self._partition
        if ns not in self._namespaces.created:
            self._namespaces.decide_create(ns)
        index = self._index_in(ns)
        event = self._kv.decide_put(
            self.now, index, ns, key, value, ttl_ms=ttl_ms, nx=nx, xx=xx, cas=cas, keep_ttl=keep_ttl
        )
        if routing_key:
            placed = self._kv.decide_place(
                ns, [key], self._transactions.slot_of(routing_key), self._transactions.slot_of
            )
            self._emit(ns, [event] if placed is None else [event, placed])
        elif ns in self._namespaces.created:
            partition.emit((event,), self.now)
        else:
            self._emit(ns, (event,))
        return index

    def get(self, ns: str, key: bytes, *, txn: int = 0) -> Entry | None:
        if txn:
            found = self._transactions.find(self.now, ns, txn)
            self._transactions.check_place(self.now, self._kv, found, key)
            return found.buffer.get(self.now, key)
        return self._kv.get(self.now, ns, key)

    def delete(self, ns: str, key: bytes, *, if_match: int | None = None, txn: int = 0) -> int:
        """The tombstone's version; 0 in a transaction."""
        if txn:
            self._buffer(ns, txn, TxnDelete(key, if_match))
            return 0
        index = self._partition.next_index
        self._partition.emit([self._kv.decide_delete(self.now, index, ns, key, if_match=if_match)], self.now)
        return index

    def incr(self, ns: str, key: bytes, delta: int = 1, *, txn: int = 0) -> tuple[int, int]:
        """Version (0 in a transaction) and the counter after the addition."""
        self._admit()
        if txn:
            entry = self._buffer(ns, txn, TxnIncr(key, delta))
            assert entry is not None
            return 0, int(entry.value)
        self._check_namespace(ns)
        index = self._index_in(ns)
        event = self._kv.decide_incr(self.now, index, ns, key, delta)
        self._emit(ns, (event,))
        return index, event.value

    def touch(self, ns: str, key: bytes, ttl_ms: int, *, if_match: int | None = None, txn: int = 0) -> None:
        """The key expires `ttl_ms` from now; 0: never."""
        if txn:
            self._buffer(ns, txn, TxnTouch(key, ttl_ms, if_match))
            return
        index = self._partition.next_index
        self._partition.emit([self._kv.decide_touch(self.now, index, ns, key, ttl_ms, if_match=if_match)], self.now)

    def persist(self, ns: str, key: bytes, *, if_match: int | None = None, txn: int = 0) -> bool:
        """Removes the expiry; whether there was one."""
        had = False
        if not txn:
            current = self._kv.current(self.now, ns, key)
            had = current is not None and bool(current[0] & EXPIRES)
        self.touch(ns, key, 0, if_match=if_match, txn=txn)
        return had

    def exists(self, ns: str, key: bytes, *, txn: int = 0) -> bool:
        if txn:
            found = self._transactions.find(self.now, ns, txn)
            self._transactions.check_place(self.now, self._kv, found, key)
            return found.buffer.exists(self.now, key)
        return self._kv.exists(self.now, ns, key)

    def mget(self, ns: str, keys: Sequence[bytes]) -> Many:
        return self._kv.mget(self.now, ns, keys)

    def scan(self, ns: str, prefix: bytes = b"", limit: int = 0, cursor: str = "", keys_only: bool = False) -> Page:
        return self._kv.scan(self.now, ns, prefix, limit, cursor, keys_only)

    def history(self, ns: str, key: bytes, limit: int = HISTORY_LIMIT_DEFAULT) -> list[Version]:
        return self._kv.history(self.now, ns, key, limit)

    def version(self, ns: str, key: bytes, version: int) -> Version | None:
        return self._kv.version(self.now, ns, key, version)

    def latest(self, ns: str, key: bytes) -> int:
        """The newest version, a tombstone's too; 0 when there is none."""
        return self._kv.latest(ns, key)

    def jget(self, ns: str, key: bytes, path: str = "$") -> JsonNode | None:
        return self._kv.jget(self.now, ns, key, path)

    def jset(
        self, ns: str, key: bytes, path: str, json: bytes, *, ttl_ms: int = 0, cas: int | None = None
    ) -> int:  # fmt: skip
        """The version."""
        self._admit()
        self._check_namespace(ns)
        index = self._index_in(ns)
        self._emit(ns, [self._kv.decide_jset(self.now, index, ns, key, path, json, ttl_ms=ttl_ms, cas=cas)])
        return index

    def jdel(self, ns: str, key: bytes, path: str = "$", *, cas: int | None = None) -> int:
        """The version."""
        index = self._partition.next_index
        self._partition.emit([self._kv.decide_jdel(self.now, index, ns, key, path, cas=cas)], self.now)
        return index

    def append(self, ns: str, key: bytes, value: bytes) -> tuple[int, int]:
        """Puts `value` behind what is there; version and the length after it. The expiry stays."""
        self._admit()
        self._check_namespace(ns)
        index = self._index_in(ns)
        event = self._kv.decide_append(self.now, index, ns, key, value)
        self._emit(ns, [event])
        return index, len(event.value)

    def getdel(self, ns: str, key: bytes) -> Entry | None:
        """Deletes the key and returns what it held."""
        entry = self._kv.get(self.now, ns, key)
        if entry is not None:
            self.delete(ns, key)
        return entry

    def key_count(self, ns: str) -> int:
        return self._kv.key_count(ns)

    def wait_kv(
        self, ns: str, key: bytes, *, next_version: bool, timeout_ms: int | None, done: Done,
        after_version: int | None = None,
    ) -> Entry | _ParkedResult | None:  # fmt: skip
        """Waits until the key exists, or with `next_version` for its next version, a delete included (None then).
        `after_version`: the newest version that the caller has seen, so that one in between is not missed."""
        entry = self._kv.get(self.now, ns, key)
        if not next_version:
            if entry is not None:
                return entry

            def appeared() -> tuple[Entry] | None:
                found = self._kv.get(self._partition.now(), ns, key)
                return None if found is None else (found,)

            return self._park([("kv", ns, key)], appeared, done, None, timeout_ms)
        seen = self._kv.latest(ns, key)
        if after_version is not None and seen > after_version:
            return entry

        def changed() -> tuple[Entry | None] | None:
            if self._kv.latest(ns, key) <= seen:
                return None
            return (self._kv.get(self._partition.now(), ns, key),)

        return self._park([("kv", ns, key)], changed, done, None, timeout_ms)

    def _park(
        self, topics: Sequence[Topic], attempt: Callable[[], tuple[Any] | None], done: Done, empty: Any,
        timeout_ms: int | None,
    ) -> _ParkedResult:  # fmt: skip
        deadline = 0 if timeout_ms is None else self.now + timeout_ms
        self.last_parked = self._partition.waiters.park(topics, attempt, done, empty=empty, deadline=deadline)
        return PARKED

    # -- transactions

    def txn_begin(self, ns: str, routing_key: bytes) -> tuple[int, int]:
        """The id, and the hash of the routing key."""
        check_namespace(ns)
        if routing_key:
            check_key(ns, routing_key)
        return self._transactions.begin(self.now, self._kv, ns, routing_key)

    def txn_commit(self, ns: str, txn: int) -> tuple[int, int]:
        """The index of the commit, which is the version of all keys written, and the number of writes."""
        found = self._transactions.find(self.now, ns, txn)
        ops = found.buffer.ops
        if ops:
            self._admit()
        self._transactions.close(txn)
        if not ops:
            return self._partition.last_index, 0
        for op in ops:
            self._transactions.check_place(self.now, self._kv, found, op.key)
        self._check_namespace(ns)
        index = self._index_in(ns)
        event = self._kv.decide_commit(self.now, index, ns, ops)
        assert event is not None
        placed = self._kv.decide_place(ns, [w.key for w in event.writes], found.slot, self._transactions.slot_of)
        self._emit(ns, [event] if placed is None else [event, placed])
        return index, len(ops)

    def txn_rollback(self, ns: str, txn: int) -> None:
        """Of an unknown transaction too: it is as good as rolled back."""
        try:
            self._transactions.find(self.now, ns, txn)
        except Refused:
            return
        self._transactions.close(txn)

    def _buffer(self, ns: str, txn: int, op: TxnOp) -> Entry | None:
        found = self._transactions.find(self.now, ns, txn)
        self._transactions.check_place(self.now, self._kv, found, op.key)
        return found.buffer.write(self.now, op)

    # -- queues

    def enqueue(
        self, ns: str, queue: str, payload: bytes, *, priority: int = 0, delay_ms: int = 0, dedup_key: bytes = b""
    ) -> Enqueued:
        self._admit()
        self._check_namespace(ns)
        events, enqueued = self._queues.decide_enqueue(
            self.now, self._index_in(ns), ns, queue, payload, priority=priority, delay_ms=delay_ms, dedup_key=dedup_key
        )
        self._write(ns, events)
        return enqueued

    def enqueue_many(self, ns: str, queue: str, messages: Sequence[NewMessage]) -> list[Enqueued]:
        self._admit()
        self._check_namespace(ns)
        events, enqueued = self._queues.decide_enqueue_many(self.now, self._index_in(ns), ns, queue, messages)
        self._write(ns, events)
        return enqueued

    def dequeue(
        self, ns: str, queue: str, count: int = 1, *, visibility_ms: int = 0, ack: bool = False
    ) -> list[Message]:  # fmt: skip
        """With `ack` the messages are gone as soon as they are handed out."""
        now = self._partition.now()
        events, messages = self._queues.decide_dequeue(
            now, self._partition.next_index, ns, queue, count, visibility_ms=visibility_ms, ack=ack
        )
        self._change(events)
        return messages

    def wait_dequeue(
        self, ns: str, queues: Sequence[str], count: int = 1, *, visibility_ms: int = 0, ack: bool = False,
        timeout_ms: int | None, done: Done,
    ) -> tuple[str, list[Message]] | _ParkedResult:  # fmt: skip
        """From the first queue, in order, that has something; waits until one has. ("", []) when the time is over."""

        def attempt() -> tuple[tuple[str, list[Message]]] | None:
            for queue in queues:
                messages = self.dequeue(ns, queue, count, visibility_ms=visibility_ms, ack=ack)
                if messages:
                    return ((queue, messages),)
            return None

        served = attempt()
        if served is not None:
            return served[0]
        return self._park([("queue", ns, queue) for queue in queues], attempt, done, ("", []), timeout_ms)

    def ack(self, ns: str, queue: str, seqs: Sequence[int]) -> Settled:
        events, settled = self._queues.decide_ack(self.now, self._partition.next_index, ns, queue, seqs)
        self._change(events)
        return settled

    def nack(self, ns: str, queue: str, seqs: Sequence[int], *, dlq: bool = False, delay_ms: int = 0) -> Settled:
        events, settled = self._queues.decide_nack(
            self.now, self._partition.next_index, ns, queue, seqs, dlq=dlq, delay_ms=delay_ms
        )
        self._change(events)
        return settled

    def touch_messages(self, ns: str, queue: str, seqs: Sequence[int], *, extend_ms: int = 0) -> Settled:
        """Leases end `extend_ms` from now; 0: the visibility that each was taken with."""
        events, settled = self._queues.decide_touch(
            self.now, self._partition.next_index, ns, queue, seqs, extend_ms=extend_ms
        )
        self._change(events)
        return settled

    def peek(self, ns: str, queue: str, count: int = 1) -> list[Message]:
        return self._queues.peek(self.now, ns, queue, count)

    def queue_stats(self, ns: str, queue: str) -> QueueStats | None:
        return self._queues.stats(self.now, ns, queue)

    def queue_list(self, ns: str, limit: int = 0, cursor: str = "") -> QueueList:
        return self._queues.list(self.now, ns, limit, cursor)

    def purge(self, ns: str, queue: str) -> int:
        events, count = self._queues.decide_purge(self.now, self._partition.next_index, ns, queue)
        self._change(events)
        return count

    def queue_delete(self, ns: str, queue: str, force: bool = False) -> None:
        events, _ = self._queues.decide_delete(self.now, self._partition.next_index, ns, queue, force)
        self._change(events)

    def dlq_list(self, ns: str, queue: str, limit: int = 0, cursor: str = "") -> DeadLetters:
        return self._queues.dlq_list(self.now, ns, queue, limit, cursor)

    def dlq_requeue(self, ns: str, queue: str, seqs: Sequence[int]) -> Settled:
        events, settled = self._queues.decide_dlq_requeue(self.now, self._partition.next_index, ns, queue, seqs)
        self._change(events)
        return settled

    def dlq_delete(self, ns: str, queue: str, seqs: Sequence[int]) -> Settled:
        events, settled = self._queues.decide_dlq_delete(self.now, self._partition.next_index, ns, queue, seqs)
        self._change(events)
        return settled

    def dlq_purge(self, ns: str, queue: str) -> int:
        events, count = self._queues.decide_dlq_purge(self.now, self._partition.next_index, ns, queue)
        self._change(events)
        return count

    def dlq_stats(self, ns: str, queue: str) -> DeadLetterStats:
        return self._queues.dlq_stats(self.now, ns, queue)

    def _write(self, ns: str, events: Sequence[Event]) -> None:
        if events:
            self._emit(ns, events)

    def _change(self, events: Sequence[Event]) -> None:
        if events:
            self._partition.emit(events, self._partition.now())

    # -- streams

    def stream_append(
        self, ns: str, stream: str, records: Sequence[NewRecord], *, partition: int | None = None,
        key: bytes | None = None,
    ) -> Appended:  # fmt: skip
        self._admit()
        self._check_namespace(ns)
        events, appended = self._streams.decide_append(
            self.now, self._index_in(ns), ns, stream, records, partition=partition, key=key
        )
        self._write(ns, events)
        return appended

    def stream_read(
        self, ns: str, stream: str, *, start: StreamId | None = None, end: StreamId | None = None,
        after: StreamId | None = None, limit: int = 100, partition: int | None = None, key: bytes | None = None,
        skip: int = 0,
    ) -> PlacedPage:  # fmt: skip
        return self._streams.read(
            self._partition.now(), ns, stream, start=start, end=end, after=after, limit=limit, partition=partition,
            key=key, skip=skip,
        )  # fmt: skip

    def wait_read(
        self, ns: str, stream: str, *, start: StreamId | None = None, end: StreamId | None = None,
        after: StreamId | None = None, limit: int = 100, partition: int | None = None, key: bytes | None = None,
        skip: int = 0, tail: bool = False, timeout_ms: int | None, done: Done,
    ) -> PlacedPage | _ParkedResult:  # fmt: skip
        """Waits for the first record that matches. With `tail` only records that are appended from now on do."""
        if tail:
            after = self._streams.tail_id(ns, stream)
            start = None

        existed = self._streams.find(ns, stream) is not None
        nothing = PlacedPage([], False, after or start or (0, 0))

        def attempt() -> tuple[PlacedPage] | None:
            if existed and self._streams.find(ns, stream) is None:
                return (nothing,)  # it was deleted, and one that is made anew is another
            page = self.stream_read(
                ns, stream, start=start, end=end, after=after, limit=limit, partition=partition, key=key, skip=skip
            )
            return (page,) if page.records else None

        served = attempt()
        if served is not None:
            return served[0]
        return self._park([("stream", ns, stream)], attempt, done, nothing, timeout_ms)

    def stream_tail(self, ns: str, stream: str) -> StreamId:
        """The newest id ever; (0, 0) of a stream that is not there."""
        return self._streams.tail_id(ns, stream)

    def stream_info(self, ns: str, stream: str) -> StreamInfo | None:
        return self._streams.info(self.now, ns, stream)

    def stream_list(self, ns: str, limit: int = 0, cursor: str = "") -> StreamList:
        return self._streams.list(self.now, ns, limit, cursor)

    def stream_create(self, ns: str, stream: str, partitions: int, retention: Retention) -> None:
        self._admit()
        self._check_namespace(ns)
        events, _ = self._streams.decide_create(self.now, self._index_in(ns), ns, stream, partitions, retention)
        self._write(ns, events)

    def stream_alter(
        self, ns: str, stream: str, *, max_age_ms: int | None = None, max_records: int | None = None,
        max_bytes: int | None = None,
    ) -> None:  # fmt: skip
        """None leaves a bound, 0 clears it."""
        events, _ = self._streams.decide_alter(
            self.now, self._partition.next_index, ns, stream, max_age_ms=max_age_ms, max_records=max_records,
            max_bytes=max_bytes,
        )  # fmt: skip
        self._change(events)

    def stream_trim(
        self, ns: str, stream: str, *, max_records: int | None = None, before: StreamId | None = None,
        max_age_ms: int | None = None, max_bytes: int | None = None, dry_run: bool = False,
    ) -> Trimmed:  # fmt: skip
        events, trimmed = self._streams.decide_trim(
            self.now, self._partition.next_index, ns, stream, max_records=max_records, before=before,
            max_age_ms=max_age_ms, max_bytes=max_bytes, dry_run=dry_run,
        )  # fmt: skip
        self._change(events)
        return trimmed

    def stream_delete(self, ns: str, stream: str, force: bool = False) -> None:
        events, _ = self._streams.decide_delete(self.now, self._partition.next_index, ns, stream, force)
        self._change(events)

    # -- consumer groups

    def group_create(
        self, ns: str, stream: str, group: str, settings: GroupSettings, start: StreamId | None = None
    ) -> None:
        self._admit()
        self._check_namespace(ns)
        events, _ = self.groups.decide_create(self.now, self._index_in(ns), ns, stream, group, settings, start)
        self._write(ns, events)

    def group_join(
        self, ns: str, stream: str, group: str, consumer: str, *, settings: GroupSettings | None = None,
        owner: Hashable = None,
    ) -> None:  # fmt: skip
        """`owner` stands for the connection: when it goes, members of groups that are not shared leave."""
        self._admit()
        self._check_namespace(ns)
        events, _ = self.groups.decide_join(
            self.now, self._index_in(ns), ns, stream, group, consumer, settings, bound=owner is not None
        )  # fmt: skip
        self._write(ns, events)
        self.members.seen(self.now, ns, stream, group, consumer, owner, joined=True)

    def group_leave(self, ns: str, stream: str, group: str, consumer: str) -> None:
        """The consumer's entries may be delivered again at once. Of an unknown one nothing happens."""
        now = self._partition.now()
        events, _ = self.groups.decide_leave(now, self._partition.next_index, ns, stream, group, consumer)
        self._change(events)
        self.members.left(ns, stream, group, consumer)

    def group_read(
        self, ns: str, stream: str, group: str, consumer: str, limit: int = 10, *, no_ack: bool = False,
        settings: GroupSettings | None = None, owner: Hashable = None,
    ) -> list[Delivered]:  # fmt: skip
        """Makes the group, and its stream, when they are not there; `settings` are those of a new group."""
        self._check_namespace(ns)
        now = self._partition.now()
        for _ in range(SCANS):
            events, delivered = self.groups.decide_read(
                now, self._index_in(ns), ns, stream, group, consumer, limit, no_ack=no_ack, settings=settings,
                bound=owner is not None,
            )  # fmt: skip
            self._write(ns, events)
            if delivered or not events:
                break
        self.members.seen(now, ns, stream, group, consumer, owner)
        return delivered

    def wait_group_read(
        self, ns: str, stream: str, group: str, consumer: str, limit: int = 10, *, no_ack: bool = False,
        settings: GroupSettings | None = None, owner: Hashable = None, timeout_ms: int | None, done: Done,
    ) -> list[Delivered] | _ParkedResult:  # fmt: skip
        def attempt() -> tuple[list[Delivered]] | None:
            if self.groups.info(self._partition.now(), ns, stream, group) is None:
                raise Refused("not_found", f"no group {group!r} on stream {stream!r}")
            delivered = self.group_read(ns, stream, group, consumer, limit, no_ack=no_ack, owner=owner)
            return (delivered,) if delivered else None

        delivered = self.group_read(ns, stream, group, consumer, limit, no_ack=no_ack, settings=settings, owner=owner)
        if delivered:
            return delivered
        result = self._park([("stream", ns, stream)], attempt, done, [], timeout_ms)
        assert self.last_parked is not None
        self.members.parked(ns, stream, group, consumer, self.last_parked)
        return result

    def group_ack(self, ns: str, stream: str, group: str, ids: Sequence[StreamId], consumer: str = "") -> int:
        events, count = self.groups.decide_ack(
            self.now, self._partition.next_index, ns, stream, group, ids, consumer
        )  # fmt: skip
        self._change(events)
        self.members.heard(self.now, ns, stream, group, consumer)
        return count

    def group_nack(
        self, ns: str, stream: str, group: str, ids: Sequence[StreamId], *, delay_ms: int | None = None,
        consumer: str = "",
    ) -> int:  # fmt: skip
        events, count = self.groups.decide_nack(
            self.now, self._partition.next_index, ns, stream, group, ids, delay_ms=delay_ms, consumer=consumer
        )
        self._change(events)
        self.members.heard(self.now, ns, stream, group, consumer)
        return count

    def group_touch(
        self, ns: str, stream: str, group: str, ids: Sequence[StreamId], consumer: str, *,
        extend_ms: int | None = None,
    ) -> int:  # fmt: skip
        events, count = self.groups.decide_touch(
            self.now, self._partition.next_index, ns, stream, group, ids, consumer, extend_ms=extend_ms
        )
        self._change(events)
        self.members.heard(self.now, ns, stream, group, consumer)
        return count

    def group_claim(
        self, ns: str, stream: str, group: str, consumer: str, min_idle_ms: int, *,
        ids: Sequence[StreamId] | None = None, start: StreamId | None = None, limit: int = 100,
    ) -> Claimed:  # fmt: skip
        """The entries of these ids, or without `ids` the next from `start` on."""
        index = self._partition.next_index
        if ids is not None:
            events, claimed = self.groups.decide_claim(
                self.now, index, ns, stream, group, consumer, min_idle_ms, ids
            )  # fmt: skip
        else:
            events, claimed = self.groups.decide_autoclaim(
                self.now, index, ns, stream, group, consumer, min_idle_ms, start or (0, 0), limit
            )
        self._change(events)
        self.members.heard(self.now, ns, stream, group, consumer)
        return claimed

    def group_pending(
        self, ns: str, stream: str, group: str, consumer: str = "", limit: int = 100, cursor: str = ""
    ) -> PendingPage:
        return self.groups.pending(self.now, ns, stream, group, consumer, limit, cursor)

    def group_info(self, ns: str, stream: str, group: str) -> GroupInfo | None:
        return self.groups.info(self.now, ns, stream, group)

    def group_list(self, ns: str, stream: str) -> list[GroupInfo]:
        return self.groups.list(self.now, ns, stream)

    def group_delete(self, ns: str, stream: str, group: str) -> None:
        events, _ = self.groups.decide_delete(self.now, self._partition.next_index, ns, stream, group)
        self._change(events)
        self.members.group_gone(ns, stream, group)

    def owner_gone(self, owner: Hashable) -> None:
        """A connection is closed: the members that joined on it leave."""
        self.members.owner_gone(owner)

    # -- namespaces

    def namespace_create(self, ns: str) -> bool:
        """Whether it is new."""
        event = self._namespaces.decide_create(ns)
        if event is not None:
            self._admit()
            self._partition.emit([event], self.now)
        return event is not None

    def namespace_delete(self, ns: str, force: bool = False) -> None:
        """With `force` with everything in it; without, only an empty one."""
        event = self._namespaces.decide_delete(ns)
        if not force and not self.namespace_is_empty(ns):
            raise Refused("conflict", f"namespace {ns!r} is not empty")
        self._transactions.drop_namespace(ns)
        self._partition.emit([event], self.now)

    def namespace_is_empty(self, ns: str) -> bool:
        return not (
            self._kv.key_count(ns)
            or self._queues.list(self.now, ns, 1, "").queues
            or self._streams.list(self.now, ns, 1, "").streams
        )

    def namespace_list(self) -> list[str]:
        return self._namespaces.names()

    def namespace_exists(self, ns: str) -> bool:
        return ns in self._namespaces.created

    # -- life

    def started(self) -> None:
        """The memory is new: no connection of before is there."""
        self.bind()
        self.begin()
        self.members.started(self.now)
        self.end()

    def lost(self, error: LogError) -> None:
        """Memory is thrown away: nobody who waits here is served any more."""
        self._transactions.clear()
        self._partition.waiters.lost(unknown_outcome(error))
