"""Bodies of the operations on streams and consumer groups."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from flo.primitives.stream_pages import GroupInfo, Headers, NewRecord, Pending, Record, StreamId, StreamInfo, StreamList
from flo.primitives.stream_rules import BATCH_RECORDS, PAYLOAD_BYTES
from flo.wire.layouts import LayoutError, Reader, str16, str32, text16, u32

NO_RECORDS: Final = bytes(4)
NO_MORE: Final = (2**64 - 1, 2**64 - 1)  # the cursor of a claim that is finished
NO_CLAIM: Final = NO_RECORDS + b"\xff" * 16
HOT: Final = 0
NOT_HOT: Final = 1  # clients know more tiers, but not the same ones
TIERS: Final = ("hot", "warm", "warm", "cold")
MODES: Final = ("shared", "exclusive", "key_shared")

_id = struct.Struct("<QQ")
_record = struct.Struct("<QqBI")
_appended = struct.Struct("<Qq")
_info = struct.Struct("<6QI")
_trimmed = struct.Struct("<QQ")
_pending = struct.Struct("<QQI")
_claim = struct.Struct("<IQQI")
_group_info = struct.Struct("<QIQ")


class Range(msgspec.Struct, frozen=True):
    """What the reply to `info` says of a stream; ids are (0, 0) when there is none."""

    first: StreamId
    last: StreamId
    count: int
    bytes: int
    partitions: int


class Held(msgspec.Struct, frozen=True):
    """What the reply to `group_pending` says of a record that waits for its ack."""

    id: StreamId
    delivery_count: int
    consumer: str


# Append


def encode_batch(records: Sequence[NewRecord]) -> bytes:
    """`count u32, {payload str32, header_count u16, {name str16, value str16}*}*`."""
    parts = [u32(len(records))]
    for record in records:
        parts.append(str32(record.payload))
        parts.append(len(record.headers).to_bytes(2, "little"))
        for name, value in record.headers:
            parts.append(str16(name))
            parts.append(str16(value))
    return b"".join(parts)


def decode_batch(value: bytes) -> list[NewRecord] | None:
    """The records if the value is exactly a batch, else None: then it is one raw record. Raises LayoutError for a
    batch over the limit."""
    end = len(value)
    if end < 10:
        return None
    count = int.from_bytes(value[:4], "little")
    if count == 0 or count * 6 + 4 > end:
        return None
    position = 4
    records: list[NewRecord] = []
    # A value that is too long for one raw record is refused anyway: how many entries it has need not be counted.
    walked = count if count <= BATCH_RECORDS or end <= PAYLOAD_BYTES else BATCH_RECORDS
    for _ in range(walked):
        start = position + 4
        position = start + int.from_bytes(value[position:start], "little")
        after = position + 2
        if after > end:
            return None
        headers: Headers = ()
        header_count = int.from_bytes(value[position:after], "little")
        payload = value[start:position]
        position = after
        if header_count:
            pairs: list[tuple[bytes, bytes]] = []
            for _ in range(header_count):
                name_at = position + 2
                text_at = name_at + 2 + int.from_bytes(value[position:name_at], "little")
                position = text_at + int.from_bytes(value[text_at - 2 : text_at], "little")
                if position > end:
                    return None
                pairs.append((value[name_at : text_at - 2], value[text_at:position]))
            headers = tuple(pairs)
        if len(records) < BATCH_RECORDS:
            records.append(NewRecord(payload, headers))
    if position != end and walked == count:
        return None
    if count > BATCH_RECORDS:
        raise LayoutError(f"a batch of {count} records is over the limit of {BATCH_RECORDS}")
    return records


def encode_appended(first: StreamId) -> bytes:
    return _appended.pack(first[1], first[0])


def decode_appended(body: bytes) -> StreamId:
    reader = Reader(body)
    sequence = reader.u64()
    return reader.u64(), sequence


# Read


def encode_records(stream: str, records: Sequence[Record]) -> bytes:
    """A list of records; where others have a key, the stream's name stands."""
    if not records:
        return NO_RECORDS
    key = b"\1" + str32(stream.encode())
    parts = [u32(len(records))]
    for record in records:
        parts.append(_record.pack(record.seq, record.ms, HOT if record.tier == "hot" else NOT_HOT, record.partition))
        parts.append(key)
        parts.append(str32(record.payload))
        headers = record.headers
        parts.append(u32(len(headers)))
        for name, value in headers:
            parts.append(str32(name))
            parts.append(str32(value))
    return b"".join(parts)


def _read_records(reader: Reader) -> list[tuple[str, Record]]:
    records = []
    for _ in range(reader.count(30)):
        sequence = reader.u64()
        milliseconds = reader.i64()
        tier = reader.u8()
        partition = reader.u32()
        stream = reader.str32().decode("utf-8", "replace") if reader.u8() else ""
        payload = reader.str32()
        headers = tuple((reader.str32(), reader.str32()) for _ in range(reader.count(8)))
        kept = TIERS[tier] if tier < len(TIERS) else "cold"
        records.append((stream, Record(milliseconds, sequence, partition, None, payload, headers, kept)))
    return records


