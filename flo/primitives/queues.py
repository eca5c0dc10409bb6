"""The queue machine: messages by priority, leased to competing consumers, retried and laid aside when that fails.

A queue begins with the first enqueue. A message is delayed, ready or leased, or it lies in the queue's dead-letter
queue. What becomes due, and leases that end, are events which `due` decides; until then a message stays where it
is, so that one whose lease is past is not handed out before. What a delivery ends in is in the events: neither the
number of attempts nor the capacity of the dead-letter queue that a server is set to changes history.

`decide_…` methods return the events, none when there is nothing to log, and the reply; they raise `Refused` with
the text of the specification. An ack counts for a message that was delivered and not requeued since, also one whose
lease is past.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, TypeAlias

import msgspec

from flo.primitives.kv_rules import check_namespace
from flo.primitives.machine import Event, Refused
from flo.primitives.queue_events import (
    QueueAcked,
    QueueBatchEnqueued,
    QueueDeadDeleted,
    QueueDeadPurged,
    QueueDeleted,
    QueuedMessage,
    QueueDue,
    QueueEnqueued,
    QueueExpired,
    QueueHandedOut,
    QueueMoved,
    QueueNacked,
    QueuePurged,
    QueueRequeued,
    QueueTaken,
    QueueTouched,
)
from flo.primitives.queue_pages import (
    DeadLetter,
    DeadLetters,
    DeadLetterStats,
    Enqueued,
    Message,
    NewMessage,
    QueueList,
    QueueStats,
    Settled,
)
from flo.primitives.queue_rules import (
    BATCH_BYTES,
    DLQ_CAPACITY,
    MAX_ATTEMPTS,
    PAGE_BYTES,
    VISIBILITY_MS_DEFAULT,
    check_batch,
    check_message,
    check_own,
    check_queue,
    clamped_count,
    clamped_limit,
    cursor_after,
    distinct,
    instant,
    is_internal,
    read_cursor,
    read_place,
    unknown_message,
)
from flo.primitives.queue_state import Queue, Row
from flo.primitives.queue_timers import DELAYED, LEASED, Agenda, Item
from flo.primitives.sorted_keys import SortedKeys

RETIRED_BYTES: Final = 200  # memory of a deleted queue's name besides its bytes, about
DUMP_VERSION: Final = 1

_Events: TypeAlias = list[Event]
_Seqs: TypeAlias = list[int]
_Items: TypeAlias = list[Item]
_Messages: TypeAlias = list[Message]
_Enqueued: TypeAlias = list[Enqueued]
_Queued: TypeAlias = list[QueuedMessage]
_Stats: TypeAlias = list[QueueStats]
_DeadLetters: TypeAlias = list[DeadLetter]
_Tables: TypeAlias = list[tuple[str, list[tuple[str, Row]], list[tuple[str, int]]]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Tables).decode


class Table:
    """One namespace."""

    __slots__ = ("names", "queues", "retired")

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self.names = SortedKeys()  # of the queues, in UTF-8
        self.retired: dict[str, int] = {}  # last seqs of deleted queues by name


class Queues:
    name: ClassVar[str] = "queues"
    events: ClassVar[dict[tuple[int, int], type[Event]]] = {
        (event.KIND, event.VERSION): event
        for event in (
            QueueEnqueued,
            QueueBatchEnqueued,
            QueueHandedOut,
            QueueTaken,
            QueueAcked,
            QueueNacked,
            QueueMoved,
            QueueDue,
            QueueExpired,
            QueueTouched,
            QueueRequeued,
            QueueDeadDeleted,
            QueueDeadPurged,
            QueuePurged,
            QueueDeleted,
        )
    }

    def __init__(self, *, max_attempts: int = MAX_ATTEMPTS, dlq_capacity: int = DLQ_CAPACITY) -> None:
        self._tables: dict[str, Table] = {}
        self._agenda = Agenda()
        self._numbered: dict[int, tuple[str, str, Queue]] = {}
        self._last_number = 0
        self._max_attempts = max_attempts
        self._dlq_capacity = dlq_capacity
        self.bytes = 0  # memory held, about

    # -- decisions

    def decide_enqueue(
        self,
        now: int,
        index: int,
        ns: str,
        queue: str,
        payload: bytes,
        *,
        priority: int = 0,
        delay_ms: int = 0,
        dedup_key: bytes = b"",
    ) -> tuple[_Events, Enqueued]:
        """With a dedup key that is taken nothing is stored, and the reply holds the message that has it."""
        found = self._own(ns, queue)
        check_message(payload, priority, dedup_key)
        due_at = instant(now, delay_ms, "delay") if delay_ms else 0
        if found is not None:
            if dedup_key and (owner := found.dedup.owner(dedup_key, now, found.items)):
                return [], Enqueued(owner, True)
            seq = found.last_seq + 1
        else:
            seq = self._retired(ns, queue) + 1
        return [QueueEnqueued(ns, queue, seq, payload, priority, due_at, dedup_key)], Enqueued(seq, False)

    def decide_enqueue_many(
        self, now: int, index: int, ns: str, queue: str, messages: Sequence[NewMessage]
    ) -> tuple[_Events, _Enqueued]:
        """All or none. A dedup key that is taken, also by an earlier one of these, counts as in `decide_enqueue`."""
        found = self._own(ns, queue)
        check_batch(len(messages))
        first = seq = (found.last_seq if found is not None else self._retired(ns, queue)) + 1
        room = BATCH_BYTES
        queued: _Queued = []
        enqueued: _Enqueued = []
        owners: dict[bytes, int] = {}
        for message in messages:
            payload = message.payload
            key = message.dedup_key
            check_message(payload, message.priority, key)
            room -= len(payload) + len(key)
            due_at = instant(now, message.delay_ms, "delay") if message.delay_ms else 0
            if key:
                owner = owners.get(key, 0)
                if not owner and found is not None:
                    owner = found.dedup.owner(key, now, found.items)
                if owner:
                    enqueued.append(Enqueued(owner, True))
                    continue
                owners[key] = seq
            queued.append(QueuedMessage(payload, message.priority, due_at, key))
            enqueued.append(Enqueued(seq, False))
            seq += 1
        if room < 0:
            raise Refused("too_large", f"a batch of {BATCH_BYTES - room} bytes is over the limit of {BATCH_BYTES}")
        if not queued:
            return [], enqueued
        return [QueueBatchEnqueued(ns, queue, first, tuple(queued))], enqueued

    def decide_dequeue(
        self,
        now: int,
        index: int,
        ns: str,
        queue: str,
        count: int = 1,
        *,
        visibility_ms: int = 0,
        ack: bool = False,
    ) -> tuple[_Events, _Messages]:
        """Leases the next ready messages; with `ack` they are gone at once. Empty when none is ready."""
        found = self._own(ns, queue)
        count = clamped_count(count)
        visibility_ms = visibility_ms or VISIBILITY_MS_DEFAULT
        deadline = instant(now, visibility_ms, "visibility")
        items = found.ready.first(count) if found is not None else []
        if not items:
            return [], []
        if ack:
            deadline = 0
        messages = [Message(i.seq, i.payload, i.priority, i.enqueued_at, i.attempts + 1, deadline) for i in items]
        seqs = tuple([item.seq for item in items])
        if ack:
            return [QueueTaken(ns, queue, seqs)], messages
        attempts = tuple([item.attempts + 1 for item in items])
        return [QueueHandedOut(ns, queue, seqs, attempts, deadline, visibility_ms)], messages

    def decide_ack(self, now: int, index: int, ns: str, queue: str, seqs: Sequence[int]) -> tuple[_Events, Settled]:
        items, missing = self._live(ns, queue, seqs)
        known = [item.seq for item in items if item.attempts]
        if len(known) < len(items):
            missing += [item.seq for item in items if not item.attempts]
        if not known:
            raise unknown_message()
        return [QueueAcked(ns, queue, tuple(known))], Settled(len(known), missing)

    def decide_nack(
        self,
        now: int,
        index: int,
        ns: str,
        queue: str,
        seqs: Sequence[int],
        *,
        dlq: bool = False,
        delay_ms: int = 0,
    ) -> tuple[_Events, Settled]:
        """Gives leased messages back, ready after `delay_ms`; after the last attempt, or with `dlq`, they are dead
        letters. Of what is not leased, `dlq` makes dead letters too; without it nothing happens to it."""
        due_at = instant(now, delay_ms, "delay")
        items, missing = self._live(ns, queue, seqs)
        if not items:
            raise unknown_message()
        back: _Seqs = []
        moved: _Seqs = []
        for item in items:
            if dlq:
                moved.append(item.seq)
            elif item.state == LEASED:
                (moved if item.attempts >= self._max_attempts else back).append(item.seq)
        events: _Events = []
        if back:
            events.append(QueueNacked(ns, queue, tuple(back), due_at))
        if moved:
            reason = "explicit" if dlq else "max_attempts"
            events.append(QueueMoved(ns, queue, tuple(moved), reason, False, self._dlq_capacity))
        return events, Settled(len(items), missing)

    def decide_touch(
        self, now: int, index: int, ns: str, queue: str, seqs: Sequence[int], *, extend_ms: int = 0
    ) -> tuple[_Events, Settled]:
        """Leases end `extend_ms` from now; 0: the visibility that each was taken with."""
        deadline = instant(now, extend_ms, "extend")
        items, missing = self._live(ns, queue, seqs)
        touched: dict[int, _Seqs] = {}
        count = 0
        for item in items:
            if item.state == LEASED and item.at > now:
                touched.setdefault(deadline or now + item.visibility_ms, []).append(item.seq)
                count += 1
            else:
                missing.append(item.seq)
        if not count:
            raise unknown_message()
        return [QueueTouched(ns, queue, tuple(touched[at]), at) for at in touched], Settled(count, missing)

    def decide_purge(self, now: int, index: int, ns: str, queue: str) -> tuple[_Events, int]:
        """Removes all messages but the dead letters; replies how many."""
        found = self._own(ns, queue)
        if found is None or not found.items:
            return [], 0
        return [QueuePurged(ns, queue)], len(found.items)

    def decide_delete(self, now: int, index: int, ns: str, queue: str, force: bool = False) -> tuple[_Events, None]:
        """Refuses a queue that holds messages or dead letters unless `force`."""
        found = self._own(ns, queue)
        if found is None:
            raise Refused("not_found", "queue not found")
        if not force and (found.items or len(found.dead)):
            raise Refused("conflict", "queue is not empty", {"pending": len(found.items), "dlq": len(found.dead)})
        return [QueueDeleted(ns, queue)], None

    def decide_dlq_requeue(
        self, now: int, index: int, ns: str, queue: str, seqs: Sequence[int]
    ) -> tuple[_Events, Settled]:
        """Dead letters are ready again, with their seqs and priorities, as if never delivered."""
        known, missing = self._dead(ns, queue, seqs)
        return [QueueRequeued(ns, queue, tuple(known))], Settled(len(known), missing)

    def decide_dlq_delete(
        self, now: int, index: int, ns: str, queue: str, seqs: Sequence[int]
    ) -> tuple[_Events, Settled]:
        known, missing = self._dead(ns, queue, seqs)
        return [QueueDeadDeleted(ns, queue, tuple(known))], Settled(len(known), missing)

    def decide_dlq_purge(self, now: int, index: int, ns: str, queue: str) -> tuple[_Events, int]:
        """Removes all dead letters; replies how many."""
        found = self._own(ns, queue)
        count = len(found.dead) if found is not None else 0
        return ([QueueDeadPurged(ns, queue)] if count else []), count

    # -- reads

    def peek(self, now: int, ns: str, queue: str, count: int = 1) -> _Messages:
        """The next ready messages in the order of dequeue; nothing is counted."""
        found = self._find(ns, queue)
        count = clamped_count(count)
        if found is None:
            return []
        return [Message(i.seq, i.payload, i.priority, i.enqueued_at, i.attempts) for i in found.ready.first(count)]

    def length(self, ns: str, queue: str) -> int:
        """Messages that are delayed, ready or leased."""
        found = self._find(ns, queue)
        return 0 if found is None else len(found.items)

    def stats(self, now: int, ns: str, queue: str) -> QueueStats | None:
        found = self._find(ns, queue)
        return None if found is None else _stats(now, ns, queue, found)

    def list(self, now: int, ns: str, limit: int = 0, cursor: str = "") -> QueueList:
        """The next queues in the order of their names' bytes; `cursor` is that of the page before, or ""."""
        check_namespace(ns)
        limit = clamped_limit(limit)
        last = read_cursor(cursor)
        queues: _Stats = []
        table = self._tables.get(ns)
        if table is None:
            return QueueList(queues, False, "")
        for key in table.names.walk(last, beyond=last != b""):
            name = key.decode()
            if is_internal(name):
                continue
            if len(queues) == limit:
                return QueueList(queues, True, cursor_after(queues[-1].name.encode()))
            queues.append(_stats(now, ns, name, table.queues[name]))
        return QueueList(queues, False, "")

    def dlq_list(self, now: int, ns: str, queue: str, limit: int = 0, cursor: str = "") -> DeadLetters:
        """The next dead letters, oldest first; a page ends before `limit` when payloads make it large."""
        found = self._find(ns, queue)
        limit = clamped_limit(limit)
        last = read_place(cursor)
        entries: _DeadLetters = []
        if found is None:
            return DeadLetters(entries, False, "")
        room = PAGE_BYTES
        for dead in found.dead.after(last):
            item = dead.item
            room -= len(item.payload)
            if len(entries) == limit or (room < 0 and entries):
                return DeadLetters(entries, True, cursor_after(b"%d" % last))
            last = dead.place
            entries.append(
                DeadLetter(
                    item.seq,
                    item.payload,
                    item.priority,
                    item.attempts,
                    dead.moved_at,
                    dead.reason,
                    item.enqueued_at,
                )
            )
        return DeadLetters(entries, False, "")

    def dlq_stats(self, now: int, ns: str, queue: str) -> DeadLetterStats:
        found = self._find(ns, queue)
        if found is None:
            return DeadLetterStats(0, self._dlq_capacity, 0, 0)
        dead = found.dead
        oldest = dead.oldest()
        return DeadLetterStats(
            len(dead), self._dlq_capacity, dead.evicted, oldest.moved_at if oldest is not None else 0
        )

    # -- events

    def apply(self, event: Event, index: int, now: int) -> None:
        kind = type(event)
        if kind is QueueEnqueued:
            assert isinstance(event, QueueEnqueued)
            found = self._for_enqueue(event.ns, event.queue)
            before = found.bytes
            found.enqueue(now, event.seq, event.payload, event.priority, event.due_at, event.dedup_key)
        elif kind is QueueBatchEnqueued:
            assert isinstance(event, QueueBatchEnqueued)
            found = self._for_enqueue(event.ns, event.queue)
            before = found.bytes
            seq = event.first_seq
            for message in event.messages:
                found.enqueue(now, seq, message.payload, message.priority, message.due_at, message.dedup_key)
                seq += 1
        elif kind is QueueDeleted:
            assert isinstance(event, QueueDeleted)
            self._delete(event.ns, event.queue)
            return
        else:
            table = self._tables.get(event.ns)  # type: ignore[attr-defined]  # all of ours have it, and `queue`
            there = table.queues.get(event.queue) if table is not None else None  # type: ignore[attr-defined]
            if there is None:
                return
            found = there
            before = found.bytes
            self._apply_to(found, event, now)
        self.bytes += found.bytes - before

    def next_due(self) -> int | None:
        return self._agenda.next()

    def due(self, now: int, index: int) -> _Events:
        """Delayed messages become ready; leases end, which makes dead letters of messages without attempts left."""
        events: _Events = []
        for number, items in self._agenda.due(now):
            ns, name, _ = self._numbered[number]
            due = [item.seq for item in items if item.state == DELAYED]
            leased = [item for item in items if item.state == LEASED]
            expired = [item.seq for item in leased if item.attempts < self._max_attempts]
            moved = [item.seq for item in leased if item.attempts >= self._max_attempts]
            if due:
                events.append(QueueDue(ns, name, tuple(due)))
            if expired:
                events.append(QueueExpired(ns, name, tuple(expired)))
            if moved:
                events.append(QueueMoved(ns, name, tuple(moved), "max_attempts", True, self._dlq_capacity))
        return events

    def drop_namespace(self, ns: str) -> None:
        """With everything in it, the last seqs of deleted queues included."""
        table = self._tables.get(ns)
        if table is None:
            return
        for name in sorted(table.queues):
            self._delete(ns, name)
        self.bytes -= _retired_bytes(table)
        del self._tables[ns]

    # -- snapshots

    def dump(self) -> bytes:
        tables: _Tables = []
        for ns in sorted(self._tables):
            table = self._tables[ns]
            rows = [(name, table.queues[name].dump()) for name in sorted(table.queues)]
            tables.append((ns, rows, [(name, table.retired[name]) for name in sorted(table.retired)]))
        return bytes([DUMP_VERSION]) + _encode(tables)

    def load(self, data: bytes) -> None:
        if data[:1] != bytes([DUMP_VERSION]):
            known = f"this release reads {DUMP_VERSION}"
            raise ValueError(f"queues snapshot of version {data[0] if data else None}; {known}")
        tables = _decode(memoryview(data)[1:])
        self._tables = {}
        self._agenda = Agenda()
        self._numbered = {}
        self.bytes = 0
        for ns, rows, retired in tables:
            table = self._tables[ns] = Table()
            for name, row in rows:
                queue = self._add(table, ns, name)
                before = queue.bytes
                queue.load(row)
                self.bytes += queue.bytes - before
            table.retired = dict(retired)
            self.bytes += _retired_bytes(table)

    # -- within

    def _apply_to(self, queue: Queue, event: Event, now: int) -> None:
        kind = type(event)
        if kind is QueueHandedOut:
            assert isinstance(event, QueueHandedOut)
            queue.hand_out(now, event.seqs, event.attempts, event.deadline, event.visibility_ms)
        elif kind is QueueAcked:
            assert isinstance(event, QueueAcked)
            queue.ack(event.seqs)
        elif kind is QueueTaken:
            assert isinstance(event, QueueTaken)
            queue.take(event.seqs)
        elif kind is QueueNacked:
            assert isinstance(event, QueueNacked)
            queue.nack(now, event.seqs, event.due_at)
        elif kind is QueueMoved:
            assert isinstance(event, QueueMoved)
            queue.move(now, event.seqs, event.reason, event.expired, event.capacity)
        elif kind is QueueDue:
            assert isinstance(event, QueueDue)
            queue.become_due(event.seqs)
        elif kind is QueueExpired:
            assert isinstance(event, QueueExpired)
            queue.expire(event.seqs)
        elif kind is QueueTouched:
            assert isinstance(event, QueueTouched)
            queue.touch(now, event.seqs, event.deadline)
        elif kind is QueueRequeued:
            assert isinstance(event, QueueRequeued)
            queue.requeue(event.seqs)
        elif kind is QueueDeadDeleted:
            assert isinstance(event, QueueDeadDeleted)
            queue.delete_dead(event.seqs)
        elif kind is QueueDeadPurged:
            queue.purge_dead()
        elif kind is QueuePurged:
            queue.purge()
        else:
            raise AssertionError(f"not an event of queues: {event!r}")

    def _find(self, ns: str, queue: str) -> Queue | None:
        table = self._tables.get(ns)
        found = table.queues.get(queue) if table is not None else None
        if found is None:
            check_queue(ns, queue)
        return found

    def _own(self, ns: str, queue: str) -> Queue | None:
        """For commands: refuses a name that no caller may write to."""
        table = self._tables.get(ns)
        found = table.queues.get(queue) if table is not None else None
        if found is None or queue[0] == "_":
            check_own(ns, queue)
        return found

    def _live(self, ns: str, queue: str, seqs: Sequence[int]) -> tuple[_Items, _Seqs]:
        """The live messages among these, and the seqs of which there is none."""
        found = self._own(ns, queue)
        asked = distinct(seqs)
        if found is None:
            return [], asked
        items: _Items = []
        missing: _Seqs = []
        for seq in asked:
            item = found.items.get(seq)
            if item is None:
                missing.append(seq)
            else:
                items.append(item)
        return items, missing

    def _dead(self, ns: str, queue: str, seqs: Sequence[int]) -> tuple[_Seqs, _Seqs]:
        """The seqs of dead letters among these, and the others. Refuses when there is none."""
        found = self._own(ns, queue)
        asked = distinct(seqs)
        known = [seq for seq in asked if seq in found.dead] if found is not None else []
        if found is None or not known:
            raise unknown_message()
        return known, [seq for seq in asked if seq not in found.dead]

    def _retired(self, ns: str, queue: str) -> int:
        """The last seq of a deleted queue of this name; 0: there was none."""
        table = self._tables.get(ns)
        return 0 if table is None else table.retired.get(queue, 0)

    def _for_enqueue(self, ns: str, queue: str) -> Queue:
        table = self._tables.get(ns)
        if table is None:
            table = self._tables[ns] = Table()
        found = table.queues.get(queue)
        return self._add(table, ns, queue) if found is None else found

    def _add(self, table: Table, ns: str, name: str) -> Queue:
        self._last_number += 1
        last_seq = table.retired.pop(name, 0)
        if last_seq:
            self.bytes -= RETIRED_BYTES + len(name)
        queue = Queue(self._last_number, last_seq, self._agenda)
        self._numbered[queue.number] = (ns, name, queue)
        table.queues[name] = queue
        table.names.add(name.encode())
        self.bytes += queue.bytes
        return queue

    def _delete(self, ns: str, name: str) -> None:
        table = self._tables.get(ns)
        queue = table.queues.pop(name, None) if table is not None else None
        if table is None or queue is None:
            return
        table.names.remove(name.encode())
        table.retired[name] = queue.last_seq
        self._agenda.drop(queue.number)
        del self._numbered[queue.number]
        self.bytes += RETIRED_BYTES + len(name) - queue.bytes


def _retired_bytes(table: Table) -> int:
    return sum(RETIRED_BYTES + len(name) for name in table.retired)


def _stats(now: int, ns: str, name: str, queue: Queue) -> QueueStats:
    oldest = queue.ready.oldest()
    return QueueStats(
        name=name,
        namespace=ns,
        pending=len(queue.items),
        available=queue.available(),
        delayed=queue.delayed,
        inflight=queue.leased,
        enqueued=queue.enqueued,
        dequeued=queue.dequeued,
        acked=queue.acked,
        nacked=queue.nacked,
        expired=queue.expired,
        dlq=len(queue.dead),
        dlq_moved=queue.moved,
        dlq_evicted=queue.dead.evicted,
        purged=queue.purged,
        oldest_ready_ms=now - oldest.enqueued_at if oldest is not None else 0,
    )
