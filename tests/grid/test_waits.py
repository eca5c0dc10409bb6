"""Waiting: handles, signals, messages, detached runs, pauses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flo.api.errors import Conflict
from flo.api.outcome import error
from flo.api.worker import Lease, Revoked
from tests.grid.manual import Bench


def timers(bench: Bench, *ms: int) -> Lease:
    lease = bench.start("r")
    for n, each in enumerate(ms, 1):
        bench.act(lease, n, "clock.timer", {"ms": each}, handle=True)
    return lease


def wait(bench: Bench, lease: Lease, n: int, *handles: str, **params: Any) -> str | None:
    return bench.act(lease, n, "wait", {"handles": list(handles), **params})


def outcome(lease: Lease, n: int) -> Any:
    text = lease.history[lease.task].records[n].outcome
    return json.loads(text[1:])


# -- handles


def test_a_wait_ends_with_the_last_of_its_handles() -> None:
    bench = Bench()
    lease = timers(bench, 10, 30)
    assert wait(bench, lease, 3, "0.1", "0.2") is None
    bench.advance(10)
    assert lease.waiting
    bench.advance(20)
    assert outcome(lease, 3) == {"done": [0, 1], "timeout": False}


def test_a_wait_for_some_tells_which_are_final() -> None:
    bench = Bench()
    lease = timers(bench, 30, 10, 20)
    assert wait(bench, lease, 4, "0.1", "0.2", "0.3", count=2) is None
    bench.advance(10)
    assert lease.waiting
    bench.advance(10)
    assert outcome(lease, 4) == {"done": [1, 2], "timeout": False}


def test_a_wait_that_times_out_tells_what_was_final_then() -> None:
    bench = Bench()
    lease = timers(bench, 10, 30)
    wait(bench, lease, 3, "0.1", "0.2", timeout=20)
    bench.advance(20)
    assert outcome(lease, 3) == {"done": [0], "timeout": True}


def test_a_wait_for_what_is_final_already_ends_at_once() -> None:
    bench = Bench()
    lease = timers(bench, 10)
    bench.advance(10)
    assert wait(bench, lease, 2, "0.1") == '+{"done":[0],"timeout":false}'
    assert wait(bench, lease, 3) == '+{"done":[],"timeout":false}'
    assert wait(bench, lease, 4, "0.1", count=0) == '+{"done":[0],"timeout":false}'


def test_a_wait_with_no_time_looks_only() -> None:
    bench = Bench()
    assert wait(bench, timers(bench, 10), 2, "0.1", timeout=0) == '+{"done":[],"timeout":true}'


def test_timers_of_one_instant_are_final_in_the_order_in_which_they_were_set() -> None:
    bench = Bench()
    lease = timers(bench, 10, 10)
    wait(bench, lease, 3, "0.1", "0.2", count=1)
    bench.advance(10)
    assert outcome(lease, 3) == {"done": [0], "timeout": False}


@pytest.mark.parametrize("handle", ["0.2", "0.9", "1.1", "x", "0.1.1"])
def test_what_is_no_handle_of_the_flow_is_refused(handle: str) -> None:
    bench = Bench()
    told = wait(bench, timers(bench, 10), 2, handle)
    assert told is not None and f"wait: {handle} is no handle of this flow" in told


def test_waits_go_on_after_a_crash_with_what_they_have_seen() -> None:
    bench = Bench()
    lease = timers(bench, 10, 20, 30)
    wait(bench, lease, 4, "0.1", "0.2", "0.3", count=2)
    bench.advance(10)
    bench = bench.crash()
    bench.node.execute(None)
    bench.advance(10)
    assert outcome(bench.lease("r", "0"), 4) == {"done": [0, 1], "timeout": False}


# -- signals


def test_the_first_wait_for_a_type_in_the_tree_takes_a_signal() -> None:
    bench = Bench()
    root = bench.start("r")
    bench.act(root, 1, "flow", {"flow": "x.flow::child"}, handle=True)
    inner = bench.lease("r", "0.1")
    bench.act(inner, 1, "signal", {"type": "go"})
    bench.act(root, 2, "signal", {"type": "go"})
    bench.node.signal("r", "other", "0")
    bench.node.signal("r", "go", "1")
    assert outcome(inner, 1) == 1 and root.waiting
    bench.node.signal("r", "go", "2")
    assert outcome(root, 2) == 2


def test_signals_are_kept_in_order_by_type_until_somebody_takes_them() -> None:
    bench = Bench()
    lease = bench.start("r")
    for n, type in enumerate(["b", "a", "b"]):
        bench.node.signal("r", type, str(n))
    bench.node.pump()
    bench = bench.crash()
    bench.node.execute(None)
    lease = bench.lease("r", "0")
    assert [bench.act(lease, n, "signal", {"type": t}) for n, t in enumerate("abb", 1)] == ["+1", "+0", "+2"]


def test_a_signal_that_does_not_come_is_a_timeout() -> None:
    bench = Bench()
    lease = bench.start("r")
    refused = bench.act(lease, 1, "signal", {"type": "go", "timeout": 0})
    assert refused is not None and '"timeout"' in refused
    bench.act(lease, 2, "signal", {"type": "go", "timeout": 50})
    bench.advance(50)
    assert outcome(lease, 2)["kind"] == "timeout"
    bench.node.signal("r", "go", "1")
    assert bench.act(lease, 3, "signal", {"type": "go"}) == "+1"


def test_a_signal_to_a_run_that_is_over_is_refused() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.worker.core.finish(lease, "+1")
    with pytest.raises(Conflict, match="run r is over: completed"):
        bench.node.signal("r", "go", "1")


# -- messages


def test_messages_come_in_order_per_pair_and_once() -> None:
    bench = Bench()
    receiver, sender = bench.start("r"), bench.start("s")
    for n in range(1, 4):
        assert bench.act(sender, n, "send", {"to": "r", "message": {"n": n}}) == "+null"
    assert bench.act(receiver, 1, "receive", {}) == '+{"n": 1}'
    bench.node.pump()
    bench = bench.crash()
    bench.node.execute(None)
    receiver = bench.lease("r", "0")
    assert [bench.act(receiver, n, "receive", {}) for n in (2, 3)] == ['+{"n": 2}', '+{"n": 3}']
    assert bench.act(receiver, 4, "receive", {}) is None
    bench.act(bench.lease("s", "0"), 4, "send", {"to": "r", "message": 4})
    assert outcome(receiver, 4) == 4


@pytest.mark.parametrize("to", ["r/0.1", "0.1"])
def test_a_message_goes_to_the_flow_that_is_named_by_handle_or_id(to: str) -> None:
    bench = Bench()
    root = bench.start("r")
    bench.act(root, 1, "flow", {"flow": "x.flow::child"}, handle=True)
    bench.act(bench.lease("r", "0.1"), 1, "receive", {})
    assert bench.act(root, 2, "send", {"to": to, "message": 1}) == "+null"
    assert outcome(bench.lease("r", "0.1"), 1) == 1


@pytest.mark.parametrize("to", ["gone", "r/0.7", "0.7", "no/0.1", ""])
def test_a_message_to_what_is_over_or_unknown_is_refused(to: str) -> None:
    bench = Bench()
    lease = bench.start("gone")
    bench.worker.core.finish(lease, "+1")
    told = bench.act(bench.start("r"), 1, "send", {"to": to, "message": 1})
    assert told is not None and json.loads(told[1:])["kind"] == "not_found"


def test_a_message_of_a_retried_receiver_that_waited_goes_to_its_next_attempt() -> None:
    bench = Bench()
    lease = bench.start("r", options={"retry": {"initial": 10}})
    bench.worker.core.finish(lease, error("failed", "no"))
    bench.act(bench.start("s"), 1, "send", {"to": "r", "message": 5})
    bench.advance(10)
    assert bench.act(bench.lease("r", "0~2"), 1, "receive", {}) == "+5"


# -- detached runs


def detached(bench: Bench, lease: Lease, n: int = 1, *, handle: bool = True) -> Lease:
    params = {"flow": "x.flow::child", "args": {"a": 1}, "options": {"detached": True}}
    bench.act(lease, n, "flow", params, handle=handle)
    return bench.lease(f"{lease.run}/{lease.task}.{n}", "0")


def test_a_detached_child_is_a_run_of_its_own_that_completes_its_parents_handle() -> None:
    bench = Bench()
    root = bench.start("r", username="ann")
    child = detached(bench, root)
    views = {view.id: view for view in bench.node.list()}
    assert views["r/0.1"].parent == "r" and views["r/0.1"].flow == "x.flow::child"
    assert json.loads(child.args) == {"a": 1} and child.info.username == "ann"
    wait(bench, root, 2, "0.1")
    bench.worker.core.finish(child, "+7")
    assert outcome(root, 1) == 7 and outcome(root, 2) == {"done": [0], "timeout": False}


def test_a_detached_child_outlives_its_parent() -> None:
    bench = Bench()
    root = bench.start("r")
    child = detached(bench, root)
    bench.worker.core.finish(root, "+1")
    assert bench.node.show("r").status == "completed" and child.alive
    bench.worker.core.finish(child, "+2")
    assert bench.node.show("r/0.1").status == "completed"
    assert bench.replayed() == bench.machines.dump()


def test_a_detached_child_is_executed_again_after_a_crash_and_still_answers() -> None:
    bench = Bench()
    detached(bench, bench.start("r"))
    bench.node.pump()
    bench = bench.crash()
    bench.node.execute(None)
    bench.worker.core.finish(bench.lease("r/0.1", "0"), "+7")
    assert outcome(bench.lease("r", "0"), 1) == 7


def test_cancelling_the_parent_leaves_a_detached_child_alone() -> None:
    bench = Bench()
    child = detached(bench, bench.start("r"))
    bench.node.cancel("r")
    bench.node.tick()
    assert bench.node.show("r").status == "cancelled" and child.alive


# -- pauses


def test_a_paused_run_stays_running_until_it_is_resumed() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.act(lease, 1, "clock.timer", {"ms": 10}, handle=True)
    bench.worker.core.pause(lease, "NonDeterministic", "expected kv.get")
    view = bench.node.show("r")
    assert view.status == "running" and view.paused == "NonDeterministic: expected kv.get"
    with pytest.raises(Revoked):
        bench.act(lease, 2, "kv.incr", {"key": "n"})
    bench.worker.leases.clear()
    bench.advance(10)
    bench.node.signal("r", "go", "1")
    assert not bench.worker.leases

    assert bench.node.execute(["r"]) == ["r"]
    again = bench.lease("r", "0")
    assert again.history["0"].records[1].outcome == "+null" and bench.node.show("r").paused is None
    assert bench.replayed() == bench.machines.dump()


def test_a_pause_outlives_the_process_and_ends_with_the_next_execution() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.worker.core.pause(lease, "NonDeterministic", "no")
    bench.node.pump()
    bench = bench.crash()
    assert bench.node.show("r").paused == "NonDeterministic: no"
    bench.node.execute(None)
    assert bench.lease("r", "0").alive


def test_what_keeps_killing_its_process_goes_on_when_it_is_named_alone() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.worker.core.pause(lease, "crashing", "three times")
    bench.node.pump()
    bench = bench.crash()
    bench.node.execute(None)
    assert not bench.worker.leases
    bench.node.execute(["r"])
    assert bench.lease("r", "0").alive


def test_a_paused_run_can_be_cancelled() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.worker.core.pause(lease, "NonDeterministic", "no")
    bench.node.cancel("r")
    assert bench.node.show("r").status == "cancelled"
