"""Which consumers of a group are there: the connections that they joined on, and how long they have been silent.

Nothing of it is logged but what follows from it: a member of an exclusive or key-shared group that is gone leaves
(spec/streams.md §8). In a shared group nothing hangs on a member's presence. Called with the partition's lock held.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, TypeAlias

from flo.grid.waiters import Parked
from flo.primitives.group_events import GroupDelivered, GroupJoined, GroupLeft, GroupPicked
from flo.primitives.machine import Event

if TYPE_CHECKING:
    from flo.grid.store_group import GroupOperations

SILENCE_MIN_MS: Final = 5_000
SILENCE_UNLIMITED_MS: Final = 30_000  # of a group whose acknowledgements have no limit
SHARED: Final = "shared"
GARBAGE: Final = 1_024  # deadlines of those who have left, before it pays to take them out

Key: TypeAlias = tuple[str, str, str, str]  # namespace, stream, group, consumer


class _Seen:
    __slots__ = ("at", "key", "number", "owner", "parked", "silence_ms")

    def __init__(self, key: Key, number: int, at: int, silence_ms: int) -> None:
        self.key = key
        self.number = number  # of the arrival: who has left and comes again is another
        self.at = at
        self.owner: Hashable = None
        self.parked: Parked | None = None
        self.silence_ms = silence_ms


class Members:
    def __init__(self, store: GroupOperations) -> None:
        self._store = store
        self._seen: dict[Key, _Seen] = {}
        self._owned: dict[Hashable, dict[Key, None]] = {}
        self._deadlines: list[tuple[int, int, _Seen]] = []  # one of each who is there, and of some who have left
        self._arrivals = 0

    def seen(
        self, now: int, ns: str, stream: str, group: str, consumer: str, owner: Hashable, *, joined: bool = False
    ) -> None:
        """The consumer has joined or read. It is bound to the connection that it came on first, or joins on anew."""
        key = (ns, stream, group, consumer)
        member = self._seen.get(key)
        if member is None:
            settings = self._store.groups.settings(ns, stream, group)
            if settings is None or settings.mode == SHARED:
                return
            silence = max(SILENCE_MIN_MS, settings.ack_timeout_ms or SILENCE_UNLIMITED_MS)
            self._arrivals += 1
            member = self._seen[key] = _Seen(key, self._arrivals, now, silence)
            heappush(self._deadlines, (now + silence, member.number, member))
            if len(self._deadlines) > 2 * len(self._seen) + GARBAGE:
                self._deadlines = sorted(entry for entry in self._deadlines if self._is_there(entry[2]))
            joined = True
        member.at = now
        if joined and owner is not None and owner != member.owner:
            self._unbind(key, member)
            member.owner = owner
            self._owned.setdefault(owner, {})[key] = None

    def heard(self, now: int, ns: str, stream: str, group: str, consumer: str) -> None:
        member = self._seen.get((ns, stream, group, consumer))
        if member is not None:
            member.at = now

    def noticed(self, now: int, events: Sequence[Event]) -> None:
        """What a run has done in groups: its consumers are bound to no connection."""
        for event in events:
            if isinstance(event, GroupJoined):
                self.seen(now, event.ns, event.stream, event.group, event.consumer, None)
            elif isinstance(event, GroupLeft):
                self.left(event.ns, event.stream, event.group, event.consumer)
            elif isinstance(event, GroupDelivered | GroupPicked):
                self.heard(now, event.ns, event.stream, event.group, event.consumer)

    def parked(self, ns: str, stream: str, group: str, consumer: str, parked: Parked) -> None:
        """While the consumer's read waits it is not silent."""
        member = self._seen.get((ns, stream, group, consumer))
        if member is not None:
            member.parked = parked

    def left(self, ns: str, stream: str, group: str, consumer: str) -> None:
        key = (ns, stream, group, consumer)
        member = self._seen.pop(key, None)
        if member is not None:
            self._unbind(key, member)

    def gone(self, *address: str) -> None:
        """A namespace, a stream in it or a group of that is deleted: what is made anew has nothing to do with it."""
        size = len(address)
        for key in [key for key in self._seen if key[:size] == address]:
            self.left(*key)

    def owner_gone(self, owner: Hashable) -> None:
        for key in list(self._owned.pop(owner, ())):
            self._store.group_leave(*key)

    def started(self, now: int) -> None:
        """Memory is new, and no connection of before is there: who was bound to one leaves, the others are awaited."""
        self._seen.clear()
        self._owned.clear()
        self._deadlines.clear()
        for ns, stream, group, consumer, bound in self._store.groups.present():
            if bound:
                self._store.group_leave(ns, stream, group, consumer)
            else:
                self.seen(now, ns, stream, group, consumer, None)

    def next_due(self) -> int | None:
        deadlines = self._deadlines
        while deadlines and not self._is_there(deadlines[0][2]):
            heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def expire(self, now: int) -> None:
        """Who has been silent for too long leaves."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            member = heappop(deadlines)[2]
            if not self._is_there(member):
                continue
            if member.parked is not None and not member.parked.over:
                member.at = now
            until = member.at + member.silence_ms
            if until <= now:
                self._store.group_leave(*member.key)
            else:
                heappush(deadlines, (until, member.number, member))

    def _is_there(self, member: _Seen) -> bool:
        return self._seen.get(member.key) is member

    def _unbind(self, key: Key, member: _Seen) -> None:
        if member.owner is None:
            return
        owned = self._owned.get(member.owner)
        if owned is not None:
            owned.pop(key, None)
            if not owned:
                del self._owned[member.owner]
        member.owner = None
