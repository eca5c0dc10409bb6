"""What flows do with keys, queues and streams: each action's result and refusals, and that it happens exactly once."""

from __future__ import annotations

from typing import Any

import pytest

from flo.api.limits import PAYLOAD_HARD_BYTES, PAYLOAD_SOFT_BYTES
from flo.api.outcome import error_kind
from flo.log.errors import LogDamaged
from flo.primitives.machines import Machines
from flo.primitives.run_events import Did
from flo.primitives.stream_pages import NewRecord
from tests.grid.manual import Bench
from tests.grid.storage import NS, ActingRun, Failed, batch, value_of

VALUE_BYTES = 262_144  # of one message, record or value


@pytest.fixture
def run() -> ActingRun:
    return ActingRun(Bench())


def machines(run: ActingRun) -> Machines:
    return run.bench.machines


# -- keys


def test_kv_actions_give_values_versions_and_conflicts_as_clients_get_them(run: ActingRun):
    first = run.do("kv.put", key="k", value="1")

    assert run.do("kv.get", key="k") == "1" and run.do("kv.get", key="none") is None
    assert run.do("kv.exists", key="k") is True and run.do("kv.exists", key="none") is False
    second = run.do("kv.put", key="k", value="2", cas=first)
    assert second > first and batch(run.bench, lambda s: s.get(NS, b"k")).version == second
    with pytest.raises(Failed, match=rf"conflict.*kv.put 'k': Version mismatch: current version {second}"):
        run.do("kv.put", key="k", value="3", cas=first)
    assert run.do("kv.incr", key="n", by=5) == 5 and run.do("kv.incr", key="n", by=-7) == -2
    assert run.do("kv.mget", keys=["k", "none", "k"]) == [
        {"key": "k", "value": "2", "version": second, "found": True},
        {"key": "none", "value": None, "version": 0, "found": False},
        {"key": "k", "value": "2", "version": second, "found": True},
    ]
    gone = run.do("kv.delete", key="k", if_match=second)
    history = run.do("kv.history", key="k")
    assert [(v["version"], v["value"], v["tombstone"]) for v in history] == [
        (gone, None, True), (second, "2", False), (first, "1", False)
    ]  # fmt: skip


def test_expiry_is_set_moved_and_taken_away(run: ActingRun):
    run.do("kv.put", key="k", value="v", ttl=1_000)
    run.do("kv.touch", key="k", ttl=2_000)
    run.bench.advance(1_500)
    assert run.do("kv.get", key="k") == "v"
    run.do("kv.persist", key="k")
    run.bench.advance(1_500)
    assert run.do("kv.get", key="k") == "v"
    run.do("kv.put", key="k", value="w", ttl=10)
    run.do("kv.put", key="k", value="x", keep_ttl=True)
    run.bench.advance(10)

    assert run.do("kv.get", key="k") is None
    with pytest.raises(Failed, match=r"not_found.*kv.touch 'k'"):
        run.do("kv.touch", key="k", ttl=5)


def test_json_actions_read_and_change_parts_of_a_document(run: ActingRun):
    run.do("kv.json_set", key="o", path="$", value={"status": "new", "big": 2**70, "list": [1, 2]})
    version = run.do("kv.json_set", key="o", path="$.status", value="sent")

    assert run.do("kv.json_get", key="o") == {"status": "sent", "big": 2**70, "list": [1, 2]}
    assert run.do("kv.json_get", key="o", path="$.list[1]") == 2
    assert run.do("kv.json_get", key="o", path="$.none") is None
    with pytest.raises(Failed, match="conflict"):
        run.do("kv.json_del", key="o", path="$.list", cas=version - 1)
    run.do("kv.json_del", key="o", path="$.list[0]", cas=version)
    assert run.do("kv.json_get", key="o", path="$.list") == [2]


