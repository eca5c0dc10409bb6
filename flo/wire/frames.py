"""Frames of the binary protocol in both directions (dialect D2): headers, checksums, sections, scanners.

A frame is a header of 32 bytes and a payload; all integers are little-endian.

    request  magic, u32 payload bytes, u64 request id, u32 CRC, u16 opcode, u8 version, u8 0, 8 bytes 0
    reply    magic, u32 payload bytes, u64 request id, u32 CRC, u8 version, u8 status, 2 bytes 0, 8 bytes 0

The payload of a request is `u16 namespace, u16 key, u32 value, u16 options`, each a length and its bytes; that
of a reply is its body. The CRC is CRC-32 of the header without the CRC, then of the payload.
"""

from __future__ import annotations

import struct
from typing import Final, Literal, TypeAlias
from zlib import crc32

import msgspec

from flo.wire.tlv import decode_options, encode_options

MAGIC: Final = b"FLO\0"
VERSION: Final = 1
HEADER_BYTES: Final = 32
REQUEST_PAYLOAD_BYTES: Final = 17 * 1024 * 1024  # above it a request is refused and its connection closed
REPLY_PAYLOAD_BYTES: Final = 64 * 1024 * 1024
NAMESPACE_BYTES: Final = 255
KEY_BYTES: Final = 65_535  # what a u16 length can say
VALUE_BYTES: Final = 16 * 1024 * 1024
DEFAULT_NAMESPACE: Final = "default"

FrameErrorKind: TypeAlias = Literal["magic", "version", "checksum", "reserved", "too_large", "truncated"]


