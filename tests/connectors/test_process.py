"""The resource kind process, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flo.connectors._output import BoundedOutput
from flo.connectors._reaper import end_marked, marked
from flo.connectors.testing import RecordingServer
from tests.connectors.conftest import SECRET, Bench

SH = "sh", "-c"


@pytest.fixture
def mark() -> Iterator[str]:
    mark = f"node/test-{os.getpid()}-{os.urandom(4).hex()}/0/step"
    yield mark
    end_marked(mark)


def opening(mark: str, *argv: str, generation: int = 1, **params: Any) -> dict[str, Any]:
    return {"name": "step", "kind": "process", "mark": mark, "generation": generation,
            "params": {"argv": list(argv), **params}}  # fmt: skip


def waiting(mark: str, generation: int = 1) -> dict[str, Any]:
    return {"resource": "step", "mark": mark, "generation": generation}


def reader(path: Path) -> int:
    """A named pipe: reading from it waits for what a process writes there, so no test has to sleep."""
    os.mkfifo(path)
    return os.open(path, os.O_RDWR)


def test_exit_code_and_output_are_what_a_wait_gives(bench: Bench, mark: str):
    opened = bench.ok("resource.open", **opening(mark, *SH, "echo out-$((40+2)); echo err >&2; exit 117"))

    got = bench.ok("process.wait", **waiting(mark))

    assert opened == {"name": "step"}, "nothing that differs from one generation to the next"
    assert (got["exit_code"], got["stdout"], got["stderr"]) == (117, "out-42\n", "err\n")
    assert sorted(got["output"].splitlines()) == ["err", "out-42"]
    assert bench.ok("process.wait", **waiting(mark)) == got, "may be asked again"


def test_a_wait_that_comes_first_gets_the_end(bench: Bench, mark: str, tmp_path: Path):
    go = reader(tmp_path / "go")
    bench.ok("resource.open", **opening(mark, *SH, f"read x < {tmp_path}/go; echo $x"))
    early = bench.start("process.wait", **waiting(mark))

    os.write(go, b"now\n")

    assert '"stdout":"now\\n"' in bench.core.outcome(early)
    os.close(go)


def test_a_process_ended_by_a_signal_has_128_more(bench: Bench, mark: str):
    bench.ok("resource.open", **opening(mark, *SH, "kill -9 $$"))

    assert bench.ok("process.wait", **waiting(mark))["exit_code"] == 137


def test_env_cwd_and_stdin_are_passed(bench: Bench, mark: str, tmp_path: Path):
    bench.ok("resource.open", **opening(mark, *SH, 'pwd; echo "$MORE"; cat', env={"MORE": "ü"}, cwd=str(tmp_path),
                                        stdin="x" * 200_000))  # fmt: skip

    out = bench.ok("process.wait", **waiting(mark))["stdout"]
    assert out == f"{tmp_path}\nü\n" + "x" * 200_000


def test_without_stdin_it_is_empty(bench: Bench, mark: str):
    bench.ok("resource.open", **opening(mark, "cat"))

    assert bench.ok("process.wait", **waiting(mark))["stdout"] == ""


def test_our_secrets_are_not_in_its_environment(bench: Bench, mark: str, monkeypatch):
    monkeypatch.setenv("FLO_SECRET_OTHER", SECRET)
    bench.ok("resource.open", **opening(mark, "env"))

    out = bench.ok("process.wait", **waiting(mark))["stdout"]
    assert "FLO_SECRET" not in out and SECRET not in out and f"FLO_RESOURCE={mark}#1" in out


def test_a_process_that_writes_without_end_is_never_blocked_and_its_output_bounded(bench: Bench, mark: str):
    code = "import sys\nfor n in range(300_000): print(f'line {n:>9}')\nprint('x' * 10, file=sys.stderr)"
    bench.ok("resource.open", **opening(mark, sys.executable, "-c", code))

    got = bench.ok("process.wait", **waiting(mark))

    assert got["stdout"].startswith("line         0\n") and got["stdout"].endswith("line    299999\n")
    assert "\n[… 3,451,424 bytes cut …]\n" in got["stdout"]
    assert len(got["stdout"]) < 1024 * 1024 + 100 and len(got["output"]) < 512 * 1024 + 100
    assert got["stderr"] == "x" * 10 + "\n"


def test_a_descendant_that_keeps_the_pipe_does_not_hold_up_the_wait(bench: Bench, mark: str):
    bench.ok("resource.open", **opening(mark, *SH, "echo done; sleep 600 &"))

    assert bench.ok("process.wait", **waiting(mark))["stdout"] == "done\n"
    assert len(marked(mark)) == 1
    bench.ok("resource.close", **opening(mark))
    assert marked(mark) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"argv": ["no-such-program-anywhere"]}, "the program no-such-program-anywhere is not on PATH"),
        ({"argv": ["/no/such/program"]}, "the program /no/such/program is not there"),
        ({"argv": ["/etc/passwd"]}, "/etc/passwd could not be started: Permission denied"),
        ({"argv": []}, "argv must begin with a program"),
        ({"argv": "ls"}, "Expected `array`, got `str` - at `$.argv`"),
        ({}, "Object missing required field `argv`"),
        ({"argv": ["ls"], "shell": True}, "Object contains unknown field `shell`"),
        ({"argv": ["ls", "a\0b"]}, "argv, env and cwd must be texts that a system can pass on"),
        ({"argv": ["ls"], "env": {"A=B": "x"}}, "argv, env and cwd must be texts that a system can pass on"),
        ({"argv": ["ls"], "cwd": "/no/such"}, "the working directory /no/such does not exist"),
    ],
)
def test_what_cannot_be_started_is_a_resource_error_that_names_it(bench: Bench, mark: str, params: Any, message: str):
    error = bench.error("resource.open", **{**opening(mark), "params": params})

    assert (error["kind"], error["message"]) == ("resource", f"resource step (process): {message}")


def test_closing_ends_the_whole_tree_gently_and_may_be_repeated(bench: Bench, mark: str, tmp_path: Path):
    told = reader(tmp_path / "told")
    script = (
        f"trap 'echo asked > {tmp_path}/told; exit 0' TERM; sleep 600 & setsid sleep 600 & "
        f"echo ready > {tmp_path}/told; wait"
    )
    bench.ok("resource.open", **opening(mark, *SH, script))
    assert os.read(told, 100) == b"ready\n"
    assert any(len(marked(mark)) == 3 for _ in range(1_000)), "the two that were started last may not run yet"

    assert bench.ok("resource.close", **opening(mark)) is None

    assert os.read(told, 100) == b"asked\n" and marked(mark) == []
    assert bench.ok("resource.close", **opening(mark)) is None
    assert bench.error("process.wait", **waiting(mark))["message"] == "resource step (process) is not open"
    assert bench.error("process.wait", resource="step")["message"] == "resource step (process) is not open"
    os.close(told)


def test_a_process_that_ignores_the_request_is_killed(bench: Bench, mark: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("flo.connectors.process.CLOSE_GRACE_MS", 100)
    told = reader(tmp_path / "told")
    bench.ok("resource.open", **opening(mark, *SH, f"trap '' TERM; echo ready > {tmp_path}/told; sleep 600; sleep 600"))
    os.read(told, 100)

    bench.ok("resource.close", **opening(mark))

    assert marked(mark) == []
    os.close(told)


def test_a_descendant_that_wiped_its_environment_is_found_by_its_session(bench: Bench, mark: str, tmp_path: Path):
    told = reader(tmp_path / "told")
    bench.ok("resource.open", **opening(mark, *SH, f"env -i sh -c 'echo $$ > {tmp_path}/told; exec sleep 600' & wait"))
    pid = int(os.read(told, 100))

    bench.ok("resource.close", **opening(mark))

    assert not running(pid)
    os.close(told)


def test_the_next_generation_replaces_the_one_before(bench: Bench, mark: str):
    bench.ok("resource.open", **opening(mark, "sleep", "600"))
    (first,) = marked(mark)

    bench.ok("resource.open", **opening(mark, *SH, "echo second", generation=2))

    assert not running(first)
    assert bench.ok("process.wait", **waiting(mark, 2))["stdout"] == "second\n"
    error = bench.error("process.wait", **waiting(mark, 1))
    assert error["kind"] == "resource"
    assert error["message"] == "resource step (process) was opened again: generation 1 is gone"


def test_a_close_that_comes_during_the_opening_finds_what_was_opened(bench: Bench, mark: str):
    opened = bench.start("resource.open", **opening(mark, "sleep", "600"))
    bench.host.cancel([opened])
    bench.ok("resource.close", **opening(mark))

    assert bench.core.outcome(opened)[0] == "+" and marked(mark) == []


def test_a_planned_stop_ends_processes(bench: Bench, mark: str):
    bench.ok("resource.open", **opening(mark, *SH, "sleep 600 & wait"))
    late = bench.start("process.wait", **waiting(mark))

    bench.host.stop(10)

    assert marked(mark) == [] and '"kind":"interrupted"' in bench.core.outcome(late)


# ---------------------------------------------------------------------------------------------- crashes

HOST = """
import sys
from pathlib import Path
from flo.connectors import LocalHost
from flo.connectors.testing import FakeCore, job
mark, url, folder = sys.argv[1:]
host, core = LocalHost(directory=Path(folder)), FakeCore()
host.attach(core)
script = "sleep 601 & echo started; exec sleep 602"
host.submit([job("resource.open", {"name": "step", "kind": "process", "mark": mark, "generation": 1,
                                   "params": {"argv": ["sh", "-c", script]}}, sid="0.1")])
