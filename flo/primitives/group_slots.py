"""The slots of a key-shared group: whose they are, who holds records of them, and how far each is handed out.

The members, in the order in which they joined, own ranges of slots of equal length. No record is remembered before it
is handed out: a slot knows up to where its records are done, and a read looks through the stream from the least of its
member's slots on. Slots of one member lie together, so that the usual case is a few operations on slices.
"""

from __future__ import annotations

from typing import Final

from flo.primitives.stream_state import Stream

# These two are not final so that tests can lower them, compiled or not.
SCAN_RECORDS = 32_768  # that one pass looks at
SCAN_LOGGED = 1_024  # records of others that a read without result need not look at again
FLOOR_RECORDS: Final = 4_096  # looked at to tell how far everything is done
_MIX: Final = 2_654_435_761  # odd, about 2**32 divided by the golden ratio: neighbours land far apart


class Picked:
    """What a read finds."""

    __slots__ = ("ordinals", "passes", "scanned", "slots")

    def __init__(self) -> None:
        self.ordinals: list[int] = []
        self.slots: list[int] = []
        self.passes: list[tuple[int, int]] = []
        self.scanned = 0


class Slots:
    __slots__ = ("blocked", "count", "done", "holders", "owners")

    def __init__(self, count: int, after: int) -> None:
        self.count = count
        self.done: list[int] = [after] * count  # records up to it have been handed out, or are of other slots
        self.owners: list[str] = []  # consumers in the order in which they joined
        self.holders: dict[int, dict[str, int]] = {}  # by slot: how many records each consumer holds
        self.blocked: set[int] = set()  # slots of which others than the owner hold records

    def range_of(self, place: int, members: int) -> tuple[int, int]:
        """The slots of a member: from the first, up to the second without it."""
        return place * self.count // members, (place + 1) * self.count // members

    def owner(self, slot: int) -> str | None:
        members = len(self.owners)
        return self.owners[((slot + 1) * members - 1) // self.count] if members else None

    def blocked_in(self, low: int, high: int) -> set[int]:
        """Slots that their owner must wait for."""
        return {slot for slot in self.blocked if low <= slot < high} if self.blocked else self.blocked

    def held_in(self, low: int, high: int) -> set[int]:
        """Slots that a consumer who is not a member yet would have to wait for."""
        return {slot for slot in self.holders if low <= slot < high}

    def pick(self, stream: Stream, low: int, high: int, blocked: set[int], limit: int) -> Picked:
        """The next records of these slots without the blocked ones. A slot that lags far behind the others, since it
        was blocked or changed hands, delays them no longer than one pass takes."""
        picked = Picked()
        if blocked:
            done = [self.done[slot] for slot in range(low, high) if slot not in blocked]
        else:
            done = self.done[low:high]
        if not done or not limit:
            return picked
        least = most = done[0]
        if done.count(least) < len(done):  # rare, and the count is fast when it is not so
            least, most = min(done), max(done)
        end = self._pass(stream, least, low, high, blocked, limit, picked)
        if len(picked.ordinals) < limit and end < most:
            self._pass(stream, most, low, high, blocked, limit, picked)
        return picked

    def _pass(
        self, stream: Stream, after: int, low: int, high: int, blocked: set[int], limit: int, picked: Picked
    ) -> int:
        count = self.count
        done = self.done
        ordinals = picked.ordinals
        end = min(stream.last_ordinal, after + SCAN_RECORDS)
        ordinal = after
        while ordinal < end:
            ordinal += 1
            slot = slot_of(stream.key_hash_of(ordinal), ordinal, count)
            if low <= slot < high and after <= done[slot] < ordinal and slot not in blocked:
                ordinals.append(ordinal)
                picked.slots.append(slot)
                if len(ordinals) == limit:
                    break
        if ordinal > after:
            picked.passes.append((after, ordinal))
            picked.scanned += ordinal - after
        return ordinal

    def done_up_to(self, stream: Stream) -> int:
        """All records up to it have been handed out; at most a little too low."""
        ordinal = min(self.done)
        end = min(stream.last_ordinal, ordinal + FLOOR_RECORDS)
        while ordinal < end:
            slot = slot_of(stream.key_hash_of(ordinal + 1), ordinal + 1, self.count)
            if self.done[slot] <= ordinal:
                break
            ordinal += 1
        return ordinal

    # -- changes

    def passed(self, after: int, end: int, low: int, high: int) -> None:
        """A pass has taken everything up to `end` from the slots that were done up to `after` or further."""
        done = self.done
        blocked = self.blocked
        if not blocked and low < high:
            least = done[low]
            if after <= least < end and done[low:high].count(least) == high - low:
                done[low:high] = [end] * (high - low)
                return
        for slot in range(low, high):
            if after <= done[slot] < end and slot not in blocked:
                done[slot] = end

    def hold(self, slot: int, consumer: str) -> None:
        """For the slot's owner. Others that hold some of it already block it still."""
        holders = self.holders.get(slot)
        if holders is None:
            self.holders[slot] = {consumer: 1}
        else:
            holders[consumer] = holders.get(consumer, 0) + 1

    def drop(self, slot: int, consumer: str) -> None:
        holders = self.holders[slot]
        left = holders[consumer] - 1
        if left:
            holders[consumer] = left
            return
        del holders[consumer]
        if not holders:
            del self.holders[slot]
        self._look(slot)

    def share_out(self, owners: list[str]) -> None:
        """The members are others now, or who holds what was loaded."""
        self.owners = owners
        self.blocked.clear()
        for slot in self.holders:
            self._look(slot)

    def trimmed(self, first_ordinal: int) -> None:
        if min(self.done) < first_ordinal - 1:
            self.done = [max(done, first_ordinal - 1) for done in self.done]

    def _look(self, slot: int) -> None:
        holders = self.holders.get(slot)
        if holders is None or (len(holders) == 1 and self.owner(slot) in holders):
            self.blocked.discard(slot)
        else:
            self.blocked.add(slot)


def slot_of(key_hash: int, ordinal: int, count: int) -> int:
    """The slot of a partition key; of a record without one, its ordinal, which stands for its id, decides."""
    return (key_hash or (ordinal * _MIX & 0xFFFFFFFF) >> 8) % count
