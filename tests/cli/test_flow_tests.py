"""`flo test` on real scripts."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from flo.cli._app import app

SCRIPT = """
load("flo/prelude/v1", "flow", "unwrap", "args")

def _sleeps(fctx):
    begun = fctx.actions.now()
    fctx.actions.sleep("36h")
    if fctx.actions.now() - begun < 36 * 3600:
        fail("time did not jump")
test_sleeps = flow(implementation = _sleeps)

def _red(fctx):
    print("before")
    fctx.actions.sleep(5)
    fail("expected red")
test_red = flow(implementation = _red)
helper = flow(implementation = _red)

def _unmocked(fctx):
    return unwrap(fctx.actions.http.get("http://x.example/y"))
test_unmocked = flow(implementation = _unmocked)

def _mocked(fctx):
    fctx.actions.connector("test.mock", action = "http.get", returns = {"json": {"stock": 3}})
    if unwrap(fctx.actions.http.get("http://x.example/y")).json["stock"] != 3:
        fail("not the mock's answer")
test_mocked = flow(implementation = _mocked)

test_wants = flow(implementation = _mocked, args = {"n": args.int()})

def _stuck(fctx):
    unwrap(fctx.actions.signal("never"))
test_stuck = flow(implementation = _stuck)
"""


@pytest.fixture
def flo_test(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.flow").write_text(SCRIPT)
    return lambda *words: CliRunner().invoke(app, ["test", "t.flow", *words], catch_exceptions=False)


def test_every_test_is_named_with_how_it_ended(flo_test):
    done = flo_test()
    lines = done.stdout.splitlines()

    assert done.exit_code == 1
    assert [line.partition(" (")[0] for line in lines[:6]] == [
        "t.flow::test_sleeps ok", "t.flow::test_red FAILED", "t.flow::test_unmocked FAILED", "t.flow::test_mocked ok",
        "t.flow::test_wants FAILED", "t.flow::test_stuck FAILED",
    ]  # fmt: skip
    assert lines[-1] == "2 passed, 4 failed"


def test_a_failure_shows_its_place_its_traceback_and_what_was_printed(flo_test):
    text = flo_test("-k", "red").stdout

    assert "  | before" in text
    assert "t.flow:14:5, in _red" in text and 'fail("expected red")' in text


def test_what_stops_a_test_is_told(flo_test):
    text = flo_test().stdout

    assert "http.get http://x.example/y is not mocked" in text
    assert "argument n is missing" in text
    assert "waits for signal never" in text


def test_only_tests_with_the_text_in_their_name_run(flo_test):
    done = flo_test("-k", "sleeps")

    assert done.exit_code == 0
    first, last = done.stdout.splitlines()
    assert first.startswith("t.flow::test_sleeps ok (") and first.endswith(", 1 d 12 h of virtual time)")
    assert last == "1 passed, 0 failed"


def test_no_tests_is_exit_1(flo_test):
    done = flo_test("-k", "nothing like it")

    assert (done.exit_code, done.stdout) == (1, "no test_* flows\n")


def test_json_is_one_object_with_every_test(flo_test):
    found = json.loads(flo_test("--format", "json").stdout)

    assert (found["passed"], found["failed"]) == (2, 4)
    assert [test["name"] for test in found["tests"] if test["status"] == "passed"] == ["test_sleeps", "test_mocked"]
    red = next(test for test in found["tests"] if test["name"] == "test_red")
    assert red["output"] == ["before"] and red["error"]["where"] == "t.flow:14:5"


def test_a_wrong_script_is_exit_2_and_nothing_runs(flo_test, tmp_path):
    (tmp_path / "broken.flow").write_text("x = [1,\n")
    done = flo_test("broken.flow")

    assert done.exit_code == 2 and done.stdout == ""
    assert "broken.flow:" in done.stderr
