"""Logs of released formats read the same for ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flo.log.file.backend import FileBackend
from flo.log.inspect import dump, verify
from tests.log.make_golden import BLOB, LOG_ID, frames, kept_payload, live

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_KEPT = Path(__file__).parent / "golden_kept"


@pytest.mark.parametrize("version", sorted(path.name for path in GOLDEN.iterdir()))
def test_a_golden_log_holds_exactly_what_was_written(version: str, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(GOLDEN / version, data)
    wanted = frames()
    report = verify(str(data))
    assert (report.ok, report.warnings, report.blobs, report.epoch) == (True, [], 1, 2)
    log = FileBackend(str(data))
    info = log.open()

    kept = [frame for frame in wanted if frame.first_index >= info.first_index]
    assert [frame._replace(events=list(frame.events)) for frame in log.read(info.first_index)] == kept
    assert len(kept) > 20
    assert (info.log_id, info.last_index, info.epoch) == (LOG_ID.hex(), wanted[-1].first_index + 1, 2)
    assert (info.warnings, info.last_time_ms) == ((), wanted[-1].time_ms)
    assert log.get_snapshot() == (info.last_index, {"kv": b"kv 2", "runs": b""})
    (blob,) = [path for path in (data / "00000" / "blobs").rglob("*") if path.is_file()]
    assert log.get_blob(bytes.fromhex(blob.name)) == BLOB
    log.close()


@pytest.mark.parametrize("version", sorted(path.name for path in GOLDEN.iterdir()))
def test_a_golden_log_is_dumped_without_owning_it(version: str):
    found = list(dump(str(GOLDEN / version)))
    wanted = {
        frame.first_index + place: (*event, frame.time_ms)
        for frame in frames()
        for place, event in enumerate(frame.events)
    }

    assert [event.index for event in found] == list(range(found[0].index, max(wanted) + 1))
    assert all((e.kind, e.version, e.value, e.time_ms) == wanted[e.index] for e in found)


@pytest.mark.parametrize("version", sorted(path.name for path in GOLDEN_KEPT.iterdir()))
def test_golden_kept_files_hold_exactly_what_was_written(version: str, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(GOLDEN_KEPT / version, data)
    names = [path.suffix for path in (data / "00000" / "kept").iterdir()]
    report = verify(str(data))
    assert (report.ok, report.warnings) == (True, [])
    assert {".seg", ".kept"} == set(names)
    log = FileBackend(str(data))
    first = log.open().first_index

    wanted = live(1, 300)
    assert first > 100
    assert [payload for payload, _ in log.read_events(wanted)] == [kept_payload(index) for index in wanted]
    log.close()
