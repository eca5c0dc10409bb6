"""The frame codec: how events lie in a log, the same for every backend.

A frame is the unit of durability, of replication and of atomicity (little-endian, 8-byte aligned):

    header   72 bytes, see HEADER
    origin   opaque bytes of the contract's Frame
    events   each: kind u16, version u8, flags u8, payload length u32, payload
    padding  1 to 8 bytes that each hold their number, so that a frame never ends in zero bytes: zeros behind
             a frame are room that was made ahead

The CRC32C covers everything but itself. Each frame names the CRC of the one before, so a frame that is missing,
foreign or out of order is found.

**Claims and marks hold no events and take no index.** A claim's first index is that of the next event, and so is
that of the frame behind it; `first index + epoch` (for a claim its old epoch) still numbers frames that begin a
batch uniquely, which is what an engine needs to compare-and-append. `CLOSED` marks a log that was closed in
order: everything up to its `synced` is on the disk, and the next frame takes the mark's place.

**A batch over FRAME_BYTES or FRAME_EVENTS travels in parts**: the encoded events are cut into pieces of at most
FRAME_BYTES, each in a frame with the batch's first index. Only the last part has a count, and commits. Parts that
end without it never happened.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from crc32c import crc32c

from flo.log.contract import Frame, LoggedEvent
from flo.log.errors import TooLarge

MAGIC: Final = b"FLOF"
FORMAT: Final = 1

FRAME_BYTES: Final = 512 * 1024  # of encoded events in one frame
FRAME_EVENTS: Final = 4_096
BATCH_BYTES: Final = 17 * 1024 * 1024  # of encoded events in one atomic batch
ORIGIN_BYTES: Final = 0xFFFF

PART: Final = 1  # more parts of this batch follow
LAST: Final = 2  # the part that commits its batch
CLAIM: Final = 4
CLOSED: Final = 8
_KNOWN_FLAGS: Final = PART | LAST | CLAIM | CLOSED

# magic, crc | format, flags, origin length, length, log id, previous crc, count, first index, epoch, time, synced
HEADER: Final = struct.Struct("<4sIBBHI16sIIQQQQ")
_AFTER_CRC: Final = struct.Struct("<BBHI16sIIQQQQ")
_EVENT: Final = struct.Struct("<HBBI")
_U32: Final = struct.Struct("<I")
HEADER_BYTES: Final = HEADER.size
EVENT_HEADER_BYTES: Final = _EVENT.size
_FRAME_LENGTH_MAX: Final = HEADER_BYTES + ORIGIN_BYTES + FRAME_BYTES + 8
_LENGTHS_KNOWN: Final = 512
_LENGTHS: Final = [size.to_bytes(4, "little") for size in range(_LENGTHS_KNOWN)]
_MAGIC_CRC: Final = crc32c(MAGIC)
_PADDING: Final = tuple(bytes([8 - used]) * (8 - used) for used in range(8))  # by length modulo 8


class FrameInvalid(ValueError):
    """These bytes are no frame of this log; the text says why."""


class NewerFormat(FrameInvalid):
    """A sound frame of a format that this release does not know."""


class FrameHeader(NamedTuple):
    crc: int
    flags: int
    origin_length: int
    length: int  # of the whole frame
    previous: int  # CRC of the frame before
    event_count: int
    first_index: int
    epoch: int
    time_ms: int
    synced: int  # the highest index known to be on the disk when this frame was written

    @property
    def last_index(self) -> int:
        return self.first_index + self.event_count - 1


def encoded_size(events: Sequence[LoggedEvent]) -> int:
    """Bytes of these events in a frame, without the frame's own."""
    size = EVENT_HEADER_BYTES * len(events)
    for event in events:
        size += len(event[2])
    return size


def encode_events(events: Sequence[LoggedEvent]) -> bytes:
    pieces: list[bytes] = []
    kind, version, start = -1, -1, b""
    for each in events:
        payload = each[2]
        if each[0] != kind or each[1] != version:
            kind, version = each[0], each[1]
            start = _EVENT.pack(kind, version, 0, 0)[:4]
        size = len(payload)
        pieces.append(start)
        pieces.append(_LENGTHS[size] if size < _LENGTHS_KNOWN else size.to_bytes(4, "little"))
        pieces.append(payload)
    return b"".join(pieces)


def decode_events(body: bytes, count: int) -> list[LoggedEvent]:
    """The events of a committed batch. Raises FrameInvalid when they do not fill `body` exactly."""
    events: list[LoggedEvent] = []
    unpack = _EVENT.unpack_from
    offset = 0
    end = len(body)
    try:
        for _ in range(count):
            kind, version, flags, length = unpack(body, offset)
            start = offset + 8
            offset = start + length
            if offset > end:
                raise FrameInvalid("an event is longer than its frame")
            if flags:
                raise NewerFormat(f"an event of kind {kind} has unknown flags {flags:#x}")
            events.append((kind, version, body[start:offset]))
    except struct.error:
        raise FrameInvalid("the frame holds fewer events than it says") from None
    if offset != end:
        raise FrameInvalid("the frame holds more bytes than its events")
    return events


