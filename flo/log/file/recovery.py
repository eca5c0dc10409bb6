"""What a start finds in the segment folder, checked before anything is changed.

A failed flush may leave in the page cache what the disk has lost, so a start trusts only what a `synced` mark
vouches for. Unless the log was closed in order, the last segment is copied to a new file that is synced and put in
its place: one step for the frames above the mark, the torn tail and the room behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from flo.log.disk import Disk, replace_file
from flo.log.errors import DirectoryUnusable, LogDamaged
from flo.log.file.scan import Batch, Scanner, Window, inspect_tail
from flo.log.file.segment import (
    SEGMENT_HEADER_BYTES,
    Segment,
    SegmentHeader,
    damaged,
    is_segment_name,
    parse_segment_header,
    read_footer,
    segment_path,
)
from flo.log.frame import CLOSED, encode_frame

COPY_BYTES: Final = 1024 * 1024


class Found(NamedTuple):
    """The log as it lies on the disk."""

    segments: list[Segment]  # oldest first; the last is the one to go on with
    unsealed: list[Segment]  # those before the last that an interrupted roll has left without a footer
    closed: bool  # in order, with nothing behind
    warnings: list[str]


def segment_paths(disk: Disk, folder: str) -> list[str]:
    """Oldest first, without what is only being made. Raises DirectoryUnusable for a file that is no segment."""
    if not disk.is_directory(folder):
        return []
    names = [name for name in disk.list_directory(folder) if not name.endswith(".tmp")]
    for name in names:
        if not is_segment_name(name):
            raise DirectoryUnusable(
                f"{folder}/{name} is no segment of a log", hint="move it away: nothing else may lie in this folder"
            )
    return [f"{folder}/{name}" for name in sorted(names, key=lambda name: (len(name), name))]


def inspect_log(disk: Disk, paths: list[str], *, log_id: bytes | None, snapshot_index: int) -> Found:
    """Reads footers, and every frame of what is not sealed. Changes nothing. Raises LogDamaged."""
    segments: list[Segment] = []
    unsealed: list[Segment] = []
    warnings: list[str] = []
    closed = False
    for number, path in enumerate(paths):
        handle = disk.open_to_read(path)
        try:
            size = disk.size(handle)
            segment = _begin(disk, handle, path, segments[-1] if segments else None, log_id)
            log_id = segment.header.log_id
            last = number == len(paths) - 1
            sealed = _adopt_footer(disk, handle, size, segment, warnings)
            if sealed and last:
                raise damaged(path, size, f"the segment from index {segment.last_index + 1} on is missing")
            if last:
                closed = _scan_last(disk, handle, size, segment, snapshot_index, warnings)
            elif not sealed:
                _scan(disk, handle, size, segment)
                unsealed.append(segment)
        finally:
            disk.close(handle)
        segments.append(segment)
    return Found(segments, unsealed, closed, warnings)


def settle_last(disk: Disk, segment: Segment) -> None:
    """Copies the last segment to a new file that holds its sound frames and the mark of an orderly close."""
    replace_file(disk, segment.path, _copy(disk, segment))


def closing_mark(segment: Segment) -> bytes:
    return encode_frame(
        b"",
        log_id=segment.header.log_id,
        previous=segment.last_crc,
        first_index=segment.last_index + 1,
        count=0,
        epoch=segment.epoch,
        time_ms=segment.time_ms,
        synced=segment.last_index,
        flags=CLOSED,
    )


def content_crc(disk: Disk, handle: int, end: int) -> int:
    """CRC32C of a segment's header and frames."""
    crc = 0
    for offset in range(0, end, COPY_BYTES):
        crc = crc32c(disk.read(handle, min(COPY_BYTES, end - offset), offset), crc)
    return crc


def scan_segment(
    disk: Disk, handle: int, size: int, segment: Segment, seen: Callable[[Batch], None] | None = None
) -> tuple[Scanner, bool]:
    """Walks all frames and notes them in `segment`, showing each to `seen`; whether the last was the mark of an
    orderly close."""
    closed = False
    scanner = Scanner(
        Window(disk, handle, size),
        segment.header,
        SEGMENT_HEADER_BYTES,
        next_index=segment.first_index,
        previous=segment.header.previous,
    )
    for batch in scanner:
        header = batch.header
        closed = bool(header.flags & CLOSED)
        if closed:
            break
        segment.note(
            header.first_index, header.event_count, batch.offset, batch.end, header.crc, header.epoch, header.time_ms
        )
        if seen is not None:
            seen(batch)
    return scanner, closed


def _begin(disk: Disk, handle: int, path: str, before: Segment | None, log_id: bytes | None) -> Segment:
    header = parse_segment_header(disk.read(handle, SEGMENT_HEADER_BYTES, 0), path)
    folder = path.rpartition("/")[0]
    if segment_path(folder, header.first_index) != path:
        raise damaged(path, 0, f"the segment begins at index {header.first_index}, which is not its name")
    if log_id is not None and header.log_id != log_id:
        raise LogDamaged(
            f"{path} belongs to another log ({header.log_id.hex()})", hint="restore the directory from a backup"
        )
    if before is not None and (reason := broken_link(before, header)):
        raise damaged(before.path, before.end, reason)
    return Segment(path, header)


def broken_link(before: Segment, header: SegmentHeader) -> str:
    """Why a segment does not go on where the one before it ends; empty when it does."""
    if header.first_index == before.last_index + 1 and header.previous == before.last_crc:
        return ""
    return f"sound frames end here at index {before.last_index}, but the next segment goes on at {header.first_index}"


def _adopt_footer(disk: Disk, handle: int, size: int, segment: Segment, warnings: list[str]) -> bool:
    try:
        footer = read_footer(disk, handle, size)
    except ValueError as error:
        warnings.append(f"{segment.path}: {error}; its frames are read instead")
        return False
    if footer is None:
        return False
    segment.adopt(footer)
    return True


def _scan(disk: Disk, handle: int, size: int, segment: Segment) -> None:
    scanner, _ = scan_segment(disk, handle, size, segment)
    if scanner.newer:
        raise damaged(segment.path, scanner.offset, scanner.reason)


def _scan_last(disk: Disk, handle: int, size: int, segment: Segment, snapshot_index: int, warnings: list[str]) -> bool:
    """Whether the log was closed in order. What is wrong behind the last sound frame is a torn tail unless a mark
    or a snapshot vouches for it."""
    scanner, closed = scan_segment(disk, handle, size, segment)
    if scanner.newer:
        raise damaged(segment.path, scanner.offset, scanner.reason)
    tail = inspect_tail(Window(disk, handle, size), scanner.offset, segment.header.log_id)
    if max(tail.synced, scanner.synced, snapshot_index) > segment.last_index:
        reason = scanner.reason or "frames are missing"
        raise damaged(segment.path, segment.end, f"{reason}, where acknowledged frames were")
    if tail.garbage:
        warnings.append(
            f"{segment.path}: cut {tail.garbage} bytes at offset {scanner.offset}, behind index {segment.last_index}: "
            f"a write that was never finished (torn tail)"
        )
    return closed and not tail.garbage


def _copy(disk: Disk, segment: Segment) -> Iterator[bytes]:
    handle = disk.open_to_read(segment.path)
    try:
        for offset in range(0, segment.end, COPY_BYTES):
            yield disk.read(handle, min(COPY_BYTES, segment.end - offset), offset)
    finally:
        disk.close(handle)
    yield closing_mark(segment)
