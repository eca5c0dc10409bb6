"""Looking at a log that somebody else owns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flo.log.errors import DirectoryUnusable
from flo.log.file.backend import FileBackend
from flo.log.inspect import dump, newest_snapshot, read_frames, survey, verify
from tests.log.support import append, owned


@pytest.fixture
def log(tmp_path: Path) -> FileBackend:
    made = owned(FileBackend(str(tmp_path / "data"), segment_bytes=2_000))
    for number in range(50):
        append(made, b"%d" % number, b"x" * 80, time_ms=1_000 + number)
    return made


def test_a_live_log_is_verified_and_counted(log: FileBackend):
    log.put_blob(b"blob")
    log.put_snapshot(60, {"kv": b"state"}, frozenset())
    report = verify(log.directory.path)

    assert report.ok
    assert (report.first_index, report.last_index, report.events, report.epoch) == (1, 100, 100, 1)
    assert report.frames == 51
    assert report.segments > 3
    assert [(snapshot.index, snapshot.ok) for snapshot in report.snapshots] == [(60, True)]
    assert report.blobs == 1
    assert report.system is not None
    assert report.system.shards == 1
    append(log, b"the owner goes on")


def test_a_dump_decodes_each_event(log: FileBackend):
    found = list(
        dump(log.directory.path, decode=lambda kind, version, payload: (kind, version, payload), from_index=98)
    )

    assert [(event.index, event.time_ms, event.epoch, event.size, event.value) for event in found] == [
        (98, 1_048, 1, 80, (7, 1, b"x" * 80)),
        (99, 1_049, 1, 2, (7, 1, b"49")),
        (100, 1_049, 1, 80, (7, 1, b"x" * 80)),
    ]


def test_frames_and_the_newest_snapshot_are_read_without_the_lock(log: FileBackend):
    log.put_snapshot(60, {"kv": b"state"}, frozenset([b"b" * 32]))

    assert [frame.first_index for frame in read_frames(log.directory.path, from_index=96)] == [95, 97, 99]
    snapshot = newest_snapshot(log.directory.path)
    assert snapshot is not None
    assert (snapshot.covers, snapshot.sections, snapshot.blobs) == (60, {"kv": b"state"}, {b"b" * 32})


def test_a_bad_blob_and_a_bad_snapshot_are_problems(log: FileBackend):
    log.put_blob(b"blob")
    log.put_snapshot(60, {}, frozenset())
    shard = Path(log.directory.shard)
    bad = [next((shard / "snaps").iterdir()), next(p for p in (shard / "blobs").rglob("*") if p.is_file())]
    for path in bad:
        path.write_bytes(b"?" + path.read_bytes()[1:])

    assert [problem.file for problem in verify(log.directory.path).problems] == [str(path) for path in bad]


@pytest.mark.parametrize("offset", [-1, -30, 70, 1_000])
def test_a_changed_byte_of_a_sealed_segment_is_a_problem(log: FileBackend, offset: int):
    sealed = sorted((Path(log.directory.shard) / "segs").iterdir())[1]
    raw = bytearray(sealed.read_bytes())
    raw[offset] ^= 0x10
    sealed.write_bytes(raw)

    report = verify(log.directory.path)
    assert [problem.file for problem in report.problems] == [str(sealed)] or report.warnings


def test_a_survey_tells_topology_ranges_snapshots_and_the_first_damage(log: FileBackend):
    log.put_snapshot(60, {"kv": b"state"}, frozenset(), live=lambda first, last: range(first, last + 1))
    log.put_snapshot(100, {"kv": b"state"}, frozenset(), live=lambda first, last: range(first, last + 1))
    append(log, b"the owner goes on")
    found = survey(log.directory.path)

    assert (found.system.shards, found.system.partitions, found.damage) == (1, 4096, None)
    assert found.owner == (os.getpid(), "")
    (shard,) = found.shards
    assert (shard.first_index, shard.last_index) == (log._segments[0].first_index, 101)
    assert [(snapshot.index, snapshot.ok, snapshot.size) for snapshot in shard.snapshots] == [
        (60, True, os.path.getsize(shard.snapshots[0].file)),
        (100, True, os.path.getsize(shard.snapshots[1].file)),
    ]
    assert shard.segments == len(log._segments)
    assert shard.segment_bytes == log.segment_bytes
    assert (shard.kept_files, shard.kept_bytes, shard.kept_events) == (
        len(log._keeper.files),
        log.kept_bytes,
        shard.first_index - 1,
    )
    log.close()
    assert survey(log.directory.path).damage is None

    (kept, *_) = sorted((Path(log.directory.shard) / "kept").iterdir())
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    damage = survey(log.directory.path).damage
    assert damage is not None
    assert damage.file == str(kept)


def test_a_place_without_a_log_is_named(tmp_path: Path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(DirectoryUnusable, match=str(path)):
            verify(str(path))
