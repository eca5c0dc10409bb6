"""A version of a key as one byte string.

A million keys are a million of these and nothing else: no object per field, nothing for the garbage
collector to visit, and a snapshot takes and gives them as they are. The layout, little-endian, is

    flags u8 | version u64 | written_at u64 (ms) | expires_at u64 (ms, 0: never) | body

where the body is the value, a counter's i64, or nothing for a tombstone.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, TypeAlias

from flo.primitives.kv_pages import Entry, Version

Packed: TypeAlias = bytes

COUNTER: Final = 1
TOMBSTONE: Final = 2
EXPIRES: Final = 4  # so that flags below TOMBSTONE mean: alive, whatever the time
HEADER_BYTES: Final = 25
REAP_AFTER_MS: Final = 600_000  # a deleted or expired key keeps its history for so long

_header = Struct("<BQQQ")
_counter = Struct("<BQQQq")
unpack_header = _header.unpack_from
pack_header = _header.pack
pack_counter = _counter.pack
unpack_counter = _counter.unpack


def is_alive(packed: Packed, now: int) -> bool:
    flags: int = packed[0]
    if flags < TOMBSTONE:
        return True
    return not flags & TOMBSTONE and now < expiry(packed)


def expiry(packed: Packed) -> int:
    return int.from_bytes(packed[17:25], "little")


def version_of(packed: Packed) -> int:
    return int.from_bytes(packed[1:9], "little")


def reap_at(packed: Packed) -> int:
    """When the key may go with its history, if nothing more happens to it; 0 for never."""
    if packed[0] < TOMBSTONE:
        return 0
    flags, _, written_at, expires_at = unpack_header(packed)
    instant: int = written_at if flags & TOMBSTONE else expires_at
    return instant + REAP_AFTER_MS


def shown(packed: Packed) -> bytes:
    """The value as every reader sees it."""
    if packed[0] & COUNTER:
        return b"%d" % unpack_counter(packed)[4]
    return packed[HEADER_BYTES:]


def shown_size(packed: Packed) -> int:
    return len(shown(packed)) if packed[0] & COUNTER else len(packed) - HEADER_BYTES


def with_expiry(packed: Packed, expires_at: int) -> Packed:
    flags, version, written_at, _ = unpack_header(packed)
    flags = flags | EXPIRES if expires_at else flags & ~EXPIRES
    return pack_header(flags, version, written_at, expires_at) + packed[HEADER_BYTES:]


def as_entry(packed: Packed) -> Entry:
    flags, version, written_at, expires_at = unpack_header(packed)
    if flags & COUNTER:
        return Entry(b"%d" % unpack_counter(packed)[4], version, "counter", expires_at, written_at)
    return Entry(packed[HEADER_BYTES:], version, "string", expires_at, written_at)


def as_version(packed: Packed) -> Version:
    flags, version, written_at, _ = unpack_header(packed)
    if flags & TOMBSTONE:
        return Version(version, written_at, 0, True, None)
    value = shown(packed)
    return Version(version, written_at, len(value), False, value)
