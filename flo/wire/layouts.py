"""What the layouts of requests and replies are made of: lengths, texts, counts.

`str16` and `str32` are a length of that width and its bytes. Requests are read strictly: what is left over is
an error. Replies are read tolerantly: bytes that a newer server adds at the end are not looked at.
"""

from __future__ import annotations

import struct
from typing import Final

_u16 = struct.Struct("<H")
_u32 = struct.Struct("<I")
_u64 = struct.Struct("<Q")
_i64 = struct.Struct("<q")

SHORT_BYTES: Final = 65_535


class LayoutError(ValueError):
    """A request's value or a reply's body is not laid out as its operation says."""


class Reader:
    """Reads a body field by field. Every read raises LayoutError when the body ends before it."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position

    def take(self, size: int) -> bytes:
        start = self.position
        end = start + size
        if end > len(self.data):
            raise LayoutError(f"{size} bytes expected at {start}, but only {len(self.data) - start} are there")
        self.position = end
        return self.data[start:end]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def i64(self) -> int:
        return int.from_bytes(self.take(8), "little", signed=True)

    def str16(self) -> bytes:
        return self.take(self.u16())

    def str32(self) -> bytes:
        return self.take(self.u32())

    def text16(self) -> str:
        return text(self.str16())

    def count(self, item_bytes: int) -> int:
        """A count u32 of items of at least so many bytes each: no count is believed that cannot be true."""
        count = self.u32()
        if count * item_bytes > len(self.data) - self.position:
            raise LayoutError(f"{count} entries announced, but only {len(self.data) - self.position} bytes follow")
        return count

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.position)

    @property
    def ended(self) -> bool:
        return self.position == len(self.data)

    def done(self) -> None:
        """Ends a request: nothing may be left over."""
        if self.position != len(self.data):
            raise LayoutError(f"{len(self.data) - self.position} bytes too many")


def text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise LayoutError("a text that is not UTF-8") from None


def u16(number: int) -> bytes:
    return _u16.pack(number)


def u32(number: int) -> bytes:
    return _u32.pack(number)


def u64(number: int) -> bytes:
    return _u64.pack(number)


def i64(number: int) -> bytes:
    return _i64.pack(number)


def str16(data: bytes) -> bytes:
    if len(data) > SHORT_BYTES:
        raise LayoutError(f"{len(data)} bytes are over the limit of {SHORT_BYTES}")
    return _u16.pack(len(data)) + data


def str32(data: bytes) -> bytes:
    return _u32.pack(len(data)) + data


def text16(value: str) -> bytes:
    return str16(value.encode())


def encode_paging(limit: int, cursor: str) -> bytes:
    """The value of a list request: `limit u32, cursor rest`; a limit of 0 is the server's default."""
    return _u32.pack(limit) + cursor.encode()


def decode_paging(value: bytes) -> tuple[int, str]:
    """(limit, cursor); an empty value asks for the first page of the default length."""
    if not value:
        return 0, ""
    reader = Reader(value)
    return reader.u32(), reader.rest().decode("utf-8", "replace")  # a cursor that is not ours is refused as such
