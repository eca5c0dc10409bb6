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
from typing import Final

from flo.primitives.stream_pages import Placed, Retention, StreamId

RECORD_BYTES: Final = 40
LANE_RECORD_BYTES: Final = 16  # more in a stream of several partitions
STREAM_BYTES: Final = 1_600  # of a stream without records, about
COPY_BYTES: Final = 200  # more of a record that was copied
GARBAGE_RECORDS: Final = 64  # below that many trimmed records it is not worth while to move the others


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

    def trim(self, first_ordinal: int) -> None:
        head = bisect_left(self.ordinals, first_ordinal, self.head)
        if head == self.head:
            return
        self.base = self.ends[head - 1]
        if head >= GARBAGE_RECORDS and 2 * head >= len(self.ordinals):
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
        self.retention = retention
        self.last_ordinal = 0  # 0: nothing was ever appended
        self.last_id: StreamId = floor  # the newest ever given, also when it was trimmed; `floor` before the first
        self.sources: dict[int, tuple[int, ...]] = {}  # ordinal of a copied record: the events that it draws on
        self.lanes: dict[int, Lane] = {}  # only in a stream of several partitions
        self.swept_at = 0
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
        self._ends: array[int] = array("Q")  # running total of bytes, this record included

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
        each = RECORD_BYTES if self.partitions == 1 else RECORD_BYTES + LANE_RECORD_BYTES
        return STREAM_BYTES + each * self.records + COPY_BYTES * len(self.sources)

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

    # -- changes
