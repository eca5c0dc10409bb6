"""Operations on queues. Acks and nacks of messages that are not there are fine here: clients repeat them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flo.primitives.machine import Refused
from flo.primitives.queue_pages import Message
from flo.server.operations.session import Operation, WireSession, wait_ms
from flo.wire import opcodes
from flo.wire.frames import Request, encode_reply
from flo.wire.layouts import decode_paging, text, u32, u64
from flo.wire.layouts_queue import (
    decode_new_messages,
    decode_seqs,
    encode_dlq_stats,
    encode_list,
    encode_messages,
    encode_seq,
    encode_seqs,
    encode_stats,
)
from flo.wire.statuses import OK
from flo.wire.tlv import (
    COUNT,
    DEDUP_KEY,
    DELAY_MS,
    EXTEND_MS,
    LIMIT,
    PRIORITY,
    SEND_TO_DLQ,
    VISIBILITY_MS,
    flag,
    integer,
)

if TYPE_CHECKING:
    from flo.grid.store import Store


def enqueue(session: WireSession, store: Store, request: Request) -> bytes:
    options = request.options
    queue = text(request.key)
    if not options:
        enqueued = store.enqueue(request.ns, queue, request.value)
    else:
        enqueued = store.enqueue(
            request.ns,
            queue,
            request.value,
            priority=integer(options, PRIORITY, 0),
            delay_ms=integer(options, DELAY_MS, 0),
            dedup_key=options.get(DEDUP_KEY, b""),
        )
    return encode_reply(OK, request.request_id, encode_seq(enqueued.seq))


def enqueue_many(session: WireSession, store: Store, request: Request) -> bytes:
    enqueued = store.enqueue_many(request.ns, text(request.key), decode_new_messages(request.value))
    return encode_reply(OK, request.request_id, encode_seqs([each.seq for each in enqueued]))


def dequeue(session: WireSession, store: Store, request: Request) -> bytes | None:
    options = request.options
    queue = text(request.key)
    count = integer(options, COUNT, 1)
    visibility_ms = integer(options, VISIBILITY_MS, 0)
    timeout_ms = wait_ms(request)
    if timeout_ms is None:
        messages = store.dequeue(request.ns, queue, count, visibility_ms=visibility_ms)
        return encode_reply(OK, request.request_id, encode_messages(messages))
    wait = session.wait(store, request, _dequeued)
    served = store.wait_dequeue(
        request.ns, [queue], count, visibility_ms=visibility_ms, ack=False, timeout_ms=timeout_ms, done=wait
    )
    if isinstance(served, tuple):
        return _dequeued(session, store, request, served)
    session.parked(store, wait)
    return None


def _dequeued(session: WireSession, store: Store, request: Request, served: tuple[str, list[Message]]) -> bytes:
    return encode_reply(OK, request.request_id, encode_messages(served[1]))


def ack(session: WireSession, store: Store, request: Request) -> bytes:
    seqs = decode_seqs(request.value)
    try:
        store.ack(request.ns, text(request.key), seqs)
    except Refused as refused:
        _must_be_missing(refused)
    return encode_reply(OK, request.request_id)


def nack(session: WireSession, store: Store, request: Request) -> bytes:
    options = request.options
    seqs = decode_seqs(request.value)
    dlq = flag(options, SEND_TO_DLQ)
    delay_ms = integer(options, DELAY_MS, 0)
    try:
        store.nack(request.ns, text(request.key), seqs, dlq=dlq, delay_ms=delay_ms)
    except Refused as refused:
        _must_be_missing(refused)
    return encode_reply(OK, request.request_id)


def _must_be_missing(refused: Refused) -> None:
    if refused.kind != "not_found":
        raise refused


def touch(session: WireSession, store: Store, request: Request) -> bytes:
    extend_ms = integer(request.options, EXTEND_MS, 0)
    settled = store.touch_messages(request.ns, text(request.key), decode_seqs(request.value), extend_ms=extend_ms)
    return encode_reply(OK, request.request_id, u32(settled.count))


def peek(session: WireSession, store: Store, request: Request) -> bytes:
    messages = store.peek(request.ns, text(request.key), integer(request.options, COUNT, 1))
    return encode_reply(OK, request.request_id, encode_messages(messages))


def list_queues(session: WireSession, store: Store, request: Request) -> bytes:
    page = store.queue_list(request.ns, *decode_paging(request.value))
    return encode_reply(OK, request.request_id, encode_list(page))


def stats(session: WireSession, store: Store, request: Request) -> bytes:
    return encode_reply(OK, request.request_id, encode_stats(store.queue_stats(request.ns, text(request.key))))


def purge(session: WireSession, store: Store, request: Request) -> bytes:
    return encode_reply(OK, request.request_id, u64(store.purge(request.ns, text(request.key))))


def dlq_list(session: WireSession, store: Store, request: Request) -> bytes:
    page = store.dlq_list(request.ns, text(request.key), integer(request.options, LIMIT, 0))
    return encode_reply(OK, request.request_id, encode_messages(page.entries))


def dlq_requeue(session: WireSession, store: Store, request: Request) -> bytes:
    store.dlq_requeue(request.ns, text(request.key), decode_seqs(request.value))
    return encode_reply(OK, request.request_id)


def dlq_delete(session: WireSession, store: Store, request: Request) -> bytes:
    store.dlq_delete(request.ns, text(request.key), decode_seqs(request.value))
    return encode_reply(OK, request.request_id)


def dlq_stats(session: WireSession, store: Store, request: Request) -> bytes:
    return encode_reply(OK, request.request_id, encode_dlq_stats(store.dlq_stats(request.ns, text(request.key))))


OPERATIONS: Final[dict[int, Operation]] = {
    opcodes.QUEUE_ENQUEUE: enqueue,
    opcodes.QUEUE_ENQUEUE_MANY: enqueue_many,
    opcodes.QUEUE_DEQUEUE: dequeue,
    opcodes.QUEUE_ACK: ack,
    opcodes.QUEUE_NACK: nack,
    opcodes.QUEUE_TOUCH: touch,
    opcodes.QUEUE_EXTEND_LEASE: touch,
    opcodes.QUEUE_PEEK: peek,
    opcodes.QUEUE_LIST: list_queues,
    opcodes.QUEUE_STATS: stats,
    opcodes.QUEUE_PURGE: purge,
    opcodes.QUEUE_DLQ_LIST: dlq_list,
    opcodes.QUEUE_DLQ_REQUEUE: dlq_requeue,
    opcodes.QUEUE_DLQ_DELETE: dlq_delete,
    opcodes.QUEUE_DLQ_STATS: dlq_stats,
}
