"""One queue: its messages, their order, its dead letters and its counters; and what events do to it.

Whatever an event says of a message that is not in the state it must be in, is passed over: applying is total.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from flo.primitives.queue_dead import Dead, DeadLetterQueue
from flo.primitives.queue_dedup import DedupTable, Window
from flo.primitives.queue_ready import Ready
from flo.primitives.queue_timers import DELAYED, GONE, LEASED, READY, Agenda, Item

QUEUE_BYTES: Final = 2_500  # memory of a queue, about
MESSAGE_BYTES: Final = 300  # of a message besides its payload and key

_Message: TypeAlias = tuple[int, bytes, int, bytes, int, int, int, int, int]
_DeadLetter: TypeAlias = tuple[int, int, str, int, bytes, int, bytes, int, int]
Row: TypeAlias = tuple[int, list[int], list[_Message], list[_DeadLetter], tuple[int, int], Window]


class Queue:
    __slots__ = (
        "number",
        "last_seq",
        "items",
        "ready",
        "dead",
        "dedup",
        "bytes",
        "leased",
        "delayed",
        "enqueued",
        "dequeued",
        "acked",
        "nacked",
        "expired",
        "moved",
        "purged",
        "_agenda",
    )

    def __init__(self, number: int, last_seq: int, agenda: Agenda) -> None:
        """`number` tells it from other queues of the agenda. Its seqs will be greater than `last_seq`."""
        self.number = number
        self.last_seq = last_seq
        self.items: dict[int, Item] = {}  # by seq: delayed, ready and leased
        self.ready = Ready()
        self.dead = DeadLetterQueue()
        self.dedup = DedupTable()
        self.bytes = QUEUE_BYTES
        self.leased = 0
        self.delayed = 0
        self.enqueued = 0  # this and what follows: ever
        self.dequeued = 0
        self.acked = 0
        self.nacked = 0
        self.expired = 0
        self.moved = 0
        self.purged = 0
        self._agenda = agenda

    def available(self) -> int:
        return len(self.items) - self.leased - self.delayed

    def enqueue(self, now: int, seq: int, payload: bytes, priority: int, due_at: int, dedup_key: bytes) -> None:
        item = Item(seq, payload, priority, dedup_key, now)
        self.items[seq] = item
        self.last_seq = seq
        self.enqueued += 1
        size = MESSAGE_BYTES + len(payload)
        if due_at:
            self._delay(now, item, due_at)
        else:
            self.ready.add(item)
        if dedup_key:
            size += len(dedup_key) + self.dedup.enqueued(dedup_key, seq, now)
        if self.dedup.entries:
            size -= self.dedup.expire(now, self.items)
        self.bytes += size

    def hand_out(
        self, now: int, seqs: Sequence[int], attempts: Sequence[int], deadline: int, visibility_ms: int
    ) -> None:
        items = self.items
        bucket = self._agenda.bucket(now, deadline, self.number)
        for seq, attempt in zip(seqs, attempts, strict=True):
            item = items.get(seq)
            if item is None or item.state != READY:
                continue
            item.state = LEASED
            self.ready.remove(item)
            item.attempts = attempt
            item.at = deadline
            item.visibility_ms = visibility_ms
            bucket.add(item)
            self.leased += 1
            self.dequeued += 1

    def take(self, seqs: Sequence[int]) -> None:
        self.dequeued += len(seqs)
        self.ack(seqs)

    def ack(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            item = self._end(seq)
            if item is not None:
                self.bytes -= MESSAGE_BYTES + len(item.payload) + len(item.dedup_key)
                self.acked += 1

    def nack(self, now: int, seqs: Sequence[int], due_at: int) -> None:
        for seq in seqs:
            item = self.items.get(seq)
            if item is not None and item.state == LEASED:
                self.nacked += 1
                self._rest(item)
                if due_at:
                    self._delay(now, item, due_at)
                else:
                    self._make_ready(item)

    def move(self, now: int, seqs: Sequence[int], reason: str, expired: bool, capacity: int) -> None:
        for seq in seqs:
            item = self._end(seq)
            if item is None:
                continue
            if expired:
                self.expired += 1
            else:
                self.nacked += 1
            self.moved += 1
            self.dead.add(item, now, reason)
        while len(self.dead) > capacity:
            oldest = self.dead.oldest()
            assert oldest is not None
            self.delete_dead((oldest.item.seq,))
            self.dead.evicted += 1

    def become_due(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            item = self.items.get(seq)
            if item is not None and item.state == DELAYED:
                self._rest(item)
                self._make_ready(item)

    def expire(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            item = self.items.get(seq)
            if item is not None and item.state == LEASED:
                self.expired += 1
                self._rest(item)
                self._make_ready(item)

    def touch(self, now: int, seqs: Sequence[int], deadline: int) -> None:
        agenda = self._agenda
        for seq in seqs:
            item = self.items.get(seq)
            if item is not None and item.state == LEASED:
                agenda.remove(item)
                item.at = deadline
                agenda.bucket(now, deadline, self.number).add(item)

    def requeue(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            item = self.dead.remove(seq)
            if item is not None:
                item.attempts = 0
                item.visibility_ms = 0
                self.items[seq] = item
                self._make_ready(item)
                if item.dedup_key:
                    self.dedup.revived(item.dedup_key, seq)

    def delete_dead(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            item = self.dead.remove(seq)
            if item is not None:
                self.bytes -= MESSAGE_BYTES + len(item.payload) + len(item.dedup_key)

    def purge_dead(self) -> None:
        self.delete_dead([dead.item.seq for dead in self.dead.after(0)])

    def purge(self) -> None:
        self.purged += len(self.items)
        self.bytes -= sum(MESSAGE_BYTES + len(item.payload) + len(item.dedup_key) for item in self.items.values())
        self._agenda.drop(self.number)
        self.items = {}
        self.ready = Ready()
        self.dedup.purged()
        self.leased = 0
        self.delayed = 0
        for dead in self.dead.after(0):
            dead.item.listed = False  # its entry has gone with the others

    # -- snapshots

    def dump(self) -> Row:
        items = self.items
        messages: list[_Message] = []
        for seq in sorted(items):
            i = items[seq]
            messages.append(
                (seq, i.payload, i.priority, i.dedup_key, i.enqueued_at, i.attempts, i.state, i.at, i.visibility_ms)
            )
        dead: list[_DeadLetter] = []
        for d in self.dead.after(0):
            i = d.item
            dead.append(
                (d.place, d.moved_at, d.reason, i.seq, i.payload, i.priority, i.dedup_key, i.enqueued_at, i.attempts)
            )
        counters = [self.enqueued, self.dequeued, self.acked, self.nacked, self.expired, self.moved, self.purged]
        return self.last_seq, counters, messages, dead, (self.dead.last_place, self.dead.evicted), self.dedup.window()

    def load(self, row: Row) -> None:
        """Into a new queue."""
        self.last_seq, counters, messages, dead, (last_place, evicted), window = row
        self.enqueued, self.dequeued, self.acked, self.nacked, self.expired, self.moved, self.purged = counters
        for seq, payload, priority, dedup_key, enqueued_at, attempts, state, at, visibility_ms in messages:
            item = Item(seq, payload, priority, dedup_key, enqueued_at)
            item.attempts = attempts
            item.visibility_ms = visibility_ms
            item.state = state
            self.items[seq] = item
            self.bytes += MESSAGE_BYTES + len(payload) + len(dedup_key)
            if state == READY:
                self.ready.add(item)
                continue
            if state == LEASED:
                self.leased += 1
            else:
                self.delayed += 1
            item.at = at
            self._agenda.bucket(0, at, self.number).add(item)
        for place, moved_at, reason, seq, payload, priority, dedup_key, enqueued_at, attempts in dead:
            item = Item(seq, payload, priority, dedup_key, enqueued_at)
            item.attempts = attempts
            item.state = GONE
            self.bytes += MESSAGE_BYTES + len(payload) + len(dedup_key)
            self.dead.restore(Dead(place, item, moved_at, reason))
        self.dead.last_place = last_place
        self.dead.evicted = evicted
        self.bytes += self.dedup.load(window, [(seq, i.dedup_key) for seq, i in self.items.items() if i.dedup_key])

    # -- within

    def _delay(self, now: int, item: Item, due_at: int) -> None:
        item.state = DELAYED
        item.at = due_at
        self.delayed += 1
        self._agenda.bucket(now, due_at, self.number).add(item)

    def _make_ready(self, item: Item) -> None:
        item.state = READY
        self.ready.add(item)

    def _rest(self, item: Item) -> None:
        """A delayed or leased message has no instant any more."""
        if item.state == LEASED:
            self.leased -= 1
        else:
            self.delayed -= 1
        item.at = 0
        self._agenda.remove(item)

    def _end(self, seq: int) -> Item | None:
        """The message is not live any more."""
        item = self.items.pop(seq, None)
        if item is None:
            return None
        if item.state == READY:
            item.state = GONE
            self.ready.remove(item)
        else:
            self._rest(item)
            item.state = GONE
        if item.dedup_key:
            self.dedup.ended(item.dedup_key, seq)
        return item
