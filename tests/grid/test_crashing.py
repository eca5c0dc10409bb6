"""Runs that were paused because they kill their process: left alone unless somebody names them."""

from __future__ import annotations

import pytest

from flo.api.grid import StartRequest
from flo.api.worker import CRASHING
from tests.grid.manual import DIGEST, Bench


def paused() -> Bench:
    bench = Bench()
    lease = bench.start("r")
    bench.worker.core.pause(lease, CRASHING, "3 processes died")
    bench.node.pump()
    return bench


@pytest.mark.parametrize("crashed", [False, True], ids=["same process", "next process"])
def test_it_stays_paused_for_who_resumes_everything_or_starts_it_again(crashed: bool) -> None:
    bench = paused()
    if crashed:
        bench = bench.crash()
    other = bench.start("other")

    assert bench.node.execute(None) == ["r", "other"] and other.alive
    bench.node.start(StartRequest(id="r", bundle=DIGEST, flow="x.flow::main", args="{}", options="{}"))

    assert bench.node.show("r").paused == "crashing: 3 processes died" and bench.node.show("r").status == "running"
    assert not any(lease.alive for (run, _), lease in bench.worker.leases.items() if run == "r")


@pytest.mark.parametrize("crashed", [False, True], ids=["same process", "next process"])
def test_it_goes_on_when_it_is_named(crashed: bool) -> None:
    bench = paused()
    if crashed:
        bench = bench.crash()

    assert bench.node.execute(["r"]) == ["r"]
    assert bench.node.show("r").paused is None
    bench.worker.core.finish(bench.lease("r", "0"), "+1")
    assert bench.node.show("r").status == "completed"


def test_a_replay_that_differs_is_tried_again_by_everyone() -> None:
    bench = Bench()
    bench.start("r")
    bench.worker.core.pause(bench.lease("r", "0"), "NonDeterministic", "expected kv.get")
    bench.node.pump()
    bench = bench.crash()

    assert bench.node.execute(None) == ["r"] and bench.lease("r", "0").alive


@pytest.mark.parametrize("crashed", [False, True], ids=["same process", "next process"])
def test_when_it_is_cancelled_its_way_to_the_end_is_free(crashed: bool) -> None:
    bench = Bench()
    lease = bench.start("r", options={"exit": True})
    bench.worker.core.pause(lease, CRASHING, "3 processes died")
    bench.node.cancel("r", "enough")
    assert bench.node.show("r").paused is None and not lease.alive
    if crashed:
        bench = bench.crash()
        bench.node.execute(None)

    assert [task for (_, task), lease in bench.worker.leases.items() if lease.alive] == ["0.exit"]
    bench.worker.core.finish(bench.lease("r", "0.exit"), "+null")
    assert bench.node.show("r").status == "cancelled"


def test_when_its_time_is_over_the_next_process_ends_it() -> None:
    bench = Bench()
    lease = bench.start("r", options={"exit": True}, timeout_ms=10)
    bench.worker.core.pause(lease, CRASHING, "3 processes died")
    bench.advance(10)
    bench = bench.crash()
    bench.node.execute(None)

    bench.worker.core.finish(bench.lease("r", "0.exit"), "+null")
    assert bench.node.show("r").status == "timed_out"
