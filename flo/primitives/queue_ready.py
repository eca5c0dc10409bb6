"""The ready messages of a queue in the order of priority and seq.

An order of the state, not state: it is rebuilt from the messages. New messages come with ascending seqs, so a
priority's messages are a run to which one appends; those that come back (given up, expired, delayed, requeued)
stand in a heap beside it. Who looks at the first ones leaves them in front of the run.

What is not ready any more and did not stand in front keeps its entry until it is met, or until such entries
outnumber the others.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import Final

from flo.primitives.queue_timers import GARBAGE, READY, Item

LANES_KEPT: Final = 8  # priorities whose lanes stay when they are empty


class Lane:
    """One priority."""

    __slots__ = ("back", "garbage", "run")

    def __init__(self) -> None:
        self.run: deque[Item] = deque()
        self.back: list[tuple[int, Item]] = []
        self.garbage = 0

    def first(self, count: int) -> list[Item]:
        run, back = self.run, self.back
        found: list[Item] = []
        while len(found) < count:
            if back and (not run or back[0][0] < run[0].seq):
                item = heappop(back)[1]
            elif run:
                item = run.popleft()
            else:
                break
            if item.state == READY:
                found.append(item)
            else:
                item.listed = False
                self.garbage -= 1
        run.extendleft(reversed(found))
        return found

    def sweep(self) -> None:
        run: deque[Item] = deque()
        for item in self.run:
            if item.state == READY:
                run.append(item)
            else:
                item.listed = False
        back: list[tuple[int, Item]] = []
        for entry in self.back:
            if entry[1].state == READY:
                back.append(entry)
            else:
                entry[1].listed = False
        heapify(back)
        self.run = run
        self.back = back
        self.garbage = 0


class Ready:
    __slots__ = ("_lanes", "_priorities")

    def __init__(self) -> None:
        self._lanes: dict[int, Lane] = {}
        self._priorities: list[int] = []  # sorted

    def add(self, item: Item) -> None:
        """The item's state says already that it is ready."""
        lane = self._lanes.get(item.priority)
        if lane is None:
            lane = self._lanes[item.priority] = Lane()
            self._priorities.append(item.priority)
            self._priorities.sort()
        if item.listed:
            lane.garbage -= 1
            return
        item.listed = True
        run = lane.run
        if not run or item.seq > run[-1].seq:
            run.append(item)
        else:
            heappush(lane.back, (item.seq, item))

    def remove(self, item: Item) -> None:
        """The item's state says already that it is not ready any more."""
        lane = self._lanes[item.priority]
        run, back = lane.run, lane.back
        if run and run[0] is item:
            run.popleft()
            item.listed = False
        elif back and back[0][1] is item:
            heappop(back)
            item.listed = False
        else:
            lane.garbage += 1
            if lane.garbage > GARBAGE and 2 * lane.garbage > len(run) + len(back):
                lane.sweep()
        if not lane.run and not lane.back and len(self._priorities) > LANES_KEPT:
            del self._lanes[item.priority]
            self._priorities.remove(item.priority)

    def first(self, count: int) -> list[Item]:
        """The next ones, at most `count`."""
        found: list[Item] = []
        for priority in self._priorities:
            found += self._lanes[priority].first(count - len(found))
            if len(found) >= count:
                break
        return found

    def oldest(self) -> Item | None:
        """Of all priorities the one with the lowest seq."""
        oldest: Item | None = None
        for priority in self._priorities:
            for item in self._lanes[priority].first(1):
                if oldest is None or item.seq < oldest.seq:
                    oldest = item
        return oldest
