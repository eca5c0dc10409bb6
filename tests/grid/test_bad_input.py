"""What comes from outside and is wrong, each with its message; and clocks, owners and disks that misbehave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flo.api.errors import BadArgument, Conflict, FloError, NotFound, Unavailable
from flo.api.grid import StartRequest
from flo.grid.node import Node
from flo.log.errors import DirectoryLocked, NoSpace
from tests.grid.manual import BUNDLE, DIGEST, Bench
from tests.grid.test_output_commit import moves_on, until


def start(node: Node, id: str = "r", **fields: Any) -> None:
    node.start(StartRequest(**{"id": id, "bundle": DIGEST, "flow": "x.flow::main", **fields}))


@pytest.mark.parametrize("id", ["", "a b", "a/b", "é", "x" * 129, "a\n", "../x"])
def test_invalid_run_ids(id: str) -> None:
    bench = Bench()
    with pytest.raises(BadArgument, match=r"is no run id .*1 to 128 letters, digits and the signs"):
        start(bench.node, id)
    assert not bench.machines.runs.runs


def test_a_run_id_that_exists_is_the_same_run_when_flow_and_arguments_agree() -> None:
    bench = Bench()
    start(bench.node, args='{"a":1,"b":[2]}')
    index = bench.node.partition.last_index
    start(bench.node, args='{"b": [2], "a": 1}')
    assert bench.node.partition.last_index == index


def test_a_run_id_that_exists_with_another_flow_or_other_arguments() -> None:
    bench = Bench()
    start(bench.node, args='{"a":1}')
    with pytest.raises(Conflict, match=r"run r exists and executes x\.flow::main, not x\.flow::other .choose another"):
        start(bench.node, flow="x.flow::other")
    with pytest.raises(Conflict, match=r"run r exists with other arguments .choose another id"):
        start(bench.node, args='{"a":2}')
    assert len(bench.machines.runs.runs) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda node: node.show("no"), lambda node: node.history("no"), lambda node: node.logs("no"),
        lambda node: node.signal("no", "go", "1"), lambda node: node.cancel("no"), lambda node: node.execute(["no"]),
        lambda node: node.watch("no", print),
    ],
)  # fmt: skip
def test_an_unknown_run(call: Callable[[Node], object]) -> None:
    with pytest.raises(NotFound, match="no run no"):
        call(Bench().node)


def test_an_unknown_bundle_and_one_that_does_not_match_its_digest() -> None:
    bench = Bench()
    with pytest.raises(NotFound, match="no bundle 000000"):
        start(bench.node, bundle=b"\0" * 32)
    with pytest.raises(BadArgument, match="the bundle does not match its digest"):
        bench.node.put_bundle(DIGEST, BUNDLE + b"!")


@pytest.mark.parametrize(
    "args",
    ['{"a":NaN}', '{"a":Infinity}', "[1]", "1", '{"a":1', "", "{'a':1}", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"],
)
def test_arguments_that_are_no_json_object(args: str) -> None:
    bench = Bench()
    with pytest.raises(BadArgument, match="the arguments or options of the flow cannot be read"):
        start(bench.node, args=args)
    assert not bench.machines.runs.runs


@pytest.mark.parametrize("options", ["", "[]", '{"timeout":"soon"}', '{"retry":{"max_attempts":"x"}}'])
def test_options_that_cannot_be_read(options: str) -> None:
    with pytest.raises(BadArgument, match="cannot be read"):
        start(Bench().node, options=options)


def test_one_bad_request_of_many_is_refused_alone() -> None:
    bench = Bench()
    good = StartRequest(id="r", bundle=DIGEST, flow="x.flow::main")
    bad = StartRequest(id="s", bundle=DIGEST, flow="x.flow::main", args="NaN")
    one, two, three = bench.node.start_many([good, bad, good])
    assert not isinstance(one, FloError) and isinstance(two, BadArgument) and not isinstance(three, FloError)
    given = bench.node.signal_many([("r", "go", "1"), ("r", "", "1"), ("no", "go", "1"), ("r", "go", "NaN")])
    assert [type(refused) for refused in given] == [type(None), BadArgument, NotFound, BadArgument]
    assert bench.machines.runs.runs["r"].signals == [("go", "1")]


@pytest.mark.parametrize(
    ("type", "payload", "message"),
    [
        ("", "1", r"a signal's type has 1 to 128 bytes, got ''"),
        ("é" * 65, "1", "a signal's type has 1 to 128 bytes"),
        ("go", '"' + "é" * 40_000 + '"', "a signal's payload is at most 65536 bytes"),
        ("go", "{", "a signal's payload is JSON"),
        ("go", "NaN", "a signal's payload is JSON"),
    ],
)
def test_signals_out_of_bounds(type: str, payload: str, message: str) -> None:
    bench = Bench()
    bench.start("r")
    with pytest.raises(BadArgument, match=message):
        bench.node.signal("r", type, payload)
    assert bench.machines.runs.runs["r"].signals is None


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("clock.sleep", {"ms": -1}, "clock.sleep: a duration cannot be negative, got -1 ms"),
        ("clock.timer", {"ms": 1 << 60}, "clock.timer: the duration of 1152921504606846976 ms is too long"),
        ("signal", {"type": "go", "timeout": -5}, "signal: a timeout of -5 ms is out of bounds"),
        ("receive", {"timeout": 1 << 60}, "receive: a timeout of 1152921504606846976 ms is out of bounds"),
        ("kv.incr", {"key": 7}, r"kv.incr: Expected `str`, got `int` - at `$.key`"),
        ("kv.put", {"key": "k"}, "kv.put: Object missing required field `value`"),
        ("kv.get", {"key": ""}, "key is required"),
        ("cancel", {"handle": "0.x"}, "cancel: 0.x is no handle of this flow"),
    ],
)
def test_actions_with_wrong_parameters_are_errors_of_the_flow(kind: str, params: Any, message: str) -> None:
    bench = Bench()
    lease = bench.start("r")
    told = bench.act(lease, 1, kind, params)
    assert told is not None and message in told and '"bad_argument"' in told and '"where":"x.flow:1"' in told
    assert bench.act(lease, 2, "kv.incr", {"key": "n"}) == "+1"


# -- the disk


def test_with_a_full_disk_nothing_is_acknowledged_and_it_goes_on_when_there_is_room() -> None:
    from concurrent.futures import ThreadPoolExecutor

    bench = Bench(threads=True)
    for nth in range(1, 30):
        bench.backend.fail(nth, NoSpace("no space left on the disk"))
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(start, bench.node)
        group = bench.node.commit_group
        until(lambda: group.stalled is not None)
        assert group.stalled == "no space left on the disk" and not reply.done()
        bench.backend._faults.clear()
        until(lambda: moves_on(group))
        reply.result(10)
    assert bench.node.show("r").status == "running"
    bench.node.close()


def test_two_owners_of_a_directory(tmp_path: Path) -> None:
    node = Node.open(f"file:{tmp_path}")
    with pytest.raises(DirectoryLocked, match="is in use by another"):
        Node.open(f"file:{tmp_path}")
    node.close()
    Node.open(f"file:{tmp_path}").close()


def test_an_owner_whose_log_was_claimed_answers_nothing_more() -> None:
    bench = Bench()
    lease = bench.start("r")
    other = Bench(bench.store)
    bench.act(lease, 1, "kv.incr", {"key": "n"})
    with pytest.raises(Unavailable, match="outcome unknown: epoch 2 has claimed the log"):
        bench.node.show("r")
    assert not lease.alive and lease.reason == "lost"
    assert other.node.show("r").status == "running" and other.replayed() == other.machines.dump()
    bench.node.close()


# -- the clock


def test_a_wall_clock_that_is_set_back_stops_no_timer() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.act(lease, 1, "clock.sleep", {"ms": 1_000})
    before = bench.node.now()
    bench.clock.set_wall(bench.clock.wall_ms() - 600_000)
    assert bench.node.now() == before
    bench.advance(999)
    assert lease.waiting
    bench.advance(1)
    assert lease.history["0"].records[1].outcome == "+null"
    assert bench.node.now() == before + 1_000


def test_time_never_goes_back_over_a_restart_with_a_clock_that_was_set_back() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.act(lease, 1, "clock.sleep", {"ms": 5_000})
    bench.advance(1_000)
    bench.act(bench.start("s"), 1, "kv.incr", {"key": "n"})
    bench.node.pump()
    last = bench.store.frames[-1].time_ms
    bench.clock.set_wall(bench.clock.wall_ms() - 600_000)
    bench = bench.crash()
    bench.node.execute(None)
    assert bench.node.now() == last
    bench.advance(4_000)
    assert bench.lease("r", "0").history["0"].records[1].outcome == "+null"
    times = [frame.time_ms for frame in bench.store.frames]
    assert times == sorted(times)


def test_time_jumps_when_the_wall_clock_is_set_forward() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.act(lease, 1, "clock.sleep", {"ms": 3_600_000})
    bench.clock.set_wall(bench.clock.wall_ms() + 3_600_000)
    bench.advance(1)
    assert not lease.waiting
