"""The events of the stream machine (KIND 300–319). Ids are (ms, seq) in epoch ms.

The events that carry payloads are tagged: whoever reads a record's payload from the log later has the event's bytes
only, and tells by the tag what they are.
"""

from __future__ import annotations

from flo.primitives.machine import Event
from flo.primitives.stream_pages import Headers, NewRecord, Retention


class StreamAppended(Event, frozen=True, tag=0):
    """One batch in one partition; its ids are (ms, first_seq), (ms, first_seq + 1), … Creates the stream."""

    KIND = 300
    ns: str
    stream: str
    ms: int
    first_seq: int
    partition: int
    key: bytes | None
    records: tuple[NewRecord, ...]


class StreamCopied(Event, frozen=True, tag=1):
    """A record with the payload, the headers and the partition key of another, and headers of its own behind them.
    Creates the stream."""

    KIND = 301
    ns: str
    stream: str
    ms: int
    seq: int
    partition: int
    sources: tuple[int, ...]  # log indexes of the event copied, and of those that this one was copied from in its turn
    source_place: int  # in the first of them
    size: int  # bytes of payload and headers, those added here included
    key_hash: int  # 0: no partition key
    headers: Headers  # added by this copy


class StreamCreated(Event, frozen=True):
    KIND = 302
    ns: str
    stream: str
    partitions: int
    retention: Retention


class StreamAltered(Event, frozen=True):
    KIND = 303
    ns: str
    stream: str
    retention: Retention


class StreamTrimmed(Event, frozen=True):
    """Everything before the first record that stays is gone."""

    KIND = 304
    ns: str
    stream: str
    first_ordinal: int
    ms: int  # id of the record with that ordinal; 0-0: none is left
    seq: int


class StreamDeleted(Event, frozen=True):
    """The stream with its records and groups; new streams of the namespace get greater ids than it had."""

    KIND = 305
    ns: str
    stream: str
