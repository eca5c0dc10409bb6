"""`flo runs …` over a grid that does as it is told."""

from __future__ import annotations

import json

import msgspec
import pytest

from flo.api.grid import LogLine, Waiting
from tests.cli.fakes import prepare


@pytest.fixture
def grid(command):
    """Two runs: `over` has completed with its arguments, `open` waits for a signal."""
    command("run", "x.flow::echo", "--id", "over", "--arg", "n=5")
    grid = command.grid
    grid.start(prepare("x.flow::wait", id="open").request)
    waiting = Waiting(task="0", flow="main", on="signal go", since=1)
    grid.views["open"] = msgspec.structs.replace(grid.views["open"], waiting=[waiting])
    return grid


def test_list_is_a_table_of_runs_oldest_first(command, grid):
    done = command("runs", "list")
    head, *rows = done.stdout.splitlines()

    assert head.split() == ["ID", "FLOW", "STATUS", "AGE", "DURATION", "WAITS", "FOR"]
    assert [row.split()[:3] for row in rows] == [["over", "fake::echo", "completed"], ["open", "fake::wait", "running"]]
    assert rows[1].endswith("signal go")


def test_list_as_json_is_an_array_with_what_each_run_waits_for(command, grid):
    over, waiting = json.loads(command("runs", "list", "--format", "json").stdout)

    assert (over["id"], over["status"], over["result"]) == ("over", "completed", {"n": 5})
    assert waiting["waiting"] == [{"task": "0", "flow": "main", "on": "signal go", "since": 1}]


def test_list_can_be_narrowed_by_status_and_number(command, grid):
    running = json.loads(command("runs", "list", "--status", "running", "--format", "json").stdout)
    newest = json.loads(command("runs", "list", "--limit", "1", "--format", "json").stdout)

    assert [run["id"] for run in running] == [run["id"] for run in newest] == ["open"]
    assert command("runs", "list", "--status", "ended").exit_code == 2
    assert command("runs", "list", "--limit", "0").exit_code == 2


def test_list_of_an_empty_directory_says_so_on_stderr_and_is_an_empty_array_in_json(command):
    text, found = command("runs", "list"), command("runs", "list", "--format", "json")

    assert (text.exit_code, text.stdout, text.stderr) == (0, "", "no runs\n")
    assert json.loads(found.stdout) == []


def test_show_has_a_field_per_line(command, grid):
    over, waiting = command("runs", "show", "over").stdout, command("runs", "show", "open").stdout

    assert 'result     {"n":5}' in over.splitlines()
    assert "output     1 prints, see: flo runs logs over" in over.splitlines()
    assert "waits for  signal go  (0 main, " in waiting


def test_show_has_the_flows_traceback(command, grid):
    grid.fail("open", "failed", "failed", "boom")
    view = grid.views["open"]
    error = msgspec.structs.replace(view.error, traceback="Traceback:\n  x.flow:3, in main\n")
    grid.views["open"] = msgspec.structs.replace(view, error=error)
    text = command("runs", "show", "open").stdout

    assert "error      failed: boom at x.flow:3:5" in text and "x.flow:3, in main" in text


def test_show_as_json_is_the_run_object_with_what_it_waits_for(command, grid):
    found = json.loads(command("runs", "show", "open", "--format", "json").stdout)

    assert {"id", "flow", "status", "result", "error", "output", "started_at", "finished_at"} <= set(found)
    assert found["waiting"][0]["on"] == "signal go" and found["paused"] is None and found["parent"] is None


def test_history_as_json_is_an_array_with_integers_of_any_size(command, grid):
    found = json.loads(command("runs", "history", "over", "--format", "json").stdout)

    assert [(entry["index"], entry["kind"], entry["params"]) for entry in found] == [(1, "run.started", {"big": 2**80})]
    assert "run.started" in command("runs", "history", "over").stdout


def test_logs_are_the_prints_and_what_else_the_run_told(command, grid):
    for channel, text in [
        ("log", '{"message":"charged","fields":{"amount":30,"who":"Ann"}}'), ("progress", '{"done":3,"total":10}'),
        ("publish", '{"key":"stage","value":{"at":"half"}}'), ("publish", "what is this"),
    ]:  # fmt: skip
        grid.lines["open"].append(LogLine(at=1, task="0", channel=channel, text=text))
    done = command("runs", "logs", "open")

    assert done.stdout.splitlines() == [
        "waiting", '[log] charged amount=30 who="Ann"', "[progress] 3/10", '[publish] stage = {"at":"half"}',
        "[publish] what is this",
    ]  # fmt: skip
    assert len(json.loads(command("runs", "logs", "open", "--format", "json").stdout)) == 5


def test_signal_passes_json_on(command, grid):
    done = command("runs", "signal", "open", "approve", '{"n": 12345678901234567890123}')
    command("runs", "signal", "open", "bare")
    command("runs", "signal", "open", "piped", "-", stdin="[1]")

    assert done.exit_code == 0
    assert grid.signals == [
        ("open", "approve", '{"n": 12345678901234567890123}'), ("open", "bare", "null"), ("open", "piped", "[1]")
    ]  # fmt: skip


def test_a_signal_that_is_not_json_is_exit_2(command, grid):
    done = command("runs", "signal", "open", "approve", "yes please")

    assert done.exit_code == 2 and "JSON" in done.stderr
    assert grid.signals == []


def test_a_run_that_is_over_takes_no_signal_and_cannot_be_cancelled(command, grid):
    assert command("runs", "signal", "over", "x").exit_code == 3
    assert command("runs", "cancel", "over").exit_code == 3


def test_cancel_asks_for_the_end(command, grid):
    done = command("runs", "cancel", "open", "--reason", "enough")

    assert done.exit_code == 0 and "open" in done.stderr
    assert grid.views["open"].error.message == "enough"


@pytest.mark.parametrize("words", [["show"], ["history"], ["logs"], ["cancel"], ["signal", "x"]], ids=lambda w: w[0])
def test_an_unknown_run_is_exit_1_and_named(command, words):
    verb, *rest = words
    done = command("runs", verb, "ghost", *rest)

    assert done.exit_code == 1 and "ghost" in done.stderr


def test_looking_executes_nothing(command, grid):
    for words in (["list"], ["show", "open"], ["history", "open"], ["logs", "open"], ["signal", "open", "x"]):
        command("runs", *words)

    assert grid.executed == []
