"""Archives and snapshots: histories leave memory, and every answer stays the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flo.api.clock import FakeClock
from flo.api.grid import StartRequest, Update
from flo.api.outcome import error, ok
from flo.grid import archive as archive_module
from flo.grid import node as node_module
from flo.grid.node import Node
from flo.log.errors import NoSpace
from flo.primitives.machines import Machines
from flo.primitives.payload import digest_of
from tests.grid.manual import BUNDLE, DIGEST, Bench, ManualHost, ManualWorker
from tests.grid.test_output_commit import until

BIG = "x" * 100_000


def live(bench: Bench, id: str = "r") -> None:
    """A run with children, output and large results, to its end."""
    lease = bench.start(id, args={"a": 1})
    core = bench.worker.core
    core.output(lease, "0", 1, "print", "one")
    bench.act(lease, 1, "kv.incr", {"key": "n"})
    core.enter(lease, "0", 2, '{"flow":"x.flow::in","args":{}}', "x.flow:2")
    bench.act(lease, 1, "kv.put", {"key": "k", "value": BIG}, task="0.2")
    bench.act(lease, 2, "kv.get", {"key": "k"}, task="0.2")
    core.leave(lease, "0.2", ok(BIG))
    bench.act(lease, 3, "flow", {"flow": "x.flow::child"})
    core.finish(bench.lease(id, "0.3"), error("failed", "no"))
    core.output(lease, "0", 2, "log", '{"msg":"two"}')
    core.finish(lease, ok({"big": BIG}))
    bench.node.pump()


def answers(node: Node, id: str = "r") -> list[Any]:
    updates: list[Update] = []
    node.watch(id, updates.append)
    return [node.show(id), node.list(), node.history(id), node.logs(id), updates]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "ARCHIVE_RUNS", 1)
    monkeypatch.setattr(node_module, "SNAPSHOT_EVENTS", 1)


def test_answers_are_the_same_after_archiving_and_after_a_restart() -> None:
    bench = Bench()
    live(bench)
    before = answers(bench.node)
    bench.node._archivist.archive()
    run = bench.machines.runs.runs["r"]
    assert not run.root.packed and not run.output and run.attic is None and not bench.machines.runs.attics
    assert bench.machines.runs.attics_bytes == 0
    assert answers(bench.node) == before
    assert bench.replayed() == bench.machines.dump()

    bench.node.pump()
    bench = bench.crash()
    assert answers(bench.node) == before


@pytest.mark.usefixtures("small")
def test_answers_are_the_same_after_a_start_from_a_snapshot() -> None:
    bench = Bench()
    live(bench)
    bench.node._archivist.archive()
    live(bench, "kept")
    before = [answers(bench.node, id) for id in ("r", "kept")]
    bench.node.close()
    assert len(bench.store.snapshots) == 1
    bench.store.frames.clear()
    bench.store.first_indexes.clear()
    bench = Bench(bench.store)
    assert [answers(bench.node, id) for id in ("r", "kept")] == before


def test_what_a_running_run_has_collapsed_is_archived_before_its_end() -> None:
    bench = Bench()
    lease = bench.start("r")
    for n in range(1, 4):
        bench.worker.core.enter(lease, "0", n, '{"flow":"x.flow::in","args":{}}', "")
        bench.act(lease, 1, "kv.incr", {"key": "n"}, task=f"0.{n}")
        bench.worker.core.leave(lease, f"0.{n}", "+1")
    bench.node._archivist.archive()
    assert bench.machines.runs.runs["r"].attic is None and len(bench.machines.runs.runs["r"].archives or ()) == 1
    bench.worker.core.finish(lease, "+1")
    before = answers(bench.node)
    bench.node._archivist.archive()
    assert answers(bench.node) == before
    assert bench.replayed() == bench.machines.dump()


def test_the_histories_of_many_runs_or_many_bytes_are_archived(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    live(bench)
    assert not bench.node._archivist.wanted
    monkeypatch.setattr(bench.node._archivist, "_bound_bytes", 10)
    assert [archivist.wanted for archivist in [bench.node._archivist]] == [True]
    bench.node._archivist.step()
    assert len(bench.machines.runs.attics) == 0


def test_an_archive_that_has_no_room_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    live(bench)
    right = bench.backend.put_blob

    def full(data: bytes, *, tenant: str = "default") -> bytes:
        raise NoSpace("full")

    monkeypatch.setattr(bench.backend, "put_blob", full)
    bench.node._archivist.step()
    assert bench.machines.runs.attics and not bench.node._archivist.wanted
    monkeypatch.setattr(bench.backend, "put_blob", right)
    bench.node._archivist.step()
    assert not bench.machines.runs.attics


@pytest.mark.usefixtures("small")
def test_a_node_archives_by_itself() -> None:
    bench = Bench(threads=True)
    for n in range(4):
        lease = bench.start(f"s{n}")
        bench.act(lease, 1, "kv.incr", {"key": "n"})
        bench.worker.core.finish(lease, "+1")
    until(lambda: len(bench.machines.runs.attics) <= 1)
    bench.node.close()


# -- the sweep of blobs


def sweep(bench: Bench) -> set[bytes]:
    """The digests of what is left."""
    bench.node._sweep()
    return {digest for _, digest in bench.store.blobs}


def test_the_sweep_removes_what_nothing_names_any_more() -> None:
    bench = Bench()
    orphan = bench.backend.put_blob(b"an upload that was never used")
    bench.backend.unpin(orphan)
    lease = bench.start("r", args={"big": BIG})
    named = bench.machines.named_blobs()
    assert len(named) == 2 and sweep(bench) == named
    bench.worker.core.finish(lease, "+1")
    assert sweep(bench) == named  # `history` shows arguments


def test_archived_histories_keep_what_they_name() -> None:
    bench = Bench()
    live(bench)
    before = answers(bench.node)
    bench.node._archivist.archive()
    sweep(bench)
    assert answers(bench.node) == before
    bench.node.close()
    bench = Bench(bench.store)
    sweep(bench)
    assert answers(bench.node) == before


def test_messages_and_open_requests_keep_what_they_name() -> None:
    bench = Bench()
    lease = bench.start("r")
    bench.act(lease, 1, "send", {"to": "r", "message": BIG})
    bench.act(lease, 2, "http.post", {"url": "http://x", "body": BIG}, handle=True)
    sweep(bench)
    bench.node.pump()
    assert bench.host.jobs[0].input["body"] == BIG
    assert bench.act(lease, 3, "receive", {}) == ok(BIG)


def test_a_run_that_is_started_while_the_sweep_runs_keeps_its_bundle_and_arguments() -> None:
    """Its blobs are there already, unnamed, when the sweep looks up what it spares."""
    bench = Bench()
    other = Bench(bench.store).node  # an earlier process brought the bundle
    del other
    bench = Bench(bench.store)
    args = json.dumps({"big": BIG})
    for data in (BUNDLE, args.encode()):
        bench.backend.unpin(bench.backend.put_blob(data))
    bench.backend._pins.clear()
    bench.node._bundles.clear()
    right = bench.backend.sweep

    def late(live: frozenset[bytes], *, tenant: str = "default") -> int:
        assert DIGEST not in live
        bench.start("r", args={"big": BIG})
        return right(live, tenant=tenant)

    bench.backend.sweep = late  # type: ignore[method-assign]
    left = sweep(bench)
    assert DIGEST in left and digest_of(bench.machines.runs.runs["r"].root.args) in left
    assert not bench.backend._pins.get(("default", digest_of(bench.machines.runs.runs["r"].root.args)))


def test_a_bundle_that_a_client_was_told_of_stays_until_the_node_ends() -> None:
    bench = Bench()
    bench.node.put_bundle(DIGEST, BUNDLE)
    bench = Bench(bench.store)
    bench.backend._pins.clear()
    bench.node._bundles.clear()
    assert bench.node.has_bundle(DIGEST) and sweep(bench) == {DIGEST}
    assert not bench.node.has_bundle(b"\0" * 32)


# -- on a real directory


def node_on(directory: Path, **options: Any) -> tuple[Node, list[ManualWorker]]:
    workers: list[ManualWorker] = []

    def worker(core: Any) -> ManualWorker:
        workers.append(ManualWorker(core))
        return workers[-1]

    node = Node.open(f"file:{directory}", worker_factory=worker, host_factory=ManualHost, clock=FakeClock(), **options)
    node.put_bundle(DIGEST, BUNDLE)
    return node, workers


def live_many(node: Node, workers: list[ManualWorker], first: int, runs: int, steps: int) -> None:
    requests = [
        StartRequest(id=f"r{n}", bundle=DIGEST, flow="x.flow::main", args='{"n":1}') for n in range(first, first + runs)
    ]
    for some in range(0, runs, 50):
        node.start_many(requests[some : some + 50])
        leases = list(workers[0].leases.values())
        workers[0].leases.clear()
        for lease in leases:
            for n in range(1, steps + 1):
                node.strands.act(lease, "0", n, "kv.incr", '{"key":"n"}', "x.flow:3")
            node.strands.output(lease, "0", 1, "print", "done")
            node.strands.finish(lease, '+{"a":1}')


def test_another_process_makes_snapshots_and_the_log_before_them_goes(tmp_path: Path) -> None:
    warnings: list[str] = []
    node, workers = node_on(tmp_path, snapshot_bytes_min=200_000, on_warning=warnings.append)
    snapshotter = node._snapshotter
    assert snapshotter is not None
    for first in range(0, 1_000, 200):
        live_many(node, workers, first, 200, 90)
        until(lambda: not snapshotter._wake.is_set() and not snapshotter.busy)
    assert snapshotter.newest > 0 and not warnings
    before = [node.list(), node.history("r7"), node.logs("r999")]
    node.close()

    node, _ = node_on(tmp_path)
    assert [node.list(), node.history("r7"), node.logs("r999")] == before
    node.close()


def test_a_start_does_not_grow_with_finished_history(tmp_path: Path) -> None:
    """A million finished actions open in well under a second; this is a tenth of them, and nothing is replayed."""
    node, workers = node_on(tmp_path)
    live_many(node, workers, 0, 1_000, 100)
    node.close()
    replayed: list[int] = []
    right = Machines.decode

    def decode(self: Machines, kind: int, version: int, payload: bytes) -> Any:
        replayed.append(kind)
        return right(self, kind, version, payload)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machines, "decode", decode)
        node, _ = node_on(tmp_path)
    assert not replayed and len(node.list()) == 1_000
    node.close()
