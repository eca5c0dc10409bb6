"""Too much memory, or no room on the disk: what may be dropped goes, what grows is refused, the rest goes on."""

from __future__ import annotations

import pytest

from flo.api.errors import Overloaded
from flo.api.outcome import value
from flo.grid.pressure import HIGH
from flo.grid.store_batch import FORGET_EVENTS
from flo.primitives.kv_events import KvForgotten
from flo.primitives.stream_pages import NewRecord
from tests.grid.manual import Bench
from tests.grid.storage import NS, ActingRun, batch

BUDGET = 4 * 1024 * 1024
VALUE = b"v" * 60_000


def forgotten(bench: Bench) -> int:
    bench.node.pump()
    return sum(kind == KvForgotten.KIND for frame in bench.backend.read(1) for kind, _, _ in frame.events)


def held(bench: Bench) -> int:
    return bench.machines.memory_bytes


def test_history_goes_before_writes_are_refused_and_no_more_of_it_than_is_needed():
    bench = Bench(memory_budget=BUDGET)
    for number in range(12):
        ns = f"n{number}"
        for _ in range(2):
            batch(bench, lambda s, ns=ns: [s.put(ns, b"%d" % key, VALUE[:30_000]) for key in range(5)])
        bench.advance(1_000)
    batch(bench, lambda s: s.put(NS, b"k", b"v"))

    events = forgotten(bench)
    assert 0 < events < 12 and held(bench) < HIGH * BUDGET
    history = batch(bench, lambda s: len(s.history("n9", b"0")))
    assert history == 2
    assert bench.replayed() == bench.machines.dump()


def test_one_batch_drops_a_bounded_number_of_keys():
    bench = Bench(memory_budget=BUDGET)
    bench.node.store._pressure.budget = 1 << 40
    for number in range(FORGET_EVENTS + 2):
        for _ in range(2):
            batch(bench, lambda s, ns=f"n{number}": s.put(ns, b"k", VALUE))
    bench.node.store._pressure.budget = 1_000
    bench.clock.advance(1_000)
    batch(bench, lambda s: None)

    assert forgotten(bench) == FORGET_EVENTS


def test_over_the_budget_what_grows_is_refused_and_everything_else_goes_on():
    bench = Bench(memory_budget=BUDGET)
    written = 0
    while held(bench) <= HIGH * BUDGET:
        batch(bench, lambda s, n=written: s.put(NS, b"%d" % n, VALUE))
        written += 1
    bench.clock.advance(1_000)
    with pytest.raises(Overloaded, match="ShardMemoryPressure"):
        batch(bench, lambda s: s.put(NS, b"k", VALUE))
    assert batch(bench, lambda s: s.get(NS, b"0")) is not None
    with pytest.raises(Overloaded):
        batch(bench, lambda s: s.enqueue(NS, "q", b"x"))
    batch(bench, lambda s: [s.delete(NS, b"%d" % n) for n in range(written)])
    bench.advance(1_000)

    assert batch(bench, lambda s: s.put(NS, b"k", VALUE)) > 0
    assert bench.replayed() == bench.machines.dump()


def test_over_the_budget_consumers_that_are_there_read_on_and_reads_make_no_new_ones():
    bench = Bench(memory_budget=BUDGET)
    batch(bench, lambda s: s.stream_append(NS, "s", [NewRecord(b"x")]))
    batch(bench, lambda s: s.group_join(NS, "s", "g", "w"))
    for number in range(60):
        batch(bench, lambda s, n=number: s.put(NS, b"%d" % n, VALUE))
    bench.clock.advance(1_000)

    assert len(batch(bench, lambda s: s.group_read(NS, "s", "g", "w"))) == 1
    for stream, group, consumer in (("s", "g", "new"), ("s", "new", "w"), ("new", "g", "w")):
        with pytest.raises(Overloaded, match="ShardMemoryPressure"):
            batch(bench, lambda s, at=(stream, group, consumer): s.group_read(NS, *at))
    assert batch(bench, lambda s: s.stream_info(NS, "new")) is None


def test_flows_are_refused_what_grows_as_clients_are_and_may_try_again():
    bench = Bench(memory_budget=BUDGET)
    run = ActingRun(bench)
    written = 0
    while held(bench) <= HIGH * BUDGET:
        batch(bench, lambda s, n=written: s.put(NS, b"%d" % n, VALUE))
        written += 1
    bench.clock.advance(1_000)

    refused = value(run.outcome("queue.enqueue", queue="q", payload="x"))
    assert (refused["kind"], refused["retryable"]) == ("quota_exceeded", True)
    assert "queue.enqueue: ShardMemoryPressure" in refused["message"]
    assert run.do("kv.get", key="0") is not None
    batch(bench, lambda s: [s.delete(NS, b"%d" % n) for n in range(written)])
    bench.advance(1_000)
    assert run.do("queue.enqueue", queue="q", payload="x") == 1
    assert bench.replayed() == bench.machines.dump()


def test_a_flows_write_makes_history_go_before_it_is_refused():
    bench = Bench(memory_budget=BUDGET)
    run = ActingRun(bench)
    for _ in range(80):
        run.do("kv.put", key="k", value="v" * 60_000)
        bench.clock.advance(1_000)

    assert forgotten(bench) > 0 and run.do("kv.exists", key="k")


def test_what_open_transactions_have_buffered_counts():
    bench = Bench(memory_budget=BUDGET)
    txns = [batch(bench, lambda s: s.txn_begin(NS, b"k"))[0] for _ in range(30)]
    for txn in txns:
        batch(bench, lambda s, t=txn: s.put(NS, b"k", VALUE, txn=t))
    bench.clock.advance(1_000)
    with pytest.raises(Overloaded, match="ShardMemoryPressure"):
        batch(bench, lambda s: s.put(NS, b"other", VALUE, txn=txns[0]))

    for txn in txns[2:]:
        batch(bench, lambda s, t=txn: s.txn_rollback(NS, t))
    bench.clock.advance(1_000)
    assert batch(bench, lambda s: s.txn_commit(NS, txns[0]))[1] == 1
    assert bench.node.store.memory_bytes - held(bench) > len(VALUE)
    bench.clock.advance(60_000)
    batch(bench, lambda s: s.get(NS, b"k"))
    assert bench.node.store.memory_bytes == held(bench)
