"""The events of the queue machine (KIND 200–249). Instants are epoch ms; `seqs` are of messages of one queue."""

from __future__ import annotations

import msgspec

from flo.primitives.machine import Event


class QueueEnqueued(Event, frozen=True):
    """The first one of a name makes its queue."""

    KIND = 200
    ns: str
    queue: str
    seq: int
    payload: bytes
    priority: int
    due_at: int  # 0: ready at once
    dedup_key: bytes  # empty: none


class QueuedMessage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    payload: bytes
    priority: int
    due_at: int
    dedup_key: bytes


class QueueBatchEnqueued(Event, frozen=True):
    KIND = 201
    ns: str
    queue: str
    first_seq: int  # the others follow without a gap
    messages: tuple[QueuedMessage, ...]


class QueueHandedOut(Event, frozen=True):
    """Ready messages were leased."""

    KIND = 202
    ns: str
    queue: str
    seqs: tuple[int, ...]
    attempts: tuple[int, ...]  # of each, this delivery included
    deadline: int
    visibility_ms: int


class QueueTaken(Event, frozen=True):
    """Ready messages were handed out and acknowledged in one."""

    KIND = 203
    ns: str
    queue: str
    seqs: tuple[int, ...]


class QueueAcked(Event, frozen=True):
    KIND = 204
    ns: str
    queue: str
    seqs: tuple[int, ...]


class QueueNacked(Event, frozen=True):
    """Leased messages were given back."""

    KIND = 205
    ns: str
    queue: str
    seqs: tuple[int, ...]
    due_at: int  # 0: ready at once


class QueueMoved(Event, frozen=True):
    """To the dead-letter queue, in this order, of which the newest `capacity` stay."""

    KIND = 206
    ns: str
    queue: str
    seqs: tuple[int, ...]
    reason: str  # max_attempts | explicit
    expired: bool  # their leases ran out; else they were nacked
    capacity: int


class QueueDue(Event, frozen=True):
    """Delayed messages became ready."""

    KIND = 207
    ns: str
    queue: str
    seqs: tuple[int, ...]


class QueueExpired(Event, frozen=True):
    """Leases ran out, and the messages are ready again."""

    KIND = 208
    ns: str
    queue: str
    seqs: tuple[int, ...]


class QueueTouched(Event, frozen=True):
    KIND = 209
    ns: str
    queue: str
    seqs: tuple[int, ...]
    deadline: int


class QueueRequeued(Event, frozen=True):
    """From the dead-letter queue to ready, as if never delivered."""

    KIND = 210
    ns: str
    queue: str
    seqs: tuple[int, ...]


class QueueDeadDeleted(Event, frozen=True):
    """These went from the dead-letter queue."""

    KIND = 211
    ns: str
    queue: str
    seqs: tuple[int, ...]


class QueueDeadPurged(Event, frozen=True):
    """The dead-letter queue was emptied."""

    KIND = 212
    ns: str
    queue: str


class QueuePurged(Event, frozen=True):
    """All messages went but those in the dead-letter queue."""

    KIND = 213
    ns: str
    queue: str


class QueueDeleted(Event, frozen=True):
    """The queue went with everything in it; its name's last seq stays."""

    KIND = 214
    ns: str
    queue: str
