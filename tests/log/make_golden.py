"""Writes a golden log: `python -m tests.log.make_golden FOLDER`, with kept files: `… FOLDER kept`.

Each format of a release keeps the log that was written with it, so that later releases prove to read it. Run it for
a new format only, into a new folder; what is there stays.
"""

from __future__ import annotations

import sys

from flo.log.contract import Frame
from flo.log.file.backend import FileBackend
from flo.log.frame import FRAME_BYTES

LOG_ID = bytes(range(16))
LARGE = bytes(number * 7 % 251 for number in range(FRAME_BYTES + 1_000))
BLOB = b"a blob of the golden log"


def frames() -> list[Frame]:
    """What the log holds, besides its claims."""
    made: list[Frame] = []
    index = 1
    for number in range(60):
        batch = [(1 + number, 1 + number % 3, b"event %d.%d" % (number, n) * (n + 1)) for n in range(number % 7 + 1)]
        made.append(Frame(index, 1_750_000_000_000 + number, 1 if number < 40 else 2, batch, b"origin" * (number % 2)))
        index += len(batch)
    made.append(Frame(index, 1_750_000_001_000, 2, [(99, 1, LARGE), (100, 1, b"")]))
    return made


def write(folder: str) -> None:
    whole = frames()
    for life in (1, 2):
        log = FileBackend(folder, segment_bytes=4_096, make_log_id=lambda: LOG_ID)
        log.open()
        assert log.claim() == life
        for frame in whole:
            if frame.epoch == life:
                log.append([frame])
        digest = log.put_blob(BLOB)
        log.put_snapshot(log.last_index, {"kv": b"kv %d" % life, "runs": b""}, frozenset([digest]))
        log.close()


def live(first: int, last: int) -> list[int]:
    """The events of the log with kept files that are still read: all of some segments, few of others."""
    return [index for index in range(first, last + 1) if index % 100 < 30 or index % 10 == 0]


def kept_payload(index: int) -> bytes:
    return b"kept %d " % index + b"k" * (index % 90)


def write_kept(folder: str) -> None:
    log = FileBackend(folder, segment_bytes=1_000, make_log_id=lambda: LOG_ID)
    log.open()
    log.claim()
    for first in range(1, 301, 10):
        log.append([Frame(first, 1_750_000_000_000, 1, [(300, 1, kept_payload(first + n)) for n in range(10)])])
        if first % 70 == 61:
            log.put_snapshot(log.last_index, {}, frozenset(), live=live)
    log.close()


if __name__ == "__main__":
    (write_kept if sys.argv[2:] == ["kept"] else write)(sys.argv[1])
