"""Decisions on what flows do with keys, queues and streams: the machines that every other client uses, exactly once.

The effect of an action and the record that the flow has done it stand in one command, so in one frame. What may wait
(`kv.wait`, `queue.dequeue`, `stream.read`, `stream.group_read`) is asked, an open action of the run; the grid puts it
in line with the waiting clients and has `serve` try again when there may be something for it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from flo.primitives.group_rules import no_group
from flo.primitives.groups import Groups
from flo.primitives.kv import KV
from flo.primitives.kv_rules import DEFAULT_NAMESPACE as NS
from flo.primitives.kv_txn import TxnDelete, TxnIncr, TxnOp, TxnPut, TxnTouch, check_size
from flo.primitives.limits import PAYLOAD_HARD_BYTES
from flo.primitives.machine import Event, Refused
from flo.primitives.queue_pages import Message
from flo.primitives.queues import Queues
from flo.primitives.run import nothing
from flo.primitives.stream_pages import Delivered, NewRecord, Placed, Record
from flo.primitives.stream_rules import format_id, parse_end, parse_id, parse_start
from flo.primitives.streams import Streams

if TYPE_CHECKING:
    from flo.primitives.run_actions import Ask

Effect: TypeAlias = tuple[list[Event], Any]  # what changes, and the action's value
Load: TypeAlias = Callable[[Sequence[Placed] | Sequence[Delivered]], list[Record] | None]

GROWING: Final = frozenset({
    "kv.put", "kv.incr", "kv.json_set", "kv.transaction", "queue.enqueue", "stream.append", "stream.group_join",
})  # what is refused when memory is short  # fmt: skip
KEY_SHOWN: Final = 100  # characters of a name in an error

_json = msgspec.json.Encoder().encode


class PayloadsAway(Exception):
    """The payloads of these records are not in memory: load them without the lock and decide again."""

    def __init__(self, records: Sequence[Placed] | Sequence[Delivered]) -> None:
        super().__init__(f"{len(records)} records are not in memory")
        self.records = records


class _Key(msgspec.Struct):
    key: str


class _Keys(msgspec.Struct):
    keys: list[str]


class _Incr(msgspec.Struct):
    key: str
    by: int = 1


class _Put(msgspec.Struct):
    key: str
    value: str
    ttl: int | None = None
    nx: bool = False
    xx: bool = False
    cas: int | None = None
    keep_ttl: bool = False


class _Delete(msgspec.Struct):
    key: str
    if_match: int | None = None


class _Touch(msgspec.Struct):
    key: str
    ttl: int = 0
    if_match: int | None = None


class _Scan(msgspec.Struct):
    prefix: str = ""
    limit: int = 100
    cursor: str | None = None


class _History(msgspec.Struct):
    key: str
    limit: int = 10


class _Json(msgspec.Struct):
    key: str
    path: str = "$"
    value: msgspec.Raw = msgspec.Raw(b"null")
    ttl: int | None = None
    cas: int | None = None


class _Wait(msgspec.Struct):
    key: str
    after: int | None = None  # a version: wait for a newer one; None: wait until the key exists
    timeout: int | None = None


class _Write(msgspec.Struct):
    op: str
    key: str
    value: str = ""
    by: int = 1
    ttl: int = 0
    nx: bool = False
    xx: bool = False
    cas: int | None = None
    if_match: int | None = None


class _Writes(msgspec.Struct):
    writes: list[_Write]


class _Enqueue(msgspec.Struct):
    queue: str
    payload: str
    priority: int = 0
    delay_ms: int = 0
    dedup_key: str | None = None


class _Dequeue(msgspec.Struct):
    queue: str
    count: int = 1
    visibility_timeout_ms: int = 0
    timeout: int | None = 0


class _Seqs(msgspec.Struct):
    queue: str
    seqs: list[int]
    to_dlq: bool = False
    delay_ms: int = 0
    extend_ms: int = 0


class _Of(msgspec.Struct):
    queue: str
    limit: int = 100
    count: int = 1


class _Append(msgspec.Struct):
    stream: str
    payload: str
    headers: dict[str, str] = {}
    partition: int | None = None
    partition_key: str | None = None


class _Read(msgspec.Struct):
    stream: str
    start: str | None = None
    end: str | None = None
    after: str | None = None
    tail: bool = False
    partition: int | None = None
    count: int = 10
    timeout: int | None = 0


class _Trim(msgspec.Struct):
    stream: str
    max_len: int | None = None
    max_age_seconds: int | None = None
    max_bytes: int | None = None
    before: str | None = None
    dry_run: bool = False


class _Stream(msgspec.Struct):
    stream: str


class _Consumer(msgspec.Struct):
    stream: str
    group: str
    consumer: str
    count: int = 10
    timeout: int | None = 0


class _Ids(msgspec.Struct):
    stream: str
    group: str
    ids: list[str]
    consumer: str = ""
    redelivery_delay_ms: int | None = None


def _decoder(type_: type[msgspec.Struct]) -> Callable[[str], Any]:
    return msgspec.json.Decoder(type_).decode


_key = _decoder(_Key)
_keys = _decoder(_Keys)
_incr = _decoder(_Incr)
_put = _decoder(_Put)
_delete = _decoder(_Delete)
_touch = _decoder(_Touch)
_scan = _decoder(_Scan)
_history = _decoder(_History)
_json_params = _decoder(_Json)
_wait = _decoder(_Wait)
_writes = _decoder(_Writes)
_enqueue = _decoder(_Enqueue)
_dequeue = _decoder(_Dequeue)
_seqs = _decoder(_Seqs)
_of = _decoder(_Of)
_append = _decoder(_Append)
_read = _decoder(_Read)
_trim = _decoder(_Trim)
_stream = _decoder(_Stream)
_consumer = _decoder(_Consumer)
_ids = _decoder(_Ids)


class StorageActions:
    """`perform` decides an action at once: its events and its value. `waits` tells whether it should wait instead."""

    def __init__(self, kv: KV, queues: Queues, streams: Streams, groups: Groups) -> None:
        self._kv = kv
        self._queues = queues
        self._streams = streams
        self._groups = groups
        self._handlers: dict[str, Callable[[Ask], Effect]] = {
            "kv.get": self._kv_get,
            "kv.put": self._kv_put,
            "kv.delete": self._kv_delete,
            "kv.incr": self._kv_incr,
            "kv.scan": self._kv_scan,
            "kv.exists": self._kv_exists,
            "kv.mget": self._kv_mget,
            "kv.touch": self._kv_touch,
            "kv.persist": self._kv_touch,
            "kv.history": self._kv_history,
            "kv.json_get": self._kv_json_get,
            "kv.json_set": self._kv_json_set,
            "kv.json_del": self._kv_json_del,
            "kv.transaction": self._kv_transaction,
            "kv.wait": self._kv_wait,
            "queue.enqueue": self._enqueue,
            "queue.dequeue": self._dequeue,
            "queue.ack": self._ack,
            "queue.nack": self._nack,
            "queue.touch": self._touch_messages,
            "queue.peek": self._peek,
            "queue.dlq_list": self._dlq_list,
            "queue.dlq_requeue": self._dlq_requeue,
            "stream.append": self._append,
            "stream.read": self._read,
            "stream.info": self._info,
            "stream.trim": self._trim,
            "stream.group_join": self._group_join,
            "stream.group_leave": self._group_leave,
            "stream.group_read": self._group_read,
            "stream.group_ack": self._group_ack,
            "stream.group_nack": self._group_nack,
        }
        self.kinds = frozenset(self._handlers)

    def perform(self, a: Ask) -> Effect:
        """The events of the action and its value. Raises Refused, msgspec.ValidationError for its parameters, and
        PayloadsAway."""
        return self._handlers[a.kind](a)

    def is_empty(self, kind: str, value: Any) -> bool:
        """Whether an action that may wait has come to nothing so far."""
        if kind == "kv.wait":
            return value is None
        if kind == "stream.read":
            return not value["records"]
        return not value

    def timeout(self, kind: str, params: str) -> int | None:
        """How long the action may wait in ms, None for as long as it takes, 0 not at all."""
        timeout: int | None
        if kind == "kv.wait":
            timeout = _wait(params).timeout
        elif kind == "queue.dequeue":
            timeout = _dequeue(params).timeout
        elif kind == "stream.read":
            timeout = _read(params).timeout
        else:
            timeout = _consumer(params).timeout
        return timeout

    def topic(self, kind: str, params: str) -> tuple[str, str, bytes | str]:
        """The line in which the action waits (flo.grid.waiters)."""
        if kind == "kv.wait":
            return "kv", NS, _wait(params).key.encode()
        if kind == "queue.dequeue":
            return "queue", NS, _dequeue(params).queue
        return "stream", NS, _stream(params).stream

    def member(self, params: str) -> tuple[str, str, str, str]:
        """Namespace, stream, group and consumer of an action in a consumer group."""
        p = _consumer(params)
        return NS, p.stream, p.group, p.consumer

    def is_there(self, kind: str, params: str) -> bool:
        """Whether the stream or the group that the action reads from exists."""
        if kind == "stream.read":
            return self._streams.find(NS, _stream(params).stream) is not None
        if kind == "stream.group_read":
            p = _consumer(params)
            return self._groups.settings(NS, p.stream, p.group) is not None
        return True

    def without(self, a: Ask) -> str:
        """The outcome of an action that waits when what it reads from is deleted. Raises Refused."""
        if a.kind == "stream.read":
            return nothing(a.kind, a.params)
        p = _consumer(a.params)
        raise no_group(p.stream, p.group)

    def settled(self, a: Ask, value: Any) -> str:
        """The parameters as they are kept while the action waits: a read goes on where it began, wherever the end of
        the stream is by then."""
        if a.kind != "stream.read":
            return a.params
        p = _read(a.params)
        p.tail, p.start, p.after = False, None, value["next"]
        return _json(p).decode()

    def answer(self, kind: str, value: Any) -> str:
        """The outcome of an action with this value. Raises Refused for one that no flow may be given."""
        encoded = _json(value)
        if len(encoded) > PAYLOAD_HARD_BYTES:
            text = f"the result of {len(encoded)} bytes is over the limit of {PAYLOAD_HARD_BYTES}: ask for less"
            raise Refused("too_large", text)
        return "+" + encoded.decode()

    # -- keys and values

    def _kv_get(self, a: Ask) -> Effect:
        entry = self._kv.get(a.now, NS, _key(a.params).key.encode())
        return [], None if entry is None else text(entry.value)

    def _kv_put(self, a: Ask) -> Effect:
        p = _put(a.params)
        event = self._kv.decide_put(
            a.now, a.first, NS, p.key.encode(), p.value.encode(), ttl_ms=p.ttl or 0, nx=p.nx, xx=p.xx, cas=p.cas,
            keep_ttl=p.keep_ttl,
        )  # fmt: skip
        return [event], a.first

    def _kv_delete(self, a: Ask) -> Effect:
        p = _delete(a.params)
        return [self._kv.decide_delete(a.now, a.first, NS, p.key.encode(), if_match=p.if_match)], a.first

    def _kv_incr(self, a: Ask) -> Effect:
        p = _incr(a.params)
        event = self._kv.decide_incr(a.now, a.first, NS, p.key.encode(), p.by)
        return [event], event.value

    def _kv_scan(self, a: Ask) -> Effect:
        p = _scan(a.params)
        page = self._kv.scan(a.now, NS, p.prefix.encode(), p.limit, p.cursor or "")
        rows = [_with_value({"key": text(row.key), "version": row.version}, row.value) for row in page.rows]
        return [], {"entries": rows, "cursor": page.cursor or None, "has_more": page.has_more}

    def _kv_exists(self, a: Ask) -> Effect:
        return [], self._kv.exists(a.now, NS, _key(a.params).key.encode())

    def _kv_mget(self, a: Ask) -> Effect:
        many = self._kv.mget(a.now, NS, [key.encode() for key in _keys(a.params).keys])
        if many.truncated:
            raise Refused("too_large", "the values are over 1 MiB together: ask for fewer keys")
        return [], [
            _with_value({"key": text(e.key), "version": e.version, "found": e.found}, e.value if e.found else None)
            for e in many.entries
        ]

    def _kv_touch(self, a: Ask) -> Effect:
        p = _touch(a.params)
        ttl = p.ttl if a.kind == "kv.touch" else 0
        return [self._kv.decide_touch(a.now, a.first, NS, p.key.encode(), ttl, if_match=p.if_match)], None

    def _kv_history(self, a: Ask) -> Effect:
        p = _history(a.params)
        versions = self._kv.history(a.now, NS, p.key.encode(), p.limit)
        if not versions:
            raise Refused("not_found", "key not found")
        return [], [
            _with_value({"version": v.version, "timestamp_ms": v.timestamp_ms, "tombstone": v.tombstone}, v.value)
            for v in versions
        ]

    def _kv_json_get(self, a: Ask) -> Effect:
        p = _json_params(a.params)
        node = self._kv.jget(a.now, NS, p.key.encode(), p.path)
        return [], None if node is None else msgspec.Raw(node.json)

    def _kv_json_set(self, a: Ask) -> Effect:
        p = _json_params(a.params)
        event = self._kv.decide_jset(
            a.now, a.first, NS, p.key.encode(), p.path, bytes(p.value), ttl_ms=p.ttl or 0, cas=p.cas
        )
        return [event], a.first

    def _kv_json_del(self, a: Ask) -> Effect:
        p = _json_params(a.params)
        return [self._kv.decide_jdel(a.now, a.first, NS, p.key.encode(), p.path, cas=p.cas)], a.first

    def _kv_transaction(self, a: Ask) -> Effect:
        ops = [_txn_op(write) for write in _writes(a.params).writes]
        check_size(ops)
        event = self._kv.decide_commit(a.now, a.first, NS, ops)
        return [] if event is None else [event], {"commit_index": a.first, "op_count": len(ops)}

    def _kv_wait(self, a: Ask) -> Effect:
        p = _wait(a.params)
        key = p.key.encode()
        if p.after is not None and self._kv.latest(NS, key) <= p.after:
            return [], None
        entry = self._kv.get(a.now, NS, key)
        return [], None if entry is None else {"value": text(entry.value), "version": entry.version}

    # -- queues

    def _enqueue(self, a: Ask) -> Effect:
        p = _enqueue(a.params)
        events, enqueued = self._queues.decide_enqueue(
            a.now, a.first, NS, p.queue, p.payload.encode(), priority=p.priority, delay_ms=p.delay_ms,
            dedup_key=(p.dedup_key or "").encode(),
        )  # fmt: skip
        return events, enqueued.seq

    def _dequeue(self, a: Ask) -> Effect:
        p = _dequeue(a.params)
        events, messages = self._queues.decide_dequeue(
            a.now, a.first, NS, p.queue, p.count, visibility_ms=p.visibility_timeout_ms
        )
        return events, [_message(message) for message in messages]

    def _ack(self, a: Ask) -> Effect:
        p = _seqs(a.params)
        events, settled = self._queues.decide_ack(a.now, a.first, NS, p.queue, p.seqs)
        return events, {"count": settled.count, "missing": settled.missing}

    def _nack(self, a: Ask) -> Effect:
        p = _seqs(a.params)
        events, settled = self._queues.decide_nack(
            a.now, a.first, NS, p.queue, p.seqs, dlq=p.to_dlq, delay_ms=p.delay_ms
        )
        return events, {"count": settled.count, "missing": settled.missing}

    def _touch_messages(self, a: Ask) -> Effect:
        p = _seqs(a.params)
        events, settled = self._queues.decide_touch(a.now, a.first, NS, p.queue, p.seqs, extend_ms=p.extend_ms)
        return events, {"count": settled.count, "missing": settled.missing}

    def _peek(self, a: Ask) -> Effect:
        p = _of(a.params)
        return [], [_message(message) for message in self._queues.peek(a.now, NS, p.queue, p.count)]

    def _dlq_list(self, a: Ask) -> Effect:
        p = _of(a.params)
        return [], [
            _with_payload(
                {"seq": e.seq, "priority": e.priority, "attempts": e.attempts, "moved_at": e.moved_at,
                 "reason": e.reason},
                e.payload,
            )
            for e in self._queues.dlq_list(a.now, NS, p.queue, p.limit, "").entries
        ]  # fmt: skip

    def _dlq_requeue(self, a: Ask) -> Effect:
        p = _seqs(a.params)
        events, settled = self._queues.decide_dlq_requeue(a.now, a.first, NS, p.queue, p.seqs)
        return events, {"count": settled.count, "missing": settled.missing}

    # -- streams

    def _append(self, a: Ask) -> Effect:
        p = _append(a.params)
        headers = tuple((name.encode(), value.encode()) for name, value in p.headers.items())
        events, appended = self._streams.decide_append(
            a.now, a.first, NS, p.stream, [NewRecord(p.payload.encode(), headers)], partition=p.partition,
            key=None if p.partition_key is None else p.partition_key.encode(),
        )  # fmt: skip
        return events, format_id(appended.first)

    def _read(self, a: Ask) -> Effect:
        p = _read(a.params)
        start = None if p.start is None else parse_start(p.start)
        after = None if p.after is None else parse_id(p.after)
        if p.tail or (p.start is not None and start is None):
            start, after = None, self._streams.tail_id(NS, p.stream)
        page = self._streams.read(
            a.now, NS, p.stream, start=start, end=None if p.end is None else parse_end(p.end), after=after,
            limit=p.count, partition=p.partition,
        )  # fmt: skip
        records = self._loaded(a, page.records)
        return [], {"records": records, "next": format_id(page.next), "has_more": page.has_more}

    def _info(self, a: Ask) -> Effect:
        info = self._streams.info(a.now, NS, _stream(a.params).stream)
        if info is None:
            raise Refused("not_found", "stream not found")
        return [], {
            "first": None if info.first is None else format_id(info.first),
            "last": None if info.last is None else format_id(info.last),
            "count": info.records, "bytes": info.bytes, "partitions": len(info.partitions),
        }  # fmt: skip

    def _trim(self, a: Ask) -> Effect:
        p = _trim(a.params)
        events, trimmed = self._streams.decide_trim(
            a.now, a.first, NS, p.stream, max_records=p.max_len, max_bytes=p.max_bytes,
            max_age_ms=None if p.max_age_seconds is None else p.max_age_seconds * 1000,
            before=None if p.before is None else parse_id(p.before), dry_run=p.dry_run,
        )  # fmt: skip
        return events, trimmed.count

    def _group_join(self, a: Ask) -> Effect:
        p = _consumer(a.params)
        events, _ = self._groups.decide_join(a.now, a.first, NS, p.stream, p.group, p.consumer)
        return events, None

    def _group_leave(self, a: Ask) -> Effect:
        p = _consumer(a.params)
        events, _ = self._groups.decide_leave(a.now, a.first, NS, p.stream, p.group, p.consumer)
        return events, None

    def _group_read(self, a: Ask) -> Effect:
        p = _consumer(a.params)
        events, delivered = self._groups.decide_read(a.now, a.first, NS, p.stream, p.group, p.consumer, p.count)
        return events, self._loaded(a, delivered)

    def _group_ack(self, a: Ask) -> Effect:
        p = _ids(a.params)
        ids = [parse_id(id) for id in p.ids]
        events, count = self._groups.decide_ack(a.now, a.first, NS, p.stream, p.group, ids, p.consumer)
        return events, count

    def _group_nack(self, a: Ask) -> Effect:
        p = _ids(a.params)
        ids = [parse_id(id) for id in p.ids]
        events, count = self._groups.decide_nack(
            a.now, a.first, NS, p.stream, p.group, ids, delay_ms=p.redelivery_delay_ms, consumer=p.consumer
        )
        return events, count

    def _loaded(self, a: Ask, placed: Sequence[Placed] | Sequence[Delivered]) -> list[dict[str, Any]]:
        if not placed:
            return []
        records = a.load(placed) if a.load is not None else None
        if records is None:
            raise PayloadsAway(placed)
        return [
            _with_payload(
                {
                    "id": format_id((r.ms, r.seq)), "timestamp_ms": r.ms, "partition": r.partition,
                    "headers": {_readable(name): _readable(value) for name, value in r.headers},
                    "delivery_count": r.delivery_count,
                },
                r.payload,
            )
            for r in records
        ]  # fmt: skip


def named(a: Ask) -> str:
    """The action with the key, queue or stream that it is about, for the store's messages, which do not name it."""
    found = _Named.decode(a.params)
    name = found.key or found.queue or found.stream
    if not name:
        return a.kind
    return f"{a.kind} {name!r}" if len(name) <= KEY_SHOWN else f"{a.kind} {name[:KEY_SHOWN]!r}…"


