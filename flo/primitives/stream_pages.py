"""What callers of the stream and group machines pass and get. Structs, so apart from what is compiled."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

StreamId: TypeAlias = tuple[int, int]
"""(milliseconds, sequence within the millisecond); ordered as tuples are."""

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Names and values in order; duplicates stay."""


class NewRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record as it is appended, and as it lies in the log."""

    payload: bytes
    headers: Headers = ()


class Retention(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Bounds of a stream; 0: none."""

    max_age_ms: int = 0
    max_records: int = 0
    max_bytes: int = 0


class Placed(msgspec.Struct, frozen=True, gc=False):
    """A record and where in the log its payload lies: place `place` in the event at `index`."""

    ms: int
    seq: int
    ordinal: int  # 1, 2, 3 … for the stream's whole life
    partition: int
    index: int
    place: int
    size: int  # bytes of payload and headers


class PlacedPage(msgspec.Struct, frozen=True):
    records: list[Placed]
    has_more: bool
    next: StreamId  # cursor to continue after (exclusive); of an empty page where the read began


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record with its payload. `delivery_count` is 0 outside of groups."""

    ms: int
    seq: int
    partition: int
    key: bytes | None  # partition key
    payload: bytes
    headers: Headers
    tier: str  # hot | warm | cold
    delivery_count: int = 0


class RecordPage(msgspec.Struct, frozen=True):
    records: list[Record]
    has_more: bool
    next: StreamId


class Appended(msgspec.Struct, frozen=True, gc=False):
    first: StreamId
    last: StreamId
    count: int


class Trimmed(msgspec.Struct, frozen=True, gc=False):
    count: int
    first: StreamId | None  # that is still there; None: the stream is empty


class PartitionInfo(msgspec.Struct, frozen=True, gc=False):
    records: int
    bytes: int


class StreamInfo(msgspec.Struct, frozen=True):
    name: str
    namespace: str
    first: StreamId | None
    last: StreamId | None  # the newest id ever, also when it was trimmed; None: nothing was ever appended
    records: int
    bytes: int
    retention: Retention
    partitions: list[PartitionInfo]


class StreamList(msgspec.Struct, frozen=True):
    streams: list[StreamInfo]
    has_more: bool
    cursor: str


class GroupSettings(msgspec.Struct, array_like=True, frozen=True, gc=False):
    mode: str = "shared"  # shared | exclusive | key_shared
    ack_timeout_ms: int = 30_000  # 0: never
    max_deliver: int = 10  # 0: unlimited
    redeliver_delay_ms: int = 0
    max_standbys: int = 65_535  # exclusive only; 65535: unlimited
    slots: int = 256  # key_shared only


class Delivered(msgspec.Struct, frozen=True, gc=False):
    record: Placed
    delivery_count: int


class Claimed(msgspec.Struct, frozen=True):
    records: list[Delivered]
    next: StreamId | None  # where an autoclaim goes on; None: the scan is finished


class Pending(msgspec.Struct, frozen=True, gc=False):
    """An entry of a group's pending list."""

    ms: int
    seq: int
    partition: int
    consumer: str
    delivered_at: int  # first
    last_delivery: int
    delivery_count: int
    idle_ms: int
    deadline: int  # epoch ms, 0: none
    state: str  # pending | delayed


class PendingPage(msgspec.Struct, frozen=True):
    entries: list[Pending]
    has_more: bool
    cursor: str


class Member(msgspec.Struct, frozen=True, gc=False):
    consumer: str
    state: str  # active | standby
    joined_at: int
    pending: int


class GroupInfo(msgspec.Struct, frozen=True):
    group: str
    stream: str
    namespace: str
    settings: GroupSettings
    members: list[Member]
    pending: int
    last_delivered: StreamId | None
    ack_floor: StreamId | None  # everything at or below is acknowledged or trimmed
    lag: int  # records after last_delivered
