"""The commands `flo kv`, `flo queue` and `flo stream`, in this process."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from typer.testing import CliRunner

from flo.cli._app import app
from tests.parity.surface import Refused, json_of

EMPTY = 1  # exit codes
USAGE = 2


class CliDriver:
    name = "cli"
    ns = "default"

    def __init__(self, port: int) -> None:
        self._endpoint = f"127.0.0.1:{port}"

    def _run(self, *words: object, empty: int = 0) -> Any:
        argv = ["--endpoint", self._endpoint, "-n", self.ns, *map(str, words), "--json"]
        if "--" in argv:
            argv.remove("--json")
            argv.insert(argv.index("--"), "--json")
        done = CliRunner().invoke(app, argv, catch_exceptions=False)
        if done.exit_code == USAGE:
            raise Refused("bad_request")
        if done.exit_code and not (done.exit_code == empty and done.stdout):
            found = re.search(r'"status":\s*"([a-z_]+)"', done.stderr)
            assert found, f"{words}: exit {done.exit_code}\n{done.stderr}"
            raise Refused(found[1])
        return json_of(done.stdout)

    # -- keys

    def kv_put(
        self, key: str, value: str, *, ttl_s: int = 0, nx: bool = False, xx: bool = False, cas: int | None = None,
        txn: int = 0,
    ) -> int:  # fmt: skip
        words: list[object] = []
        words += ["--ttl", ttl_s] if ttl_s else []
        words += ["--nx"] if nx else []
        words += ["--xx"] if xx else []
        words += [] if cas is None else ["--cas", cas]
        words += ["--txn", txn] if txn else []
        return int(self._run("kv", "set", *words, "--", key, value)["version"])

    def kv_get(self, key: str) -> str | None:
        found = self._run("kv", "get", key, empty=EMPTY)
        return None if found is None else str(found["value"])

    def kv_delete(self, key: str, *, if_match: int | None = None, txn: int = 0) -> None:
        words = [] if if_match is None else ["--cas", if_match]
        self._run("kv", "delete", *words, *(["--txn", txn] if txn else []), key)

    def kv_incr(self, key: str, by: int = 1, *, txn: int = 0) -> int:
        return int(self._run("kv", "incr", f"--by={by}", *(["--txn", txn] if txn else []), key)["value"])

    def kv_exists(self, key: str) -> bool:
        return bool(self._run("kv", "exists", key, empty=EMPTY)["exists"])

    def kv_mget(self, keys: Sequence[str]) -> list[str | None]:
        return [each["value"] for each in self._run("kv", "mget", *keys)]

    def kv_scan(self, prefix: str, limit: int) -> dict[str, Any]:
        page = self._run("kv", "list", prefix, "--limit", limit)
        return {"entries": [[each["key"], each["value"]] for each in page["keys"]], "more": page["has_more"]}

    def kv_history(self, key: str) -> list[str | None]:
        return [None if each["tombstone"] else each["value"] for each in self._run("kv", "history", key)]

    def kv_touch(self, key: str, ttl_s: int) -> None:
        self._run("kv", "touch", key, "--ttl", ttl_s)

    def kv_persist(self, key: str) -> None:
        self._run("kv", "persist", key)

    def kv_json_set(self, key: str, path: str, json: str) -> None:
        self._run("kv", "jset", key, path, json)

    def kv_json_get(self, key: str, path: str) -> Any:
        try:
            return self._run("kv", "jget", key, path, empty=EMPTY)["value"]
        except Refused as refused:
            if refused.refusal.kind == "not_found":
                return None
            raise

    def kv_json_del(self, key: str, path: str) -> None:
        self._run("kv", "jdel", key, path)

    def kv_transaction(self, routing_key: str, writes: Sequence[Sequence[Any]]) -> int:
        txn = self._run("kv", "begin", routing_key)["txn_id"]
        try:
            for op, key, *rest in writes:
                getattr(self, f"kv_{op}")(key, *rest, txn=txn)
        except Refused:
            self._run("kv", "rollback", txn)
            raise
        return int(self._run("kv", "commit", txn)["op_count"])

    # -- queues

    def queue_enqueue(
        self, queue: str, payload: str, *, priority: int = 0, delay_ms: int = 0, dedup_key: str = ""
    ) -> int:
        words = ["--priority", priority, "--delay", delay_ms, *(["--dedup-key", dedup_key] if dedup_key else [])]
        return int(self._run("queue", "enqueue", queue, payload, *words)["seq"])

    def queue_dequeue(self, queue: str, count: int = 1, *, visibility_ms: int = 30_000) -> list[list[Any]]:
        found = self._run("queue", "dequeue", queue, "-c", count, "--visibility", visibility_ms)
        return [[each["seq"], each["payload"]] for each in found]

    def queue_peek(self, queue: str, count: int) -> list[list[Any]]:
        return [[each["seq"], each["payload"]] for each in self._run("queue", "peek", queue, "--count", count)]

    def queue_ack(self, queue: str, seqs: Sequence[int]) -> None:
        self._run("queue", "ack", queue, *seqs)

    def queue_nack(self, queue: str, seqs: Sequence[int], *, dlq: bool = False) -> None:
        self._run("queue", "nack", queue, *seqs, *(["--dlq"] if dlq else []))

    def queue_touch(self, queue: str, seqs: Sequence[int]) -> None:
        self._run("queue", "touch", queue, *seqs)

    def queue_dlq_list(self, queue: str) -> list[list[Any]]:
        found = self._run("queue", "dlq", "list", queue)
        return [[each["seq"], each["payload"]] for each in found["messages"]]

    def queue_dlq_requeue(self, queue: str, seqs: Sequence[int]) -> None:
        self._run("queue", "dlq", "requeue", queue, *seqs)

    def queue_purge(self, queue: str) -> int:
        return int(self._run("queue", "purge", queue)["purged"])

    def queue_stats(self, queue: str) -> dict[str, int]:
        found = self._run("queue", "stats", queue)
        return {name: found[name] for name in ("pending", "available", "enqueued")}

    # -- streams

    def stream_append(
        self, stream: str, payload: str, *, headers: Mapping[str, str] | None = None, partition: int | None = None
    ) -> str:
        words: list[object] = [word for name, value in (headers or {}).items() for word in ("-H", f"{name}={value}")]
        words += [] if partition is None else ["--partition", partition]
        return str(self._run("stream", "append", stream, payload, *words)["stream_id"])

    def stream_append_many(self, stream: str, payloads: Sequence[str]) -> str:
        return str(self._run("stream", "append", stream, *payloads)["first_id"])

    def stream_read(
        self, stream: str, *, start: str = "", end: str = "", after: str = "", tail: bool = False, count: int = 10
    ) -> list[list[Any]]:
        words = ["--limit", count]
        for name, value in (("--start", "$" if tail else start), ("--end", end), ("--after", after)):
            words += [name, value] if value else []
        return [[each["payload"], dict(each["headers"])] for each in self._run("stream", "read", stream, *words)]

    def stream_info(self, stream: str) -> int:
        return int(self._run("stream", "info", stream)["records"])

    def stream_trim(self, stream: str, max_len: int, *, dry_run: bool = False) -> int:
        words = ["--maxlen", max_len, *(["--dry-run"] if dry_run else [])]
        return int(self._run("stream", "trim", stream, *words)["trimmed"])

    def stream_delete(self, stream: str, *, force: bool = False) -> None:
        self._run("stream", "delete", stream, *(["--force"] if force else []))

    # -- groups

    def group_join(self, stream: str, group: str, consumer: str) -> None:
        self._run("stream", "group", "join", stream, group, consumer)

    def group_leave(self, stream: str, group: str, consumer: str) -> None:
        self._run("stream", "group", "leave", stream, "-g", group, "-c", consumer)

    def group_read(self, stream: str, group: str, consumer: str, count: int = 10) -> list[str]:
        found = self._run("stream", "group", "read", stream, "-g", group, "-c", consumer, "--limit", count)
        return [each["payload"] for each in found]

    def group_ack(self, stream: str, group: str, ids: Sequence[str]) -> None:
        self._run("stream", "group", "ack", stream, "-g", group, "--ids", ",".join(ids))

    def group_nack(self, stream: str, group: str, ids: Sequence[str]) -> None:
        self._run("stream", "group", "nack", stream, "-g", group, "--ids", ",".join(ids))
