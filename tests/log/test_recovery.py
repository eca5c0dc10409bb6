"""What a start makes of the directory that it finds: real files, changed as people and crashes change them."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from flo.log.contract import LogInfo
from flo.log.errors import DirectoryLocked, DirectoryUnusable, LogDamaged, LogError, LogFenced, TopologyMismatch
from flo.log.file.backend import RESERVE_BYTES, FileBackend
from flo.log.file.directory import owner_of
from flo.log.inspect import verify
from flo.log.simdisk import PowerLoss, SimDisk
from flo.log.url import open_log
from tests.log.support import append, crash, owned, payloads


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def written(data: Path, *, closed: bool = False, segment_bytes: int = 1 << 20) -> Path:
    """A log of ten frames; returns its newest segment."""
    log = owned(FileBackend(str(data), segment_bytes=segment_bytes))
    for number in range(10):
        append(log, b"MARKER-%d" % number, b"v" * 100)
    log.close() if closed else crash(log)
    return sorted((data / "00000" / "segs").iterdir())[-1]


def opened(data: Path) -> tuple[LogInfo, list[bytes]]:
    log = FileBackend(str(data))
    info = log.open()
    found = payloads(log, info.first_index)
    log.close()
    return info, found


def content_end(raw: bytes) -> int:
    return len(raw.rstrip(b"\0"))


def test_the_content_ends_where_the_zeros_begin(data: Path):
    raw = written(data).read_bytes()

    assert len(raw) > content_end(raw) + 64
    assert content_end(raw) % 8 == 0


def test_a_torn_tail_is_cut_with_a_warning(data: Path):
    newest = written(data)
    raw = bytearray(newest.read_bytes())
    end = content_end(raw)
    newest.write_bytes(raw[:end] + raw[end - 64 : end - 43])

    info, found = opened(data)
    assert info.last_index == 20
    assert len(found) == 20
    assert len(info.warnings) == 1
    assert "torn tail" in info.warnings[0]
    assert newest.name in info.warnings[0]
    assert verify(str(data)).ok
    assert opened(data)[0].warnings == ()


def test_truncated_last_bytes_lose_the_last_frame_only(data: Path):
    newest = written(data)
    raw = newest.read_bytes()
    newest.write_bytes(raw[: content_end(raw) - 7])

    info, found = opened(data)
    assert info.last_index == 18
    assert found[-2:] == [b"MARKER-8", b"v" * 100]


def test_truncated_last_bytes_of_a_closed_log_lose_nothing(data: Path):
    newest = written(data, closed=True)
    raw = newest.read_bytes()
    newest.write_bytes(raw[: content_end(raw) - 7])

    assert opened(data)[0].last_index == 20


def test_damage_in_the_middle_is_refused_and_changes_nothing(data: Path):
    newest = written(data)
    raw = bytearray(newest.read_bytes())
    at = raw.find(b"MARKER-3") + 4
    raw[at] ^= 0xFF
    newest.write_bytes(raw)

    with pytest.raises(LogDamaged) as caught:
        FileBackend(str(data)).open()
    (offset,) = re.findall(r"offset (\d+)", str(caught.value))
    assert newest.name in str(caught.value)
    assert 0 < int(offset) <= at
    assert newest.read_bytes() == raw
    report = verify(str(data))
    assert [(problem.file, problem.offset) for problem in report.problems] == [(str(newest), int(offset))]


@pytest.mark.parametrize("which", [1, -1])
def test_a_missing_segment_is_damage(data: Path, which: int):
    written(data, segment_bytes=500)
    segments = sorted((data / "00000" / "segs").iterdir())
    assert len(segments) > 3
    segments[which].unlink()

    with pytest.raises(LogDamaged, match=r"next segment goes on|is missing"):
        FileBackend(str(data)).open()
    assert not verify(str(data)).ok


def test_a_missing_beginning_without_a_snapshot_is_refused(data: Path):
    written(data, segment_bytes=500)
    sorted((data / "00000" / "segs").iterdir())[0].unlink()

    with pytest.raises(LogDamaged, match="no good snapshot reaches"):
        FileBackend(str(data)).open()
    assert not verify(str(data)).ok


def test_a_log_without_segments_never_starts_empty(data: Path):
    written(data).unlink()

    with pytest.raises(LogDamaged, match="segments are missing"):
        FileBackend(str(data)).open()


def test_damage_in_a_sealed_segment_is_found_when_it_is_read(data: Path):
    written(data, segment_bytes=500)
    sealed = sorted((data / "00000" / "segs").iterdir())[1]
    raw = bytearray(sealed.read_bytes())
    raw[raw.find(b"MARKER-")] ^= 1
    sealed.write_bytes(raw)
    log = FileBackend(str(data))
    log.open()

    with pytest.raises(LogDamaged, match=f"{sealed.name}.*offset"):
        payloads(log)
    log.close()
    assert [problem.file for problem in verify(str(data)).problems] == [str(sealed)]


def test_a_bad_snapshot_gives_way_to_the_one_before(data: Path):
    log = owned(FileBackend(str(data)))
    append(log, b"a")
    log.put_snapshot(1, {"kv": b"one"}, frozenset())
    append(log, b"b")
    log.put_snapshot(2, {"kv": b"two"}, frozenset())
    log.close()
    newest = sorted((data / "00000" / "snaps").iterdir())[-1]
    raw = bytearray(newest.read_bytes())
    raw[-1] ^= 1
    newest.write_bytes(raw)

    log = FileBackend(str(data))
    info = log.open()
    assert info.snapshot_index == 1
    assert log.get_snapshot() == (1, {"kv": b"one"})
    assert newest.name in info.warnings[0]
    log.close()


def test_leftover_temporary_files_are_removed(data: Path):
    written(data)
    leftovers = [data / "SYSTEM.tmp", *(data / "00000" / name / "x.tmp" for name in ("segs", "snaps", "blobs"))]
    for leftover in leftovers:
        leftover.write_bytes(b"half")

    opened(data)
    assert [leftover for leftover in leftovers if leftover.exists()] == []


def test_a_foreign_file_among_the_segments_is_named(data: Path):
    written(data)
    (data / "00000" / "segs" / "notes.txt").write_text("?")

    with pytest.raises(DirectoryUnusable, match=r"notes\.txt"):
        FileBackend(str(data)).open()


def test_a_file_in_place_of_the_directory_is_named(data: Path):
    data.write_text("a file")

    with pytest.raises(DirectoryUnusable, match=f"{data} is not a directory"):
        FileBackend(str(data)).open()


def test_an_unwritable_place_is_named(data: Path):
    with pytest.raises(DirectoryUnusable, match="/proc/none"):
        FileBackend("/proc/none").open()


def test_a_copied_directory_is_a_backup(data: Path, tmp_path: Path):
    written(data)
    shutil.copytree(data, tmp_path / "copy")
    shutil.rmtree(data)

    assert opened(tmp_path / "copy")[0].last_index == 20


def test_a_second_owner_is_told_who_has_the_directory(data: Path):
    log = FileBackend(str(data))
    log.open()
    log.publish_socket("/run/flo.sock")

    with pytest.raises(DirectoryLocked, match="is in use by another flo server") as caught:
        FileBackend(str(data)).open()
    assert caught.value.socket == "/run/flo.sock"
    assert owner_of(str(data)) == (os.getpid(), "/run/flo.sock")
    log.close()
    opened(data)


def test_an_owner_whose_lock_file_was_removed_is_fenced(data: Path):
    log = owned(FileBackend(str(data)))
    (data / "lock").unlink()

    with pytest.raises(LogFenced, match="removed or replaced"):
        append(log, b"a")
    with pytest.raises(LogFenced):
        append(log, b"a")
    log.close()


def test_system_records_the_topology(data: Path):
    written(data)
    system = json.loads((data / "SYSTEM").read_text())

    assert (system["shards"], system["partitions"], system["version"]) == (1, 4096, 1)
    assert system["created_at"] > 1_500_000_000
    assert len(system["log_id"]) == 32


def test_another_topology_is_refused_and_changes_nothing(data: Path):
    written(data)
    system = json.loads((data / "SYSTEM").read_text())
    (data / "SYSTEM").write_text(json.dumps({**system, "shards": 4}))
    before = (data / "SYSTEM").read_bytes()

    with pytest.raises(TopologyMismatch, match=r"TopologyMismatch.*shards 4, not 8"):
        FileBackend(str(data), shards=8).open()
    with pytest.raises(TopologyMismatch, match="partitions 4096, not 5000"):
        FileBackend(str(data), partitions=5000).open()
    assert (data / "SYSTEM").read_bytes() == before
    log = FileBackend(str(data), shards=0)
    log.open()
    assert log.directory.system.shards == 4
    log.close()


def test_partitions_follow_the_shards_unless_they_are_configured(data: Path):
    for shards, partitions, wanted in ((0, 0, 4_096), (256, 0, 8_192), (3, 5, 5), (256, 16_384, 16_384)):
        log = FileBackend(str(data / f"{shards}-{partitions}"), shards=shards, partitions=partitions)
        assert log.open().partitions == wanted
        log.close()
        system = json.loads((data / f"{shards}-{partitions}" / "SYSTEM").read_text())
        assert (system["shards"], system["partitions"]) == (shards or 1, wanted)

    with pytest.raises(DirectoryUnusable, match="partitions 5 are fewer than shards 6"):
        FileBackend(str(data / "new"), shards=6, partitions=5).open()


def test_partitions_that_were_not_recorded_are_adopted_as_configured(data: Path):
    written(data)
    system = json.loads((data / "SYSTEM").read_text())
    (data / "SYSTEM").write_text(json.dumps({**system, "partitions": 0}))

    log = FileBackend(str(data), partitions=64)
    assert log.open().partitions == 64
    log.close()


def test_an_embedded_directory_has_one_shard(data: Path):
    written(data)
    (data / "SYSTEM").unlink()

    with pytest.raises(TopologyMismatch, match="shards 1, not 4"):
        FileBackend(str(data), shards=4).open()
    assert not (data / "SYSTEM").exists()
    assert opened(data)[0].last_index == 20


@pytest.mark.parametrize("shards", [-1, 257])
def test_a_topology_out_of_bounds_is_refused(data: Path, shards: int):
    with pytest.raises(DirectoryUnusable, match=f"shards {shards}"):
        FileBackend(str(data), shards=shards).open()
    with pytest.raises(DirectoryUnusable, match="partitions 16385"):
        FileBackend(str(data), partitions=16_385).open()


@pytest.mark.parametrize(
    "content", ["", "not json", "[]", '{"shards": 0, "version": 1}', '{"shards": -1, "version": 1}']
)
def test_an_unreadable_system_file_is_refused(data: Path, content: str):
    written(data)
    (data / "SYSTEM").write_text(content)

    with pytest.raises(DirectoryUnusable, match=r"SYSTEM is (unreadable|inconsistent)"):
        FileBackend(str(data)).open()


def test_a_newer_system_file_is_refused(data: Path):
    written(data)
    (data / "SYSTEM").write_text('{"shards": 1, "version": 2}')

    with pytest.raises(DirectoryUnusable, match="newer release"):
        FileBackend(str(data)).open()


def test_a_single_folder_without_system_is_adopted_and_several_are_not(data: Path):
    written(data)
    log_id = json.loads((data / "SYSTEM").read_text())["log_id"]
    (data / "SYSTEM").unlink()
    assert opened(data)[0].log_id == log_id
    assert json.loads((data / "SYSTEM").read_text())["log_id"] == log_id

    (data / "SYSTEM").unlink()
    (data / "00001").mkdir()
    with pytest.raises(DirectoryUnusable, match="00000, 00001"):
        FileBackend(str(data)).open()


def test_room_is_kept_back_for_what_frees_some():
    disk = SimDisk()
    log = owned(FileBackend("/data", disk=disk))
    assert log.reserve(1_000_000)

    disk.capacity = 20_000_000
    log = FileBackend("/data", disk=disk)
    disk.restart(keep=True)
    owned(log)
    room = disk.free_bytes("/") - RESERVE_BYTES
    assert log.reserve(room)
    assert not log.reserve(room + 2_000_000)
    append(log, b"a delete goes through")


def test_a_blob_whose_owner_died_in_the_middle_is_kept_once_it_is_answered_for():
    for tenant in ("default", "acme"):
        for point in range(1, 14):
            disk = SimDisk()
            log = owned(FileBackend("/data", disk=disk))
            disk.crash_after(point)
            with suppress(PowerLoss):
                log.put_blob(b"content", tenant=tenant)
            disk.restart(keep=True)
            log = owned(FileBackend("/data", disk=disk))
            digest = log.put_blob(b"content", tenant=tenant)
            disk.restart()

            log = owned(FileBackend("/data", disk=disk))
            assert log.get_blob(digest, tenant=tenant) == b"content"


def test_a_drop_of_several_segments_never_leaves_a_gap():
    for point in range(1, 40):
        for seed in range(4):
            disk = SimDisk()
            log = owned(FileBackend("/data", disk=disk, segment_bytes=400))
            for number in range(24):
                append(log, b"%d" % number + b"x" * 150)
            log.put_snapshot(20, {}, frozenset())
            disk.crash_after(point)
            with suppress(PowerLoss):
                log.put_snapshot(24, {}, frozenset())
            disk.restart(seed=seed)

            log = FileBackend("/data", disk=disk)
            info = log.open()
            assert info.last_index == 24
            assert info.first_index <= info.snapshot_index + 1


def test_ephemeral_writes_no_log_and_leaves_one_untouched(data: Path):
    log = open_log(f"file:{data}", durability="none")
    assert log.open().warnings == ()
    log.claim()
    append(log, b"a")
    log.close()
    assert sorted(os.listdir(data)) == ["SYSTEM", "lock"]

    newest = written(data)
    before = newest.read_bytes()
    log = open_log(f"file:{data}", durability="ephemeral")
    info = log.open()
    assert info.last_index == 0
    assert "neither reads nor changes" in info.warnings[0]
    log.close()
    assert newest.read_bytes() == before
    assert opened(data)[0].last_index == 20


def test_unknown_urls_and_modes_are_named(data: Path):
    for url, mode in (("mysql://x", "sync"), ("file:", "sync"), ("memory:x", "sync"), ("memory:", "fast")):
        with pytest.raises(LogError, match=re.escape(repr(mode if mode == "fast" else url))):
            open_log(url, durability=mode)
    assert isinstance(open_log(str(data)), FileBackend)
