"""Running the `test_*` flows of scripts, each in a grid of its own, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from flo.api.clock import Clock, SystemClock
from flo.api.errors import BadArgument, RunFailed
from flo.api.grid import RunError
from flo.client.testing import FlowStuck, TestGrid, TestRun, UnmockedAction
from flo.worker.bundle import Bundle
from flo.worker.describe import list_flows
from flo.worker.modules import Modules


class FlowTest(NamedTuple):
    """How one test ended: passed when there is no error."""

    script: str  # as it was given
    name: str  # of the flow
    error: RunError | None
    output: list[str]  # what it printed
    real_ms: int
    virtual_ms: int  # how far its time has jumped


def find_flow_tests(script: str) -> list[str]:
    """The names of the script's `test_*` flows, in the order of its text. Raises ScriptError."""
    return [name for name in list_flows(Bundle.from_script(script)) if name.startswith("test_")]


def run_flow_tests(
    script: str, *, only: Callable[[str], bool] | None = None, clock: Clock | None = None
) -> Iterator[FlowTest]:
    """Runs the tests of a script whose names `only` accepts, one after another. Raises ScriptError."""
    clock = clock or SystemClock()
    modules = Modules()
    for name in find_flow_tests(script):
        if only is None or only(name):
            yield _run(script, name, modules, clock)


def _run(script: str, name: str, modules: Modules, clock: Clock) -> FlowTest:
    began = clock.monotonic_ms()
    with TestGrid(modules=modules) as grid:
        virtual = grid.clock.monotonic_ms()
        output: list[str] = []
        try:
            run = grid.run(f"{script}::{name}", id=name)
        except BadArgument as refused:  # a test gets no arguments
            error: RunError | None = RunError(refused.code, refused.message)
        else:
            error = _error(run)
            output = grid.node.show(run.id).output
        return FlowTest(
            script, name, error, output, clock.monotonic_ms() - began, grid.clock.monotonic_ms() - virtual
        )  # fmt: skip


def _error(run: TestRun) -> RunError | None:
    try:
        run.result()
    except RunFailed as failed:
        return RunError(failed.kind, failed.message, failed.where, failed.traceback)
    except (FlowStuck, UnmockedAction) as failed:
        return RunError("failed", str(failed))
    return None