core.wait(1)
host.submit([job("http.get", {"url": url}, sid="0.2")])
core.wait(2)
"""


def crashed_host(mark: str, web: RecordingServer, folder: Path) -> list[int]:
    """Kills a host with a process resource in the middle of a request; returns the pids that bore the mark."""
    web.hold("/held")
    root = str(Path(__file__).parents[2])
    host = subprocess.Popen([sys.executable, "-c", HOST, mark, web.url + "/held", str(folder)], cwd=root)
    try:
        web.wait("/held")
        pids = marked(mark)
        assert len(pids) == 2
    finally:
        host.send_signal(signal.SIGKILL)
        host.wait(10)
    return pids


def test_kill_9_of_the_host_ends_its_processes_and_the_next_opening_what_they_left(
    bench: Bench, web: RecordingServer, mark: str, tmp_path: Path
):
    pids = crashed_host(mark, web, tmp_path)
    wait_gone(min(pids))  # the program itself: Linux ends it with the thread that started it

    bench.ok("resource.open", **opening(mark, *SH, "echo again", generation=2))

    assert not any(running(pid) for pid in pids)
    assert bench.ok("process.wait", **waiting(mark, 2))["stdout"] == "again\n"
    assert web.count("/held") == 1


def test_closing_after_a_crash_ends_what_is_left(bench: Bench, web: RecordingServer, mark: str, tmp_path: Path):
    pids = crashed_host(mark, web, tmp_path)

    bench.ok("resource.close", **opening(mark))

    assert not any(running(pid) for pid in pids)


def test_the_reaper_spares_marks_that_only_begin_alike(mark: str):
    environment = {**os.environ, "FLO_RESOURCE": mark + "-other#1"}
    other = subprocess.Popen(["sleep", "600"], env=environment)
    try:
        assert end_marked(mark) == 0 and marked(mark + "-other") == [other.pid]
        assert end_marked(mark + "-other", grace_ms=5_000) == 1
    finally:
        other.kill()
        assert other.wait(10) == -signal.SIGTERM


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_gone(pid: int) -> None:
    import select

    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 10)[0], f"{pid} goes on"
    finally:
        os.close(handle)


# ---------------------------------------------------------------------------------------------- bounded output


def test_output_within_the_bound_is_whole():
    output = BoundedOutput(10)
    for piece in (b"0123", b"45", b"6789"):
        output.write(piece)

    assert output.text() == "0123456789"


def test_output_over_the_bound_keeps_both_ends_and_says_so():
    output = BoundedOutput(10)
    for n in range(100):
        output.write(b"%02d" % n)

    assert output.text() == "00010\n[… 190 bytes cut …]\n79899"


@pytest.mark.parametrize("limit", range(4, 24))
def test_no_character_is_cut_in_two(limit: int):
    output = BoundedOutput(limit)
    output.write("aü€😀".encode() * 50)

    text = output.text()
    assert "\ufffd" not in text
    head, _, tail = text.partition("\n[… ")
    count, _, tail = tail.partition(" bytes cut …]\n")
    assert len(head.encode()) + int(count.replace(",", "")) + len(tail.encode()) == 500
