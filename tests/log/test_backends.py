"""What every backend does alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flo.log.contract import Frame
from flo.log.errors import LogDamaged, TooLarge
from flo.log.file.backend import FileBackend
from flo.log.frame import BATCH_BYTES, FRAME_BYTES
from flo.log.memory import MemoryBackend, MemoryStore
from flo.log.simdisk import SimDisk
from tests.log.support import append, crash, events, owned, payloads

Make = Callable[[], Any]


@pytest.fixture(params=["memory", "file", "file-async", "simulated"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes a backend over the same log each time."""
    store = MemoryStore()
    disk = SimDisk()
    made: list[Any] = []

    def build() -> Any:
        log: Any
        if request.param == "memory":
            log = MemoryBackend(store)
        elif request.param == "simulated":
            log = FileBackend("/data", disk=disk, segment_bytes=4_096)
        else:
            log = FileBackend(str(tmp_path / "data"), segment_bytes=4_096, background=request.param == "file-async")
        made.append(log)
        return log

    yield build
    for log in made:
        log.close()


def test_a_new_log_is_empty(make: Make):
    info = make().open()

    assert (info.first_index, info.last_index, info.epoch, info.snapshot_index, info.warnings) == (1, 0, 0, 0, ())
    assert len(bytes.fromhex(info.log_id)) == 16


def test_what_was_appended_is_read_back(make: Make):
    log = owned(make())
    first = Frame(1, 1_000, log.epoch, events(b"a", b"b"), b"who")
    second = Frame(3, 1_001, log.epoch, events(b"c", kind=9))
    log.append([first, second])

    assert [(f.first_index, f.time_ms, f.epoch, list(f.events), f.origin) for f in log.read()] == [
        (1, 1_000, 1, events(b"a", b"b"), b"who"),
        (3, 1_001, 1, events(b"c", kind=9), b""),
    ]
    assert log.last_index == 3


def test_reading_begins_at_the_frame_that_holds_the_index(make: Make):
    log = owned(make())
    for number in range(100):
        append(log, b"a%d" % number, b"b%d" % number)

    assert [next(log.read(index)).first_index for index in (1, 2, 3, 4, 150, 199, 200)] == [1, 1, 3, 3, 149, 199, 199]
    assert list(log.read(201)) == []


@pytest.mark.parametrize("ends", ["closed", "killed"])
def test_a_reopened_log_goes_on(make: Make, ends: str):
    log = owned(make())
    log_id = log.open().log_id if isinstance(log, MemoryBackend) else log.directory.system.log_id
    for number in range(300):
        append(log, b"%d" % number, b"x" * 40, time_ms=1_000 + number)
    log.close() if ends == "closed" else crash(log)

    again = make()
    info = again.open()
    assert (info.log_id, info.last_index, info.last_time_ms, info.epoch) == (log_id, 600, 1_299, 1)
    assert again.claim() == 2
    append(again, b"last")

    assert payloads(again)[::2] == [b"%d" % number for number in range(300)] + [b"last"]
    assert again.last_index == 601


def test_claims_take_no_index_and_are_not_shown(make: Make):
    log = owned(make())
    append(log, b"a")
    assert log.claim() == 2
    assert log.claim() == 3
    append(log, b"b")

    assert [(f.first_index, f.epoch) for f in log.read()] == [(1, 1), (2, 3)]


def test_a_frame_out_of_place_is_a_defect(make: Make):
    log = owned(make())

    with pytest.raises(AssertionError):
        log.append([Frame(2, 0, log.epoch, events(b"a"))])
    with pytest.raises(AssertionError):
        log.append([Frame(1, 0, log.epoch + 1, events(b"a"))])


def test_a_batch_larger_than_a_frame_is_whole(make: Make):
    log = owned(make())
    append(log, b"x" * (3 * FRAME_BYTES), b"y")
    append(log, b"z")
    crash(log)

    again = owned(make())
    assert payloads(again) == [b"x" * (3 * FRAME_BYTES), b"y", b"z"]
    assert [f.first_index for f in again.read(2)] == [1, 3]


def test_what_landed_is_settled_and_what_did_not_is_not(make: Make):
    log = owned(make())
    append(log, b"a")

    assert log.settle([Frame(1, 0, log.epoch, events(b"a"))])
    assert not log.settle([Frame(2, 0, log.epoch, events(b"b"))])


def test_blobs_are_addressed_by_tenant_and_content(make: Make):
    log = owned(make())
    digest = log.put_blob(b"content")

    assert log.get_blob(digest) == b"content"
    assert log.has_blob(digest)
    assert not log.has_blob(digest, tenant="acme/team one")
    assert log.put_blob(b"content", tenant="acme/team one") == digest
    assert log.get_blob(digest, tenant="acme/team one") == b"content"
    with pytest.raises(KeyError):
        log.get_blob(bytes(32))


def test_a_sweep_spares_the_live_the_pinned_and_what_snapshots_name(make: Make):
    log = owned(make())
    append(log, b"a")
    live, pinned, twice, kept, dead = (log.put_blob(name) for name in (b"live", b"pinned", b"twice", b"kept", b"dead"))
    other = log.put_blob(b"dead", tenant="other")
    log.put_blob(b"twice")
    for digest in (live, twice, kept, dead, other):
        log.unpin(digest)
    log.unpin(other, tenant="other")
    log.put_snapshot(1, {}, frozenset([kept]))

    assert log.sweep(frozenset([live])) == 1
    assert not log.has_blob(dead)
    assert all(log.has_blob(digest) for digest in (live, pinned, twice, kept))
    assert log.has_blob(dead, tenant="other")
    assert log.sweep(frozenset(), tenant="other") == 1


def test_the_newest_snapshot_is_found_after_a_restart(make: Make):
    log = owned(make())
    append(log, b"a")
    assert log.get_snapshot() is None
    log.put_snapshot(1, {"kv": b"one", "runs": b""}, frozenset())
    append(log, b"b")
    log.put_snapshot(2, {"kv": b"two"}, frozenset([b"d" * 32]))
    crash(log)

    again = make()
    assert again.open().snapshot_index == 2
    assert again.get_snapshot() == (2, {"kv": b"two"})


def test_the_prefix_below_the_older_snapshot_is_dropped(make: Make):
    log = owned(make())
    for _ in range(400):
        append(log, b"x" * 100)
    log.put_snapshot(200, {}, frozenset())
    assert len(payloads(log)) == 400, "one snapshot drops nothing"
    log.put_snapshot(400, {}, frozenset())
    with pytest.raises(LogDamaged, match="reaches back"):
        log.read(1)
    crash(log)

    again = make()
    info = again.open()
    first = info.first_index
    assert 150 < first <= 201
    assert len(payloads(again, first)) == 401 - first


def test_the_size_since_the_snapshot_counts_what_follows_it(make: Make):
    log = owned(make())
    for _ in range(1_000):
        append(log, b"x" * 1_000)
    whole = log.size_since_snapshot()
    log.put_snapshot(500, {}, frozenset())
    half = log.size_since_snapshot()
    log.put_snapshot(1_000, {}, frozenset())

    assert 1_000_000 <= whole < 1_200_000
    assert 500_000 <= half < 900_000
    assert log.size_since_snapshot() == 0


def test_a_batch_over_the_limit_changes_nothing(make: Make):
    log = owned(make())

    with pytest.raises(TooLarge):
        append(log, b"x" * BATCH_BYTES)
    append(log, b"a")
    assert payloads(log) == [b"a"]
