"""Every bound that the core enforces, with what it says."""

from __future__ import annotations

import json
import threading
from hashlib import sha256
from typing import Any

import pytest

from flo.api import limits
from flo.api.errors import BadArgument, Overloaded
from flo.api.grid import StartRequest
from flo.api.outcome import ok
from flo.api.worker import Revoked
from flo.log.errors import NoSpace
from flo.primitives import run_actions
from tests.grid.manual import DIGEST, Bench
from tests.grid.test_output_commit import moves_on, until

SOFT, HARD = limits.PAYLOAD_SOFT_BYTES, limits.PAYLOAD_HARD_BYTES


def problem(bench: Bench, id: str = "r") -> tuple[str, str]:
    told = bench.node.show(id).error
    assert told is not None
    return told.kind, told.message


def refusal(outcome: str | None) -> tuple[str, str]:
    assert outcome is not None and outcome[0] == "-", outcome
    told = json.loads(outcome[1:])
    return told["kind"], told["message"]


# -- speculation


def test_a_run_thread_blocks_above_the_bound_of_speculation_until_the_flush_moves() -> None:
    bench = Bench(threads=True, speculation_bytes=10_000)
    lease = bench.start("r")
    bench.backend.hold()
    done = threading.Event()
    steps = 0

    def run() -> None:
        nonlocal steps
        for n in range(1, 201):
            bench.act(lease, n, "kv.incr", {"key": "n"})
            steps = n
        done.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    group = bench.node.commit_group
    until(lambda: group._waiting == 1)
    assert not done.is_set() and steps < 200
    assert 10_000 < group.pending_bytes < 11_000  # one command over the bound at most
    bench.backend.release()
    assert done.wait(10)
    thread.join()
    bench.node.close()


def test_a_blocked_run_thread_is_let_go_when_its_lease_ends() -> None:
    bench = Bench(threads=True, speculation_bytes=1)
    lease = bench.start("r")
    bench.backend.hold()
    bench.act(lease, 1, "kv.incr", {"key": "n"})
    caught: list[BaseException] = []

    def run() -> None:
        try:
            bench.act(lease, 2, "kv.incr", {"key": "n"})
        except Revoked as revoked:
            caught.append(revoked)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: bench.node.commit_group._waiting == 1)
    with bench.node.partition.lock:
        bench.node.strands.revoke_all("stopping")
    thread.join(10)
    assert caught
    bench.backend.release()
    bench.node.close()


def test_with_a_full_disk_clients_are_told_to_try_again() -> None:
    bench = Bench(threads=True, speculation_bytes=1)
    lease = bench.start("r")
    for nth in range(1, 50):
        bench.backend.fail(nth, NoSpace("no space left"))
    bench.act(lease, 1, "kv.incr", {"key": "n"})
    until(lambda: bench.node.commit_group.stalled is not None)
    before = bench.machines.dump()
    for call in (
        lambda: bench.node.signal("r", "go", "1"),
        lambda: bench.node.cancel("r"),
        lambda: bench.node.start(StartRequest(id="s", bundle=DIGEST, flow="x.flow::main")),
    ):
        with pytest.raises(Overloaded, match="the log does not get on: no space left"):
            call()
    assert bench.machines.dump() == before
    bench.backend._faults.clear()
    until(lambda: moves_on(bench.node.commit_group))
    bench.node.signal("r", "go", "1")
    bench.node.close()


# -- payloads


def test_payloads_over_the_soft_limit_go_through_blobs_and_survive_a_restart() -> None:
    bench = Bench()
    big = "é" * SOFT
    lease = bench.start("r", args={"big": big})
    assert json.loads(lease.args) == {"big": big}
    bench.act(lease, 1, "http.post", {"url": "http://x", "body": big}, handle=True)
    bench.act(lease, 2, "flow", {"flow": "x.flow::child", "args": {"big": big}}, handle=True)
    bench.act(lease, 3, "send", {"to": "r/0.2", "message": big})
    bench.node.pump()
    assert bench.host.jobs[0].input["body"] == big
    bench.answer(bench.host.jobs[0], ok(big))
    bench.worker.core.enter(lease, "0", 4, json.dumps({"flow": "x.flow::in", "args": {"big": big}}), "x.flow:4")
    assert bench.worker.core.leave(lease, "0.4", ok(big)) == ok(big)
    bench.node.pump()
    assert max(len(event[2]) for frame in bench.store.frames for event in frame.events) < 2_000

    bench = bench.crash()
    bench.node.execute(None)
    lease, child = bench.lease("r", "0"), bench.lease("r", "0.2")
    assert json.loads(lease.args) == json.loads(child.args) == {"big": big}
    outcomes = {n: record.outcome for n, record in lease.history["0"].records.items()}
    assert outcomes[1] == outcomes[4] and outcomes[1].startswith("@+")
    assert bench.worker.core.load_text(outcomes[1]) == ok(big)
    assert json.loads((bench.act(child, 1, "receive", {}) or "")[1:]) == big
    bench.worker.core.finish(lease, ok(big))
    bench.node.tick()
    assert json.loads(bytes(bench.node.show("r").result or b"")) == big


def test_large_results_of_the_core_itself_are_referred_to_too() -> None:
    bench = Bench()
    lease = bench.start("r")
    value = "v" * 200_000
    assert bench.act(lease, 1, "kv.put", {"key": "k", "value": value}) is not None
    assert bench.act(lease, 2, "kv.get", {"key": "k"}) == ok(value)
    assert [r.outcome[:2] for r in bench.machines.runs.runs["r"].root.records()] == ["+2", "@+"]
    assert bench.replayed() == bench.machines.dump()


