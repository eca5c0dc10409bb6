"""What every surface is asked to do, and what it must answer: one list of operations.

`$name` in an argument stands for what an earlier step has saved. A surface that cannot do an operation, or that must
answer otherwise, is listed below with the section of the specification that says so; there are no other differences.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

VERSION: Final = "a version"  # any number over 0
ID: Final = "a stream id"
DONE: Final = "done"  # whatever else the surface tells


class Refusal(NamedTuple):
    kind: str  # not_found | conflict | bad_request | unauthorized | cross_core_transaction


NOT_FOUND: Final = Refusal("not_found")
CONFLICT: Final = Refusal("conflict")
BAD: Final = Refusal("bad_request")
UNAUTHORIZED: Final = Refusal("unauthorized")
ELSEWHERE: Final = Refusal("cross_core_transaction")


class Step(NamedTuple):
    op: str
    args: dict[str, Any]
    want: Any
    save: str = ""
    name: str = ""  # of a step that some surface answers otherwise
    ns: str = "default"


def step(op: str, want: Any, *, save: str = "", name: str = "", ns: str = "default", **args: Any) -> Step:
    return Step(op, args, want, save, name, ns)


LARGE: Final = "x" * 262_145

KEYS: Final = [
    step("kv.put", VERSION, key="a", value="1", save="a1"),
    step("kv.get", "1", key="a"),
    step("kv.get", None, key="none"),
    step("kv.put", VERSION, key="a", value="2", cas="$a1", save="a2"),
    step("kv.put", CONFLICT, key="a", value="3", cas="$a1"),
    step("kv.put", CONFLICT, key="a", value="3", cas=0),
    step("kv.put", CONFLICT, key="a", value="3", nx=True),
    step("kv.put", CONFLICT, key="b", value="3", xx=True),
    step("kv.put", BAD, key="b", value="3", nx=True, xx=True),
    step("kv.get", "2", key="a"),
    step("kv.get", None, key="b"),
    step("kv.put", VERSION, key="empty", value=""),
    step("kv.get", "", key="empty"),
    step("kv.exists", True, key="empty"),
    step("kv.exists", False, key="none"),
    step("kv.put", UNAUTHORIZED, key="_sys:x", value="1"),
    step("kv.get", UNAUTHORIZED, key="_sys:x"),
    step("kv.put", BAD, key="", value="1"),
    step("kv.put", BAD, key="k" * 4_096, value="1"),
    step("kv.put", BAD, key="large", value=LARGE),
    step("kv.put", VERSION, key="large", value=LARGE[1:]),
    step("kv.incr", 1, key="n"),
    step("kv.incr", -4, key="n", by=-5),
    step("kv.get", "-4", key="n"),
    step("kv.incr", CONFLICT, key="a"),
    step("kv.incr", 2**63 - 1, key="most", by=2**63 - 1),
    step("kv.incr", BAD, key="most"),
    step("kv.mget", ["2", None, "-4", "2"], keys=["a", "none", "n", "a"]),
    step("kv.delete", CONFLICT, key="a", if_match="$a1"),
    step("kv.delete", DONE, key="a", if_match="$a2"),
    step("kv.delete", NOT_FOUND, key="a", name="delete of a missing key"),
    step("kv.history", [None, "2", "1"], key="a", name="history"),
    step("kv.history", NOT_FOUND, key="none"),
    step("kv.put", VERSION, key="t", value="x", ttl_s=5),
    step("kv.put", VERSION, key="u", value="x", ttl_s=5),
    step("kv.put", VERSION, key="w", value="x", ttl_s=5),
    step("kv.put", VERSION, key="w", value="y"),
    step("kv.touch", DONE, key="u", ttl_s=20),
    step("kv.touch", NOT_FOUND, key="none", ttl_s=20),
    step("time", DONE, ms=4_900),
    step("kv.get", "x", key="t"),
    step("time", DONE, ms=100),
    step("kv.get", None, key="t"),
    step("kv.get", "x", key="u"),
    step("kv.persist", DONE, key="u"),
    step("time", DONE, ms=60_000),
    step("kv.mget", [None, "x", "y"], keys=["t", "u", "w"]),
    step("kv.put", VERSION, key="t", value="again", nx=True),
    step("kv.json_set", DONE, key="o", path="$", json='{"list":[1,2],"s":"new"}'),
    step("kv.json_set", DONE, key="o", path="$.s", json='"sent"'),
    step("kv.json_set", NOT_FOUND, key="o", path="$.x.y", json="1", name="json_set under a missing parent"),
    step("kv.json_set", BAD, key="o", path="$.s", json="{"),
    step("kv.json_get", "sent", key="o", path="$.s"),
    step("kv.json_get", [1, 2], key="o", path="$.list"),
    step("kv.json_get", None, key="o", path="$.none"),
    step("kv.json_get", BAD, key="o", path="none"),
    step("kv.json_del", DONE, key="o", path="$.list[0]"),
    step("kv.json_del", NOT_FOUND, key="o", path="$.none"),
    step("kv.json_get", {"list": [2], "s": "sent"}, key="o", path="$"),
    *[step("kv.put", VERSION, key=f"p:{n}", value=str(n)) for n in range(3)],
    step("kv.scan", {"entries": [["p:0", "0"], ["p:1", "1"]], "more": True}, prefix="p:", limit=2),
    step("kv.scan", {"entries": [], "more": False}, prefix="q:", limit=2),
    step(
        "kv.transaction", 3, routing_key="o",
        writes=[["put", "tx:1", "one"], ["incr", "tx:n", 7], ["put", "tx:2", "two"]],
    ),
    step("kv.transaction", 2, routing_key="o", writes=[["delete", "tx:2"], ["incr", "tx:n", 1]]),
    step("kv.mget", ["one", "8", None], keys=["tx:1", "tx:n", "tx:2"]),
    step("kv.transaction", CONFLICT, routing_key="o", writes=[["put", "tx:1", "other"], ["incr", "tx:1", 1]]),
    step("kv.get", "one", key="tx:1"),
]  # fmt: skip

QUEUES: Final = [
    step("queue.enqueue", 1, queue="q", payload="A", priority=10),
    step("queue.enqueue", 2, queue="q", payload="B", priority=1),
    step("queue.enqueue", 3, queue="q", payload="C", priority=1),
    step("queue.enqueue", BAD, queue="q", payload="D", priority=256),
    step("queue.enqueue", BAD, queue="q", payload=LARGE),
    step("queue.enqueue", BAD, queue="", payload="D"),
    step("queue.enqueue", UNAUTHORIZED, queue="_q", payload="D"),
    step("queue.peek", [[2, "B"], [3, "C"], [1, "A"]], queue="q", count=5),
    step("queue.dequeue", [[2, "B"], [3, "C"]], queue="q", count=2),
    step("queue.stats", {"pending": 3, "available": 1, "enqueued": 3}, queue="q"),
    step("queue.ack", DONE, queue="q", seqs=[2]),
    step("queue.ack", NOT_FOUND, queue="q", seqs=[2], name="repeated ack"),
    step("queue.nack", DONE, queue="q", seqs=[3]),
    step("queue.dequeue", [[3, "C"]], queue="q"),
    step("queue.nack", DONE, queue="q", seqs=[3], dlq=True),
    step("queue.dlq_list", [[3, "C"]], queue="q"),
    step("queue.dequeue", [[1, "A"]], queue="q"),
    step("queue.dlq_requeue", DONE, queue="q", seqs=[3]),
    step("queue.dlq_requeue", NOT_FOUND, queue="q", seqs=[3]),
    step("queue.dequeue", [[3, "C"]], queue="q"),
    step("queue.dequeue", [], queue="q"),
    step("queue.dequeue", [], queue="never made"),
    step("time", DONE, ms=29_000),
    step("queue.touch", DONE, queue="q", seqs=[1]),
    step("queue.touch", NOT_FOUND, queue="q", seqs=[2]),
    step("time", DONE, ms=1_000),
    step("queue.dequeue", [[3, "C"]], queue="q", count=5),
    step("queue.purge", 2, queue="q"),
    step("queue.enqueue", 4, queue="q", payload="next", name="plain enqueue after a purge"),
    step("queue.enqueue", 1, queue="simple", payload="one", name="first plain enqueue"),
    step("queue.enqueue", 2, queue="simple", payload="two", name="second plain enqueue"),
    step("queue.dequeue", [[1, "one"]], queue="simple", visibility_ms=500),
    step("time", DONE, ms=500),
    step("queue.dequeue", [[1, "one"], [2, "two"]], queue="simple", count=9),
    step("queue.enqueue", 1, queue="d", payload="p", dedup_key="k"),
    step("queue.enqueue", 1, queue="d", payload="q", dedup_key="k"),
    step("queue.enqueue", 2, queue="d", payload="later", delay_ms=1_000),
    step("queue.dequeue", [[1, "p"]], queue="d", count=5),
    step("time", DONE, ms=1_000),
    step("queue.dequeue", [[2, "later"]], queue="d", count=5),
    step("queue.enqueue", 1, queue="dead", payload="poison", name="poison"),
    *[
        each
        for _ in range(5)
        for each in (
            step("queue.dequeue", [[1, "poison"]], queue="dead"),
            step("queue.nack", DONE, queue="dead", seqs=[1]),
        )
    ],
    step("queue.dequeue", [], queue="dead"),
    step("queue.dlq_list", [[1, "poison"]], queue="dead"),
]

STREAMS: Final = [
    step("stream.append", ID, stream="s", payload="a", headers={"h": "1"}, save="i1"),
    step("stream.append", ID, stream="s", payload="b", save="i2"),
    step("stream.append_many", ID, stream="s", payloads=["c", "d"], save="i3"),
    step("stream.append_many", BAD, stream="s", payloads=["x"] * 1_001),
    step("stream.append", BAD, stream="s*", payload="x"),
    step("stream.append", BAD, stream="s", payload=LARGE),
    step("stream.append", BAD, stream="s", payload="x", partition=1),
    step("stream.read", [["a", {"h": "1"}], ["b", {}], ["c", {}], ["d", {}]], stream="s", name="read of all"),
    step("stream.read", [["b", {}]], stream="s", start="$i2", end="$i2"),
    step("stream.read", [["c", {}], ["d", {}]], stream="s", after="$i2"),
    step("stream.read", [["b", {}]], stream="s", after="$i1", count=1),
    step("stream.read", [], stream="s", start="$i3", end="$i1"),
    step("stream.read", [], stream="s", tail=True),
    step("stream.read", [], stream="none"),
    step("stream.info", 4, stream="s"),
    step("stream.info", NOT_FOUND, stream="none", name="info of a missing stream"),
    step("stream.trim", 1, stream="s", max_len=3, dry_run=True),
    step("stream.trim", 1, stream="s", max_len=3),
    step("stream.trim", NOT_FOUND, stream="none", max_len=3, name="trim of a missing stream"),
    step("stream.read", [["b", {}]], stream="s", count=1),
    step("group.join", DONE, stream="s", group="g", consumer="c1"),
    step("group.read", ["b", "c"], stream="s", group="g", consumer="c1", count=2, name="group read of a plain append"),
    step("group.read", ["d"], stream="s", group="g", consumer="c2"),
    step("group.read", [], stream="s", group="g", consumer="c1"),
    step("group.ack", DONE, stream="s", group="g", ids=["$i2"]),
    step("group.ack", DONE, stream="s", group="g", ids=["$i2"]),
    step("group.nack", DONE, stream="s", group="g", ids=["$i3"]),
    step("group.read", ["c"], stream="s", group="g", consumer="c2"),
    step("group.leave", DONE, stream="s", group="g", consumer="c2"),
    step("group.leave", DONE, stream="s", group="g", consumer="c2"),
    step("group.read", ["c", "d"], stream="s", group="g", consumer="c1"),
    step("time", DONE, ms=30_000),
    step("group.read", ["c", "d"], stream="s", group="g", consumer="c3"),
    step("group.ack", NOT_FOUND, stream="s", group="none", ids=["$i2"], name="ack in a missing group"),
    step("group.read", BAD, stream="s.*", group="g", consumer="c1"),
    step("group.read", BAD, stream="s", group="g", consumer=""),
    step("stream.append", ID, stream="gone", payload="x"),
    step("stream.delete", CONFLICT, stream="gone"),
    step("stream.delete", DONE, stream="gone", force=True),
    step("stream.delete", DONE, stream="gone"),
    step("stream.append", ID, stream="plain", payload="p"),
    step("stream.append", ID, stream="plain", payload="q"),
    step("stream.read", [["p", {}], ["q", {}]], stream="plain"),
    step("stream.trim", 1, stream="plain", max_len=1),
]

NAMESPACES: Final = [
    step("kv.put", VERSION, key="o", value="theirs", nx=True, ns="other"),
    step("kv.get", "theirs", key="o", ns="other"),
    step("kv.put", BAD, key="o", value="theirs", ns="1 bad name"),
    step("queue.enqueue", 1, queue="q", payload="theirs", ns="other", name="enqueue in another namespace"),
    step("queue.ack", NOT_FOUND, queue="q", seqs=[4], ns="other", name="ack in another namespace"),
    step("queue.dequeue", [[4, "next"]], queue="q"),
    step("stream.read", [], stream="plain", ns="other"),
    step("kv.get", None, key="w", ns="other"),
]

APART: Final = step("kv.transaction", ELSEWHERE, routing_key="o", writes=[["put", "tx:1", "one"], ["put", "w", "y"]])
"""A key that is there already, in another slot than the transaction's (kv.md §11)."""

