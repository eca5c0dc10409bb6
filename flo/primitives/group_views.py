"""What is told of a group: its pending list, its members, its figures."""

from __future__ import annotations

from flo.primitives.group_state import DELAYED, DOOMED, Entry, Group
from flo.primitives.stream_pages import GroupInfo, Member, Pending, PendingPage, StreamId
from flo.primitives.stream_rules import PART_MAX, format_id
from flo.primitives.stream_state import Stream

LOOKS = 4_096  # entries that one page looks at; not final so that tests can lower it, compiled or not


def pending_page(
    group: Group, stream: Stream, now: int, consumer: str, limit: int, after: StreamId | None
) -> PendingPage:
    """Entries behind the id `after`, None: from the first on; of one consumer if one is named."""
    start = 0
    if after is not None:
        start = stream.ordinal_at_or_after(*after)
        if start <= stream.last_ordinal and stream.id_of(start) == after:
            start += 1
    ordinals = group.walk(start, LOOKS + 1)
    entries: list[Pending] = []
    cursor = ""
    for ordinal in ordinals[:LOOKS]:
        entry = group.pending.get(ordinal)
        if entry is None or entry.state == DOOMED or (consumer and entry.member.consumer != consumer):
            continue
        if len(entries) == limit:
            return PendingPage(entries, True, cursor)
        entries.append(_shown(stream, ordinal, entry, now))
        cursor = format_id(stream.id_of(ordinal))
    for ordinal in ordinals[LOOKS:]:
        if ordinal in group.pending:
            return PendingPage(entries, True, format_id(_before(stream.id_of(ordinal))))
    return PendingPage(entries, False, "")


def members_of(group: Group) -> list[Member]:
    """In the order in which they joined."""
    return [
        Member(
            member.consumer,
            "active" if group.is_active(member.consumer) else "standby",
            member.joined_at,
            len(member.held),
        )
        for member in group.members.values()
    ]


def info_of(group: Group, stream: Stream) -> GroupInfo:
    floor = group.floor(stream)
    floor_id: StreamId | None = None
    if stream.first_ordinal <= floor <= stream.last_ordinal:
        floor_id = stream.id_of(floor)
    elif floor == group.cursor:
        floor_id = group.last_id
    return GroupInfo(
        group.name,
        group.stream,
        group.ns,
        group.settings,
        members_of(group),
        group.listed(),
        group.last_id,
        floor_id,
        stream.last_ordinal - group.cursor,
    )


def _shown(stream: Stream, ordinal: int, entry: Entry, now: int) -> Pending:
    ms, seq = stream.id_of(ordinal)
    return Pending(
        ms,
        seq,
        stream.partition_of(ordinal),
        entry.member.consumer,
        entry.first_at,
        entry.last_at,
        entry.count,
        max(0, now - entry.last_at),
        entry.due if entry.state != DELAYED else 0,
        "delayed" if entry.state == DELAYED else "pending",
    )


def _before(id: StreamId) -> StreamId:
    """The greatest id that is less."""
    ms, seq = id
    return (ms, seq - 1) if seq else (ms - 1, PART_MAX)
