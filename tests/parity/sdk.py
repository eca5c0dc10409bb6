"""FloClient."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from flo import FloClient
from flo.api.errors import FloError
from flo.client import sdk_errors
from flo.client.options import (
    AckOptions,
    CallOptions,
    DeleteOptions,
    DequeueOptions,
    DlqListOptions,
    DlqRequeueOptions,
    EnqueueOptions,
    GetOptions,
    HistoryOptions,
    KVExistsOptions,
    KVIncrOptions,
    KVJsonOptions,
    KVPersistOptions,
    KVTouchOptions,
    MGetOptions,
    NackOptions,
    NewStreamRecord,
    PeekOptions,
    PutOptions,
    QueueTouchOptions,
    ScanOptions,
    StreamAppendOptions,
    StreamDeleteOptions,
    StreamGroupAckOptions,
    StreamGroupJoinOptions,
    StreamGroupLeaveOptions,
    StreamGroupNackOptions,
    StreamGroupReadOptions,
    StreamInfoOptions,
    StreamReadOptions,
    StreamTrimOptions,
    TransactionOptions,
)
from tests.parity.surface import Refused, json_of

T = TypeVar("T")


def kind_of(error: FloError) -> str:
    for cls, kind in (
        (sdk_errors.NotFoundError, "not_found"),
        (sdk_errors.ConflictError, "conflict"),
        (sdk_errors.UnauthorizedError, "unauthorized"),
        (sdk_errors.BadRequestError, "bad_request"),
        (sdk_errors.ValidationError, "bad_request"),  # found before it is sent
    ):
        if isinstance(error, cls):
            return kind
    if isinstance(error, sdk_errors.GenericServerError) and error.status_code == 4:
        return "cross_core_transaction"
    raise error


class SdkDriver:
    name = "sdk"
    ns = "default"

    def __init__(self, port: int) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(FloClient(f"127.0.0.1:{port}").connect())

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(work)
        except FloError as error:
            raise Refused(kind_of(error)) from error

    # -- keys

    def kv_put(
        self, key: str, value: str, *, ttl_s: int | None = None, nx: bool = False, xx: bool = False,
        cas: int | None = None,
    ) -> int:  # fmt: skip
        options = PutOptions(
            ttl_seconds=ttl_s, cas_version=cas, if_not_exists=nx, if_exists=xx, namespace=self.ns
        )  # fmt: skip
        return self._do(self._client.kv.put(key, value, options)).version

    def kv_get(self, key: str) -> str | None:
        found = self._do(self._client.kv.get(key, GetOptions(namespace=self.ns)))
        return None if found is None else found.value.decode()

    def kv_delete(self, key: str, *, if_match: int | None = None) -> None:
        self._do(self._client.kv.delete(key, DeleteOptions(if_match=if_match, namespace=self.ns)))

    def kv_incr(self, key: str, by: int = 1) -> int:
        return self._do(self._client.kv.incr(key, KVIncrOptions(delta=by, namespace=self.ns)))

    def kv_exists(self, key: str) -> bool:
        return self._do(self._client.kv.exists(key, KVExistsOptions(namespace=self.ns)))

    def kv_mget(self, keys: Sequence[str]) -> list[str | None]:
        found = self._do(self._client.kv.mget(keys, MGetOptions(namespace=self.ns)))
        return [each.value.decode() if each.found else None for each in found]

    def kv_scan(self, prefix: str, limit: int) -> dict[str, Any]:
        page = self._do(self._client.kv.scan(prefix, ScanOptions(limit=limit, namespace=self.ns)))
        return {"entries": [[each.key, each.value.decode()] for each in page.entries], "more": page.has_more}

    def kv_history(self, key: str) -> list[str | None]:
        found = self._do(self._client.kv.versions(key, HistoryOptions(namespace=self.ns)))
        return [None if each.tombstone else each.value.decode() for each in found]

    def kv_touch(self, key: str, ttl_s: int) -> None:
        self._do(self._client.kv.touch(key, ttl_s, KVTouchOptions(namespace=self.ns)))

    def kv_persist(self, key: str) -> None:
        self._do(self._client.kv.persist(key, KVPersistOptions(namespace=self.ns)))

    def kv_json_set(self, key: str, path: str, json: str) -> None:
        self._do(self._client.kv.json_set(key, path, json.encode(), KVJsonOptions(namespace=self.ns)))

    def kv_json_get(self, key: str, path: str) -> Any:
        found = self._do(self._client.kv.json_get(key, path, KVJsonOptions(namespace=self.ns)))
        return None if found is None else json_of(found.value)

    def kv_json_del(self, key: str, path: str) -> None:
        self._do(self._client.kv.json_del(key, path, KVJsonOptions(namespace=self.ns)))

    def kv_transaction(self, routing_key: str, writes: Sequence[Sequence[Any]]) -> int:
        async def write() -> int:
            async with await self._client.kv.begin(routing_key, TransactionOptions(namespace=self.ns)) as txn:
                for op, key, *rest in writes:
                    if op == "incr":
                        await txn.incr(key, KVIncrOptions(delta=rest[0]))
                    else:
                        await getattr(txn, op)(key, *rest)
                return (await txn.commit()).op_count

        return self._do(write())

    # -- queues

    def queue_enqueue(
        self, queue: str, payload: str, *, priority: int = 0, delay_ms: int = 0, dedup_key: str | None = None
    ) -> int:
        options = EnqueueOptions(priority=priority, delay_ms=delay_ms, dedup_key=dedup_key, namespace=self.ns)
        return self._do(self._client.queue.enqueue(queue, payload, options))

    def queue_dequeue(self, queue: str, count: int = 1, *, visibility_ms: int = 30_000) -> list[list[Any]]:
        options = DequeueOptions(visibility_timeout_ms=visibility_ms, namespace=self.ns)
        return [[m.seq, m.payload.decode()] for m in self._do(self._client.queue.dequeue(queue, count, options))]

    def queue_peek(self, queue: str, count: int) -> list[list[Any]]:
        found = self._do(self._client.queue.peek(queue, count, PeekOptions(namespace=self.ns)))
        return [[m.seq, m.payload.decode()] for m in found]

    def queue_ack(self, queue: str, seqs: Sequence[int]) -> None:
        self._do(self._client.queue.ack(queue, seqs, AckOptions(namespace=self.ns)))

    def queue_nack(self, queue: str, seqs: Sequence[int], *, dlq: bool = False) -> None:
        self._do(self._client.queue.nack(queue, seqs, NackOptions(to_dlq=dlq, namespace=self.ns)))

    def queue_touch(self, queue: str, seqs: Sequence[int]) -> None:
        self._do(self._client.queue.touch(queue, seqs, QueueTouchOptions(namespace=self.ns)))

    def queue_dlq_list(self, queue: str) -> list[list[Any]]:
        found = self._do(self._client.queue.dlq_list(queue, DlqListOptions(namespace=self.ns)))
        return [[m.seq, m.payload.decode()] for m in found.messages]

    def queue_dlq_requeue(self, queue: str, seqs: Sequence[int]) -> None:
        self._do(self._client.queue.dlq_requeue(queue, seqs, DlqRequeueOptions(namespace=self.ns)))

    def queue_purge(self, queue: str) -> int:
        return self._do(self._client.queue.purge(queue, CallOptions(namespace=self.ns)))

    def queue_stats(self, queue: str) -> dict[str, int]:
        found = self._do(self._client.queue.stats(queue, CallOptions(namespace=self.ns)))
        return {"pending": found.pending, "available": found.available, "enqueued": found.enqueued}

    # -- streams

    def stream_append(
        self, stream: str, payload: str, *, headers: Mapping[str, str] | None = None, partition: int | None = None
    ) -> str:
        options = StreamAppendOptions(headers=headers or {}, partition=partition, namespace=self.ns)
        return str(self._do(self._client.stream.append(stream, payload, options)).id)

    def stream_append_many(self, stream: str, payloads: Sequence[str]) -> str:
        records = [NewStreamRecord(payload) for payload in payloads]
        options = StreamAppendOptions(namespace=self.ns)
        return str(self._do(self._client.stream.append_many(stream, records, options)).first_id)

    def stream_read(
        self, stream: str, *, start: str | None = None, end: str | None = None, after: str | None = None,
        tail: bool = False, count: int = 10,
    ) -> list[list[Any]]:  # fmt: skip
        options = StreamReadOptions(start=start, end=end, after=after, tail=tail, count=count, namespace=self.ns)
        found = self._do(self._client.stream.read(stream, options))
        return [[record.payload.decode(), record.headers] for record in found.records]

    def stream_info(self, stream: str) -> int:
        return self._do(self._client.stream.info(stream, StreamInfoOptions(namespace=self.ns))).count

    def stream_trim(self, stream: str, max_len: int, *, dry_run: bool = False) -> int:
        options = StreamTrimOptions(max_len=max_len, dry_run=dry_run, namespace=self.ns)
        return self._do(self._client.stream.trim(stream, options)).trimmed

    def stream_delete(self, stream: str, *, force: bool = False) -> None:
        self._do(self._client.stream.delete(stream, StreamDeleteOptions(force=force, namespace=self.ns)))

    # -- groups

    def group_join(self, stream: str, group: str, consumer: str) -> None:
        self._do(self._client.stream.group_join(stream, group, consumer, StreamGroupJoinOptions(namespace=self.ns)))

    def group_leave(self, stream: str, group: str, consumer: str) -> None:
        self._do(self._client.stream.group_leave(stream, group, consumer, StreamGroupLeaveOptions(namespace=self.ns)))

    def group_read(self, stream: str, group: str, consumer: str, count: int = 10) -> list[str]:
        options = StreamGroupReadOptions(count=count, namespace=self.ns)
        found = self._do(self._client.stream.group_read(stream, group, consumer, options))
        return [record.payload.decode() for record in found.records]

    def group_ack(self, stream: str, group: str, ids: Sequence[str]) -> None:
        self._do(self._client.stream.group_ack(stream, group, ids, StreamGroupAckOptions(namespace=self.ns)))

    def group_nack(self, stream: str, group: str, ids: Sequence[str]) -> None:
        self._do(self._client.stream.group_nack(stream, group, ids, StreamGroupNackOptions(namespace=self.ns)))
