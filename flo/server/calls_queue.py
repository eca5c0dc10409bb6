"""Calls on queues. Unlike in the official clients' operations, a message that is not there is not_found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flo.primitives.machine import Refused
from flo.server.call import Performers, checked_wait, reply
from flo.server.operations.session import WireSession
from flo.wire import calls
from flo.wire.frames import Request

if TYPE_CHECKING:
    from flo.grid.store import Store


def enqueue(session: WireSession, store: Store, request: Request, asked: calls.QueueEnqueue) -> bytes:
    enqueued = store.enqueue(
        request.ns,
        asked.queue,
        asked.payload,
        priority=asked.priority,
        delay_ms=asked.delay_ms,
        dedup_key=asked.dedup_key,
    )
    return reply(request, enqueued)


def enqueue_many(session: WireSession, store: Store, request: Request, asked: calls.QueueEnqueueMany) -> bytes:
    return reply(request, calls.EnqueuedMany(store.enqueue_many(request.ns, asked.queue, asked.messages)))


def dequeue(session: WireSession, store: Store, request: Request, asked: calls.QueueDequeue) -> bytes | None:
    timeout_ms = checked_wait("wait_ms", asked.wait_ms)
    if not timeout_ms:
        messages = store.dequeue(
            request.ns, asked.queue, asked.count, visibility_ms=asked.visibility_ms, ack=asked.ack
        )  # fmt: skip
        return reply(request, calls.Messages(messages))
    wait = session.wait(store, request, _dequeued)
    served = store.wait_dequeue(
        request.ns,
        [asked.queue],
        asked.count,
        visibility_ms=asked.visibility_ms,
        ack=asked.ack,
        timeout_ms=timeout_ms,
        done=wait,
    )
    if isinstance(served, tuple):
        return _dequeued(session, store, request, served)
    session.parked(store, wait)
    return None


def _dequeued(session: WireSession, store: Store, request: Request, served: Any) -> bytes:
    return reply(request, calls.Messages(served[1]))


def ack(session: WireSession, store: Store, request: Request, asked: calls.QueueSeqs) -> bytes:
    return reply(request, store.ack(request.ns, asked.queue, asked.seqs))


def nack(session: WireSession, store: Store, request: Request, asked: calls.QueueNack) -> bytes:
    settled = store.nack(request.ns, asked.queue, asked.seqs, dlq=asked.dlq, delay_ms=asked.delay_ms)
    return reply(request, settled)


def touch(session: WireSession, store: Store, request: Request, asked: calls.QueueTouch) -> bytes:
    settled = store.touch_messages(request.ns, asked.queue, asked.seqs, extend_ms=asked.extend_ms)
    return reply(request, settled)


def peek(session: WireSession, store: Store, request: Request, asked: calls.QueuePeek) -> bytes:
    return reply(request, calls.Messages(store.peek(request.ns, asked.queue, asked.count)))


def list_queues(session: WireSession, store: Store, request: Request, asked: calls.ListPage) -> bytes:
    return reply(request, store.queue_list(request.ns, asked.limit, asked.cursor))


def stats(session: WireSession, store: Store, request: Request, asked: calls.QueueName) -> bytes:
    found = store.queue_stats(request.ns, asked.queue)
    if found is None:
        raise Refused("not_found", f"queue {asked.queue!r} not found")
    return reply(request, found)


def purge(session: WireSession, store: Store, request: Request, asked: calls.QueueName) -> bytes:
    return reply(request, calls.Count(store.purge(request.ns, asked.queue)))


def delete(session: WireSession, store: Store, request: Request, asked: calls.QueueDelete) -> bytes:
    store.queue_delete(request.ns, asked.queue, asked.force)
    return reply(request, calls.Nothing())


def dlq_list(session: WireSession, store: Store, request: Request, asked: calls.QueuePage) -> bytes:
    return reply(request, store.dlq_list(request.ns, asked.queue, asked.limit, asked.cursor))


def dlq_requeue(session: WireSession, store: Store, request: Request, asked: calls.QueueSeqs) -> bytes:
    return reply(request, store.dlq_requeue(request.ns, asked.queue, asked.seqs))


def dlq_delete(session: WireSession, store: Store, request: Request, asked: calls.QueueSeqs) -> bytes:
    return reply(request, store.dlq_delete(request.ns, asked.queue, asked.seqs))


def dlq_purge(session: WireSession, store: Store, request: Request, asked: calls.QueueName) -> bytes:
    return reply(request, calls.Count(store.dlq_purge(request.ns, asked.queue)))


def dlq_stats(session: WireSession, store: Store, request: Request, asked: calls.QueueName) -> bytes:
    return reply(request, store.dlq_stats(request.ns, asked.queue))


PERFORMERS: Final[Performers] = {
    calls.QUEUE_ENQUEUE.name: enqueue,
    calls.QUEUE_ENQUEUE_MANY.name: enqueue_many,
    calls.QUEUE_DEQUEUE.name: dequeue,
    calls.QUEUE_ACK.name: ack,
    calls.QUEUE_NACK.name: nack,
    calls.QUEUE_TOUCH.name: touch,
    calls.QUEUE_PEEK.name: peek,
    calls.QUEUE_LIST.name: list_queues,
    calls.QUEUE_STATS.name: stats,
    calls.QUEUE_PURGE.name: purge,
    calls.QUEUE_DELETE.name: delete,
    calls.QUEUE_DLQ_LIST.name: dlq_list,
    calls.QUEUE_DLQ_REQUEUE.name: dlq_requeue,
    calls.QUEUE_DLQ_DELETE.name: dlq_delete,
    calls.QUEUE_DLQ_PURGE.name: dlq_purge,
    calls.QUEUE_DLQ_STATS.name: dlq_stats,
}