def test_a_transaction_writes_all_or_nothing(run: ActingRun):
    run.do("kv.put", key="a", value="1")
    writes = [
        {"op": "put", "key": "a", "value": "2"}, {"op": "incr", "key": "n", "by": 3},
        {"op": "put", "key": "t", "value": "x", "ttl": 1_000}, {"op": "touch", "key": "t", "ttl": 2_000},
        {"op": "put", "key": "gone", "value": "y"}, {"op": "delete", "key": "gone"},
    ]  # fmt: skip
    done = run.do("kv.transaction", writes=writes)

    assert done["op_count"] == 6
    keys = [b"a", b"n", b"t"]
    assert {batch(run.bench, lambda s, k=k: s.get(NS, k)).version for k in keys} == {done["commit_index"]}
    with pytest.raises(Failed, match=r"conflict.*refused at operation 2: Version mismatch"):
        run.do("kv.transaction", writes=[{"op": "incr", "key": "n"}, {"op": "put", "key": "a", "value": "3", "cas": 1}])
    assert run.do("kv.get", key="n") == "3"
    with pytest.raises(Failed, match=r"bad_argument.*'rename' is none of put, incr, delete, touch"):
        run.do("kv.transaction", writes=[{"op": "rename", "key": "a"}])


@pytest.mark.parametrize(
    "writes",
    [
        [{"op": "incr", "key": "n"}] * 257,
        [{"op": "put", "key": str(k), "value": "x" * VALUE_BYTES} for k in range(4)],
    ],
)
def test_a_transaction_has_the_bounds_that_clients_have(run: ActingRun, writes: list[dict[str, Any]]):
    with pytest.raises(Failed, match=r"too_large.*max 256 writes, 1048576 bytes"):
        run.do("kv.transaction", writes=writes)
    assert run.do("kv.scan", prefix="")["entries"] == []
    run.do("kv.transaction", writes=[{"op": "incr", "key": "n"}] * 256)


def test_history_of_a_key_that_never_was_is_not_found(run: ActingRun):
    with pytest.raises(Failed, match=r"not_found.*kv.history 'none': key not found"):
        run.do("kv.history", key="none")


# -- queues


def test_a_message_is_leased_settled_and_moved_as_for_every_client(run: ActingRun):
    assert run.do("queue.enqueue", queue="q", payload="later", priority=9) == 1
    assert run.do("queue.enqueue", queue="q", payload="sooner", dedup_key="d") == 2
    assert run.do("queue.enqueue", queue="q", payload="again", dedup_key="d") == 2
    assert [m["payload"] for m in run.do("queue.peek", queue="q", count=5)] == ["sooner", "later"]

    sooner, later = run.do("queue.dequeue", queue="q", count=5)
    assert (sooner["seq"], sooner["delivery_count"], later["priority"]) == (2, 1, 9)
    assert run.do("queue.dequeue", queue="q") == []
    assert run.do("queue.ack", queue="q", seqs=[2, 77]) == {"count": 1, "missing": [77]}
    assert run.do("queue.touch", queue="q", seqs=[1], extend_ms=60_000) == {"count": 1, "missing": []}
    run.bench.advance(30_000)
    assert run.do("queue.dequeue", queue="q") == []
    assert run.do("queue.nack", queue="q", seqs=[1], to_dlq=True) == {"count": 1, "missing": []}
    (dead,) = run.do("queue.dlq_list", queue="q")
    assert (dead["seq"], dead["attempts"], dead["reason"], dead["payload"]) == (1, 1, "explicit", "later")
    assert run.do("queue.dlq_requeue", queue="q", seqs=[1]) == {"count": 1, "missing": []}
    assert run.do("queue.dequeue", queue="q")[0]["delivery_count"] == 1


def test_a_delay_and_a_lease_end_by_the_partitions_time(run: ActingRun):
    run.do("queue.enqueue", queue="q", payload="p", delay_ms=1_000)
    assert run.do("queue.dequeue", queue="q") == []
    run.bench.advance(1_000)
    assert len(run.do("queue.dequeue", queue="q", visibility_timeout_ms=500)) == 1
    run.bench.advance(500)

    assert run.do("queue.dequeue", queue="q")[0]["delivery_count"] == 2


# -- streams


def test_stream_actions_append_read_trim_and_tell_about_a_stream(run: ActingRun):
    ids = [run.do("stream.append", stream="s", payload=f"p{n}", headers={"n": str(n)}) for n in range(4)]

    page = run.do("stream.read", stream="s", count=3)
    assert [r["payload"] for r in page["records"]] == ["p0", "p1", "p2"]
    assert (page["records"][1]["id"], page["records"][1]["headers"]) == (ids[1], {"n": "1"})
    assert page["has_more"] and page["next"] == ids[2]
    after = run.do("stream.read", stream="s", after=page["next"])
    assert [r["id"] for r in after["records"]] == [ids[3]] and not after["has_more"]
    window = run.do("stream.read", stream="s", start=ids[1], end=ids[2])
    assert [r["id"] for r in window["records"]] == ids[1:3]
    assert run.do("stream.read", stream="s", tail=True)["records"] == []
    assert run.do("stream.trim", stream="s", max_len=1, dry_run=True) == 3
    assert run.do("stream.trim", stream="s", before=ids[1]) == 1
    info = run.do("stream.info", stream="s")
    assert (info["first"], info["last"], info["count"], info["partitions"]) == (ids[1], ids[3], 3, 1)
    with pytest.raises(Failed, match=r"not_found.*stream.info 'none': stream not found"):
        run.do("stream.info", stream="none")


