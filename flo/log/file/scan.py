"""Walking the frames of a segment, and telling a torn tail from damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from flo.log.contract import Frame
from flo.log.disk import Disk
from flo.log.file.segment import SegmentHeader, damaged
from flo.log.frame import (
    CLAIM,
    CLOSED,
    HEADER_BYTES,
    LAST,
    MAGIC,
    PART,
    FrameHeader,
    FrameInvalid,
    NewerFormat,
    decode_events,
    frame_content,
    frame_length,
    parse_frame,
)

WINDOW_BYTES: Final = 256 * 1024
_NO_ROOM_AHEAD: Final = bytes(4)


class Window:
    """A file as bytes by offset, read in blocks."""

    def __init__(self, disk: Disk, handle: int, end: int, *, block: int = WINDOW_BYTES) -> None:
        self._disk = disk
        self._handle = handle
        self._block = block
        self._start = 0
        self._data = b""
        self.end = end

    def take(self, offset: int, size: int) -> bytes:
        """These bytes; fewer at the end."""
        size = min(size, self.end - offset)
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._data):
            self._data = self._disk.read(self._handle, min(max(size, self._block), self.end - offset), offset)
            self._start = offset
            begin = 0
        return self._data[begin : begin + size]


class Batch(NamedTuple):
    """An atomic batch as it lies in a segment, or a claim or a mark, which hold no events."""

    offset: int
    end: int
    header: FrameHeader  # of the frame that commits it
    origin: bytes
    body: bytes
    frames: int

    def frame(self, path: str) -> Frame:
        try:
            events = decode_events(self.body, self.header.event_count)
        except FrameInvalid as error:
            raise damaged(path, self.offset, str(error)) from None
        return Frame(self.header.first_index, self.header.time_ms, self.header.epoch, events, self.origin)


class Scanner:
    """Iterates over the batches from an offset on. When it ends, `offset` is behind the last sound one and
    `reason` says what is wrong there; it is empty when only room made ahead, or nothing, follows."""

    def __init__(
        self, window: Window, header: SegmentHeader, offset: int, *, next_index: int, previous: int | None
    ) -> None:
        self._window = window
        self._log_id = header.log_id
        self.offset = offset
        self.next_index = next_index  # of the first event at `offset`
        self.previous = previous  # None: not known, as in the middle of a segment
        self.synced = header.first_index - 1
        self.reason = ""
        self.newer = False

    def __iter__(self) -> Iterator[Batch]:
        pieces: list[bytes] = []
        at = self.offset
        previous = self.previous
        while True:
            try:
                data = self._frame_at(at)
                if data is None:
                    if pieces:
                        self.reason = "a batch in parts has no last part"
                    return
                header = parse_frame(data, log_id=self._log_id)
                self._check_place(header, previous, pieces)
            except FrameInvalid as error:
                self.reason = str(error)
                self.newer = isinstance(error, NewerFormat)
                return
            origin, body = frame_content(data, 0, header)
            at += header.length
            previous = header.crc
            if header.flags & PART:
                pieces.append(body)
                continue
            batch = Batch(
                self.offset, at, header, origin, b"".join((*pieces, body)) if pieces else body, len(pieces) + 1
            )
            pieces = []
            self.offset = at
            self.previous = previous
            self.next_index = header.first_index + header.event_count
            self.synced = max(self.synced, header.synced)
            yield batch

    def _frame_at(self, offset: int) -> bytes | None:
        """The frame's bytes; None where zeros or the file's end say that no more follow."""
        head = self._window.take(offset, HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            if not head.strip(b"\0"):
                return None
        elif head.startswith(_NO_ROOM_AHEAD):
            if not head.strip(b"\0"):
                return None
        return self._window.take(offset, frame_length(head))

    def _check_place(self, header: FrameHeader, previous: int | None, pieces: list[bytes]) -> None:
        if previous is not None and header.previous != previous:
            raise FrameInvalid("the frame does not follow the one before it")
        if header.first_index != self.next_index:
            raise FrameInvalid(f"the frame begins at index {header.first_index}, not {self.next_index}")
        if header.flags & (CLAIM | CLOSED) and header.event_count:
            raise FrameInvalid("a claim or mark holds events")
        if bool(pieces) != bool(header.flags & LAST or (pieces and header.flags & PART)):
            raise FrameInvalid("a batch in parts is not whole")


class Tail(NamedTuple):
    """What lies behind the last sound frame of the last segment."""

    garbage: int  # bytes that are not zero, from the end of the frames on
    synced: int  # the highest mark in sound frames among them


def inspect_tail(window: Window, offset: int, log_id: bytes) -> Tail:
    """Looks for sound frames behind a bad one. Their marks tell whether the bad one had been on the disk: then
    it is damage. Without that it is a write that was not finished."""
    rest = window.take(offset, window.end - offset)
    found = 0
    at = rest.find(MAGIC)
    while at >= 0:
        try:
            found = max(found, parse_frame(rest, at, log_id=log_id).synced)
        except FrameInvalid:
            pass  # a torn frame, or the four letters in a payload
        at = rest.find(MAGIC, at + 1)
    return Tail(len(rest.rstrip(b"\0")), found)
