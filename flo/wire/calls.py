"""Our own operation: a call by name, for what the official clients' layouts cannot carry.

    request   opcode 0x0F0, key = the call's name, value = msgpack map of its arguments
    reply     OK: msgpack map of the result; else msgpack map {"message", "code", "details"}

Times are in ms, instants in epoch ms; keys, values, payloads and headers are bytes; stream ids are texts such as
`1700000000123-0`. An argument that is not given has its default. `wait_ms` and `block_ms` 0 mean not to wait; more than
300,000 is refused. Lists have an opaque `cursor`, "" at the end.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

from flo.primitives.kv_pages import Entry, JsonNode, Many, Page, Version
from flo.primitives.queue_pages import (
    DeadLetters,
    DeadLetterStats,
    Enqueued,
    Message,
    NewMessage,
    QueueList,
    QueueStats,
    Settled,
)
from flo.wire.calls_stream import (
    AppendedRecords as AppendedRecords,
)
from flo.wire.calls_stream import (
    Arguments,
)
from flo.wire.calls_stream import (
    ClaimedRecords as ClaimedRecords,
)
from flo.wire.calls_stream import (
    Delivery as Delivery,
)
from flo.wire.calls_stream import (
    GroupAck as GroupAck,
)
from flo.wire.calls_stream import (
    GroupAutoclaim as GroupAutoclaim,
)
from flo.wire.calls_stream import (
    GroupClaim as GroupClaim,
)
from flo.wire.calls_stream import (
    GroupCreate as GroupCreate,
)
from flo.wire.calls_stream import (
    GroupDescription as GroupDescription,
)
from flo.wire.calls_stream import (
    GroupDescriptions as GroupDescriptions,
)
from flo.wire.calls_stream import (
    GroupMember as GroupMember,
)
from flo.wire.calls_stream import (
    GroupNack as GroupNack,
)
from flo.wire.calls_stream import (
    GroupName as GroupName,
)
from flo.wire.calls_stream import (
    GroupPending as GroupPending,
)
from flo.wire.calls_stream import (
    GroupRead as GroupRead,
)
from flo.wire.calls_stream import (
    GroupTouch as GroupTouch,
)
from flo.wire.calls_stream import (
    PendingEntries as PendingEntries,
)
from flo.wire.calls_stream import (
    PendingEntry as PendingEntry,
)
from flo.wire.calls_stream import (
    RecordToAppend as RecordToAppend,
)
from flo.wire.calls_stream import (
    RetentionBounds as RetentionBounds,
)
from flo.wire.calls_stream import (
    StreamAlter as StreamAlter,
)
from flo.wire.calls_stream import (
    StreamAppend as StreamAppend,
)
from flo.wire.calls_stream import (
    StreamCreate as StreamCreate,
)
from flo.wire.calls_stream import (
    StreamDelete as StreamDelete,
)
from flo.wire.calls_stream import (
    StreamDescription as StreamDescription,
)
from flo.wire.calls_stream import (
    StreamDescriptions as StreamDescriptions,
)
from flo.wire.calls_stream import (
    StreamName as StreamName,
)
from flo.wire.calls_stream import (
    StreamRead as StreamRead,
)
from flo.wire.calls_stream import (
    StreamRecord as StreamRecord,
)
from flo.wire.calls_stream import (
    StreamRecords as StreamRecords,
)
from flo.wire.calls_stream import (
    StreamTrim as StreamTrim,
)
from flo.wire.calls_stream import (
    TrimmedRecords as TrimmedRecords,
)

WAIT_MS: Final = 300_000

A = TypeVar("A", bound="Arguments")
R = TypeVar("R")


class Nothing(msgspec.Struct, frozen=True):
    """The result of what is done and has nothing to say."""


class Refusal(msgspec.Struct, frozen=True):
    """The body of a reply that is not OK. `code` is the kind of the refusal, or a finer one of the specification."""

    message: str
    code: str
    details: Any = None


# Keys and values


class KvGet(Arguments):
    """At most one of `wait_ms` (until the key exists) and `block_ms` (for its next version, after `after_version` if
    that is given). A wait that ran out is not_found with details {"timed_out": true, "version": V}: V is what to give
    as `after_version` to go on waiting and miss nothing. `version`: a past one."""

    key: bytes
    wait_ms: int = 0
    block_ms: int = 0
    after_version: int | None = None
    version: int | None = None
    txn: int = 0


class KvPut(Arguments):
    key: bytes
    value: bytes
    ttl_ms: int = 0
    nx: bool = False
    xx: bool = False
    cas: int | None = None
    keep_ttl: bool = False
    routing_key: bytes = b""
    txn: int = 0


class KvDelete(Arguments):
    key: bytes
    if_match: int | None = None
    txn: int = 0


class KvMget(Arguments):
    keys: list[bytes]


class KvScan(Arguments):
    prefix: bytes = b""
    limit: int = 0
    cursor: str = ""
    keys_only: bool = False


class KvHistory(Arguments):
    key: bytes
    limit: int = 10


class KvIncr(Arguments):
    key: bytes
    delta: int = 1
    txn: int = 0


class KvTouch(Arguments):
    """`ttl_ms` 0: the key does not expire."""

    key: bytes
    ttl_ms: int
    if_match: int | None = None
    txn: int = 0


class KvPersist(Arguments):
    key: bytes
    if_match: int | None = None
    txn: int = 0


class KvExists(Arguments):
    key: bytes
    txn: int = 0


class KvJget(Arguments):
    key: bytes
    path: str = "$"


class KvJset(Arguments):
    key: bytes
    json: bytes
    path: str = "$"
    ttl_ms: int = 0
    cas: int | None = None


class KvJdel(Arguments):
    key: bytes
    path: str = "$"
    cas: int | None = None


class KvBegin(Arguments):
    routing_key: bytes


class KvTransaction(Arguments):
    txn_id: int


class Written(msgspec.Struct, frozen=True):
    version: int  # 0 in a transaction


class Counted(msgspec.Struct, frozen=True):
    version: int  # 0 in a transaction
    value: int


class Persisted(msgspec.Struct, frozen=True):
    had_ttl: bool  # false in a transaction


class Exists(msgspec.Struct, frozen=True):
    exists: bool


class History(msgspec.Struct, frozen=True):
    versions: list[Version]  # newest first


class Begun(msgspec.Struct, frozen=True):
    txn_id: int
    pinned_hash: int


class Committed(msgspec.Struct, frozen=True):
    commit_index: int
    op_count: int


class Count(msgspec.Struct, frozen=True):
    count: int


# Queues


class QueueName(Arguments):
    queue: str


class QueueDelete(Arguments):
    queue: str
    force: bool = False


class QueueEnqueue(Arguments):
    queue: str
    payload: bytes
    priority: int = 0
    delay_ms: int = 0
    dedup_key: bytes = b""


class QueueEnqueueMany(Arguments):
    queue: str
    messages: list[NewMessage]


class QueueDequeue(Arguments):
    """`visibility_ms` 0: 30,000. `ack`: what is handed out is gone at once."""

    queue: str
    count: int = 1
    visibility_ms: int = 0
    ack: bool = False
    wait_ms: int = 0


class QueueSeqs(Arguments):
    queue: str
    seqs: list[int]


class QueueNack(Arguments):
    queue: str
    seqs: list[int]
    dlq: bool = False
    delay_ms: int = 0


class QueueTouch(Arguments):
    """`extend_ms` 0: the visibility that each message was taken with."""

    queue: str
    seqs: list[int]
    extend_ms: int = 0


class QueuePeek(Arguments):
    queue: str
    count: int = 1


class QueuePage(Arguments):
    queue: str
    limit: int = 0
    cursor: str = ""


class ListPage(Arguments):
    limit: int = 0
    cursor: str = ""


class EnqueuedMany(msgspec.Struct, frozen=True):
    messages: list[Enqueued]


class Messages(msgspec.Struct, frozen=True):
    messages: list[Message]


# Namespaces, the server


class NamespaceName(Arguments):
    name: str


class NamespaceDelete(Arguments):
    name: str
    force: bool = False


class NoArguments(Arguments):
    """The call takes none."""


class NamespaceCreated(msgspec.Struct, frozen=True):
    created: bool  # false: it was there


class Namespaces(msgspec.Struct, frozen=True):
    namespaces: list[str]


class NamespaceDescription(msgspec.Struct, frozen=True):
    name: str
    keys: int
    queues: int  # a thousand at most are counted, of streams too
    streams: int


class ServerStatus(msgspec.Struct, frozen=True):
    version: str
    time_ms: int
    last_index: int
    durable_index: int
    namespaces: int


class Call(msgspec.Struct, Generic[A, R], frozen=True):
    """A call's name and what it takes and gives."""

    name: str
    arguments: type[A]
    result: type[R]


