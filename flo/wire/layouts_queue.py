"""Bodies of the operations on queues.

Of enqueue_many, stats, dlq_stats, list and purge no client of others is known; their layouts are this project's:

    enqueue_many  value `count u32, {payload str32, priority u8, delay_ms u64, dedup_key str16}*`, reply a list of seqs
    stats         `pending, available, delayed, inflight, enqueued, dequeued, acked, nacked, dlq`, each u64
    dlq_stats     `count, capacity, evicted, oldest_moved_at`, each u64
    list          `count u32, {name str16, pending u64, available u64, dlq u64}*, has_more u8, cursor str16`
    purge         `count u64`
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from flo.primitives.queue_pages import DeadLetter, DeadLetterStats, Message, NewMessage, QueueList, QueueStats
from flo.wire.layouts import LayoutError, Reader, str16, str32, text16, u32, u64

_message = struct.Struct("<QI")
_u64 = struct.Struct("<Q")
_new_message = struct.Struct("<BQ")

NO_MESSAGES = bytes(4)
encode_seq = _u64.pack


def decode_seq(body: bytes) -> int:
    return Reader(body).u64()


def encode_messages(messages: Sequence[Message | DeadLetter]) -> bytes:
    """`count u32, {seq u64, payload str32}*`."""
    parts = [u32(len(messages))]
    for message in messages:
        payload = message.payload
        parts.append(_message.pack(message.seq, len(payload)))
        parts.append(payload)
    return b"".join(parts)


def decode_messages(body: bytes) -> list[tuple[int, bytes]]:
    """Seqs and payloads."""
    reader = Reader(body)
    return [(reader.u64(), reader.str32()) for _ in range(reader.count(12))]


def encode_seqs(seqs: Sequence[int]) -> bytes:
    return struct.pack(f"<I{len(seqs)}Q", len(seqs), *seqs)


def decode_seqs(value: bytes) -> list[int]:
    if len(value) < 4:
        raise LayoutError("a list of seqs begins with its length")
    count = int.from_bytes(value[:4], "little")
    if len(value) != 4 + 8 * count:
        raise LayoutError(f"{count} seqs have {8 * count} bytes, not {len(value) - 4}")
    return list(struct.unpack_from(f"<{count}Q", value, 4))


def encode_new_messages(messages: Sequence[NewMessage]) -> bytes:
    parts = [u32(len(messages))]
    for message in messages:
        parts.append(str32(message.payload))
        parts.append(_new_message.pack(message.priority, message.delay_ms))
        parts.append(str16(message.dedup_key))
    return b"".join(parts)


def decode_new_messages(value: bytes) -> list[NewMessage]:
    reader = Reader(value)
    messages = [NewMessage(reader.str32(), reader.u8(), reader.u64(), reader.str16()) for _ in range(reader.count(15))]
    reader.done()
    return messages


def encode_stats(stats: QueueStats | None) -> bytes:
    """Zeros for a queue that does not exist."""
    if stats is None:
        return bytes(72)
    return struct.pack(
        "<9Q",
        stats.pending,
        stats.available,
        stats.delayed,
        stats.inflight,
        stats.enqueued,
        stats.dequeued,
        stats.acked,
        stats.nacked,
        stats.dlq,
    )


def encode_dlq_stats(stats: DeadLetterStats) -> bytes:
    return struct.pack("<4Q", stats.count, stats.capacity, stats.evicted, stats.oldest_moved_at)


def encode_list(page: QueueList) -> bytes:
    parts = [u32(len(page.queues))]
    for queue in page.queues:
        parts.append(text16(queue.name))
        parts += (u64(queue.pending), u64(queue.available), u64(queue.dlq))
    parts.append(b"\1" if page.has_more else b"\0")
    parts.append(text16(page.cursor))
    return b"".join(parts)
