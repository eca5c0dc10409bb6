"""Nothing leaves the node before the log that caused it is durable (design.md §5.3, the left column row by row)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from flo.api.errors import Conflict, NotFound, Unavailable
from flo.api.grid import StartRequest, Update
from flo.log.commit import GroupCommit
from flo.log.errors import LogError, LogFenced, NoSpace, OutcomeUnknown, SyncFailed
from tests.grid.manual import DIGEST, Bench


def request(id: str, args: str = "{}") -> StartRequest:
    return StartRequest(id=id, bundle=DIGEST, flow="x.flow::main", args=args)


class Out:
    """What has come out of the node: replies, updates and jobs, in order."""

    def __init__(self) -> None:
        self.came: list[Any] = []
        self.replies: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(4)

    def reply(self, call: Callable[[], Any]) -> None:
        """Makes a call in a thread of its own; what it returns or raises comes out."""

        def answer() -> None:
            try:
                value = call()
            except (NotFound, Conflict, Unavailable) as refused:
                value = refused
            self.came.append(value)

        self.replies.append(self._pool.submit(answer))

    def update(self, update: Update) -> None:
        self.came.append(update)

    def settled(self) -> None:
        _, late = wait(self.replies, timeout=10)
        assert not late
        self._pool.shutdown()


class Row(NamedTuple):
    name: str
    before: Callable[[Bench, Out], Any]  # done and durable before the disk stands still; its result is passed on
    act: Callable[[Bench, Out, Any], None]  # what makes something come out
    right: Callable[[Any], bool]  # whether what came out is what should


def nothing(bench: Bench, out: Out) -> None:
    bench.start("r")


def stir(bench: Bench) -> None:
    """An internal step: the state is ahead of the disk now."""
    lease = bench.lease("r", "0")
    n = 1 + max([0, *lease.history["0"].records])
    lease.history["0"].records[n] = None  # type: ignore[assignment]  # as a worker would count
    bench.act(lease, n, "kv.incr", {"key": "n"})


def reading(call: Callable[[Bench], Any], right: Callable[[Any], bool], name: str) -> Row:
    def act(bench: Bench, out: Out, _: Any) -> None:
        stir(bench)
        out.reply(lambda: call(bench))

    return Row(name, nothing, act, right)


def replying(call: Callable[[Bench], Any], right: Callable[[Any], bool], name: str) -> Row:
    return Row(name, nothing, lambda bench, out, _: out.reply(lambda: call(bench)), right)


def after_the_end(call: Callable[[Bench], Any], right: Callable[[Any], bool], name: str) -> Row:
    """The run ends in memory, and the call tells of it."""

    def act(bench: Bench, out: Out, _: Any) -> None:
        bench.worker.core.finish(bench.lease("r", "0"), "+1")
        out.reply(lambda: call(bench))

    return Row(name, nothing, act, right)


def watching(bench: Bench, out: Out) -> None:
    bench.start("r")
    first: list[Update] = []
    told = Future[None]()

    def on_update(update: Update) -> None:
        if not told.done():
            first.append(update)
            told.set_result(None)
        else:
            out.update(update)

    bench.node.watch("r", on_update)
    told.result(10)


def begin_to_watch(bench: Bench, out: Out, _: Any) -> None:
    stir(bench)
    bench.node.watch("r", out.update)


def watching_the_end(bench: Bench, out: Out) -> None:
    bench.start("r")
    bench.node.watch_end("r", out.update)


def finish(bench: Bench, out: Out, _: Any) -> None:
    bench.worker.core.finish(bench.lease("r", "0"), "+42")


def jobs_come_out(bench: Bench, out: Out) -> None:
    bench.start("r")
    out.came = bench.host.jobs


def take_a_lock_of_another(bench: Bench, out: Out, _: Any) -> None:
    """A failed compare-and-set: its flow tells of a winner that is not durable."""
    core, lease = bench.worker.core, bench.lease("r", "0")
    won = bench.act(lease, 1, "kv.put", {"key": "k", "value": "mine", "cas": 0})
    lost = bench.act(bench.lease("other", "0"), 1, "kv.put", {"key": "k", "value": "yours", "cas": 0})
    assert won is not None and won[0] == "+" and lost is not None and '"conflict"' in lost
    core.finish(bench.lease("other", "0"), lost)


def two_runs(bench: Bench, out: Out) -> None:
    bench.start("r")
    bench.start("other")
    bench.node.watch_end("other", out.update)


def two_readers(bench: Bench, out: Out, _: Any) -> None:
    bench.worker.core.finish(bench.lease("r", "0"), "+1")
    out.reply(lambda: bench.node.show("r").status)
    out.reply(lambda: bench.node.show("r").status)


def snapshot(bench: Bench, out: Out, _: Any) -> None:
    import flo.grid.node as node

    node.SNAPSHOT_EVENTS = 1  # the fixture puts it back
    stir(bench)

    def stop() -> int:
        bench.node.close()
        return len(bench.store.snapshots)

    out.reply(stop)


def archive(bench: Bench, out: Out, _: Any) -> None:
    finish(bench, out, _)
    blobs = len(bench.store.blobs)

    def move_out() -> int:
        bench.node._archivist.archive()
        return len(bench.store.blobs) - blobs

    out.reply(move_out)


def is_a(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def final(update: Update) -> bool:
    return update.view is not None and update.view.status == "completed" and bytes(update.view.result or b"") == b"42"


def refused_result(update: Update) -> bool:
    return update.view is not None and update.view.error is not None and update.view.error.kind == "conflict"


def printed(update: Update) -> bool:
    return [line.text for line in update.lines] == ["hello"]


def waits_for_sleep(update: Update) -> bool:
    return update.view is not None and update.view.waiting[0].on.startswith("sleep until")


ROWS = [
    replying(lambda b: b.node.start(request("new")).id, lambda v: v == "new", "reply of start"),
    replying(lambda b: b.node.signal("r", "go", "1"), lambda v: v is None, "reply of signal"),
    replying(lambda b: b.node.cancel("r"), lambda v: v is None, "reply of cancel"),
    reading(lambda b: b.node.execute(["r"]), lambda v: v == ["r"], "reply of execute"),
    reading(lambda b: b.node.show("r").status, lambda v: v == "running", "show"),
    reading(lambda b: [v.id for v in b.node.list()], lambda v: v == ["r"], "list"),
    reading(lambda b: [e.kind for e in b.node.history("r")], lambda v: v == ["run.started", "kv.incr"], "history"),
    reading(lambda b: b.node.logs("r"), lambda v: v == [], "logs, an empty answer"),
    reading(lambda b: b.node.start(request("r", '{"a":1}')), is_a(Conflict), "refusal: the id is taken"),
    reading(lambda b: b.node.start(request("r")).id, lambda v: v == "r", "start that attaches"),
    after_the_end(lambda b: b.node.signal("r", "go", "1"), is_a(Conflict), "refusal: signal to a run that is over"),
    after_the_end(lambda b: b.node.cancel("r"), is_a(Conflict), "refusal: cancel of a run that is over"),
    reading(lambda b: b.node.show("no"), is_a(NotFound), "refusal: show of an unknown run"),
    reading(lambda b: b.node.cancel("no"), is_a(NotFound), "refusal: cancel of an unknown run"),
    reading(lambda b: b.node.signal("no", "go", "1"), is_a(NotFound), "refusal: signal to an unknown run"),
    reading(lambda b: b.node.execute(["no"]), is_a(NotFound), "refusal: execute of an unknown run"),
    reading(lambda b: b.node.watch("no", print), is_a(NotFound), "refusal: watch of an unknown run"),
    Row("hand-out of a job", jobs_come_out,
        lambda b, o, _: void(b.act(b.lease("r", "0"), 1, "http.get", {"url": "http://x"})),
        lambda job: job.kind == "http.get"),
    Row("hand-out of a resource", jobs_come_out,
        lambda b, o, _: void(b.act(b.lease("r", "0"), 0, "resources.open", [{"name": "t", "kind": "tempdir"}])),
        lambda job: job.kind == "resource.open"),
    Row("print to a watcher", watching,
        lambda b, o, _: b.worker.core.output(b.lease("r", "0"), "0", 1, "print", "hello"), printed),
    Row("live view of a watcher", watching,
        lambda b, o, _: void(b.act(b.lease("r", "0"), 1, "clock.sleep", {"ms": 9_000})), waits_for_sleep),
    Row("first update of a watcher", nothing, begin_to_watch, is_a(Update)),
    Row("final result to a watcher", watching, finish, final),
    Row("final result to who waits for it", watching_the_end, finish, final),
    Row("a failed compare-and-set in a result", two_runs, take_a_lock_of_another, refused_result),
    Row("two readers of one state", nothing, two_readers, lambda v: v == "completed"),
    Row("archive", nothing, archive, lambda v: v == 1),
    Row("snapshot at a planned stop", nothing, snapshot, lambda v: v == 1),
]  # fmt: skip


def void(_: object) -> None:
    """A row's act gives nothing."""


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Row:
    import flo.grid.node as node

    monkeypatch.setattr(node, "SNAPSHOT_EVENTS", node.SNAPSHOT_EVENTS)
    assert isinstance(request.param, Row)
    return request.param


