"""The consumer groups of streams: who reads cooperatively, what was handed out to whom, and until when.

A group knows the records of its stream by their ordinals and hands each to one consumer at a time, until it is
acknowledged. A lease ends, a delay ends, and a record that was delivered as often as allowed moves to the dead-letter
stream, by events that `due` decides. That a consumer is gone is not seen here: somebody says so with `decide_leave`.

`decide_…` methods return the events, and what the caller is answered; they raise `Refused`. In an exclusive group the
member that joined first is active and the others are standbys. In a key-shared group a member reads records of its own
slots only, and waits while others hold some of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, TypeAlias

from flo.primitives import group_modes, group_snapshot
from flo.primitives.group_events import (
    GroupAcked,
    GroupClaimed,
    GroupCreated,
    GroupDeleted,
    GroupDelivered,
    GroupFreed,
    GroupJoined,
    GroupLeft,
    GroupPicked,
    GroupScanned,
    GroupTouched,
)
from flo.primitives.group_rules import (
    DEFAULT_SETTINGS,
    EXCLUSIVE,
    GROUPS,
    MEMBERS,
    PAGE_LIMIT,
    PAGE_LIMIT_DEFAULT,
    READ_LIMIT,
    READ_LIMIT_DEFAULT,
    SHARED,
    STANDBYS_UNLIMITED,
    check_consumer,
    check_duration,
    check_group_name,
    check_ids,
    check_no_wildcard,
    check_settings,
    dead_letter_stream,
    no_group,
    page_limit,
)
from flo.primitives.group_state import DELAY_OVER, DOOMED, ENTRY_BYTES, HELD, MEMBER_BYTES, Group
from flo.primitives.group_timers import Timers
from flo.primitives.group_views import LOOKS, info_of, members_of, pending_page
from flo.primitives.limits import COMMAND_EVENTS
from flo.primitives.machine import Event, Refused
from flo.primitives.stream_pages import (
    Claimed,
    Delivered,
    GroupInfo,
    GroupSettings,
    PendingPage,
    Retention,
    StreamId,
)
from flo.primitives.stream_pages import Member as MemberInfo
from flo.primitives.stream_rules import format_id, parse_id
from flo.primitives.streams import Streams

TIMER_GARBAGE = 4_096  # records in timers that are void; not final so that tests can lower it, compiled or not
BURIED: Final = 256  # records that one call of `due` moves to the dead-letter stream

Events: TypeAlias = list[Event]
Deliveries: TypeAlias = list[Delivered]
Address: TypeAlias = tuple[str, str]  # namespace and stream
# The machine has a method `list`, which hides the type in the signatures of its other methods.
_Infos: TypeAlias = list[GroupInfo]
_Members: TypeAlias = list[MemberInfo]
_Present: TypeAlias = list[tuple[str, str, str, str, bool]]
_Sorted: TypeAlias = list[Group]


class Groups:
    name: ClassVar[str] = "groups"
    events: ClassVar[dict[tuple[int, int], type[Event]]] = {
        (event.KIND, event.VERSION): event
        for event in (
            GroupCreated,
            GroupDeleted,
            GroupJoined,
            GroupLeft,
            GroupDelivered,
            GroupPicked,
            GroupScanned,
            GroupAcked,
            GroupFreed,
            GroupTouched,
            GroupClaimed,
        )
    }

    def __init__(self, streams: Streams) -> None:
        self.bytes = 0
        self._streams = streams
        self._groups: dict[Address, dict[str, Group]] = {}
        self._timers = Timers()
        self._pending = 0  # entries of all groups
        self._doomed: dict[Group, None] = {}  # groups with records for the dead-letter stream

    # -- decisions: groups and members

    def decide_create(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        group: str,
        settings: GroupSettings = DEFAULT_SETTINGS,
        start: StreamId | None = None,
    ) -> tuple[Events, None]:
        """Makes a group that begins at the first record with the id `start` or a greater one, None: at the first that
        there is. Makes the stream too if it is missing. Nothing for one that exists with these settings."""
        found = self._find(ns, stream, group)
        if found is None:
            events, _ = self._new(now, index, ns, stream, group, settings, start)
            return events, None
        check_settings(settings)
        if found.settings != settings:
            raise Refused("conflict", f"group {group!r} exists with other settings")
        return [], None

    def decide_join(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        group: str,
        consumer: str,
        settings: GroupSettings | None = None,
        *,
        bound: bool = False,
    ) -> tuple[Events, None]:
        """Makes a consumer a member, and the group, with these settings, if it is missing. `bound`: it goes with its
        connection; kept for whoever must end what did not outlive a restart."""
        events, found = self._open(now, index, ns, stream, group, settings)
        member = found.members.get(consumer)
        if member is None:
            events.append(self._joining(found, now, consumer, bound))
        elif bound and not member.bound and found.mode != SHARED:
            events.append(GroupJoined(ns, stream, group, consumer, now, True))
        return events, None

    def decide_leave(
        self, now: int, index: int, ns: str, stream: str, group: str, consumer: str
    ) -> tuple[Events, None]:
        """What the consumer holds is redeliverable at once, and a standby may move up. Nothing for one unknown."""
        found = self._find(ns, stream, group)
        if found is None:
            check_group_name(ns, stream, group)
            return [], None
        if consumer not in found.members:
            check_consumer(consumer)
            return [], None
        return [GroupLeft(ns, stream, group, consumer)], None

    def decide_delete(self, now: int, index: int, ns: str, stream: str, group: str) -> tuple[Events, None]:
        self._known(ns, stream, group)
        return [GroupDeleted(ns, stream, group)], None

    # -- decisions: deliveries

    def decide_read(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        group: str,
        consumer: str,
        limit: int = READ_LIMIT_DEFAULT,
        *,
        no_ack: bool = False,
        settings: GroupSettings | None = None,
        bound: bool = False,
    ) -> tuple[Events, Deliveries]:
        """Hands out up to `limit` records, first those to be delivered again, oldest first, then new ones. Joins the
        consumer, and makes what is missing as `decide_join` does. `no_ack`: they count as acknowledged.

        A key-shared read that has found only records of others may end before the newest one. It returns an event
        then, and the next one goes on from there.
        """
        limit = page_limit(limit, READ_LIMIT)
        events, found = self._open(now, index, ns, stream, group, settings)
        if consumer not in found.members:
            events.append(self._joining(found, now, consumer, bound))
        source = self._streams.find(ns, stream)
        if source is None:
            return events, []
        event, delivered = group_modes.read(found, source, now, consumer, limit, no_ack)
        if event is not None:
            events.append(event)
        return events, delivered

    def decide_ack(
        self, now: int, index: int, ns: str, stream: str, group: str, ids: Sequence[StreamId], consumer: str = ""
    ) -> tuple[Events, int]:
        """They are done; returns how many were not before. Of a consumer, if one is named, only its own count."""
        found = self._known(ns, stream, group)
        ordinals = self._entries(found, ids, consumer, False)
        if not ordinals:
            return [], 0
        return [GroupAcked(ns, stream, group, tuple(ordinals))], len(ordinals)

    def decide_nack(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        group: str,
        ids: Sequence[StreamId],
        delay_ms: int | None = None,
        consumer: str = "",
    ) -> tuple[Events, int]:
        """Gives records back that are held: redeliverable after `delay_ms`, None: after what the group's settings say.
        Returns how many."""
        found = self._known(ns, stream, group)
        if delay_ms is None:
            delay_ms = found.settings.redeliver_delay_ms
        check_duration("delay", delay_ms)
        ordinals = self._entries(found, ids, consumer, True)
        if not ordinals:
            return [], 0
        until = now + delay_ms if delay_ms else 0
        return [GroupFreed(ns, stream, group, tuple(ordinals), until, "nack")], len(ordinals)

    def decide_touch(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        group: str,
        ids: Sequence[StreamId],
        consumer: str,
        extend_ms: int | None = None,
    ) -> tuple[Events, int]:
        """Leases of the consumer end `extend_ms` from now, None: the group's time for acknowledgements from now.
        Returns how many."""
        found = self._known(ns, stream, group)
        check_consumer(consumer)
        if extend_ms is None:
            deadline = now + found.ack_timeout if found.ack_timeout else 0
        else:
            check_duration("extend", extend_ms)
            deadline = now + extend_ms
        ordinals = self._entries(found, ids, consumer, True)
        if not ordinals:
            return [], 0
        return [GroupTouched(ns, stream, group, tuple(ordinals), deadline)], len(ordinals)

    def decide_claim(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        group: str,
        consumer: str,
        min_idle_ms: int,
        ids: Sequence[StreamId],
    ) -> tuple[Events, Claimed]:
        """Hands entries of the pending list to the consumer. With `min_idle_ms` 0 those that it holds itself and those
        that are redeliverable, above 0 all whose last delivery is that long ago. Each counts as a delivery; one that
        was delivered as often as allowed moves to the dead-letter stream instead."""
        found = self._claimed_from(ns, stream, group, consumer, min_idle_ms)
        source = self._streams.find(ns, stream)
        check_ids(ids)
        if source is None:
            return [], Claimed([], None)
        ordinals = {ordinal for ms, seq in ids if (ordinal := source.ordinal_of(ms, seq)) is not None}
        events, records, _ = group_modes.claim(
            found, source, now, consumer, min_idle_ms, sorted(ordinals), len(ordinals)
        )
        return events, Claimed(records, None)

    def decide_autoclaim(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        group: str,
        consumer: str,
        min_idle_ms: int,
        start: StreamId = (0, 0),
        limit: int = PAGE_LIMIT_DEFAULT,
    ) -> tuple[Events, Claimed]:
        """`decide_claim` for the entries from the id `start` on. `next` is where to go on, also of an empty page."""
        found = self._claimed_from(ns, stream, group, consumer, min_idle_ms)
        limit = page_limit(limit, PAGE_LIMIT)
        source = self._streams.find(ns, stream)
        if source is None:
            return [], Claimed([], None)
        ordinals = found.walk(source.ordinal_at_or_after(*start), LOOKS + 1)
        events, records, looked = group_modes.claim(found, source, now, consumer, min_idle_ms, ordinals[:LOOKS], limit)
        more = [ordinal for ordinal in ordinals[looked:] if ordinal in found.pending]
        return events, Claimed(records, source.id_of(more[0]) if more else None)

    # -- reads

    def pending(
        self,
        now: int,
        ns: str,
        stream: str,
        group: str,
        consumer: str = "",
        limit: int = PAGE_LIMIT_DEFAULT,
        cursor: str = "",
    ) -> PendingPage:
        """The pending list, oldest first; of one consumer if one is named. A page may be short of its limit, and even
        be empty, with `has_more`."""
        found = self._known(ns, stream, group)
        limit = page_limit(limit, PAGE_LIMIT)
        after = parse_id(cursor) if cursor else None
        source = self._streams.find(ns, stream)
        if source is None:
            return PendingPage([], False, "")
        return pending_page(found, source, now, consumer, limit, after)

    def info(self, now: int, ns: str, stream: str, group: str) -> GroupInfo | None:
        found = self._find(ns, stream, group)
        if found is None:
            check_no_wildcard(stream)
            return None
        source = self._streams.find(ns, stream)
        return None if source is None else info_of(found, source)

    def list(self, now: int, ns: str, stream: str) -> _Infos:
        """The groups of a stream, by name."""
        check_no_wildcard(stream)
        source = self._streams.find(ns, stream)
        if source is None:
            return []
        groups = self._groups.get((ns, stream), {})
        return [info_of(groups[name], source) for name in sorted(groups)]

    def members(self, now: int, ns: str, stream: str, group: str) -> _Members:
        """In the order in which they joined."""
        return members_of(self._known(ns, stream, group))

    def is_member(self, ns: str, stream: str, group: str, consumer: str) -> bool:
        found = self._find(ns, stream, group)
        return found is not None and consumer in found.members

    def settings(self, ns: str, stream: str, group: str) -> GroupSettings | None:
        found = self._find(ns, stream, group)
        return None if found is None else found.settings

    def present(self) -> _Present:
        """Namespace, stream, group, consumer and whether it is bound, of every member whose presence matters: those of
        groups that are not shared."""
        return [
            (group.ns, group.stream, group.name, member.consumer, member.bound)
            for group in self._sorted()
            if group.mode != SHARED
            for member in group.members.values()
        ]

    def count(self, ns: str, stream: str) -> int:
        return len(self._groups.get((ns, stream), {}))

    # -- events

    def apply(self, event: Event, index: int, now: int) -> None:
        if isinstance(event, GroupCreated):
            self._create(event)
            return
        group = self._find(event.ns, event.stream, event.group)  # type: ignore[attr-defined]
        if group is None:
            return
        entries = len(group.pending)
        members = len(group.members)
        kind = type(event)
        if kind is GroupDelivered:
            assert isinstance(event, GroupDelivered)
            self._delivered(group, event)
        elif kind is GroupAcked:
            assert isinstance(event, GroupAcked)
            group.settle(event.ordinals)
        elif kind is GroupPicked:
            assert isinstance(event, GroupPicked)
            self._picked(group, event)
        elif kind is GroupScanned:
            assert isinstance(event, GroupScanned)
            _passed(group, event.consumer, event.passes)
        elif kind is GroupFreed:
            assert isinstance(event, GroupFreed)
            group.free(event.ordinals, event.until, event.reason)
            if event.until:
                self._timers.add(event.until, group, event.ordinals)
        elif kind is GroupTouched:
            assert isinstance(event, GroupTouched)
            group.touch(event.ordinals, event.deadline)
            if event.deadline:
                self._timers.add(event.deadline, group, event.ordinals)
        elif kind is GroupClaimed:
            assert isinstance(event, GroupClaimed)
            member = group.members.get(event.consumer)
            if member is not None:
                group.deliver_again(member, event.at, event.deadline, event.ordinals)
                if event.deadline:
                    self._timers.add(event.deadline, group, event.ordinals)
        elif kind is GroupJoined:
            assert isinstance(event, GroupJoined)
            group.join(event.consumer, event.at, event.bound)
        elif kind is GroupLeft:
            assert isinstance(event, GroupLeft)
            group.leave(event.consumer)
        elif kind is GroupDeleted:
            self._drop(group)
            return
        else:
            raise AssertionError(f"not an event of groups: {event!r}")
        if group.doomed:
            self._doomed[group] = None
        self._account(group, entries, members)

    def trimmed(self, ns: str, stream: str, first_ordinal: int) -> None:
        """The records of the stream before this ordinal are gone: an event of the stream machine."""
        for group in self._groups.get((ns, stream), {}).values():
            entries = len(group.pending)
            group.trimmed(first_ordinal)
            self._account(group, entries, len(group.members))

    def stream_deleted(self, ns: str, stream: str) -> None:
        """The stream is gone with its groups: an event of the stream machine."""
        for group in [*self._groups.get((ns, stream), {}).values()]:
            self._drop(group)

    def drop_namespace(self, ns: str) -> None:
        for address in [address for address in self._groups if address[0] == ns]:
            self.stream_deleted(*address)

    # -- timers

    def next_due(self) -> int | None:
        return 0 if self._doomed else self._timers.next()

    def due(self, now: int, index: int) -> Events:
        """Ends leases and delays whose time has come, or moves one record to its dead-letter stream."""
        while self._doomed:
            group = next(iter(self._doomed))
            if not group.gone and group.doomed:
                return self._bury(now, index, group)
            del self._doomed[group]
        events: Events = []
        room = COMMAND_EVENTS
        while room > 0:
            taken = self._timers.take(now)
            if taken is None:
                break
            group, ordinals = taken
            room -= len(ordinals)
            if group.gone:
                continue
            ended: list[int] = []
            waited: list[int] = []
            for ordinal in ordinals:
                entry = group.pending.get(ordinal)
                if entry is not None and 0 < entry.due <= now:
                    (ended if entry.state == HELD else waited).append(ordinal)
            if ended:
                delay = group.settings.redeliver_delay_ms
                until = now + delay if delay else 0
                events.append(GroupFreed(group.ns, group.stream, group.name, tuple(ended), until, "ack_timeout"))
            if waited:
                events.append(GroupFreed(group.ns, group.stream, group.name, tuple(waited), 0, DELAY_OVER))
        return events

    # -- snapshots

    def dump(self) -> bytes:
        return group_snapshot.dump(self._sorted())

    def load(self, data: bytes) -> None:
        self._groups = {}
        self._doomed = {}
        self._pending = 0
        self.bytes = 0
        for group in group_snapshot.load(data):
            self._groups.setdefault((group.ns, group.stream), {})[group.name] = group
            self._pending += len(group.pending)
            self.bytes += group.memory()
            if group.doomed:
                self._doomed[group] = None
        self._timers.rebuild(self._sorted())

    # -- within: deciding

    def _find(self, ns: str, stream: str, group: str) -> Group | None:
        groups = self._groups.get((ns, stream))
        return None if groups is None else groups.get(group)

    def _known(self, ns: str, stream: str, group: str) -> Group:
        found = self._find(ns, stream, group)
        if found is None:
            check_group_name(ns, stream, group)
            raise no_group(stream, group)
        return found

    def _open(
        self, now: int, index: int, ns: str, stream: str, group: str, settings: GroupSettings | None
    ) -> tuple[Events, Group]:
        """The group, or one that will be there when the events are applied."""
        found = self._find(ns, stream, group)
        if found is not None:
            return [], found
        return self._new(now, index, ns, stream, group, settings or DEFAULT_SETTINGS, None)

    def _new(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        group: str,
        settings: GroupSettings,
        start: StreamId | None,
    ) -> tuple[Events, Group]:
        check_group_name(ns, stream, group)
        check_settings(settings)
        if len(self._groups.get((ns, stream), ())) >= GROUPS:
            raise Refused("quota_exceeded", f"stream {stream!r} has {GROUPS} groups")
        events: Events = []
        after = 0
        source = self._streams.find(ns, stream)
        if source is None:
            events, _ = self._streams.decide_create(now, index, ns, stream, 1, Retention())
        elif start is not None:
            after = source.ordinal_at_or_after(*start) - 1
        else:
            after = source.first_ordinal - 1
        events.append(GroupCreated(ns, stream, group, settings, after))
        return events, Group(ns, stream, group, settings, after)

    def _joining(self, group: Group, now: int, consumer: str, bound: bool) -> GroupJoined:
        check_consumer(consumer)
        others = len(group.members)
        if group.mode == EXCLUSIVE and others > group.settings.max_standbys < STANDBYS_UNLIMITED:
            text = f"group {group.name!r} is locked: it has {others} of {1 + group.settings.max_standbys} consumers"
            raise Refused("conflict", text, {"code": "group_locked"})
        if others >= MEMBERS:
            raise Refused("quota_exceeded", f"group {group.name!r} has {MEMBERS} members")
        return GroupJoined(group.ns, group.stream, group.name, consumer, now, bound)

    def _entries(self, group: Group, ids: Sequence[StreamId], consumer: str, held: bool) -> dict[int, None]:
        """The entries of the pending list that these ids name; only those of the consumer, only those held."""
        check_ids(ids)
        found: dict[int, None] = {}
        source = self._streams.find(group.ns, group.stream)
        if source is None:
            return found
        pending = group.pending
        following = source.last_ordinal + 1
        for id in ids:
            # Most ids follow one another, as they were handed out, and need no search.
            if following <= source.last_ordinal and source.id_of(following) == id:
                ordinal: int | None = following
            else:
                ordinal = source.ordinal_of(*id)
            if ordinal is None:
                continue
            following = ordinal + 1
            entry = pending.get(ordinal)
            if entry is None or entry.state == DOOMED or (held and entry.state != HELD):
                continue
            if not consumer or entry.member.consumer == consumer:
                found[ordinal] = None
        return found

    def _claimed_from(self, ns: str, stream: str, group: str, consumer: str, min_idle_ms: int) -> Group:
        found = self._known(ns, stream, group)
        check_consumer(consumer)
        check_duration("min_idle", min_idle_ms)
        return found

    def _bury(self, now: int, index: int, group: Group) -> Events:
        """Copies records to the dead-letter stream and acknowledges them."""
        ns, stream = group.ns, group.stream
        source = self._streams.find(ns, stream)
        assert source is not None
        target = dead_letter_stream(stream, group.name)
        events: Events = []
        ordinals: list[int] = []
        for ordinal, reason in group.doomed.items():
            headers = (
                (b"flo-origin-stream", stream.encode()),
                (b"flo-origin-id", format_id(source.id_of(ordinal)).encode()),
                (b"flo-group", group.name.encode()),
                (b"flo-deliveries", b"%d" % group.pending[ordinal].count),
                (b"flo-reason", reason.encode()),
            )
            undone = len(ordinals)
            events += self._streams.decide_copy(
                now, index + undone, ns, target, source, ordinal, headers, undone=undone
            )
            ordinals.append(ordinal)
            if len(ordinals) == BURIED:
                break
        events.append(GroupAcked(ns, stream, group.name, tuple(ordinals)))
        return events

    # -- within: applying

    def _create(self, event: GroupCreated) -> None:
        groups = self._groups.setdefault((event.ns, event.stream), {})
        if event.group in groups:
            return
        group = groups[event.group] = Group(event.ns, event.stream, event.group, event.settings, event.after)
        self.bytes += group.memory()

    def _delivered(self, group: Group, event: GroupDelivered) -> None:
        member = group.members.get(event.consumer)
        if member is None:
            return
        first = event.first
        count = event.count
        if event.no_ack:
            group.settle(event.again)
        else:
            if event.again:
                group.deliver_again(member, event.at, event.deadline, event.again)
            if count:
                group.deliver_range(member, event.at, event.deadline, first, count)
            if event.deadline:
                self._timers.add(event.deadline, group, (*event.again, *range(first, first + count)))
        if count:
            group.cursor = first + count - 1
            group.last_id = (event.last_ms, event.last_seq)

    def _picked(self, group: Group, event: GroupPicked) -> None:
        member = group.members.get(event.consumer)
        if member is None:
            return
        ordinals = event.ordinals
        if event.no_ack:
            group.settle(event.again)
        else:
            if event.again:
                group.deliver_again(member, event.at, event.deadline, event.again)
            group.deliver_slots(member, event.at, event.deadline, ordinals, event.slots)
            if event.deadline:
                self._timers.add(event.deadline, group, (*event.again, *ordinals))
        _passed(group, event.consumer, event.passes)
        if ordinals:
            newest = max(ordinals)
            if newest > group.cursor:
                group.cursor = newest
                group.last_id = (event.last_ms, event.last_seq)

    def _drop(self, group: Group) -> None:
        groups = self._groups[group.ns, group.stream]
        del groups[group.name]
        if not groups:
            del self._groups[group.ns, group.stream]
        group.gone = True
        self._doomed.pop(group, None)
        self._pending -= len(group.pending)
        self.bytes -= group.memory()

    def _account(self, group: Group, entries: int, members: int) -> None:
        """After a change of a group that had so many entries and members."""
        more = len(group.pending) - entries
        self._pending += more
        self.bytes += more * ENTRY_BYTES + (len(group.members) - members) * MEMBER_BYTES
        if self._timers.size > 2 * self._pending + TIMER_GARBAGE:
            self._timers.rebuild(self._sorted())

    def _sorted(self) -> _Sorted:
        return [
            self._groups[address][name] for address in sorted(self._groups) for name in sorted(self._groups[address])
        ]


def _passed(group: Group, consumer: str, passes: Sequence[tuple[int, int]]) -> None:
    member = group.members.get(consumer)
    if member is not None and group.slots is not None:
        for after, end in passes:
            group.slots.passed(after, end, member.low, member.high)
