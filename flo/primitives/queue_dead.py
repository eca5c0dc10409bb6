"""The dead-letter queue of a queue: bounded, oldest first. Places number what was moved there and are never reused."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from flo.primitives.queue_timers import GARBAGE, Item


class Dead:
    __slots__ = ("gone", "item", "moved_at", "place", "reason")

    def __init__(self, place: int, item: Item, moved_at: int, reason: str) -> None:
        self.place = place
        self.item = item
        self.moved_at = moved_at
        self.reason = reason
        self.gone = False


class DeadLetterQueue:
    __slots__ = ("evicted", "last_place", "_by_seq", "_head", "_order")

    def __init__(self) -> None:
        self.last_place = 0
        self.evicted = 0  # ever
        self._by_seq: dict[int, Dead] = {}
        self._order: list[Dead] = []  # by place; some are gone
        self._head = 0  # everything before it is gone

    def __len__(self) -> int:
        return len(self._by_seq)

    def __contains__(self, seq: int) -> bool:
        return seq in self._by_seq

    def add(self, item: Item, now: int, reason: str) -> None:
        self.last_place += 1
        self.restore(Dead(self.last_place, item, now, reason))

    def restore(self, dead: Dead) -> None:
        """Puts an entry behind the others, whose places are lower."""
        self._by_seq[dead.item.seq] = dead
        self._order.append(dead)

    def remove(self, seq: int) -> Item | None:
        dead = self._by_seq.pop(seq, None)
        if dead is None:
            return None
        dead.gone = True
        if len(self._order) > 2 * len(self._by_seq) + GARBAGE:
            self._order = list(self.after(0))
            self._head = 0
        return dead.item

    def oldest(self) -> Dead | None:
        order = self._order
        while self._head < len(order) and order[self._head].gone:
            self._head += 1
        return order[self._head] if self._head < len(order) else None

    def after(self, place: int) -> Iterator[Dead]:
        """Oldest first; 0: all of them. It must not change meanwhile."""
        order = self._order
        for at in range(bisect_right(order, place, lo=self._head, key=_place), len(order)):
            if not order[at].gone:
                yield order[at]


def _place(dead: Dead) -> int:
    return dead.place