BIG = {"big": "x" * HARD}


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("http.post", {"body": BIG["big"]}),
        ("flow", {"flow": "x.flow::child", "args": BIG}),
        ("send", {"to": "r", "message": BIG}),
        ("kv.put", {"key": "k", "value": BIG["big"]}),
    ],
)
def test_over_the_hard_limit_that_action_fails_and_nothing_else(kind: str, params: Any) -> None:
    bench = Bench()
    lease = bench.start("r")
    size = len(json.dumps(params))
    assert refusal(bench.act(lease, 1, kind, params)) == (
        "too_large",
        f"the parameters of {kind} of {size} bytes is over the limit of {HARD} bytes (16 MiB)",
    )
    assert bench.act(lease, 2, "kv.incr", {"key": "n"}) == "+1"
    assert bench.replayed() == bench.machines.dump()


def test_a_result_over_the_hard_limit_becomes_the_error_too_large() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.act(lease, 1, "http.get", {"url": "http://x"}, handle=True)
    bench.node.pump()
    bench.answer(bench.host.jobs[0], ok(BIG))
    assert refusal(lease.history["0"].records[1].outcome)[0] == "too_large"
    bench.worker.core.enter(lease, "0", 2, '{"flow":"x.flow::in","args":{}}', "")
    assert refusal(bench.worker.core.leave(lease, "0.2", ok(BIG)))[0] == "too_large"
    bench.worker.core.finish(lease, ok(BIG))
    assert problem(bench)[0] == "too_large" and "the result of the flow" in problem(bench)[1]


def test_arguments_over_the_hard_limit_fail_the_flow_that_passes_them() -> None:
    bench = Bench()
    lease = bench.start("r")
    with pytest.raises(Revoked):
        bench.worker.core.continue_as_new(lease, "0", json.dumps(BIG))
    assert problem(bench)[0] == "too_large" and "continue_as_new" in problem(bench)[1]
    with pytest.raises(Revoked):
        bench.worker.core.enter(bench.start("s"), "0", 1, json.dumps({"flow": "f", "args": BIG}), "")
    assert problem(bench, "s")[0] == "too_large"


def test_arguments_of_a_start_over_the_hard_limit_are_refused() -> None:
    bench = Bench()
    with pytest.raises(BadArgument, match=f"the arguments are over the limit of {HARD} bytes"):
        bench.start("r", args=BIG)
    with pytest.raises(BadArgument, match="the flow's name and options are over the limit"):
        bench.start("r", flow="x" * 70_000)
    assert not bench.machines.runs.runs


def test_a_bundle_over_its_limit_is_refused() -> None:
    bench = Bench()
    data = b"x" * (limits.BUNDLE_BYTES * 2)
    with pytest.raises(BadArgument, match="is over the limit of 16777216 bytes"):
        bench.node.put_bundle(sha256(data).digest(), data)


# -- counts


def test_output_lines_of_a_run_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OUTPUT_LINES", 3)
    bench = Bench()
    lease = bench.start("r")
    for k in range(1, 4):
        bench.worker.core.output(lease, "0", k, "print", "line")
    with pytest.raises(Revoked):
        bench.worker.core.output(lease, "0", 4, "print", "line")
    assert problem(bench) == ("quota_exceeded", "the run has written its limit of 3 lines")
    assert len(bench.node.logs("r")) == 3


def test_a_line_of_output_is_bounded_and_says_what_was_cut() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.worker.core.output(lease, "0", 1, "print", "é" * SOFT)
    (line,) = bench.node.logs("r")
    assert len(line.text.encode()) < SOFT + 100 and line.text.endswith(f"… ({2 * SOFT} bytes, cut)")


@pytest.mark.parametrize(
    ("kind", "params"),
    [("flow", {"flow": "x.flow::child"}), ("clock.timer", {"ms": 5}), ("http.get", {"url": "http://x"}),
     ("flow", {"flow": "x.flow::child", "options": {"detached": True}})],
)  # fmt: skip
def test_open_actions_of_a_run_are_bounded(kind: str, params: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_actions, "OPEN_ACTIONS", 2)
    bench = Bench()
    lease = bench.start("r")
    for n in (1, 2):
        assert bench.act(lease, n, kind, params, handle=True) is None
    told = refusal(bench.act(lease, 3, kind, params, handle=True))
    assert told == ("quota_exceeded", "the run has 2 open actions already")
    assert len(bench.machines.runs.runs) <= 3


def test_messages_and_signals_that_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_actions, "INBOX_MESSAGES", 2)
    monkeypatch.setattr(limits, "INBOX_MESSAGES", 2)
    bench = Bench()
    bench.start("r")
    sender = bench.start("s")
    for n in (1, 2):
        bench.act(sender, n, "send", {"to": "r", "message": n})
        bench.node.signal("r", "go", str(n))
    told = refusal(bench.act(sender, 3, "send", {"to": "r", "message": 3}))
    assert told == ("quota_exceeded", "send: r has 2 messages that it has not taken")
    with pytest.raises(Overloaded, match="run r has 2 signals that it has not taken"):
        bench.node.signal("r", "go", "3")


def test_continue_as_new_of_an_inline_flow_is_bounded_in_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    from flo.primitives import run_decide

    monkeypatch.setattr(run_decide, "COMMAND_EVENTS", 2)
    bench = Bench()
    lease = bench.start("r")
    bench.worker.core.enter(lease, "0", 1, '{"flow":"x.flow::in","args":{}}', "")
    for n in (1, 2, 3):
        bench.act(lease, n, "flow", {"flow": "x.flow::child"}, task="0.1", handle=True)
    with pytest.raises(Revoked):
        bench.worker.core.continue_as_new(lease, "0.1", "{}")
    bench.node.tick()
    assert problem(bench)[0] == "quota_exceeded"
