"""A message as the machine holds it, and when which delayed or leased messages have to be looked at.

The agenda is a cache of the state, not state: it is rebuilt from the messages and stands in no snapshot. Messages
of one queue whose instants fall together share a bucket. Instants that are far share one per second, which comes
early: its messages are then sorted by the millisecond. So what is acknowledged in time, as most is, leaves a few
buckets behind rather than one for every lease.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final, TypeAlias

DELAYED: Final = 0
READY: Final = 1
LEASED: Final = 2
GONE: Final = 3  # acknowledged, or in the dead-letter queue

FAR_MS: Final = 5_000
COARSE_MS: Final = 1_000
GARBAGE: Final = 64  # entries that stand for nothing any more, before it pays to look for them
LOOKS: Final = 4_096  # messages that one call looks at

Key: TypeAlias = tuple[int, int]  # time, and the number of the queue


class Item:
    __slots__ = (
        "seq",
        "payload",
        "priority",
        "dedup_key",
        "enqueued_at",
        "attempts",
        "state",
        "at",
        "visibility_ms",
        "listed",
        "bucket",
    )

    def __init__(self, seq: int, payload: bytes, priority: int, dedup_key: bytes, enqueued_at: int) -> None:
        self.seq = seq
        self.payload = payload
        self.priority = priority
        self.dedup_key = dedup_key
        self.enqueued_at = enqueued_at
        self.attempts = 0
        self.state: int = READY
        self.at = 0  # when it becomes ready, or its lease ends; 0 when it is ready
        self.visibility_ms = 0  # that it was last leased with
        self.listed = False  # it has an entry among the ready, which counts only while it is ready
        self.bucket: Bucket | None = None


class Bucket:
    """`items` may hold some that left it, which shows in their `bucket`, and one that came back twice."""

    __slots__ = ("items", "key", "live")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.items: list[Item] = []
        self.live = 0

    def add(self, item: Item) -> None:
        """The item is in no bucket."""
        item.bucket = self
        self.items.append(item)
        self.live += 1

    def sweep(self) -> None:
        kept: list[Item] = []
        for item in self.items:
            if item.bucket is self:
                item.bucket = None  # of two entries the first stays
                kept.append(item)
        for item in kept:
            item.bucket = self
        self.items = kept


class Agenda:
    __slots__ = ("_buckets", "_of", "_times")

    def __init__(self) -> None:
        self._buckets: dict[Key, Bucket] = {}
        self._of: dict[int, dict[int, None]] = {}  # by queue: the times of its buckets
        self._times: list[Key] = []  # heap; some of buckets that are gone

    def bucket(self, now: int, at: int, number: int) -> Bucket:
        """Where messages of a queue belong that are to be looked at then."""
        key = (at if at - now <= FAR_MS else at - at % COARSE_MS, number)
        found = self._buckets.get(key)
        if found is None:
            found = self._buckets[key] = Bucket(key)
            times = self._of.get(number)
            if times is None:
                self._of[number] = {key[0]: None}
            else:
                times[key[0]] = None
            heappush(self._times, key)
            if len(self._times) > 2 * len(self._buckets) + 16 * GARBAGE:
                self._times = list(self._buckets)
                heapify(self._times)
        return found

    def remove(self, item: Item) -> None:
        bucket = item.bucket
        if bucket is None:
            return
        item.bucket = None
        bucket.live -= 1
        if not bucket.live:
            self._forget(bucket.key)
        elif bucket.items[-1] is item:
            bucket.items.pop()
        elif len(bucket.items) > 2 * bucket.live + GARBAGE:
            bucket.sweep()

    def drop(self, number: int) -> None:
        """A queue's messages are gone."""
        for time in self._of.pop(number, ()):
            del self._buckets[time, number]

    def next(self) -> int | None:
        """At or before the next instant."""
        times = self._times
        while times and times[0] not in self._buckets:
            heappop(times)
        return times[0][0] if times else None

    def due(self, now: int) -> list[tuple[int, list[Item]]]:
        """Numbers of queues with messages whose instants have come, LOOKS of them at most. They keep their places until
        they are removed; what came too early moves on."""
        found: list[tuple[int, list[Item]]] = []
        looked: list[Key] = []
        early: list[tuple[int, Item]] = []
        room = LOOKS
        while room > 0 and self._times and self._times[0][0] <= now:
            key = heappop(self._times)
            bucket = self._buckets.get(key)
            if bucket is None or (looked and looked[-1] == key):
                continue
            due: dict[int, Item] = {}
            while bucket.items and room > 0:
                item = bucket.items.pop()
                room -= 1
                if item.bucket is not bucket:
                    continue
                if item.at <= now:
                    due[item.seq] = item
                else:
                    item.bucket = None
                    bucket.live -= 1
                    early.append((key[1], item))
            if due:
                items = [due[seq] for seq in sorted(due)]
                bucket.items += reversed(items)  # removed in order, each is the last one
                found.append((key[1], items))
            if bucket.live:
                looked.append(key)
            else:
                self._forget(key)
        for key in looked:
            heappush(self._times, key)
        for number, item in early:
            self.bucket(now, item.at, number).add(item)
        return found

    def _forget(self, key: Key) -> None:
        del self._buckets[key]
        times = self._of[key[1]]
        del times[key[0]]
        if not times:
            del self._of[key[1]]