KV_GET: Final = Call("kv.get", KvGet, Entry)
KV_PUT: Final = Call("kv.put", KvPut, Written)
KV_DELETE: Final = Call("kv.delete", KvDelete, Written)
KV_MGET: Final = Call("kv.mget", KvMget, Many)
KV_SCAN: Final = Call("kv.scan", KvScan, Page)
KV_HISTORY: Final = Call("kv.history", KvHistory, History)
KV_INCR: Final = Call("kv.incr", KvIncr, Counted)
KV_TOUCH: Final = Call("kv.touch", KvTouch, Nothing)
KV_PERSIST: Final = Call("kv.persist", KvPersist, Persisted)
KV_EXISTS: Final = Call("kv.exists", KvExists, Exists)
KV_JGET: Final = Call("kv.jget", KvJget, JsonNode)
KV_JSET: Final = Call("kv.jset", KvJset, Written)
KV_JDEL: Final = Call("kv.jdel", KvJdel, Written)
KV_BEGIN: Final = Call("kv.begin", KvBegin, Begun)
KV_COMMIT: Final = Call("kv.commit", KvTransaction, Committed)
KV_ROLLBACK: Final = Call("kv.rollback", KvTransaction, Nothing)
KV_COUNT: Final = Call("kv.count", NoArguments, Count)

