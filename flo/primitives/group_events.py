"""The events of consumer groups (KIND 320–349). Records are named by their ordinals, instants are epoch ms."""

from __future__ import annotations

from flo.primitives.machine import Event
from flo.primitives.stream_pages import GroupSettings


class GroupCreated(Event, frozen=True):
    KIND = 320
    ns: str
    stream: str
    group: str
    settings: GroupSettings
    after: int  # the record before the first one that it delivers; 0: from the first


class GroupDeleted(Event, frozen=True):
    KIND = 321
    ns: str
    stream: str
    group: str


class GroupJoined(Event, frozen=True):
    """A consumer is a member, or the connection of one that is stands for it from now on."""

    KIND = 322
    ns: str
    stream: str
    group: str
    consumer: str
    at: int
    bound: bool  # to a connection, with which it goes


class GroupLeft(Event, frozen=True):
    """What the consumer held is redeliverable at once."""

    KIND = 323
    ns: str
    stream: str
    group: str
    consumer: str


class GroupDelivered(Event, frozen=True):
    """Records of a shared or exclusive group are handed out: `again` once more, `count` new ones from `first` on."""

    KIND = 324
    ns: str
    stream: str
    group: str
    consumer: str
    at: int
    deadline: int  # 0: none
    no_ack: bool  # they count as acknowledged
    again: tuple[int, ...]
    first: int
    count: int
    last_ms: int  # id of the last new one; 0-0 when none is new
    last_seq: int


class GroupPicked(Event, frozen=True):
    """Records of a key-shared group are handed out. A pass (from, to) has taken all up to `to` from each slot of the
    consumer that was done up to `from` or further, and that nobody else holds records of."""

    KIND = 325
    ns: str
    stream: str
    group: str
    consumer: str
    at: int
    deadline: int
    no_ack: bool
    again: tuple[int, ...]
    ordinals: tuple[int, ...]  # new ones
    slots: tuple[int, ...]  # theirs
    passes: tuple[tuple[int, int], ...]
    last_ms: int
    last_seq: int


class GroupScanned(Event, frozen=True):
    """A key-shared read has found only records of others, and the next one need not look at them again."""

    KIND = 326
    ns: str
    stream: str
    group: str
    consumer: str
    passes: tuple[tuple[int, int], ...]


class GroupAcked(Event, frozen=True):
    """Records are done: acknowledged, or copied to the dead-letter stream by the events before."""

    KIND = 327
    ns: str
    stream: str
    group: str
    ordinals: tuple[int, ...]


class GroupFreed(Event, frozen=True):
    """Deliveries have ended without acknowledgement, or delays are over: redeliverable from `until` on, 0: at once.
    A record that was delivered as often as allowed is bound for the dead-letter stream instead."""

    KIND = 328
    ns: str
    stream: str
    group: str
    ordinals: tuple[int, ...]
    until: int
    reason: str  # nack | ack_timeout | claim; delay_over of records that wait


class GroupTouched(Event, frozen=True):
    KIND = 329
    ns: str
    stream: str
    group: str
    ordinals: tuple[int, ...]
    deadline: int  # 0: none


class GroupClaimed(Event, frozen=True):
    """Entries of the pending list are another consumer's, or its own anew; a delivery like any other."""

    KIND = 330
    ns: str
    stream: str
    group: str
    consumer: str
    at: int
    deadline: int
    ordinals: tuple[int, ...]
