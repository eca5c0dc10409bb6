"""The binary protocol, as the official SDKs speak it (dialect D2)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flo.primitives.stream_pages import NewRecord
from flo.primitives.stream_rules import format_id, parse_id
from flo.wire import layouts_kv, layouts_queue, layouts_stream, opcodes, statuses, tlv
from flo.wire.frames import Reply, ReplyScanner, encode_request
from flo.wire.layouts import i64, str16, u32, u64
from tests.parity.surface import Refused, json_of

KINDS = {
    statuses.NOT_FOUND: "not_found",
    statuses.BAD_REQUEST: "bad_request",
    statuses.CONFLICT: "conflict",
    statuses.UNAUTHORIZED: "unauthorized",
    statuses.CROSS_PARTITION: "cross_core_transaction",
}

Options = dict[int, bytes]
Exchange = Callable[[int, bytes, bytes, Options, str], Reply]


class Socket:
    """One connection, a request at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._scanner = ReplyScanner()
        self._id = 0

    def __call__(self, opcode: int, key: bytes, value: bytes, options: Options, ns: str) -> Reply:
        self._id += 1
        self._socket.sendall(encode_request(opcode, self._id, ns, key, value, options))
        while True:
            data = self._socket.recv(262_144)
            assert data, "the server has closed"
            for reply in self._scanner.feed(data):
                assert reply.request_id == self._id
                return reply

    def close(self) -> None:
        self._socket.close()


