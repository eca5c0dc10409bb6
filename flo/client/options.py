"""Options of FloClient's calls: the last parameter of each, all with defaults.

`namespace` overrides the client's for that call. Times are in milliseconds unless the name says seconds. A wait
of None or 0 is no wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from flo.client.types import StreamID

Headers: TypeAlias = "Mapping[str, str | bytes] | Sequence[tuple[str | bytes, str | bytes]]"
Seconds: TypeAlias = int | float


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What every call takes."""

    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class GetOptions:
    """`block_ms` waits until the key exists, `watch_ms` for its next version; at most one of them."""

    block_ms: int | None = None
    watch_ms: int | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class PutOptions:
    """`cas_version` 0: the key must not exist. A put without a time to live makes the key permanent."""

    ttl_seconds: Seconds | None = None
    ttl_ms: int | None = None  # instead of ttl_seconds
    cas_version: int | None = None
    if_not_exists: bool = False
    if_exists: bool = False
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """`if_match`: only this version is deleted."""

    if_match: int | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class MGetOptions:
    """Of `kv.mget`."""

    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """`cursor` is that of the page before; `limit` None is the server's, 100."""

    limit: int | None = None
    cursor: bytes | str | None = None
    keys_only: bool = False
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryOptions:
    """`limit` None is the server's, 10."""

    limit: int | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class KVIncrOptions:
    """`delta` may be negative."""

    delta: int = 1
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class KVTouchOptions:
    """`ttl_ms` instead of the call's seconds. `if_match`: only if the key has this version."""

    ttl_ms: int | None = None
    if_match: int | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class KVPersistOptions:
    """`if_match`: only if the key has this version."""

    if_match: int | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class KVExistsOptions:
    """Of `kv.exists`."""

    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class KVJsonOptions:
    """Of the calls on parts of JSON documents. `cas_version` and the time to live are for those that write."""

    cas_version: int | None = None
    ttl_seconds: Seconds | None = None
    ttl_ms: int | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class TransactionOptions:
    """Of `kv.begin`. All calls of the transaction are in its namespace."""

    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class EnqueueOptions:
    """`priority` 0–255, smaller first. A `dedup_key` that the queue has seen lately stores nothing."""

    priority: int = 0
    delay_ms: int = 0
    dedup_key: str | bytes | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """One of the messages of `queue.enqueue_many`."""

    payload: Any
    priority: int = 0
    delay_ms: int = 0
    dedup_key: str | bytes | None = None


@dataclass(frozen=True, slots=True)
class DequeueOptions:
    """`block_ms` waits until there is a message. `details` asks for all fields of the messages."""

    visibility_timeout_ms: int = 30_000
    block_ms: int = 0
    details: bool = False
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class PeekOptions:
    """`details` asks for all fields of the messages."""

    details: bool = False
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class AckOptions:
    """Of `queue.ack`."""

    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class NackOptions:
    """`to_dlq` moves the messages to the dead-letter queue at once; `delay_ms` is how long they stay away."""

    to_dlq: bool = False
    delay_ms: int = 0
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class QueueTouchOptions:
    """`extend_ms` None restarts the lease with the time that the message was taken for."""

    extend_ms: int | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class DlqListOptions:
    """`details` asks for attempts, reason and time, and for pages: `cursor` is that of the page before."""

    limit: int = 100
    cursor: str = ""
    details: bool = False
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class DlqRequeueOptions:
    """Of `queue.dlq_requeue`."""

    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class ListOptions:
    """A page of a list; `cursor` is that of the page before."""

    limit: int = 100
    cursor: str = ""
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class QueueDeleteOptions:
    """`force` deletes a queue that is not empty."""

    force: bool = False
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamAppendOptions:
    """At most one of `partition_key` and `partition`."""

    headers: Headers = field(default_factory=dict)
    partition_key: str | bytes | None = None
    partition: int | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class NewStreamRecord:
    """One of the records of `stream.append_many`."""

    payload: Any
    headers: Headers = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamReadOptions:
    """`start` and `end` are inclusive, `after` is not. `tail` reads only what is appended from now on."""

    start: StreamID | str | None = None
    end: StreamID | str | None = None
    after: StreamID | str | None = None  # instead of start
    tail: bool = False
    partition: int | None = None
    count: int = 10
    block_ms: int = 0
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamInfoOptions:
    """Of `stream.info`."""

    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamTrimOptions:
    """Exactly one bound. `dry_run` counts and changes nothing."""

    max_len: int | None = None
    max_age_seconds: int | None = None
    max_bytes: int | None = None
    before: StreamID | str | None = None  # records with smaller ids go
    dry_run: bool = False
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamCreateOptions:
    """Bounds of 0 are none."""

    partitions: int = 1
    max_age_ms: int = 0
    max_records: int = 0
    max_bytes: int = 0
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamAlterOptions:
    """None leaves a bound as it is, 0 removes it."""

    max_age_ms: int | None = None
    max_records: int | None = None
    max_bytes: int | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamDeleteOptions:
    """`force` deletes a stream that is not empty."""

    force: bool = False
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamGroupJoinOptions:
    """Of `stream.group_join`."""

    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamGroupLeaveOptions:
    """Of `stream.group_leave`."""

    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamGroupReadOptions:
    """`details` asks for the count of deliveries too; `no_ack` hands out at most once."""

    count: int = 10
    block_ms: int = 0
    no_ack: bool = False
    details: bool = False
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamGroupAckOptions:
    """`consumer`: only what this one holds is acknowledged."""

    consumer: str = ""
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamGroupNackOptions:
    """`redelivery_delay_ms` None is the group's own."""

    consumer: str = ""
    redelivery_delay_ms: int | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamGroupTouchOptions:
    """`extend_ms` None is the group's own time for acknowledgements."""

    extend_ms: int | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamGroupClaimOptions:
    """`min_idle_ms` 0 takes what the consumer holds itself and what is due again, above 0 every entry idle that long.
    `start` is where the scan begins: `next` of the result before."""

    min_idle_ms: int = 0
    start: StreamID | str | None = None
    count: int = 100
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamGroupPendingOptions:
    """`details` asks for times and states, and for pages: `cursor` is that of the page before."""

    consumer: str = ""
    limit: int = 100
    cursor: str = ""
    details: bool = False
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class StreamGroupCreateOptions:
    """`mode` is shared, exclusive or key_shared. `start` None is the beginning, "$" the end of the stream."""

    mode: str = "shared"
    ack_timeout_ms: int = 30_000
    max_deliver: int = 10
    redeliver_delay_ms: int = 0
    max_standbys: int = 65_535
    slots: int = 256
    start: StreamID | str | None = None
    namespace: str | None = None
