"""A version of a key as one byte string.

A million keys are a million of these and nothing else: no object per field, nothing for the garbage
collector to visit, and a snapshot takes and gives them as they are. The layout, little-endian, is

    flags u8 | version u64 | written_at u64 (ms) | expires_at u64 (ms, 0: never) | body

where the body is the value, a counter's i64, or nothing for a tombstone.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias

from flo.primitives.kv_pages import Entry, Row, Version

if TYPE_CHECKING:
    from mypy_extensions import i64  # a machine word where this is compiled

Packed: TypeAlias = bytes

COUNTER: Final = 1
TOMBSTONE: Final = 2
EXPIRES: Final = 4  # so that flags below TOMBSTONE mean: alive, whatever the time
HEADER_BYTES: Final = 25
REAP_AFTER_MS: Final = 600_000  # a deleted or expired key keeps its history for so long

COMPILED: Final = not __file__.endswith(".py")
_FRONTS: Final = [bytes([0, low]) for low in range(256)]  # flags of a string, the low byte of its version
_NEVER: Final = bytes(8)

_header = Struct("<BQQQ")
_counter = Struct("<BQQQq")
unpack_header = _header.unpack_from
pack_header = _header.pack
pack_counter = _counter.pack
unpack_counter = _counter.unpack


def stamp(now: int, version: int) -> bytes:
    """The header of a string that is written now and never expires, but for its first two bytes: the same for 256
    versions."""
    return (version >> 8).to_bytes(7, "little") + now.to_bytes(8, "little") + _NEVER


def stamped(version: int, stamp: bytes, value: bytes) -> Packed:
    return b"%b%b%b" % (_FRONTS[version & 255], stamp, value)


def _u64(packed: Packed, at: i64) -> i64:
    """For compiled code, which reads bytes without making objects of them."""
    number: i64 = packed[at + 7]
    byte: i64 = packed[at + 6]
    number = number << 8 | byte
    byte = packed[at + 5]
    number = number << 8 | byte
    byte = packed[at + 4]
    number = number << 8 | byte
    byte = packed[at + 3]
    number = number << 8 | byte
    byte = packed[at + 2]
    number = number << 8 | byte
    byte = packed[at + 1]
    number = number << 8 | byte
    byte = packed[at]
    return number << 8 | byte


def is_alive(packed: Packed, now: int) -> bool:
    flags: int = packed[0]
    if flags < TOMBSTONE:
        return True
    return not flags & TOMBSTONE and now < expiry(packed)


def expiry(packed: Packed) -> int:
    return _u64(packed, 17) if COMPILED else int.from_bytes(packed[17:25], "little")


def version_of(packed: Packed) -> int:
    return _u64(packed, 1) if COMPILED else int.from_bytes(packed[1:9], "little")


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
    if COMPILED and packed[0] == 0:
        return Entry(packed[HEADER_BYTES:], _u64(packed, 1), "string", 0, _u64(packed, 9))
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


def as_row(key: bytes, packed: Packed, keys_only: bool) -> Row:
    value = shown(packed)
    return Row(key, b"" if keys_only else value, version_of(packed), len(value))