class _Name(msgspec.Struct):
    key: str = ""
    queue: str = ""
    stream: str = ""


_Named = msgspec.json.Decoder(_Name)


def text(data: bytes) -> str:
    """What a flow can hold of stored bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refused("bad_argument", "the stored bytes are not UTF-8, and a flow can hold text only") from None


def _txn_op(write: _Write) -> TxnOp:
    key = write.key.encode()
    if write.op == "put":
        return TxnPut(key, write.value.encode(), write.ttl, write.nx, write.xx, write.cas)
    if write.op == "incr":
        return TxnIncr(key, write.by)
    if write.op == "delete":
        return TxnDelete(key, write.if_match)
    if write.op == "touch":
        return TxnTouch(key, write.ttl, write.if_match)
    raise Refused("bad_argument", f"{write.op!r} is none of put, incr, delete, touch")


def _message(message: Message) -> dict[str, Any]:
    return _with_payload(
        {
            "seq": message.seq, "priority": message.priority, "enqueued_at": message.enqueued_at,
            "delivery_count": message.delivery_count,
        },
        message.payload,
    )  # fmt: skip


def _with_payload(shown: dict[str, Any], payload: bytes) -> dict[str, Any]:
    return _with_bytes(shown, "payload", payload)


def _with_value(shown: dict[str, Any], value: bytes | None) -> dict[str, Any]:
    if value is None:
        shown["value"] = None
        return shown
    return _with_bytes(shown, "value", value)


def _with_bytes(shown: dict[str, Any], name: str, data: bytes) -> dict[str, Any]:
    """Bytes that are no text come as base64, under another name."""
    try:
        shown[name] = data.decode()
    except UnicodeDecodeError:
        shown[name] = None
        shown[f"{name}_b64"] = b64encode(data).decode()
    return shown


def _readable(data: bytes) -> str:
    """A header as a flow sees it; what is no text in it stands as \\xNN, so that a record can always be read."""
    return data.decode(errors="backslashreplace")