@contextmanager
def prepared(row: Row) -> Iterator[tuple[Bench, Out, Any]]:
    bench, out = Bench(threads=True), Out()
    try:
        given = row.before(bench, out)
        bench.node.commit_group.wait(bench.node.partition.last_index)
        assert not out.came
        yield bench, out, given
    finally:
        bench.backend.release()
        bench.node.close()


def until(reached: Callable[[], bool]) -> None:
    """Waits for another thread."""
    done = Future[None]()
    for _ in range(2_000):
        if reached():
            return
        wait([done], timeout=0.005)
    raise AssertionError("it was not reached")


def moves_on(group: GroupCommit) -> bool:
    group.retry()
    return group.stalled is None


def waiting_in_the_log(bench: Bench, out: Out) -> bool:
    """Whether every caller stands at the log, so that nothing more comes before it moves."""
    group = bench.node.commit_group
    return group._closing or group._waiting >= sum(not reply.done() for reply in out.replies)


def test_nothing_comes_out_while_the_disk_does_not_sync(row: Row) -> None:
    with prepared(row) as (bench, out, given):
        bench.backend.hold()
        row.act(bench, out, given)
        assert bench.backend.wait_held()
        until(lambda: waiting_in_the_log(bench, out))
        assert not out.came
        bench.backend.release()
        out.settled()
        until(lambda: len(out.came) > 0)
        assert row.right(out.came[0]), out.came


