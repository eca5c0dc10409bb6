"""External actions: claims, slots, retries, interruption."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flo.api.jobs import Job
from flo.api.outcome import error
from flo.api.worker import Lease
from tests.grid.manual import Bench, ManualHost


def get(bench: Bench, lease: Lease, n: int = 1, *, handle: bool = True, **params: Any) -> str | None:
    return bench.act(lease, n, "http.get", {"url": "http://x", **params}, handle=handle)


def job(bench: Bench) -> Job:
    bench.node.pump()
    (only,) = bench.host.jobs
    return only


def outcome(bench: Bench, n: int = 1) -> str:
    records = {record.n: record for record in bench.machines.runs.runs["r"].root.records()}
    return records[n].outcome


def kinds(bench: Bench) -> list[int]:
    """The kinds of all events, frame by frame."""
    bench.node.pump()
    return [event[0] for frame in bench.store.frames for event in frame.events]


ASKED, CLAIMED, ANSWERED, ATTEMPT_FAILED = 3, 4, 5, 6


def test_with_a_free_slot_the_claim_lies_in_the_event_that_asks() -> None:
    bench = Bench()
    get(bench, bench.start("r"))
    assert kinds(bench)[1:] == [ASKED]
    assert bench.machines.runs.runs["r"].root.open is not None
    assert bench.machines.runs.runs["r"].root.open[1].session == bench.node.session


def test_without_a_slot_it_is_claimed_when_one_is_free_and_slots_bound_what_is_out() -> None:
    bench = Bench(slots=2)
    lease = bench.start("r")
    for n in range(1, 5):
        get(bench, lease, n)
    bench.node.pump()
    assert [j.sid for j in bench.host.jobs] == ["0.1", "0.2"]
    bench.answer(bench.host.jobs[1], "+2")
    bench.node.pump()
    assert [j.sid for j in bench.host.jobs] == ["0.1", "0.3"]
    assert kinds(bench)[1:] == [ASKED] * 4 + [ANSWERED, CLAIMED]


def test_slots_are_of_a_kind() -> None:
    bench = Bench(slots=1)
    lease = bench.start("r")
    get(bench, lease, 1)
    bench.act(lease, 2, "http.post", {"url": "http://x"}, handle=True)
    bench.node.pump()
    assert [j.kind for j in bench.host.jobs] == ["http.get", "http.post"]


def test_a_kind_that_no_connector_performs_is_refused_in_the_history() -> None:
    bench = Bench()
    refused = bench.act(bench.start("r"), 1, "unknown", {})
    assert refused is not None and json.loads(refused[1:])["kind"] == "not_found"
    assert outcome(bench) == refused


def test_the_idempotency_key_is_one_for_all_attempts() -> None:
    bench = Bench()
    get(bench, bench.start("r"), retry={"max_attempts": 2, "initial": 10})
    first = job(bench)
    bench.answer(first, error("connector", "reset"))
    bench.advance(10)
    second = job(bench)
    assert (first.attempt, second.attempt) == (1, 2) and first.key == second.key == "r/0.1"


def test_a_late_answer_of_another_attempt_is_dropped() -> None:
    bench = Bench(slots=1)
    lease = bench.start("r")
    get(bench, lease, retry={"max_attempts": 3, "initial": 10})
    first = job(bench)
    bench.answer(first, error("connector", "reset"))
    bench.advance(10)
    second = job(bench)
    before = bench.machines.dump()
    bench.host.core.answer([(first, "+1")])
    assert bench.machines.dump() == before
    get(bench, lease, 2)
    assert job(bench) is second  # the slot is still taken
    bench.answer(second, "+2")
    assert outcome(bench) == "+2"


def test_an_answer_of_a_run_that_is_over_or_unknown_is_dropped() -> None:
    bench = Bench()
    get(bench, bench.start("r"))
    late = job(bench)
    bench.worker.core.finish(bench.lease("r", "0"), "+1")
    assert bench.host.cancelled == [late]
    before = bench.machines.dump()
    bench.answer(late, "+1")
    bench.host.core.answer([(Job(run="no", sid="0.1", attempt=1, kind="http.get", params="{}", node=""), "+1")])
    assert bench.machines.dump() == before


@pytest.mark.parametrize(
    ("policy", "kind", "pauses"),
    [
        ({}, "connector", [1_000, 2_000]),
        ({"max_attempts": 5, "max": 3_000}, "connector", [1_000, 2_000, 3_000, 3_000]),
        ({"max_attempts": 4, "backoff": "constant", "initial": 50}, "connector", [50, 50, 50]),
        ({"max_attempts": 9, "initial": 100, "within": 350}, "connector", [100, 200]),
        ({}, "failed", []),
        ({"on": ["failed"]}, "failed", [1_000, 2_000]),
        ({"on": ["failed"]}, "connector", []),
        ({"max_attempts": 1}, "connector", []),
        (None, "connector", []),
    ],
)
def test_a_retry_policy_is_performed_by_the_core(policy: dict[str, Any] | None, kind: str, pauses: list[int]) -> None:
    bench = Bench()
    get(bench, bench.start("r"), retry=policy)
    for number, pause in enumerate(pauses, 1):
        bench.answer(job(bench), error(kind, f"attempt {number}"))
        bench.advance(pause - 1)
        assert not bench.host.jobs
        bench.advance(1)
        assert job(bench).attempt == number + 1
    bench.answer(job(bench), error(kind, "the last"))
    bench.advance(1_000_000)
    assert not bench.host.jobs and "the last" in outcome(bench)


def test_what_a_dead_session_had_claimed_is_interrupted() -> None:
    bench = Bench(slots=1)
    lease = bench.start("r")
    get(bench, lease, 1)
    get(bench, lease, 2)  # unclaimed: not interrupted
    bench.node.pump()
    bench = bench.crash()
    bench.node.execute(None)
    assert json.loads(outcome(bench)[1:]) == {
        "kind": "interrupted", "message": "http.get was interrupted: what performed it died", "retryable": False,
        "details": None, "where": "x.flow:1",
    }  # fmt: skip
    assert [j.sid for j in bench.host.jobs] == ["0.2"]


@pytest.mark.parametrize("names_it", [True, False])
def test_an_interrupted_request_is_repeated_only_when_its_policy_names_that(names_it: bool) -> None:
    bench = Bench()
    get(bench, bench.start("r"), retry={"on": ["interrupted"] if names_it else ["connector"], "initial": 10})
    bench.node.pump()
    bench = bench.crash()
    bench.node.execute(None)
    bench.advance(10)
    if names_it:
        assert job(bench).attempt == 2
    else:
        assert not bench.host.jobs and '"interrupted"' in outcome(bench)


def test_a_claim_that_was_not_durable_when_the_process_died_is_made_again() -> None:
    bench = Bench()
    lease = bench.start("r")
    get(bench, lease)  # never pumped
    bench = bench.crash()
    bench.node.execute(None)
    lease = bench.lease("r", "0")
    assert not lease.history["0"].open and not lease.history["0"].records
    get(bench, lease)
    assert job(bench).attempt == 1


def test_a_pause_before_a_retry_outlives_the_process() -> None:
    bench = Bench()
    get(bench, bench.start("r"), retry={"max_attempts": 2, "initial": 1_000})
    bench.answer(job(bench), error("connector", "reset"))
    bench.node.pump()
    bench = bench.crash()
    bench.node.execute(None)
    assert not bench.host.jobs
    bench.advance(1_000)
    assert job(bench).attempt == 2


def test_a_run_that_nobody_executes_here_wants_nothing_of_connectors() -> None:
    bench = Bench(slots=1)
    lease = bench.start("r")
    get(bench, lease, 1)
    get(bench, lease, 2)
    bench.node.pump()
    bench = bench.crash()
    bench.advance(1_000)
    assert not hasattr(bench, "worker") and not bench.host.jobs


def test_a_planned_stop_returns_what_never_began() -> None:
    class Lazy(ManualHost):
        """It begins nothing."""

        def stop(self, timeout_ms: int) -> list[Job]:
            return list(self.jobs)

    bench = Bench()
    bench.host = Lazy(1)
    lease = bench.start("r")
    get(bench, lease, 1)
    get(bench, lease, 2)
    bench.node.pump()
    get(bench, bench.start("s"), 1)
    bench.node.close()
    bench = bench.crash()
    bench.node.execute(None)
    bench.node.pump()
    assert sorted(j.key for j in bench.host.jobs) == ["r/0.1", "r/0.2", "s/0.1"]
    assert all(j.attempt == 1 for j in bench.host.jobs)


def test_cancelling_a_handle_frees_its_slot_and_tells_the_host() -> None:
    bench = Bench(slots=1)
    lease = bench.start("r")
    get(bench, lease, 1)
    get(bench, lease, 2)
    first = job(bench)
    bench.act(lease, 3, "cancel", {"handle": "0.1"})
    bench.node.pump()
    assert bench.host.cancelled == [first] and [j.sid for j in bench.host.jobs] == ["0.1", "0.2"]
    assert '"cancelled"' in outcome(bench)


def test_an_answer_wakes_the_strand_that_waits_for_it() -> None:
    bench = Bench()
    lease = bench.start("r")
    assert get(bench, lease, handle=False) is None and lease.waiting
    bench.answer(job(bench), "+1")
    assert bench.worker.woken == [lease] and lease.history["0"].records[1].outcome == "+1" and not lease.waiting
