"""A fault of ours in decide changes nothing; one in apply throws memory away and rebuilds it from the log."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from flo.api.errors import Unavailable
from flo.api.grid import StartRequest, Update
from flo.api.outcome import error
from flo.api.worker import Lease, Revoked
from flo.grid import jobs, strands
from flo.log.errors import LogDamaged
from flo.primitives import machines as machines_module
from flo.primitives import run_decide
from flo.primitives.kv import KV
from flo.primitives.kv_events import KvPut
from flo.primitives.locks import LockMachine
from flo.primitives.machine import Event
from flo.primitives.queue_events import QueueEnqueued
from flo.primitives.run import RunMachine
from flo.primitives.run_actions import Actions
from flo.primitives.run_events import Answered, Did
from tests.grid.manual import DIGEST, Bench
from tests.grid.storage import NS, batch


class Fault(Exception):
    """The injected one."""


def raises(*_: object, **__: object) -> Any:
    raise Fault("injected")


def finish(bench: Bench, lease: Lease, outcome: str = "+1") -> None:
    bench.worker.core.finish(lease, outcome)


def child(bench: Bench) -> Lease:
    lease = bench.start("r")
    bench.act(lease, 1, "flow", {"flow": "x.flow::child", "args": {}}, handle=True)
    return bench.lease("r", "0.1")


# -- decide

KINDS = [
    ("kv.incr", {"key": "n"}), ("kv.get", {"key": "n"}), ("kv.put", {"key": "n", "value": "v"}),
    ("kv.delete", {"key": "n"}), ("kv.scan", {}), ("clock.now", {}), ("clock.sleep", {"ms": 5}),
    ("clock.timer", {"ms": 5}), ("uuid", {}), ("random", {}), ("flow", {"flow": "x.flow::child", "args": {}}),
    ("wait", {"handles": []}), ("signal", {"type": "go"}), ("receive", {}), ("send", {"to": "r", "message": 1}),
    ("cancel", {"handle": "0.1"}), ("resources.open", [{"name": "a", "kind": "tempdir"}]), ("http.get", {}),
    ("kv.exists", {"key": "n"}), ("kv.mget", {"keys": ["n"]}), ("kv.touch", {"key": "n", "ttl": 5}),
    ("kv.persist", {"key": "n"}), ("kv.history", {"key": "n"}), ("kv.json_get", {"key": "n"}),
    ("kv.json_set", {"key": "n", "value": 1}), ("kv.json_del", {"key": "n"}), ("kv.wait", {"key": "n"}),
    ("kv.transaction", {"writes": [{"op": "incr", "key": "n"}]}), ("queue.enqueue", {"queue": "q", "payload": "p"}),
    ("queue.dequeue", {"queue": "q", "timeout": 5}), ("queue.ack", {"queue": "q", "seqs": [1]}),
    ("queue.nack", {"queue": "q", "seqs": [1]}), ("queue.touch", {"queue": "q", "seqs": [1]}),
    ("queue.peek", {"queue": "q"}), ("queue.dlq_list", {"queue": "q"}),
    ("queue.dlq_requeue", {"queue": "q", "seqs": [1]}), ("stream.append", {"stream": "s", "payload": "p"}),
    ("stream.read", {"stream": "s", "timeout": None}), ("stream.info", {"stream": "s"}),
    ("stream.trim", {"stream": "s", "max_len": 1}),
    ("stream.group_join", {"stream": "s", "group": "g", "consumer": "c"}),
    ("stream.group_leave", {"stream": "s", "group": "g", "consumer": "c"}),
    ("stream.group_read", {"stream": "s", "group": "g", "consumer": "c"}),
    ("stream.group_ack", {"stream": "s", "group": "g", "ids": ["1-0"]}),
    ("stream.group_nack", {"stream": "s", "group": "g", "ids": ["1-0"]}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "params"), KINDS, ids=[kind for kind, _ in KINDS])
def test_a_fault_while_an_action_is_decided_changes_nothing(kind: str, params: Any) -> None:
    bench = Bench()
    lease = bench.start("r")
    before = bench.machines.dump()
    handlers = bench.machines.actions._handlers
    right = handlers.get(kind)
    handlers[kind] = raises
    with pytest.raises(Fault):
        bench.act(lease, 1, kind, params)
    assert bench.machines.dump() == before == bench.replayed()

    del handlers[kind]
    if right is not None:
        handlers[kind] = right
    outcome = bench.act(lease, 1, kind, params)
    assert outcome is None or outcome[0] in "+-"


def test_every_kind_of_action_is_among_them() -> None:
    assert set(Bench().machines.actions._handlers) <= {kind for kind, _ in KINDS}


Command = Callable[[Bench, Lease], object]
COMMANDS: dict[str, tuple[object, str, Command]] = {
    "start": (run_decide, "start", lambda b, _: b.start("new")),
    "signal": (run_decide, "signal", lambda b, _: b.node.signal("r", "go", "1")),
    "cancel": (run_decide, "cancel", lambda b, _: b.node.cancel("r")),
    "finish": (strands, "finish", lambda b, lease: finish(b, lease)),
    "leave": (strands, "finish", lambda b, lease: b.worker.core.leave(lease, "0.9", "+1")),
    "again": (strands, "again", lambda b, lease: b.worker.core.continue_as_new(lease, "0", "{}")),
    "pause": (strands, "pause", lambda b, lease: b.worker.core.pause(lease, "NonDeterministic", "no")),
    "answer": (jobs, "answer", lambda b, _: b.host.core.answer([(b.host.jobs[0], "+1")])),
    "recover": (run_decide, "recover", lambda b, _: b.node.execute(["other"])),
    "detached": (Actions, "_detached", lambda b, lease: b.act(
        lease, 10, "flow", {"flow": "x.flow::f", "options": {"detached": True}})),
    "kv": (KV, "decide_incr", lambda b, lease: b.act(lease, 10, "kv.incr", {"key": "n"})),
}  # fmt: skip


def busy() -> tuple[Bench, Lease]:
    """A run with an inline task, two requests of which one has a slot, and another run that is not executed."""
    bench = Bench(slots=1)
    lease = bench.start("r")
    bench.node.start(StartRequest(id="other", bundle=DIGEST, flow="x.flow::main"), execute=False)
    for n in (1, 2):
        bench.act(lease, n, "http.get", {"url": "http://x"}, handle=True)
    bench.worker.core.enter(lease, "0", 9, '{"flow":"x.flow::in","args":{}}', "x.flow:9")
    bench.node.pump()
    return bench, lease


@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_while_a_command_is_decided_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, function, command = COMMANDS[name]
    bench, lease = busy()
    right, before = getattr(module, function), bench.machines.dump()
    monkeypatch.setattr(module, function, raises)
    with pytest.raises(Fault):
        command(bench, lease)
    assert bench.machines.dump() == before == bench.replayed()

    monkeypatch.setattr(module, function, right)
    lease = bench.lease("r", "0")
    if lease.alive:
        command(bench, lease)
    assert bench.replayed() == bench.machines.dump()


def cancel_tree(bench: Bench) -> None:
    child(bench)
    bench.node.cancel("r")
    bench.node.tick()


def open_lock(bench: Bench) -> None:
    lease = bench.start("r")
    bench.act(lease, 0, "resources.open", [{"name": "l", "kind": "lock", "params": {"name": "l"}}])


def sleep(bench: Bench) -> None:
    bench.act(bench.start("r"), 1, "clock.sleep", {"ms": 5})
    bench.advance(10)


def expire(bench: Bench) -> None:
    bench.act(bench.start("r"), 1, "kv.put", {"key": "k", "value": "v", "ttl": 5})
    bench.advance(700_000)


def end_child(bench: Bench) -> None:
    lease = child(bench)
    bench.act(bench.lease("r", "0"), 2, "wait", {"handles": ["0.1"]})
    finish(bench, lease)


def end_detached(bench: Bench) -> None:
    lease = bench.start("r")
    params = {"flow": "x.flow::f", "options": {"detached": True}}
    bench.act(lease, 1, "flow", params)
    finish(bench, bench.lease("r/0.1", "0"))


def answer_one_of_five(bench: Bench) -> None:
    lease = bench.start("r")
    for n in range(1, 6):
        bench.act(lease, n, "http.get", {"url": "http://x"}, handle=True)
    bench.node.pump()
    bench.answer(bench.host.jobs[0], "+1")


FOLLOW_UPS: dict[str, tuple[object, str, Callable[[Bench], None]]] = {
    "advance": (machines_module, "advance", cancel_tree),
    "sweep": (machines_module, "sweep", cancel_tree),
    "stop": (machines_module, "stop", cancel_tree),
    "lock": (LockMachine, "decide_acquire", open_lock),
    "timer": (machines_module, "timer", sleep),
    "kv timer": (KV, "due", expire),
    "resolve": (machines_module, "resolve", end_child),
    "claim": (jobs, "claim", answer_one_of_five),
    "parent_answer": (machines_module, "parent_answer", end_detached),
}


@pytest.mark.parametrize("name", FOLLOW_UPS)
def test_a_fault_while_a_follow_up_or_timer_is_decided_changes_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before in the same command is undone too: the memory is rebuilt from the log, which has none of it."""
    module, function, scenario = FOLLOW_UPS[name]
    right, bench = getattr(module, function), Bench()

    def once(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(module, function, right)
        bench.node.pump()
        raise Fault("injected")

    monkeypatch.setattr(module, function, once)
    with suppress(Unavailable, Revoked):
        scenario(bench)
    bench.node.pump()
    assert bench.node.partition.incarnation == 2
    assert bench.node.partition.broken is None and bench.node.lost is None
    assert bench.replayed() == bench.machines.dump()
    bench.advance(10)
    assert bench.replayed() == bench.machines.dump()


# -- apply


def fault_in_apply(bench: Bench, event: type[Event] = Did) -> None:
    """These machines cannot apply this event; those that are rebuilt can."""
    bench.machines.by_kind[event.KIND] = raises


def test_a_fault_in_apply_begins_a_new_incarnation_from_the_log() -> None:
    bench = Bench()
    lease = bench.start("r")
    updates: list[Update] = []
    bench.node.watch("r", updates.append)
    before = bench.machines.dump()
    fault_in_apply(bench)
    with pytest.raises(Revoked):
        bench.act(lease, 1, "kv.incr", {"key": "n"})
    with pytest.raises(Unavailable, match=r"outcome unknown: event 3 could not be applied: Fault: injected"):
        bench.node.show("r")
    bench.node.pump()

    assert not lease.alive and lease.reason == "lost" and updates[-1].view is None
    assert bench.machines.dump() == before and bench.node.show("r").status == "running"
    assert bench.store.epoch == 2
    again = bench.lease("r", "0")
    assert again is not lease and again.alive
    assert bench.act(again, 1, "kv.incr", {"key": "n"}) == "+1"
    assert bench.replayed() == bench.machines.dump()


def test_what_waits_when_apply_raises_ends_as_unknown() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from tests.grid.test_output_commit import until

    bench = Bench(threads=True)
    lease = bench.start("r")
    bench.backend.hold()
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(bench.node.signal, "r", "go", "1")
        until(lambda: bench.node.commit_group._waiting == 1)
        fault_in_apply(bench)
        with pytest.raises(Revoked):
            bench.act(lease, 1, "kv.incr", {"key": "n"})
        bench.backend.release()
        with pytest.raises(Unavailable, match="outcome unknown"):
            reply.result(10)
    until(lambda: bench.node.partition.broken is None)
    assert bench.node.lost is None and bench.node.show("r").status == "running"
    assert bench.machines.runs.runs["r"].signals == [("go", "1")]  # unknown to its sender, but in the log
    bench.node.close()


def test_who_waits_when_apply_raises_is_told_so_without_waiting_for_what_the_log_will_never_have() -> None:
    bench = Bench()
    store = bench.node.store
    told: list[object] = []

    def done(result: object) -> None:
        store.releases.after(store.last_index, lambda: told.append(result), told.append)

    batch(bench, lambda s: s.wait_dequeue(NS, ["q"], 1, timeout_ms=None, done=done))
    bench.node.pump()
    fault_in_apply(bench, QueueEnqueued)
    with pytest.raises(Unavailable):
        batch(bench, lambda s: [s.put(NS, b"k", b"v"), s.enqueue(NS, "q", b"x")])
    bench.node.pump()

    assert len(told) == 1 and "outcome unknown" in str(told[0])
    assert bench.replayed() == bench.machines.dump()


def test_an_event_that_cannot_be_logged_changes_nothing() -> None:
    bench = Bench()
    events = [KvPut(NS, b"a", b"v", 0), KvPut(NS, b"b", b"v", 2**70)]
    with pytest.raises(OverflowError):
        batch(bench, lambda s: bench.node.partition.emit(events, s.now))
    assert bench.node.partition.broken is None
    assert bench.replayed() == bench.machines.dump()


def test_a_fault_that_recurs_ends_the_node_with_the_events_index() -> None:
    bench = Bench()
    lease = bench.start("r")
    updates: list[Update] = []
    for _ in range(2):
        fault_in_apply(bench)
        with pytest.raises(Revoked):
            bench.act(lease, 1, "kv.incr", {"key": "n"})
        bench.node.pump()
        lease = bench.lease("r", "0")
        if bench.node.lost is None:
            bench.node.watch("r", updates.append)
    assert "event 3 could not be applied: Fault: injected" in str(bench.node.lost)
    assert updates[-1].view is None
    with pytest.raises(Unavailable, match="event 3 could not be applied"):
        bench.node.show("r")


def test_an_event_of_the_log_that_cannot_be_applied_stops_the_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.act(lease, 1, "kv.incr", {"key": "n"})
    bench.node.pump()
    monkeypatch.setattr(RunMachine, "_did", raises)
    with pytest.raises(LogDamaged, match="event 3 could not be applied: Fault: injected"):
        Bench(bench.store)


def test_jobs_that_connectors_have_go_on_and_are_answered_to_the_next_incarnation() -> None:
    bench = Bench(slots=2)
    lease = bench.start("r")
    for n in (1, 2, 3):
        bench.act(lease, n, "http.get", {"url": "http://x"}, handle=True)
    bench.node.pump()
    one, two = bench.host.jobs
    fault_in_apply(bench, Answered)
    bench.answer(one, "+1")  # the fault hits this answer, which is kept
    bench.answer(two, "+2")
    bench.node.pump()  # rebuilds
    bench.node.pump()

    third = bench.lease("r", "0")
    assert {n: r.outcome for n, r in third.history["0"].records.items()} == {1: "+1", 2: "+2"}
    assert [job.sid for job in bench.host.jobs] == ["0.3"] and len(bench.host.begun) == 3
    assert bench.replayed() == bench.machines.dump()


def test_a_job_that_had_not_left_is_handed_out_once_by_the_next_incarnation() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.act(lease, 1, "http.get", {"url": "http://x"}, handle=True)  # claimed, not durable
    fault_in_apply(bench)
    with pytest.raises(Revoked):
        bench.act(lease, 2, "kv.incr", {"key": "n"})
    assert not bench.host.jobs
    bench.node.pump()
    bench.node.pump()
    assert [job.sid for job in bench.host.jobs] == ["0.1"] and len(bench.host.begun) == 1


def test_a_threaded_node_rebuilds_by_itself() -> None:
    from tests.grid.test_output_commit import until

    bench = Bench(threads=True)
    lease = bench.start("r")
    fault_in_apply(bench)
    with pytest.raises(Revoked):
        bench.act(lease, 1, "kv.incr", {"key": "n"})
    until(lambda: bench.lease("r", "0") is not lease)
    assert bench.act(bench.lease("r", "0"), 1, "kv.incr", {"key": "n"}) == "+1"
    bench.node.close()


def test_the_rebuilt_state_counts_outcomes_of_failures_too() -> None:
    bench = Bench()
    lease = child(bench)
    finish(bench, lease, error("failed", "no"))
    fault_in_apply(bench)
    with pytest.raises(Revoked):
        bench.act(bench.lease("r", "0"), 2, "kv.incr", {"key": "n"})
    bench.node.pump()
    assert bench.replayed() == bench.machines.dump()
    assert '"failed"' in bench.lease("r", "0").history["0"].records[1].outcome
