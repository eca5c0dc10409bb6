"""`flo run` and `flo resume` over a grid that does as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from flo.api.grid import RunView, StartRequest
from flo.client.remote import OwnerLeft
from tests.cli.fakes import FakeCommand, prepare


def begin(command: FakeCommand, id: str, flow: str = "other") -> None:
    command.grid.start(prepare(f"x.flow::{flow}", id=id).request, execute=False)


def when_executed(command: FakeCommand, act: Callable[[str], None]) -> None:
    """Has `act` decide what becomes of a run as soon as somebody watches it."""
    watch = command.grid.watch

    def watching(id, on_update):
        unwatch = watch(id, on_update)
        act(id)
        return unwatch

    command.grid.watch = watching


def test_text_is_prints_then_the_result_as_one_json_line(command):
    done = command("run", "x.flow::echo", "--arg", "n=5", "--arg", "who=Ann")

    assert done.exit_code == 0
    assert done.stdout.splitlines() == ['echo {"n":5,"who":"Ann"}', '{"n":5,"who":"Ann"}']
    assert done.stderr == ""


def test_a_result_of_none_is_not_printed(command):
    when_executed(command, lambda id: command.grid.finish(id, None))
    done = command("run", "x.flow::other")

    assert (done.exit_code, done.stdout) == (0, "")


def test_json_is_one_object_of_the_promised_shape(command):
    done = command("run", "x.flow::echo", "--id", "order-7", "--format", "json")

    assert json.loads(done.stdout) == {
        "id": "order-7", "flow": "fake::echo", "status": "completed", "result": {}, "error": None,
        "output": ["echo {}"], "started_at": 1, "finished_at": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [("failed", 1, "run r failed: kind: why at x.flow:3:5"), ("cancelled", 6, "run r was cancelled"),
     ("timed_out", 7, "run r timed out: kind: why at x.flow:3:5")],
)  # fmt: skip
def test_a_run_that_did_not_complete_has_its_exit_code_and_says_why(command, status, code, says):
    when_executed(command, lambda id: command.grid.fail(id, status, "kind", "why"))
    done = command("run", "x.flow::other", "--id", "r")

    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.splitlines() == [says]


def test_the_error_object_has_kind_message_and_where(command):
    when_executed(command, lambda id: command.grid.fail(id, "failed", "kind", "why"))
    done = command("run", "x.flow::other", "--format", "json")

    assert json.loads(done.stdout)["error"] == {"kind": "kind", "message": "why", "where": "x.flow:3:5"}


def test_a_paused_run_says_why_and_exits_1_and_stays_running(command):
    when_executed(command, lambda id: command.grid.pause(id, "NonDeterministic: expected a, got b"))
    text = command("run", "x.flow::other", "--id", "r")
    found = command("run", "x.flow::other", "--id", "r", "--format", "json")

    assert text.exit_code == found.exit_code == 1
    assert "run r is paused: NonDeterministic: expected a, got b" in text.stderr
    assert json.loads(found.stdout)["status"] == "running"
    assert json.loads(found.stdout)["paused"] == "NonDeterministic: expected a, got b"


def test_output_of_a_run_goes_on_where_it_was_when_the_owner_leaves(command):
    told = []

    def act(id):
        if not told:
            told.append(id)
            command.owner = False
            command.grid.print(id, "one")
            command.grid.lose()
        else:
            command.grid.print(id, "two")
            command.grid.finish(id, 2)

    command.owner = False
    when_executed(command, act)
    done = command("run", "x.flow::other")

    assert (done.exit_code, done.stdout.splitlines()) == (0, ["one", "two", "2"])
    assert len(command.attached) == 2


def test_a_conflict_is_refused_with_exit_3(command):
    command("run", "x.flow::echo", "--id", "r", "--arg", "n=1")
    done = command("run", "x.flow::echo", "--id", "r", "--arg", "n=2")

    assert done.exit_code == 3
    assert done.stderr.startswith("Error: run r exists with another flow")


def test_a_script_error_is_exit_2_and_attaches_to_nothing(command):
    done = command("run", "absent.flow")

    assert done.exit_code == 2 and "Error: absent.flow does not exist [script]" in done.stderr
    assert command.attached == []


def test_errors_are_an_object_too_when_json_is_asked_for(command):
    done = command("run", "absent.flow", "--format", "json")

    assert done.stdout == ""
    assert json.loads(done.stderr.splitlines()[-1])["status"] == "script"


@pytest.mark.parametrize(
    ("words", "names"),
    [(["--args-json", "{not json"], "--args-json"), (["--args-json", "[1]"], "--args-json"),
     (["--args-json", '{"x": NaN}'], "--args-json"), (["--args-json", "[" * 50_000 + "]" * 50_000], "--args-json"),
     (["--arg", "novalue"], "--arg"), (["--arg", "x=" + "[" * 50_000 + "]" * 50_000], "--arg"),
     (["--timeout", "5x"], "--timeout"), (["--timeout", "-1s"], "--timeout"), (["--timeout", "0"], "--timeout"),
     (["--timeout", "1000000d"], "--timeout"), (["--format", "xml"], "--format")],
)  # fmt: skip
def test_wrong_usage_is_exit_2_and_names_the_option(command, words, names):
    done = command("run", "x.flow::echo", *words)

    assert done.exit_code == 2 and names in done.stderr
    assert command.attached == []


def test_the_timeout_reaches_the_run(command):
    command("run", "x.flow::echo", "--id", "r", "--timeout", "1h30m")

    assert command.grid.requests["r"].timeout_ms == 5_400_000


def test_args_json_reads_stdin_and_arg_wins_over_it(command):
    done = command("run", "x.flow::echo", "--args-json", "-", "--arg", "a=2", stdin='{"a": 1, "b": [1.5, null]}')

    assert json.loads(done.stdout.splitlines()[-1]) == {"a": 2, "b": [1.5, None]}


def test_detach_starts_and_does_not_execute(command):
    done = command("run", "x.flow::echo", "--id", "away", "--detach")

    assert (done.exit_code, done.stdout) == (0, "away\n")
    assert "flo resume away" in done.stderr
    assert command.grid.views["away"].status == "running"


def test_detach_as_a_guest_leaves_the_execution_to_the_owner(command):
    command.owner = False
    done = command("run", "x.flow::echo", "--id", "away", "--detach", "--format", "json")

    assert json.loads(done.stdout)["id"] == "away"
    assert command.grid.views["away"].status == "completed"


def test_the_data_directory_is_the_option_else_the_environment_else_the_home(command, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    command("runs", "list")
    monkeypatch.setenv("FLO_DATA_DIR", "/from/environment")
    command("runs", "list")
    command("runs", "list", "--data-dir", "/from/option")
    command("--data-dir", "/before/command", "runs", "list")

    assert command.attached == [
        f"{tmp_path}/.flo/data", "/from/environment", "/from/option", "/before/command"
    ]  # fmt: skip


def test_resume_of_one_run_is_like_run(command):
    begin(command, "r", "echo")
    done = command("resume", "r")

    assert (done.exit_code, done.stdout.splitlines()) == (0, ["echo {}", "{}"])


def test_resume_of_several_says_whose_each_line_is_and_how_each_ended(command):
    begin(command, "a", "echo")
    begin(command, "b", "other")
    when_executed(command, lambda id: id == "b" and command.grid.fail(id, "failed", "kind", "why"))
    done = command("resume", "a", "b")

    assert done.exit_code == 1
    assert done.stdout.splitlines() == ["a: echo {}", "a: {}"]
    assert done.stderr.splitlines() == ["run a completed", "run b failed: kind: why at x.flow:3:5"]


def test_resume_without_ids_executes_all_unfinished_and_prints_an_object_per_line(command):
    for id in ("a", "b"):
        begin(command, id)
    begin(command, "over", "echo")
    command("resume", "over")
    when_executed(command, lambda id: command.grid.finish(id, id))
    done = command("resume", "--format", "json")

    assert done.exit_code == 0
    assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == ["a", "b"]


def test_resume_with_nothing_to_do_is_exit_0_and_says_so_in_text_only(command):
    text, found = command("resume"), command("resume", "--format", "json")

    assert (text.exit_code, text.stdout, text.stderr) == (0, "", "no unfinished runs\n")
    assert (found.exit_code, found.output) == (0, "")


def test_resume_of_an_unknown_run_is_exit_1_and_names_it(command):
    done = command("resume", "ghost")

    assert done.exit_code == 1 and "ghost" in done.stderr


def test_a_command_waits_for_the_next_owner(command):
    tries = []

    def leave(name):
        tries.append(name)
        if len(tries) == 1:
            raise OwnerLeft("the owner has just left")

    command.owner = False
    command.grid.before_call = leave
    done = command("run", "x.flow::echo")

    assert done.exit_code == 0 and tries[:2] == ["start", "start"]


def test_requests_are_what_the_grid_gets(command):
    command("run", "x.flow::echo", "--id", "r")

    assert isinstance(command.grid.requests["r"], StartRequest)
    assert isinstance(command.grid.views["r"], RunView)
