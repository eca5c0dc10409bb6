"""Lists, which are queues: both ends push to the same order, and a pop acknowledges (spec/redis.md §2)."""

from __future__ import annotations

from typing import Any, Final

from flo.grid.store import PARKED, Store
from flo.log.errors import FloError
from flo.primitives.machine import Refused
from flo.primitives.queue_pages import Message, NewMessage
from flo.server.resp.arguments import block_ms, name, positive, timeout_ms, whole
from flo.server.resp.client import Client
from flo.server.resp.replies import EMPTY_ARRAY, SYNTAX, ZERO, array, bulk, bulks, error, failure, integer, refusal

TAKEN_AT_ONCE: Final = 100  # messages of one dequeue
POP_MESSAGES: Final = 1_000  # of one RPOP with a count: more stay in the queue
POP_BYTES: Final = 16 * 1024 * 1024  # after so many of payloads it takes no more
PUSHED_AT_ONCE: Final = 1_000
PEEKED: Final = 100  # messages at the front that LRANGE sees
QUEUE: Final = "queue"


def push(client: Client, store: Store, args: list[bytes]) -> bytes:
    queue = name(args[1], QUEUE)
    if len(args) == 3:
        store.enqueue(client.ns, queue, args[2])
    else:
        for at in range(2, len(args), PUSHED_AT_ONCE):
            messages = [NewMessage(payload) for payload in args[at : at + PUSHED_AT_ONCE]]
            store.enqueue_many(client.ns, queue, messages)
    return integer(_pending(store, client.ns, queue))


def pop(client: Client, store: Store, args: list[bytes]) -> bytes:
    queue = name(args[1], QUEUE)
    if len(args) == 2:
        messages = store.dequeue(client.ns, queue, 1, ack=True)
        return bulk(messages[0].payload) if messages else client.nil
    if not args[2].isdigit():
        return error("value is out of range, must be positive")
    wanted = min(whole(args[2]), POP_MESSAGES)
    if wanted == 0:
        return EMPTY_ARRAY if _pending(store, client.ns, queue) else client.nil_array
    payloads: list[bytes] = []
    size = 0
    while len(payloads) < wanted and size < POP_BYTES:
        messages = store.dequeue(client.ns, queue, min(wanted - len(payloads), TAKEN_AT_ONCE), ack=True)
        payloads += [message.payload for message in messages]
        size += sum([len(message.payload) for message in messages])
        if len(messages) < TAKEN_AT_ONCE:
            break
    return bulks(payloads) if payloads else client.nil_array


def blocking_pop(client: Client, store: Store, args: list[bytes]) -> bytes | None:
    limit = timeout_ms(args[-1])
    queues = [name(raw, QUEUE) for raw in dict.fromkeys(args[1:-1])]

    def done(result: Any) -> None:
        client.answer(_popped(client, result))

    result = store.wait_dequeue(client.ns, queues, 1, ack=True, timeout_ms=limit, done=done)
    if result is PARKED:
        client.wait_for([store.last_parked], client.nil_array)
        return None
    return _popped(client, result)


def _popped(client: Client, result: Any) -> bytes:
    if isinstance(result, Refused):
        return refusal(result)
    if isinstance(result, FloError):
        return failure(result)
    queue, messages = result
    return bulks([queue.encode(), messages[0].payload]) if messages else client.nil_array


def length(client: Client, store: Store, args: list[bytes]) -> bytes:
    return integer(_pending(store, client.ns, name(args[1], QUEUE)))


def peek(client: Client, store: Store, args: list[bytes]) -> bytes:
    """LRANGE of what is at the front and ready; a negative end counts from the last of it."""
    queue, start, stop = name(args[1], QUEUE), whole(args[2]), whole(args[3])
    if start < 0:
        return error("LRANGE of a queue needs a start of 0 or more")
    if 0 <= stop < start:
        return EMPTY_ARRAY
    wanted = min(stop + 1, PEEKED) if stop >= 0 else PEEKED
    payloads = [message.payload for message in store.peek(client.ns, queue, wanted)]
    if stop < 0:
        stats = store.queue_stats(client.ns, queue)
        stop += 0 if stats is None else stats.available
    return bulks(payloads[start : max(stop + 1, 0)])


def _pending(store: Store, ns: str, queue: str) -> int:
    stats = store.queue_stats(ns, queue)
    return 0 if stats is None else stats.pending


# -- at least once


def take(client: Client, store: Store, args: list[bytes]) -> bytes | None:
    """FLO.QPOP: takes messages with a lease, for FLO.QACK or FLO.QNACK."""
    queue = name(args[1], QUEUE)
    count = 1
    visibility_ms = 0
    waits = False
    limit: int | None = None
    at = 2
    while at + 1 < len(args):
        option = args[at].upper()
        if option == b"COUNT":
            count = positive(args[at + 1])
        elif option == b"VISIBILITY":
            visibility_ms = positive(args[at + 1])
        elif option == b"BLOCK":
            waits = True
            limit = block_ms(args[at + 1])
        else:
            return SYNTAX
        at += 2
    if at < len(args):
        return SYNTAX
    if not waits:
        return _leased(store.dequeue(client.ns, queue, count, visibility_ms=visibility_ms))

    def done(result: Any) -> None:
        client.answer(_taken(result))

    result = store.wait_dequeue(client.ns, [queue], count, visibility_ms=visibility_ms, timeout_ms=limit, done=done)
    if result is PARKED:
        client.wait_for([store.last_parked], EMPTY_ARRAY)
        return None
    return _taken(result)


def _taken(result: Any) -> bytes:
    if isinstance(result, Refused):
        return refusal(result)
    if isinstance(result, FloError):
        return failure(result)
    return _leased(result[1])


def _leased(messages: list[Message]) -> bytes:
    return array([
        b"*3\r\n%b%b%b" % (integer(message.seq), bulk(message.payload), integer(message.delivery_count))
        for message in messages
    ])  # fmt: skip


def acknowledge(client: Client, store: Store, args: list[bytes]) -> bytes:
    queue = name(args[1], QUEUE)
    seqs = [positive(raw) for raw in args[2:]]
    try:
        return integer(store.ack(client.ns, queue, seqs).count)
    except Refused as refused:
        return _none_known(refused)


def give_back(client: Client, store: Store, args: list[bytes]) -> bytes:
    queue = name(args[1], QUEUE)
    dlq = len(args) > 3 and args[-1].upper() == b"DLQ"
    seqs = [positive(raw) for raw in (args[2:-1] if dlq else args[2:])]
    try:
        return integer(store.nack(client.ns, queue, seqs, dlq=dlq).count)
    except Refused as refused:
        return _none_known(refused)


def _none_known(refused: Refused) -> bytes:
    if refused.kind != "not_found":
        raise refused
    return ZERO
