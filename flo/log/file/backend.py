"""The log in a directory: `FileBackend`."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from flo.log.cache import Block, BlockCache
from flo.log.contract import WARM, Frame, LiveEvents, LogInfo
from flo.log.disk import Disk, SystemDisk, make_folder, sync_errors, sync_upwards, write_errors
from flo.log.errors import LogDamaged, LogError, LogFenced, NoSpace, SyncFailed
from flo.log.file.blobs import Blobs
from flo.log.file.directory import LOG_ID_BYTES, Directory, remove_temporary
from flo.log.file.keeper import Holder, Keeper
from flo.log.file.kept import KeptFile, read_block
from flo.log.file.recovery import closing_mark, inspect_log, segment_paths, settle_last
from flo.log.file.scan import Scanner, Window
from flo.log.file.segment import SEGMENT_HEADER_BYTES, Segment, SegmentHeader, damaged
from flo.log.file.snapshots import Snapshot, Snapshots, snapshot_paths
from flo.log.file.writer import SegmentWriter
from flo.log.frame import CLAIM, encode_batch, encode_frame, frame_crc

SEGMENT_BYTES: Final = 8 * 1024 * 1024  # a segment this long is followed by the next; a batch may overfill it
RESERVE_BYTES: Final = 8 * 1024 * 1024  # kept back by `reserve` for deletes, acknowledgements and timers
REVIEW_EVENTS: Final = 500_000  # live ones that a snapshot looks through in kept files, to see what they still hold
BACKGROUND_FLUSH_SECONDS: Final = 0.001  # async_flush: about what a power loss takes


def new_log_id() -> bytes:
    return os.urandom(LOG_ID_BYTES)


class FileBackend:
    """LogBackend in a directory. `append` syncs before it returns; with `background` a thread syncs about every
    BACKGROUND_FLUSH_SECONDS instead (`flush_thread=False`: only `flush` does)."""

    def __init__(
        self,
        path: str,
        *,
        background: bool = False,
        flush_thread: bool = True,
        disk: Disk | None = None,
        shards: int = 0,
        partitions: int = 0,
        segment_bytes: int = SEGMENT_BYTES,
        make_log_id: Callable[[], bytes] = new_log_id,
    ) -> None:
        self._disk = disk if disk is not None else SystemDisk()
        self.directory = Directory(self._disk, path, shards=shards, partitions=partitions)
        shard = self.directory.shard
        self._segment_folder = os.path.join(shard, "segs")
        self._snapshot_folder = os.path.join(shard, "snaps")
        self._blob_folder = os.path.join(shard, "blobs")
        self._kept_folder = os.path.join(shard, "kept")
        self._snapshots = Snapshots(self._disk, self._snapshot_folder)
        self._blobs = Blobs(self._disk, self._blob_folder)
        self._keeper = Keeper(self._disk, self._kept_folder)
        self._cache = BlockCache()
        self._segment_bytes = segment_bytes
        self._make_log_id = make_log_id
        self._log_id = b""
        self._write_lock = threading.Lock()  # one append, claim or close at a time
        self._sync_lock = threading.Lock()  # the writer's handle stays open
        self._state_lock = threading.Lock()  # segments, and what was noted in them
        self._drop_lock = threading.Lock()  # one at a time takes the log's prefix away
        self._segments: list[Segment] = []  # the last is the writer's
        self._writer: SegmentWriter | None = None
        self._synced = 0
        self._epoch = 0
        self._dirty = False  # written to since the mark of an orderly close
        self._broken: LogError | None = None
        self.written_bytes = 0  # of frames, since `open`
        self._background = background
        self._flush_thread = flush_thread
        self._flusher: threading.Thread | None = None
        self._written = threading.Event()
        self._stop = threading.Event()

    # ------------------------------------------------------------------ opening and closing

    def open(self) -> LogInfo:
        self.directory.open()
        try:
            warnings = self._load()
        except BaseException:
            self._release()
            raise
        if self._background and self._flush_thread:
            self._flusher = threading.Thread(target=self._flush_loop, name="flo-log-sync", daemon=True)
            self._flusher.start()
        last = self._segments[-1]
        return LogInfo(
            self._log_id.hex(),
            self._segments[0].first_index,
            last.last_index,
            last.time_ms,
            self._epoch,
            self._snapshots.newest_index,
            self.directory.system.partitions,
            tuple(warnings),
        )

    def publish_socket(self, socket: str) -> None:
        """Writes into the lock file where this owner listens; others find it in DirectoryLocked."""
        self.directory.publish_owner(socket)

    def close(self) -> None:
        """Marks the log as closed in order, unless it is broken, and gives the directory free."""
        self._stop.set()
        self._written.set()
        if self._flusher is not None:
            self._flusher.join()
            self._flusher = None
        with self._write_lock:
            try:
                if self._writer is not None and self._dirty and self._broken is None:
                    self._sync()
                    self._mark_closed(self._writer)
            finally:
                self._release()

    def _load(self) -> list[str]:
        directory = self.directory
        for folder in (self._segment_folder, self._snapshot_folder, self._blob_folder, self._kept_folder):
            if self._disk.is_directory(folder):
                remove_temporary(self._disk, folder)
        paths = segment_paths(self._disk, self._segment_folder)
        if not paths:
            self._create()
            return []
        known = bytes.fromhex(directory.system.log_id) or None
        if known is None:
            known = inspect_log(self._disk, paths[:1], log_id=None, snapshot_index=0).segments[0].header.log_id
        warnings = self._snapshots.load(known)
        newest = self._snapshots.newest_index
        found = inspect_log(self._disk, paths, log_id=known, snapshot_index=newest)
        first = found.segments[0].first_index
        if first > newest + 1:
            raise LogDamaged(
                f"{self._segment_folder}: the log begins at index {first}, and no good snapshot reaches up to it",
                hint="restore the directory from a backup",
            )
        self._log_id = known
        last = found.segments[-1]
        with sync_errors(self._segment_folder):  # a name may be known to the page cache alone
            self._disk.sync_directory(self._segment_folder)
        if not found.closed:
            settle_last(self._disk, last)
            self._blobs.sync_folders()
        for segment in found.unsealed:
            writer = SegmentWriter(self._disk, segment)
            try:
                writer.seal()
            finally:
                writer.close()
        self._keeper.open(known)
        directory.record(known.hex())
        self._segments = found.segments
        self._writer = SegmentWriter(self._disk, last)
        self._synced = last.last_index
        self._epoch = last.epoch
        return warnings + found.warnings

    def _create(self) -> None:
        held = self._disk.is_directory(self._kept_folder) and self._disk.list_directory(self._kept_folder)
        if self.directory.system.log_id or held or snapshot_paths(self._disk, self._snapshot_folder):
            raise LogDamaged(
                f"{self._segment_folder}: the log's segments are missing", hint="restore the directory from a backup"
            )
        for folder in (self._segment_folder, self._snapshot_folder, self._blob_folder):
            make_folder(self._disk, folder)
        sync_upwards(self._disk, self._segment_folder)
        self._log_id = self._make_log_id()
        self._writer = SegmentWriter.create(self._disk, self._segment_folder, SegmentHeader(self._log_id, 1, 0, 0, 0))
        self._segments = [self._writer.segment]
        self._keeper.open(self._log_id)
        self.directory.record(self._log_id.hex())

    def _mark_closed(self, writer: SegmentWriter) -> None:
        try:
            writer.write(closing_mark(writer.segment))
        except NoSpace:
            return  # the next start copies the last segment, as after a crash
        writer.sync()

    def _release(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.directory.close()

    # ------------------------------------------------------------------ appending

    @property
    def last_index(self) -> int:
        return self._segments[-1].last_index

    @property
    def epoch(self) -> int:
        return self._epoch

    def claim(self) -> int:
        with self._write_lock:
            writer = self._usable()
            segment = writer.segment
            epoch = self._epoch + 1
            data = encode_frame(
                b"",
                log_id=self._log_id,
                previous=segment.last_crc,
                first_index=segment.last_index + 1,
                count=0,
                epoch=epoch,
                time_ms=segment.time_ms,
                synced=self._synced,
                flags=CLAIM,
            )
            self._write(writer, data)
            self._sync()
            with self._state_lock:
                segment.note(segment.last_index + 1, 0, segment.end, segment.end + len(data), frame_crc(data), epoch, 0)
            writer.count(data)
            self._epoch = epoch
            return epoch

    def append(self, frames: Sequence[Frame]) -> None:
        with self._write_lock:
            writer = self._usable()
            self._check_frames(frames, writer.segment.last_index + 1)
            if writer.segment.end >= self._segment_bytes:
                writer = self._roll(writer)
            segment = writer.segment
            previous = segment.last_crc
            offset = segment.end
            parts: list[bytes] = []
            placed: list[tuple[Frame, int, int, int]] = []
            for frame in frames:
                encoded = encode_batch(frame, log_id=self._log_id, previous=previous, synced=self._synced)
                parts += encoded
                previous = frame_crc(encoded[-1])
                end = offset + sum(map(len, encoded))
                placed.append((frame, offset, end, previous))
                offset = end
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            self._write(writer, data)
            if not self._background:
                self._sync()
            with self._state_lock:
                for frame, start, end, crc in placed:
                    segment.note(frame.first_index, len(frame.events), start, end, crc, frame.epoch, frame.time_ms)
            writer.count(data)
            self.written_bytes += len(data)
            if self._background:
                self._written.set()
            else:
                self._synced = segment.last_index

    def settle(self, frames: Sequence[Frame]) -> bool:
        self._usable()
        return self.last_index >= frames[-1].first_index + len(frames[-1].events) - 1

    def flush(self) -> None:
        """Makes everything durable that was appended. Raises SyncFailed."""
        with self._sync_lock:
            writer = self._writer
            if writer is None:
                return
            target = writer.segment.last_index
            self._sync_writer(writer)
            self._synced = max(self._synced, target)

    def reserve(self, size: int, pending: int = 0) -> bool:
        # Looked at each time: others fill the disk too, and what is kept back must not be granted meanwhile.
        writer = self._writer
        room = writer.room if writer is not None else 0
        free = self._disk.free_bytes(self.directory.path) + room - pending
        return size + RESERVE_BYTES <= free

    def _usable(self) -> SegmentWriter:
        if self._broken is not None:
            raise self._broken
        assert self._writer is not None, "the log is open"
        try:
            self.directory.check_lock()
        except LogFenced as error:
            self._broken = error
            raise
        return self._writer

    def _check_frames(self, frames: Sequence[Frame], next_index: int) -> None:
        for frame in frames:
            assert frame.first_index == next_index, f"frame {frame.first_index} must begin at index {next_index}"
            assert frame.epoch == self._epoch, "frames bear the epoch of their claim"
            next_index += len(frame.events)

    def _write(self, writer: SegmentWriter, data: bytes) -> None:
        self._dirty = True
        try:
            writer.write(data)
        except SyncFailed as error:
            self._broken = error
            raise

    def _sync(self) -> None:
        with self._sync_lock:
            assert self._writer is not None
            self._sync_writer(self._writer)

    def _sync_writer(self, writer: SegmentWriter) -> None:
        try:
            writer.sync()
        except SyncFailed as error:
            self._broken = error
            raise

    def _roll(self, writer: SegmentWriter) -> SegmentWriter:
        """Begins the next segment, then seals this one: a sealed segment always has a successor."""
        segment = writer.segment
        try:
            if self._background:
                self.flush()
            header = SegmentHeader(
                self._log_id, segment.last_index + 1, segment.last_crc, segment.epoch, segment.time_ms
            )
            following = SegmentWriter.create(self._disk, self._segment_folder, header)
            with self._sync_lock:
                self._writer = following
            with self._state_lock:
                self._segments.append(following.segment)
            try:
                writer.seal()
            finally:
                writer.close()
        except SyncFailed as error:
            self._broken = error
            raise
        return following

    def _flush_loop(self) -> None:
        while not self._stop.is_set():  # looked at again: `clear` may have wiped out the wake-up of `close`
            self._written.wait()
            if self._stop.wait(BACKGROUND_FLUSH_SECONDS):
                return
            self._written.clear()
            try:
                self.flush()
            except SyncFailed:
                return  # `_broken` keeps it: the next append raises it

    # ------------------------------------------------------------------ reading

    def read(self, from_index: int = 1) -> Iterator[Frame]:
        with self._state_lock:
            first = self._segments[0].first_index
            places = [
                (segment, segment.place_before(from_index), segment.end)
                for segment in self._segments
                if segment.last_index >= max(from_index, segment.first_index)
            ]
        if from_index < first:
            raise LogDamaged(
                f"{self._segment_folder}: the log reaches back to index {first} only, not to {from_index}",
                hint="read on from the newest snapshot",
            )
        return self._frames(places, from_index)

    def _frames(self, places: list[tuple[Segment, tuple[int, int], int]], from_index: int) -> Iterator[Frame]:
        for segment, place, end in places:
            yield from read_segment(self._disk, segment, place, end, from_index)

    def read_events(self, indexes: Sequence[int]) -> list[tuple[bytes, str]]:
        found = [(b"", WARM)] * len(indexes)
        block: Block | None = None
        for place in sorted(range(len(indexes)), key=indexes.__getitem__):
            index = indexes[place]
            payload = block.get(index) if block is not None else None
            if payload is None:
                block = self._block_with(index)
                payload = block.get(index)
                if payload is None:
                    raise KeyError(index)
            found[place] = (payload, WARM)
        return found

    def _block_with(self, index: int) -> Block:
        """Neighbouring events with this one, if the log has it. Raises KeyError, LogDamaged."""
        missing = ""
        while True:
            holder, (first, offset, end) = self._holder_of(index)
            key = -first if isinstance(holder, KeptFile) else first
            block = self._cache.get(key)
            if block is not None and block.get(index) is not None:
                return block
            try:
                if isinstance(holder, KeptFile):
                    block = read_block(self._disk, holder, offset, end)
                else:
                    block = read_segment_block(self._disk, holder, first, offset, end)
            except FileNotFoundError:
                if holder.path == missing:
                    raise damaged(missing, 0, "the file is missing") from None
                missing = holder.path  # another look: it may just have been replaced by another file
                continue
            self._cache.put(key, block)
            return block

    def _holder_of(self, index: int) -> tuple[Holder, tuple[int, int, int]]:
        """The file with this event, and the block in it: first index, offset, end."""
        with self._state_lock:
            segments = self._segments
            at = bisect_right(segments, index, key=lambda segment: segment.first_index) - 1
            if at >= 0 and index <= segments[at].last_index:
                return segments[at], segments[at].block_of(index)
        kept = self._keeper.find(index)
        if kept is None:
            raise KeyError(index)
        return kept, kept.block_of(index)

    # ------------------------------------------------------------------ blobs and snapshots

    def put_blob(self, data: bytes, *, tenant: str = "default") -> bytes:
        return self._blobs.put(data, tenant)

    def get_blob(self, digest: bytes, *, tenant: str = "default") -> bytes:
        return self._blobs.get(digest, tenant)

    def has_blob(self, digest: bytes, *, tenant: str = "default") -> bool:
        return self._blobs.has(digest, tenant)

    def unpin(self, digest: bytes, *, tenant: str = "default") -> None:
        self._blobs.unpin(digest, tenant)

    def sweep(self, live: frozenset[bytes], *, tenant: str = "default") -> int:
        return self._blobs.sweep(live | self._snapshots.blobs(), tenant)

    def put_snapshot(
        self,
        index: int,
        sections: dict[str, bytes],
        blobs: frozenset[bytes],
        *,
        live: LiveEvents | None = None,
    ) -> None:
        assert index <= self.last_index, "a snapshot holds what is in the log"
        if self._background:
            self.flush()
        keep_above = self._snapshots.put(
            Snapshot(index, sections, blobs), self._log_id, self._segments[-1].time_ms // 1000
        )
        self._drop_prefix(keep_above, live)

    def publish_snapshot(self, temporary: str, *, live: LiveEvents | None = None) -> None:
        """As `put_snapshot`, of the file in the folder of snapshots that `write_snapshot` has left there. Raises
        SnapshotInvalid."""
        if self._background:
            self.flush()
        keep_above = self._snapshots.adopt(temporary, self._log_id, self._segments[-1].time_ms // 1000, self.last_index)
        self._drop_prefix(keep_above, live)

    def review_kept(self, live: LiveEvents) -> None:
        """Gives free what kept files hold for nobody any more; a snapshot looks at some of them only. Raises NoSpace,
        SyncFailed, LogDamaged."""
        with self._drop_lock:
            self._keeper.review(live)

    @property
    def snapshot_folder(self) -> str:
        return self._snapshot_folder

    @property
    def snapshot_size(self) -> int:
        """Bytes of the newest snapshot; 0 without one."""
        return self._snapshots.newest_size

    @property
    def snapshot_index(self) -> int:
        return self._snapshots.newest_index

    @property
    def segment_bytes(self) -> int:
        """Of all segments, those before the newest snapshot too, and without kept files."""
        with self._state_lock:
            return sum(segment.end for segment in self._segments)

    @property
    def kept_bytes(self) -> int:
        return self._keeper.held_bytes

    @property
    def last_segment_index(self) -> int:
        """The first index of the segment that is being written."""
        with self._state_lock:
            return self._segments[-1].first_index

    def get_snapshot(self) -> tuple[int, dict[str, bytes]] | None:
        snapshot = self._snapshots.newest(self._log_id)
        return None if snapshot is None else (snapshot.covers, snapshot.sections)

    def size_since_snapshot(self) -> int:
        newest = self._snapshots.newest_index
        with self._state_lock:
            return sum(
                segment.end - segment.place_before(newest + 1)[1]
                for segment in self._segments
                if segment.last_index > newest
            )

    def _drop_prefix(self, index: int, live: LiveEvents | None) -> None:
        """Removes whole segments up to this index, the oldest first and each for good before the next, so that a
        crash never leaves a gap. What is live in one is kept before it goes."""
        with self._drop_lock:
            while (segment := self._oldest_up_to(index)) is not None:
                if live is not None:
                    self._keeper.take(segment, live(segment.first_index, segment.last_index))
                with self._state_lock:
                    self._segments.pop(0)
                with write_errors(segment.path):
                    self._disk.unlink(segment.path)
                with sync_errors(self._segment_folder):
                    self._disk.sync_directory(self._segment_folder)
            if live is not None:
                self._keeper.review(live, events=REVIEW_EVENTS)

    def _oldest_up_to(self, index: int) -> Segment | None:
        with self._state_lock:
            if len(self._segments) < 2 or self._segments[0].last_index > index:
                return None
            return self._segments[0]


def read_segment_block(disk: Disk, segment: Segment, first_index: int, offset: int, end: int) -> Block:
    """The payloads of the frames between two offsets. Raises LogDamaged, FileNotFoundError."""
    payloads: list[bytes] = []
    handle = disk.open_to_read(segment.path)
    try:
        scanner = Scanner(
            Window(disk, handle, end, block=end - offset),
            segment.header,
            offset,
            next_index=first_index,
            previous=segment.header.previous if offset == SEGMENT_HEADER_BYTES else None,
        )
        for batch in scanner:
            payloads += [event[2] for event in batch.frame(segment.path).events]
        if scanner.offset != end:
            raise damaged(segment.path, scanner.offset, scanner.reason or "frames are missing")
    finally:
        disk.close(handle)
    return Block(first_index, payloads)


def read_segment(disk: Disk, segment: Segment, place: tuple[int, int], end: int, from_index: int) -> Iterator[Frame]:
    """The frames from a place (first index, offset) to an end that hold events from this index on. Raises
    LogDamaged."""
    next_index, offset = place
    try:
        handle = disk.open_to_read(segment.path)
    except FileNotFoundError:
        raise LogDamaged(
            f"{segment.path}: gone; the log no longer reaches back to index {from_index}",
            hint="read on from the newest snapshot",
        ) from None
    try:
        scanner = Scanner(
            Window(disk, handle, end),
            segment.header,
            offset,
            next_index=next_index,
            previous=segment.header.previous if offset == SEGMENT_HEADER_BYTES else None,
        )
        for batch in scanner:
            if batch.header.event_count and batch.header.last_index >= from_index:
                yield batch.frame(segment.path)
        if scanner.offset != end:
            raise damaged(segment.path, scanner.offset, scanner.reason or "frames are missing")
    finally:
        disk.close(handle)
