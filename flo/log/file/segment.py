"""What a segment file holds: a header, frames, and once it is sealed a footer.

    header   64 bytes: magic, format, log id, first index, CRC of the frame before, epoch and time before, CRC32C
    frames   8-byte aligned; behind them zeros, which are room made ahead
    footer   only when sealed, at the very end of the file: where the frames end, their CRC32C as a whole, the
             last index, CRC, epoch and time, a sparse index, CRC32C, length, magic

A segment begins only when everything before it is on the disk, and is sealed only when the next one exists. So
the last segment is never sealed, and a sealed one without a successor tells that a file is missing.
"""

from __future__ import annotations

import os
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from flo.log.disk import Disk
from flo.log.errors import LogDamaged

SEGMENT_FORMAT: Final = 1
SEGMENT_HEADER: Final = struct.Struct("<8sI16sQIQQII")  # the last: room for later, CRC
SEGMENT_HEADER_BYTES: Final = SEGMENT_HEADER.size
SPARSE_EVENTS: Final = 256  # about every so many events the sparse index has an entry,
SPARSE_BYTES: Final = 64 * 1024  # or bytes: what is read for one event
_HEADER_MAGIC: Final = b"FLOSEG\r\n"
_FOOTER_MAGIC: Final = b"FLOSEALD"
_FOOTER: Final = struct.Struct("<QIIQQQI")  # content end, content CRC, last CRC, last index, epoch, time, entries
_ENTRY: Final = struct.Struct("<QQ")
_FOOTER_END: Final = struct.Struct("<II8s")  # CRC, whole length, magic
_NAME: Final = re.compile(r"\d{10,20}\.seg")

assert SEGMENT_HEADER_BYTES == 64


class SegmentHeader(NamedTuple):
    log_id: bytes
    first_index: int
    previous: int  # CRC of the last frame of the segment before, 0 in the first
    epoch: int  # of the log when the segment began
    time_ms: int

    def encode(self) -> bytes:
        head = SEGMENT_HEADER.pack(_HEADER_MAGIC, SEGMENT_FORMAT, *self, 0, 0)[:-4]
        return head + struct.pack("<I", crc32c(head))


class Footer(NamedTuple):
    content_end: int
    content_crc: int
    last_crc: int
    last_index: int
    epoch: int
    time_ms: int
    entries: tuple[tuple[int, int], ...]  # (first index, offset) of some frames

    def encode(self) -> bytes:
        body = _FOOTER.pack(*self[:6], len(self.entries)) + b"".join(_ENTRY.pack(*entry) for entry in self.entries)
        return body + _FOOTER_END.pack(crc32c(body), len(body) + _FOOTER_END.size, _FOOTER_MAGIC)