def test_group_actions_hand_out_acknowledge_and_give_back(run: ActingRun):
    ids = [run.do("stream.append", stream="s", payload=f"p{n}") for n in range(3)]
    run.do("stream.group_join", stream="s", group="g", consumer="a")

    got = run.do("stream.group_read", stream="s", group="g", consumer="a", count=2)
    assert [(r["payload"], r["delivery_count"]) for r in got] == [("p0", 1), ("p1", 1)]
    assert run.do("stream.group_ack", stream="s", group="g", ids=[ids[0]], consumer="a") == 1
    assert run.do("stream.group_nack", stream="s", group="g", ids=[ids[1]]) == 1
    again = run.do("stream.group_read", stream="s", group="g", consumer="b")
    assert [(r["payload"], r["delivery_count"]) for r in again] == [("p1", 2), ("p2", 1)]
    run.do("stream.group_leave", stream="s", group="g", consumer="b")
    back = run.do("stream.group_read", stream="s", group="g", consumer="a")
    assert [r["delivery_count"] for r in back] == [3, 2]


# -- refusals


@pytest.mark.parametrize(
    ("kind", "params", "refusal", "text"),
    [
        ("kv.put", {"key": "_sys:x", "value": "v"}, "bad_argument", "kv.put '_sys:x': access to reserved key denied"),
        ("kv.put", {"key": "k" * 5_000, "value": "v"}, "too_large", "kkk'…: key too large"),
        ("kv.put", {"key": "", "value": "v"}, "bad_argument", "kv.put: key is required"),
        ("kv.put", {"key": "k", "value": "x" * (VALUE_BYTES + 1)}, "too_large", "kv.put 'k': value too large"),
        ("kv.put", {"key": "k", "value": "v", "ttl": 2**63}, "bad_argument", "ttl too large"),
        ("kv.put", {"key": "k", "value": "v", "nx": True, "cas": 3}, "bad_argument", "cannot be combined"),
        ("kv.incr", {"key": "k", "by": 2**63}, "bad_argument", "kv.incr 'k': counter overflow"),
        ("kv.mget", {"keys": []}, "bad_argument", "kv.mget: mget: zero keys"),
        ("kv.mget", {"keys": ["k"] * 257}, "bad_argument", "max 256"),
        ("kv.json_get", {"key": "k", "path": "no"}, "bad_argument", "invalid json path"),
        ("kv.json_set", {"key": "k", "path": "$.a", "value": 1}, "not_found", "kv.json_set 'k'"),
        ("queue.enqueue", {"queue": "q", "payload": "p", "priority": 256}, "bad_argument", "priority must be 0..255"),
        ("queue.enqueue", {"queue": "q", "payload": "p", "priority": "high"}, "bad_argument", "$.priority"),
        ("queue.enqueue", {"queue": "_q", "payload": "p"}, "bad_argument", "'_' are internal"),
        ("queue.enqueue", {"queue": "q", "payload": "p", "delay_ms": 2**70}, "bad_argument", "delay too large"),
        ("queue.dequeue", {"queue": "q", "count": 0}, "bad_argument", "count must be at least 1"),
        ("queue.dequeue", {"queue": "q", "timeout": -1}, "bad_argument", "queue.dequeue 'q': a timeout of -1 ms"),
        ("queue.dequeue", {"queue": "q", "timeout": 2**60}, "bad_argument", "is out of bounds"),
        ("queue.ack", {"queue": "q", "seqs": [2**70]}, "not_found", "message not found in this queue"),
        ("queue.ack", {"queue": "q", "seqs": []}, "bad_argument", "at least one seq is required"),
        ("queue.dlq_requeue", {"queue": "q", "seqs": [1]}, "not_found", "message not found"),
        ("stream.append", {"stream": "s*", "payload": "p"}, "bad_argument", "must not contain '*'"),
        ("stream.append", {"stream": "s", "payload": "p", "partition": 1}, "bad_argument", "partition out of range"),
        ("stream.append", {"stream": "s", "payload": "p", "partition": 0, "partition_key": "k"}, "bad_argument",
         "cannot be combined"),
        ("stream.append", {"stream": "s", "payload": "p", "headers": {"h": "x" * 9_000}}, "too_large", "headers of"),
        ("stream.read", {"stream": "s", "start": "x"}, "bad_argument", "invalid stream id"),
        ("stream.read", {"stream": "s", "start": "0", "after": "1"}, "bad_argument", "cannot be combined"),
        ("stream.read", {"stream": "s", "count": 0}, "bad_argument", "limit must be at least 1"),
        ("stream.trim", {"stream": "s"}, "bad_argument", "exactly one bound"),
        ("stream.group_read", {"stream": "s.*", "group": "g", "consumer": "c"}, "bad_argument", "wildcard"),
        ("stream.group_read", {"stream": "s", "group": "g", "consumer": ""}, "bad_argument", "consumer name"),
        ("stream.group_ack", {"stream": "s", "group": "g", "ids": ["1-0"]}, "not_found", "no group 'g' on stream 's'"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_action_and_what_it_is_about_and_changes_nothing(
    run: ActingRun, kind: str, params: dict[str, Any], refusal: str, text: str
):
    before = [m.dump() for m in (machines(run).kv, machines(run).queues, machines(run).streams, machines(run).groups)]

    with pytest.raises(Failed) as failed:
        run.do(kind, **params)

    assert failed.value.args[0] == refusal and text in failed.value.args[1] and kind in failed.value.args[1]
    after = [m.dump() for m in (machines(run).kv, machines(run).queues, machines(run).streams, machines(run).groups)]
    assert before == after
    assert error_kind(run.record(run.n).outcome) == refusal  # a replay gets the same


# -- what is no text, and what is large


def test_payloads_and_values_that_are_no_text_come_as_base64(run: ActingRun):
    batch(run.bench, lambda s: s.enqueue(NS, "q", b"\xff\x00"))
    batch(run.bench, lambda s: s.stream_append(NS, "s", [NewRecord(b"\xfe", ((b"h\xff", b"v\xff"), (b"t", b"text")))]))
    batch(run.bench, lambda s: s.put(NS, b"bin", b"\xfd"))
    batch(run.bench, lambda s: s.put(NS, b"text", b"x"))

    (message,) = run.do("queue.dequeue", queue="q")
    assert (message["payload"], message["payload_b64"]) == (None, "/wA=")
    (record,) = run.do("stream.read", stream="s")["records"]
    assert (record["payload"], record["payload_b64"]) == (None, "/g==")
    assert record["headers"] == {"h\\xff": "v\\xff", "t": "text"}
    assert run.do("stream.group_read", stream="s", group="g", consumer="c")[0]["payload_b64"] == "/g=="
    shown = [(e["key"], e["value"], e.get("value_b64")) for e in run.do("kv.scan")["entries"]]
    assert shown == [("bin", None, "/Q=="), ("text", "x", None)]
    assert [e.get("value_b64") for e in run.do("kv.mget", keys=["bin", "text"])] == ["/Q==", None]
    assert run.do("kv.history", key="bin")[0]["value_b64"] == "/Q=="
    with pytest.raises(Failed, match=r"bad_argument.*kv.get 'bin': the stored bytes are not UTF-8"):
        run.do("kv.get", key="bin")


def test_large_results_are_kept_beside_the_log(run: ActingRun):
    payload = "x" * (PAYLOAD_SOFT_BYTES + 1)
    run.do("queue.enqueue", queue="q", payload=payload)
    run.do("stream.append", stream="s", payload=payload)

    assert run.do("queue.dequeue", queue="q")[0]["payload"] == payload
    taken = run.record(run.n).outcome
    assert run.do("stream.read", stream="s")["records"][0]["payload"] == payload
    read = run.record(run.n).outcome
    assert taken[0] == read[0] == "@"
    text = run.bench.node.payloads.load(taken)
    assert value_of(text)[0]["payload"] == payload


def test_a_result_over_the_hard_limit_is_refused_and_takes_nothing(run: ActingRun):
    count = PAYLOAD_HARD_BYTES // VALUE_BYTES
    for _ in range(count):
        batch(run.bench, lambda s: s.enqueue(NS, "q", b"x" * VALUE_BYTES))
        run.bench.node.pump()

    with pytest.raises(Failed, match=r"too_large.*queue.dequeue 'q': the result of .* ask for less"):
        run.do("queue.dequeue", queue="q", count=count)
    assert batch(run.bench, lambda s: s.queue_stats(NS, "q")).inflight == 0
    assert len(run.do("queue.dequeue", queue="q", count=count - 1)) == count - 1


def test_records_that_are_not_in_memory_are_read_from_the_log(run: ActingRun):
    run.do("stream.append", stream="s", payload="old")
    run.bench.node.pump()
    run.bench.node.hot.clear()

    assert run.do("stream.read", stream="s")["records"][0]["payload"] == "old"
    assert run.do("stream.group_read", stream="s", group="g", consumer="c")[0]["payload"] == "old"


def test_a_damaged_record_is_an_error_that_names_it_and_takes_nothing(run: ActingRun, monkeypatch: pytest.MonkeyPatch):
    id = run.do("stream.append", stream="s", payload="old")
    run.bench.node.pump()
    run.bench.node.hot.clear()

    def damaged(indexes: Any) -> Any:
        raise LogDamaged("its bytes are not what was written")

    monkeypatch.setattr(run.bench.node.store.records, "_read", damaged)

    with pytest.raises(Failed, match=rf"failed.*stream.read 's': record {id} is damaged"):
        run.do("stream.read", stream="s")
    with pytest.raises(Failed, match=rf"failed.*record {id} is damaged"):
        run.do("stream.group_read", stream="s", group="g", consumer="c")
    assert run.do("kv.get", key="k") is None
    monkeypatch.undo()
    assert run.do("stream.group_read", stream="s", group="g", consumer="c")[0]["delivery_count"] == 1


# -- exactly once

SCRIPT: list[tuple[str, dict[str, Any]]] = [
    ("kv.incr", {"key": "n"}),
    ("kv.transaction", {"writes": [{"op": "incr", "key": "n"}, {"op": "put", "key": "p", "value": "v"}]}),
    ("queue.enqueue", {"queue": "q", "payload": "one"}),
    ("queue.enqueue", {"queue": "q", "payload": "two", "priority": 1}),
    ("queue.dequeue", {"queue": "q"}),
    ("queue.ack", {"queue": "q", "seqs": [1]}),
    ("stream.append", {"stream": "s", "payload": "first"}),
    ("stream.group_read", {"stream": "s", "group": "g", "consumer": "c"}),
    ("stream.append", {"stream": "s", "payload": "second"}),
    ("stream.trim", {"stream": "s", "max_len": 1}),
    ("queue.nack", {"queue": "q", "seqs": [2], "to_dlq": True}),
    ("kv.json_set", {"key": "o", "path": "$", "value": [1]}),
]


def test_an_action_and_the_record_of_it_are_in_one_frame(run: ActingRun):
    run.bench.node.pump()
    for kind, params in SCRIPT:
        run.outcome(kind, **params)
        run.bench.node.pump()
        *_, frame = run.bench.backend.read()
        kinds = [event[0] for event in frame.events]

        assert len(kinds) > 1 and kinds[-1] == Did.KIND, kind
        assert frame.first_index + len(kinds) - 1 == run.bench.node.partition.last_index


@pytest.mark.parametrize("killed_at", range(len(SCRIPT) + 1))
def test_a_run_that_is_killed_anywhere_and_replayed_has_done_everything_once(killed_at: int):
    run = ActingRun(Bench())
    run.bench.node.pump()
    for number, (kind, params) in enumerate(SCRIPT):
        run.outcome(kind, **params)
        if number < killed_at:
            run.bench.node.pump()  # what comes after is lost with the process
    bench = run.bench.crash()
    bench.node.execute(["r"])
    again = ActingRun(bench, lease=bench.lease("r", "0"))

    assert again.n == killed_at
    for kind, params in SCRIPT[again.n :]:
        again.outcome(kind, **params)

    assert again.do("kv.get", key="n") == "2"
    assert [d["seq"] for d in again.do("queue.dlq_list", queue="q")] == [2]
    stats = batch(bench, lambda s: s.queue_stats(NS, "q"))
    assert (stats.enqueued, stats.acked, stats.pending) == (2, 1, 0)
    assert [r["payload"] for r in again.do("stream.read", stream="s")["records"]] == ["second"]
    assert again.do("kv.json_get", key="o") == [1]
    assert bench.replayed() == bench.machines.dump()
