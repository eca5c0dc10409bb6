"""Looking at a log without owning it: what `flo log verify`, `flo log dump` and `flo server inspect` show.

Nothing is locked or changed, and an owner may go on writing meanwhile: what it is just writing, rolling or
removing is no damage.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from flo.log.contract import Frame
from flo.log.disk import Disk, SystemDisk, read_file
from flo.log.errors import DirectoryUnusable, LogDamaged
from flo.log.file.blobs import blob_files
from flo.log.file.directory import Owner, System, owner_of, read_system
from flo.log.file.keeper import open_whole
from flo.log.file.kept import kept_name, open_kept, read_events
from flo.log.file.recovery import broken_link, content_crc, scan_segment, segment_paths
from flo.log.file.scan import Batch, Scanner, Window, inspect_tail
from flo.log.file.segment import (
    SEGMENT_HEADER_BYTES,
    Segment,
    damaged,
    is_segment_name,
    parse_segment_header,
    read_footer,
    segment_path,
)
from flo.log.file.snapshots import Snapshot, SnapshotInvalid, check_snapshot, read_snapshot, snapshot_paths
from flo.log.frame import CLOSED, FrameInvalid, decode_events

LOOKS: Final = 3  # at a segment whose end looks damaged: an owner may have been writing it


class Problem(NamedTuple):
    """Damage: the log is not what was written, or cannot be read by this release."""

    file: str
    offset: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}: offset {self.offset}: {self.text}"


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    file: str
    index: int  # 0 when it cannot be read
    ok: bool
    size: int = 0  # bytes


@dataclass
class Report:
    """What `verify` found."""

    directory: str
    system: System | None = None
    first_index: int = 0
    last_index: int = 0
    epoch: int = 0
    segments: int = 0
    segment_bytes: int = 0
    frames: int = 0
    events: int = 0
    kept_files: int = 0
    kept_bytes: int = 0
    kept_events: int = 0
    snapshots: list[SnapshotReport] = field(default_factory=list)
    blobs: int = 0
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # what the next start repairs or ignores

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class DumpedEvent:
    index: int
    time_ms: int
    epoch: int
    kind: int
    version: int
    size: int  # of the payload, in bytes
    value: Any  # what `decode` made of it


@dataclass(frozen=True, slots=True)
class Survey:
    """What `survey` found."""

    directory: str
    system: System
    owner: Owner | None  # who locked it last; it need not be there any more
    shards: list[Report]

    @property
    def damage(self) -> Problem | None:
        """The first."""
        return next((problem for shard in self.shards for problem in shard.problems), None)


def survey(directory: str, *, disk: Disk | None = None) -> Survey:
    """The whole directory: its topology, and for each shard what its log holds and whether that is sound. Raises
    DirectoryUnusable when there is none."""
    disk = disk or SystemDisk()
    system = _system(disk, directory)
    return Survey(directory, system, owner_of(directory, disk), [verify(directory, disk=disk)])


def verify(directory: str, *, disk: Disk | None = None) -> Report:
    """Checks every checksum and the chain. Raises DirectoryUnusable when there is no log to check."""
    disk = disk or SystemDisk()
    system = _system(disk, directory)
    report = Report(directory, system)
    shard = os.path.join(directory, "00000")
    folder = os.path.join(shard, "segs")
    before: Segment | None = None
    paths = segment_paths(disk, folder)  # first, so that a prefix dropped meanwhile is known to be in a snapshot
    snapshots = _verify_snapshots(disk, os.path.join(shard, "snaps"), system, report)
    if not paths and (system.log_id or snapshots):
        report.problems.append(Problem(folder, 0, "the log's segments are missing"))
    for number, path in enumerate(paths):
        try:
            before = _verify_segment(disk, path, number == len(paths) - 1, before, snapshots, report)
        except FileNotFoundError:
            before = None  # the owner has dropped it meanwhile, with all before it
        except LogDamaged as error:
            report.problems.append(Problem(path, error.offset, error.reason))
            before = None
    _verify_kept(disk, os.path.join(shard, "kept"), system, report)
    _verify_blobs(disk, os.path.join(shard, "blobs"), report)
    return report


def dump(
    directory: str,
    *,
    decode: Callable[[int, int, bytes], Any] = lambda kind, version, payload: payload,
    from_index: int = 0,
    disk: Disk | None = None,
) -> Iterator[DumpedEvent]:
    """Every event from an index on, decoded by `decode(kind, version, payload)`. Raises LogDamaged where it can
    read no further, and DirectoryUnusable."""
    for frame in read_frames(directory, from_index=from_index, disk=disk):
        for index, event in enumerate(frame.events, frame.first_index):
            if index >= from_index:
                kind, version, payload = event
                value = decode(kind, version, payload)
                yield DumpedEvent(index, frame.time_ms, frame.epoch, kind, version, len(payload), value)


def read_frames(directory: str, *, from_index: int = 0, disk: Disk | None = None) -> Iterator[Frame]:
    """The whole frames that are in the log now. An unfinished one at the very end is left out."""
    disk = disk or SystemDisk()
    log_id = _system(disk, directory).log_id
    paths = segment_paths(disk, os.path.join(directory, "00000", "segs"))
    before: Segment | None = None
    for number, path in enumerate(paths):
        if number + 1 < len(paths) and _index_in_name(paths[number + 1]) <= from_index:
            continue
        handle = disk.open_to_read(path)
        try:
            header = parse_segment_header(disk.read(handle, SEGMENT_HEADER_BYTES, 0), path)
            if log_id and header.log_id.hex() != log_id:
                raise LogDamaged(f"{path} belongs to another log ({header.log_id.hex()})")
            if before is not None and (reason := broken_link(before, header)):
                raise damaged(before.path, before.end, reason)
            before = Segment(path, header)
            size = disk.size(handle)
            scanner = Scanner(
                Window(disk, handle, size),
                header,
                SEGMENT_HEADER_BYTES,
                next_index=header.first_index,
                previous=header.previous,
            )
            for batch in scanner:
                head = batch.header
                if head.flags & CLOSED:
                    break
                before.note(
                    head.first_index, head.event_count, batch.offset, batch.end, head.crc, head.epoch, head.time_ms
                )
                if head.event_count and head.last_index >= from_index:
                    yield batch.frame(path)
            if number == len(paths) - 1 and (damage := _tail_damage(disk, handle, before, scanner, 0)):
                raise LogDamaged(str(damage))
        finally:
            disk.close(handle)


def newest_snapshot(directory: str, *, disk: Disk | None = None) -> Snapshot | None:
    """The newest good snapshot, or None."""
    disk = disk or SystemDisk()
    log_id = bytes.fromhex(_system(disk, directory).log_id)
    for path in reversed(snapshot_paths(disk, os.path.join(directory, "00000", "snaps"))):
        try:
            return read_snapshot(disk, path, log_id)
        except (SnapshotInvalid, FileNotFoundError):
            continue  # the one before it serves, as for the owner
    return None


def _system(disk: Disk, directory: str) -> System:
    if not disk.is_directory(directory):
        raise DirectoryUnusable(f"{directory} is not a directory", hint="name a data directory")
    path = os.path.join(directory, "SYSTEM")
    if disk.exists(path):
        return read_system(disk, path)
    if disk.is_directory(os.path.join(directory, "00000")):
        return System(1, 0, 0, 1, "")
    raise DirectoryUnusable(f"{directory} holds no log", hint="name a data directory")


def _index_in_name(path: str) -> int:
    return int(os.path.basename(path).partition(".")[0])


def _verify_segment(
    disk: Disk, path: str, last: bool, before: Segment | None, snapshot_index: int, report: Report
) -> Segment:
    for look in range(LOOKS):
        part = Report(report.directory)
        handle = disk.open_to_read(path)
        try:
            segment = _check_segment(disk, handle, path, last, before, snapshot_index, report.system, part)
        finally:
            disk.close(handle)
        if part.ok or not last or look == LOOKS - 1:
            break
    report.segments += 1
    report.segment_bytes += segment.end
    report.frames += part.frames
    report.events += part.events
    report.problems += part.problems
    report.warnings += part.warnings
    report.first_index = report.first_index or segment.first_index
    report.last_index = segment.last_index
    report.epoch = segment.epoch
    return segment


def _check_segment(
    disk: Disk,
    handle: int,
    path: str,
    last: bool,
    before: Segment | None,
    snapshot_index: int,
    system: System | None,
    report: Report,
) -> Segment:
    header = parse_segment_header(disk.read(handle, SEGMENT_HEADER_BYTES, 0), path)
    if header.first_index != _index_in_name(path):
        report.problems.append(Problem(path, 0, f"it begins at index {header.first_index}, which is not its name"))
    if system is not None and system.log_id and header.log_id.hex() != system.log_id:
        report.problems.append(Problem(path, 0, f"it belongs to another log ({header.log_id.hex()})"))
    if before is not None:
        if reason := broken_link(before, header):
            report.problems.append(Problem(before.path, before.end, reason))
    elif header.first_index > snapshot_index + 1 and not report.segments:
        text = f"the log begins at index {header.first_index}, and no good snapshot reaches up to it"
        report.problems.append(Problem(path, 0, text))
    segment = Segment(path, header)
    size = disk.size(handle)

    def count(batch: Batch) -> None:
        try:
            decode_events(batch.body, batch.header.event_count)
        except FrameInvalid as error:
            report.problems.append(Problem(path, batch.offset, str(error)))
        report.frames += batch.frames
        report.events += batch.header.event_count

    scanner, _ = scan_segment(disk, handle, size, segment, count)
    try:
        footer = read_footer(disk, handle, size)
    except ValueError as error:
        report.problems.append(Problem(path, segment.end, str(error)))
        return segment
    if footer is not None:
        if (footer.content_end, footer.last_index, footer.last_crc) != (
            segment.end,
            segment.last_index,
            segment.last_crc,
        ):
            report.problems.append(Problem(path, segment.end, scanner.reason or "sound frames end before the footer"))
        elif content_crc(disk, handle, segment.end) != footer.content_crc:
            report.problems.append(Problem(path, 0, "the segment does not match its checksum"))
        segment.adopt(footer)
        following = segment_path(os.path.dirname(path), segment.last_index + 1)
        if last and not disk.exists(following):  # looked up now: the owner may have rolled since the folder was listed
            report.problems.append(Problem(following, 0, "the segment is missing"))
    elif last:
        if damage := _tail_damage(disk, handle, segment, scanner, snapshot_index):
            report.problems.append(damage)
        elif scanner.reason:
            report.warnings.append(
                f"{path}: offset {scanner.offset}: {scanner.reason}: a write that is not finished, "
                "or that the next start cuts (torn tail)"
            )
    else:
        report.warnings.append(f"{path}: not sealed; the next start does that")
    return segment


def _tail_damage(disk: Disk, handle: int, segment: Segment, scanner: Scanner, snapshot_index: int) -> Problem | None:
    tail = inspect_tail(Window(disk, handle, disk.size(handle)), scanner.offset, segment.header.log_id)
    if scanner.newer or max(tail.synced, scanner.synced, snapshot_index) > segment.last_index:
        return Problem(segment.path, segment.end, f"{scanner.reason or 'frames are missing'}, in the middle of the log")
    return None


def _verify_snapshots(disk: Disk, folder: str, system: System, report: Report) -> int:
    """Returns the index of the newest good one. A bad one is a problem although a start only warns: it no longer
    serves for what it was kept."""
    newest = 0
    for path in snapshot_paths(disk, folder):
        try:
            snapshot = check_snapshot(disk, path, bytes.fromhex(system.log_id))
        except FileNotFoundError:
            continue  # its owner has removed it meanwhile
        except SnapshotInvalid as error:
            report.problems.append(Problem(path, 0, f"bad snapshot: {error}"))
            report.snapshots.append(SnapshotReport(path, 0, False))
            continue
        newest = snapshot.covers
        report.snapshots.append(SnapshotReport(path, snapshot.covers, True, snapshot.size))
    return newest


def _verify_kept(disk: Disk, folder: str, system: System, report: Report) -> None:
    """Every file on its own: one that another covers is only what a crash has left."""
    if not disk.is_directory(folder):
        return
    log_id = bytes.fromhex(system.log_id)
    for name in disk.list_directory(folder):
        path = os.path.join(folder, name)
        if name.endswith(".tmp"):
            continue
        try:
            if kept_name(name) is not None:
                file = open_kept(disk, path, log_id)
                events = sum(1 for _ in read_events(disk, file))
                size = file.end
            elif is_segment_name(name):
                events, size = _check_whole(disk, open_whole(disk, path, log_id))
            else:
                report.problems.append(Problem(path, 0, "it is no kept file of a log"))
                continue
        except FileNotFoundError:
            continue  # its owner has replaced it meanwhile
        except LogDamaged as error:
            report.problems.append(Problem(path, error.offset, error.reason))
            continue
        report.kept_files += 1
        report.kept_events += events
        report.kept_bytes += size


def _check_whole(disk: Disk, segment: Segment) -> tuple[int, int]:
    """Events and bytes of a segment that is kept as it is. Raises LogDamaged, FileNotFoundError."""
    handle = disk.open_to_read(segment.path)
    try:
        found = Segment(segment.path, segment.header)
        events = 0

        def count(batch: Batch) -> None:
            nonlocal events
            events += len(batch.frame(segment.path).events)

        scanner, _ = scan_segment(disk, handle, segment.end, found, count)
    finally:
        disk.close(handle)
    if (found.end, found.last_index, found.last_crc) != (segment.end, segment.last_index, segment.last_crc):
        raise damaged(segment.path, found.end, scanner.reason or "sound frames end before the footer")
    return events, segment.end


def _verify_blobs(disk: Disk, folder: str, report: Report) -> None:
    for path, digest in blob_files(disk, folder):
        try:
            found = hashlib.sha256(read_file(disk, path)).digest()
        except FileNotFoundError:
            continue  # swept meanwhile
        report.blobs += 1
        if found != digest:
            report.problems.append(Problem(path, 0, "the blob's content does not match its name"))
