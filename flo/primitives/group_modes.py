"""Which records a consumer gets: by reads in each mode, and by claims. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from flo.primitives.group_events import GroupClaimed, GroupDelivered, GroupFreed, GroupJoined, GroupPicked, GroupScanned
from flo.primitives.group_rules import EXCLUSIVE, PENDING, SHARED
from flo.primitives.group_slots import SCAN_LOGGED, Slots
from flo.primitives.group_state import DOOMED, HELD, READY, Entry, Group, Member
from flo.primitives.machine import Event
from flo.primitives.stream_pages import Delivered
from flo.primitives.stream_state import Stream

Deliveries: TypeAlias = list[Delivered]

_NOTHING: Final[set[int]] = set()


def read(
    group: Group, stream: Stream, now: int, consumer: str, limit: int, no_ack: bool
) -> tuple[Event | None, Deliveries]:
    """For a member, or for a consumer who will be one, as the last that has joined."""
    if group.mode == EXCLUSIVE:
        if group.members and next(iter(group.members)) != consumer:
            return None, []
    elif group.slots is not None:
        return _read_slots(group, group.slots, stream, now, consumer, limit, no_ack)
    again = group.ready_again(0, 1, _NOTHING, limit) if group.ready else []
    first = group.cursor + 1
    count = min(limit - len(again), stream.last_ordinal - group.cursor)
    if len(group.pending) >= PENDING and not no_ack:
        count = 0
    if not again and not count:
        return None, []
    delivered = _again(group, stream, again)
    for ordinal in range(first, first + count):
        delivered.append(Delivered(stream.placed(ordinal), 1))
    ms, seq = stream.id_of(first + count - 1) if count else (0, 0)
    due = _deadline(group, now)
    event = GroupDelivered(
        group.ns, group.stream, group.name, consumer, now, due, no_ack, tuple(again), first, count, ms, seq
    )
    return event, delivered


def claim(
    group: Group, stream: Stream, now: int, consumer: str, min_idle_ms: int, ordinals: Sequence[int], limit: int
) -> tuple[list[Event], Deliveries, int]:
    """The events, the records, and how many of the ordinals were looked at. Only an active member gets something; a
    shared group takes in who is no member yet."""
    member = group.members.get(consumer)
    if (member is None and group.mode != SHARED) or (member is not None and not group.is_active(consumer)):
        return [], [], len(ordinals)
    taken: list[int] = []
    spent: list[int] = []
    looked = 0
    for ordinal in ordinals:
        if len(taken) + len(spent) == limit:
            break
        looked += 1
        entry = group.pending.get(ordinal)
        if entry is None or not _may_claim(group, entry, member, now, min_idle_ms):
            continue
        if not group.max_deliver or entry.count < group.max_deliver:
            taken.append(ordinal)
        else:
            spent.append(ordinal)
    ns, name = group.ns, group.name
    events: list[Event] = []
    if spent:
        events.append(GroupFreed(ns, group.stream, name, tuple(spent), 0, "claim"))
    if taken:
        if member is None:
            events.append(GroupJoined(ns, group.stream, name, consumer, now, False))
        events.append(GroupClaimed(ns, group.stream, name, consumer, now, _deadline(group, now), tuple(taken)))
    return events, _again(group, stream, taken), looked


def _read_slots(
    group: Group, slots: Slots, stream: Stream, now: int, consumer: str, limit: int, no_ack: bool
) -> tuple[Event | None, Deliveries]:
    member = group.members.get(consumer)
    if member is not None:
        low, high = member.low, member.high
        blocked = slots.blocked_in(low, high)
    else:
        low, high = slots.range_of(len(group.members), len(group.members) + 1)
        blocked = slots.held_in(low, high)
    again = group.ready_again(low, high, blocked, limit)
    room = limit - len(again)
    if len(group.pending) >= PENDING and not no_ack:
        room = 0
    picked = slots.pick(stream, low, high, blocked, room)
    new = picked.ordinals
    passes = tuple(picked.passes)
    ns, name = group.ns, group.name
    if not again and not new:
        if picked.scanned < SCAN_LOGGED:
            return None, []
        return GroupScanned(ns, group.stream, name, consumer, passes), []
    delivered = _again(group, stream, again)
    for ordinal in new:
        delivered.append(Delivered(stream.placed(ordinal), 1))
    ms, seq = stream.id_of(max(new)) if new else (0, 0)
    due, parts = _deadline(group, now), (tuple(again), tuple(new), tuple(picked.slots))
    return GroupPicked(ns, group.stream, name, consumer, now, due, no_ack, *parts, passes, ms, seq), delivered


def _may_claim(group: Group, entry: Entry, member: Member | None, now: int, min_idle_ms: int) -> bool:
    if entry.state == DOOMED:
        return False
    slots = group.slots
    if slots is not None and (member is None or not member.low <= entry.slot < member.high):
        return False
    if min_idle_ms:
        return now - entry.last_at >= min_idle_ms
    if entry.state == READY:
        return slots is None or entry.slot not in slots.blocked
    return entry.state == HELD and entry.member is member


def _again(group: Group, stream: Stream, ordinals: Sequence[int]) -> Deliveries:
    """Entries of the pending list as they are delivered once more."""
    return [Delivered(stream.placed(ordinal), group.pending[ordinal].count + 1) for ordinal in ordinals]


def _deadline(group: Group, now: int) -> int:
    return now + group.ack_timeout if group.ack_timeout else 0