class FrameError(Exception):
    """Bytes that are no frame: their connection cannot go on."""

    def __init__(self, kind: FrameErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Request(msgspec.Struct, gc=False):
    """An operation asked for. `options` maps tags to their raw bytes: read-only, it may be shared."""

    opcode: int
    request_id: int
    ns: str
    key: bytes
    value: bytes
    options: dict[int, bytes]


class Reply(msgspec.Struct, gc=False):
    """The answer to the request of the same id; the body of any status but OK is a text."""

    status: int
    request_id: int
    body: bytes


_head = struct.Struct("<4sIQ")
_u32 = struct.Struct("<I")
_request_tail = struct.Struct("<HBB8x")
_request_header = struct.Struct("<4sIQIHBBQ")
_reply_header = struct.Struct("<4sIQIBBHQ")
_u16 = struct.Struct("<H")
_reply_tails = [bytes((VERSION, status)) + bytes(10) for status in range(256)]
_no_options: dict[int, bytes] = {}


def encode_reply(status: int, request_id: int, body: bytes = b"") -> bytes:
    head = _head.pack(MAGIC, len(body), request_id)
    rest = _reply_tails[status] + body
    return head + _u32.pack(crc32(rest, crc32(head))) + rest


def encode_request(
    opcode: int,
    request_id: int,
    ns: str = DEFAULT_NAMESPACE,
    key: bytes = b"",
    value: bytes = b"",
    options: dict[int, bytes] | None = None,
) -> bytes:
    """Raises FrameError (too_large) for what the lengths cannot say."""
    name = ns.encode()
    if len(name) > NAMESPACE_BYTES:
        raise FrameError("too_large", f"the namespace has {len(name)} bytes, over the limit of {NAMESPACE_BYTES}")
    if len(key) > KEY_BYTES:
        raise FrameError("too_large", f"the key has {len(key)} bytes, over the limit of {KEY_BYTES}")
    if len(value) > VALUE_BYTES:
        raise FrameError("too_large", f"the value has {len(value)} bytes, over the limit of {VALUE_BYTES}")
    tags = encode_options(options) if options else b""
    size = 10 + len(name) + len(key) + len(value) + len(tags)
    head = _head.pack(MAGIC, size, request_id)
    rest = b"".join(
        (
            _request_tail.pack(opcode, VERSION, 0),
            _u16.pack(len(name)),
            name,
            _u16.pack(len(key)),
            key,
            _u32.pack(len(value)),
            value,
            _u16.pack(len(tags)),
            tags,
        )
    )
    return head + _u32.pack(crc32(rest, crc32(head))) + rest


class Scanner:
    """Cuts a stream of bytes into frames, however it arrives. After a bad frame nothing more is read.

    What came before a bad frame is returned all the same; then `error` says what was wrong.
    """

    version_offset = 22

    def __init__(self, payload_bytes: int = REQUEST_PAYLOAD_BYTES) -> None:
        self.error: FrameError | None = None
        self._payload_bytes = payload_bytes
        self._rest = bytearray()
        self._wanted = 0  # bytes that the frame begun in _rest needs at least

    @property
    def unread(self) -> int:
        """Bytes of a frame that has not arrived in full."""
        return len(self._rest)

    def _join(self, data: bytes) -> bytes | None:
        """What is there to read, or None if the frame that was begun still lacks bytes."""
        rest = self._rest
        if not rest:
            return data
        rest += data
        if len(rest) < self._wanted:
            return None
        joined = bytes(rest)
        rest.clear()
        return joined

    def _keep(self, data: bytes, position: int) -> None:
        """Keeps the beginning of a frame; what is wrong with its header is told without waiting for the rest."""
        rest = data[position:]
        if not MAGIC.startswith(rest[:4]):
            self.error = FrameError("magic", f"no frame begins with {rest[:4].hex(' ')}")
        elif len(rest) > self.version_offset and rest[self.version_offset] != VERSION:
            self.error = FrameError("version", f"protocol version {rest[self.version_offset]} is not supported")
        elif len(rest) >= 8 and (size := _u32.unpack_from(rest, 4)[0]) > self._payload_bytes:
            self.error = FrameError(
                "too_large", f"a payload of {size} bytes is over the limit of {self._payload_bytes}"
            )
        else:
            self._wanted = HEADER_BYTES + size if len(rest) >= 8 else 8
            self._rest += rest


class RequestScanner(Scanner):
    """Cuts what a client sends into requests."""

    version_offset = 22

    def __init__(self, payload_bytes: int = REQUEST_PAYLOAD_BYTES) -> None:
        super().__init__(payload_bytes)
        self._name = DEFAULT_NAMESPACE.encode()  # the namespace seen last
        self._ns = DEFAULT_NAMESPACE

    def feed(self, data: bytes) -> list[Request]:
        """The requests that are whole now, in order. Sets `error` if what follows them is none."""
        if self.error is not None:
            return []
        joined = self._join(data)
        if joined is None:
            return []
        data = joined
        requests: list[Request] = []
        position = 0
        available = len(data)
        while available - position >= HEADER_BYTES:
            magic, size, request_id, crc, opcode, version, flags, reserved = _request_header.unpack_from(data, position)
            if magic != MAGIC or version != VERSION or size > self._payload_bytes:
                break  # _keep tells which
            end = position + HEADER_BYTES + size
            if end > available:
                break
            if crc32(data[position + 20 : end], crc32(data[position : position + 16])) != crc:
                self.error = FrameError("checksum", "the frame's checksum is wrong")
                return requests
            if flags or reserved:
                self.error = FrameError("reserved", "the frame's reserved bytes are not zero")
                return requests
            try:
                requests.append(self._request(opcode, request_id, data, position + HEADER_BYTES, end))
            except (struct.error, IndexError):
                self.error = FrameError("truncated", "the frame's payload is cut off")
                return requests
            position = end
        if position < available:
            self._keep(data, position)
        return requests

    def _request(self, opcode: int, request_id: int, data: bytes, at: int, end: int) -> Request:
        if at == end:
            return Request(opcode, request_id, DEFAULT_NAMESPACE, b"", b"", _no_options)
        key_at = at + 2 + (data[at] | data[at + 1] << 8)
        name = data[at + 2 : key_at]
        if name != self._name:
            self._name = name
            # What is no UTF-8 cannot be a namespace either: it is refused like any other bad name.
            self._ns = name.decode("utf-8", "replace") if name else DEFAULT_NAMESPACE
        value_at = key_at + 2 + (data[key_at] | data[key_at + 1] << 8)
        options_at = value_at + 4 + _u32.unpack_from(data, value_at)[0]
        if options_at > end:
            raise IndexError(options_at)
        options = _no_options
        if options_at < end:
            first = options_at + 2
            last = first + (data[options_at] | data[options_at + 1] << 8)
            if last > end or first > end:
                raise IndexError(last)
            if first < last:
                options = decode_options(data, first, last)
        return Request(
            opcode,
            request_id,
            self._ns,
            data[key_at + 2 : value_at],
            data[value_at + 4 : options_at],
            options,
        )


class ReplyScanner(Scanner):
    """Cuts what a server sends into replies."""

    version_offset = 20

    def __init__(self, payload_bytes: int = REPLY_PAYLOAD_BYTES) -> None:
        super().__init__(payload_bytes)

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are whole now, in order. Sets `error` if what follows them is none."""
        if self.error is not None:
            return []
        joined = self._join(data)
        if joined is None:
            return []
        data = joined
        replies: list[Reply] = []
        position = 0
        available = len(data)
        while available - position >= HEADER_BYTES:
            magic, size, request_id, crc, version, status, padding, reserved = _reply_header.unpack_from(data, position)
            if magic != MAGIC or version != VERSION or size > self._payload_bytes:
                break  # _keep tells which
            end = position + HEADER_BYTES + size
            if end > available:
                break
            if crc32(data[position + 20 : end], crc32(data[position : position + 16])) != crc:
                self.error = FrameError("checksum", "the frame's checksum is wrong")
                return replies
            if padding or reserved:
                self.error = FrameError("reserved", "the frame's reserved bytes are not zero")
                return replies
            replies.append(Reply(status, request_id, data[position + HEADER_BYTES : end]))
            position = end
        if position < available:
            self._keep(data, position)
        return replies