class Segment:
    """A segment as its owner knows it: where its frames end, and where to look for an index."""

    def __init__(self, path: str, header: SegmentHeader) -> None:
        self.path = path
        self.header = header
        self.first_index = header.first_index
        self.last_index = header.first_index - 1
        self.last_crc = header.previous
        self.epoch = header.epoch
        self.time_ms = header.time_ms
        self.end = SEGMENT_HEADER_BYTES
        self.indexes: list[int] = [self.first_index]  # the sparse index, in two lists for searching
        self.offsets: list[int] = [self.end]
        self.sealed = False

    def note(self, first_index: int, count: int, offset: int, end: int, crc: int, epoch: int, time_ms: int) -> None:
        """A batch lies here now."""
        before = self.indexes[-1]
        if first_index >= before + SPARSE_EVENTS or (
            first_index > before and offset >= self.offsets[-1] + SPARSE_BYTES
        ):
            self.indexes.append(first_index)
            self.offsets.append(offset)
        self.last_index += count
        self.end = end
        self.last_crc = crc
        self.epoch = epoch
        self.time_ms = max(self.time_ms, time_ms)

    def place_before(self, index: int) -> tuple[int, int]:
        """First index and offset of a frame that holds this index or lies a little before it."""
        at = max(0, bisect_right(self.indexes, index) - 1)
        return self.indexes[at], self.offsets[at]

    def block_of(self, index: int) -> tuple[int, int, int]:
        """First index, offset and end of the frames between two entries of the sparse index, among which it lies."""
        at = bisect_right(self.indexes, index) - 1
        end = self.offsets[at + 1] if at + 1 < len(self.offsets) else self.end
        return self.indexes[at], self.offsets[at], end

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """First index, number of events and bytes of what lies between the entries of the sparse index."""
        indexes = [*self.indexes, self.last_index + 1]
        offsets = [*self.offsets, self.end]
        for at, first in enumerate(self.indexes):
            yield first, indexes[at + 1] - first, offsets[at + 1] - offsets[at]

    def footer(self, content_crc: int) -> Footer:
        return Footer(
            self.end,
            content_crc,
            self.last_crc,
            self.last_index,
            self.epoch,
            self.time_ms,
            tuple(zip(self.indexes, self.offsets, strict=True)),
        )

    def adopt(self, footer: Footer) -> None:
        self.end = footer.content_end
        self.last_crc = footer.last_crc
        self.last_index = footer.last_index
        self.epoch = footer.epoch
        self.time_ms = footer.time_ms
        self.indexes = [index for index, _ in footer.entries]
        self.offsets = [offset for _, offset in footer.entries]
        self.sealed = True


def segment_path(folder: str, first_index: int) -> str:
    return os.path.join(folder, f"{first_index:010d}.seg")


def is_segment_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def parse_segment_header(data: bytes, path: str) -> SegmentHeader:
    """Raises LogDamaged, also for a newer format."""
    if len(data) < SEGMENT_HEADER_BYTES or data[:8] != _HEADER_MAGIC:
        raise damaged(path, 0, "this is no segment of a log")
    *_, crc = values = SEGMENT_HEADER.unpack_from(data)
    if crc32c(data[: SEGMENT_HEADER_BYTES - 4]) != crc:
        raise damaged(path, 0, "the segment's header does not match its checksum")
    _, layout, log_id, first_index, previous, epoch, time_ms, _, _ = values
    if layout != SEGMENT_FORMAT:
        raise LogDamaged(
            f"{path}: the segment has format {layout}; this release knows format {SEGMENT_FORMAT}",
            hint="use a newer release of flo",
        )
    return SegmentHeader(log_id, first_index, previous, epoch, time_ms)


def read_footer(disk: Disk, handle: int, size: int) -> Footer | None:
    """The footer at the end of a file; None when there is none. Raises ValueError when it is not sound."""
    if size < SEGMENT_HEADER_BYTES + _FOOTER.size + _FOOTER_END.size:
        return None
    crc, length, magic = _FOOTER_END.unpack(disk.read(handle, _FOOTER_END.size, size - _FOOTER_END.size))
    if magic != _FOOTER_MAGIC:
        return None
    if not _FOOTER.size + _FOOTER_END.size <= length <= size - SEGMENT_HEADER_BYTES:
        raise ValueError("the segment's footer has an impossible length")
    body = disk.read(handle, length - _FOOTER_END.size, size - length)
    if crc32c(body) != crc:
        raise ValueError("the segment's footer does not match its checksum")
    end, content_crc, last_crc, last_index, epoch, time_ms, count = _FOOTER.unpack_from(body)
    if len(body) != _FOOTER.size + count * _ENTRY.size or not count:
        raise ValueError("the segment's footer has another length than it says")
    entries = tuple(_ENTRY.iter_unpack(body[_FOOTER.size :]))
    return Footer(end, content_crc, last_crc, last_index, epoch, time_ms, entries)


def damaged(path: str, offset: int, reason: str) -> LogDamaged:
    return LogDamaged(
        f"{path}: damaged at offset {offset}: {reason}",
        hint="nothing was changed; `flo log verify` lists all damage; restore the directory from a backup",
        offset=offset,
        reason=reason,
    )
