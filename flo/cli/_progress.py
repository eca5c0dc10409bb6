"""A line on stderr that shows that something long goes on; on a terminal only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from flo.cli import _out
from flo.log.disk import SystemDisk

AFTER_SECONDS: Final = 1.0  # what is quicker shows nothing
EVERY_SECONDS: Final = 0.25


class CountingDisk(SystemDisk):
    """Counts the bytes that are read through it."""

    def __init__(self) -> None:
        self.bytes_read = 0

    def read(self, handle: int, size: int, offset: int) -> bytes:
        data = super().read(handle, size, offset)
        self.bytes_read += len(data)
        return data


@contextmanager
def reading(what: str) -> Iterator[CountingDisk]:
    """`what` goes on for as long as the block, and reads through the disk that it gets."""
    disk = CountingDisk()
    if not _out.is_terminal(sys.stderr):
        yield disk
        return
    done = threading.Event()
    thread = threading.Thread(target=_tell, args=(what, disk, done), name="flo-progress", daemon=True)
    thread.start()
    try:
        yield disk
    finally:
        done.set()
        thread.join()


def _tell(what: str, disk: CountingDisk, done: threading.Event) -> None:
    if done.wait(AFTER_SECONDS):
        return
    while not done.wait(EVERY_SECONDS):
        sys.stderr.write(f"\r\x1b[2K{what}: {disk.bytes_read / 1_000_000:,.0f} MB read")
        sys.stderr.flush()
    sys.stderr.write("\r\x1b[2K")
    sys.stderr.flush()
