"""Bodies of the operations on keys and values."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from flo.primitives.kv_pages import Found, Many, Page, Row, Version
from flo.wire.layouts import LayoutError, Reader, i64, str16, str32, text16, u16, u32

_u64 = struct.Struct("<Q")
_i64 = struct.Struct("<q")
_counted = struct.Struct("<Qq")
_begun = struct.Struct("<BQQ")
_committed = struct.Struct("<BQH")
_history = struct.Struct("<QqI")
_found_tail = struct.Struct("<QI")
_exists = struct.Struct("<QB")

FOUND: Final = 0
MISSING: Final = 2
NO_PAGE: Final = bytes(9)

encode_version = _u64.pack


def decode_version(body: bytes) -> int:
    """The version, 0 of an empty body: inside a transaction there is none yet."""
    return Reader(body).u64() if body else 0


def encode_value(version: int, value: bytes) -> bytes:
    return _u64.pack(version) + value


def decode_value(body: bytes) -> tuple[int, bytes]:
    """(version, value)."""
    reader = Reader(body)
    return reader.u64(), reader.rest()


def encode_keys(keys: Sequence[bytes]) -> bytes:
    return u16(len(keys)) + b"".join(map(str16, keys))


def decode_keys(value: bytes) -> list[bytes]:
    reader = Reader(value)
    keys = [reader.str16() for _ in range(reader.u16())]
    reader.done()
    return keys


def encode_many(many: Many) -> bytes:
    parts = [u32(len(many.entries))]
    for entry in many.entries:
        parts.append(b"\0" if entry.found else b"\2")
        parts.append(str16(entry.key))
        parts.append(_found_tail.pack(entry.version, len(entry.value)))
        parts.append(entry.value)
    return b"".join(parts)


def decode_many(body: bytes) -> list[Found]:
    """In the order asked for; fewer than asked for when the reply was cut at its limit."""
    reader = Reader(body)
    entries = []
    for _ in range(reader.count(15)):
        status = reader.u8()
        key = reader.str16()
        entries.append(Found(key, status == FOUND, reader.u64(), reader.str32()))
    return entries


def encode_page(page: Page) -> bytes:
    """Scan page A: `has_more u8, cursor str32, count u32, {key str16, value str32}*`."""
    parts = [b"\1" if page.has_more else b"\0", str32(page.cursor.encode()), u32(len(page.rows))]
    for row in page.rows:
        parts.append(str16(row.key))
        parts.append(str32(row.value))
    return b"".join(parts)


def decode_page(body: bytes) -> Page:
    """Rows without version and size, which this layout does not carry."""
    reader = Reader(body)
    has_more = reader.u8() != 0
    cursor = reader.str32().decode("utf-8", "replace")
    rows = []
    for _ in range(reader.count(6)):
        key = reader.str16()
        value = reader.str32()
        rows.append(Row(key, value, 0, len(value)))
    return Page(rows, has_more, cursor)


def encode_history(versions: Sequence[Version]) -> bytes:
    parts = [u32(len(versions))]
    for version in versions:
        value = version.value or b""
        parts.append(_history.pack(version.version, version.timestamp_ms, len(value)))
        parts.append(value)
    return b"".join(parts)


def decode_history(body: bytes) -> list[Version]:
    """This layout shows a tombstone as an empty value."""
    reader = Reader(body)
    versions = []
    for _ in range(reader.count(20)):
        number = reader.u64()
        timestamp_ms = reader.i64()
        value = reader.str32()
        versions.append(Version(number, timestamp_ms, len(value), False, value))
    return versions


def encode_delta(delta: int) -> bytes:
    return b"" if delta == 1 else i64(delta)


def decode_delta(value: bytes) -> int:
    """+1 of an empty value."""
    if not value:
        return 1
    if len(value) != 8:
        raise LayoutError(f"a delta has 8 bytes, not {len(value)}")
    return int.from_bytes(value, "little", signed=True)


encode_counted = _counted.pack
encode_counter = _i64.pack


def decode_counted(body: bytes, in_transaction: bool) -> int:
    """The counter; inside a transaction no version stands before it."""
    reader = Reader(body)
    if not in_transaction:
        reader.u64()
    return reader.i64()


def encode_exists(version: int, exists: bool) -> bytes:
    return _exists.pack(version, exists)


def decode_exists(body: bytes) -> bool:
    reader = Reader(body)
    reader.u64()
    return reader.u8() != 0


def decode_ttl_seconds(value: bytes) -> int:
    if len(value) != 8:
        raise LayoutError(f"a ttl has 8 bytes, not {len(value)}")
    return int.from_bytes(value, "little")


def encode_json_set(path: str, json: bytes) -> bytes:
    return text16(path) + json


def decode_json_set(value: bytes) -> tuple[str, bytes]:
    """(path, JSON text)."""
    reader = Reader(value)
    return reader.text16(), reader.rest()


def encode_begun(txn: int, pinned_hash: int) -> bytes:
    return _begun.pack(0, txn, pinned_hash)


def decode_begun(body: bytes) -> tuple[int, int]:
    """(transaction, hash of its routing key)."""
    reader = Reader(body)
    if reader.u8() != 0:
        raise LayoutError("the reply to begin does not start with 0")
    return reader.u64(), reader.u64()


def encode_committed(commit_index: int, op_count: int) -> bytes:
    return _committed.pack(1, commit_index, op_count)


def decode_committed(body: bytes) -> tuple[int, int]:
    """(commit index, operations)."""
    reader = Reader(body)
    if reader.u8() != 1:
        raise LayoutError("the reply to commit does not start with 1")
    return reader.u64(), reader.u16()
