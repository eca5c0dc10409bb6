"""`flo test`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from flo.cli import _options
from flo.cli._exit import ExitCode

if TYPE_CHECKING:
    from flo.api.grid import RunError
    from flo.worker.modules import Modules

PREFIX: Final = "test_"

app = _options.command_group()


class Tested(msgspec.Struct, frozen=True):
    """How one test ended."""

    file: str
    name: str
    error: RunError | None  # None: it passed
    output: list[str]


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
    from flo.worker.bundle import Bundle
    from flo.worker.describe import list_flows
    from flo.worker.modules import Modules

    names = {file: [name for name in list_flows(Bundle.from_script(file)) if _is_wanted(name, only)] for file in files}
    modules = Modules()
    tests = []
    for file, flows in names.items():
        for name in flows:
            test = _run(file, name, modules)
            tests.append(test)
            if format != "json":
                word = _out.styled("ok", "green", sys.stdout) if test.error is None else _failed("FAILED")
                _out.data(f"{file}::{name} {word}\n")
    failed = [test for test in tests if test.error is not None]
    if format == "json":
        shown = {"passed": len(tests) - len(failed), "failed": len(failed), "tests": [_object(test) for test in tests]}
        _out.line(_show.as_json(shown))
    else:
        _out.data(_summary(tests, failed))
    raise typer.Exit(ExitCode.FAILED if failed or not tests else ExitCode.OK)


def _is_wanted(name: str, only: str | None) -> bool:
    return name.startswith(PREFIX) and (only is None or only in name)


def _run(file: str, name: str, modules: Modules) -> Tested:
    from flo.api.errors import BadArgument
    from flo.api.grid import RunError
    from flo.client.testing import TestGrid

    with TestGrid(modules=modules) as grid:
        run = None
        try:
            run = grid.run(f"{file}::{name}", id=name)
            view = run.wait()
        except (AssertionError, BadArgument) as ended:  # stuck, something is not mocked, or it wants arguments
            output = [] if run is None else grid.node.show(run.id).output
            return Tested(file, name, RunError(kind="test", message=str(ended)), output)
    error = view.error
    if view.paused is not None:
        kind, _, message = view.paused.partition(": ")
        error = RunError(kind=kind, message=message)
    return Tested(file, name, error, view.output)


def _summary(tests: Sequence[Tested], failed: Sequence[Tested]) -> str:
    if not tests:
        return "no test_* flows\n"
    text = ""
    for test in failed:
        error = test.error
        assert error is not None
        text += "\n" + _failed(f"FAILED {test.file}::{test.name}") + "\n"
        text += "".join(f"  | {line}\n" for printed in test.output for line in printed.splitlines())
        text += error.traceback.rstrip("\n") + "\n" if error.traceback else f"{error.kind}: {error.message}\n"
    return text + ("\n" if failed else "") + f"{len(tests) - len(failed)} passed, {len(failed)} failed\n"


def _object(test: Tested) -> dict[str, Any]:
    error = test.error
    shown = None
    if error is not None:
        shown = {"kind": error.kind, "message": error.message, "where": error.where, "traceback": error.traceback}
    status = "passed" if error is None else "failed"
    return {"file": test.file, "name": test.name, "status": status, "error": shown, "output": test.output}


def _failed(text: str) -> str:
    from flo.cli import _out

    return _out.styled(text, "red", sys.stdout)
