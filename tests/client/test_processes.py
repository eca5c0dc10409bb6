"""Several real processes on one data directory: attaching, leaving and dying in each other's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from flo.client.session import Session
from flo.client.start import prepare

SCRIPT = """\
load("flo/prelude/v1", "flow", "FlowContext", "args", "unwrap")

def _quick(fctx: FlowContext):
    print("quick", fctx.args.n)
    return fctx.actions.kv.incr("runs")

quick = flow(implementation = _quick, args = {"n": args.int()})

def _patient(fctx: FlowContext):
    print("begun")
    first = unwrap(fctx.actions.signal("go"))
    print("half")
    second = unwrap(fctx.actions.signal("go"))
    return [first, second]

patient = flow(implementation = _patient)
"""

# Runs in a process of its own: follows one run and tells each line and the end on stdout.
FOLLOW = """\
import sys
from flo.client.session import Session
from flo.client.start import prepare

directory, script, id = sys.argv[1:]

def on_update(id, update):
    for line in update.lines:
        print("line", line.text, flush=True)
    if update.view is not None and update.view.waiting:
        print("waits", session.owner, flush=True)

with Session(directory) as session:
    view = session.run(prepare(script, id=id), on_update)
    print("end", view.status, bytes(view.result or b"").decode(), flush=True)
"""

# Attaches, runs to the end and leaves, again and again: each time as whatever it happens to be.
LOOP = """\
import sys
from flo.client.session import Session
from flo.client.start import prepare

directory, script, name, rounds = sys.argv[1:]
owned = 0
for n in range(int(rounds)):
    with Session(directory) as session:
        view = session.run(prepare(script, {"n": n}, id=f"{name}-{n}"))
        assert view.status == "completed" and view.output == [f"quick {n}"], view
        owned += session.owner
print("done", owned)
"""


class Processes:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = str(folder / "data")
        self.script = str(folder / "s.flow")
        Path(self.script).write_text(SCRIPT)
        self.running: list[subprocess.Popen[str]] = []

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        root = str(Path(__file__).parents[2])
        process = subprocess.Popen(
            [sys.executable, "-c", program, self.directory, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root},
        )  # fmt: skip
        self.running.append(process)
        return process

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def processes(short_folder: Path) -> Iterator[Processes]:
    started = Processes(short_folder)
    yield started
    started.close()


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """The lines up to the one that begins so."""
    assert process.stdout is not None and process.stderr is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith(text):
            return lines
    raise AssertionError(f"{text!r} did not come, but {lines}: {process.stderr.read()}")


def test_no_process_fails_because_another_has_just_taken_or_left_the_lock(processes: Processes) -> None:
    rounds = 12
    loops = [processes.start(LOOP, f"{processes.script}::quick", f"p{n}", str(rounds)) for n in range(3)]
    ends = [loop.communicate(timeout=110) for loop in loops]

    assert [loop.returncode for loop in loops] == [0] * 3, "\n".join(error for _, error in ends)
    assert sum(int(out.split()[1]) for out, _ in ends) >= 1
    with Session(processes.directory) as session:
        views = session.call(lambda grid: grid.list())
        assert sorted(view.id for view in views) == sorted(f"p{p}-{n}" for p in range(3) for n in range(rounds))
        counts = sorted(msgspec.json.decode(view.result or b"0") for view in views)
        assert counts == list(range(1, 3 * rounds + 1)), "each increment exactly once"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_guest_takes_over_from_an_owner_that_dies_and_repeats_no_line(processes: Processes, end: int) -> None:
    owner = processes.start(FOLLOW, f"{processes.script}::patient", "theirs")
    assert read_until(owner, "waits")[-1] == "waits True"
    guest = processes.start(FOLLOW, f"{processes.script}::patient", "mine")
    assert read_until(guest, "waits")[-1] == "waits False"
    with Session(processes.directory) as session:
        session.call(lambda grid: grid.signal("mine", "go", "1"))
    read_until(guest, "line half")

    owner.send_signal(end)
    owner.wait(20)
    lines = read_until(guest, "waits True")
    with Session(processes.directory) as session:
        session.call(lambda grid: grid.signal("mine", "go", "2"))
    lines += read_until(guest, "end")

    assert lines[-1] == "end completed [1,2]" and not [line for line in lines if line.startswith("line")]
    with Session(processes.directory) as session:
        assert session.call(lambda grid: grid.show("theirs")).status == "running", "nobody asked to go on with it"
        assert session.call(lambda grid: grid.show("mine")).output == ["begun", "half"]


def test_one_of_many_guests_takes_over_and_serves_the_others(processes: Processes) -> None:
    owner = processes.start(FOLLOW, f"{processes.script}::patient", "owner")
    read_until(owner, "waits True")
    guests = [processes.start(FOLLOW, f"{processes.script}::patient", f"g{n}") for n in range(4)]
    for guest in guests:
        read_until(guest, "waits False")
    owner.kill()
    owner.wait(20)
    taken_over = threading.Event()

    def follow(guest: subprocess.Popen[str]) -> str:
        """Reads on until the run has its first signal, and what the guest is then."""
        assert guest.stdout is not None
        for line in guest.stdout:
            if line.startswith("waits True"):
                taken_over.set()
            elif line.startswith("line half"):
                break
        return read_until(guest, "waits")[-1]

    def signal_all(value: str) -> None:
        for n in range(len(guests)):
            with Session(processes.directory) as session:
                session.call(lambda grid, n=n: grid.signal(f"g{n}", "go", value))  # type: ignore[misc]

    with ThreadPoolExecutor(len(guests)) as readers:
        following = [readers.submit(follow, guest) for guest in guests]
        try:
            assert taken_over.wait(60), "nobody takes over"
            signal_all("1")
            owners = [of_guest.result(60) for of_guest in following]
        except BaseException:
            for guest in guests:
                guest.kill()  # or the readers would wait for them
            raise
    assert sorted(owners) == ["waits False"] * 3 + ["waits True"]

    signal_all("2")
    for guest in guests:
        assert read_until(guest, "end")[-1] == "end completed [1,2]"


def test_a_script_prepared_by_one_process_is_run_by_another(processes: Processes) -> None:
    owner = processes.start(FOLLOW, f"{processes.script}::patient", "owner")
    read_until(owner, "waits")
    with Session(processes.directory) as session:
        view = session.run(prepare(f"{processes.script}::quick", {"n": 3}))
        assert view.status == "completed" and view.output == ["quick 3"] and not session.owner
