"""When snapshots are made, what becomes of the log before them, and what a child leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flo.grid.rebuild import rebuilt
from flo.grid.snapshotter import Snapshotter, make_file
from flo.log.contract import Frame, LoggedEvent
from flo.log.file.backend import FileBackend
from flo.log.file.ephemeral import EphemeralBackend
from flo.log.inspect import verify
from flo.primitives.kv_events import KvPut
from flo.primitives.machines import Machines, encode

BYTES_MIN = 40_000
SEGMENT_BYTES = 20_000


def put(number: int) -> LoggedEvent:
    event = KvPut("default", b"key%d" % (number % 20), b"v%d " % number + b"x" * 1_000, 0)
    return KvPut.KIND, KvPut.VERSION, encode(event)


def write(log: Any, count: int) -> int:
    for _ in range(count):
        first = log.last_index + 1
        log.append([Frame(first, 1_000 + first, log.epoch, [put(first + n) for n in range(5)])])
    return int(log.last_index)


class Making(Snapshotter):
    """Runs what the child runs in this process, and counts."""

    def __init__(self, log: Any, **options: Any) -> None:
        self.warnings: list[str] = []
        self.made: list[int] = []
        directory = log.directory.path
        super().__init__(log, directory, self.warnings.append, lambda: None, bytes_min=BYTES_MIN, **options)

    def _run_child(self, command: list[str]) -> tuple[str, bool]:
        self.made.append(int(command[4]))
        directory, index, path = command[3:]
        make_file(directory, int(index), path)
        return "", False

    def wrote(self, index: int) -> None:
        """As `on_durable`, without the thread."""
        self._durable = index


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FileBackend]:
    made = FileBackend(str(tmp_path / "data"), segment_bytes=SEGMENT_BYTES)
    made.open()
    made.claim()
    yield made
    made.close()


def state(log: FileBackend) -> dict[str, bytes]:
    return rebuilt(log, Machines())[0].dump()


def test_a_snapshot_is_begun_when_the_log_outgrows_the_minimum_and_the_last_one(log: FileBackend):
    snapshots = Making(log)
    snapshots.wrote(write(log, 7))
    snapshots.look()
    assert snapshots.made == []

    snapshots.wrote(write(log, 3))
    snapshots.look()
    assert snapshots.made == [50]
    assert log.snapshot_size > 0
    for _ in range(100):
        snapshots.wrote(write(log, 1))
        size, since = log.snapshot_size, log.size_since_snapshot()
        before = len(snapshots.made)
        snapshots.look()
        assert (len(snapshots.made) > before) == (since >= max(BYTES_MIN, size))
    assert len(snapshots.made) > 3
    assert snapshots.warnings == []


def test_a_restart_from_a_snapshot_is_as_one_from_the_whole_log(log: FileBackend):
    write(log, 30)
    before = state(log)
    snapshots = Making(log)
    snapshots.wrote(log.last_index)
    snapshots.look()

    assert log.snapshot_index == log.last_index
    assert state(log) == before
    write(log, 3)
    after = state(log)
    log._snapshots._kept.clear()
    assert state(log) == after


def test_when_nothing_is_written_any_more_the_log_goes_but_for_its_last_segment(log: FileBackend):
    snapshots = Making(log)
    last = write(log, 60)
    before = state(log)
    snapshots.wrote(last)
    snapshots.tidy()

    assert snapshots.made[-1] == last
    assert log.segment_bytes <= 2 * SEGMENT_BYTES
    assert state(log) == before
    made = len(snapshots.made)
    snapshots.tidy()
    assert len(snapshots.made) == made, "an idle node does nothing"
    assert verify(log.directory.path).ok


def test_a_small_log_is_left_alone(log: FileBackend):
    snapshots = Making(log)
    snapshots.wrote(write(log, 10))
    snapshots.tidy()

    assert snapshots.made == []


def test_live_events_outlive_the_log_that_goes(log: FileBackend):
    live = set(range(1, 100, 7))
    snapshots = Making(log, live=lambda first, last: sorted(index for index in live if first <= index <= last))
    for _ in range(6):
        snapshots.wrote(write(log, 15))
        snapshots.look()
    snapshots.tidy()

    assert log._segments[0].first_index > 100
    assert log.read_events(sorted(live)) == [(put(index)[2], "warm") for index in sorted(live)]
    live.clear()
    snapshots.wrote(write(log, 1))
    snapshots.tidy()
    assert log.kept_bytes == 0


def test_a_snapshot_that_fails_is_told_and_tried_again_later(log: FileBackend):
    snapshots = Making(log)
    snapshots.wrote(write(log, 10))
    snapshots._run_child = lambda command: ("Traceback\nwhy it failed\n", True)  # type: ignore[method-assign]
    snapshots.on_durable(log.last_index)
    assert snapshots._thread is not None
    while not snapshots.warnings:
        assert snapshots._thread.is_alive()
        snapshots._thread.join(0.01)
    snapshots.close()

    assert snapshots.warnings == ["no snapshot was made: why it failed"]
    assert snapshots._look_at >= log.written_bytes + BYTES_MIN
    assert os.listdir(log.snapshot_folder) == []


def test_a_file_that_is_no_sound_snapshot_is_not_published(log: FileBackend):
    snapshots = Making(log)
    snapshots.wrote(write(log, 10))

    def damage(command: list[str]) -> tuple[str, bool]:
        said = Making._run_child(snapshots, command)
        path = Path(command[5])
        path.write_bytes(path.read_bytes()[:-9] + b"?" * 9)
        return said

    snapshots._run_child = damage  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="checksum"):
        snapshots.look()
    assert log.get_snapshot() is None
    assert os.listdir(log.snapshot_folder) == []


def test_an_ephemeral_log_lets_go_what_nobody_reads(tmp_path: Path):
    log = EphemeralBackend(str(tmp_path / "data"))
    log.open()
    log.claim()
    snapshots = Making(log, live=lambda first, last: [index for index in (3, 40) if first <= index <= last])
    for _ in range(10):
        snapshots.wrote(write(log, 10))
        snapshots.look()

    assert sum(log.store.sizes) <= BYTES_MIN
    assert log.read_events([40, 3, log.last_index]) == [(put(n)[2], "warm") for n in (40, 3, log.last_index)]
    with pytest.raises(KeyError):
        log.read_events([4])
    assert snapshots.made == []
    log.close()


def test_a_real_child_leaves_its_file_and_ends_with_its_parent(log: FileBackend, tmp_path: Path):
    last = write(log, 10)
    command = [sys.executable, "-m", "flo.grid.snapshotter", log.directory.path, str(last)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, str(tmp_path / "a.tmp")], stdin=pipe, env=environment) as child:
        assert child.wait(60) == 0
    log.publish_snapshot(str(tmp_path / "a.tmp"))
    assert log.snapshot_index == last

    orphan = subprocess.Popen([*command, "/proc/none/b.tmp"], stdin=subprocess.DEVNULL, env=environment)
    assert orphan.wait(60) == 1


def test_writing_goes_on_while_a_snapshot_is_made(log: FileBackend):
    snapshots = Making(log)
    making, go_on = threading.Event(), threading.Event()

    def hold(command: list[str]) -> tuple[str, bool]:
        making.set()
        assert go_on.wait(30)
        return Making._run_child(snapshots, command)

    snapshots._run_child = hold  # type: ignore[method-assign]
    snapshots.on_durable(write(log, 10))
    assert making.wait(30)
    write(log, 10)
    go_on.set()
    while log.snapshot_index == 0 or snapshots.busy:
        assert snapshots._thread is not None
        snapshots._thread.join(0.01)
    snapshots.close()

    assert snapshots.made[0] == 50
    assert snapshots.warnings == []
