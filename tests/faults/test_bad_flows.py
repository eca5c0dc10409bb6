"""Flows that burn, overflow or kill do not take the others with them."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flo.api.grid import FINAL, RunView, Update
from flo.client.prepared import put_bundle
from flo.client.start import prepare
from flo.connectors.testing import Answer, RecordingServer
from flo.grid.node import Node
from flo.worker.pool import ThreadWorker
from tests.support.flo_command import COMMAND_SECONDS, Done, FloCommand
from tests.support.flo_command import flo_command as command_words

SCRIPT = Path(__file__).with_name("bad.flow")
MEMORY_KIB = 2_000_000  # of a process: less than `sorted` asks for, more than all else needs
ABORTED = (-6, 134)
PAUSED = "crashing: 3 processes died while they evaluated this run"


class Limited:
    """`flo` with little memory."""

    def __init__(self, flo: FloCommand) -> None:
        self.data = flo.data
        self._folder = flo.folder
        self._env = flo.env | {"RUST_BACKTRACE": "0"}
        self._started: list[subprocess.Popen[str]] = []

    def __call__(self, *words: str) -> Done:
        started = self.start(*words)
        out, err = started.communicate(timeout=COMMAND_SECONDS)
        return Done([*words], started.returncode, out, err)

    def start(self, *words: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            ["sh", "-c", f'ulimit -c 0 && ulimit -v {MEMORY_KIB} && exec "$@"', "sh", *command_words(), *words],
            env=self._env, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self._started.append(started)
        return started

    def detach(self, flow: str, id: str) -> None:
        assert self("run", f"{SCRIPT}::{flow}", "--id", id, "--detach").exit_code == 0

    def show(self, id: str) -> Any:
        return self("runs", "show", id, "--format", "json").json

    def close(self) -> None:
        for started in self._started:
            if started.poll() is None:
                started.kill()
                started.communicate()


@pytest.fixture
def limited(flo_command: FloCommand) -> Iterator[Limited]:
    command = Limited(flo_command)
    yield command
    command.close()


def test_flow_that_burns_processor_time_ends_by_its_budget_and_others_go_on() -> None:
    ended: dict[str, RunView] = {}
    all_ended = threading.Event()
    node = Node.open("memory:", worker_factory=lambda core: ThreadWorker(core, steps=30_000_000))

    def on_update(update: Update) -> None:
        if update.view is not None and update.view.status in FINAL:
            ended[update.view.id] = update.view
            if len(ended) == 6:
                all_ended.set()

    try:
        for flow, id in [("burn", "burner"), *(("good", f"good-{n}") for n in range(5))]:
            prepared = prepare(f"{SCRIPT}::{flow}", id=id)
            put_bundle(node, prepared)
            node.start(prepared.request)
            node.watch(id, on_update)
        assert all_ended.wait(30)
    finally:
        node.close()

    assert list(ended)[-1] == "burner", "the others did not wait for it"
    assert all(ended[f"good-{n}"].status == "completed" for n in range(5))
    error = ended["burner"].error
    assert error is not None and (error.kind, error.message) == (
        "quota_exceeded", "the step budget of 30,000,000 is used up",
    )  # fmt: skip
    assert error.where is not None and error.where.startswith("bad.flow:20")


def test_stacks_and_deep_data_end_their_own_flow_only(flo_command: FloCommand) -> None:
    overflows = {
        "recurse": ("failed", "Starlark call stack overflow"),
        "nest": ("quota_exceeded", "more than 200 deep"),
        "there": ("failed", "Starlark call stack overflow"),
        "deep_result": ("bad_argument", "nested deeper than 64 levels"),
        "deep_argument": ("bad_argument", "nested deeper than 64 levels"),
        "deep_json": ("bad_argument", "json.decode: "),
        "deep_text": ("bad_argument", "nested deeper than 64 levels"),
        "deep_equal": ("failed", "recursion"),
        "hoard": ("quota_exceeded", "the memory budget of 1,073,741,824 bytes is used up"),
    }
    for flow in [*overflows, "good"]:
        assert flo_command("run", f"{SCRIPT}::{flow}", "--id", flow, "--detach").exit_code == 0
    with RecordingServer() as server:
        server.on("/deep", Answer(body="[" * 100_000 + "]" * 100_000, headers={"content-type": "application/json"}))
        url = f"url={server.url}/deep"
        assert flo_command("run", f"{SCRIPT}::deep_answer", "--id", "deep", "--detach", "--arg", url).exit_code == 0
        done = flo_command("resume", "--format", "json")  # one process for all of them
    views = {view["id"]: view for view in map(json.loads, done.out.splitlines())}

    assert done.exit_code == 1, str(done)
    assert views["good"]["result"] == "good" and views["deep"]["status"] == "completed"
    for flow, (kind, message) in overflows.items():
        error = views[flow]["error"]
        assert error["kind"] == kind and message in error["message"], views[flow]
        assert flow == "deep_result" or error["where"].startswith("bad.flow:"), views[flow]


def test_arguments_and_signals_that_are_nested_too_deep_are_refused_where_they_are_given(
    flo_command: FloCommand,
) -> None:
    nested = "[" * 100_000 + "]" * 100_000
    flo_command("run", f"{SCRIPT}::patient", "--id", "patient", "--detach")
    for words, text in [
        (["run", f"{SCRIPT}::takes", "--args-json", "-"], f'{{"value": {nested}}}'),
        (["runs", "signal", "patient", "finish", "-"], nested),
    ]:
        done = subprocess.run(
            [*command_words(), *words], env=flo_command.env, input=text, capture_output=True, text=True,
            timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 2 and "nested too deep: the limit is 64 levels" in done.stderr, done


def test_run_that_kills_its_process_is_paused_after_three_times_and_others_complete(limited: Limited) -> None:
    limited.detach("kill", "killer")
    limited.detach("good", "good")
    for _ in range(3):
        assert limited("resume").exit_code in ABORTED
    after = limited("resume")

    assert after.exit_code == 1 and f"run killer is paused: {PAUSED}" in after.err, str(after)
    assert limited.show("good")["result"] == "good"
    killer = limited.show("killer")
    assert killer["status"] == "running" and killer["paused"].startswith(PAUSED)
    for words in (["resume"], ["run", f"{SCRIPT}::kill", "--id", "killer"], ["runs", "list"]):
        left = limited(*words)
        assert left.exit_code == (0 if words == ["runs", "list"] else 1) and "paused" in left.out + left.err, str(left)
    assert limited("log", "verify", str(limited.data)).exit_code == 0


def test_paused_run_is_tried_once_more_when_it_is_named_and_may_be_cancelled(limited: Limited) -> None:
    limited.detach("parent", "killer")
    deaths = [limited("resume").exit_code for _ in range(3)]
    assert all(code in ABORTED for code in deaths), deaths
    assert limited("resume", "killer").exit_code == 1
    assert limited("resume", "killer").exit_code in ABORTED, "named, it gets another try"
    again = limited("resume", "killer")
    assert again.exit_code == 1 and PAUSED in again.err, "which was the only one"

    folders = limited.data / "resources"
    assert list(folders.iterdir()), "it still holds what it opened"
    assert limited("runs", "cancel", "killer").exit_code == 0
    ended = limited("resume")
    assert ended.exit_code == 6 and "gone" in ended.out, str(ended)
    assert not list(folders.iterdir())
    assert limited.show("killer")["status"] == "cancelled"


def test_guests_go_on_when_a_flow_kills_the_owner(limited: Limited) -> None:
    armed = limited.start("run", f"{SCRIPT}::armed", "--id", "armed")
    assert armed.stdout is not None and armed.stdout.readline() == "waits\n"
    guests = [limited.start("run", f"{SCRIPT}::patient", "--id", f"patient-{n}") for n in range(3)]
    for guest in guests:
        assert guest.stdout is not None and guest.stdout.readline() == "waits\n"
    limited("runs", "signal", "armed", "go")
    armed.communicate(timeout=COMMAND_SECONDS)
    assert armed.returncode in ABORTED

    for n, guest in enumerate(guests):
        assert limited("runs", "signal", f"patient-{n}", "finish", str(n)).exit_code == 0
        out, err = guest.communicate(timeout=COMMAND_SECONDS)
        assert (guest.returncode, out) == (0, f"{n}\n"), err
    assert limited.show("armed")["paused"] is None, "once is no habit"
