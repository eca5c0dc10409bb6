"""What callers of the queue machine pass and get. Structs, so apart from what is compiled."""

from __future__ import annotations

import msgspec


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """A message to enqueue. `delay_ms` 0: ready at once; an empty `dedup_key`: none."""

    payload: bytes
    priority: int = 0  # 0..255, lower = sooner
    delay_ms: int = 0
    dedup_key: bytes = b""


class Enqueued(msgspec.Struct, frozen=True, gc=False):
    seq: int
    deduplicated: bool  # nothing was stored: `seq` is the message that carries the key already


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message as handed out, peeked at, or lying in the dead-letter queue."""

    seq: int
    payload: bytes
    priority: int
    enqueued_at: int  # epoch ms
    delivery_count: int  # the delivery being returned included
    lease_expires_at: int = 0  # epoch ms; 0: not leased


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    seq: int
    payload: bytes
    priority: int
    attempts: int
    moved_at: int  # epoch ms
    reason: str  # max_attempts | explicit
    enqueued_at: int


class Settled(msgspec.Struct, frozen=True, gc=False):
    """What became of the seqs of an ack, nack, touch, requeue or dead-letter delete."""

    count: int
    missing: list[int]


class DeadLetters(msgspec.Struct, frozen=True):
    """A page, oldest first; `cursor` is opaque and "" at the end."""

    entries: list[DeadLetter]
    has_more: bool
    cursor: str


class DeadLetterStats(msgspec.Struct, frozen=True, gc=False):
    count: int
    capacity: int
    evicted: int
    oldest_moved_at: int  # epoch ms; 0: none


class QueueStats(msgspec.Struct, frozen=True, gc=False):
    name: str
    namespace: str
    pending: int  # delayed + ready + leased
    available: int  # ready
    delayed: int
    inflight: int  # leased
    enqueued: int  # ever
    dequeued: int  # deliveries ever
    acked: int
    nacked: int
    expired: int  # leases ever
    dlq: int  # now
    dlq_moved: int
    dlq_evicted: int
    purged: int
    oldest_ready_ms: int  # age of the oldest ready message, 0: none


class QueueList(msgspec.Struct, frozen=True):
    queues: list[QueueStats]
    has_more: bool
    cursor: str
