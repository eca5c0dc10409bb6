"""What becomes of live events when their segment goes, and of the files that hold them.

A segment of which at least half is live is linked into the folder `kept` before its name goes; of any other the
live events are copied to a kept file. What is less than half live at a later look is written anew without the
rest, and many small neighbours become one file. A file appears there whole and synced before anything that it
stands for is removed, so a crash leaves too much, never too little: a start removes what another file covers.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, TypeAlias

from flo.log.contract import LiveEvents
from flo.log.disk import Disk, make_folder, replace_file, sync_errors, write_errors
from flo.log.errors import DirectoryUnusable, LogDamaged
from flo.log.file.kept import (
    ENTRY_BYTES,
    KeptEvent,
    KeptFile,
    encode_kept,
    kept_name,
    kept_path,
    open_kept,
    read_events,
)
from flo.log.file.scan import Scanner, Window
from flo.log.file.segment import (
    SEGMENT_HEADER_BYTES,
    Segment,
    damaged,
    is_segment_name,
    parse_segment_header,
    read_footer,
    segment_path,
)

MERGE_FILES: Final = 8  # so many small neighbours become one file
MERGE_PART: Final = 8  # a file is small below this part of MERGE_BYTES
MERGE_BYTES: Final = 8 * 1024 * 1024  # of the file that they become, at most
REWRITE_BYTES: Final = 512 * 1024 * 1024  # that one look writes anew; the rest waits for the next

Holder: TypeAlias = Segment | KeptFile
_Looked: TypeAlias = tuple[Holder, Sequence[int]]  # a file and its live events


class Keeper:
    """The folder of kept files. `find`, `bytes` and `count` are for any thread, the rest for one at a time."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._folder = folder
        self._lock = threading.Lock()
        self._files: list[Holder] = []  # ascending, none within another
        self._firsts: list[int] = []  # their first indexes, for searching
        self._measured: dict[str, int] = {}  # live events of a whole segment when its live bytes were last counted
        self._turn = 0  # place of the file that `review` looks at next, besides the oldest
        self._log_id = b""

    def open(self, log_id: bytes) -> None:
        """Finds the kept files and removes what a crash has left beside the file that covers it. Raises LogDamaged,
        DirectoryUnusable."""
        self._log_id = log_id
        if not self._disk.is_directory(self._folder):
            return
        with sync_errors(self._folder):  # a name may be known to the page cache alone
            self._disk.sync_directory(self._folder)
        files, covered = find_kept(self._disk, self._folder, log_id)
        self._set(files)
        self._remove(covered)

    def find(self, index: int) -> Holder | None:
        """The file that stands for this index."""
        with self._lock:
            at = bisect_right(self._firsts, index) - 1
            if at < 0 or self._files[at].last_index < index:
                return None
            return self._files[at]

    @property
    def files(self) -> list[Holder]:
        with self._lock:
            return list(self._files)

    @property
    def held_bytes(self) -> int:
        return sum(file.end for file in self.files)

    def take(self, segment: Segment, live: Sequence[int]) -> None:
        """Makes the live events of a segment that is about to go outlast it. Raises NoSpace, SyncFailed, LogDamaged."""
        if not live or self.find(segment.first_index) is not None:  # a crash came between this and the segment's end
            return
        make_folder(self._disk, self._folder)
        limit = segment.end // 2 if segment.sealed else None
        events = live_events(self._disk, segment, live, limit)
        taken: Holder | None = self._link(segment) if events is None else None
        if taken is None:
            events = events if events is not None else live_events(self._disk, segment, live, None)
            assert events is not None
            taken = self._write(segment.first_index, segment.last_index, 1, events)
        self._set(sorted([*self.files, taken], key=lambda file: file.first_index))

    def review(self, live: LiveEvents, *, events: int | None = None) -> None:
        """Removes files without a live event, and writes anew what is mostly dead or in small pieces. With `events`
        only some files are looked at, until that many live events were seen: the oldest, where a stream is trimmed,
        and the others in turn. Raises NoSpace, SyncFailed; LogDamaged when everything else is done."""
        damage: LogDamaged | None = None
        dead: list[Holder] = []
        budget = REWRITE_BYTES
        files = self.files
        looked = [_look(files, live)] if events is None else self._in_turn(files, live, events)
        for group in chain.from_iterable(_groups(part, self._measured) for part in looked):
            old = [file for file, _ in group]
            if not any(found for _, found in group):
                dead += old
                continue
            try:
                written = self._merged(group)
            except LogDamaged as error:
                damage = damage or error
                continue
            if written in old:
                continue
            self._replace(old, written)
            budget -= written.end
            if budget < 0:
                break
        if dead:
            self._replace(dead)
        if damage is not None:
            raise damage

    def _replace(self, old: list[Holder], *new: Holder) -> None:
        gone = {file.path for file in old}
        left = [file for file in self.files if file.path not in gone]
        self._set(sorted([*left, *new], key=lambda file: file.first_index))
        self._remove(old)

    def _in_turn(self, files: list[Holder], live: LiveEvents, events: int) -> list[Iterable[_Looked]]:
        oldest = _some(files, live, events // 2)
        turn = self._turn if len(oldest) < self._turn < len(files) else len(oldest)
        others = _some(files[turn:], live, events // 2)
        self._turn = turn + len(others)
        return [oldest, others]

    def _merged(self, group: list[_Looked]) -> Holder:
        """A new file in place of these, or the same one when it turns out to be mostly live."""
        first, last = group[0][0], group[-1][0]
        events: list[KeptEvent] = []
        for file, live in group:
            if isinstance(file, KeptFile):
                wanted = frozenset(live)
                events += [event for event in read_events(self._disk, file) if event.log_index in wanted]
                continue
            found = live_events(self._disk, file, live, file.end // 2)
            if found is None:
                self._measured[file.path] = len(live)
                return file
            events += found
        if not events:
            raise damaged(first.path, 0, "none of the events is there that are still read")
        number = first.number + 1 if len(group) == 1 and isinstance(first, KeptFile) else 1
        return self._write(first.first_index, last.last_index, number, events)

    def _write(self, first_index: int, last_index: int, number: int, events: list[KeptEvent]) -> KeptFile:
        file = KeptFile(kept_path(self._folder, first_index, last_index, number), first_index, last_index, len(events))
        replace_file(self._disk, file.path, encode_kept(file, events, self._log_id))
        return file

    def _link(self, segment: Segment) -> Segment | None:
        """The whole segment under a second name; None where the file system has no such thing."""
        path = segment_path(self._folder, segment.first_index)
        try:
            self._disk.link(segment.path, path)
        except FileExistsError:
            return None
        except OSError:
            return None
        with sync_errors(self._folder):
            self._disk.sync_directory(self._folder)
        linked = Segment(path, segment.header)
        linked.adopt(segment.footer(0))
        return linked

    def _set(self, files: list[Holder]) -> None:
        with self._lock:
            self._files = files
            self._firsts = [file.first_index for file in files]

    def _remove(self, files: Sequence[Holder]) -> None:
        for file in files:
            self._measured.pop(file.path, None)
            with write_errors(file.path):
                self._disk.unlink(file.path)
        if files:
            with sync_errors(self._folder):
                self._disk.sync_directory(self._folder)


def _look(files: list[Holder], live: LiveEvents) -> Iterator[_Looked]:
    """These files with their live events, one after another: all of them at once may be more than memory holds."""
    for file in files:
        yield file, live(file.first_index, file.last_index)


def _some(files: list[Holder], live: LiveEvents, events: int) -> list[_Looked]:
    """The first of these files, with their live events, until that many were seen."""
    looked: list[_Looked] = []
    for file, found in _look(files, live):
        looked.append((file, found))
        events -= len(found)
        if events <= 0:
            break
    return looked


def _groups(looked: Iterable[_Looked], measured: dict[str, int]) -> Iterator[list[_Looked]]:
    """The files that should become one; single ones that are mostly dead; dead ones."""
    small: list[_Looked] = []
    small_bytes = 0
    for file, live in looked:
        size = live_bytes(file, live)
        is_small = isinstance(file, KeptFile) and 0 < size * MERGE_PART < MERGE_BYTES
        if not is_small or small_bytes + size > MERGE_BYTES:
            yield from _few_or_one(small)
            small, small_bytes = [], 0
        if is_small:
            small.append((file, live))
            small_bytes += size
        elif is_mostly_dead(file, live) and len(live) * 4 <= measured.get(file.path, len(live) * 4) * 3:
            yield [(file, live)]
    yield from _few_or_one(small)


def _few_or_one(small: list[_Looked]) -> Iterator[list[_Looked]]:
    """Small neighbours as one group when they are many; else each that is mostly dead."""
    if len(small) >= MERGE_FILES:
        yield small
        return
    for file, live in small:
        if is_mostly_dead(file, live):
            yield [(file, live)]


def find_kept(disk: Disk, folder: str, log_id: bytes) -> tuple[list[Holder], list[Holder]]:
    """The kept files of a folder, ascending, and those that another one covers. Raises LogDamaged,
    DirectoryUnusable, FileNotFoundError."""
    found: list[Holder] = []
    for name in disk.list_directory(folder):
        path = os.path.join(folder, name)
        if kept_name(name) is not None:
            found.append(open_kept(disk, path, log_id))
        elif is_segment_name(name):
            found.append(open_whole(disk, path, log_id))
        elif not name.endswith(".tmp"):
            raise DirectoryUnusable(
                f"{path} is no kept file of a log", hint="move it away: nothing else may lie in this folder"
            )
    found.sort(key=lambda file: (file.first_index, -file.last_index, -getattr(file, "number", 0)))
    files: list[Holder] = []
    covered: list[Holder] = []
    for file in found:
        if not files or file.first_index > files[-1].last_index:
            files.append(file)
        elif file.last_index <= files[-1].last_index:
            covered.append(file)
        else:
            raise damaged(file.path, 0, f"it stands for some of the events of {os.path.basename(files[-1].path)}")
    return files, covered


def open_whole(disk: Disk, path: str, log_id: bytes) -> Segment:
    """A segment that is kept as it is. Raises LogDamaged, FileNotFoundError."""
    handle = disk.open_to_read(path)
    try:
        header = parse_segment_header(disk.read(handle, SEGMENT_HEADER_BYTES, 0), path)
        if header.log_id != log_id:
            raise LogDamaged(
                f"{path} belongs to another log ({header.log_id.hex()})", hint="restore the directory from a backup"
            )
        size = disk.size(handle)
        try:
            footer = read_footer(disk, handle, size)
        except ValueError as error:
            raise damaged(path, size, str(error)) from None
    finally:
        disk.close(handle)
    if footer is None:
        raise damaged(path, size, "the kept segment has no footer")
    if segment_path(os.path.dirname(path), header.first_index) != path:
        raise damaged(path, 0, f"the segment begins at index {header.first_index}, which is not its name")
    segment = Segment(path, header)
    segment.adopt(footer)
    return segment


def is_mostly_dead(file: Holder, live: Sequence[int]) -> bool:
    return live_bytes(file, live) * 2 < file.end - file.offsets[0]


def live_bytes(file: Holder, live: Sequence[int]) -> int:
    """About how many of a file's bytes are live: events of one block count alike."""
    total = 0
    start = 0
    blocks = list(file.blocks())
    for at, (_, count, size) in enumerate(blocks):
        end = bisect_left(live, blocks[at + 1][0], start) if at + 1 < len(blocks) else len(live)
        if count:
            total += size * min(count, end - start) // count
        start = end
    return total


def live_events(disk: Disk, segment: Segment, live: Sequence[int], limit: int | None) -> list[KeptEvent] | None:
    """These events of a segment; None as soon as they take `limit` bytes. Raises LogDamaged, FileNotFoundError."""
    found: list[KeptEvent] = []
    size = 0
    place = 0
    handle = disk.open_to_read(segment.path)
    try:
        scanner = Scanner(
            Window(disk, handle, segment.end),
            segment.header,
            SEGMENT_HEADER_BYTES,
            next_index=segment.first_index,
            previous=segment.header.previous,
        )
        for batch in scanner:
            first, last = batch.header.first_index, batch.header.last_index
            if place == len(live) or live[place] > last:
                continue
            events = batch.frame(segment.path).events
            while place < len(live) and live[place] <= last:
                kind, version, payload = events[live[place] - first]
                found.append(KeptEvent(live[place], kind, version, payload))
                size += ENTRY_BYTES + len(payload)
                place += 1
            if limit is not None and size >= limit:
                return None
        if scanner.offset != segment.end:
            raise damaged(segment.path, scanner.offset, scanner.reason or "frames are missing")
    finally:
        disk.close(handle)
    return found
