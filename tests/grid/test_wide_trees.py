"""Ends and signals of runs with very many flows: the work of each does not grow with the number of the others."""

from __future__ import annotations

import json
from typing import Any

from flo.primitives import run_decide
from flo.primitives.run_state import Run
from tests.grid.manual import Bench


class CountedTasks(dict[str, Any]):
    """A run's tasks that tell how often somebody has gone through all of them."""

    scans = 0

    def values(self) -> Any:
        self.scans += 1
        return super().values()


def wide(bench: Bench, width: int) -> Run:
    """A run with many children, each of which has a child that waits for a signal."""
    root = bench.start("r")
    for n in range(1, width + 1):
        bench.act(root, n, "flow", {"flow": "x.flow::mid", "args": {}}, handle=True)
        mid = bench.lease("r", f"0.{n}")
        bench.act(mid, 1, "flow", {"flow": "x.flow::leaf", "args": {}}, handle=True)
        bench.act(mid, 2, "wait", {"handles": [f"0.{n}.1"]})
        bench.act(bench.lease("r", f"0.{n}.1"), 1, "signal", {"type": "go"})
    bench.node.pump()
    return bench.machines.runs.runs["r"]


def test_cancelling_a_tree_goes_through_its_flows_once_and_not_once_for_each() -> None:
    bench = Bench()
    run = wide(bench, 50)
    counted = run.tasks = CountedTasks(run.tasks or {})
    bench.node.cancel("r")
    for _ in range(5):
        bench.node.tick()
    bench.node.pump()
    assert run.status == "cancelled" and counted.scans <= 5
    assert bench.replayed() == bench.machines.dump()


def test_signals_go_to_the_flows_in_the_order_in_which_they_began_to_wait() -> None:
    bench = Bench()
    run = wide(bench, 20)
    assert len(run.signal_waits or {}) == 20
    for n in range(1, 21):
        bench.node.signal("r", "go", str(n))
        record = bench.lease("r", f"0.{n}.1").history[f"0.{n}.1"].records[1]
        assert json.loads(record.outcome[1:]) == n
    assert run.signal_waits is None


def test_children_that_are_ending_already_are_not_ended_again() -> None:
    bench = Bench()
    root = bench.start("r")
    bench.act(root, 1, "flow", {"flow": "x.flow::mid", "args": {}, "options": {"exit": True}}, handle=True)
    bench.act(root, 2, "flow", {"flow": "x.flow::mid", "args": {}}, handle=True)
    bench.act(root, 3, "cancel", {"handle": "0.1"})
    assert [child.prefix for child in run_decide.children_of(bench.machines.runs.runs["r"].root)] == ["0.2"]
