"""A world with one stream and its groups, at virtual time: what is decided is applied, also to a replica."""

from __future__ import annotations

import msgspec
import pytest

from flo.primitives.groups import Groups
from flo.primitives.machine import Event, Refused
from flo.primitives.stream_events import StreamCopied, StreamDeleted, StreamTrimmed
from flo.primitives.stream_pages import Claimed, Delivered, GroupInfo, GroupSettings, NewRecord, Pending, StreamId
from flo.primitives.streams import Streams

NOW = 1_750_000_000_000
NS = "default"
S = "events"
G = "g"
DEFAULT = GroupSettings()


class Replica:
    """The two machines, applied to as the composite machine does."""

    def __init__(self) -> None:
        self.streams = Streams()
        self.groups = Groups(self.streams)

    def apply(self, event: Event, index: int, now: int) -> None:
        if (event.KIND, event.VERSION) in Groups.events:
            self.groups.apply(event, index, now)
            return
        self.streams.apply(event, index, now)
        if isinstance(event, StreamTrimmed):
            self.groups.trimmed(event.ns, event.stream, event.first_ordinal)
        elif isinstance(event, StreamDeleted):
            self.groups.stream_deleted(event.ns, event.stream)

    def dump(self) -> tuple[bytes, bytes]:
        return self.streams.dump(), self.groups.dump()


class World:
    """Applies what is decided, also to a replica that gets the events as a log would give them."""

    def __init__(self) -> None:
        self.live, self.replica = Replica(), Replica()
        self.now = NOW
        self.index = 1
        self.log: list[Event] = []

    @property
    def groups(self) -> Groups:
        return self.live.groups

    def commit(self, events: list[Event]) -> list[Event]:
        for event in events:
            self.live.apply(event, self.index, self.now)
            kinds = {**Streams.events, **Groups.events}
            copy = msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=kinds[event.KIND, event.VERSION])
            self.replica.apply(copy, self.index, self.now)
            self.index += 1
            self.log.append(event)
        return events

    def check(self) -> None:
        """Replay, live state and a loaded snapshot are the same, bytewise."""
        assert self.live.dump() == self.replica.dump()
        loaded = Replica()
        loaded.streams.load(self.live.streams.dump())
        loaded.groups.load(self.live.groups.dump())
        assert loaded.dump() == self.live.dump()
        assert loaded.groups.bytes == self.groups.bytes == self.replica.groups.bytes

    def restart(self) -> None:
        self.check()
        data = self.live.dump()
        self.live = Replica()
        self.live.streams.load(data[0])
        self.live.groups.load(data[1])

    def advance(self, ms: int) -> None:
        """Time goes on; timers run when they are due."""
        end = self.now + ms
        while True:
            self.run_timers()
            due = self.groups.next_due()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
        self.now = end
        self.run_timers()

    def run_timers(self) -> None:
        while (due := self.groups.next_due()) is not None and due <= self.now:
            self.commit(self.groups.due(self.now, self.index))

    # -- commands

    def append(self, *payloads: str, key: str | None = None, stream: str = S, partition: int | None = None) -> None:
        records = [NewRecord(payload.encode()) for payload in payloads]
        raw = None if key is None else key.encode()
        events, _ = self.live.streams.decide_append(
            self.now, self.index, NS, stream, records, key=raw, partition=partition
        )
        self.commit(events)

    def fill(self, count: int) -> None:
        self.append(*(str(n) for n in range(count)))

    def ids(self, *ordinals: int, stream: str = S) -> list[StreamId]:
        found = self.live.streams.find(NS, stream)
        assert found is not None
        return [found.id_of(ordinal) for ordinal in ordinals]

    def trim(self, keep: int) -> None:
        self.commit(self.live.streams.decide_trim(self.now, self.index, NS, S, max_records=keep)[0])

    def create(self, settings: GroupSettings = DEFAULT, group: str = G, start: StreamId | None = None) -> list[Event]:
        return self.commit(self.groups.decide_create(self.now, self.index, NS, S, group, settings, start)[0])

    def join(self, consumer: str, group: str = G, bound: bool = False) -> list[Event]:
        return self.commit(self.groups.decide_join(self.now, self.index, NS, S, group, consumer, bound=bound)[0])

    def leave(self, consumer: str, group: str = G) -> list[Event]:
        return self.commit(self.groups.decide_leave(self.now, self.index, NS, S, group, consumer)[0])

    def deliver(
        self,
        consumer: str,
        limit: int = 10,
        group: str = G,
        no_ack: bool = False,
        settings: GroupSettings | None = None,
    ) -> list[Delivered]:
        events, delivered = self.groups.decide_read(
            self.now, self.index, NS, S, group, consumer, limit, no_ack=no_ack, settings=settings
        )
        self.commit(events)
        return delivered

    def read(self, consumer: str, limit: int = 10, group: str = G, no_ack: bool = False) -> list[int]:
        return [each.record.ordinal for each in self.deliver(consumer, limit, group, no_ack)]

    def ack(self, *ordinals: int, consumer: str = "", group: str = G) -> int:
        events, count = self.groups.decide_ack(
            self.now, self.index, NS, S, group, self.ids(*ordinals), consumer
        )  # fmt: skip
        self.commit(events)
        return count

    def nack(self, *ordinals: int, delay: int | None = None, consumer: str = "") -> int:
        events, count = self.groups.decide_nack(
            self.now, self.index, NS, S, G, self.ids(*ordinals), delay_ms=delay, consumer=consumer
        )
        self.commit(events)
        return count

    def touch(self, *ordinals: int, consumer: str, extend: int | None = None) -> int:
        events, count = self.groups.decide_touch(
            self.now, self.index, NS, S, G, self.ids(*ordinals), consumer, extend_ms=extend
        )
        self.commit(events)
        return count

    def claim(self, consumer: str, min_idle: int, *ordinals: int) -> list[int]:
        events, claimed = self.groups.decide_claim(
            self.now, self.index, NS, S, G, consumer, min_idle, self.ids(*ordinals)
        )
        self.commit(events)
        return [each.record.ordinal for each in claimed.records]

    def autoclaim(self, consumer: str, min_idle: int, start: StreamId = (0, 0), limit: int = 100) -> Claimed:
        events, claimed = self.groups.decide_autoclaim(
            self.now, self.index, NS, S, G, consumer, min_idle, start, limit
        )  # fmt: skip
        self.commit(events)
        return claimed

    def info(self, group: str = G) -> GroupInfo:
        info = self.groups.info(self.now, NS, S, group)
        assert info is not None
        return info

    def pending(self, consumer: str = "", group: str = G) -> dict[int, Pending]:
        """By ordinal."""
        found = self.live.streams.find(NS, S)
        assert found is not None
        page = self.groups.pending(self.now, NS, S, group, consumer, 1000)
        assert not page.has_more
        return {found.ordinal_of(entry.ms, entry.seq) or 0: entry for entry in page.entries}

    def dead_letters(self) -> list[dict[bytes, bytes]]:
        """The headers that the copies have got."""
        return [dict(event.headers) for event in self.log if isinstance(event, StreamCopied)]


def refused(kind: str, text: str, call: object, *args: object, **kwargs: object) -> Refused:
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    assert caught.value.kind == kind and text in caught.value.message, caught.value.message
    return caught.value
