"""Flows on keys, queues and streams by the real prelude on the real core, thrown away and replayed at every wait."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flo.client.testing import TestGrid, TestRun
from flo.primitives.stream_pages import NewRecord
from tests.worker.engine import HEADER

NS = "default"

Flow = Callable[[str], TestRun]


@pytest.fixture
def grid() -> Iterator[TestGrid]:
    with TestGrid() as grid:
        yield grid


@pytest.fixture
def flow(grid: TestGrid, tmp_path: Path) -> Flow:
    """Starts a flow with this body."""

    def start(text: str) -> TestRun:
        script = tmp_path / f"flow{len(list(tmp_path.iterdir()))}.flow"
        lines = textwrap.indent(textwrap.dedent(text).strip("\n"), "    ")
        script.write_text(
            f"{HEADER}def _main(fctx):\n    kv, queue, stream = "
            f"fctx.actions.kv, fctx.actions.queue, fctx.actions.stream\n{lines}\n"
            "main = flow(implementation = _main)\n"
        )
        return grid.run(f"{script}::main", id=script.stem)

    return start


def client(grid: TestGrid, work: Callable[[Any], Any]) -> Any:
    """What a client does in one batch."""
    grid.settle()
    store = grid.node.store
    with store.lock:
        store.begin()
        try:
            done = work(store)
        finally:
            store.end()
    store.after()
    return done


def test_kv_actions_in_a_flow(flow: Flow) -> None:
    got = flow("""
        first = unwrap(kv.put("a", "1"))
        second = unwrap(kv.put("b", "2", ttl = "1h"))
        both = unwrap(kv.mget(["a", "none"]))
        unwrap(kv.json_set("o", "$", {"n": [1, {"big": 1 << 70}]}))
        unwrap(kv.json_set("o", "$.n[0]", "x", cas = unwrap(kv.history("o"))[0].version))
        unwrap(kv.json_del("o", "$.n[1]"))
        done = unwrap(kv.transaction([
            {"op": "incr", "key": "n", "by": 2}, {"op": "put", "key": "a", "value": "3", "ttl": "5m"},
            {"op": "delete", "key": "b", "if_match": second},
        ]))
        refused = kv.transaction([{"op": "put", "key": "a", "value": "4", "cas": first}])
        unwrap(kv.touch("a", "1h"))
        unwrap(kv.persist("a"))
        return [
            [(e.key, e.value, e.found, e.value_b64) for e in both], kv.exists("a"), kv.exists("b"),
            unwrap(kv.json_get("o")), kv.json_get("o", "$.none").value, done.op_count, done.commit_index > second,
            refused.error.kind, [v.value for v in unwrap(kv.history("a", limit = 2))], kv.get("n"),
            kv.history("none").error.kind, [(e.key, e.value_b64) for e in kv.scan("a")],
        ]
    """).result()

    assert got == [
        [["a", "1", True, None], ["none", None, False, None]], True, False,
        {"n": ["x"]}, None, 3, True, "conflict", ["3", "1"], "2", "not_found", [["a", None]],
    ]  # fmt: skip


def test_queue_actions_in_a_flow(flow: Flow) -> None:
    got = flow("""
        seqs = [unwrap(queue.enqueue("q", p, priority = n)) for n, p in enumerate(["a", "b", "c"])]
        same = [unwrap(queue.enqueue("d", "p", dedup_key = "k")) for _ in range(2)]
        taken = unwrap(queue.dequeue("q", count = 2, visibility_timeout_ms = 60000))
        m = taken[0]
        acked = unwrap(queue.ack("q", [m.seq, 99]))
        unwrap(queue.nack("q", [taken[1].seq], to_dlq = True))
        dead = unwrap(queue.dlq_list("q"))[0]
        return [
            seqs, same, m.payload, m.payload_b64, m.delivery_count, m.priority, acked.count, acked.missing,
            [dead.payload, dead.reason], unwrap(queue.dlq_requeue("q", [dead.seq])).count,
            [x.payload for x in unwrap(queue.peek("q", count = 5))], queue.ack("q", [m.seq]).error.kind,
        ]
    """).result()

    assert got == [
        [1, 2, 3], [1, 1], "a", None, 1, 0, 1, [99], ["b", "explicit"], 1, ["b", "c"], "not_found",
    ]  # fmt: skip


def test_stream_actions_in_a_flow(flow: Flow) -> None:
    got = flow("""
        ids = [unwrap(stream.append("s", p, headers = {"n": p})) for p in ["a", "b", "c"]]
        page = unwrap(stream.read("s", count = 2))
        rest = unwrap(stream.read("s", after = page.next))
        unwrap(stream.group_join("s", "g", "me"))
        held = unwrap(stream.group_read("s", "g", "me", count = 2))
        acked = unwrap(stream.group_ack("s", "g", [held[0].id], consumer = "me"))
        given = unwrap(stream.group_nack("s", "g", [held[1].id]))
        again = unwrap(stream.group_read("s", "g", "me"))
        unwrap(stream.group_leave("s", "g", "me"))
        info = unwrap(stream.info("s"))
        return [
            [(r.payload, r.headers["n"], r.payload_b64) for r in page.records], page.has_more,
            [r.id == ids[2] for r in rest.records], rest.has_more, acked, given,
            [(r.payload, r.delivery_count) for r in again], unwrap(stream.trim("s", max_len = 1)),
            [info.count, info.first == ids[0], info.last == ids[2], info.partitions],
        ]
    """).result()

    assert got == [
        [["a", "a", None], ["b", "b", None]], True, [True], False, 1, 1, [["b", 2], ["c", 1]], 2, [3, True, True, 1],
    ]  # fmt: skip


def test_a_flow_waits_for_what_clients_bring_and_replays_to_the_same(grid: TestGrid, flow: Flow) -> None:
    run = flow("""
        found = unwrap(kv.wait("ready"))
        message = unwrap(queue.dequeue("q", timeout = None))[0]
        page = unwrap(stream.read("s", tail = True, timeout = None))
        held = unwrap(stream.group_read("s", "g", "me", timeout = "1h"))
        return [found.value, message.payload_b64, [r.payload for r in page.records], [r.payload for r in held]]
    """)
    client(grid, lambda s: s.stream_append(NS, "s", [NewRecord(b"old")]))
    client(grid, lambda s: s.put(NS, b"ready", b"yes"))
    client(grid, lambda s: s.enqueue(NS, "q", b"\xff"))
    client(grid, lambda s: s.stream_append(NS, "s", [NewRecord(b"new")]))

    assert run.result() == ["yes", "/w==", ["new"], ["old", "new"]]


def test_waits_that_come_to_nothing_end_in_virtual_time(grid: TestGrid, flow: Flow) -> None:
    began = grid.clock.monotonic_ms()
    got = flow("""
        page = unwrap(stream.read("s", timeout = "1h"))
        return [kv.wait("none", timeout = "1h").value, unwrap(queue.dequeue("q", timeout = "1h")),
                page.records, page.next, unwrap(stream.group_read("s", "g", "me", timeout = "1h"))]
    """).result()

    assert got == [None, [], [], "0-0", []] and grid.clock.monotonic_ms() - began == 4 * 3_600_000


def test_waits_mix_with_other_handles(grid: TestGrid, flow: Flow) -> None:
    run = flow("""
        a = fctx.actions
        handles = [a.begin(queue.dequeue, "q", timeout = None), a.begin(kv.wait, "k"), a.timer("1h"),
                   a.begin(stream.read, "s", tail = True, timeout = None),
                   a.begin(stream.group_read, "s", "g", "me", timeout = None)]
        first = a.wait_any(handles)
        for handle in handles:
            a.cancel(handle)
        return [first.index, first.result.value.version > 0, [None if r.ok else r.error.kind for r in a.wait(handles)]]
    """)
    client(grid, lambda s: s.put(NS, b"k", b"v"))

    assert run.result() == [1, True, ["cancelled", None, "cancelled", "cancelled", "cancelled"]]


def test_one_flow_waits_for_what_another_brings(flow: Flow) -> None:
    consumer = flow("""
        taken = []
        for _ in range(3):
            message = unwrap(queue.dequeue("work", timeout = None))[0]
            unwrap(queue.ack("work", [message.seq]))
            taken.append(message.payload)
        return taken
    """)
    producer = flow("""
        for n in range(3):
            unwrap(queue.enqueue("work", str(n)))
            fctx.actions.sleep("1s")
    """)

    assert producer.result() is None
    assert consumer.result() == ["0", "1", "2"]


def test_a_lease_that_a_flow_lets_run_out_ends_in_virtual_time(flow: Flow) -> None:
    got = flow("""
        unwrap(queue.enqueue("q", "p"))
        unwrap(queue.dequeue("q", visibility_timeout_ms = 1000))
        early = unwrap(queue.dequeue("q"))
        fctx.actions.sleep("1s")
        return [early, unwrap(queue.dequeue("q"))[0].delivery_count]
    """).result()

    assert got == [[], 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("queue.enqueue('q', 5)", "queue.enqueue: payload: text is wanted, not int"),
        ("stream.append('s', None)", "stream.append: payload: text is wanted, not NoneType"),
        ("queue.dequeue('')", "queue.dequeue: queue: a text that is not empty is wanted"),
        ("stream.read('')", "stream.read: stream: a text that is not empty is wanted"),
        ("kv.transaction(['put'])", "kv.transaction: a list of dicts"),
        ("kv.wait('k', timeout = 'soon')", "kv.wait: timeout"),
        ("fctx.actions.begin(queue.ack, 'q', [1])", "begin: an action that waits is wanted"),
    ],
)
def test_what_is_no_argument_fails_the_flow(flow: Flow, call: str, message: str) -> None:
    failed = flow(f"return {call}").wait()

    assert failed.error is not None and failed.error.kind == "bad_argument" and message in failed.error.message


def test_a_deep_document_and_large_integers_cross_as_they_are(grid: TestGrid, flow: Flow) -> None:
    deep = b'{"a":' * 60 + b"[12345678901234567890123]" + b"}" * 60
    client(grid, lambda s: s.jset(NS, b"deep", "$", deep))

    assert flow('return json.encode(unwrap(kv.json_get("deep")))').result() == deep.decode()


def test_what_is_mocked_goes_outside_and_queues_are_real(grid: TestGrid, flow: Flow) -> None:
    grid.mock("http.post", returns={"status": 503}, times=1)
    grid.mock("http.post", returns={"status": 201})
    run = flow("""
        unwrap(queue.enqueue("mails", "hello"))
        for _ in range(2):
            message = unwrap(queue.dequeue("mails", timeout = "1h"))[0]
            if unwrap(fctx.actions.http.post("https://mail.example/", body = message.payload)).status == 201:
                return unwrap(queue.ack("mails", [message.seq])).count
            unwrap(queue.nack("mails", [message.seq], delay_ms = 60000))
    """)

    assert run.result() == 1
    assert [call.kind for call in grid.calls()] == ["http.post"] * 2
