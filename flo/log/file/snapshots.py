"""Snapshot files: the machines' sections at one index, and the blobs that they name.

header    magic, format, log id, index, number of sections, number of blobs
sections  each: name length u16, data length u64, name, data
blobs     their SHA-256 digests
end       CRC32C over everything before
"""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

from flo.log.disk import Disk, replace_file, sync_errors, write_errors

SNAPSHOT_FORMAT: Final = 1
SNAPSHOTS_KEPT: Final = 2
READ_BYTES: Final = 1024 * 1024  # at a time, when it is only checked
_MAGIC: Final = b"FLOSNAP\n"
_HEADER: Final = struct.Struct("<8sI16sQII")
_SECTION: Final = struct.Struct("<HQ")
_CRC: Final = struct.Struct("<I")
_DIGEST_BYTES: Final = 32
_NAME: Final = re.compile(r"(\d{10,20})-(\d+)\.snap")


class SnapshotInvalid(ValueError):
    """The file is no sound snapshot of this log; the text says why."""


class Snapshot(NamedTuple):
    covers: int  # the index of the last event in it
    sections: dict[str, bytes]
    blobs: frozenset[bytes]


class Kept(NamedTuple):
    """A good snapshot on the disk."""

    covers: int
    path: str
    size: int  # bytes of the file
    blobs: frozenset[bytes]


