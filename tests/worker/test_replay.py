"""A replay asks nothing; what does not fit the log pauses the run."""

from __future__ import annotations

import pytest

from flo.api.outcome import ok
from flo.api.worker import Record, TaskHistory
from tests.worker.engine import CHILDREN, HTTP, Engine, body, bundle


def test_replay_with_history_equals_live_and_asks_nothing(engine: Engine) -> None:
    engine.core.answer("clock.now", "+1.5")
    engine.core.answer("http.get", ok(HTTP))
    engine.core.answer("kv.incr", *[f"+{n}" for n in range(1, 30)])
    source = bundle(CHILDREN + """
def _main(fctx):
    a = fctx.actions
    print("begins")
    out = [a.now(), a.http.get("http://x/", body = "b" * 3000).value.json, child(x = [1])]
    for i in range(20):
        out.append(a.kv.incr("k"))
        print(i)
    return out
main = flow(implementation = _main)
""")  # fmt: skip
    lease = engine.begin(source)
    live, asked, printed = engine.core.finished.pop("run-1"), len(engine.core.acts), len(engine.core.outputs)
    engine.again(lease)

    assert engine.core.finished == {"run-1": live} and not engine.core.paused
    assert (len(engine.core.acts), len(engine.core.outputs)) == (asked, printed)


def test_every_wait_is_left_and_replayed(engine: Engine) -> None:
    engine.core.answer("receive", None)
    lease = engine.begin(body("return [fctx.actions.receive().value for i in range(3)]"))
    for n in (1, 2, 3):
        assert engine.core.released == ["run-1"] * n
        engine.core.complete(lease, f"0.{n}", f"+{n}")
        lease = engine.again(lease)

    assert engine.core.finished == {"run-1": "+[1,2,3]"} and len(engine.core.acts) == 3


@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        (Record(1, "kv.put", '{"key":"k"}', "+1", 0, 0, "old.flow:7"), ["kv.put", "old.flow:7", "kv.incr"]),
        (Record(1, "kv.incr", '{"key":"other","by":1}', "+1", 0, 0, ""), ['"other"', '"k"']),
    ],
)
def test_another_action_than_recorded_pauses_the_run(engine: Engine, recorded: Record, says: list[str]) -> None:
    history = TaskHistory()
    history.records[1] = recorded
    lease = engine.begin(body("return fctx.actions.kv.incr('k')"), history={"0": history})

    message = engine.core.paused["run-1"]
    assert message.startswith("NonDeterministic: 0.1: ") and "flo runs history run-1" in message
    assert all(text in message for text in [*says, "main.flow:3"])
    assert not engine.core.finished and not engine.core.acts and not lease.alive and not engine.core.released


def test_recorded_actions_that_are_never_reached_pause_the_run(engine: Engine) -> None:
    history = TaskHistory()
    history.records[1] = Record(1, "kv.incr", '{"key":"k","by":1}', "+1", 0, 0, "main.flow:9")
    engine.begin(body("return 1"), history={"0": history})

    assert "0.1" in engine.core.paused["run-1"] and "ended before" in engine.core.paused["run-1"]


def test_records_that_are_references_are_loaded(engine: Engine) -> None:
    engine.core.texts["@+abc"] = ok("large")
    history = TaskHistory()
    history.records[1] = Record(1, "receive", '{"timeout":null}', "@+abc", 0, 0, "")

    assert engine.run(body("return fctx.actions.receive().value"), history={"0": history}) == "large"


def test_revoked_lease_is_released_and_acts_no_more(engine: Engine) -> None:
    def revoke(params: str) -> str:
        lease.alive = False
        return "+1"

    engine.core.answer("kv.incr", revoke)
    source = body("fctx.actions.kv.incr('a')\nfctx.actions.kv.incr('b')")
    lease = engine.core.lease(source, "main.flow::main")
    engine.worker.start([lease])
    engine.worker.drain()

    assert engine.core.released == ["run-1"] and not engine.core.finished and len(engine.core.acts) == 1


def test_fault_of_the_core_is_no_failure_of_the_flow(engine: Engine) -> None:
    def broken(params: str) -> str:
        raise LookupError("core is broken")

    engine.core.answer("kv.incr", broken)
    with pytest.raises(LookupError, match="core is broken"):
        engine.begin(body("fctx.actions.kv.incr('a')"))
    assert not engine.core.finished
