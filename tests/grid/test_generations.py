"""What a generation of a directly called flow leaves unfinished does not reach into the next one."""

from __future__ import annotations

from flo.api.worker import Lease
from tests.grid.manual import Bench


def call(bench: Bench) -> Lease:
    """A run that has called a flow directly, as `0.1`."""
    root = bench.start("r")
    bench.worker.core.enter(root, "0", 1, '{"flow":"x.flow::inner","args":{}}', "x.flow:1")
    return root


def test_a_child_of_an_earlier_generation_does_not_answer_an_action_of_the_next() -> None:
    bench = Bench()
    root = call(bench)
    bench.act(
        root, 1, "flow", {"flow": "x.flow::child", "args": {}, "options": {"exit": True}}, task="0.1", handle=True
    )
    bench.worker.core.continue_as_new(root, "0.1", "{}")
    assert bench.act(root, 1, "signal", {"type": "go"}, task="0.1~2") is None
    bench.worker.core.finish(bench.lease("r", "0.1.1.exit"), "+null")  # the child has ended only now
    assert 1 not in root.history["0.1~2"].records
    bench.node.signal("r", "go", "7")
    assert root.history["0.1~2"].records[1].outcome == "+7"
    bench.node.pump()
    assert bench.replayed() == bench.machines.dump()


def test_a_replay_of_the_next_generation_finds_nothing_of_the_earlier_one() -> None:
    bench = Bench()
    root = call(bench)
    bench.act(root, 1, "flow", {"flow": "x.flow::child", "args": {}}, task="0.1", handle=True)
    bench.act(root, 2, "clock.timer", {"ms": 1000}, task="0.1", handle=True)
    bench.worker.core.continue_as_new(root, "0.1", "{}")
    bench.act(root, 1, "signal", {"type": "go"}, task="0.1~2")
    bench.node.pump()
    bench = bench.crash()
    bench.node.execute(["r"])
    bench.node.signal("r", "go", "7")
    records = bench.lease("r", "0").history["0.1~2"].records
    assert [(n, record.kind, record.outcome) for n, record in records.items()] == [(1, "signal", "+7")]
    assert bench.replayed() == bench.machines.dump()
