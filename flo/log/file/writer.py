"""The segment that the log goes on in."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from crc32c import crc32c

from flo.log.disk import FULL, Disk, replace_file, sync_errors, write_errors
from flo.log.errors import NoSpace, SyncFailed
from flo.log.file.recovery import content_crc
from flo.log.file.segment import Segment, SegmentHeader, segment_path

ALLOCATE_BYTES: Final = 1024 * 1024  # room made ahead, so that a flush need not write the file's size


class SegmentWriter:
    """Writes behind `segment.end`. The caller notes in the segment what counts, once it does."""

    def __init__(self, disk: Disk, segment: Segment) -> None:
        self._disk = disk
        self.segment = segment
        self._handle = disk.open(segment.path)
        self._allocated = disk.size(self._handle)
        self._crc = content_crc(disk, self._handle, segment.end)
        self._crc_end = segment.end

    @classmethod
    def create(cls, disk: Disk, folder: str, header: SegmentHeader) -> SegmentWriter:
        """Publishes a new segment. Raises NoSpace, after which it may be tried again, SyncFailed, DirectoryUnusable."""
        path = segment_path(folder, header.first_index)
        replace_file(disk, path, [header.encode()])
        with write_errors(path):
            return cls(disk, Segment(path, header))

    @property
    def room(self) -> int:
        """Bytes that can be written without asking the disk for more."""
        return max(0, self._allocated - self.segment.end)

    def write(self, data: bytes) -> None:
        """Puts bytes behind the end. Raises NoSpace (nothing counts; the retry overwrites it), SyncFailed."""
        end = self.segment.end + len(data)
        try:
            self._make_room(end)
            try:
                self._disk.write(self._handle, data, self.segment.end)
            except OSError:
                with suppress(OSError):  # what stays is a torn tail: the retry overwrites it, a start cuts it
                    self._disk.write(self._handle, bytes(len(data)), self.segment.end)
                raise
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace(
                    f"{self.segment.path}: no space left on the disk",
                    hint="free some space; what waits is tried again by itself",
                ) from error
            raise SyncFailed(
                f"{self.segment.path}: the disk refused a write: {error.strerror}",
                hint="check the disk, then start again: the log is read back from the disk",
            ) from error

    def sync(self) -> None:
        """Raises SyncFailed."""
        with sync_errors(self.segment.path):
            self._disk.sync_data(self._handle)

    def count(self, data: bytes) -> None:
        """These bytes, just written, are part of the segment now."""
        self._crc = crc32c(data, self._crc)
        self._crc_end += len(data)

    def seal(self) -> None:
        """Writes the footer behind the frames and syncs. Without room for it the segment stays as it is, which the
        next start repairs. Raises SyncFailed."""
        assert self._crc_end == self.segment.end, "the checksum covers what was noted"
        footer = self.segment.footer(self._crc).encode()
        try:
            self.write(footer)
        except NoSpace:
            return
        with sync_errors(self.segment.path):
            self._disk.truncate(self._handle, self.segment.end + len(footer))
        self.sync()
        self.segment.sealed = True

    def close(self) -> None:
        self._disk.close(self._handle)

    def _make_room(self, end: int) -> None:
        missing = end - self._allocated
        if missing <= 0:
            return
        rounded = -(-missing // ALLOCATE_BYTES) * ALLOCATE_BYTES
        try:
            self._disk.allocate(self._handle, self._allocated, rounded)
        except OSError as error:
            if error.errno not in FULL:
                raise
            rounded = missing  # a nearly full disk may still hold this frame
            self._disk.allocate(self._handle, self._allocated, rounded)
        self._allocated += rounded
