"""What FloClient's calls give back. All are immutable."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from flo.client.sdk_errors import ValidationError

T = TypeVar("T")

_LAST: Final = 2**64 - 1
_ID_BYTES: Final = struct.Struct(">QQ")
_ID_TEXT: Final = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?", re.ASCII)
_decode_json: Final = msgspec.json.Decoder().decode


class StreamID(NamedTuple):
    """Where a record stands in its stream: milliseconds, and a number within the millisecond. Ordered; its text is
    `timestamp-sequence`."""

    timestamp_ms: int = 0
    sequence: int = 0

    def __str__(self) -> str:
        return f"{self.timestamp_ms}-{self.sequence}"

    def next(self) -> StreamID:
        """The smallest id that is larger: where reading goes on."""
        if self.sequence < _LAST:
            return StreamID(self.timestamp_ms, self.sequence + 1)
        return StreamID(self.timestamp_ms + 1, 0)

    @classmethod
    def parse(cls, text: str) -> StreamID:
        """Of `timestamp-sequence` or `timestamp`. Raises ValidationError."""
        found = _ID_TEXT.fullmatch(text)
        id = None if found is None else cls(int(found[1]), int(found[2] or 0))
        if id is None or max(id) > _LAST:
            raise ValidationError(f"invalid stream id {text[:64]!r}", hint="like 1700000000123-0")
        return id

    def to_bytes(self) -> bytes:
        """16 bytes, as options carry ids: both numbers big-endian."""
        return _ID_BYTES.pack(self.timestamp_ms, self.sequence)

    @classmethod
    def from_bytes(cls, data: bytes) -> StreamID:
        """Of what `to_bytes` gives. Raises ValidationError."""
        if len(data) != _ID_BYTES.size:
            raise ValidationError(f"a stream id has 16 bytes, not {len(data)}")
        return cls(*_ID_BYTES.unpack(data))


# Keys and values


class GetResult(msgspec.Struct, frozen=True, gc=False):
    """A value and its version; `bytes(result)` is the value."""

    value: bytes
    version: int

    def __bytes__(self) -> bytes:
        return self.value

    def text(self) -> str:
        """The value as UTF-8 text."""
        return self.value.decode()

    def json(self) -> Any:
        """The value of the JSON text. Raises ValueError."""
        return _decode_json(self.value)

    def into(self, cls: type[T]) -> T:
        """The JSON text as an object of a dataclass, Struct or other type."""
        return into(cls, self.value)


class PutResult(msgspec.Struct, frozen=True, gc=False):
    """`version` is 0 inside a transaction, where there is none yet."""

    version: int


class MGetEntry(msgspec.Struct, frozen=True, gc=False):
    """Of a key that is missing `found` is False, `version` 0 and `value` empty."""

    key: str
    value: bytes
    version: int
    found: bool


class ScanEntry(msgspec.Struct, frozen=True, gc=False):
    """`value` is empty when only keys were asked for."""

    key: str
    value: bytes


class ScanResult(msgspec.Struct, frozen=True):
    """A page of keys in the order of their bytes; `cursor` asks for the next one, None at the end."""

    entries: list[ScanEntry]
    cursor: bytes | None
    has_more: bool

    def __iter__(self) -> Iterator[ScanEntry]:
        return iter(self.entries)


class VersionEntry(msgspec.Struct, frozen=True, gc=False):
    """A version of a key. `timestamp` is in milliseconds since 1970. A tombstone has an empty value."""

    version: int
    timestamp: int
    value: bytes
    tombstone: bool = False  # told by `versions` and `version` only


class KeyInfo(msgspec.Struct, frozen=True, gc=False):
    """A key without its value. Times are in milliseconds since 1970; `expires_at` 0: never."""

    version: int
    kind: str  # string | counter
    size: int
    expires_at: int
    written_at: int


class CommitResult(msgspec.Struct, frozen=True, gc=False):
    """`commit_index` is the version of every key that was written."""

    op_count: int
    commit_index: int


# Queues


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message. What follows the payload is told when `details` were asked for, else 0."""

    seq: int
    payload: bytes
    priority: int = 0
    enqueued_at: int = 0  # milliseconds since 1970
    delivery_count: int = 0  # this delivery included
    lease_expires_at: int = 0

    def text(self) -> str:
        """The payload as UTF-8 text."""
        return self.payload.decode()

    def json(self) -> Any:
        """The value of the JSON text. Raises ValueError."""
        return _decode_json(self.payload)

    def into(self, cls: type[T]) -> T:
        """The JSON text as an object of a dataclass, Struct or other type."""
        return into(cls, self.payload)


