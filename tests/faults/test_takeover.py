"""Owners die and leave while many guests are at work: one of them takes over, and none fails for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flo.client.session import Session
from tests.support.flo_command import COMMAND_SECONDS, ROOT

GUESTS = 8
ROUNDS = 80
KILLS = 8
PAUSE_SECONDS = 0.15  # between two kills: a takeover, and some work; all rounds take many times as long


class Processes:
    def __init__(self, folder: Path) -> None:
        self.directory = folder / "data"
        self._env = os.environ | {"PYTHONPATH": str(ROOT)}
        self.all: list[subprocess.Popen[str]] = []

    def start(self, name: str, how: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.takeover", str(self.directory), name, str(ROUNDS), how],
            env=self._env, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.all.append(started)
        return started

    def owner(self) -> int:
        try:
            return int(json.loads((self.directory / "lock").read_bytes())["pid"])
        except (OSError, ValueError):
            return 0  # there is none yet, or it is being written

    def close(self) -> None:
        for started in self.all:
            if started.poll() is None:
                started.kill()
                started.communicate()


@pytest.fixture
def processes(short_folder: Path) -> Iterator[Processes]:
    started = Processes(short_folder)
    yield started
    started.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_no_guest_fails_when_owners_die_and_leave_under_load(processes: Processes) -> None:
    how = {f"p{n}": "stays" if n % 2 else "leaves" for n in range(GUESTS)}
    running = {name: processes.start(name, how[name]) for name in how}
    never = threading.Event()
    killed: set[int] = set()
    while len(killed) < KILLS and any(process.poll() is None for process in running.values()):
        never.wait(PAUSE_SECONDS)
        owner = processes.owner()
        for name, process in running.items():
            if process.pid == owner and process.poll() is None:
                process.kill()
                process.communicate()
                if process.returncode < 0:
                    killed.add(process.pid)
                    running[name] = processes.start(name, how[name])
    for process in processes.all:
        if process.pid not in killed:
            _, errors = process.communicate(timeout=COMMAND_SECONDS)
            assert process.returncode == 0, errors

    assert len(killed) >= KILLS // 2, "owners were killed while the others worked"
    with Session(str(processes.directory)) as session:
        views = session.call(lambda grid: grid.list())
    assert {view.id for view in views} == {f"{name}-{n}" for name in how for n in range(ROUNDS)}
    results = [json.loads(bytes(view.result or b"null")) for view in views]
    assert sorted(number for number, _ in results) == list(range(1, GUESTS * ROUNDS + 1)), "each counted once"
    assert {own for _, own in results} == {1}