class WireDriver:
    name = "wire"
    ns = "default"

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def _body(self, opcode: int, key: str, value: bytes = b"", options: Options | None = None) -> bytes:
        reply = self._exchange(opcode, key.encode(), value, options or {}, self.ns)
        if reply.status != statuses.OK:
            raise Refused(KINDS[reply.status])
        return reply.body

    def _body_or_none(self, opcode: int, key: str, value: bytes = b"") -> bytes | None:
        try:
            return self._body(opcode, key, value)
        except Refused as refused:
            if refused.refusal.kind == "not_found":
                return None
            raise

    # -- keys

    def kv_put(
        self, key: str, value: str, *, ttl_s: int = 0, nx: bool = False, xx: bool = False, cas: int | None = None,
        txn: int = 0,
    ) -> int:  # fmt: skip
        options: Options = {}
        if ttl_s:
            options[tlv.TTL_SECONDS] = u64(ttl_s)
        if nx:
            options[tlv.IF_NOT_EXISTS] = b""
        if xx:
            options[tlv.IF_EXISTS] = b""
        if cas is not None:
            options[tlv.CAS_VERSION] = u64(cas)
        if txn:
            options[tlv.TRANSACTION] = u64(txn)
        return layouts_kv.decode_version(self._body(opcodes.KV_PUT, key, value.encode(), options))

    def kv_get(self, key: str) -> str | None:
        body = self._body_or_none(opcodes.KV_GET, key)
        return None if body is None else layouts_kv.decode_value(body)[1].decode()

    def version(self, key: str) -> int:
        return layouts_kv.decode_value(self._body(opcodes.KV_GET, key))[0]

    def kv_delete(self, key: str, *, if_match: int | None = None, txn: int = 0) -> None:
        options = {} if if_match is None else {tlv.CAS_VERSION: u64(if_match)}
        if txn:
            options[tlv.TRANSACTION] = u64(txn)
        self._body(opcodes.KV_DELETE, key, b"", options)

    def kv_incr(self, key: str, by: int = 1, *, txn: int = 0) -> int:
        options = {tlv.TRANSACTION: u64(txn)} if txn else {}
        return layouts_kv.decode_counted(self._body(opcodes.KV_INCR, key, i64(by), options), txn != 0)

    def kv_exists(self, key: str) -> bool:
        return layouts_kv.decode_exists(self._body(opcodes.KV_EXISTS, key))

    def kv_mget(self, keys: Sequence[str]) -> list[str | None]:
        value = layouts_kv.encode_keys([key.encode() for key in keys])
        found = layouts_kv.decode_many(self._body(opcodes.KV_MGET, "", value))
        return [each.value.decode() if each.found else None for each in found]

    def kv_scan(self, prefix: str, limit: int) -> dict[str, Any]:
        page = layouts_kv.decode_page(self._body(opcodes.KV_SCAN, prefix, u32(limit)))
        return {"entries": [[row.key.decode(), row.value.decode()] for row in page.rows], "more": page.has_more}

    def kv_history(self, key: str) -> list[str | None]:
        history = layouts_kv.decode_history(self._body(opcodes.KV_HISTORY, key))
        return [None if v.value is None else v.value.decode() for v in history]

    def kv_touch(self, key: str, ttl_s: int) -> None:
        self._body(opcodes.KV_TOUCH, key, u64(ttl_s))

    def kv_persist(self, key: str) -> None:
        self._body(opcodes.KV_PERSIST, key)

    def kv_json_set(self, key: str, path: str, json: str) -> None:
        self._body(opcodes.KV_JSON_SET, key, str16(path.encode()) + json.encode())

    def kv_json_get(self, key: str, path: str) -> Any:
        body = self._body_or_none(opcodes.KV_JSON_GET, key, path.encode())
        return None if body is None else json_of(layouts_kv.decode_value(body)[1])

    def kv_json_del(self, key: str, path: str) -> None:
        self._body(opcodes.KV_JSON_DEL, key, path.encode())

    def kv_transaction(self, routing_key: str, writes: Sequence[Sequence[Any]]) -> int:
        options = {tlv.ROUTING_KEY: routing_key.encode()}
        txn, _ = layouts_kv.decode_begun(self._body(opcodes.KV_BEGIN, routing_key, b"", options))
        inside = {tlv.TRANSACTION: u64(txn)}
        try:
            for op, key, *rest in writes:
                getattr(self, f"kv_{op}")(key, *rest, txn=txn)
        except Refused:
            self._body(opcodes.KV_ROLLBACK, routing_key, b"", inside)
            raise
        return layouts_kv.decode_committed(self._body(opcodes.KV_COMMIT, routing_key, b"", inside))[1]

    # -- queues

    def queue_enqueue(
        self, queue: str, payload: str, *, priority: int = 0, delay_ms: int = 0, dedup_key: str = ""
    ) -> int:
        options: Options = {}
        if priority:
            options[tlv.PRIORITY] = u32(priority)
        if delay_ms:
            options[tlv.DELAY_MS] = u64(delay_ms)
        if dedup_key:
            options[tlv.DEDUP_KEY] = dedup_key.encode()
        return layouts_queue.decode_seq(self._body(opcodes.QUEUE_ENQUEUE, queue, payload.encode(), options))

    def _messages(self, opcode: int, queue: str, options: Options) -> list[list[Any]]:
        found = layouts_queue.decode_messages(self._body(opcode, queue, b"", options))
        return [[seq, payload.decode()] for seq, payload in found]

    def queue_dequeue(self, queue: str, count: int = 1, *, visibility_ms: int = 0) -> list[list[Any]]:
        options = {tlv.COUNT: u32(count)}
        if visibility_ms:
            options[tlv.VISIBILITY_MS] = u32(visibility_ms)
        return self._messages(opcodes.QUEUE_DEQUEUE, queue, options)

    def queue_peek(self, queue: str, count: int) -> list[list[Any]]:
        return self._messages(opcodes.QUEUE_PEEK, queue, {tlv.COUNT: u32(count)})

    def queue_dlq_list(self, queue: str) -> list[list[Any]]:
        return self._messages(opcodes.QUEUE_DLQ_LIST, queue, {})

    def queue_ack(self, queue: str, seqs: Sequence[int]) -> None:
        self._body(opcodes.QUEUE_ACK, queue, layouts_queue.encode_seqs(seqs))

    def queue_nack(self, queue: str, seqs: Sequence[int], *, dlq: bool = False) -> None:
        options = {tlv.SEND_TO_DLQ: b"\1"} if dlq else {}
        self._body(opcodes.QUEUE_NACK, queue, layouts_queue.encode_seqs(seqs), options)

    def queue_touch(self, queue: str, seqs: Sequence[int]) -> None:
        self._body(opcodes.QUEUE_TOUCH, queue, layouts_queue.encode_seqs(seqs))

    def queue_dlq_requeue(self, queue: str, seqs: Sequence[int]) -> None:
        self._body(opcodes.QUEUE_DLQ_REQUEUE, queue, layouts_queue.encode_seqs(seqs))

    def queue_purge(self, queue: str) -> int:
        return int.from_bytes(self._body(opcodes.QUEUE_PURGE, queue), "little")

    def queue_stats(self, queue: str) -> dict[str, int]:
        body = self._body(opcodes.QUEUE_STATS, queue)
        pending, available, _, _, enqueued = (int.from_bytes(body[at : at + 8], "little") for at in range(0, 40, 8))
        return {"pending": pending, "available": available, "enqueued": enqueued}

    # -- streams

    def _append(self, stream: str, records: Sequence[NewRecord], options: Options) -> str:
        body = self._body(opcodes.STREAM_APPEND, stream, layouts_stream.encode_batch(records), options)
        return format_id(layouts_stream.decode_appended(body))

    def stream_append(
        self, stream: str, payload: str, *, headers: Mapping[str, str] | None = None, partition: int | None = None
    ) -> str:
        pairs = tuple((name.encode(), value.encode()) for name, value in (headers or {}).items())
        options = {} if partition is None else {tlv.PARTITION: u32(partition)}
        return self._append(stream, [NewRecord(payload.encode(), pairs)], options)

    def stream_append_many(self, stream: str, payloads: Sequence[str]) -> str:
        return self._append(stream, [NewRecord(payload.encode()) for payload in payloads], {})

    def stream_read(
        self, stream: str, *, start: str = "", end: str = "", after: str = "", tail: bool = False, count: int = 10
    ) -> list[list[Any]]:
        options = {tlv.COUNT: u32(count)}
        if after:
            ms, seq = parse_id(after)
            options[tlv.STREAM_START] = tlv.encode_stream_id((ms, seq + 1))
        if start:
            options[tlv.STREAM_START] = tlv.encode_stream_id(parse_id(start))
        if end:
            options[tlv.STREAM_END] = tlv.encode_stream_id(parse_id(end))
        if tail:
            options[tlv.STREAM_TAIL] = b""
        found = layouts_stream.decode_records(self._body(opcodes.STREAM_READ, stream, b"", options))
        return [
            [record.payload.decode(), {name.decode(): value.decode() for name, value in record.headers}]
            for _, record in found
        ]

    def stream_info(self, stream: str) -> int:
        return layouts_stream.decode_info(self._body(opcodes.STREAM_INFO, stream)).count

    def stream_trim(self, stream: str, max_len: int, *, dry_run: bool = False) -> int:
        options = {tlv.MAX_COUNT: u64(max_len)}
        if dry_run:
            options[tlv.DRY_RUN] = b""
        return layouts_stream.decode_trimmed(self._body(opcodes.STREAM_TRIM, stream, b"", options))

    def stream_delete(self, stream: str, *, force: bool = False) -> None:
        self._body(opcodes.STREAM_DELETE, stream, b"", {tlv.FORCE: b""} if force else {})

    # -- groups

    def group_join(self, stream: str, group: str, consumer: str) -> None:
        self._body(opcodes.GROUP_JOIN, stream, layouts_stream.encode_member(group, consumer))

    def group_leave(self, stream: str, group: str, consumer: str) -> None:
        self._body(opcodes.GROUP_LEAVE, stream, layouts_stream.encode_member(group, consumer))

    def group_read(self, stream: str, group: str, consumer: str, count: int = 10) -> list[str]:
        value = layouts_stream.encode_member(group, consumer)
        body = self._body(opcodes.GROUP_READ, stream, value, {tlv.COUNT: u32(count)})
        return [record.payload.decode() for _, record in layouts_stream.decode_records(body)]

    def group_ack(self, stream: str, group: str, ids: Sequence[str]) -> None:
        value = layouts_stream.encode_ids(group, "", [parse_id(id) for id in ids])
        self._body(opcodes.GROUP_ACK, stream, value)

    def group_nack(self, stream: str, group: str, ids: Sequence[str]) -> None:
        value = layouts_stream.encode_ids(group, "", [parse_id(id) for id in ids])
        self._body(opcodes.GROUP_NACK, stream, value)
