"""Snapshots while a node runs: another process replays the log onto the last one, the node publishes its file.

The child is executed, never forked (threads and locks do not survive a fork), reads the directory without
owning it, and holds no lock of the node: writing goes on meanwhile. `python -m flo.grid.snapshotter DIR INDEX FILE`
leaves the state at INDEX in FILE, written and synced; it ends when its standard input does, as its parent has.

An ephemeral log has nothing to read or publish: there, only the frames that nobody reads any more are let go.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from flo.grid.partition import replay
from flo.log.contract import LiveEvents, LogBackend
from flo.log.disk import SystemDisk
from flo.log.errors import FloError, LogError, NoSpace
from flo.log.file.backend import RESERVE_BYTES, FileBackend
from flo.log.file.directory import read_system
from flo.log.file.ephemeral import EphemeralBackend
from flo.log.file.snapshots import Snapshot, SnapshotInvalid, write_snapshot
from flo.log.inspect import newest_snapshot, read_frames
from flo.primitives.machines import Machines

SNAPSHOT_BYTES_MIN: Final = 16 * 1024 * 1024  # of log since the last one, before another is begun
LOOK_BYTES: Final = 1024 * 1024  # of log between two looks at its size
QUIET_SECONDS: Final = 15.0  # without a write, and what is still left of the log is given free
NICE: Final = 5  # of the child: below the node, but not so far that the log outgrows what it reads


class Snapshotter:
    """`on_durable` is cheap and called from the flusher's thread; the work happens in a thread of its own.

    A snapshot is begun when the log since the last one outgrows both that one and `bytes_min`. Once nothing has been
    written for QUIET_SECONDS, two more leave but the last segment of a log that is over twice `bytes_min`.
    """

    def __init__(
        self,
        backend: LogBackend,
        directory: str,
        on_warning: Callable[[str], None] | None,
        on_published: Callable[[], None],
        *,
        bytes_min: int = SNAPSHOT_BYTES_MIN,
        live: LiveEvents | None = None,
    ) -> None:
        self._backend = backend
        self._directory = directory
        self._on_warning = on_warning
        self._on_published = on_published  # called without any lock, from the thread that made the snapshot
        self._bytes_min = bytes_min
        self._live = live
        self._durable = 0
        self._tidied = 0  # the durable index when the log was last given free
        self._look_at = 0  # how much was written when it is worth another look
        self._asleep = True  # until something is written
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[str] | None = None
        self._stopping = False
        self.busy = False
        self.newest = 0  # index of the newest one that this made

    def on_durable(self, index: int) -> None:
        self._durable = index
        if self._asleep or self._backend.written_bytes >= self._look_at:
            self._asleep = False
            self._wake.set()
            if self._thread is None and not self._stopping:
                thread = threading.Thread(target=self._run, name="flo-snapshot", daemon=True)
                thread.start()
                self._thread = thread  # begun: `close` joins it in another thread

    def close(self) -> None:
        """Ends a snapshot that is being made: the next start replays a little more instead."""
        self._stopping = True
        self._wake.set()
        child = self._child
        if child is not None:
            child.kill()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        seen = 0
        while not self._stopping:
            woken = self._wake.wait(None if self._asleep else QUIET_SECONDS)
            self.busy = True  # first: who looks at both finds one of them set until there is nothing to do
            self._wake.clear()
            try:
                if woken:
                    self.look()
                elif self._durable == seen:
                    self._asleep = True  # first: a write from here on wakes this up
                    self.tidy()
            except (FloError, OSError, SnapshotInvalid) as error:
                self._warn(f"no snapshot was made: {error}")
            finally:
                self.busy = False
            seen = self._durable

    def look(self) -> None:
        """Makes snapshots for as long as the log is too large."""
        backend = self._backend
        while not self._stopping:
            self._look_at = backend.written_bytes + min(LOOK_BYTES, self._bytes_min)
            if backend.size_since_snapshot() < self._bytes_min:
                return
            if isinstance(backend, EphemeralBackend):
                backend.let_go(self._durable, self._live)
                return
            if not isinstance(backend, FileBackend) or self._durable <= backend.snapshot_index:
                return
            if backend.size_since_snapshot() < backend.snapshot_size:
                return
            self._look_at = backend.written_bytes + self._bytes_min  # should it fail
            self._make(backend, self._durable)

    def tidy(self) -> None:
        """What is left when nothing is written any more: snapshots that let all of the log go but its last segment,
        and space in kept files that nobody reads."""
        backend = self._backend
        durable = self._durable
        if durable == self._tidied or not isinstance(backend, FileBackend):
            return
        self._tidied = durable
        for index in (backend.last_segment_index - 1, durable):
            if backend.segment_bytes <= max(2 * self._bytes_min, backend.snapshot_size) or self._stopping:
                break
            if index > backend.snapshot_index:
                self._make(backend, index)
        if self._live is not None and not self._stopping:
            backend.review_kept(self._live)

    def _make(self, backend: FileBackend, index: int) -> None:
        """One snapshot. Raises LogError, OSError, SnapshotInvalid."""
        temporary = os.path.join(backend.snapshot_folder, f"{index:010d}.tmp")
        command = [sys.executable, "-m", "flo.grid.snapshotter", self._directory, str(index), temporary]
        try:
            said, failed = self._run_child(command)
            if self._stopping:
                return
            if failed:
                raise LogError((said.strip().splitlines() or ["the process was ended"])[-1])
            backend.publish_snapshot(temporary, live=self._live)
        finally:
            with suppress(FileNotFoundError):  # published, or never begun
                os.unlink(temporary)
        self.newest = index
        self._on_published()

    def _run_child(self, command: list[str]) -> tuple[str, bool]:
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True) as child:
            self._child = child
            if self._stopping:  # `close` may have looked just before
                child.kill()
            assert child.stdout is not None
            said = child.stdout.read()
            child.wait()
        self._child = None
        return said, child.returncode != 0

    def _warn(self, text: str) -> None:
        if self._on_warning is not None and not self._stopping:
            self._on_warning(text)


def make_image(directory: str, index: int) -> Snapshot:
    """The state at `index`, from the newest snapshot and the log after it. Raises LogDamaged."""
    machines = Machines()
    from_index = 1
    snapshot = newest_snapshot(directory)
    if snapshot is not None:
        machines.load(snapshot.sections)
        from_index = snapshot.covers + 1
        del snapshot
    covers = from_index - 1
    for frame in read_frames(directory, from_index=from_index):
        last = frame.first_index + len(frame.events) - 1
        if last > index:
            break
        covers = replay(machines, [frame], from_index) if frame.events else covers
    return Snapshot(covers, machines.dump(), machines.named_blobs())


def make_file(directory: str, index: int, path: str) -> None:
    """Leaves the state at `index` in a file for the owner to publish. Raises LogDamaged, NoSpace."""
    disk = SystemDisk()
    log_id = bytes.fromhex(read_system(disk, os.path.join(directory, "SYSTEM")).log_id)
    image = make_image(directory, index)
    size = sum(map(len, image.sections.values()))
    if disk.free_bytes(directory) < size + 2 * RESERVE_BYTES:  # what is kept back is not for snapshots
        raise NoSpace(f"{path}: no room for a snapshot of {size} bytes")
    write_snapshot(disk, path, image, log_id)


def main(arguments: list[str]) -> None:
    directory, index, path = arguments
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICE)
    gc.disable()  # it visits a million keys again and again, and finds nothing
    make_file(directory, int(index), path)
    os._exit(0)  # nothing is left to do; taking the machines apart would take as long as loading them


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FloError as error:
        sys.exit(str(error))
