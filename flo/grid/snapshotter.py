"""Snapshots while a node runs: another process replays the log onto the last one, the node publishes what comes back.

The child is executed, never forked (threads and locks do not survive a fork), reads the directory without
owning it, and holds no lock of the node: writing goes on meanwhile. `python -m flo.grid.snapshotter DIR INDEX`
writes the msgpack of (index, sections, digests of blobs) to its standard output.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import msgspec

from flo.grid.partition import replay
from flo.log.contract import LogBackend
from flo.log.errors import LogError
from flo.primitives.machines import Machines

SNAPSHOT_BYTES_MIN = 64 * 1024 * 1024  # of log since the last one, before another is begun
CHECK_EVENTS = 16_384  # between two looks at the log's size

Image = tuple[int, dict[str, bytes], list[bytes]]

_decode = msgspec.msgpack.Decoder(Image).decode


class Snapshotter:
    """`on_durable` is cheap and called from the flusher's thread; the work happens in a thread of its own."""

    def __init__(
        self,
        backend: LogBackend,
        directory: str,
        on_warning: Callable[[str], None] | None,
        on_published: Callable[[], None],
        *,
        bytes_min: int = SNAPSHOT_BYTES_MIN,
    ) -> None:
        self._backend = backend
        self._directory = directory
        self._on_warning = on_warning
        self._on_published = on_published  # called without any lock, from the thread that made the snapshot
        self._bytes_min = bytes_min
        self._checked = 0
        self._last_size = 0
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self.newest = 0  # index of the newest one that this made

    def on_durable(self, index: int) -> None:
        if index - self._checked < CHECK_EVENTS or self._stopping:
            return
        self._checked = index
        if self._thread is not None and self._thread.is_alive():
            return
        if self._backend.size_since_snapshot() >= max(self._bytes_min, self._last_size):
            self._thread = threading.Thread(target=self._make, args=(index,), name="flo-snapshot", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends a snapshot that is being made: the next start replays a little more instead."""
        self._stopping = True
        child = self._child
        if child is not None:
            child.kill()
        if self._thread is not None:
            self._thread.join()

    def _make(self, index: int) -> None:
        command = [sys.executable, "-m", "flo.grid.snapshotter", self._directory, str(index)]
        pipe = subprocess.PIPE
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        except OSError as error:
            self._warn(f"no snapshot was made: {error}")
            return
        if self._stopping:  # `close` may have looked just before
            self._child.kill()
        out, err = self._child.communicate()
        failed = self._child.returncode != 0
        self._child = None
        if self._stopping:
            return
        if failed:
            self._warn(f"no snapshot was made: {err.decode(errors='replace').strip().splitlines()[-1:]}")
            return
        try:
            covers, sections, blobs = _decode(out)
            self._backend.put_snapshot(covers, sections, frozenset(blobs))
            self._last_size = len(out)
            self.newest = covers
            self._on_published()
        except LogError as error:
            self._warn(f"the snapshot at {index} could not be written: {error}")
            return

    def _warn(self, text: str) -> None:
        if self._on_warning is not None:
            self._on_warning(text)


def make_image(directory: str, index: int) -> Image:
    """The state at `index`, from the newest snapshot and the log after it. Raises LogDamaged."""
    from flo.log.inspect import newest_snapshot, read_frames

    machines = Machines()
    from_index = 1
    snapshot = newest_snapshot(directory)
    if snapshot is not None:
        machines.load(snapshot.sections)
        from_index = snapshot.covers + 1
    covers = from_index - 1
    for frame in read_frames(directory, from_index=from_index):
        last = frame.first_index + len(frame.events) - 1
        if last > index:
            break
        covers = replay(machines, [frame], from_index) if frame.events else covers
    return covers, machines.dump(), sorted(machines.named_blobs())


def main(arguments: list[str]) -> None:
    directory, index = arguments
    image = make_image(directory, int(index))
    sys.stdout.buffer.write(msgspec.msgpack.encode(image))


if __name__ == "__main__":
    main(sys.argv[1:])