SCRIPT: Final = [*KEYS, *QUEUES, *STREAMS, *NAMESPACES]

DIFFERENCES: Final[dict[tuple[str, str], tuple[Any, str]]] = {
    ("sdk", "delete of a missing key"): (DONE, "client-sdk.md §2: deleting a missing key succeeds unless if_match"),
    ("wire", "history"): (["", "2", "1"], "wire-protocol.md §5.3: history has no mark of deletion, its value is empty"),
    ("wire", "repeated ack"): (DONE, "queues.md §2: plain OK on D2"),
    ("wire", "ack in another namespace"): (DONE, "queues.md §2: plain OK on D2"),
    ("wire", "info of a missing stream"): (0, "streams.md §6: zeros on D2"),
    ("sdk", "info of a missing stream"): (0, "streams.md §6: the SDKs parse the body in any case"),
    ("wire", "trim of a missing stream"): (0, "wire-protocol.md §5.4"),
    ("sdk", "trim of a missing stream"): (0, "wire-protocol.md §5.4"),
    ("wire", "ack in a missing group"): (DONE, "README.md 16: OK on D2"),
    ("sdk", "ack in a missing group"): (DONE, "README.md 16: OK on D2"),
    ("resp", "json_set under a missing parent"): (BAD, "redis.md §2: -ERR for a missing parent"),
    ("resp", "plain enqueue after a purge"): (1, "redis.md §2: the number of pending messages"),
    ("resp", "read of all"): ([["a", {}], ["b", {}], ["c", {}], ["d", {}]], "redis.md §2: fields, without headers"),
    ("resp", "info of a missing stream"): (0, "redis.md §2: XLEN is 0 if missing"),
    ("resp", "trim of a missing stream"): (0, "redis.md §2: XTRIM tells the number removed"),
    ("resp", "group read of a plain append"): (['{"data":"b"}', "c"], "redis.md §2: XADD writes a JSON object"),
    ("resp", "first plain enqueue"): (1, "redis.md §2: the number of pending messages"),
    ("resp", "second plain enqueue"): (2, "redis.md §2: the number of pending messages"),
}

