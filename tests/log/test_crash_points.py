"""Every point at which the power can go, or the process die, in a long scenario on a simulated disk."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest

from flo.log.contract import Frame
from flo.log.errors import LogError, NoSpace, SyncFailed
from flo.log.file.backend import FileBackend
from flo.log.inspect import verify
from flo.log.simdisk import PowerLoss, SimDisk
from tests.log.support import LOG_ID, append, events, payloads

SEGMENT_BYTES = 1_500
SURVIVORS = [None, 1, 2, "killed"]  # nothing unsynced survives, some of it, all of it


class Acknowledged:
    """What the scenario was told is durable."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.asked: list[bytes] = []  # the batch in flight
        self.blobs: dict[bytes, bytes] = {}
        self.snapshot = 0
        self.epoch = 0


def backend(disk: SimDisk) -> FileBackend:
    return FileBackend("/data", disk=disk, segment_bytes=SEGMENT_BYTES, make_log_id=lambda: LOG_ID)


def scenario(disk: SimDisk, said: Acknowledged, *, rounds: int = 14) -> None:
    """Two lives of an owner: appends of one and many frames, large batches, rolls, blobs, snapshots, drops."""
    for life in range(2):
        log = backend(disk)
        log.open()
        said.epoch = log.claim()
        for number in range(rounds):
            name = b"%d.%d " % (life, number)
            said.asked = [name + b"x" * (number * 17 % 200), name + b"y"]
            if number % 5 == 4:
                first = log.last_index + 1
                frames = [
                    Frame(first, 5, log.epoch, events(said.asked[0])),
                    Frame(first + 1, 6, log.epoch, events(said.asked[1])),
                ]
                log.append(frames)
            else:
                append(log, *said.asked)
            said.events += said.asked
            said.asked = []
            if number % 6 == 1:
                said.blobs[log.put_blob(name)] = name
            if number % 4 == 3:
                log.put_snapshot(log.last_index, {"all": b"".join(said.events)}, frozenset(said.blobs))
                said.snapshot = log.last_index
        log.close()


def check(disk: SimDisk, said: Acknowledged) -> None:
    """Opens the log and holds it against what was acknowledged."""
    log = backend(disk)
    info = log.open()
    snapshot = log.get_snapshot()
    covered = snapshot[0] if snapshot else 0
    found = payloads(log, covered + 1)
    state = snapshot[1]["all"] if snapshot else b""
    whole = said.events + said.asked

    assert covered >= said.snapshot
    assert state == b"".join(said.events[:covered])
    assert covered + len(found) == info.last_index
    assert found in (said.events[covered:], whole[covered:]) or found == whole[covered : len(said.events) + 1]
    assert info.epoch >= said.epoch
    for digest, content in said.blobs.items():
        assert log.get_blob(digest) == content
    assert log.claim() == info.epoch + 1
    append(log, b"goes on")
    assert payloads(log, covered + 1) == [*found, b"goes on"]
    said.events = [*whole[:covered], *found, b"goes on"]
    said.asked = []
    said.epoch = log.epoch
    report = verify("/data", disk=disk)
    assert report.ok, report.problems


def survive(disk: SimDisk, survivors: int | str | None, salt: int = 0) -> None:
    if survivors == "killed":
        disk.restart(keep=True)
    elif isinstance(survivors, int):
        disk.restart(seed=survivors * 100_003 + salt)
    else:
        disk.restart()


def until_power_loss(act: Callable[[], None]) -> bool:
    try:
        act()
    except PowerLoss:
        return True
    return False


def count_changes() -> int:
    disk = SimDisk()
    scenario(disk, Acknowledged())
    return disk.changes


CHANGES = count_changes()


def test_the_scenario_covers_what_it_should():
    disk = SimDisk()
    scenario(disk, Acknowledged())

    names = disk.list_directory("/data/00000/segs")
    assert names[0] != "0000000001.seg", "a prefix was dropped"
    assert len(names) > 1, "segments were rolled"
    assert len(disk.list_directory("/data/00000/snaps")) == 2
    assert CHANGES > 200


@pytest.mark.parametrize("survivors", SURVIVORS)
def test_nothing_acknowledged_is_lost_wherever_the_power_goes(survivors: int | str | None):
    for point in range(1, CHANGES + 1):
        disk = SimDisk()
        said = Acknowledged()
        disk.crash_after(point)
        assert until_power_loss(lambda disk=disk, said=said: scenario(disk, said)), point
        survive(disk, survivors, point)

        check(disk, said)
        if survivors == "killed":  # names that only the page cache knew have been answered for by now
            disk.restart()
            check(disk, said)


@pytest.mark.parametrize("survivors", SURVIVORS)
def test_a_second_power_loss_during_recovery_loses_nothing_either(survivors: int | str | None):
    chance = random.Random(7)
    for point in range(1, CHANGES + 1, 3):
        for second in (1, chance.randrange(2, 9), chance.randrange(9, 16)):
            disk = SimDisk()
            said = Acknowledged()
            disk.crash_after(point)
            until_power_loss(lambda disk=disk, said=said: scenario(disk, said))
            survive(disk, survivors, point)
            disk.crash_after(second)
            said_again = Acknowledged()

            def recover(disk: SimDisk = disk, said: Acknowledged = said, again: Acknowledged = said_again) -> None:
                log = backend(disk)
                again.snapshot = log.open().last_index  # not acknowledged: only to have read the log
                said.epoch = log.claim()

            until_power_loss(recover)
            survive(disk, survivors, second)

            check(disk, said)
            if survivors == "killed":
                disk.restart()
                check(disk, said)


