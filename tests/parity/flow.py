"""Flows, by the real prelude: each operation is a run that is thrown away and replayed at every wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flo.api.errors import RunFailed
from flo.client.testing import TestGrid
from tests.parity.surface import Refused, json_of

SCRIPT = """
load("flo/prelude/v1", "args", "flow", "unwrap")

def _main(fctx):
    call = getattr(getattr(fctx.actions, fctx.args.group), fctx.args.name)
    result = call(*fctx.args.given, **fctx.args.named)
    if getattr(result, "ok", None) == False:
        return {"refused": result.error.kind, "code": (result.error.details or {}).get("code")}
    return {"value": unwrap(result)}

main = flow(implementation = _main, args = {
    "group": args.string(), "name": args.string(), "given": args.list(), "named": args.dict(),
})
"""

KINDS = {"bad_argument": "bad_request", "too_large": "bad_request", "not_found": "not_found", "conflict": "conflict"}


class FlowDriver:
    name = "flow"
    ns = "default"

    def __init__(self, grid: TestGrid, folder: Path) -> None:
        self._grid = grid
        self._script = folder / "parity.flow"
        self._script.write_text(SCRIPT)

    def _do(self, action: str, *given: Any, **named: Any) -> Any:
        group, _, name = action.partition(".")
        args = {"group": group, "name": name, "given": list(given), "named": named}
        try:
            done = self._grid.run(f"{self._script}::main", args).result()
        except RunFailed as failed:
            reserved = "reserved key" in str(failed)  # what fails a flow has no code
            raise Refused("unauthorized" if reserved else KINDS[failed.kind]) from failed
        if "refused" in done:
            raise Refused("unauthorized" if done["code"] == "unauthorized" else KINDS[done["refused"]])
        return done["value"]

    # -- keys

    def kv_put(
        self, key: str, value: str, *, ttl_s: int | None = None, nx: bool = False, xx: bool = False,
        cas: int | None = None,
    ) -> int:  # fmt: skip
        return int(self._do("kv.put", key, value, ttl=ttl_s, nx=nx, xx=xx, cas=cas))

    def kv_get(self, key: str) -> Any:
        return self._do("kv.get", key)

    def kv_delete(self, key: str, *, if_match: int | None = None) -> None:
        self._do("kv.delete", key, if_match=if_match)

    def kv_incr(self, key: str, by: int = 1) -> int:
        return int(self._do("kv.incr", key, by=by))

    def kv_exists(self, key: str) -> bool:
        return bool(self._do("kv.exists", key))

    def kv_mget(self, keys: Sequence[str]) -> list[str | None]:
        return [each["value"] for each in self._do("kv.mget", list(keys))]

    def kv_scan(self, prefix: str, limit: int) -> dict[str, Any]:
        page = self._do("kv.page", prefix, limit=limit)
        return {"entries": [[each["key"], each["value"]] for each in page["entries"]], "more": page["has_more"]}

    def kv_history(self, key: str) -> list[str | None]:
        return [each["value"] for each in self._do("kv.history", key)]

    def kv_touch(self, key: str, ttl_s: int) -> None:
        self._do("kv.touch", key, ttl_s)

    def kv_persist(self, key: str) -> None:
        self._do("kv.persist", key)

    def kv_json_set(self, key: str, path: str, json: str) -> None:
        try:
            value = json_of(json)
        except ValueError:
            raise Refused("bad_request") from None  # a flow gives a value and no text
        self._do("kv.json_set", key, path, value)

    def kv_json_get(self, key: str, path: str) -> Any:
        return self._do("kv.json_get", key, path)

    def kv_json_del(self, key: str, path: str) -> None:
        self._do("kv.json_del", key, path)

    def kv_transaction(self, routing_key: str, writes: Sequence[Sequence[Any]]) -> int:
        names = {"put": "value", "incr": "by"}
        given = [{"op": op, "key": key, **({names[op]: rest[0]} if rest else {})} for op, key, *rest in writes]
        return int(self._do("kv.transaction", given)["op_count"])

    # -- queues

    def queue_enqueue(
        self, queue: str, payload: str, *, priority: int = 0, delay_ms: int = 0, dedup_key: str | None = None
    ) -> int:
        named = {"priority": priority, "delay_ms": delay_ms, "dedup_key": dedup_key}
        return int(self._do("queue.enqueue", queue, payload, **named))

    def queue_dequeue(self, queue: str, count: int = 1, *, visibility_ms: int = 30_000) -> list[list[Any]]:
        found = self._do("queue.dequeue", queue, count=count, visibility_timeout_ms=visibility_ms)
        return [[each["seq"], each["payload"]] for each in found]

    def queue_peek(self, queue: str, count: int) -> list[list[Any]]:
        return [[each["seq"], each["payload"]] for each in self._do("queue.peek", queue, count=count)]

    def queue_ack(self, queue: str, seqs: Sequence[int]) -> None:
        self._do("queue.ack", queue, list(seqs))

    def queue_nack(self, queue: str, seqs: Sequence[int], *, dlq: bool = False) -> None:
        self._do("queue.nack", queue, list(seqs), to_dlq=dlq)

    def queue_touch(self, queue: str, seqs: Sequence[int]) -> None:
        self._do("queue.touch", queue, list(seqs))

    def queue_dlq_list(self, queue: str) -> list[list[Any]]:
        return [[each["seq"], each["payload"]] for each in self._do("queue.dlq_list", queue)]

    def queue_dlq_requeue(self, queue: str, seqs: Sequence[int]) -> None:
        self._do("queue.dlq_requeue", queue, list(seqs))

    # -- streams

    def stream_append(
        self, stream: str, payload: str, *, headers: Mapping[str, str] | None = None, partition: int | None = None
    ) -> str:
        return str(self._do("stream.append", stream, payload, headers=dict(headers or {}), partition=partition))

    def stream_read(
        self, stream: str, *, start: str | None = None, end: str | None = None, after: str | None = None,
        tail: bool = False, count: int = 10,
    ) -> list[list[Any]]:  # fmt: skip
        page = self._do("stream.read", stream, start=start, end=end, after=after, tail=tail, count=count)
        return [[each["payload"], each["headers"]] for each in page["records"]]

    def stream_info(self, stream: str) -> int:
        return int(self._do("stream.info", stream)["count"])

    def stream_trim(self, stream: str, max_len: int, *, dry_run: bool = False) -> int:
        return int(self._do("stream.trim", stream, max_len=max_len, dry_run=dry_run))

    # -- groups

    def group_join(self, stream: str, group: str, consumer: str) -> None:
        self._do("stream.group_join", stream, group, consumer)

    def group_leave(self, stream: str, group: str, consumer: str) -> None:
        self._do("stream.group_leave", stream, group, consumer)

    def group_read(self, stream: str, group: str, consumer: str, count: int = 10) -> list[str]:
        return [each["payload"] for each in self._do("stream.group_read", stream, group, consumer, count=count)]

    def group_ack(self, stream: str, group: str, ids: Sequence[str]) -> None:
        self._do("stream.group_ack", stream, group, list(ids))

    def group_nack(self, stream: str, group: str, ids: Sequence[str]) -> None:
        self._do("stream.group_nack", stream, group, list(ids))