QUEUE_ENQUEUE: Final = Call("queue.enqueue", QueueEnqueue, Enqueued)
QUEUE_ENQUEUE_MANY: Final = Call("queue.enqueue_many", QueueEnqueueMany, EnqueuedMany)
QUEUE_DEQUEUE: Final = Call("queue.dequeue", QueueDequeue, Messages)
QUEUE_ACK: Final = Call("queue.ack", QueueSeqs, Settled)
QUEUE_NACK: Final = Call("queue.nack", QueueNack, Settled)
QUEUE_TOUCH: Final = Call("queue.touch", QueueTouch, Settled)
QUEUE_PEEK: Final = Call("queue.peek", QueuePeek, Messages)
QUEUE_LIST: Final = Call("queue.list", ListPage, QueueList)
QUEUE_STATS: Final = Call("queue.stats", QueueName, QueueStats)
QUEUE_PURGE: Final = Call("queue.purge", QueueName, Count)
QUEUE_DELETE: Final = Call("queue.delete", QueueDelete, Nothing)
QUEUE_DLQ_LIST: Final = Call("queue.dlq_list", QueuePage, DeadLetters)
QUEUE_DLQ_REQUEUE: Final = Call("queue.dlq_requeue", QueueSeqs, Settled)
QUEUE_DLQ_DELETE: Final = Call("queue.dlq_delete", QueueSeqs, Settled)
QUEUE_DLQ_PURGE: Final = Call("queue.dlq_purge", QueueName, Count)
QUEUE_DLQ_STATS: Final = Call("queue.dlq_stats", QueueName, DeadLetterStats)

