"""Events that are still read outlive their segment."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from flo.log.errors import LogDamaged
from flo.log.file import keeper
from flo.log.file.backend import FileBackend
from flo.log.file.kept import KeptFile
from flo.log.file.segment import Segment
from flo.log.inspect import verify
from flo.log.simdisk import PowerLoss, SimDisk
from tests.log.support import LOG_ID, append, crash, owned

SEGMENT_BYTES = 1_500
KEPT = "/data/00000/kept"


class Lives:
    """Which events are live: all, few or none of a stretch, above a floor that rises as a stream is trimmed."""

    def __init__(self, wanted: Callable[[int], bool]) -> None:
        self.wanted = wanted
        self.floor = 0

    def __call__(self, first: int, last: int) -> list[int]:
        return [index for index in range(max(first, self.floor), last + 1) if self.wanted(index)]


def stretches(index: int) -> bool:
    return (True, index % 5 == 0, False)[index // 40 % 3]


def payload(index: int) -> bytes:
    return b"payload %d " % index + b"x" * (index % 50)


def backend(disk: SimDisk) -> FileBackend:
    return FileBackend("/data", disk=disk, segment_bytes=SEGMENT_BYTES, make_log_id=lambda: LOG_ID)


def fill(log: FileBackend, count: int) -> None:
    for _ in range(count):
        append(log, payload(log.last_index + 1), payload(log.last_index + 2))


def check(log: FileBackend, live: Lives) -> None:
    wanted = live(1, log.last_index)
    assert [found for found, _ in log.read_events(wanted)] == [payload(index) for index in wanted]
    assert {tier for _, tier in log.read_events(wanted)} <= {"warm"}


def test_live_events_outlive_their_segments():
    disk = SimDisk()
    log = owned(backend(disk))
    live = Lives(stretches)
    for _ in range(4):
        fill(log, 60)
        log.put_snapshot(log.last_index, {}, frozenset(), live=live)
    first = log._segments[0].first_index
    assert first > 300, "the prefix went"

    check(log, live)
    kinds = [type(file) for file in log._keeper.files]
    assert Segment in kinds
    assert KeptFile in kinds
    with pytest.raises(KeyError):
        log.read_events([90])
    crash(log)
    disk.restart()
    again = owned(backend(disk))
    assert again._segments[0].first_index == first
    check(again, live)


def test_without_a_reader_nothing_is_kept():
    disk = SimDisk()
    log = owned(backend(disk))
    for live in (None, Lives(lambda index: False), Lives(lambda index: False)):
        fill(log, 60)
        log.put_snapshot(log.last_index, {}, frozenset(), live=live)

    assert not disk.exists(KEPT)
    assert log._segments[0].first_index > 1


def test_what_is_mostly_dead_is_written_anew_and_what_is_dead_removed():
    disk = SimDisk()
    log = owned(backend(disk))
    live = Lives(lambda index: True)
    for _ in range(3):
        fill(log, 60)
        log.put_snapshot(log.last_index, {}, frozenset(), live=live)
    whole = log._keeper.held_bytes
    assert {type(file) for file in log._keeper.files} == {Segment}

    live.wanted = lambda index: index % 4 == 0
    fill(log, 1)
    log.put_snapshot(log.last_index, {}, frozenset(), live=live)
    check(log, live)
    assert log._keeper.held_bytes < whole / 2
    assert KeptFile in {type(file) for file in log._keeper.files}

    live.floor = 10_000
    fill(log, 1)
    log.put_snapshot(log.last_index, {}, frozenset(), live=live)
    assert log._keeper.files == []
    assert disk.list_directory(KEPT) == []


def test_disk_space_stays_within_twice_the_live_events():
    disk = SimDisk()
    log = owned(backend(disk))
    live = Lives(lambda index: index * 2_654_435_761 % 1_000 < 300)
    for _ in range(12):
        fill(log, 50)
        live.floor = log.last_index // 2
        log.put_snapshot(log.last_index, {}, frozenset(), live=live)
        check(log, live)
        kept = live(1, log._segments[0].first_index - 1)
        assert log._keeper.held_bytes <= 2 * sum(len(payload(index)) + 16 for index in kept) + SEGMENT_BYTES


def test_many_small_files_become_one():
    disk = SimDisk()
    log = owned(backend(disk))
    live = Lives(lambda index: index % 20 == 0)
    for _ in range(12):
        fill(log, 60)
        log.put_snapshot(log.last_index, {}, frozenset(), live=live)

    assert len(log._keeper.files) < keeper.MERGE_FILES
    check(log, live)


def test_looks_that_are_bounded_come_to_every_file_in_turn():
    disk = SimDisk()
    log = owned(backend(disk))
    live = Lives(lambda index: True)
    for _ in range(5):
        fill(log, 60)
        log.put_snapshot(log.last_index, {}, frozenset(), live=live)
    count = len(log._keeper.files)
    asked: list[int] = []

    def some(first: int, last: int) -> list[int]:
        asked.append(first)
        return [] if first > 300 else live(first, last)

    log._keeper.review(some, events=40)
    assert len(asked) < count / 2
    for _ in range(count):
        log._keeper.review(some, events=40)
    assert all(file.first_index <= 300 for file in log._keeper.files)
    check(log, Lives(lambda index: index <= 300))


def test_what_stays_live_is_written_once():
    disk = SimDisk()
    log = owned(backend(disk))
    live = Lives(lambda index: stretches(index) or index % 37 == 0)
    seen: set[str] = set()
    for _ in range(6):
        fill(log, 20)
        log.put_snapshot(log.last_index, {}, frozenset(), live=live)
        names = set(disk.list_directory(KEPT)) if disk.exists(KEPT) else set()
        assert seen <= names or len(names) < len(seen), "files go only where many become one"
        assert all(name.endswith(("-1.kept", ".seg")) for name in names)
        seen = names


def test_a_dead_file_among_small_ones_hides_none_of_them():
    disk = SimDisk()
    log = owned(backend(disk))
    live = Lives(lambda index: index % 20 == 0)
    merge = keeper.MERGE_FILES
    for _ in range(merge - 2):
        fill(log, 20)
        log.put_snapshot(log.last_index, {}, frozenset(), live=live)
    small = len(log._keeper.files)
    dead = log._keeper.files[small // 2]
    live.wanted = lambda index: index % 20 == 0 and not dead.first_index <= index <= dead.last_index
    seen: list[int] = []

    def checked(first: int, last: int) -> list[int]:
        if seen:
            check(log, live)
        seen.append(first)
        return live(first, last)

    fill(log, 100)
    log.put_snapshot(log.last_index, {}, frozenset(), live=checked)
    check(log, live)
    log._keeper.review(checked)
    check(log, live)


def test_neighbours_are_read_at_once_in_any_order():
    disk = SimDisk()
    log = owned(backend(disk))
    fill(log, 100)
    opened = []
    open_to_read = disk.open_to_read
    disk.open_to_read = lambda path: opened.append(path) or open_to_read(path)  # type: ignore[method-assign]
    wanted = [7, 3, 199, 5, 7, 200]

    assert [found for found, _ in log.read_events(wanted)] == [payload(index) for index in wanted]
    assert len(opened) == 2
    assert log.read_events([]) == []
    log.read_events([4, 198])
    assert len(opened) == 2, "from the cache"
    append(log, payload(201))
    assert log.read_events([201]) == [(payload(201), "warm")]


@pytest.mark.parametrize("make", ["file", "memory"])
def test_an_event_that_is_not_there_is_named(make: str):
    from flo.log.memory import MemoryBackend

    log = owned(backend(SimDisk()) if make == "file" else MemoryBackend())
    append(log, b"a")

    assert log.read_events([1]) == [(b"a", "warm")]
    for index in (0, 2):
        with pytest.raises(KeyError, match=str(index)):
            log.read_events([index])


def damaged_places(disk: SimDisk, name: str) -> list[int]:
    size = disk.size(disk.open_to_read(f"{KEPT}/{name}"))
    return [8, 20, 70, size // 2, size - 30, size - 3]


@pytest.mark.parametrize("kind", ["kept", "seg"])
def test_damage_in_a_kept_file_is_told_with_file_and_offset(kind: str):
    disk = SimDisk()
    log = owned(backend(disk))
    live = Lives(stretches)
    for _ in range(3):
        fill(log, 60)
        log.put_snapshot(log.last_index, {}, frozenset(), live=live)
    log.close()
    assert verify("/data", disk=disk).ok
    (name, *_) = [name for name in disk.list_directory(KEPT) if name.endswith(kind)]
    for offset in damaged_places(disk, name):
        disk.flip(f"{KEPT}/{name}", offset)
        report = verify("/data", disk=disk)
        assert [problem.file for problem in report.problems] == [f"{KEPT}/{name}"], offset
        with pytest.raises(LogDamaged, match=rf"{name}.*offset \d+"):
            check(owned(backend(disk)), live)
        disk.restart(keep=True)
        disk.flip(f"{KEPT}/{name}", offset)
    assert verify("/data", disk=disk).ok


def test_a_kept_file_of_another_log_and_a_foreign_file_are_refused(tmp_path: Path):
    disk = SimDisk()
    log = owned(backend(disk))
    for _ in range(3):
        fill(log, 60)
        log.put_snapshot(log.last_index, {}, frozenset(), live=Lives(stretches))
    log.close()
    disk.open(f"{KEPT}/notes.txt", create=True)

    with pytest.raises(Exception, match=r"notes\.txt"):
        backend(disk).open()
    assert [problem.file for problem in verify("/data", disk=disk).problems] == [f"{KEPT}/notes.txt"]


def prepared() -> tuple[SimDisk, Lives]:
    """A log with kept files of both kinds, and segments that go with the next snapshot."""
    disk = SimDisk()
    log = owned(backend(disk))
    live = Lives(stretches)
    for _ in range(4):
        fill(log, 40)
        log.put_snapshot(log.last_index, {}, frozenset(), live=live)
    fill(log, 20)
    log.close()
    return disk, live


def trimmed(live: Lives) -> None:
    """Leaves a third of what was whole, and many small pieces."""
    live.wanted = lambda index: stretches(index) and index % 10 == 0


@pytest.mark.parametrize("survivors", [None, 1, 2, "killed"])
@pytest.mark.parametrize("trims", [False, True])
def test_each_live_event_is_readable_wherever_the_power_goes(survivors: int | str | None, trims: bool):
    disk, live = prepared()
    if trims:
        trimmed(live)
    at_once = None
    for point in range(1, 1_000):
        one = copy.deepcopy(disk)
        log = owned(backend(one))
        one.crash_after(point)
        try:
            log.put_snapshot(log.last_index, {}, frozenset(), live=live)
            at_once = sorted(one.list_directory(KEPT))
        except PowerLoss:
            pass
        one.restart(keep=survivors == "killed", seed=survivors if isinstance(survivors, int) else None)

        again = owned(backend(one))
        check(again, live)
        assert verify("/data", disk=one).ok
        append(again, payload(again.last_index + 1))
        again.put_snapshot(again.last_index, {}, frozenset(), live=live)
        check(again, live)
        again.close()
        if survivors == "killed":
            one.restart()
            check(owned(backend(one)), live)
        if at_once is not None:
            break
    assert 15 < point < 999


def read_while_replaced(disk: SimDisk, index: int) -> None:
    """Reads an event whose file is replaced between looking for it and opening it."""
    log = owned(backend(disk))
    open_to_read = disk.open_to_read
    later = Lives(lambda other: other == index or (stretches(other) and other % 10 == 0))

    def replaced(path: str) -> int:
        disk.open_to_read = open_to_read  # type: ignore[method-assign]
        log.put_snapshot(log.last_index, {}, frozenset(), live=later)
        return open_to_read(path)

    disk.open_to_read = replaced  # type: ignore[method-assign]
    assert log.read_events([index]) == [(payload(index), "warm")]
    assert disk.open_to_read == open_to_read


def test_a_reader_finds_each_live_event_while_files_are_replaced():
    disk, live = prepared()
    disk.restart(keep=True)

    for index in live(1, 200)[::10]:
        read_while_replaced(copy.deepcopy(disk), index)


def test_a_kept_file_that_is_missing_is_damage_where_it_is_read():
    disk, live = prepared()
    disk.restart(keep=True)
    log = owned(backend(disk))
    (holder, *_) = log._keeper.files
    disk.unlink(holder.path)

    with pytest.raises(LogDamaged, match=r"missing"):
        log.read_events(live(holder.first_index, holder.last_index))
