"""`test_*` flows."""

from __future__ import annotations

from pathlib import Path

import pytest

import flo
from flo.client.flow_tests import find_flow_tests, run_flow_tests

SCRIPT = """\
load("flo/prelude/v1", "flow", "FlowContext", "args")
def _good(fctx: FlowContext):
    print("hello")
    fctx.actions.sleep("1h")
    fctx.actions.kv.incr("n")
    if fctx.actions.kv.get("n") != 1 and str(fctx.actions.kv.get("n")) != "1":
        fail("another test was here")
test_b = flow(implementation = _good)
test_a = flow(implementation = _good)
helper = flow(implementation = _good)
def _bad(fctx: FlowContext):
    fail("expected red")
test_bad = flow(implementation = _bad)
def _stuck(fctx: FlowContext):
    fctx.actions.signal("never")
test_stuck = flow(implementation = _stuck)
def _outside(fctx: FlowContext):
    fctx.actions.http.get("https://example.com")
test_outside = flow(implementation = _outside)
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "t.flow"
    path.write_text(SCRIPT)
    return str(path)


def test_tests_are_the_flows_named_so_in_the_order_of_the_text(script: str) -> None:
    assert find_flow_tests(script) == ["test_b", "test_a", "test_bad", "test_stuck", "test_outside"]


def test_each_test_has_a_grid_of_its_own_and_says_how_it_ended(script: str) -> None:
    ended = {test.name: test for test in run_flow_tests(script)}

    assert ended["test_a"].error is None and ended["test_b"].error is None
    assert ended["test_a"].output == ["hello"] and ended["test_a"].virtual_ms == 3_600_000
    bad = ended["test_bad"].error
    assert bad is not None and bad.message.endswith("expected red") and "t.flow:12" in (bad.where or "")
    stuck = ended["test_stuck"].error
    assert stuck is not None and "never" in stuck.message and "nothing is left" in stuck.message
    outside = ended["test_outside"].error
    assert outside is not None and "http.get https://example.com is not mocked" in outside.message


def test_tests_are_chosen_by_name(script: str) -> None:
    assert [test.name for test in run_flow_tests(script, only=lambda name: "ad" in name)] == ["test_bad"]


def test_a_script_that_is_wrong_has_no_tests(tmp_path: Path) -> None:
    path = tmp_path / "wrong.flow"
    path.write_text("while True:\n    pass\n")
    with pytest.raises(flo.ScriptError):
        list(run_flow_tests(str(path)))