def encode_frame(
    body: bytes,
    *,
    log_id: bytes,
    previous: int,
    first_index: int,
    count: int,
    epoch: int,
    time_ms: int,
    synced: int,
    origin: bytes = b"",
    flags: int = 0,
) -> bytes:
    """One frame around encoded events. Its CRC, which the next frame names, is `frame_crc` of it."""
    unpadded = HEADER_BYTES + len(origin) + len(body)
    padding = _PADDING[unpadded & 7]
    rest = _AFTER_CRC.pack(
        FORMAT,
        flags,
        len(origin),
        unpadded + len(padding),
        log_id,
        previous,
        count,
        first_index,
        epoch,
        time_ms,
        synced,
    )
    tail = b"".join((rest, origin, body, padding))
    return b"".join((MAGIC, _U32.pack(crc32c(tail, _MAGIC_CRC)), tail))


def frame_crc(frame: bytes) -> int:
    crc: int = _U32.unpack_from(frame, 4)[0]
    return crc


def encode_batch(frame: Frame, *, log_id: bytes, previous: int, synced: int) -> list[bytes]:
    """One contract frame as one frame or as parts. Raises TooLarge over BATCH_BYTES."""
    body = encode_events(frame.events)
    count = len(frame.events)
    if len(body) > BATCH_BYTES:
        raise TooLarge(f"{count} events of {len(body)} bytes are over the limit of {BATCH_BYTES} bytes for one batch")
    if len(frame.origin) > ORIGIN_BYTES:
        raise TooLarge(f"an origin of {len(frame.origin)} bytes is over the limit of {ORIGIN_BYTES} bytes")
    pieces = [body[start : start + FRAME_BYTES] for start in range(0, len(body), FRAME_BYTES)] or [b""]
    encoded: list[bytes] = []
    for number, piece in enumerate(pieces, 1):
        last = number == len(pieces)
        part = encode_frame(
            piece,
            log_id=log_id,
            previous=previous,
            first_index=frame.first_index,
            count=count if last else 0,
            epoch=frame.epoch,
            time_ms=frame.time_ms,
            synced=synced,
            origin=frame.origin if last else b"",
            flags=0 if len(pieces) == 1 else LAST if last else PART,
        )
        previous = frame_crc(part)
        encoded.append(part)
    return encoded


def frame_length(data: bytes, offset: int = 0) -> int:
    """The length that a frame's first bytes promise. Raises FrameInvalid when no frame begins here."""
    if len(data) - offset < HEADER_BYTES:
        raise FrameInvalid("less than a frame header is left")
    if data[offset : offset + 4] != MAGIC:
        raise FrameInvalid("no frame begins here")
    length: int = _U32.unpack_from(data, offset + 12)[0]
    if length % 8 or not HEADER_BYTES < length <= _FRAME_LENGTH_MAX:
        raise FrameInvalid(f"the frame's length {length} is not possible")
    return length


def parse_frame(data: bytes, offset: int = 0, *, log_id: bytes) -> FrameHeader:
    """Checks the frame that begins here, all but its place in the chain. Raises FrameInvalid."""
    length = frame_length(data, offset)
    if len(data) - offset < length:
        raise FrameInvalid("the frame is cut off")
    (_, crc, layout, flags, origin_length, _, owner, previous, count, first, epoch, time_ms, synced) = (
        HEADER.unpack_from(data, offset)
    )
    with memoryview(data) as view:
        found = crc32c(view[offset + 8 : offset + length], _MAGIC_CRC)
    if found != crc:
        raise FrameInvalid("the frame does not match its checksum")
    if layout != FORMAT or flags & ~_KNOWN_FLAGS:
        raise NewerFormat(f"the frame has format {layout} and flags {flags:#x}; this release knows format {FORMAT}")
    if owner != log_id:
        raise FrameInvalid(f"the frame belongs to another log ({owner.hex()})")
    padding = data[offset + length - 1]
    if not 1 <= padding <= 8 or HEADER_BYTES + origin_length + padding > length:
        raise FrameInvalid("the frame's parts do not fit its length")
    return FrameHeader(crc, flags, origin_length, length, previous, count, first, epoch, time_ms, synced)


def frame_content(data: bytes, offset: int, header: FrameHeader) -> tuple[bytes, bytes]:
    """Origin and encoded events of a frame that `parse_frame` found sound."""
    start = offset + HEADER_BYTES
    middle = start + header.origin_length
    end = offset + header.length
    return data[start:middle], data[middle : end - data[end - 1]]
