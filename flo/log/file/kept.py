"""A kept file: events that are still read although their segment has gone. It is written once, whole.

header  64 bytes: magic, format, log id, first and last index that it stands for, number of events, CRC32C
blocks  each: CRC32C of what follows, length of the entries, their number; then the entries, ascending, each:
        index u64, kind u16, version u8, flags u8, payload length u32, payload
footer  for each block first index, offset, number of events; then CRC32C, length, magic

It stands for a range of the log, of which it holds what was live when it was written. Its name is that range and a
number, FIRST-LAST-NUMBER.kept: what is written anew for the same range has the next number. A segment that is
mostly live is kept as it is, under its own name.
"""

from __future__ import annotations

import os
import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from flo.log.cache import Block
from flo.log.disk import Disk
from flo.log.errors import LogDamaged
from flo.log.file.segment import damaged

KEPT_FORMAT: Final = 1
BLOCK_BYTES: Final = 64 * 1024  # of entries; the one that fills a block may overfill it
_MAGIC: Final = b"FLOKEPT\n"
_FOOTER_MAGIC: Final = b"FLOKEND\n"
_HEADER: Final = struct.Struct("<8sI16sQQQQI")  # the last but one: room for later
_BLOCK: Final = struct.Struct("<III")  # CRC, length, events
_COVERED: Final = struct.Struct("<II")
_ENTRY: Final = struct.Struct("<QHBBI")
_TABLE: Final = struct.Struct("<QQI")
_FOOTER_END: Final = struct.Struct("<II8s")  # CRC, whole length, magic
_NAME: Final = re.compile(r"(\d{10,20})-(\d{10,20})-(\d{1,9})\.kept")
HEADER_BYTES: Final = _HEADER.size
ENTRY_BYTES: Final = _ENTRY.size  # of an entry besides its payload

assert HEADER_BYTES == 64


class KeptEvent(NamedTuple):
    log_index: int
    kind: int
    version: int
    payload: bytes


class KeptFile:
    """A kept file as its owner knows it: what it stands for, and where its blocks are."""

    def __init__(self, path: str, first_index: int, last_index: int, events: int) -> None:
        self.path = path
        named = kept_name(os.path.basename(path))
        self.number = named[2] if named is not None else 0
        self.first_index = first_index
        self.last_index = last_index
        self.events = events
        self.end = HEADER_BYTES  # of the blocks
        self.indexes: list[int] = []  # of each block's first event
        self.offsets: list[int] = []
        self.counts: list[int] = []

    def block_of(self, index: int) -> tuple[int, int, int]:
        """First index, offset and end of the block that would hold it."""
        at = max(0, bisect_right(self.indexes, index) - 1)
        return self.indexes[at], self.offsets[at], self._block_end(at)

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """First index, number of events and bytes of each block."""
        for at, first in enumerate(self.indexes):
            yield first, self.counts[at], self._block_end(at) - self.offsets[at]

    def _block_end(self, at: int) -> int:
        return self.offsets[at + 1] if at + 1 < len(self.offsets) else self.end


def kept_path(folder: str, first_index: int, last_index: int, number: int) -> str:
    return os.path.join(folder, f"{first_index:010d}-{last_index:010d}-{number}.kept")


def kept_name(name: str) -> tuple[int, int, int] | None:
    """Range and number of a kept file's name; None for any other name."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def encode_kept(file: KeptFile, events: Iterable[KeptEvent], log_id: bytes) -> Iterator[bytes]:
    """The file's bytes, piece by piece; notes the blocks in `file`. There must be as many events as it says."""
    head = _HEADER.pack(_MAGIC, KEPT_FORMAT, log_id, file.first_index, file.last_index, file.events, 0, 0)[:-4]
    yield head + struct.pack("<I", crc32c(head))
    written = 0
    pieces: list[bytes] = []
    size = count = first = 0
    for event in events:
        if not count:
            first = event.log_index
        pieces += (_ENTRY.pack(event.log_index, event.kind, event.version, 0, len(event.payload)), event.payload)
        size += ENTRY_BYTES + len(event.payload)
        count += 1
        if size >= BLOCK_BYTES:
            yield _block(file, pieces, first, count)
            written += count
            pieces = []
            size = count = 0
    if count:
        yield _block(file, pieces, first, count)
        written += count
    assert written == file.events, "the header says how many events there are"
    table = b"".join(map(_TABLE.pack, file.indexes, file.offsets, file.counts))
    yield table + _FOOTER_END.pack(crc32c(table), len(table) + _FOOTER_END.size, _FOOTER_MAGIC)