@pytest.mark.parametrize("survivors", SURVIVORS)
def test_a_sync_that_fails_and_then_lies_loses_nothing_that_was_answered(survivors: int | str | None):
    """The process ends at the failed sync; what the next one reads from the page cache it must make durable itself."""
    for nth in range(1, 200):
        disk = SimDisk()
        said = Acknowledged()
        disk.fail_sync(nth)
        try:
            scenario(disk, said)
        except SyncFailed:
            pass
        else:
            break
        disk.restart(keep=True)
        check(disk, said)  # answers by what the cache shows
        survive(disk, survivors, nth)

        check(disk, said)
    assert nth > 50


def test_damage_to_any_byte_of_an_acknowledged_frame_but_the_last_is_found():
    disk = SimDisk()
    log = FileBackend("/data", disk=disk, make_log_id=lambda: LOG_ID)
    log.open()
    log.claim()
    for number in range(6):
        append(log, b"payload %d" % number)
    path = "/data/00000/segs/0000000001.seg"
    end = log._segments[0].end
    last = max(offset for offset in range(0, end, 8) if disk.read(disk.open(path), 4, offset) == b"FLOF")
    disk.restart(keep=True)

    for offset in range(last):
        disk.flip(path, offset)
        with pytest.raises(LogError, match=r"0000000001\.seg.*offset"):
            FileBackend("/data", disk=disk).open()
        assert not verify("/data", disk=disk).ok, offset
        disk.restart(keep=True)
        disk.flip(path, offset)
    assert verify("/data", disk=disk).ok


def test_a_full_disk_rolls_nothing_back_at_any_size():
    """ENOSPC wherever it may come: the append is refused whole, and the same one works when there is room again."""
    for capacity in range(1_000_000, 1_050_000, 700):
        disk = SimDisk()
        log = FileBackend("/data", disk=disk, make_log_id=lambda: LOG_ID)
        log.open()
        log.claim()
        disk.capacity = capacity
        kept: list[bytes] = []
        for number in range(200):
            batch = [b"%d" % number + b"x" * 9_000, b"y"]
            try:
                append(log, *batch)
            except NoSpace:
                break
            kept += batch
        assert payloads(log) == kept
        disk.capacity = None
        append(log, *batch)
        kept += batch
        append(log, b"after")

        disk.restart()
        again = backend(disk)
        again.open()
        assert payloads(again) == [*kept, b"after"]


def test_a_full_disk_at_the_very_start_is_no_space_and_leaves_nothing_half():
    refused = 0
    for capacity in range(0, 700, 20):
        disk = SimDisk()
        disk.capacity = capacity
        try:
            backend(disk).open()
        except NoSpace:
            refused += 1
        disk.restart(keep=True)
        disk.capacity = None
        assert backend(disk).open().last_index == 0
    assert refused > 5


@pytest.mark.parametrize("refused", [1, 2])
def test_without_a_free_file_handle_the_next_segment_waits_and_nothing_is_lost(
    refused: int, monkeypatch: pytest.MonkeyPatch
):
    disk = SimDisk()
    log = FileBackend("/data", disk=disk, segment_bytes=SEGMENT_BYTES)
    log.open()
    log.claim()
    append(log, b"x" * SEGMENT_BYTES)

    right, opened = disk.open, 0

    def refuse(path: str, create: bool = False) -> int:
        nonlocal opened
        opened += 1
        if opened == refused:
            raise OSError(errno.EMFILE, "Too many open files")
        return right(path, create=create)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "open", refuse)
        with pytest.raises(NoSpace, match="too many open files"):
            append(log, b"y")
    append(log, b"y")
    disk.restart()
    again = backend(disk)
    again.open()

    assert payloads(again) == [b"x" * SEGMENT_BYTES, b"y"]


def test_async_flush_loses_a_suffix_only():
    for seed in range(60):
        disk = SimDisk()
        log = FileBackend("/data", disk=disk, background=True, flush_thread=False, segment_bytes=SEGMENT_BYTES)
        log.open()
        log.claim()
        flushed = 0
        for number in range(40):
            append(log, b"%d" % number + b"z" * 90)
            if number == seed % 40:
                log.flush()
                flushed = number + 1
        disk.restart(seed=seed)

        again = backend(disk)
        again.open()
        found = payloads(again)
        assert found == [b"%d" % number + b"z" * 90 for number in range(len(found))]
        assert len(found) >= flushed


def test_the_same_seed_gives_the_same_disk():
    def end(seed: int) -> list[bytes]:
        disk = SimDisk()
        disk.crash_after(120)
        until_power_loss(lambda: scenario(disk, Acknowledged()))
        disk.restart(seed=seed)
        log = backend(disk)
        log.open()
        return [*map(str.encode, disk.list_directory("/data/00000/segs")), *payloads(log, log._segments[0].first_index)]

    assert end(5) == end(5)
