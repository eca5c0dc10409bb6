"""What the calls on streams and consumer groups take and give (flo.wire.calls)."""

from __future__ import annotations

import msgspec

from flo.primitives.stream_pages import Headers, Member, PartitionInfo


class Arguments(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A field that the call does not know is refused."""


# Streams


class RecordToAppend(msgspec.Struct, frozen=True, omit_defaults=True):
    payload: bytes
    headers: Headers = ()


class StreamAppend(Arguments):
    """At most one of `partition` and `partition_key`."""

    stream: str
    records: list[RecordToAppend]
    partition: int | None = None
    partition_key: bytes | None = None


class StreamRead(Arguments):
    """`start` and `end` are inclusive, `after` is exclusive and excludes `start`; `$` as `start` is the tail as it is
    now. `skip`: records to leave out first."""

    stream: str
    start: str | None = None
    end: str | None = None
    after: str | None = None
    limit: int = 100
    partition: int | None = None
    partition_key: bytes | None = None
    skip: int = 0
    wait_ms: int = 0


class StreamName(Arguments):
    stream: str


class StreamCreate(Arguments):
    """A bound of 0 is none."""

    stream: str
    partitions: int = 1
    max_age_ms: int = 0
    max_records: int = 0
    max_bytes: int = 0


class StreamAlter(Arguments):
    """A bound that is not given stays; 0 clears it."""

    stream: str
    max_age_ms: int | None = None
    max_records: int | None = None
    max_bytes: int | None = None


class StreamTrim(Arguments):
    """Exactly one bound."""

    stream: str
    max_records: int | None = None
    before: str | None = None
    max_age_ms: int | None = None
    max_bytes: int | None = None
    dry_run: bool = False


class StreamDelete(Arguments):
    stream: str
    force: bool = False


class AppendedRecords(msgspec.Struct, frozen=True):
    first_id: str
    last_id: str
    count: int


class StreamRecord(msgspec.Struct, frozen=True):
    id: str
    timestamp_ms: int
    partition: int
    tier: str  # hot | warm | cold
    partition_key: bytes | None
    payload: bytes
    headers: Headers
    delivery_count: int  # 0 outside of groups


class StreamRecords(msgspec.Struct, frozen=True):
    """`next` goes into `after` to read on."""

    records: list[StreamRecord]
    has_more: bool
    next: str


class RetentionBounds(msgspec.Struct, frozen=True):
    max_age_ms: int
    max_records: int
    max_bytes: int


class StreamDescription(msgspec.Struct, frozen=True):
    name: str
    namespace: str
    partitions: int
    first_id: str | None  # none while the stream is empty
    last_id: str | None
    records: int
    bytes: int
    retention: RetentionBounds
    groups: list[str]
    by_partition: list[PartitionInfo]


class StreamDescriptions(msgspec.Struct, frozen=True):
    streams: list[StreamDescription]
    has_more: bool
    cursor: str


class TrimmedRecords(msgspec.Struct, frozen=True):
    trimmed: int
    first_id: str | None  # that stays


# Consumer groups


class GroupName(Arguments):
    stream: str
    group: str


class GroupCreate(Arguments):
    """`start`: `0-0`, an id or `$`."""

    stream: str
    group: str
    mode: str = "shared"  # exclusive | key_shared
    ack_timeout_ms: int = 30_000
    max_deliver: int = 10
    redeliver_delay_ms: int = 0
    max_standbys: int = 65_535
    slots: int = 256
    start: str = "0-0"


class GroupMember(Arguments):
    """`bound`: the member leaves when the connection closes, unless the group is shared."""

    stream: str
    group: str
    consumer: str
    bound: bool = False


class GroupRead(Arguments):
    """The settings are those of the group if this read makes it."""

    stream: str
    group: str
    consumer: str
    limit: int = 10
    no_ack: bool = False
    wait_ms: int = 0
    bound: bool = False
    mode: str = "shared"
    ack_timeout_ms: int = 30_000
    max_deliver: int = 10
    redeliver_delay_ms: int = 0
    max_standbys: int = 65_535
    slots: int = 256


class GroupAck(Arguments):
    """Without `consumer` whoever holds the ids."""

    stream: str
    group: str
    ids: list[str]
    consumer: str = ""


class GroupNack(Arguments):
    """Without `delay_ms` the group's redeliver_delay."""

    stream: str
    group: str
    ids: list[str]
    consumer: str = ""
    delay_ms: int | None = None


class GroupTouch(Arguments):
    """Without `extend_ms` the group's ack_timeout."""

    stream: str
    group: str
    ids: list[str]
    consumer: str
    extend_ms: int | None = None


class GroupClaim(Arguments):
    stream: str
    group: str
    consumer: str
    ids: list[str]
    min_idle_ms: int = 0


class GroupAutoclaim(Arguments):
    stream: str
    group: str
    consumer: str
    min_idle_ms: int = 0
    start: str = "0-0"
    limit: int = 100


class GroupPending(Arguments):
    stream: str
    group: str
    consumer: str = ""
    limit: int = 100
    cursor: str = ""


class Delivery(msgspec.Struct, frozen=True):
    records: list[StreamRecord]


class ClaimedRecords(msgspec.Struct, frozen=True):
    records: list[StreamRecord]
    next: str | None  # where an autoclaim goes on; none: it is finished


class PendingEntry(msgspec.Struct, frozen=True):
    id: str
    partition: int
    consumer: str
    delivered_at: int  # first
    last_delivery: int
    delivery_count: int
    idle_ms: int
    deadline: int  # 0: none
    state: str  # pending | delayed


class PendingEntries(msgspec.Struct, frozen=True):
    entries: list[PendingEntry]
    has_more: bool
    cursor: str


class GroupDescription(msgspec.Struct, frozen=True):
    group: str
    stream: str
    namespace: str
    mode: str
    ack_timeout_ms: int
    max_deliver: int
    redeliver_delay_ms: int
    max_standbys: int
    slots: int
    consumers: int
    pending: int
    last_delivered: str | None
    ack_floor: str | None
    lag: int
    members: list[Member]


class GroupDescriptions(msgspec.Struct, frozen=True):
    groups: list[GroupDescription]
