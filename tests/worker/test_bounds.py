"""Failing flows, their bounds, and the sandbox."""

from __future__ import annotations

import pytest

from flo.worker.budget import Budget
from flo.worker.bundle import Bundle
from tests.worker.engine import HEADER, Engine, body, bundle


def test_runtime_error_has_its_place_and_traceback(engine: Engine) -> None:
    failure = engine.fails(
        bundle("""
        def inner(d):
            return d["missing"]
        def _main(fctx):
            return inner({"a": 1})
        main = flow(implementation = _main)
        """)
    )

    assert failure["kind"] == "failed" and failure["where"].startswith("main.flow:4:")
    traceback = failure["details"]["traceback"]
    assert "main.flow:6" in traceback and 'd["missing"]' in traceback and "prelude" not in traceback


def test_failing_to_load_is_a_failure_of_the_run_with_its_place(engine: Engine) -> None:
    failure = engine.fails(bundle("x = 1 // 0\ndef _m(fctx):\n    return 1\nmain = flow(implementation = _m)\n"))
    assert failure["kind"] == "failed" and failure["where"].startswith("main.flow:2:")

    failure = engine.fails(bundle("load('./lib.flow', 'x')\n", lib="x = 1\ny = x.nothing\n"), "main.flow")
    assert failure["where"].startswith("lib.flow:2:")

    failure = engine.fails(bundle("load('./lib.flow', 'x')\n", lib=HEADER + "x = context()\n"), "main.flow")
    assert "no flow is being executed" in failure["message"]


def test_unknown_flow_is_not_found(engine: Engine) -> None:
    assert engine.fails(body("return 1"), "main.flow::ghost")["kind"] == "not_found"


def test_endless_recursion_is_stopped_with_its_line(engine: Engine) -> None:
    failure = engine.fails(
        bundle("def f(n):\n    return f(n + 1)\ndef _m(fctx):\n    return f(0)\nmain = flow(implementation = _m)\n")
    )

    assert failure["kind"] == "failed" and failure["where"].startswith("main.flow:3")
    assert len(failure["details"]["traceback"]) < 20_000


def test_step_budget_ends_a_loop_as_quota_exceeded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flo.worker.strand.Budget", lambda: Budget(1_000_000))
    failure = engine.fails(
        bundle("""
        def _child(fctx):
            for i in range(1000000000):
                for j in range(1000000000):
                    pass
        child = flow(implementation = _child)
        def _main(fctx):
            child()
        main = flow(implementation = _main)
        """)
    )

    assert failure["kind"] == "quota_exceeded" and failure["where"].startswith("main.flow:")


def test_step_budget_bounds_loading_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flo.worker.strand.Budget", lambda: Budget(1_000_000))
    failure = engine.fails(bundle("[0 for i in range(1000000000) for j in range(1000000000)]\n"), "main.flow")

    assert failure["kind"] == "quota_exceeded"


@pytest.mark.parametrize(
    "expr",
    ['open("/etc/passwd")', 'eval("1")', '__import__("os")', '"".__class__', 'getattr("", "__class__")',
     "fctx.__class__", "fctx.actions.__globals__", "(lambda: 0).__code__", '_act("kv.incr {}")', "_token",
     'main("", "key")', 'main("", "body", "{}", "{}")'],
)  # fmt: skip
def test_script_cannot_reach_the_host(engine: Engine, expr: str) -> None:
    failure = engine.fails(body(f"return 'REACHED ' + str({expr})"))

    assert "REACHED" not in failure["message"] and failure["where"].startswith("main.flow:")


@pytest.mark.parametrize("name", ["_act", "_token", "_raise", "_json_encode", "_actions"])
def test_private_names_of_the_prelude_cannot_be_loaded(engine: Engine, name: str) -> None:
    source = Bundle({"main.flow": f'load("flo/prelude/v1", "{name}")\n'}, "main.flow")

    assert "private" in engine.fails(source, "main.flow")["message"]
    other = Bundle({"main.flow": 'load("flo/host", "key_of")\n'}, "main.flow")
    assert engine.fails(other, "main.flow")["kind"] == "failed"
