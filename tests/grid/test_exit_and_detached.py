"""Cancelling what is hard to end: exit parts that hang, and detached runs by their handles."""

from __future__ import annotations

from flo.api import limits
from flo.api.outcome import error
from tests.grid.manual import Bench

DETACHED = {"flow": "x.flow::child", "args": {}, "options": {"detached": True}}


def test_a_cancel_gives_an_exit_part_that_hangs_its_grace_and_ends_it() -> None:
    bench = Bench()
    root = bench.start("r", options={"exit": True})
    bench.worker.core.finish(root, "+1")
    exit_part = bench.lease("r", "0.exit")
    bench.act(exit_part, 1, "signal", {"type": "never"})
    bench.advance(limits.CANCEL_GRACE_MS * 10)
    assert bench.node.show("r").status == "running"  # nobody has asked for its end
    bench.node.cancel("r")
    bench.advance(limits.CANCEL_GRACE_MS - 1)
    assert bench.lease("r", "0.exit").alive
    assert bench.replayed() == bench.machines.dump()
    bench.advance(1)
    assert bench.node.show("r").status == "completed"  # its body had ended well before


def test_a_cancel_ends_hanging_exit_parts_of_children_too() -> None:
    bench = Bench()
    root = bench.start("r")
    bench.act(root, 1, "flow", {"flow": "x.flow::child", "args": {}, "options": {"exit": True}}, handle=True)
    bench.worker.core.finish(bench.lease("r", "0.1"), "+1")
    bench.act(bench.lease("r", "0.1.exit"), 1, "signal", {"type": "never"})
    bench.node.cancel("r")
    bench.advance(limits.CANCEL_GRACE_MS)
    assert bench.node.show("r").status == "cancelled"


def test_an_exit_part_that_begins_in_a_cancelled_run_has_the_grace_only() -> None:
    bench = Bench()
    root = bench.start("r", options={"exit": True})
    bench.act(root, 1, "flow", {"flow": "x.flow::child", "args": {}, "options": {"exit": True}}, handle=True)
    bench.worker.core.finish(root, error("failed", "no"))
    bench.node.tick()  # its exit part waits for that of the child, which is cancelled
    bench.act(bench.lease("r", "0.1.exit"), 1, "signal", {"type": "never"})
    bench.node.cancel("r")
    bench.advance(limits.CANCEL_GRACE_MS)
    bench.act(bench.lease("r", "0.exit"), 1, "signal", {"type": "never"})
    bench.advance(limits.CANCEL_GRACE_MS)
    assert bench.node.show("r").status == "failed"


def test_cancelling_the_handle_of_a_detached_run_cancels_the_run() -> None:
    bench = Bench()
    root = bench.start("r")
    bench.act(root, 1, "flow", DETACHED, handle=True)
    bench.act(bench.lease("r/0.1", "0"), 1, "signal", {"type": "never"})
    assert bench.act(root, 2, "cancel", {"handle": "0.1"}) == "+null"
    assert bench.act(root, 3, "cancel", {"handle": "0.1"}) == "+null"
    bench.node.pump()
    assert bench.node.show("r/0.1").status == "cancelled"
    bench.act(root, 4, "wait", {"handles": ["0.1"]})
    outcome = root.history["0"].records[1].outcome
    assert '"cancelled"' in outcome and "run r/0.1 was cancelled: by the flow that started it" in outcome
    assert bench.replayed() == bench.machines.dump()


def test_a_resumed_run_takes_along_the_detached_runs_whose_end_it_waits_for() -> None:
    bench = Bench()
    root = bench.start("r")
    bench.act(root, 1, "flow", DETACHED, handle=True)
    bench.act(bench.lease("r/0.1", "0"), 1, "clock.sleep", {"ms": 1_000})
    bench.act(root, 2, "wait", {"handles": ["0.1"]})
    bench.node.pump()
    bench = bench.crash()
    bench.node.execute(["r"])
    bench.advance(1_000)
    bench.worker.core.finish(bench.lease("r/0.1", "0"), "+5")
    bench.worker.core.finish(bench.lease("r", "0"), "+6")
    bench.node.pump()
    assert bench.node.show("r").status == "completed"


def test_timers_that_are_void_do_not_pile_up() -> None:
    bench = Bench()
    root = bench.start("r")
    for n in range(1, 20_000, 2):
        bench.act(root, n, "clock.timer", {"ms": 3_600_000}, handle=True)
        bench.act(root, n + 1, "cancel", {"handle": f"0.{n}"})
    assert len(bench.machines.runs._timers) < 3_000
    bench.act(root, 20_001, "clock.sleep", {"ms": 10})
    bench.advance(10)
    assert root.history["0"].records[20_001].outcome == "+null"


def test_a_flow_cannot_wait_for_a_signal_whose_type_nobody_can_send() -> None:
    bench = Bench()
    outcome = bench.act(bench.start("r"), 1, "signal", {"type": "x" * (limits.SIGNAL_TYPE_BYTES + 1)})
    assert outcome is not None and "bad_argument" in outcome and "at most 128 bytes" in outcome
