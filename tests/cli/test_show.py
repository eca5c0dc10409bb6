"""How values, times and errors look."""

from __future__ import annotations

import msgspec
import pytest
import typer

from flo.api import errors
from flo.api.grid import STATUSES, RunView, Waiting
from flo.cli import _exit, _show, _times, _values
from flo.cli._exit import ExitCode
from flo.log.errors import FloError, LogDamaged, NoSpace


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 ms"), (999, "999 ms"), (1_000, "1 s"), (2_540, "2.5 s"), (59_999, "60 s"), (60_000, "1 min"),
     (185_000, "3 min 5 s"), (3_600_000, "1 h"), (187_200_000, "2 d 4 h")],
)  # fmt: skip
def test_a_span_has_two_units_at_most(ms, text):
    assert _times.span(ms) == text


@pytest.mark.parametrize(("ms", "text"), [(-5, "now"), (999, "now"), (59_000, "59 s"), (90_000_000, "1 d")])
def test_an_age_has_one_unit(ms, text):
    assert _times.rough(ms) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("-3", -3), ("2.5", 2.5), ("true", True), ("null", None), ('[1,{"a":2}]', [1, {"a": 2}]),
     ("plain", "plain"),
     ('"5"', "5"), ("", ""), ("a=b", "a=b"), ("{broken", "{broken"), ("NaN", "NaN"), ("Infinity", "Infinity"),
     ("1" * 40, int("1" * 40))],
)  # fmt: skip
def test_an_argument_is_json_where_it_parses_else_a_text(text, value):
    got = _values.arguments([f"a={text}"], None)["a"]

    assert got == value and type(got) is type(value)


def test_the_last_of_equal_arguments_holds():
    assert _values.arguments(["a=1", "a=2"], '{"a": 0, "b": 3}') == {"a": 2, "b": 3}


@pytest.mark.parametrize("text", ["500ms", "0.5", "0.5s"])
def test_durations_in_all_their_spellings(text):
    assert _values.duration_ms("--timeout", text) == 500


@pytest.mark.parametrize("text", ["", "5x", "-1", "0", "1e400", "nan", "1m 5", "100000d"])
def test_a_wrong_duration_is_refused(text):
    with pytest.raises(typer.BadParameter):
        _values.duration_ms("--timeout", text)


def test_every_status_and_every_error_of_the_api_has_an_exit_code():
    found = {name: _exit.BY_STATUS[name] for name in STATUSES}

    assert found == {"running": 1, "completed": 0, "failed": 1, "cancelled": 6, "timed_out": 7}
    assert _exit.of_error(errors.ScriptError("x")) is ExitCode.USAGE
    assert _exit.of_error(errors.BadArgument("x")) is ExitCode.REFUSED
    assert _exit.of_error(errors.NotFound("x")) is ExitCode.FAILED
    assert _exit.of_error(errors.Conflict("x")) is ExitCode.REFUSED
    assert _exit.of_error(errors.Unavailable("x")) is ExitCode.RETRYABLE
    assert _exit.of_error(errors.Overloaded("x")) is ExitCode.RETRYABLE
    assert _exit.of_error(NoSpace("x")) is ExitCode.RETRYABLE
    assert _exit.of_error(LogDamaged("x")) is ExitCode.FAILED
    assert _exit.of_error(FloError("x")) is ExitCode.FAILED


def test_every_exit_code_has_a_meaning():
    assert set(_exit.MEANINGS) == set(ExitCode)


def view(**fields):
    return RunView(**({"id": "r", "flow": "x.flow::main", "status": "completed", "started_at": 1_000} | fields))


def test_a_result_is_one_line_of_json_however_it_is_kept():
    assert _show.result_line(view(result=msgspec.Raw(b'{\n "a": [1,\n  2]\n}'))) == '{"a":[1,2]}'
    assert _show.result_line(view(result=msgspec.Raw(b"1" * 60))) == "1" * 60
    assert _show.result_line(view(result=msgspec.Raw(b"null"))) is None
    assert _show.result_line(view()) is None


def test_what_a_run_waits_for_names_each_thing_once_and_few_of_many():
    waiting = [Waiting(task=f"0.{i}", flow="f", on=on, since=1) for i, on in enumerate(["a", "b", "a", "c", "d", "e"])]

    assert _show.waits_for(view(status="running", waiting=waiting)) == "a, b, c, … 2 more"
    assert _show.waits_for(view(status="running", paused="crashing: why\nmore")) == "paused: crashing: why"
    assert _show.waits_for(view(waiting=waiting)) == ""
