"""Queues: `client.queue` of a FloClient, `grid.queue` in process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from flo.client.options import (
    AckOptions,
    CallOptions,
    DequeueOptions,
    DlqListOptions,
    DlqRequeueOptions,
    EnqueueOptions,
    ListOptions,
    NackOptions,
    PeekOptions,
    QueueDeleteOptions,
    QueueMessage,
    QueueTouchOptions,
)
from flo.client.sdk_errors import FloConnectionError, ValidationError, server_error
from flo.client.transport import (
    Operations,
    Tags,
    call_refusal,
    call_result,
    decoded,
    is_unknown_call,
    keep,
    key_bytes,
    payload_bytes,
    refusal,
    seq_list,
    u8,
    u32,
    u64,
    unsigned,
    wait_of,
)
from flo.client.types import (
    DeadLetter,
    DequeueResult,
    DlqListResult,
    DlqStats,
    EnqueueResult,
    Message,
    QueueListResult,
    QueueStats,
)
from flo.primitives import queue_pages
from flo.primitives.queue_pages import NewMessage, Settled
from flo.wire import calls, layouts_queue, opcodes, statuses, tlv
from flo.wire.calls import A
from flo.wire.frames import Reply
from flo.wire.tlv import OPTION_BYTES

PRIORITIES: Final = 255
DEDUP_KEY_BYTES: Final = 256
VISIBILITY_MS: Final = 2**32 - 1


class Queue(Operations):
    """Queues of a namespace. A message that was taken is leased: it comes back unless it is acknowledged in time, and
    after five deliveries it goes to the dead-letter queue."""

    __slots__ = ()

    async def enqueue(self, queue: str, payload: Any, options: EnqueueOptions | None = None) -> int:
        """Adds a message and gives its sequence number, or that of the message which came with the same
        `dedup_key`. A payload is bytes, text (UTF-8) or anything that JSON can say."""
        ns = self._ns(options)
        name = key_bytes(queue)
        data = payload_bytes(payload)
        tags: Tags | None = None
        if options is not None:
            tags = {}
            if options.priority:
                tags[tlv.PRIORITY] = u8(options.priority, "priority")
            if options.delay_ms:
                tags[tlv.DELAY_MS] = u64(options.delay_ms, "delay_ms")
            if options.dedup_key is not None:
                key = _dedup_key(options.dedup_key)
                if len(key) > OPTION_BYTES:
                    message = QueueMessage(data, options.priority, options.delay_ms, key)
                    return (await self._enqueue_many(ns, queue, [message]))[0].seq
                tags[tlv.DEDUP_KEY] = key
        reply = await self._send(opcodes.QUEUE_ENQUEUE, ns, name, data, tags)
        if reply.status:
            raise refusal(reply)
        return decoded(layouts_queue.decode_seq, reply.body)

    async def enqueue_many(
        self, queue: str, messages: Sequence[QueueMessage | Any], options: CallOptions | None = None
    ) -> list[EnqueueResult]:
        """Adds up to 1,000 messages at once, all or none; they get consecutive numbers. Each is a QueueMessage, or
        only a payload."""
        listed = [each if isinstance(each, QueueMessage) else QueueMessage(each) for each in messages]
        if not listed:
            raise ValidationError("messages is empty")
        return [*await self._enqueue_many(self._ns(options), queue, listed)]

    async def dequeue(self, queue: str, count: int = 1, options: DequeueOptions | None = None) -> DequeueResult:
        """Takes up to `count` messages (at most 100), the smallest priority first. Without any it waits for
        `block_ms`, and then gives an empty result."""
        options = options or DequeueOptions()
        ns = self._ns(options)
        name = key_bytes(queue)
        wait_ms = wait_of(options.block_ms)
        visibility = unsigned(options.visibility_timeout_ms, "visibility_timeout_ms", VISIBILITY_MS)
        unsigned(count, "count", 2**32 - 1)
        if options.details:
            taking = calls.QueueDequeue(queue, count, visibility, wait_ms=wait_ms)
            return _detailed((await self._call(calls.QUEUE_DEQUEUE, ns, taking, wait_ms)).messages)
        tags: Tags = {tlv.COUNT: u32(count, "count"), tlv.VISIBILITY_MS: visibility.to_bytes(4, "little")}
        if wait_ms:
            tags[tlv.BLOCK_MS] = wait_ms.to_bytes(4, "little")
            sent = self._send(opcodes.QUEUE_DEQUEUE, ns, name, b"", tags, wait_ms)
            reply = await keep(self._transport, sent, lambda late: self._give_back(ns, name, late))
        else:
            reply = await self._send(opcodes.QUEUE_DEQUEUE, ns, name, b"", tags)
        return _messages(reply)

    async def ack(self, queue: str, seqs: int | Sequence[int], options: AckOptions | None = None) -> None:
        """Removes messages for good. Raises NotFoundError when none of them is there (any more): harmless when an
        acknowledgement is repeated."""
        listed = seq_list(seqs)
        acking = calls.QueueSeqs(queue, listed)
        await self._settle(calls.QUEUE_ACK, acking, opcodes.QUEUE_ACK, self._ns(options), queue, listed)

    async def nack(self, queue: str, seqs: int | Sequence[int], options: NackOptions | None = None) -> None:
        """Gives messages back: they are ready again, at once or after `delay_ms`, or go to the dead-letter queue.
        Raises NotFoundError when none of them is there."""
        ns = self._ns(options)
        listed = seq_list(seqs)
        to_dlq = options is not None and options.to_dlq
        delay_ms = 0 if options is None else unsigned(options.delay_ms, "delay_ms")
        tags: Tags = {}
        if to_dlq:
            tags[tlv.SEND_TO_DLQ] = b"\1"
        if delay_ms:
            tags[tlv.DELAY_MS] = u64(delay_ms, "delay_ms")
        nacking = calls.QueueNack(queue, listed, to_dlq, delay_ms)
        await self._settle(calls.QUEUE_NACK, nacking, opcodes.QUEUE_NACK, ns, queue, listed, tags)

    async def touch(self, queue: str, seqs: int | Sequence[int], options: QueueTouchOptions | None = None) -> None:
        """Begins the leases of messages anew. Raises NotFoundError when none of them is leased."""
        value = layouts_queue.encode_seqs(seq_list(seqs))
        tags: Tags | None = None
        if options is not None and options.extend_ms is not None:
            tags = {tlv.EXTEND_MS: u32(options.extend_ms, "extend_ms")}
        reply = await self._send(opcodes.QUEUE_TOUCH, self._ns(options), key_bytes(queue), value, tags)
        if reply.status:
            raise refusal(reply)

    async def peek(self, queue: str, count: int = 1, options: PeekOptions | None = None) -> DequeueResult:
        """The messages that would be taken next; takes none."""
        ns = self._ns(options)
        if options is not None and options.details:
            peeking = calls.QueuePeek(queue, unsigned(count, "count", 2**32 - 1))
            return _detailed((await self._call(calls.QUEUE_PEEK, ns, peeking)).messages)
        tags: Tags = {tlv.COUNT: u32(count, "count")}
        return _messages(await self._send(opcodes.QUEUE_PEEK, ns, key_bytes(queue), b"", tags))

    async def stats(self, queue: str, options: CallOptions | None = None) -> QueueStats:
        """The queue in numbers. Raises NotFoundError."""
        stats = await self._call(calls.QUEUE_STATS, self._ns(options), calls.QueueName(queue))
        return _stats(stats)

    async def purge(self, queue: str, options: CallOptions | None = None) -> int:
        """Removes all messages but the dead ones; how many there were."""
        return (await self._call(calls.QUEUE_PURGE, self._ns(options), calls.QueueName(queue))).count

    async def delete(self, queue: str, options: QueueDeleteOptions | None = None) -> None:
        """Deletes the queue with everything in it. Raises ConflictError when it is not empty, unless `force` is set."""
        deleting = calls.QueueDelete(queue, options is not None and options.force)
        await self._call(calls.QUEUE_DELETE, self._ns(options), deleting)

    async def dlq_list(self, queue: str, options: DlqListOptions | None = None) -> DlqListResult:
        """Dead letters, oldest first."""
        options = options or DlqListOptions()
        ns = self._ns(options)
        if options.details or options.cursor:
            asked = calls.QueuePage(queue, unsigned(options.limit, "limit"), options.cursor)
            page = await self._call(calls.QUEUE_DLQ_LIST, ns, asked)
            dead = [
                DeadLetter(e.seq, e.payload, e.priority, e.attempts, e.moved_at, e.reason, e.enqueued_at)
                for e in page.entries
            ]
            return DlqListResult(dead, page.has_more, page.cursor)
        tags: Tags = {tlv.LIMIT: u32(options.limit, "limit")}
        reply = await self._send(opcodes.QUEUE_DLQ_LIST, ns, key_bytes(queue), b"", tags)
        if reply.status:
            raise refusal(reply)
        return DlqListResult([DeadLetter(seq, payload) for seq, payload in decoded(_decode_messages, reply.body)])

    async def dlq_requeue(
        self, queue: str, seqs: int | Sequence[int], options: DlqRequeueOptions | None = None
    ) -> None:
        """Makes dead letters ready again, with their numbers and priorities, their attempts begun anew. Raises
        NotFoundError when none of them is there."""
        listed = seq_list(seqs)
        named = calls.QueueSeqs(queue, listed)
        await self._settle(calls.QUEUE_DLQ_REQUEUE, named, opcodes.QUEUE_DLQ_REQUEUE, self._ns(options), queue, listed)

    async def dlq_delete(self, queue: str, seqs: int | Sequence[int], options: CallOptions | None = None) -> None:
        """Removes dead letters. Raises NotFoundError when none of them is there."""
        listed = seq_list(seqs)
        named = calls.QueueSeqs(queue, listed)
        await self._settle(calls.QUEUE_DLQ_DELETE, named, opcodes.QUEUE_DLQ_DELETE, self._ns(options), queue, listed)

    async def dlq_purge(self, queue: str, options: CallOptions | None = None) -> int:
        """Removes all dead letters; how many there were."""
        return (await self._call(calls.QUEUE_DLQ_PURGE, self._ns(options), calls.QueueName(queue))).count

    async def dlq_stats(self, queue: str, options: CallOptions | None = None) -> DlqStats:
        """The dead-letter queue in numbers."""
        stats = await self._call(calls.QUEUE_DLQ_STATS, self._ns(options), calls.QueueName(queue))
        return DlqStats(stats.count, stats.capacity, stats.evicted, stats.oldest_moved_at)

    # last of the public ones, for below it `list` means this method in annotations
    async def list(self, options: ListOptions | None = None) -> QueueListResult:
        """A page of the namespace's queues."""
        options = options or ListOptions()
        asked = calls.ListPage(unsigned(options.limit, "limit"), options.cursor)
        page = await self._call(calls.QUEUE_LIST, self._ns(options), asked)
        return QueueListResult([_stats(each) for each in page.queues], page.has_more, page.cursor)

    async def _enqueue_many(self, ns: str, queue: str, messages: Sequence[QueueMessage]) -> Sequence[EnqueueResult]:
        new = [
            NewMessage(
                payload_bytes(message.payload),
                unsigned(message.priority, "priority", PRIORITIES),
                unsigned(message.delay_ms, "delay_ms"),
                _dedup_key(message.dedup_key),
            )
            for message in messages
        ]
        result = await self._call(calls.QUEUE_ENQUEUE_MANY, ns, calls.QueueEnqueueMany(queue, new))
        return [EnqueueResult(each.seq, each.deduplicated) for each in result.messages]

    async def _settle(
        self,
        call: calls.Call[A, Settled],
        arguments: A,
        opcode: int,
        ns: str,
        queue: str,
        seqs: Sequence[int],
        tags: Tags | None = None,
    ) -> None:
        """Our own operation tells what is not there; a server that does not have it gets the protocol's, which does
        not tell."""
        name = key_bytes(queue)
        reply = await self._send(opcodes.CALL, ns, call.name.encode(), calls.encode(arguments))
        if is_unknown_call(reply):
            reply = await self._send(opcode, ns, name, layouts_queue.encode_seqs(seqs), tags)
            if reply.status:
                raise refusal(reply)
            return
        if reply.status:
            raise call_refusal(reply)
        settled = call_result(call, reply.body)
        if settled.count == 0 and settled.missing:
            raise server_error(statuses.NOT_FOUND, "message not found in this queue", {"missing": settled.missing})

    def _give_back(self, ns: str, name: bytes, late: Reply) -> None:
        """Messages that came after the caller had given up are ready again at once."""
        seqs = [seq for seq, _ in decoded(layouts_queue.decode_messages, late.body)]
        if not seqs:
            return

        async def give_back() -> None:
            try:
                await self._send(opcodes.QUEUE_NACK, ns, name, layouts_queue.encode_seqs(seqs))
            except FloConnectionError:
                return  # their leases run out

        task = asyncio.get_running_loop().create_task(give_back())
        _background.add(task)
        task.add_done_callback(_background.discard)


_background: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly


_decode_messages = layouts_queue.decode_messages


def _messages(reply: Reply) -> DequeueResult:
    if reply.status:
        raise refusal(reply)
    return DequeueResult([Message(seq, payload) for seq, payload in decoded(_decode_messages, reply.body)])


def _detailed(messages: Sequence[queue_pages.Message]) -> DequeueResult:
    return DequeueResult(
        [
            Message(each.seq, each.payload, each.priority, each.enqueued_at, each.delivery_count, each.lease_expires_at)
            for each in messages
        ]
    )


def _stats(stats: queue_pages.QueueStats) -> QueueStats:
    return msgspec.convert(stats, QueueStats, from_attributes=True)


def _dedup_key(key: str | bytes | None) -> bytes:
    data = b"" if key is None else key.encode() if isinstance(key, str) else bytes(key)
    if len(data) > DEDUP_KEY_BYTES:
        raise ValidationError(f"a dedup_key of {len(data)} bytes is over the limit of {DEDUP_KEY_BYTES}")
    return data
