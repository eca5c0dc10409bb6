"""How tasks end: cancelled trees, deadlines, exit parts, retries, continue_as_new."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flo.api import limits
from flo.api.errors import Conflict
from flo.api.outcome import error
from flo.api.worker import Lease, Revoked
from tests.grid.manual import Bench

FAILED = error("failed", "no")


def finish(bench: Bench, lease: Lease, outcome: str = "+1") -> None:
    bench.worker.core.finish(lease, outcome)
    bench.node.pump()


def spawn(bench: Bench, lease: Lease, n: int, *, handle: bool = True, **options: Any) -> Lease:
    flow = options.pop("flow", "x.flow::child")
    bench.act(lease, n, "flow", {"flow": flow, "args": {}, "options": options}, handle=handle)
    return bench.worker.leases.get((lease.run, f"{lease.task}.{n}"), lease)


def status(bench: Bench, id: str = "r") -> str:
    return bench.node.show(id).status


def problem(bench: Bench, id: str = "r") -> tuple[str, str]:
    told = bench.node.show(id).error
    assert told is not None
    return told.kind, told.message


# -- cancel


def test_cancel_ends_the_whole_tree_and_says_why() -> None:
    bench = Bench()
    root = bench.start("r")
    one = spawn(bench, root, 1)
    two = spawn(bench, one, 1)
    bench.act(two, 1, "clock.sleep", {"ms": 10_000})
    bench.node.cancel("r", "by hand")
    bench.node.tick()
    bench.node.pump()
    assert problem(bench) == ("cancelled", "run r was cancelled: by hand") and status(bench) == "cancelled"
    assert not (root.alive or one.alive or two.alive)
    assert {root.reason, one.reason, two.reason} <= {"cancel", "ended"}
    assert bench.node.next_due is None or bench.node.next_due > bench.node.now()


def test_a_tree_of_5000_children_is_cancelled_in_bounded_commands() -> None:
    bench = Bench()
    root = bench.start("r")
    for n in range(1, 5_001):
        spawn(bench, root, n)
    bench.node.pump()
    before = bench.node.partition.last_index
    bench.node.cancel("r")
    run = bench.machines.runs.runs["r"]
    assert bench.node.partition.last_index - before < 10 and run.root.children == 5_000

    bench.node.partition.tick()  # one command's work of it, and what follows from that
    assert run.root.children == 5_000 - limits.COMMAND_EVENTS
    bench.node.tick()
    bench.node.pump()
    assert status(bench) == "cancelled" and bench.replayed() == bench.machines.dump()


def test_one_step_of_a_sweep_is_bounded() -> None:
    from flo.primitives.run_decide import sweep

    bench = Bench()
    root = bench.start("r")
    for n in range(1, 5_001):
        spawn(bench, root, n)
    bench.node.cancel("r")
    first = sweep(bench.machines.runs)
    assert len(first) == limits.COMMAND_EVENTS and len(bench.machines.runs.sweeps) == 1


def test_a_sweep_goes_on_after_a_crash() -> None:
    bench = Bench()
    root = bench.start("r")
    for n in range(1, 101):
        spawn(bench, root, n)
    bench.node.cancel("r")
    bench.node.pump()
    bench = bench.crash()
    for _ in range(3):
        bench.node.tick()
    bench.node.pump()
    assert status(bench) == "cancelled"


def test_a_cancel_that_is_asked_twice_is_one() -> None:
    bench = Bench()
    bench.start("r", options={"exit": True})
    bench.node.cancel("r")
    index = bench.node.partition.last_index
    bench.node.cancel("r")
    assert bench.node.partition.last_index == index and status(bench) == "running"


def test_a_run_that_is_over_stays_as_it_is() -> None:
    bench = Bench()
    finish(bench, bench.start("r"))
    with pytest.raises(Conflict, match="run r is over: completed"):
        bench.node.cancel("r")


def test_a_parent_that_ends_cancels_what_it_started_and_its_result_waits_for_that() -> None:
    bench = Bench()
    root = bench.start("r")
    inner = spawn(bench, root, 1, exit=True)
    finish(bench, root)
    bench.node.tick()
    assert not inner.alive and status(bench) == "running"
    finish(bench, bench.lease("r", "0.1.exit"))
    assert status(bench) == "completed"


def test_a_cancelled_handle_gives_its_outcome_when_the_child_has_ended() -> None:
    bench = Bench()
    root = bench.start("r")
    spawn(bench, root, 1, exit=True)
    assert bench.act(root, 2, "cancel", {"handle": "0.1"}) == "+null"
    assert 1 not in root.history["0"].records
    finish(bench, bench.lease("r", "0.1.exit"))
    assert json.loads(root.history["0"].records[1].outcome[1:])["kind"] == "cancelled"


# -- on_exit


def succeeds(bench: Bench, lease: Lease) -> None:
    finish(bench, lease)


def fails(bench: Bench, lease: Lease) -> None:
    finish(bench, lease, FAILED)


def cancelled(bench: Bench, lease: Lease) -> None:
    bench.node.cancel("r")


def times_out(bench: Bench, lease: Lease) -> None:
    bench.advance(5_000)


ENDS = [(succeeds, "completed"), (fails, "failed"), (cancelled, "cancelled"), (times_out, "timed_out")]


@pytest.mark.parametrize(("end", "final"), ENDS)
@pytest.mark.parametrize("crash", ["before", "in the middle", "never"])
def test_on_exit_runs_once_after_any_end(end: Callable[[Bench, Lease], None], final: str, crash: str) -> None:
    bench = Bench()
    lease = bench.start("r", options={"exit": True}, timeout_ms=5_000)
    bench.act(lease, 1, "kv.incr", {"key": "n"})
    end(bench, lease)
    bench.node.pump()
    exit = bench.lease("r", "0.exit")
    if crash == "in the middle":
        bench.act(exit, 1, "kv.incr", {"key": "exits"})
        bench.node.pump()
    if crash != "never":
        bench = bench.crash()
        bench.node.execute(None)
        exit = bench.lease("r", "0.exit")
    assert exit.phase == "exit" and exit.info.id == "r" and exit.info.outcome is not None
    if crash == "in the middle":
        assert exit.history["0.exit"].records[1].outcome == "+1"  # replayed, not done again
    else:
        assert bench.act(exit, 1, "kv.incr", {"key": "exits"}) == "+1"
    assert status(bench) == "running"
    finish(bench, exit)
    assert status(bench) == final
    assert [task for _, task in bench.worker.leases].count("0.exit") == 1


def test_an_exit_part_that_fails_does_not_change_how_its_flow_ended() -> None:
    bench = Bench()
    finish(bench, bench.start("r", options={"exit": True}))
    finish(bench, bench.lease("r", "0.exit"), FAILED)
    assert status(bench) == "completed"


def test_after_a_cancel_the_exit_part_has_its_grace_and_no_more() -> None:
    bench = Bench()
    bench.start("r", options={"exit": True})
    bench.node.cancel("r")
    exit = bench.lease("r", "0.exit")
    bench.act(exit, 1, "clock.sleep", {"ms": 60_000})
    bench.advance(limits.CANCEL_GRACE_MS - 1)
    assert status(bench) == "running" and exit.alive
    bench.advance(1)
    assert status(bench) == "cancelled" and not exit.alive


def test_an_exit_part_runs_before_the_resources_are_closed() -> None:
    bench = Bench()
    lease = bench.start("r", options={"exit": True, "resources": True})
    bench.act(lease, 0, "resources.open", [{"name": "t", "kind": "tempdir"}])
    bench.node.pump()
    bench.answer(bench.host.jobs[0], '+{"path":"/tmp/x"}')
    finish(bench, lease)
    assert not bench.host.jobs
    finish(bench, bench.lease("r", "0.exit"))
    assert [job.kind for job in bench.host.jobs] == ["resource.close"]


def test_an_exit_part_runs_after_the_last_attempt_alone() -> None:
    bench = Bench()
    finish(bench, bench.start("r", options={"exit": True, "retry": {"max_attempts": 2, "initial": 10}}), FAILED)
    assert ("r", "0.exit") not in bench.worker.leases
    bench.advance(10)
    finish(bench, bench.lease("r", "0~2"), FAILED)
    assert bench.lease("r", "0~2.exit").phase == "exit"


# -- retries of flows


def test_a_flow_is_retried_under_its_next_generation_with_an_empty_history() -> None:
    bench = Bench()
    root = bench.start("r")
    inner = spawn(bench, root, 1, handle=False, retry={"max_attempts": 2, "initial": 100})
    assert bench.act(inner, 1, "kv.incr", {"key": "n"}) == "+1"
    finish(bench, inner, FAILED)
    assert bench.node.show("r").waiting[1].on.startswith("retry at")
    bench.advance(99)
    assert ("r", "0.1~2") not in bench.worker.leases
    bench.advance(1)
    again = bench.lease("r", "0.1~2")
    assert not again.history["0.1~2"].records and again.info.attempt == 2 and again.info.id == "r/0.1"
    assert bench.act(again, 1, "kv.incr", {"key": "n"}) == "+2"
    finish(bench, again, FAILED)
    assert root.history["0"].records[1].outcome == FAILED


@pytest.mark.parametrize("kind", ["cancelled", "bad_argument"])
def test_what_a_flow_cannot_mend_is_not_retried(kind: str) -> None:
    bench = Bench()
    finish(bench, bench.start("r", options={"retry": {}}), error(kind, "no"))
    assert status(bench) == "failed"


def test_a_retried_flow_does_not_get_back_what_an_earlier_attempt_took() -> None:
    bench = Bench()
    lease = bench.start("r", options={"retry": {"initial": 10}})
    for n in (1, 2):
        bench.node.signal("r", "go", str(n))
        bench.start(f"s{n}")
        bench.act(bench.lease(f"s{n}", "0"), 1, "send", {"to": "r", "message": n})
    assert bench.act(lease, 1, "signal", {"type": "go"}) == "+1"
    assert bench.act(lease, 2, "receive", {}) == "+1"
    finish(bench, lease, FAILED)
    bench.advance(10)
    again = bench.lease("r", "0~2")
    assert bench.act(again, 1, "signal", {"type": "go"}) == "+2"
    assert bench.act(again, 2, "receive", {}) == "+2"


# -- deadlines


def test_a_deadline_ends_a_run_and_names_the_time() -> None:
    bench = Bench()
    lease = bench.start("r", timeout_ms=2_500)
    bench.act(lease, 1, "signal", {"type": "go"})
    bench.advance(2_500)
    assert status(bench) == "timed_out" and problem(bench) == ("timeout", "run r did not end within 2.5 s")


def test_the_earlier_of_two_deadlines_counts() -> None:
    bench = Bench()
    bench.start("r", timeout_ms=9_000, options={"timeout": 100})
    bench.advance(100)
    assert status(bench) == "timed_out"


def test_a_childs_deadline_fails_the_child_alone() -> None:
    bench = Bench()
    root = bench.start("r")
    inner = spawn(bench, root, 1, timeout=100)
    bench.advance(100)
    assert not inner.alive and root.alive and status(bench) == "running"
    told = json.loads(root.history["0"].records[1].outcome[1:])
    assert (told["kind"], told["message"]) == ("timeout", "flow child did not end within 0.1 s")


def test_a_deadline_outlives_the_process_and_attempts() -> None:
    bench = Bench()
    finish(bench, bench.start("r", timeout_ms=1_000, options={"retry": {"initial": 900}}), FAILED)
    bench = bench.crash()
    bench.node.execute(None)
    bench.advance(900)
    assert bench.lease("r", "0~2").alive
    bench.advance(100)
    assert status(bench) == "timed_out"


# -- continue_as_new


def test_continue_as_new_keeps_id_inbox_signals_and_deadline_and_cancels_children() -> None:
    bench = Bench()
    root = bench.start("r", timeout_ms=10_000)
    inner = spawn(bench, root, 1)
    bench.node.signal("r", "go", "7")
    bench.start("s")
    bench.act(bench.lease("s", "0"), 1, "send", {"to": "r", "message": 8})
    bench.worker.core.continue_as_new(root, "0", '{"turn":2}')
    bench.node.tick()
    assert not inner.alive and not root.alive
    with pytest.raises(Revoked):
        bench.act(root, 2, "kv.incr", {"key": "n"})
    again = bench.lease("r", "0~2")
    assert again.info.id == "r" and again.args == '{"turn":2}' and not again.history["0~2"].records
    assert bench.act(again, 1, "signal", {"type": "go"}) == "+7"
    assert bench.act(again, 2, "receive", {}) == "+8"
    bench.advance(10_000)
    assert status(bench) == "timed_out"


def test_a_run_that_continues_forever_keeps_little_memory() -> None:
    bench = Bench()
    lease = bench.start("r")
    for turn in range(2, 40):
        bench.act(lease, 1, "kv.incr", {"key": "n"})
        bench.worker.core.continue_as_new(lease, lease.task, "{}")
        lease = bench.lease("r", f"0~{turn}")
    assert len(bench.worker.leases) == 39 and sum(lease.alive for lease in bench.worker.leases.values()) == 1
    bench.node._archivist.archive()
    assert bench.machines.runs.runs["r"].attic is None