class DequeueResult(msgspec.Struct, frozen=True):
    """Messages in the order in which they are due. Empty when there is none."""

    messages: list[Message]

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)


class EnqueueResult(msgspec.Struct, frozen=True, gc=False):
    """`deduplicated`: nothing was stored, `seq` is the message that came with the same key."""

    seq: int
    deduplicated: bool = False


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A message in the dead-letter queue. `attempts` and what follows are told when `details` were asked for."""

    seq: int
    payload: bytes
    priority: int = 0
    attempts: int = 0
    moved_at: int = 0  # milliseconds since 1970
    reason: str = ""  # max_attempts | explicit
    enqueued_at: int = 0

    def text(self) -> str:
        """The payload as UTF-8 text."""
        return self.payload.decode()

    def json(self) -> Any:
        """The value of the JSON text. Raises ValueError."""
        return _decode_json(self.payload)


class DlqListResult(msgspec.Struct, frozen=True):
    """Dead letters, oldest first. `cursor` asks for the next page, "" at the end; told with `details` only."""

    messages: list[DeadLetter]
    has_more: bool = False
    cursor: str = ""

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)


class DlqStats(msgspec.Struct, frozen=True, gc=False):
    """Numbers of a dead-letter queue; `oldest_moved_at` 0: it is empty."""

    count: int
    capacity: int
    evicted: int
    oldest_moved_at: int = 0


class QueueStats(msgspec.Struct, frozen=True):
    """Numbers of a queue. `pending` = delayed + ready (`available`) + leased (`inflight`)."""

    name: str
    namespace: str
    pending: int
    available: int
    enqueued: int  # ever
    dequeued: int  # deliveries ever
    dlq: int  # now
    delayed: int = 0
    inflight: int = 0
    acked: int = 0
    nacked: int = 0
    expired: int = 0  # leases ever
    dlq_moved: int = 0
    dlq_evicted: int = 0
    purged: int = 0
    oldest_ready_ms: int = 0  # age of the oldest ready message, 0: none


class QueueListResult(msgspec.Struct, frozen=True):
    """A page of queues; `cursor` asks for the next one, "" at the end."""

    queues: list[QueueStats]
    has_more: bool = False
    cursor: str = ""

    def __iter__(self) -> Iterator[QueueStats]:
        return iter(self.queues)


# Streams


class StreamAppendResult(msgspec.Struct, frozen=True):
    """The id of the record that was appended."""

    id: StreamID


class StreamAppendManyResult(msgspec.Struct, frozen=True):
    """A batch has one timestamp and consecutive sequences."""

    first_id: StreamID
    last_id: StreamID
    count: int

    @property
    def ids(self) -> list[StreamID]:
        """Of all records, in order."""
        return [StreamID(self.first_id.timestamp_ms, self.first_id.sequence + i) for i in range(self.count)]


class StreamRecord(msgspec.Struct, frozen=True):
    """A record of a stream. Of a header that is there twice the last counts; `raw_headers` has them all."""

    id: StreamID
    stream: str
    payload: bytes
    headers: dict[str, str] = {}
    partition: int = 0
    tier: str = "hot"  # hot | warm | cold
    raw_headers: tuple[tuple[bytes, bytes], ...] = ()
    delivery_count: int = 0  # told by group reads with `details`, else 0
    key: bytes | None = None  # partition key, told with `details`

    @property
    def timestamp_ms(self) -> int:
        """When the record was appended."""
        return self.id.timestamp_ms

    def text(self) -> str:
        """The payload as UTF-8 text."""
        return self.payload.decode()

    def json(self) -> Any:
        """The value of the JSON text. Raises ValueError."""
        return _decode_json(self.payload)

    def into(self, cls: type[T]) -> T:
        """The JSON text as an object of a dataclass, Struct or other type."""
        return into(cls, self.payload)


class StreamReadResult(msgspec.Struct, frozen=True):
    """Records in the order of their ids."""

    records: list[StreamRecord]

    @property
    def next(self) -> StreamID | None:
        """Where the next read starts; None when nothing came."""
        return self.records[-1].id.next() if self.records else None

    def __iter__(self) -> Iterator[StreamRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


class StreamInfo(msgspec.Struct, frozen=True):
    """A stream in numbers. `first` is None when it holds nothing, `last` when nothing was ever appended."""

    first: StreamID | None
    last: StreamID | None
    count: int
    bytes: int
    partitions: int


class PartitionInfo(msgspec.Struct, frozen=True, gc=False):
    """A partition of a stream in numbers."""

    records: int
    bytes: int


class Retention(msgspec.Struct, frozen=True, gc=False):
    """What a stream keeps; 0: no bound."""

    max_age_ms: int = 0
    max_records: int = 0
    max_bytes: int = 0


class StreamDescription(msgspec.Struct, frozen=True):
    """Everything about a stream."""

    name: str
    namespace: str
    first_id: StreamID | None
    last_id: StreamID | None
    records: int
    bytes: int
    retention: Retention
    partitions: list[PartitionInfo]
    groups: list[str] = []


class StreamListResult(msgspec.Struct, frozen=True):
    """A page of streams; `cursor` asks for the next one, "" at the end."""

    streams: list[StreamDescription]
    has_more: bool = False
    cursor: str = ""

    def __iter__(self) -> Iterator[StreamDescription]:
        return iter(self.streams)


class StreamTrimResult(msgspec.Struct, frozen=True, gc=False):
    """How many records went, or would go."""

    trimmed: int


class GroupMember(msgspec.Struct, frozen=True, gc=False):
    """A consumer of a group."""

    consumer: str
    state: str  # active | standby
    joined_at: int
    pending: int = 0


class GroupSettings(msgspec.Struct, frozen=True, gc=False):
    """How a group hands out records; see StreamGroupCreateOptions."""

    mode: str = "shared"
    ack_timeout_ms: int = 30_000
    max_deliver: int = 10
    redeliver_delay_ms: int = 0
    max_standbys: int = 65_535
    slots: int = 256


class GroupInfo(msgspec.Struct, frozen=True):
    """A consumer group. `ack_floor`: everything at or below is acknowledged; `lag`: records not handed out yet."""

    group: str
    stream: str
    settings: GroupSettings
    members: list[GroupMember]
    pending: int
    last_delivered: StreamID | None
    ack_floor: StreamID | None
    lag: int


class PendingEntry(msgspec.Struct, frozen=True):
    """A record that was handed out and waits for its acknowledgement. What follows `consumer` is told when `details`
    were asked for."""

    id: StreamID
    delivery_count: int
    consumer: str
    partition: int = 0
    delivered_at: int = 0
    last_delivery: int = 0
    idle_ms: int = 0
    deadline: int = 0
    state: str = ""  # pending | delayed


class PendingResult(msgspec.Struct, frozen=True):
    """Pending entries; `cursor` asks for the next page, "" at the end; told with `details` only."""

    entries: list[PendingEntry]
    has_more: bool = False
    cursor: str = ""

    def __iter__(self) -> Iterator[PendingEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class StreamClaimResult(msgspec.Struct, frozen=True):
    """Records that were taken over, and where the scan goes on: None when it is finished."""

    records: list[StreamRecord]
    next: StreamID | None

    def __iter__(self) -> Iterator[StreamRecord]:
        return iter(self.records)


class NamespaceInfo(msgspec.Struct, frozen=True, gc=False):
    """A namespace in numbers; queues and streams are counted up to a thousand."""

    name: str
    keys: int
    queues: int
    streams: int


def into(cls: type[T], payload: bytes) -> T:
    """A JSON text as an object of `cls`: a dataclass, a Struct, or what has `model_validate_json` (pydantic). Raises
    ValueError."""
    validate = getattr(cls, "model_validate_json", None)
    if validate is not None:
        made: T = validate(payload)
        return made
    return msgspec.json.decode(payload, type=cls)
