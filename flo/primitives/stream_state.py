"""One stream as the machine holds it: columns of ids and of where each payload lies in the log; no payloads.

Records stand in columns ordered by id, which is the order of their ordinals. What was trimmed stays in front of
them as garbage until it is more than what is alive. Sizes are kept as running totals, so that the bytes of any
range, the end of a page and the place of a trim by bytes are found without a walk. A stream of several partitions
has a lane for each that holds records, for reads and figures of one partition.

A record takes 40 bytes, in a stream of several partitions 56.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from sys import byteorder
from typing import Final, TypeAlias

from flo.primitives.stream_pages import PartitionInfo, Placed, Retention, StreamId
from flo.primitives.stream_rules import PAGE_BYTES

RECORD_BYTES: Final = 40
LANE_RECORD_BYTES: Final = 16  # more in a stream of several partitions
STREAM_BYTES: Final = 1_600  # of a stream without records, about
LANE_BYTES: Final = 400  # of a lane besides its records
COPY_BYTES: Final = 200  # more of a record that was copied
SWEEP_MS: Final = 1_000  # between two sweeps of one stream, at least
GARBAGE_RECORDS: Final = 64  # below that many trimmed records it is not worth while to move the others


Columns: TypeAlias = tuple[int, int, bytes, bytes, bytes, bytes, bytes, bytes, bytes, dict[int, tuple[int, ...]]]
"""Of a snapshot: last ordinal, bytes before the first record, the columns of what is there, sources of copies."""


def fitting(ends: array[int], head: int, base: int, low: int, high: int, limit: int) -> int:
    """How many records from place `low` on, and before `high`, make a page; the first does, whatever its size."""
    if low >= high:
        return 0
    high = min(high, low + limit)
    before = ends[low - 1] if low > head else base
    return max(1, bisect_right(ends, before + PAGE_BYTES, low, high) - low)


class Lane:
    """The records of one partition: their ordinals, and the running total of their bytes."""

    __slots__ = ("ordinals", "ends", "head", "base")

    def __init__(self) -> None:
        self.ordinals: array[int] = array("Q")
        self.ends: array[int] = array("Q")
        self.head = 0
        self.base = 0  # total of bytes before the record at `head`

    def records(self) -> int:
        return len(self.ordinals) - self.head

    def bytes(self) -> int:
        return self.ends[-1] - self.base if self.records() else 0

    def append(self, first_ordinal: int, sizes: Sequence[int]) -> None:
        total = self.ends[-1] if self.ends else self.base
        for ordinal, size in enumerate(sizes, first_ordinal):
            total += size
            self.ordinals.append(ordinal)
            self.ends.append(total)

    def trim(self, first_ordinal: int) -> None:
        head = bisect_left(self.ordinals, first_ordinal, self.head)
        if head == self.head:
            return
        self.base = self.ends[head - 1]
        if 2 * head >= len(self.ordinals) and (head >= GARBAGE_RECORDS or head == len(self.ordinals)):
            del self.ordinals[:head]
            del self.ends[:head]
            head = 0
        self.head = head


class Stream:
    """Ordinals given to its methods must lie in first_ordinal … last_ordinal unless the method says otherwise."""

    __slots__ = (
        "name",
        "ns",
        "partitions",
        "retention",
        "bounded",
        "record_bytes",
        "last_ordinal",
        "last_id",
        "sources",
        "lanes",
        "swept_at",
        "sweep_at",
        "_offset",
        "_head",
        "_base",
        "_ms",
        "_seq",
        "_index",
        "_place",
        "_partition",
        "_hash",
        "_ends",
    )

    def __init__(self, ns: str, name: str, partitions: int, retention: Retention, floor: StreamId) -> None:
        """Ids will be greater than `floor`."""
        self.name = name
        self.ns = ns
        self.partitions = partitions
        self.record_bytes = RECORD_BYTES if partitions == 1 else RECORD_BYTES + LANE_RECORD_BYTES
        self.retention = retention
        self.bounded = False
        self.bind(retention)
        self.last_ordinal = 0  # 0: nothing was ever appended
        self.last_id: StreamId = floor  # the newest ever given, also when it was trimmed; `floor` before the first
        self.sources: dict[int, tuple[int, ...]] = {}  # ordinal of a copied record: the events that it draws on
        self.lanes: dict[int, Lane] = {}  # only in a stream of several partitions
        self.swept_at = 0  # epoch ms of the newest trim; a cache, as the next
        self.sweep_at = 0  # 0: no sweep is planned
        self._offset = 1  # ordinal of the columns' place 0
        self._head = 0  # place of the oldest record that is still there
        self._base = 0  # total of bytes before it
        self._ms: array[int] = array("Q")
        self._seq: array[int] = array("Q")
        self._index: array[int] = array("Q")
        self._place: array[int] = array("H")
        self._partition: array[int] = array("H")
        self._hash: array[int] = array("I")
        self._ends: array[int] = array("Q")  # running total of bytes, the record's included

    # -- what is there

    @property
    def first_ordinal(self) -> int:
        """Of the oldest record that is still there; last_ordinal + 1 when there is none."""
        return self._offset + self._head

    @property
    def records(self) -> int:
        return len(self._ms) - self._head

    @property
    def bytes(self) -> int:
        """Of the payloads and headers of the records that are there."""
        return self._ends[-1] - self._base if self._ends else 0

    @property
    def memory(self) -> int:
        records = self.record_bytes * self.records
        return STREAM_BYTES + records + LANE_BYTES * len(self.lanes) + COPY_BYTES * len(self.sources)

    def first_id(self) -> StreamId | None:
        return self.id_of(self.first_ordinal) if self.records else None

    def id_of(self, ordinal: int) -> StreamId:
        place = ordinal - self._offset
        return self._ms[place], self._seq[place]

    def ordinal_of(self, ms: int, seq: int) -> int | None:
        """None when no such record is there, or it was trimmed."""
        ordinal = self.ordinal_at_or_after(ms, seq)
        if ordinal > self.last_ordinal or self.id_of(ordinal) != (ms, seq):
            return None
        return ordinal

    def ordinal_at_or_after(self, ms: int, seq: int) -> int:
        """Of the first record that is there with this id or a greater one; last_ordinal + 1 when there is none."""
        left = bisect_left(self._ms, ms, self._head)
        if seq and left < len(self._ms) and self._ms[left] == ms:
            left = bisect_left(self._seq, seq, left, bisect_right(self._ms, ms, left))
        return self._offset + left

    def partition_of(self, ordinal: int) -> int:
        return self._partition[ordinal - self._offset]

    def key_hash_of(self, ordinal: int) -> int:
        """`key_hash` of the partition key; 0: it has none."""
        return self._hash[ordinal - self._offset]

    def size_of(self, ordinal: int) -> int:
        """Bytes of payload and headers."""
        place = ordinal - self._offset
        return self._ends[place] - (self._ends[place - 1] if place > self._head else self._base)

    def placed(self, ordinal: int) -> Placed:
        place = ordinal - self._offset
        return Placed(
            self._ms[place],
            self._seq[place],
            ordinal,
            self._partition[place],
            self._index[place],
            self._place[place],
            self.size_of(ordinal),
        )

    def sources_of(self, ordinal: int) -> tuple[int, ...]:
        """Log indexes of all events that the record draws on, its own first."""
        own = self._index[ordinal - self._offset]
        return (own, *self.sources.get(ordinal, ()))

    def page(self, first: int, beyond: int, skip: int, limit: int, partition: int | None) -> tuple[list[Placed], bool]:
        """At most `limit` records from ordinal `first` to before ordinal `beyond`, of one partition or of all, without
        the first `skip` of them; cut off before PAGE_BYTES is passed, but for the first. And whether more follow."""
        if partition is None or self.partitions == 1:
            low, high = first - self._offset + skip, beyond - self._offset
            count = fitting(self._ends, self._head, self._base, low, high, limit)
            return self._places(low, low + count), low + count < high
        lane = self.lanes.get(partition)
        if lane is None:
            return [], False
        low = bisect_left(lane.ordinals, first, lane.head) + skip
        high = bisect_left(lane.ordinals, beyond, lane.head)
        count = fitting(lane.ends, lane.head, lane.base, low, high, limit)
        return [self.placed(lane.ordinals[place]) for place in range(low, low + count)], low + count < high

    def partition_figures(self) -> list[PartitionInfo]:
        if self.partitions == 1:
            return [PartitionInfo(self.records, self.bytes)]
        none = PartitionInfo(0, 0)
        figures = [none] * self.partitions
        for partition, lane in self.lanes.items():
            figures[partition] = PartitionInfo(lane.records(), lane.bytes())
        return figures

    def add_indexes(self, first: int, last: int, found: set[int]) -> None:
        """Adds the log indexes, within first … last, of all events that the records that are there draw on."""
        low = bisect_left(self._index, first, self._head)
        found.update(self._index[low : bisect_right(self._index, last, low)])
        for chain in self.sources.values():
            for index in chain:
                if first <= index <= last:
                    found.add(index)

    # -- where a trim would begin: ordinals of the first record that stays, last_ordinal + 1 when none does

    def kept_by_records(self, records: int) -> int:
        return max(self.first_ordinal, self.last_ordinal + 1 - records)

    def kept_by_bytes(self, size: int) -> int:
        excess = self.bytes - size
        if excess <= 0:
            return self.first_ordinal
        return self._offset + bisect_left(self._ends, self._base + excess, self._head) + 1

    def kept_by_age(self, now: int, max_age_ms: int) -> int:
        return self.ordinal_at_or_after(max(0, now - max_age_ms), 0)

    def kept_by_retention(self, now: int) -> int:
        bounds = self.retention
        first = self.first_ordinal
        if bounds.max_records:
            first = max(first, self.kept_by_records(bounds.max_records))
        if bounds.max_bytes:
            first = max(first, self.kept_by_bytes(bounds.max_bytes))
        if bounds.max_age_ms:
            first = max(first, self.kept_by_age(now, bounds.max_age_ms))
        return first

    def wanted_sweep(self, now: int) -> int:
        """The epoch ms from which on the retention has something to trim; 0: while nothing changes, never."""
        bounds = self.retention
        if not self.records:
            return 0
        if (bounds.max_records and self.records > bounds.max_records) or (
            bounds.max_bytes and self.bytes > bounds.max_bytes
        ):
            return max(now, self.swept_at + SWEEP_MS)
        if bounds.max_age_ms:
            return max(self._ms[self._head] + bounds.max_age_ms + 1, self.swept_at + SWEEP_MS)
        return 0

    def _places(self, low: int, high: int) -> list[Placed]:
        columns = slice(low, high)
        ends = self._ends[columns]
        starts = [self._ends[low - 1] if low > self._head else self._base, *ends] if ends else []
        return [
            Placed(ms, seq, ordinal, partition, index, place, end - start)
            for ms, seq, ordinal, partition, index, place, end, start in zip(
                self._ms[columns],
                self._seq[columns],
                range(self._offset + low, self._offset + high),
                self._partition[columns],
                self._index[columns],
                self._place[columns],
                ends,
                starts,
                strict=False,
            )
        ]

    # -- changes

    def bind(self, retention: Retention) -> None:
        self.retention = retention
        self.bounded = bool(retention.max_age_ms or retention.max_records or retention.max_bytes)

    def append(self, ms: int, seq: int, index: int, partition: int, key_hash: int, sizes: Sequence[int]) -> None:
        """The records of one event, which share ms, partition and key; `sizes` are bytes of payload and headers."""
        count = len(sizes)
        total = self._ends[-1] if self._ends else self._base
        if count == 1:
            self._ms.append(ms)
            self._seq.append(seq)
            self._index.append(index)
            self._place.append(0)
            self._partition.append(partition)
            self._hash.append(key_hash)
            self._ends.append(total + sizes[0])
        else:
            self._ms.extend(array("Q", (ms,)) * count)
            self._seq.extend(array("Q", range(seq, seq + count)))
            self._index.extend(array("Q", (index,)) * count)
            self._place.extend(array("H", range(count)))
            self._partition.extend(array("H", (partition,)) * count)
            self._hash.extend(array("I", (key_hash,)) * count)
            ends = accumulate(sizes, initial=total)
            next(ends)
            self._ends.extend(ends)
        first = self.last_ordinal + 1
        self.last_ordinal += count
        self.last_id = (ms, seq + count - 1)
        if self.partitions > 1:
            lane = self.lanes.get(partition)
            if lane is None:
                lane = self.lanes[partition] = Lane()
            lane.append(first, sizes)

    def trim(self, first_ordinal: int) -> None:
        """Lets everything before this ordinal go; last_ordinal + 1: everything."""
        head = first_ordinal - self._offset
        if head <= self._head:
            return
        self._base = self._ends[head - 1]
        self._head = head
        if 2 * head >= len(self._ms) and (head >= GARBAGE_RECORDS or head == len(self._ms)):
            for column in (self._ms, self._seq, self._index, self._place, self._partition, self._hash, self._ends):
                del column[:head]
            self._offset += head
            self._head = 0
        if self.lanes:
            self._trim_lanes(first_ordinal)
        if self.sources and next(iter(self.sources)) < first_ordinal:
            self.sources = {ordinal: chain for ordinal, chain in self.sources.items() if ordinal >= first_ordinal}

    def _trim_lanes(self, first_ordinal: int) -> None:
        empty: list[int] = []
        for partition, lane in self.lanes.items():
            lane.trim(first_ordinal)
            if not lane.records():
                empty.append(partition)
        for partition in empty:
            del self.lanes[partition]

    # -- snapshots

    def columns(self) -> Columns:
        live = slice(self._head, None)
        return (
            self.last_ordinal,
            self._base,
            _packed(self._ms[live]),
            _packed(self._seq[live]),
            _packed(self._index[live]),
            _packed(self._place[live]),
            _packed(self._partition[live]),
            _packed(self._hash[live]),
            _packed(self._ends[live]),
            self.sources,
        )

    def restore(self, columns: Columns) -> None:
        """Fills a stream that is new."""
        self.last_ordinal, self._base, ms, seq, index, place, partition, hash, ends, self.sources = columns
        self._ms = _unpacked("Q", ms)
        self._seq = _unpacked("Q", seq)
        self._index = _unpacked("Q", index)
        self._place = _unpacked("H", place)
        self._partition = _unpacked("H", partition)
        self._hash = _unpacked("I", hash)
        self._ends = _unpacked("Q", ends)
        self._offset = self.last_ordinal + 1 - len(self._ms)
        if self.partitions > 1:
            before = self._base
            for place_, of in enumerate(self._partition):
                lane = self.lanes.get(of)
                if lane is None:
                    lane = self.lanes[of] = Lane()
                end = self._ends[place_]
                lane.append(self._offset + place_, (end - before,))
                before = end


def _packed(column: array[int]) -> bytes:
    """Little-endian on every machine."""
    if byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _unpacked(typecode: str, data: bytes) -> array[int]:
    column: array[int] = array(typecode)
    column.frombytes(data)
    if byteorder == "big":
        column.byteswap()
    return column