NOT_OFFERED: Final[dict[str, dict[str, str]]] = {
    "wire": {},
    "sdk": {},
    "cli": {},
    "resp": {
        "kv.history": "redis.md §2",
        "kv.transaction": "redis.md §2: transactions are refused",
        "queue.peek": "redis.md §2: LRANGE gives payloads without their seqs",
        "queue.touch": "redis.md §2",
        "queue.stats": "redis.md §2: LLEN alone",
        "queue.dlq_list": "redis.md §2",
        "queue.dlq_requeue": "redis.md §2",
        "queue.purge": "redis.md §2: no FLUSH",
        "stream.append_many": "redis.md §2: one record for each XADD",
        "stream.delete": "redis.md §2",
        "group.join": "redis.md §2: XGROUP is optional",
        "group.leave": "redis.md §2: XGROUP is optional",
        "group.read": "redis.md §2: XREADGROUP is optional",
        "group.ack": "redis.md §2: XACK is optional",
        "group.nack": "redis.md §2",
    },
    "flow": {
        "queue.stats": "design.md §6.2",
        "queue.purge": "design.md §6.2",
        "stream.append_many": "design.md §6.2",
        "stream.delete": "design.md §6.2",
    },
}
"""Operations that a surface does not have; a client beside it does them, so that the rest can go on."""

NOT_IN_SURFACE: Final[dict[str, tuple[set[str], str]]] = {
    "resp": (
        {"cas", "if_match", "priority", "delay_ms", "dedup_key", "headers", "partition", "dry_run"},
        "redis.md §2: no such option",
    ),
}
"""Options that a surface does not have."""