STREAM_APPEND: Final = Call("stream.append", StreamAppend, AppendedRecords)
STREAM_READ: Final = Call("stream.read", StreamRead, StreamRecords)
STREAM_INFO: Final = Call("stream.info", StreamName, StreamDescription)
STREAM_LIST: Final = Call("stream.list", ListPage, StreamDescriptions)
STREAM_CREATE: Final = Call("stream.create", StreamCreate, Nothing)
STREAM_ALTER: Final = Call("stream.alter", StreamAlter, Nothing)
STREAM_TRIM: Final = Call("stream.trim", StreamTrim, TrimmedRecords)
STREAM_DELETE: Final = Call("stream.delete", StreamDelete, Nothing)

GROUP_CREATE: Final = Call("group.create", GroupCreate, Nothing)
GROUP_JOIN: Final = Call("group.join", GroupMember, Nothing)
GROUP_LEAVE: Final = Call("group.leave", GroupMember, Nothing)
GROUP_READ: Final = Call("group.read", GroupRead, Delivery)
GROUP_ACK: Final = Call("group.ack", GroupAck, Count)
GROUP_NACK: Final = Call("group.nack", GroupNack, Count)
GROUP_TOUCH: Final = Call("group.touch", GroupTouch, Count)
GROUP_CLAIM: Final = Call("group.claim", GroupClaim, ClaimedRecords)
GROUP_AUTOCLAIM: Final = Call("group.autoclaim", GroupAutoclaim, ClaimedRecords)
GROUP_PENDING: Final = Call("group.pending", GroupPending, PendingEntries)
GROUP_INFO: Final = Call("group.info", GroupName, GroupDescription)
GROUP_LIST: Final = Call("group.list", StreamName, GroupDescriptions)
GROUP_DELETE: Final = Call("group.delete", GroupName, Nothing)

NAMESPACE_CREATE: Final = Call("namespace.create", NamespaceName, NamespaceCreated)
NAMESPACE_DELETE: Final = Call("namespace.delete", NamespaceDelete, Nothing)
NAMESPACE_LIST: Final = Call("namespace.list", NoArguments, Namespaces)
NAMESPACE_INFO: Final = Call("namespace.info", NamespaceName, NamespaceDescription)
NAMESPACE_EXISTS: Final = Call("namespace.exists", NamespaceName, Exists)
SERVER_STATUS: Final = Call("server.status", NoArguments, ServerStatus)

CALLS: Final[dict[str, Call[Any, Any]]] = {
    each.name: each for each in list(globals().values()) if isinstance(each, Call)
}


class CallError(ValueError):
    """Arguments or a result that are not what the call says; the message names the field."""


_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}


def encode(data: msgspec.Struct) -> bytes:
    """Arguments or a result."""
    return _encoder.encode(data)


def decode_arguments(call: Call[A, R], value: bytes) -> A:
    """An empty value has no arguments. Raises CallError."""
    arguments: A = _decode(call.arguments, value or b"\x80", f"arguments of {call.name}")
    return arguments


def decode_result(call: Call[A, R], body: bytes) -> R:
    """Fields that a newer server adds are skipped. Raises CallError."""
    result: R = _decode(call.result, body, f"result of {call.name}")
    return result


def decode_refusal(body: bytes) -> Refusal:
    """Raises CallError."""
    refusal: Refusal = _decode(Refusal, body, "refusal")
    return refusal


def _decode(kind: type, data: bytes, what: str) -> Any:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(data)
    except ValueError as error:  # also of texts in the bytes that are no UTF-8
        raise CallError(f"{what}: {error}") from None
    except RecursionError:
        raise CallError(f"{what}: nested too deeply") from None