def is_loss(value: Any) -> bool:
    if isinstance(value, Update):
        return value.view is None and not value.lines
    return isinstance(value, Unavailable) and "outcome unknown" in str(value)


@pytest.mark.parametrize("error", [LogFenced("another owner"), SyncFailed("the disk lies"), LogError("no")], ids=repr)
def test_nothing_ever_comes_out_when_the_append_fails(row: Row, error: LogError) -> None:
    with prepared(row) as (bench, out, given):
        bench.backend.hold()
        bench.backend.fail(1, error)
        row.act(bench, out, given)
        assert bench.backend.wait_held()
        until(lambda: waiting_in_the_log(bench, out))
        bench.backend.release()
        until(lambda: bench.node.lost is not None)
        wait(out.replies, timeout=10)
        if row.name in ("archive", "snapshot at a planned stop"):
            assert not bench.store.snapshots and len(bench.store.blobs) == 1
        else:
            assert all(map(is_loss, out.came)), out.came


@pytest.mark.parametrize("landed", [True, False])
def test_an_unknown_append_is_settled_before_anything_comes_out(row: Row, landed: bool) -> None:
    with prepared(row) as (bench, out, given):
        bench.backend.hold()
        bench.backend.fail(1, OutcomeUnknown("time-out"), landed=landed)
        row.act(bench, out, given)
        assert bench.backend.wait_held()
        until(lambda: waiting_in_the_log(bench, out))
        assert not out.came
        bench.backend.release()
        out.settled()
        until(lambda: len(out.came) > 0)
        assert row.right(out.came[0]), out.came
        assert bench.node.lost is None


def test_nothing_comes_out_until_there_is_room(row: Row) -> None:
    with prepared(row) as (bench, out, given):
        if row.name == "snapshot at a planned stop":
            return  # a stop does not wait for room: tests/log shows what it says
        bench.backend.fail(1, NoSpace("full"))
        bench.backend.fail(2, NoSpace("full"))
        row.act(bench, out, given)
        group = bench.node.commit_group
        until(lambda: group.stalled is not None)
        assert not out.came
        until(lambda: moves_on(group))
        out.settled()
        until(lambda: len(out.came) > 0)
        assert row.right(out.came[0]), out.came


def test_what_is_told_is_in_the_log_alone(row: Row) -> None:
    """The other side: a restart from what the disk holds knows all that came out."""
    with prepared(row) as (bench, out, given):
        row.act(bench, out, given)
        out.settled()
        until(lambda: len(out.came) > 0)
        live = json.dumps({name: section.hex() for name, section in bench.machines.dump().items()})
        if not isinstance(out.came[0], Unavailable):
            bench.node.commit_group.wait(bench.node.partition.last_index)
            again = Bench(bench.store)
            assert json.dumps({name: section.hex() for name, section in again.machines.dump().items()}) == live
