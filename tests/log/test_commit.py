"""Group commit over the memory backend, which fails and holds as told."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from flo.log.commit import SETTLE_ATTEMPTS, GroupCommit
from flo.log.contract import Frame
from flo.log.errors import LogError, LogFenced, NoSpace, OutcomeUnknown, SyncFailed, TooLarge
from flo.log.file.backend import RESERVE_BYTES, FileBackend
from flo.log.frame import BATCH_BYTES, FRAME_BYTES, FRAME_EVENTS
from flo.log.memory import MemoryBackend
from flo.log.simdisk import SimDisk
from tests.log.support import Watcher, events, owned, payloads


def started(log: MemoryBackend, *, thread: bool = True) -> tuple[GroupCommit, Watcher]:
    watcher = Watcher()
    return GroupCommit(log, watcher.durable.append, watcher.lost.append, thread=thread), watcher


@pytest.fixture
def log() -> MemoryBackend:
    return owned(MemoryBackend())


def test_indexes_are_dense_and_durable_after_the_flush(log: MemoryBackend):
    commit, watcher = started(log)

    assert commit.next_index == 1
    assert commit.add(events(b"a", b"b"), 1_000) == 2
    assert commit.add(events(b"c"), 1_001, b"who") == 3
    assert commit.add([], 1_001) == 3
    assert commit.wait(3, 10)
    assert (commit.next_index, commit.last_index, commit.durable_index, commit.pending_bytes) == (4, 3, 3, 0)
    commit.close()
    assert watcher.durable[-1] == 3
    assert payloads(log) == [b"a", b"b", b"c"]


def test_nothing_is_durable_while_the_sync_is_held(log: MemoryBackend):
    commit, watcher = started(log)
    log.hold()
    commit.add(events(b"a"), 1_000)
    assert log.wait_held()

    assert (commit.durable_index, commit.last_index, watcher.durable) == (0, 1, [])
    assert commit.pending_bytes == 9
    assert not commit.wait(1, 0)
    log.release()
    assert commit.wait(1, 10)
    commit.close()


def test_one_append_is_in_flight_and_the_next_takes_all_that_came_meanwhile(log: MemoryBackend):
    appends: list[int] = []
    inner = log.append
    log.append = lambda frames: (appends.append(sum(len(f.events) for f in frames)), inner(frames))[1]  # type: ignore[method-assign]
    commit, watcher = started(log)
    log.hold()
    commit.add(events(b"first"), 1_000)
    assert log.wait_held()
    for number in range(100):
        commit.add(events(b"%d" % number), 1_000 + number)
    log.release()
    commit.wait(101, 10)
    commit.close()

    assert appends == [1, 100]
    assert watcher.durable == [1, 101]


def test_batches_of_one_time_and_origin_share_a_frame_up_to_its_bounds(log: MemoryBackend):
    commit, _ = started(log, thread=False)
    for size in (10, 10, FRAME_BYTES - 60, 60):
        commit.add(events(b"x" * size), 1_000)
    commit.add(events(b"other time"), 1_001)
    commit.add(events(b"other origin"), 1_001, b"who")
    commit.add(events(*[b""] * FRAME_EVENTS), 1_002)
    commit.add(events(b"one more"), 1_002)
    commit.pump()

    assert [(f.first_index, len(f.events)) for f in log.read()] == [
        (1, 3), (4, 1), (5, 1), (6, 1), (7, FRAME_EVENTS), (7 + FRAME_EVENTS, 1),
    ]  # fmt: skip


def test_a_shared_frame_leaves_the_callers_list_alone(log: MemoryBackend):
    commit, _ = started(log, thread=False)
    mine = events(b"a")
    commit.add(mine, 1_000)
    commit.add(events(b"b"), 1_000)
    commit.pump()

    assert mine == events(b"a")
    assert payloads(log) == [b"a", b"b"]


def test_a_batch_over_the_limit_is_refused_before_anything_happens(log: MemoryBackend):
    commit, _ = started(log, thread=False)

    with pytest.raises(TooLarge):
        commit.add(events(b"x" * BATCH_BYTES), 1_000)
    assert (commit.next_index, commit.pending_bytes) == (1, 0)


def test_a_frame_without_room_stays_and_is_tried_again(log: MemoryBackend):
    commit, watcher = started(log, thread=False)
    log.fail(1, NoSpace("the disk is full"))
    commit.add(events(b"a"), 1_000)

    assert commit.pump() == 0
    assert commit.stalled == "the disk is full"
    commit.add(events(b"b"), 1_001)
    assert commit.pump() == 2
    assert commit.stalled is None
    assert (watcher.durable, watcher.lost) == ([1, 2], [])
    assert payloads(log) == [b"a", b"b"]


def test_a_stalled_flusher_goes_on_when_told_to_retry(log: MemoryBackend):
    commit, watcher = started(log)
    log.fail(1, NoSpace("the disk is full"))
    commit.add(events(b"a"), 1_000)
    commit.retry()

    assert commit.wait(1, 10)
    commit.close()
    assert watcher.lost == []


def test_closing_a_log_without_room_says_so(log: MemoryBackend):
    commit, _ = started(log, thread=False)
    commit.add(events(b"a"), 1_000)
    log.fail(1, NoSpace("the disk is full"))

    with pytest.raises(NoSpace, match="the disk is full"):
        commit.close()


@pytest.mark.parametrize("landed", [True, False])
def test_an_unknown_outcome_is_settled_by_reading_back(log: MemoryBackend, landed: bool):
    commit, watcher = started(log, thread=False)
    log.fail(1, OutcomeUnknown("timed out"), landed=landed)
    commit.add(events(b"a"), 1_000)

    assert commit.pump() == 1
    assert payloads(log) == [b"a"]
    assert (watcher.durable, watcher.lost, commit.stalled) == ([1], [], None)


def test_an_outcome_that_stays_unknown_is_a_lost_log(log: MemoryBackend):
    commit, watcher = started(log, thread=False)
    unknown = OutcomeUnknown("no connection")

    def settle(frames: list[Frame]) -> bool:
        raise unknown

    log.settle = settle  # type: ignore[method-assign,assignment]
    log.fail(1, unknown)
    commit.add(events(b"a"), 1_000)
    for _ in range(SETTLE_ATTEMPTS + 1):
        commit.pump()

    assert watcher.lost == [unknown]
    assert watcher.durable == []


@pytest.mark.parametrize("error", [LogFenced("claimed"), SyncFailed("EIO"), ValueError("a defect")])
def test_a_lost_log_is_reported_once_and_takes_nothing_more(log: MemoryBackend, error: Exception):
    commit, watcher = started(log)
    if isinstance(error, LogError):
        log.fail(1, error)
    else:
        log.append = lambda frames: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
    commit.add(events(b"a"), 1_000)

    with pytest.raises(LogError, match=str(error)):
        commit.wait(1, 10)
    with pytest.raises(LogError):
        commit.add(events(b"b"), 1_001)
    with pytest.raises(LogError):
        commit.close()
    assert len(watcher.lost) == 1
    assert watcher.durable == []


def test_another_owner_fences_this_one(log: MemoryBackend):
    commit, watcher = started(log, thread=False)
    owned(MemoryBackend(log.store))
    commit.add(events(b"a"), 1_000)
    commit.pump()

    assert [type(error) for error in watcher.lost] == [LogFenced]
    assert payloads(log) == []


def test_a_release_that_fails_is_a_lost_log(log: MemoryBackend):
    lost: list[LogError] = []

    def release(index: int) -> None:
        raise KeyError(index)

    commit = GroupCommit(log, release, lost.append, thread=False)
    commit.add(events(b"a"), 1_000)
    commit.pump()

    assert "releasing index 1 failed" in str(lost[0])


def test_many_threads_wait_for_what_many_batches_bring(log: MemoryBackend):
    commit, _ = started(log)
    partition = threading.Lock()
    answers: list[bool] = []

    def client(number: int) -> None:
        for turn in range(50):
            with partition:
                index = commit.add(events(b"%d.%d" % (number, turn)), 1_000 + turn)
            answers.append(commit.wait(index, 10))

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    commit.close()

    assert answers == [True] * 400
    assert len(set(payloads(log))) == 400


class FullDisk:
    """A log on a small simulated disk, filled until growing writes are refused."""

    def __init__(self) -> None:
        self.disk = SimDisk()
        self.log = owned(FileBackend("/data", disk=self.disk))
        self.disk.capacity = 24 * 1024 * 1024
        self.commit = GroupCommit(self.log, lambda index: None, lambda error: None, thread=False)
        self.written: list[bytes] = []

    def write(self, payload: bytes) -> None:
        self.commit.add(events(payload), 1)
        self.written.append(payload)

    def fill(self) -> None:
        payload = b"x" * 50_000
        while self.log.reserve(len(payload) + 200, self.commit.pending_bytes):
            self.write(payload)
            if len(self.written) % 7 == 0:
                self.commit.pump()


def test_growing_writes_are_refused_while_what_frees_space_goes_through():
    full = FullDisk()
    full.fill()
    full.commit.pump()
    assert full.commit.stalled is None
    assert not full.log.reserve(60_000)
    assert RESERVE_BYTES <= full.disk.free_bytes("/") + full.log._writer.room < RESERVE_BYTES + 60_000

    for number in range(100):
        full.write(b"delete %d" % number * 5_000)
        full.commit.pump()
        assert full.commit.stalled is None
    assert payloads(full.log) == full.written


def test_a_disk_that_others_fill_stalls_the_log_and_refuses_growing_writes():
    full = FullDisk()
    assert full.log.reserve(1_000)
    full.disk.capacity = 1
    full.write(b"y" * 2_000_000)
    full.commit.pump()
    assert full.commit.stalled is not None
    assert not full.log.reserve(1)

    full.disk.capacity = 64 * 1024 * 1024
    assert full.log.reserve(1)
    full.commit.pump()
    assert full.commit.stalled is None
    assert payloads(full.log) == full.written


def test_a_stalled_flush_resumes_within_a_second_when_room_returns():
    disk = SimDisk()
    log = owned(FileBackend("/data", disk=disk))
    stalled = threading.Event()
    append = log.append

    def watched(frames: Sequence[Frame]) -> None:
        try:
            append(frames)
        except NoSpace:
            stalled.set()
            raise

    log.append = watched  # type: ignore[method-assign]
    disk.capacity = 1
    commit = GroupCommit(log, lambda index: None, lambda error: None)
    last = commit.add(events(b"z" * 2_000_000), 1)
    assert stalled.wait(10)
    disk.capacity = None

    assert commit.wait(last, timeout=1.0)
    commit.close()