class Snapshots:
    """The snapshots of one log; thread-safe."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._folder = folder
        self._lock = threading.Lock()
        self._kept: list[Kept] = []  # good ones, oldest first

    def load(self, log_id: bytes) -> list[str]:
        """Checks what is there; returns a warning for each snapshot that is not good."""
        warnings = []
        for path in snapshot_paths(self._disk, self._folder):
            try:
                self._kept.append(check_snapshot(self._disk, path, log_id))
            except SnapshotInvalid as error:
                warnings.append(f"{path}: snapshot ignored: {error}")
        return warnings

    @property
    def newest_index(self) -> int:
        kept = self._kept
        return kept[-1].covers if kept else 0

    @property
    def newest_size(self) -> int:
        """Bytes on the disk; 0 without one."""
        kept = self._kept
        return kept[-1].size if kept else 0

    def blobs(self) -> frozenset[bytes]:
        """Of all kept snapshots."""
        return frozenset[bytes]().union(*(kept.blobs for kept in self._kept))

    def newest(self, log_id: bytes) -> Snapshot | None:
        """Reads the newest good one; one that went bad since it was checked gives way to the one before."""
        with self._lock:
            while self._kept:
                try:
                    return read_snapshot(self._disk, self._kept[-1].path, log_id)
                except (SnapshotInvalid, FileNotFoundError):
                    self._kept.pop()
            return None

    def put(self, snapshot: Snapshot, log_id: bytes, unix_s: int) -> int:
        """Publishes and removes all but the newest two; returns the index up to which the log may go, 0 for none.
        Raises NoSpace, SyncFailed."""
        with self._lock:
            if snapshot.covers > self.newest_index:
                path = self._path(snapshot.covers, unix_s)
                size = 0

                def counted() -> Iterator[bytes]:
                    nonlocal size
                    for piece in encode_snapshot(snapshot, log_id):
                        size += len(piece)
                        yield piece

                replace_file(self._disk, path, counted())
                self._kept.append(Kept(snapshot.covers, path, size, snapshot.blobs))
            return self._keep_newest()

    def adopt(self, temporary: str, log_id: bytes, unix_s: int, last_index: int) -> int:
        """Publishes what `write_snapshot` has left, as `put` does. Raises SnapshotInvalid."""
        found = check_snapshot(self._disk, temporary, log_id)
        if found.covers > last_index:
            raise SnapshotInvalid(f"it covers index {found.covers}, and the log ends at {last_index}")
        with self._lock:
            if found.covers > self.newest_index:
                path = self._path(found.covers, unix_s)
                with write_errors(path):
                    self._disk.rename(temporary, path)
                with sync_errors(self._folder):
                    self._disk.sync_directory(self._folder)
                self._kept.append(found._replace(path=path))
            return self._keep_newest()

    def _path(self, covers: int, unix_s: int) -> str:
        return os.path.join(self._folder, f"{covers:010d}-{unix_s}.snap")

    def _keep_newest(self) -> int:
        if len(self._kept) < SNAPSHOTS_KEPT:
            return 0
        kept = self._kept[-SNAPSHOTS_KEPT:]
        self._remove_others({one.path for one in kept})
        self._kept = kept
        return kept[0].covers

    def _remove_others(self, keep: set[str]) -> None:
        others = [path for path in snapshot_paths(self._disk, self._folder) if path not in keep]
        for path in others:
            with write_errors(path):
                self._disk.unlink(path)
        if others:
            with sync_errors(self._folder):
                self._disk.sync_directory(self._folder)


def snapshot_paths(disk: Disk, folder: str) -> list[str]:
    """By index, oldest first."""
    if not disk.is_directory(folder):
        return []
    named = [(_NAME.fullmatch(name), name) for name in disk.list_directory(folder)]
    found = sorted((int(match[1]), int(match[2]), name) for match, name in named if match)
    return [os.path.join(folder, name) for _, _, name in found]


def encode_snapshot(snapshot: Snapshot, log_id: bytes) -> Iterator[bytes]:
    crc = 0
    for piece in _pieces(snapshot, log_id):
        crc = crc32c(piece, crc)
        yield piece
    yield _CRC.pack(crc)


def _pieces(snapshot: Snapshot, log_id: bytes) -> Iterator[bytes]:
    yield _HEADER.pack(_MAGIC, SNAPSHOT_FORMAT, log_id, snapshot.covers, len(snapshot.sections), len(snapshot.blobs))
    for name, data in sorted(snapshot.sections.items()):
        encoded = name.encode()
        yield _SECTION.pack(len(encoded), len(data)) + encoded
        yield data
    yield b"".join(sorted(snapshot.blobs))


def write_snapshot(disk: Disk, path: str, snapshot: Snapshot, log_id: bytes) -> int:
    """Writes and syncs a file that the log's owner will publish; returns its size. Raises NoSpace, SyncFailed,
    DirectoryUnusable."""
    offset = 0
    with write_errors(path):
        handle = disk.open(path, create=True)
        try:
            for piece in encode_snapshot(snapshot, log_id):
                disk.write(handle, piece, offset)
                offset += len(piece)
            with sync_errors(path):
                disk.sync_data(handle)
        finally:
            disk.close(handle)
    return offset


def check_snapshot(disk: Disk, path: str, log_id: bytes) -> Kept:
    """Reads a snapshot without holding it. Raises SnapshotInvalid, FileNotFoundError."""
    handle = disk.open_to_read(path)
    try:
        reader = _Reader(disk, handle)
        covers, section_count, blob_count = reader.header(log_id)
        for _ in range(section_count):
            _, length = reader.section()
            for offset in range(0, length, READ_BYTES):
                reader.take(min(READ_BYTES, length - offset))
        return Kept(covers, path, reader.size, reader.blobs(blob_count))
    finally:
        disk.close(handle)


def read_snapshot(disk: Disk, path: str, log_id: bytes) -> Snapshot:
    """The whole snapshot. Raises SnapshotInvalid, FileNotFoundError."""
    handle = disk.open_to_read(path)
    try:
        reader = _Reader(disk, handle)
        covers, section_count, blob_count = reader.header(log_id)
        sections: dict[str, bytes] = {}
        for _ in range(section_count):
            name, length = reader.section()
            sections[name] = reader.take(length)
        return Snapshot(covers, sections, reader.blobs(blob_count))
    finally:
        disk.close(handle)


class _Reader:
    """A snapshot file from its beginning to its end, with the checksum of what was taken. Nothing that it gave is
    to be trusted before `blobs` has returned."""

    def __init__(self, disk: Disk, handle: int) -> None:
        self._disk = disk
        self._handle = handle
        self.size = disk.size(handle)
        self._end = self.size - _CRC.size
        self._offset = 0
        self._crc = 0

    def take(self, size: int) -> bytes:
        if size > self._end - self._offset:
            raise SnapshotInvalid("its parts are longer than it is")
        data = self._disk.read(self._handle, size, self._offset)
        self._offset += size
        self._crc = crc32c(data, self._crc)
        return data

    def header(self, log_id: bytes) -> tuple[int, int, int]:
        """Index, number of sections and of blobs."""
        if self._end < _HEADER.size or not (head := self.take(_HEADER.size)).startswith(_MAGIC):
            raise SnapshotInvalid("it is no snapshot")
        _, layout, owner, index, section_count, blob_count = _HEADER.unpack(head)
        if layout != SNAPSHOT_FORMAT:
            raise SnapshotInvalid(f"it has format {layout}; this release knows format {SNAPSHOT_FORMAT}")
        if owner != log_id:
            raise SnapshotInvalid(f"it belongs to another log ({owner.hex()})")
        return index, section_count, blob_count

    def section(self) -> tuple[str, int]:
        """Name and length of the next section."""
        name_length, length = _SECTION.unpack(self.take(_SECTION.size))
        return self.take(name_length).decode(errors="replace"), length

    def blobs(self, count: int) -> frozenset[bytes]:
        """What is left: the digests; then everything is checked."""
        if self._offset + count * _DIGEST_BYTES != self._end:
            raise SnapshotInvalid("its length is not that of its parts")
        data = self.take(count * _DIGEST_BYTES)
        if self._crc != _CRC.unpack(self._disk.read(self._handle, _CRC.size, self._end))[0]:
            raise SnapshotInvalid("it does not match its checksum")
        return frozenset(data[at : at + _DIGEST_BYTES] for at in range(0, len(data), _DIGEST_BYTES))
