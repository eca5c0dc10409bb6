"""Who waits for something to come into being: a version of a key, a message, a record.

A waiter stands in the lines of its topics, in order of arrival. An event that touches a topic stirs its line;
at the end of the command the partition serves the stirred lines: each waiter tries again what it came for, and
what it then does is logged in the same frame. Connections' waits stand here and nowhere else; a run's wait is
state of the run, and stands in the same line.

Everything is called with the partition's lock held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any, Final, TypeAlias

from flo.api.errors import FloError, Unavailable
from flo.primitives.group_events import GroupAcked, GroupDeleted, GroupFreed, GroupLeft
from flo.primitives.kv_events import KvCommitted, KvDeleted, KvIncremented, KvPut
from flo.primitives.machine import Event, Refused
from flo.primitives.namespace_events import NamespaceDeleted
from flo.primitives.queue_events import (
    QueueBatchEnqueued,
    QueueDue,
    QueueEnqueued,
    QueueExpired,
    QueueNacked,
    QueueRequeued,
)
from flo.primitives.stream_events import StreamAppended, StreamCopied, StreamDeleted

WAITERS: Final = 65_536  # of one node

Topic: TypeAlias = tuple[str, str, bytes | str]
"""("kv", namespace, key), ("queue", namespace, name) or ("stream", namespace, name)."""

Attempt: TypeAlias = Callable[[], tuple[Any] | None]  # the result in a tuple, or None: still nothing
Done: TypeAlias = Callable[[Any], None]

KV_KINDS: Final = frozenset({KvPut.KIND, KvIncremented.KIND, KvDeleted.KIND})
QUEUE_KINDS: Final = frozenset(
    event.KIND for event in (QueueEnqueued, QueueBatchEnqueued, QueueNacked, QueueDue, QueueExpired, QueueRequeued)
)
STREAM_KINDS: Final = frozenset(
    event.KIND
    for event in (StreamAppended, StreamCopied, StreamDeleted, GroupDeleted, GroupLeft, GroupAcked, GroupFreed)
)


class Parked:
    """One waiter. `cancel` when nobody wants the result any more."""

    __slots__ = ("attempt", "deadline", "done", "empty", "over", "topics", "_waiters")

    def __init__(
        self, waiters: Waiters, topics: Sequence[Topic], attempt: Attempt, done: Done, empty: Any, deadline: int
    ) -> None:
        self._waiters = waiters
        self.topics = topics
        self.attempt = attempt
        self.done = done
        self.empty = empty  # what `done` gets when the time is over
        self.deadline = deadline  # epoch ms of the partition's time, 0: none
        self.over = False

    def cancel(self) -> None:
        if not self.over:
            self._waiters.leave(self)


class Waiters:
    def __init__(self, *, limit: int = WAITERS) -> None:
        self._lines: dict[Topic, dict[Parked, None]] = {}
        self._stirred: dict[Topic, None] = {}
        self._deadlines: list[tuple[int, int, Parked]] = []
        self._arrivals = 0
        self._limit = limit
        self.count = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def park(
        self, topics: Sequence[Topic], attempt: Attempt, done: Done, *, empty: Any = None, deadline: int = 0,
        limited: bool = True,
    ) -> Parked:  # fmt: skip
        """Puts a waiter at the end of its lines; it has tried already. Raises Refused over the limit of waiters."""
        if limited and self.count >= self._limit:
            raise Refused("quota_exceeded", f"too many waiters (max {self._limit})", {"code": "too_many_waiters"})
        parked = Parked(self, topics, attempt, done, empty, deadline)
        for topic in topics:
            self._lines.setdefault(topic, {})[parked] = None
        self.count += 1
        if deadline:
            self._arrivals += 1
            heappush(self._deadlines, (deadline, self._arrivals, parked))
        return parked

    def leave(self, parked: Parked) -> None:
        parked.over = True
        self.count -= 1
        for topic in parked.topics:
            line = self._lines.get(topic)
            if line is not None:
                line.pop(parked, None)
                if not line:
                    del self._lines[topic]
        if len(self._deadlines) > 64 and len(self._deadlines) > 4 * self.count:
            self._deadlines = sorted(entry for entry in self._deadlines if not entry[2].over)

    def counts(self) -> dict[str, int]:
        """Waiters by what they wait for: "kv", "queue" or "stream"."""
        counts: dict[str, int] = {"kv": 0, "queue": 0, "stream": 0}
        for topic, line in self._lines.items():
            counts[topic[0]] += len(line)
        return counts

    def saw(self, event: Event) -> None:
        """An event was applied: the lines that it may serve are stirred."""
        kind = event.KIND
        lines = self._lines
        if kind in KV_KINDS:
            topic: Topic = ("kv", event.ns, event.key)  # type: ignore[attr-defined]
            if topic in lines:
                self._stirred[topic] = None
        elif kind in QUEUE_KINDS:
            topic = ("queue", event.ns, event.queue)  # type: ignore[attr-defined]
            if topic in lines:
                self._stirred[topic] = None
        elif kind in STREAM_KINDS:
            topic = ("stream", event.ns, event.stream)  # type: ignore[attr-defined]
            if topic in lines:
                self._stirred[topic] = None
        elif kind == KvCommitted.KIND:
            assert isinstance(event, KvCommitted)
            for write in event.writes:
                topic = ("kv", event.ns, write.key)
                if not write.touched and topic in lines:
                    self._stirred[topic] = None
        elif kind == NamespaceDeleted.KIND:
            assert isinstance(event, NamespaceDeleted)
            for topic in lines:
                if topic[1] == event.ns:
                    self._stirred[topic] = None

    def saw_put(self, ns: str, key: bytes) -> None:
        """As `saw`, of a version of a key."""
        topic: Topic = ("kv", ns, key)
        if topic in self._lines:
            self._stirred[topic] = None

    def stir(self, topics: Iterable[Topic]) -> None:
        """These lines are served at the end of the command, whatever happened."""
        for topic in topics:
            if topic in self._lines:
                self._stirred[topic] = None

    @property
    def stirred(self) -> bool:
        return len(self._stirred) > 0

    def serve(self) -> None:
        """Lets the waiters of the stirred lines try again, until nothing is stirred any more."""
        stirred = self._stirred
        while stirred:
            topic = next(iter(stirred))
            del stirred[topic]
            for parked in list(self._lines.get(topic, ())):
                if parked.over:
                    continue
                try:
                    served = parked.attempt()
                except (Refused, FloError) as refused:
                    self.leave(parked)
                    parked.done(refused)
                    if isinstance(refused, Unavailable):
                        raise  # the memory is broken: nobody else is served from it
                    continue
                if served is not None:
                    self.leave(parked)
                    parked.done(served[0])
                elif topic[0] == "queue":
                    break  # no message is ready: those behind would find none either

    def next_due(self) -> int | None:
        """When the next wait ends at its time; at most a little early, for one that is over already."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].over:
            heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def expire(self, now: int) -> None:
        """Ends the waits whose time is over."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            _, _, parked = heappop(deadlines)
            if not parked.over:
                self.leave(parked)
                parked.done(parked.empty)

    def lost(self, error: FloError) -> None:
        """The memory that they wait on is thrown away: all waits end with this error."""
        waiting = dict.fromkeys(parked for line in self._lines.values() for parked in line)
        self._lines.clear()
        self._stirred.clear()
        self._deadlines.clear()
        self.count = 0
        for parked in waiting:
            parked.over = True
            parked.done(error)
