"""`flo log …` and `flo check` on real files."""

from __future__ import annotations

import io
import json
import re

import pytest
from typer.testing import CliRunner

from flo.cli import _progress
from flo.cli._app import app
from flo.log.contract import Frame
from flo.log.url import open_log
from flo.primitives.kv_events import KvDeleted
from flo.primitives.machines import encode


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def directory(tmp_path):
    """A log with 300 deletions of keys, and one event of a kind that is not known."""
    folder = tmp_path / "data"
    log = open_log(f"file:{folder}")
    log.open()
    log.claim()
    deleted = [KvDeleted(ns="default", key=f"MARKER-{i}".encode()) for i in range(300)]
    events = [(event.KIND, event.VERSION, encode(event)) for event in deleted]
    events.append((99, 7, b"??"))
    log.append([Frame(first_index=1, time_ms=1_750_000_000_000, epoch=1, events=events)])
    log.close()
    return folder


def test_verify_of_a_sound_log_says_what_it_checked(directory):
    done = command("log", "verify", directory)

    assert done.exit_code == 0
    assert f"{directory}: sound" in done.stdout and "301 events" in done.stdout


def test_verify_as_json_has_the_counts(directory):
    found = json.loads(command("log", "verify", directory, "--format", "json").stdout)

    assert found["ok"] is True and found["events"] == 301 and found["problems"] == []


def test_dump_prints_events_by_name_and_names_unknown_kinds(directory):
    lines = command("log", "dump", directory).stdout.splitlines()

    assert len(lines) == 301
    assert re.search(r"^ +1  \d{4}-\d\d-\d\d .* KvDeleted .*MARKER-0", lines[0])
    assert "kind-99-version-7" in lines[-1]


def test_dump_as_json_is_an_object_per_line_from_any_index_on(directory):
    lines = command("log", "dump", directory, "--from", "300", "--format", "json").stdout.splitlines()

    assert [json.loads(line)["index"] for line in lines] == [300, 301]
    assert json.loads(lines[0])["event"] == "KvDeleted"


@pytest.mark.parametrize("verb", ["verify", "dump"])
def test_a_directory_without_a_log_is_exit_1_and_named(tmp_path, verb):
    for path in (tmp_path, tmp_path / "absent"):
        done = command("log", verb, path)

        assert done.exit_code == 1 and str(path) in done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_verification_shows_how_far_it_is_on_a_terminal(monkeypatch, directory):
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(_progress, "AFTER_SECONDS", 0.0)
    monkeypatch.setattr(_progress, "EVERY_SECONDS", 0.001)
    with _progress.reading("verifying") as disk:
        disk.bytes_read = 5_000_000
        while "5 MB" not in stream.getvalue():
            pass

    assert stream.getvalue().endswith("\r\x1b[2K")


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.flow").write_text('load("flo/prelude/v1", "flow")\ndef _f(fctx):\n    return 1\n'
                                        "f = flow(implementation = _f)\n")  # fmt: skip
    (tmp_path / "bad.flow").write_text("x = 1\nimport os\n")
    (tmp_path / "warns.flow").write_text("def f():\n    return 1\n    return 2\nf()\n")


def test_check_prints_errors_as_file_line_col_code_message_and_exits_2(scripts):
    done = command("check", "bad.flow", "good.flow")

    assert done.exit_code == 2
    assert re.search(r"^bad\.flow:2:\d+: syntax: ", done.stdout, re.M)
    assert "good.flow" not in done.output


def test_check_of_good_files_is_exit_0_also_with_warnings(scripts):
    assert command("check", "good.flow").exit_code == 0
    done = command("check", "warns.flow")

    assert done.exit_code == 0
    assert re.search(r"^warns\.flow:3:\d+: unreachable: warning: ", done.stdout, re.M)


def test_check_as_json_is_an_array(scripts):
    found = json.loads(command("check", "bad.flow", "warns.flow", "--format", "json").stdout)

    assert ("bad.flow", "error") in {(problem["file"], problem["severity"]) for problem in found}
    assert all({"line", "col", "code", "message"} <= set(problem) for problem in found)


def test_check_of_an_absent_file_is_an_error_of_that_file(scripts):
    done = command("check", "absent.flow")

    assert done.exit_code == 2 and "absent.flow" in done.stdout
