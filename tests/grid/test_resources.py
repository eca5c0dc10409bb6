"""Resources: opened in order before the body, closed in reverse after any end, opened anew after a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flo.api.jobs import Job
from flo.api.outcome import error, ok
from flo.api.worker import Lease
from tests.grid.manual import Bench

TEMP = {"name": "t", "kind": "tempdir", "params": {}}
PROCESS = {"name": "p", "kind": "process", "params": {}}
LOCK = {"name": "l", "kind": "lock", "params": {"name": "deploy"}}


def declare(bench: Bench, lease: Lease, *declared: dict[str, Any]) -> str | None:
    outcome = bench.act(lease, 0, "resources.open", list(declared))
    bench.node.pump()
    return outcome


def names(jobs: list[Job]) -> list[tuple[str, str]]:
    return [(job.kind.removeprefix("resource."), job.input["name"]) for job in jobs]


def answer(bench: Bench, outcome: str = ok({"path": "/tmp/x"})) -> Job:
    """The connector answers the only job."""
    (job,) = bench.host.jobs
    bench.answer(job, outcome)
    bench.node.pump()
    return job


def opened(bench: Bench, id: str = "r", *declared: dict[str, Any], **options: Any) -> Lease:
    """A run whose resources are open."""
    lease = bench.start(id, options={"resources": True, **options})
    declare(bench, lease, *declared)
    while bench.host.jobs:
        answer(bench)
    return lease


def status(bench: Bench, id: str = "r") -> str:
    return bench.node.show(id).status


def failure(bench: Bench, id: str = "r") -> tuple[str, str]:
    problem = bench.node.show(id).error
    assert problem is not None
    return problem.kind, problem.message


def test_they_are_opened_one_after_another_and_the_body_gets_their_values() -> None:
    bench = Bench()
    lease = bench.start("r", options={"resources": True})
    assert declare(bench, lease, TEMP, PROCESS) is None
    assert names(bench.host.jobs) == [("open", "t")]
    answer(bench, ok({"path": "/tmp/a"}))
    assert names(bench.host.jobs) == [("open", "p")] and 0 not in lease.history["0"].records
    answer(bench, ok({"pid": 7}))
    assert json.loads(lease.history["0"].records[0].outcome[1:]) == {"t": {"path": "/tmp/a"}, "p": {"pid": 7}}
    assert not lease.waiting


def body_succeeds(bench: Bench, lease: Lease) -> None:
    bench.worker.core.finish(lease, "+1")


def body_fails(bench: Bench, lease: Lease) -> None:
    bench.worker.core.finish(lease, error("failed", "no"))


def is_cancelled(bench: Bench, lease: Lease) -> None:
    bench.node.cancel("r")


def times_out(bench: Bench, lease: Lease) -> None:
    bench.advance(1_000)


ENDS = [(body_succeeds, "completed"), (body_fails, "failed"), (is_cancelled, "cancelled"), (times_out, "timed_out")]


@pytest.mark.parametrize(("end", "final"), ENDS)
@pytest.mark.parametrize("crash", [False, True])
def test_they_are_closed_in_reverse_after_any_end(end: Callable[[Bench, Lease], None], final: str, crash: bool) -> None:
    bench = Bench()
    lease = opened(bench, "r", TEMP, LOCK, PROCESS, timeout=1_000)
    end(bench, lease)
    bench.node.pump()
    if crash:  # in the middle of the end
        bench = bench.crash()
        bench.node.execute(None)
        bench.node.pump()
    assert names(bench.host.jobs) == [("close", "p")] and status(bench) == "running"
    assert bench.machines.locks.holder("default", "deploy") is not None
    answer(bench, "+null")
    assert names(bench.host.jobs) == [("close", "t")] and bench.machines.locks.holder("default", "deploy") is None
    answer(bench, "+null")
    assert status(bench) == final and not bench.host.jobs


def test_one_that_cannot_be_opened_closes_the_earlier_ones_and_fails_the_flow() -> None:
    bench = Bench()
    declare(bench, bench.start("r", options={"resources": True}), TEMP, PROCESS)
    answer(bench)
    answer(bench, error("failed", "no such program"))
    assert names(bench.host.jobs) == [("close", "t")]
    answer(bench, "+null")
    assert failure(bench) == ("resource", "resource 'p' could not be opened: no such program")


def test_one_that_cannot_be_opened_is_retried_with_its_flow() -> None:
    bench = Bench()
    lease = bench.start("r", options={"resources": True, "retry": {"initial": 10}})
    declare(bench, lease, TEMP)
    answer(bench, error("failed", "no"))
    bench.advance(10)
    again = bench.lease("r", "0~2")
    declare(bench, again, TEMP)
    answer(bench)
    assert not again.waiting and not lease.alive


def test_the_body_does_not_go_on_before_what_died_with_the_process_is_there_again() -> None:
    bench = Bench()
    lease = opened(bench, "r", TEMP, PROCESS)
    bench.act(lease, 1, "kv.incr", {"key": "n"})
    bench.node.pump()
    bench = bench.crash()
    bench.node.execute(None)
    bench.node.pump()
    assert not bench.worker.leases
    first = answer(bench, ok({"path": "/tmp/x"}))
    assert first.input["generation"] == 2 and first.kind == "resource.open"
    assert not bench.worker.leases
    second = answer(bench, ok({"path": "/tmp/x"}))
    assert second.input["generation"] == 2 and second.input["mark"].endswith("/r/0/p")
    lease = bench.lease("r", "0")
    assert sorted(lease.history["0"].records) == [0, 1]


def test_the_mark_is_the_same_for_all_generations() -> None:
    bench = Bench()
    lease = bench.start("r", options={"resources": True})
    declare(bench, lease, TEMP)
    first = answer(bench)
    bench = bench.crash()
    bench.node.execute(None)
    bench.node.pump()
    assert answer(bench).input["mark"] == first.input["mark"] == f"{bench.node.log_id}/r/0/t"


def test_an_opening_that_died_with_the_process_is_begun_again_as_the_next_generation() -> None:
    bench = Bench()
    declare(bench, bench.start("r", options={"resources": True}), TEMP)
    bench = bench.crash()
    bench.node.execute(None)
    bench.node.pump()
    assert answer(bench).input["generation"] == 2


def test_an_answer_of_an_earlier_generation_is_dropped() -> None:
    bench = Bench()
    declare(bench, bench.start("r", options={"resources": True}), TEMP)
    (old,) = bench.host.jobs
    bench = bench.crash()
    bench.node.execute(None)
    bench.node.pump()
    before = bench.machines.dump()
    bench.host.core.answer([(old, ok({"path": "/old"}))])
    assert bench.machines.dump() == before
    answer(bench)
    assert bench.lease("r", "0").history["0"].records[0].outcome == '+{"t":{"path":"/tmp/x"}}'


def test_a_close_that_died_with_the_process_is_done_again() -> None:
    bench = Bench()
    body_succeeds(bench, opened(bench, "r", TEMP))
    bench.node.pump()
    bench = bench.crash()
    bench.node.execute(None)
    bench.node.pump()
    assert answer(bench, "+null").kind == "resource.close"
    assert status(bench) == "completed"


def test_a_close_that_fails_does_not_hold_the_run() -> None:
    bench = Bench()
    body_succeeds(bench, opened(bench, "r", TEMP))
    bench.node.pump()
    answer(bench, error("failed", "busy"))
    assert status(bench) == "completed"


def test_a_cancelled_opening_is_closed_when_its_connector_has_answered() -> None:
    bench = Bench()
    declare(bench, bench.start("r", options={"resources": True}), TEMP)
    bench.node.cancel("r")
    bench.node.pump()
    answer(bench)
    assert names(bench.host.jobs) == [("close", "t")]
    answer(bench, "+null")
    assert status(bench) == "cancelled"


def test_locks_are_given_in_order_of_arrival() -> None:
    bench = Bench()
    opened(bench, "a", LOCK)
    for id in ("b", "c"):
        lease = bench.start(id, options={"resources": True})
        assert declare(bench, lease, LOCK) is None and lease.waiting
    assert bench.node.show("b").waiting[0].on == "lock l"
    bench.worker.core.finish(bench.lease("a", "0"), "+1")
    assert not bench.lease("b", "0").waiting and bench.lease("c", "0").waiting
    assert bench.lease("b", "0").history["0"].records[0].outcome == '+{"l":{"name":"deploy"}}'
    bench.node.cancel("b")
    assert not bench.lease("c", "0").waiting and status(bench, "b") == "cancelled"


def test_a_lock_is_held_over_a_crash() -> None:
    bench = Bench()
    opened(bench, "a", LOCK)
    declare(bench, bench.start("b", options={"resources": True}), LOCK)
    bench = bench.crash()
    bench.node.execute(None)
    bench.node.pump()
    assert bench.lease("a", "0").history["0"].records[0].outcome == '+{"l":{"name":"deploy"}}'
    assert bench.machines.locks.line("default", "deploy")[0].run == "b" and ("b", "0") not in bench.worker.leases
    bench.worker.core.finish(bench.lease("a", "0"), "+1")
    assert 0 in bench.lease("b", "0").history["0"].records


def test_a_wait_for_a_lock_that_closes_a_circle_fails_as_conflict() -> None:
    bench = Bench()
    one, two = ({"name": n, "kind": "lock", "params": {"name": n}} for n in ("one", "two"))
    for id, mine in (("a", one), ("b", two)):
        lease = opened(bench, id, mine)
        bench.act(lease, 1, "flow", {"flow": "x.flow::c", "options": {"resources": True}})
    declare(bench, bench.lease("a", "0.1"), two)
    declare(bench, bench.lease("b", "0.1"), one)
    told = json.loads(bench.lease("b", "0").history["0"].records[1].outcome[1:])
    assert told["kind"] == "conflict" and "would close a circle" in told["message"]
    assert bench.lease("a", "0.1").waiting


def test_a_retried_flow_opens_its_resources_anew() -> None:
    bench = Bench()
    body_fails(bench, opened(bench, "r", TEMP, retry={"initial": 10}))
    bench.node.pump()
    assert answer(bench, "+null").kind == "resource.close"
    bench.advance(10)
    again = bench.lease("r", "0~2")
    declare(bench, again, TEMP)
    answer(bench)
    assert not again.waiting and again.info.attempt == 2


def test_a_value_that_is_too_large_fails_the_opening() -> None:
    bench = Bench()
    declare(bench, bench.start("r", options={"resources": True}), TEMP)
    answer(bench, ok({"path": "x" * 70_000}))
    kind, message = failure(bench)
    assert kind == "resource" and "70012 bytes" in message