def _block(file: KeptFile, pieces: list[bytes], first: int, count: int) -> bytes:
    body = b"".join(pieces)
    covered = _COVERED.pack(len(body), count) + body
    file.indexes.append(first)
    file.offsets.append(file.end)
    file.counts.append(count)
    file.end += 4 + len(covered)
    return struct.pack("<I", crc32c(covered)) + covered


def open_kept(disk: Disk, path: str, log_id: bytes) -> KeptFile:
    """Reads header and footer. Raises LogDamaged, also for a newer format, and FileNotFoundError."""
    handle = disk.open_to_read(path)
    try:
        size = disk.size(handle)
        file = _read_header(disk.read(handle, HEADER_BYTES, 0), path, log_id)
        end = size - _FOOTER_END.size
        if end < HEADER_BYTES:
            raise damaged(path, size, "the kept file is cut off")
        crc, length, magic = _FOOTER_END.unpack(disk.read(handle, _FOOTER_END.size, end))
        start = size - length
        if magic != _FOOTER_MAGIC or start < HEADER_BYTES or (end - start) % _TABLE.size:
            raise damaged(path, end, "the kept file has no footer")
        table = disk.read(handle, end - start, start)
        if crc32c(table) != crc:
            raise damaged(path, start, "the kept file's footer does not match its checksum")
    finally:
        disk.close(handle)
    for first, offset, count in _TABLE.iter_unpack(table):
        file.indexes.append(first)
        file.offsets.append(offset)
        file.counts.append(count)
    file.end = start
    if sum(file.counts) != file.events or not file.events:
        raise damaged(path, start, f"the kept file holds {sum(file.counts)} events, not {file.events}")
    return file


def _read_header(data: bytes, path: str, log_id: bytes) -> KeptFile:
    if len(data) < HEADER_BYTES or not data.startswith(_MAGIC):
        raise damaged(path, 0, "this is no kept file")
    _, layout, owner, first, last, events, _, crc = _HEADER.unpack(data)
    if crc32c(data[:-4]) != crc:
        raise damaged(path, 0, "the kept file's header does not match its checksum")
    if layout != KEPT_FORMAT:
        raise LogDamaged(
            f"{path}: the kept file has format {layout}; this release knows format {KEPT_FORMAT}",
            hint="use a newer release of flo",
        )
    if owner != log_id:
        raise LogDamaged(f"{path} belongs to another log ({owner.hex()})", hint="restore the directory from a backup")
    named = kept_name(os.path.basename(path))
    if named is None or named[:2] != (first, last):
        raise damaged(path, 0, f"it stands for the events {first} to {last}, which is not its name")
    return KeptFile(path, first, last, events)


def read_events(disk: Disk, file: KeptFile) -> Iterator[KeptEvent]:
    """All events. Raises LogDamaged, FileNotFoundError."""
    handle = disk.open_to_read(file.path)
    try:
        for at, count in enumerate(file.counts):
            _, offset, end = file.block_of(file.indexes[at])
            events = _decode_block(disk.read(handle, end - offset, offset), file, offset)
            if len(events) != count or events[0].log_index != file.indexes[at]:
                raise damaged(file.path, offset, "the block does not hold what the footer says")
            yield from events
    finally:
        disk.close(handle)


def read_block(disk: Disk, file: KeptFile, offset: int, end: int) -> Block:
    """The payloads of one block. Raises LogDamaged, FileNotFoundError."""
    handle = disk.open_to_read(file.path)
    try:
        events = _decode_block(disk.read(handle, end - offset, offset), file, offset)
    finally:
        disk.close(handle)
    return Block(events[0].log_index, [event.payload for event in events], [event.log_index for event in events])


def _decode_block(data: bytes, file: KeptFile, offset: int) -> list[KeptEvent]:
    if len(data) < _BLOCK.size:
        raise damaged(file.path, offset, "the block is cut off")
    crc, length, count = _BLOCK.unpack_from(data)
    if length != len(data) - _BLOCK.size or not count:
        raise damaged(file.path, offset, f"the block's length {length} is not possible")
    if crc32c(memoryview(data)[4:]) != crc:
        raise damaged(file.path, offset, "the block does not match its checksum")
    events: list[KeptEvent] = []
    at = _BLOCK.size
    for _ in range(count):
        if len(data) - at < ENTRY_BYTES:
            raise damaged(file.path, offset, "the block holds fewer events than it says")
        index, kind, version, flags, size = _ENTRY.unpack_from(data, at)
        if flags:
            raise damaged(file.path, offset, f"an event of kind {kind} has unknown flags {flags:#x}")
        at += ENTRY_BYTES + size
        events.append(KeptEvent(index, kind, version, data[at - size : at]))
    if at != len(data):
        raise damaged(file.path, offset, "the block holds more bytes than its events")
    return events
