"""Options of a request: a list of `tag u8, length u8, data`, in any order.

A flag has no data and holds by being there. Unknown tags are skipped, a truncated last entry ends the list, and
an integer is read in whichever of 1, 2, 4 or 8 bytes it comes.
"""

from __future__ import annotations

import struct
from typing import Final

OPTION_BYTES: Final = 255
OPTIONS_BYTES: Final = 65_535

TTL_SECONDS: Final = 0x01  # u64
CAS_VERSION: Final = 0x02  # u64: of put; the if-match of delete, touch and persist
IF_NOT_EXISTS: Final = 0x03  # flag
IF_EXISTS: Final = 0x04  # flag
LIMIT: Final = 0x05  # u32
KEYS_ONLY: Final = 0x06  # u8
ROUTING_KEY: Final = 0x08  # text
TRANSACTION: Final = 0x09  # u64
PRIORITY: Final = 0x10  # u8
DELAY_MS: Final = 0x11  # u64
VISIBILITY_MS: Final = 0x12  # u32
DEDUP_KEY: Final = 0x13  # bytes
COUNT: Final = 0x15  # u32
SEND_TO_DLQ: Final = 0x16  # u8
BLOCK_MS: Final = 0x17  # u32; of kv_get: until the key exists
WAIT_MS: Final = 0x18  # u32; of kv_get: until the key's next version
STREAM_START: Final = 0x21  # StreamID
STREAM_END: Final = 0x22  # StreamID
STREAM_TAIL: Final = 0x23  # flag
PARTITION: Final = 0x24  # u32
PARTITION_KEY: Final = 0x25  # bytes
DRY_RUN: Final = 0x28  # flag
MAX_COUNT: Final = 0x29  # u64
MAX_AGE_SECONDS: Final = 0x2A  # u64
MAX_BYTES: Final = 0x2B  # u64
FORCE: Final = 0x2C  # flag
ACK_TIMEOUT_MS: Final = 0x30  # u32
MAX_DELIVER: Final = 0x31  # u8
SUBSCRIPTION_MODE: Final = 0x32  # u8: 0 shared, 1 exclusive, 2 key-shared
REDELIVERY_DELAY_MS: Final = 0x33  # u32
NO_ACK: Final = 0x35  # flag
EXTEND_ACK_MS: Final = 0x38  # u32
MAX_STANDBYS: Final = 0x39  # u16
SLOTS: Final = 0x3A  # u16
EXTEND_MS: Final = 0x41  # u32

_stream_id = struct.Struct(">QQ")  # the one place where the protocol is big-endian
_widths = frozenset((1, 2, 4, 8))


class OptionError(ValueError):
    """An option whose data cannot be what its tag says."""


def decode_options(data: bytes, position: int, end: int) -> dict[int, bytes]:
    """The options between two positions; of a tag given twice the last counts."""
    options: dict[int, bytes] = {}
    while position + 2 <= end:
        start = position + 2
        following = start + data[position + 1]
        if following > end:
            break
        options[data[position]] = data[start:following]
        position = following
    return options


def encode_options(options: dict[int, bytes]) -> bytes:
    """Raises OptionError for data that the lengths cannot say."""
    parts: list[bytes] = []
    for tag, data in options.items():
        if len(data) > OPTION_BYTES:
            raise OptionError(f"option 0x{tag:02x} has {len(data)} bytes, over the limit of {OPTION_BYTES}")
        parts.append(bytes((tag, len(data))))
        parts.append(data)
    encoded = b"".join(parts)
    if len(encoded) > OPTIONS_BYTES:
        raise OptionError(f"the options have {len(encoded)} bytes, over the limit of {OPTIONS_BYTES}")
    return encoded


def integer(options: dict[int, bytes], tag: int, default: int) -> int:
    """An unsigned integer of any width. Raises OptionError."""
    data = options.get(tag)
    if data is None:
        return default
    if len(data) not in _widths:
        raise OptionError(f"option 0x{tag:02x} must be an integer of 1, 2, 4 or 8 bytes, not of {len(data)}")
    return int.from_bytes(data, "little")


def optional_integer(options: dict[int, bytes], tag: int) -> int | None:
    """As `integer`, None if the tag is absent."""
    return integer(options, tag, 0) if tag in options else None


def flag(options: dict[int, bytes], tag: int) -> bool:
    """Whether the flag holds: it is there, and not there as an integer 0."""
    data = options.get(tag)
    return data is not None and (not data or any(data))


def text(options: dict[int, bytes], tag: int) -> str:
    """A text, "" if the tag is absent. Raises OptionError for what is no UTF-8."""
    try:
        return options.get(tag, b"").decode()
    except UnicodeDecodeError:
        raise OptionError(f"option 0x{tag:02x} is not UTF-8") from None


def stream_id(options: dict[int, bytes], tag: int) -> tuple[int, int] | None:
    """(milliseconds, sequence). Raises OptionError."""
    data = options.get(tag)
    if data is None:
        return None
    if len(data) != 16:
        raise OptionError(f"option 0x{tag:02x} must be a stream id of 16 bytes, not of {len(data)}")
    milliseconds, sequence = _stream_id.unpack(data)
    return milliseconds, sequence


def encode_stream_id(stream_id: tuple[int, int]) -> bytes:
    return _stream_id.pack(*stream_id)


def u8(number: int) -> bytes:
    return number.to_bytes(1, "little")


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def u64(number: int) -> bytes:
    return number.to_bytes(8, "little")
