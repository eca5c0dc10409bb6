"""Groups as a section of a snapshot: equal states give equal bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from flo.primitives.group_state import DOOMED, HELD, READY, Entry, Group, Member
from flo.primitives.stream_pages import GroupSettings, StreamId

DUMP_VERSION: Final = 1

_Head = tuple[str, str, str, GroupSettings, int, StreamId | None]  # namespace, stream, name, …, cursor, last id
_Members = list[tuple[str, int, bool]]  # consumer, joined at, bound
_Entry = tuple[
    int, int, int, int, int, int, int, int
]  # ordinal, place in the names, first, last, count, due, slot, state
_Dumped = list[tuple[_Head, _Members, list[str], list[_Entry], list[str], list[int] | None]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Dumped).decode


def dump(groups: Iterable[Group]) -> bytes:
    """`groups` must be in a fixed order."""
    return bytes([DUMP_VERSION]) + _encode([_dumped(group) for group in groups])


def load(data: bytes) -> list[Group]:
    """Raises ValueError for a version that it does not know."""
    if data[:1] != bytes([DUMP_VERSION]):
        known = f"this release reads {DUMP_VERSION}"
        raise ValueError(f"groups snapshot of version {data[0] if data else None}; {known}")
    groups: list[Group] = []
    for head, members, names, entries, reasons, done in _decode(memoryview(data)[1:]):
        ns, stream, name, settings, cursor, last_id = head
        group = Group(ns, stream, name, settings, cursor)
        group.last_id = last_id
        for consumer, joined_at, bound in members:
            group.join(consumer, joined_at, bound)
        _load_entries(group, names, entries, reasons)
        if group.slots is not None and done is not None:
            group.slots.done = done
            group.slots.share_out(group.slots.owners)
        groups.append(group)
    return groups


def _dumped(
    group: Group,
) -> tuple[_Head, _Members, list[str], list[_Entry], list[str], list[int] | None]:
    head = (group.ns, group.stream, group.name, group.settings, group.cursor, group.last_id)
    members = [(member.consumer, member.joined_at, member.bound) for member in group.members.values()]
    names = sorted({entry.member.consumer for entry in group.pending.values()})
    place = {name: at for at, name in enumerate(names)}
    entries: list[_Entry] = []
    for ordinal in sorted(group.pending):
        e = group.pending[ordinal]
        entries.append((ordinal, place[e.member.consumer], e.first_at, e.last_at, e.count, e.due, e.slot, e.state))
    reasons = [group.doomed[ordinal] for ordinal in sorted(group.doomed)]
    return head, members, names, entries, reasons, None if group.slots is None else group.slots.done


def _load_entries(group: Group, names: list[str], entries: list[_Entry], reasons: list[str]) -> None:
    # Who has left is still told of the entries that it held last.
    consumers = [group.members.get(name) or Member(name, 0, False) for name in names]
    doomed = iter(reasons)
    ready: dict[int, list[int]] = {}
    for ordinal, place, first_at, last_at, count, due, slot, state in entries:
        member = consumers[place]
        entry = group.pending[ordinal] = Entry(member, first_at, due, slot)
        entry.last_at = last_at
        entry.count = count
        entry.state = state
        if state == HELD:
            member.held.add(ordinal)
            if group.slots is not None:
                group.slots.hold(slot, member.consumer)
        elif state == READY:
            ready.setdefault(slot, []).append(-ordinal)
        elif state == DOOMED:
            group.doomed[ordinal] = next(doomed)
    group.order = [entry[0] for entry in entries]
    for slot, numbers in ready.items():
        numbers.reverse()
        group.ready[slot] = numbers
