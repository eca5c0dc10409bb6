"""Runs that wait for keys, messages and records: in one line with clients, for as long as it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flo.api.limits import PAYLOAD_HARD_BYTES, PAYLOAD_SOFT_BYTES
from flo.grid.store import PARKED
from flo.log.errors import LogDamaged
from flo.primitives.stream_pages import NewRecord
from tests.grid.manual import Bench
from tests.grid.storage import NS, ActingRun, Failed, batch

WAITS: dict[str, dict[str, Any]] = {
    "kv.wait": {"key": "k"},
    "queue.dequeue": {"queue": "q"},
    "stream.read": {"stream": "s"},
    "stream.group_read": {"stream": "s", "group": "g", "consumer": "c"},
}
kinds = pytest.mark.parametrize("kind", WAITS)


@pytest.fixture
def run() -> ActingRun:
    return ActingRun(Bench())


def bring(bench: Bench, kind: str, data: bytes = b"came") -> None:
    """What a wait of this kind waits for, by a client."""
    if kind == "kv.wait":
        batch(bench, lambda s: s.put(NS, b"k", data))
    elif kind == "queue.dequeue":
        batch(bench, lambda s: s.enqueue(NS, "q", data))
    else:
        batch(bench, lambda s: s.stream_append(NS, "s", [NewRecord(data)]))


def shown(kind: str, value: Any) -> list[str]:
    """What a wait has brought."""
    if kind == "kv.wait":
        return [] if value is None else [value["value"]]
    entries = value["records"] if kind == "stream.read" else value
    return [entry["payload"] for entry in entries]


def restart(run: ActingRun, *, flush: bool = True) -> None:
    """The run is on the node that comes after a crash; what is not flushed is lost."""
    if flush:
        run.bench.node.pump()
    run.bench = run.bench.crash()


@kinds
def test_a_run_waits_without_a_thread_and_goes_on_when_there_is_something(run: ActingRun, kind: str):
    n = run.waits(kind, **WAITS[kind], timeout=None)
    assert run.lease.waiting and run.bench.node.partition.waiters.count == 1

    bring(run.bench, kind)

    assert shown(kind, run.answer(n)) == ["came"]
    assert run.bench.worker.woken == [run.lease] and run.bench.node.partition.waiters.count == 0


@kinds
def test_what_is_there_already_is_not_waited_for(run: ActingRun, kind: str):
    bring(run.bench, kind)

    assert shown(kind, run.do(kind, **WAITS[kind], timeout=None)) == ["came"]


@kinds
def test_without_a_timeout_nothing_is_waited_for(run: ActingRun, kind: str):
    assert shown(kind, run.do(kind, **WAITS[kind], timeout=0)) == []


@kinds
def test_a_wait_ends_empty_at_its_time_and_not_before(run: ActingRun, kind: str):
    n = run.waits(kind, **WAITS[kind], timeout=1_000)
    run.bench.advance(999)
    with pytest.raises(KeyError):
        run.answer(n)
    run.bench.advance(1)

    assert shown(kind, run.answer(n)) == []
    assert run.bench.node.partition.waiters.count == 0
    bring(run.bench, kind)  # reaches nobody
    assert shown(kind, run.do(kind, **WAITS[kind])) == ["came"]


def test_a_read_that_has_waited_in_vain_goes_on_where_it_began(run: ActingRun):
    id = run.do("stream.append", stream="s", payload="old")
    n = run.waits("stream.read", stream="s", tail=True, timeout=1_000)
    run.bench.advance(1_000)

    assert run.answer(n) == {"records": [], "next": id, "has_more": False}


@pytest.mark.parametrize("tail", [{"tail": True}, {"start": "$"}])
def test_a_tail_is_the_end_as_it_was_when_the_run_asked(run: ActingRun, tail: dict[str, Any]):
    run.do("stream.append", stream="s", payload="old")
    n = run.waits("stream.read", stream="s", **tail, timeout=None)
    restart(run)
    bring(run.bench, "stream.read")

    assert shown("stream.read", run.answer(n)) == ["came"]


@kinds
def test_the_parameters_in_the_history_are_those_that_the_flow_gave(run: ActingRun, kind: str):
    """Else its replay would differ."""
    n = run.waits(kind, **WAITS[kind], timeout=None)
    restart(run)
    bring(run.bench, kind)

    assert json.loads(run.record(n).params) == {**WAITS[kind], "timeout": None}


def test_runs_and_clients_are_served_in_the_order_in_which_they_came(run: ActingRun):
    bench, served = run.bench, []

    def client(name: str) -> None:
        def done(result: Any) -> None:
            served.append((name, result[1][0].payload.decode()))

        waiting = batch(
            bench, lambda s: s.wait_dequeue(NS, ["q"], 1, visibility_ms=0, ack=False, timeout_ms=None, done=done)
        )
        assert waiting is PARKED

    client("client 1")
    first = run.waits("queue.dequeue", queue="q", timeout=None)
    client("client 2")
    other = ActingRun(bench, "other")
    second = other.waits("queue.dequeue", queue="q", timeout=None)
    for number in range(4):
        bring(bench, "queue.dequeue", b"%d" % number)

    assert served == [("client 1", "0"), ("client 2", "2")]
    assert shown("queue.dequeue", run.answer(first)) == ["1"]
    assert shown("queue.dequeue", other.answer(second)) == ["3"]


def test_everybody_who_waits_for_a_key_or_a_record_gets_it(run: ActingRun):
    other = ActingRun(run.bench, "other")
    for kind in ("kv.wait", "stream.read"):
        numbers = [each.waits(kind, **WAITS[kind], timeout=None) for each in (run, other)]
        bring(run.bench, kind)

        assert [shown(kind, each.answer(n)) for each, n in zip((run, other), numbers, strict=True)] == [["came"]] * 2


def test_runs_stand_in_line_after_a_restart_as_they_did_before(run: ActingRun):
    runs = [ActingRun(run.bench, f"run-{number}") for number in (3, 1, 2)]
    numbers = [each.waits("queue.dequeue", queue="q", timeout=None) for each in runs]
    run.bench.node.pump()
    bench = run.bench.crash()
    assert bench.node.partition.waiters.count == 3
    for number in range(3):
        bring(bench, "queue.dequeue", b"%d" % number)
    for each in runs:
        each.bench = bench

    assert [shown("queue.dequeue", each.answer(n)) for each, n in zip(runs, numbers, strict=True)] == [
        ["0"], ["1"], ["2"]
    ]  # fmt: skip


@kinds
def test_a_wait_goes_on_over_a_restart_with_its_time(run: ActingRun, kind: str):
    n = run.waits(kind, **WAITS[kind], timeout=1_000)
    run.bench.advance(600)
    restart(run)
    run.bench.advance(399)
    with pytest.raises(KeyError):
        run.answer(n)
    run.bench.advance(1)

    assert shown(kind, run.answer(n)) == []


def test_what_was_handed_to_a_waiting_run_is_in_the_frame_that_answers_it(run: ActingRun):
    n = run.waits("queue.dequeue", queue="q", timeout=None)
    run.bench.node.pump()
    bring(run.bench, "queue.dequeue")
    restart(run, flush=False)  # neither the message nor the answer is there

    assert batch(run.bench, lambda s: s.queue_stats(NS, "q")) is None
    with pytest.raises(KeyError):
        run.answer(n)
    bring(run.bench, "queue.dequeue")
    restart(run)
    assert shown("queue.dequeue", run.answer(n)) == ["came"]
    assert batch(run.bench, lambda s: s.queue_stats(NS, "q")).inflight == 1
    assert run.bench.replayed() == run.bench.machines.dump()


@kinds
def test_a_cancelled_run_leaves_the_line(run: ActingRun, kind: str):
    run.waits(kind, **WAITS[kind], timeout=None)
    other = ActingRun(run.bench, "other")
    n = other.waits(kind, **WAITS[kind], timeout=None)
    run.bench.node.cancel("r")

    assert run.bench.node.partition.waiters.count == 1
    bring(run.bench, kind)
    assert shown(kind, other.answer(n)) == ["came"]


@kinds
def test_a_wait_that_was_begun_can_be_cancelled_and_others_go_on(run: ActingRun, kind: str):
    first = run.begins(kind, **WAITS[kind], timeout=None)
    second = run.begins(kind, **WAITS[kind], timeout=None)
    run.do("cancel", handle=f"0.{first}")
    bring(run.bench, kind)

    with pytest.raises(Failed, match="cancelled"):
        run.answer(first)
    assert shown(kind, run.answer(second)) == ["came"]


def test_a_run_waits_for_a_newer_version_of_a_key(run: ActingRun):
    seen = run.do("kv.put", key="k", value="1")
    n = run.waits("kv.wait", key="k", after=seen, timeout=None)
    run.do("kv.delete", key="k")
    with pytest.raises(KeyError):
        run.answer(n)
    bring(run.bench, "kv.wait")

    assert run.answer(n) == {"value": "came", "version": run.bench.machines.kv.latest(NS, b"k")}


def test_a_lease_that_ends_and_a_delay_that_is_over_serve_a_waiting_run(run: ActingRun):
    bring(run.bench, "queue.dequeue", b"leased")
    batch(run.bench, lambda s: s.dequeue(NS, "q", visibility_ms=1_000))
    batch(run.bench, lambda s: s.enqueue(NS, "q", b"delayed", delay_ms=2_000))
    first = run.begins("queue.dequeue", queue="q", timeout=None)
    second = run.begins("queue.dequeue", queue="q", timeout=None)
    run.bench.advance(1_000)
    assert run.answer(first)[0]["delivery_count"] == 2
    run.bench.advance(1_000)

    assert shown("queue.dequeue", run.answer(second)) == ["delayed"]


def test_a_record_that_is_given_back_serves_a_waiting_run(run: ActingRun):
    bring(run.bench, "stream.group_read")
    (held,) = batch(run.bench, lambda s: s.group_read(NS, "s", "g", "client"))
    n = run.waits("stream.group_read", **WAITS["stream.group_read"], timeout=None)
    batch(run.bench, lambda s: s.group_nack(NS, "s", "g", [(held.record.ms, held.record.seq)]))

    assert run.answer(n)[0]["delivery_count"] == 2


def test_a_reader_of_a_group_that_is_deleted_is_refused_and_one_of_a_stream_gets_nothing(run: ActingRun):
    run.do("stream.append", stream="s", payload="old")
    read = run.begins("stream.read", stream="s", tail=True, timeout=None)
    run.do("stream.group_read", **WAITS["stream.group_read"])
    group = run.begins("stream.group_read", **WAITS["stream.group_read"], timeout=None)
    batch(run.bench, lambda s: s.group_delete(NS, "s", "g"))

    with pytest.raises(Failed, match=r"not_found.*stream.group_read 's': no group 'g' on stream 's'"):
        run.answer(group)
    batch(run.bench, lambda s: s.stream_delete(NS, "s", force=True))
    assert run.answer(read)["records"] == []


def test_a_reader_of_a_stream_that_is_not_there_yet_waits_for_it(run: ActingRun):
    n = run.waits("stream.read", stream="s", timeout=None)
    bring(run.bench, "stream.read")

    assert shown("stream.read", run.answer(n)) == ["came"]


@pytest.mark.parametrize("kind", ["queue.dequeue", "stream.read", "stream.group_read"])
def test_a_large_result_of_a_wait_is_kept_beside_the_log(run: ActingRun, kind: str):
    n = run.waits(kind, **WAITS[kind], timeout=None)
    bring(run.bench, kind, b"x" * (PAYLOAD_SOFT_BYTES + 1))

    stored = run.record(n).outcome
    assert stored[0] == "@" and "x" * 1_000 in run.bench.node.payloads.load(stored)


def test_a_result_over_the_hard_limit_is_an_error_and_takes_nothing(run: ActingRun):
    count = PAYLOAD_HARD_BYTES // 262_144
    n = run.waits("queue.dequeue", queue="q", count=100, timeout=None)

    def fill(store: Any) -> None:
        for _ in range(count):
            store.enqueue(NS, "q", b"x" * 262_144)

    batch(run.bench, fill)
    with pytest.raises(Failed, match=r"too_large.*queue.dequeue 'q'.*ask for less"):
        run.answer(n)
    assert batch(run.bench, lambda s: s.queue_stats(NS, "q")).inflight == 0


def test_a_record_that_cannot_be_read_is_an_error_of_the_run_that_waits(run: ActingRun, monkeypatch: Any):
    n = run.waits("stream.read", stream="s", timeout=None)

    def damaged(records: Any) -> Any:
        raise LogDamaged("record 7-0 is damaged: its bytes are others")

    monkeypatch.setattr(run.bench.node.store.records, "load", damaged)
    bring(run.bench, "stream.read")

    with pytest.raises(Failed, match=r"failed.*stream.read 's': record 7-0 is damaged"):
        run.answer(n)


def test_replay_of_the_log_gives_the_runs_that_wait(run: ActingRun):
    for kind, params in WAITS.items():
        run.begins(kind, **params, timeout=None)
    bring(run.bench, "stream.read")

    assert run.bench.replayed() == run.bench.machines.dump()