def decode_records(body: bytes) -> list[tuple[str, Record]]:
    """Records with their stream's name; an empty body holds none."""
    return _read_records(Reader(body)) if body else []


def encode_info(info: StreamInfo | None) -> bytes:
    """Zeros and one partition for a stream that does not exist."""
    if info is None:
        return _info.pack(0, 0, 0, 0, 0, 0, 1)
    first = info.first or (0, 0)
    last = info.last or (0, 0)
    return _info.pack(*first, *last, info.records, info.bytes, len(info.partitions))


def decode_info(body: bytes) -> Range:
    reader = Reader(body)
    first = (reader.u64(), reader.u64())
    last = (reader.u64(), reader.u64())
    return Range(first, last, reader.u64(), reader.u64(), reader.u32())


def encode_trimmed(count: int, first: StreamId | None) -> bytes:
    return _trimmed.pack(count, first[1] if first else 0)


def decode_trimmed(body: bytes) -> int:
    """How many records went."""
    return Reader(body).u64()


def encode_stream_list(page: StreamList) -> bytes:
    """`count u32, {name str32, partitions u32}*, has_more u8, cursor str16`."""
    parts = [u32(len(page.streams))]
    for stream in page.streams:
        parts.append(str32(stream.name.encode()))
        parts.append(u32(len(stream.partitions)))
    parts.append(b"\1" if page.has_more else b"\0")
    parts.append(text16(page.cursor))
    return b"".join(parts)


# Consumer groups


def encode_member(group: str, consumer: str) -> bytes:
    return text16(group) + text16(consumer)


def decode_member(value: bytes) -> tuple[str, str]:
    """(group, consumer)."""
    reader = Reader(value)
    member = reader.text16(), reader.text16()
    reader.done()
    return member


def encode_ids(group: str, consumer: str, ids: Sequence[StreamId]) -> bytes:
    return encode_member(group, consumer) + u32(len(ids)) + b"".join(_id.pack(*id) for id in ids)


def decode_ids(value: bytes) -> tuple[str, str, list[StreamId]]:
    """(group, consumer, ids); the consumer may be empty."""
    reader = Reader(value)
    group = reader.text16()
    consumer = reader.text16()
    ids = [(reader.u64(), reader.u64()) for _ in range(reader.count(16))]
    reader.done()
    return group, consumer, ids


def encode_group(group: str, consumer: str = "") -> bytes:
    return text16(group) + (text16(consumer) if consumer else b"")


def decode_group(value: bytes) -> tuple[str, str]:
    """(group, consumer or "")."""
    reader = Reader(value)
    group = reader.text16()
    consumer = "" if reader.ended else reader.text16()
    reader.done()
    return group, consumer


def encode_pending(entries: Sequence[Pending]) -> bytes:
    parts = [u32(len(entries))]
    for entry in entries:
        parts.append(_pending.pack(entry.ms, entry.seq, entry.delivery_count))
        parts.append(text16(entry.consumer))
    return b"".join(parts)


def decode_pending(body: bytes) -> list[Held]:
    reader = Reader(body)
    if not body:
        return []
    return [Held((reader.u64(), reader.u64()), reader.u32(), reader.text16()) for _ in range(reader.count(22))]


def encode_claim(group: str, consumer: str, min_idle_ms: int, start: StreamId, count: int) -> bytes:
    return encode_member(group, consumer) + _claim.pack(min_idle_ms, start[0], start[1], count)


def decode_claim(value: bytes) -> tuple[str, str, int, StreamId, int]:
    """(group, consumer, min_idle_ms, start, count)."""
    reader = Reader(value)
    group = reader.text16()
    consumer = reader.text16()
    min_idle_ms = reader.u32()
    start = (reader.u64(), reader.u64())
    count = reader.u32()
    reader.done()
    return group, consumer, min_idle_ms, start, count


def encode_claimed(stream: str, records: Sequence[Record], following: StreamId | None) -> bytes:
    return encode_records(stream, records) + _id.pack(*(following or NO_MORE))


def decode_claimed(body: bytes) -> tuple[list[tuple[str, Record]], StreamId | None]:
    """Records with their stream's name, and where the scan goes on: None when it is finished."""
    reader = Reader(body)
    records = _read_records(reader)
    following = (reader.u64(), reader.u64())
    return records, None if following == NO_MORE else following


def encode_group_info(info: GroupInfo) -> bytes:
    """`pending u64, members u32, created_at_ns u64`; when the group was made is not kept."""
    return _group_info.pack(info.pending, len(info.members), 0)
