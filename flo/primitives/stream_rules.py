"""What names, ids, records and bounds of streams must satisfy, with the refusals of the specification."""

from __future__ import annotations

import re
from binascii import crc32
from collections.abc import Sequence
from typing import Final

from flo.primitives.machine import Refused
from flo.primitives.stream_pages import NewRecord, Retention, StreamId

ADDRESS_BYTES: Final = 4_096  # namespace, a separator and name
PARTITIONS: Final = 1_024
BATCH_RECORDS: Final = 1_000
BATCH_BYTES: Final = 16 * 1024 * 1024  # of payloads and headers in one append
PAYLOAD_BYTES: Final = 262_144
HEADERS: Final = 64
HEADERS_BYTES: Final = 8_192  # of a record: names and values
KEY_BYTES: Final = 4_096  # of a partition key
READ_LIMIT_DEFAULT: Final = 100
READ_LIMIT: Final = 1_000
LIST_LIMIT_DEFAULT: Final = 100
LIST_LIMIT: Final = 1_000
PAGE_BYTES: Final = 1_048_576  # of payloads and headers in one reply
PART_MAX: Final = 2**64 - 1  # of either part of an id, and of a bound
BEGINNING: Final[StreamId] = (0, 0)

_id_text = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")


def check_stream_name(ns: str, name: str) -> None:
    if not name:
        raise Refused("bad_argument", "stream name is required")
    if "\0" in name:
        raise Refused("bad_argument", "stream name must not contain NUL")
    if "*" in name:
        raise Refused("bad_argument", "stream name must not contain '*'")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise Refused("bad_argument", "stream name must be text in UTF-8") from None
    if len(ns) + 1 + size > ADDRESS_BYTES:
        raise Refused(
            "bad_argument", f"stream name too long: namespace, separator and name must fit {ADDRESS_BYTES} bytes"
        )


def is_internal(name: str) -> bool:
    return name.startswith("_")


def format_id(id: StreamId) -> str:
    return f"{id[0]}-{id[1]}"


def parse_start(text: str) -> StreamId | None:
    """The id where a read begins; `123` is `123-0`. None for `$`: the tail as it is when the request is accepted."""
    if text == "$":
        return None
    ms, seq = _parts(text)
    return ms, 0 if seq is None else seq


def parse_end(text: str) -> StreamId:
    """The last id of a read; `123` means every record of that millisecond."""
    ms, seq = _parts(text)
    return ms, PART_MAX if seq is None else seq


def parse_id(text: str) -> StreamId:
    """One record's id, or a cursor; `123` is `123-0`."""
    ms, seq = _parts(text)
    return ms, 0 if seq is None else seq


def key_hash(key: bytes) -> int:
    """The hash that places a partition key, which is never 0: CRC-32 as in zlib, and 1 in the place of 0. It is part of
    the format of the log and of snapshots."""
    return crc32(key) or 1


def partition_for(partitions: int, partition: int | None, key: bytes | None) -> int:
    """Where an append goes. No key, or an empty one, and no partition: 0."""
    if partition is not None:
        if key:
            raise Refused("bad_argument", "partition and partition key cannot be combined")
        if not 0 <= partition < partitions:
            raise Refused("bad_argument", "partition out of range")
        return partition
    if not key:
        return 0
    if len(key) > KEY_BYTES:
        raise Refused("bad_argument", f"partition key too large (max {KEY_BYTES} bytes)")
    return key_hash(key) % partitions if partitions > 1 else 0


def check_records(records: Sequence[NewRecord]) -> None:
    count = len(records)
    if count > BATCH_RECORDS:
        raise Refused("bad_argument", f"a batch of {count} records is over the limit of {BATCH_RECORDS}")
    if not count:
        raise Refused("bad_argument", "a batch needs at least one record")
    total = 0
    for record in records:
        size = len(record.payload)
        if size > PAYLOAD_BYTES:
            raise Refused("too_large", "record too large")
        total += size
        if record.headers:
            total += _headers_size(record)
    if total > BATCH_BYTES:
        raise Refused("too_large", f"a batch of {total} bytes is over the limit of {BATCH_BYTES}")


def record_size(record: NewRecord) -> int:
    """Bytes of payload and headers."""
    size = len(record.payload)
    for name, value in record.headers:
        size += len(name) + len(value)
    return size


def check_partitions(partitions: int) -> None:
    if not 1 <= partitions <= PARTITIONS:
        raise Refused("bad_argument", f"partitions must be 1 to {PARTITIONS}")


def check_retention(retention: Retention) -> None:
    _check_bound("retention", retention.max_age_ms)
    _check_bound("max_records", retention.max_records)
    _check_bound("max_bytes", retention.max_bytes)


def page_limit(limit: int, most: int) -> int:
    """How many of what was asked for a page may hold."""
    if limit <= 0:
        raise Refused("bad_argument", "limit must be at least 1")
    return min(limit, most)


def _headers_size(record: NewRecord) -> int:
    count = len(record.headers)
    if count > HEADERS:
        raise Refused("bad_argument", f"a record with {count} headers is over the limit of {HEADERS}")
    size = record_size(record) - len(record.payload)
    if size > HEADERS_BYTES:
        raise Refused("too_large", f"headers of {size} bytes are over the limit of {HEADERS_BYTES}")
    return size


def _check_bound(name: str, value: int) -> None:
    if not 0 <= value <= PART_MAX:
        raise Refused("bad_argument", f"{name} must be 0 (none) or more")


def _parts(text: str) -> tuple[int, int | None]:
    match = _id_text.fullmatch(text)
    if match is not None:
        ms = int(match[1])
        seq = None if match[2] is None else int(match[2])
        if ms <= PART_MAX and (seq is None or seq <= PART_MAX):
            return ms, seq
    raise Refused("bad_argument", "invalid stream id")
