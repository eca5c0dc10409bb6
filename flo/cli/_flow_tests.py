"""`flo test`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flo.cli import _options
from flo.cli._exit import ExitCode

if TYPE_CHECKING:
    from flo.client.flow_tests import FlowTest

app = _options.command_group()


@app.command("test")
def run_tests(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Scripts with test_* flows.")],
    only: Annotated[
        str | None, typer.Option("-k", metavar="TEXT", help="Only tests that have this in their name.")
    ] = None,
    format: _options.Format = None,
) -> None:
    """Run the test_* flows of scripts: in this process, in virtual time, with nothing from outside.

    Each test has a grid of its own. Sleeps and timeouts take no time. At every wait the evaluation is thrown
    away and replayed, so that a flow that passes survives a crash at any point. What goes outside has to be
    mocked, by the flow itself:

    \b
      fctx.actions.connector("test.mock", action = "http.get", match = {"url": "https://api.example/*"},
                             returns = {"status": 200, "json": {"stock": 3}})

    \b
      flo test ./order.flow
      flo test flows/*.flow -k refund

    Exit code: 0 all passed, 1 one failed or there was none, 2 a script is wrong.
    """
    from flo.cli import _out, _show
    from flo.client.flow_tests import find_flow_tests, run_flow_tests

    for file in files:
        find_flow_tests(file)  # a wrong script is told before any test runs
    tests = []
    for file in files:
        for test in run_flow_tests(file, only=lambda name: only is None or only in name):
            tests.append(test)
            if format != "json":
                _out.data(_line(test))
    failed = [test for test in tests if test.error is not None]
    if format == "json":
        shown = {"passed": len(tests) - len(failed), "failed": len(failed), "tests": [_object(test) for test in tests]}
        _out.line(_show.as_json(shown))
    else:
        _out.data(_summary(tests, failed))
    raise typer.Exit(ExitCode.FAILED if failed or not tests else ExitCode.OK)


def _line(test: FlowTest) -> str:
    from flo.cli import _out, _times

    word = _out.styled("ok", "green", sys.stdout) if test.error is None else _failed("FAILED")
    virtual = f", {_times.span(test.virtual_ms)} of virtual time" if test.virtual_ms else ""
    return f"{test.script}::{test.name} {word} ({_times.span(test.real_ms)}{virtual})\n"


def _summary(tests: Sequence[FlowTest], failed: Sequence[FlowTest]) -> str:
    if not tests:
        return "no test_* flows\n"
    text = ""
    for test in failed:
        error = test.error
        assert error is not None
        text += "\n" + _failed(f"FAILED {test.script}::{test.name}") + "\n"
        text += "".join(f"  | {line}\n" for printed in test.output for line in printed.splitlines())
        text += error.traceback.rstrip("\n") + "\n" if error.traceback else f"{error.kind}: {error.message}\n"
    return text + ("\n" if failed else "") + f"{len(tests) - len(failed)} passed, {len(failed)} failed\n"


def _object(test: FlowTest) -> dict[str, Any]:
    error = test.error
    shown = None
    if error is not None:
        shown = {"kind": error.kind, "message": error.message, "where": error.where, "traceback": error.traceback}
    status = "passed" if error is None else "failed"
    return {
        "file": test.script, "name": test.name, "status": status, "error": shown, "output": test.output,
        "real_ms": test.real_ms, "virtual_ms": test.virtual_ms,
    }  # fmt: skip


def _failed(text: str) -> str:
    from flo.cli import _out

    return _out.styled(text, "red", sys.stdout)
