"""One consumer group as the machine holds it: members, a cursor, and the records that are handed out.

Records are ordinals. What was not handed out yet costs nothing. An entry of the pending list is held by a consumer,
ready to be delivered again, delayed until then, or doomed: on its way to the dead-letter stream.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import Final

from flo.primitives.group_rules import EXCLUSIVE, KEY_SHARED
from flo.primitives.group_slots import Slots
from flo.primitives.stream_pages import GroupSettings, StreamId
from flo.primitives.stream_state import Stream

HELD: Final = 0
READY: Final = 1
DELAYED: Final = 2
DOOMED: Final = 3

DELAY_OVER: Final = "delay_over"
LEAVE: Final = "leave"

GROUP_BYTES: Final = 1_600
MEMBER_BYTES: Final = 500
ENTRY_BYTES: Final = 300
SLOT_BYTES: Final = 16
SINGLE_INSERTS: Final = 8  # up to so many are put into their places one by one
ORDER_GARBAGE: Final = 1_024


class Member:
    __slots__ = ("bound", "consumer", "held", "high", "joined_at", "low")

    def __init__(self, consumer: str, joined_at: int, bound: bool) -> None:
        self.consumer = consumer
        self.joined_at = joined_at
        self.bound = bound  # to a connection, with which it goes
        self.held: set[int] = set()
        self.low = 0  # its slots: from here
        self.high = 0  # up to here, without it


class Entry:
    """A record that was handed out and not acknowledged."""

    __slots__ = ("count", "due", "first_at", "last_at", "member", "slot", "state")

    def __init__(self, member: Member, at: int, due: int, slot: int) -> None:
        self.member = member  # who holds it, or held it last
        self.first_at = at
        self.last_at = at
        self.count = 1
        self.due = due  # end of the lease or of the delay; 0: none
        self.slot = slot  # 0 in a group without slots
        self.state = HELD


class Group:
    __slots__ = (
        "ack_timeout",
        "cursor",
        "doomed",
        "gone",
        "last_id",
        "max_deliver",
        "members",
        "mode",
        "name",
        "ns",
        "order",
        "pending",
        "ready",
        "settings",
        "slots",
        "stream",
    )

    def __init__(self, ns: str, stream: str, name: str, settings: GroupSettings, after: int) -> None:
        self.ns = ns
        self.stream = stream
        self.name = name
        self.settings = settings
        self.mode = settings.mode
        self.ack_timeout = settings.ack_timeout_ms
        self.max_deliver = settings.max_deliver
        self.cursor = after  # the newest record handed out; without slots, everything up to it was
        self.last_id: StreamId | None = None  # of the newest record handed out
        self.members: dict[str, Member] = {}  # in the order in which they joined
        self.pending: dict[int, Entry] = {}
        self.order: list[int] = []  # the ordinals of `pending` in order, and of some that have gone
        self.ready: dict[int, list[int]] = {}  # by slot, negative: the oldest stands at the end
        self.doomed: dict[int, str] = {}  # why
        self.slots: Slots | None = Slots(settings.slots, after) if settings.mode == KEY_SHARED else None
        self.gone = False

    # -- what is there

    def memory(self) -> int:
        slots = SLOT_BYTES * self.settings.slots if self.slots is not None else 0
        return GROUP_BYTES + slots + MEMBER_BYTES * len(self.members) + ENTRY_BYTES * len(self.pending)

    def listed(self) -> int:
        """Length of the pending list: a doomed record has left it."""
        return len(self.pending) - len(self.doomed)

    def is_active(self, consumer: str) -> bool:
        """Of a member: that it is not a standby."""
        return self.mode != EXCLUSIVE or next(iter(self.members)) == consumer

    def floor(self, stream: Stream) -> int:
        """Everything up to it is acknowledged or trimmed."""
        floor = self.cursor if self.slots is None else self.slots.done_up_to(stream)
        for ordinal in self.order:
            if ordinal in self.pending:
                return min(floor, ordinal - 1)
        return floor

    def ready_again(self, low: int, high: int, blocked: set[int], limit: int) -> list[int]:
        """What can be delivered again of these slots without the blocked ones, oldest first."""
        if self.slots is None:
            waiting = self.ready.get(0)
            return [-ordinal for ordinal in reversed(waiting[-limit:])] if waiting is not None else []
        found: list[int] = []
        for slot, waiting in self.ready.items():
            if low <= slot < high and slot not in blocked:
                found += waiting[-limit:]
        found.sort(reverse=True)
        return [-ordinal for ordinal in found[:limit]]

    def walk(self, start: int, most: int) -> list[int]:
        """The next ordinals of the pending list from `start` on, and of some that have gone."""
        place = bisect_left(self.order, start)
        return self.order[place : place + most]

    # -- members

    def join(self, consumer: str, at: int, bound: bool) -> None:
        member = self.members.get(consumer)
        if member is not None:
            member.bound = bound
            return
        self.members[consumer] = Member(consumer, at, bound)
        self._share_out()

    def leave(self, consumer: str) -> None:
        member = self.members.pop(consumer, None)
        if member is None:
            return
        self.free(sorted(member.held), 0, LEAVE)
        self._share_out()

    def _share_out(self) -> None:
        slots = self.slots
        if slots is None:
            return
        slots.share_out([*self.members])
        for place, member in enumerate(self.members.values()):
            member.low, member.high = slots.range_of(place, len(self.members))

    # -- deliveries

    def deliver_range(self, member: Member, at: int, due: int, first: int, count: int) -> None:
        """New records, in a group without slots."""
        numbers = range(first, first + count)
        pending = self.pending
        for ordinal in numbers:
            pending[ordinal] = Entry(member, at, due, 0)
        member.held.update(numbers)
        self.order.extend(numbers)

    def deliver_slots(self, member: Member, at: int, due: int, ordinals: Sequence[int], places: Sequence[int]) -> None:
        """New records, each with its slot."""
        slots = self.slots
        assert slots is not None
        for ordinal, slot in zip(ordinals, places, strict=True):
            self.pending[ordinal] = Entry(member, at, due, slot)
            slots.hold(slot, member.consumer)
            if self.order and self.order[-1] > ordinal:
                insort(self.order, ordinal)
            else:
                self.order.append(ordinal)
        member.held.update(ordinals)

    def deliver_again(self, member: Member, at: int, due: int, ordinals: Sequence[int]) -> None:
        """Entries of the pending list, whoever has them."""
        for ordinal in ordinals:
            entry = self.pending.get(ordinal)
            if entry is None or entry.state == DOOMED:
                continue
            self._take_out(ordinal, entry)
            entry.member = member
            entry.last_at = at
            entry.count += 1
            entry.due = due
            entry.state = HELD
            member.held.add(ordinal)
            if self.slots is not None:
                self.slots.hold(entry.slot, member.consumer)

    def settle(self, ordinals: Iterable[int]) -> None:
        """They are done."""
        pending = self.pending
        for ordinal in ordinals:
            entry = pending.pop(ordinal, None)
            if entry is not None:
                self._take_out(ordinal, entry)
        if len(self.order) > 2 * len(pending) + ORDER_GARBAGE:
            self.order = [ordinal for ordinal in self.order if ordinal in pending]

    def free(self, ordinals: Iterable[int], until: int, reason: str) -> None:
        """Ends deliveries, or delays if that is the reason."""
        expected = DELAYED if reason == DELAY_OVER else HELD
        most = self.max_deliver
        ready: dict[int, list[int]] = {}
        for ordinal in ordinals:
            entry = self.pending.get(ordinal)
            if entry is None or entry.state != expected:
                continue
            self._take_out(ordinal, entry)
            entry.due = 0
            if most and entry.count >= most:
                entry.state = DOOMED
                self.doomed[ordinal] = reason
            elif until:
                entry.state = DELAYED
                entry.due = until
            else:
                entry.state = READY
                ready.setdefault(entry.slot, []).append(-ordinal)
        for slot, numbers in ready.items():
            self._make_ready(slot, numbers)

    def touch(self, ordinals: Iterable[int], due: int) -> None:
        for ordinal in ordinals:
            entry = self.pending.get(ordinal)
            if entry is not None and entry.state == HELD:
                entry.due = due

    def trimmed(self, first_ordinal: int) -> None:
        """The records before are gone."""
        self.cursor = max(self.cursor, first_ordinal - 1)
        if self.slots is not None:
            self.slots.trimmed(first_ordinal)
        end = bisect_left(self.order, first_ordinal)
        if end:
            gone = self.order[:end]
            del self.order[:end]
            self.settle(gone)

    # -- within

    def _take_out(self, ordinal: int, entry: Entry) -> None:
        """Out of what its state is kept in."""
        state = entry.state
        if state == HELD:
            entry.member.held.discard(ordinal)
            if self.slots is not None:
                self.slots.drop(entry.slot, entry.member.consumer)
        elif state == READY:
            waiting = self.ready[entry.slot]
            if waiting[-1] == -ordinal:
                waiting.pop()
            else:
                del waiting[bisect_left(waiting, -ordinal)]
            if not waiting:
                del self.ready[entry.slot]
        elif state == DOOMED:
            del self.doomed[ordinal]

    def _make_ready(self, slot: int, numbers: list[int]) -> None:
        waiting = self.ready.get(slot)
        if waiting is None:
            numbers.sort()
            self.ready[slot] = numbers
        elif len(numbers) <= SINGLE_INSERTS:
            for number in numbers:
                insort(waiting, number)
        else:
            waiting += numbers
            waiting.sort()
