"""A watched run with very many flows: what its watchers are told stays short, for each command may set it off."""

from __future__ import annotations

from flo.api.grid import Update
from flo.grid.views import WAITING_TOLD
from tests.grid.manual import Bench


def test_an_update_names_a_bounded_number_of_flows_and_says_how_many_there_are_more() -> None:
    bench = Bench()
    updates: list[Update] = []
    root = bench.start("r")
    bench.node.watch("r", updates.append)
    for n in range(1, 201):
        bench.act(root, n, "flow", {"flow": "x.flow::child", "args": {}}, handle=True)
        bench.act(bench.lease("r", f"0.{n}"), 1, "signal", {"type": "go"})
    bench.node.pump()
    last = updates[-1].view
    assert last is not None and len(last.waiting) == WAITING_TOLD + 1
    assert last.waiting[-1].on == f"{201 - WAITING_TOLD} more flows"
    assert len(bench.node.show("r").waiting) == 201  # who asks gets all


def test_an_update_of_few_flows_names_them_all() -> None:
    bench = Bench()
    updates: list[Update] = []
    root = bench.start("r")
    bench.node.watch("r", updates.append)
    bench.act(root, 1, "signal", {"type": "go"})
    bench.node.pump()
    last = updates[-1].view
    assert last is not None and [waiting.on for waiting in last.waiting] == ["signal go"]
