"""A stream machine with the log and the clock that its partition would give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from flo.log.errors import LogDamaged
from flo.primitives.machine import Event, Refused
from flo.primitives.stream_pages import Appended, NewRecord, PlacedPage, Retention, StreamId, Trimmed
from flo.primitives.streams import Streams

NOW = 1_750_000_000_000


class Store:
    def __init__(self) -> None:
        self.streams = Streams()
        self.now = NOW
        self.index = 0
        self.log: list[tuple[int, int, bytes]] = []  # time, kind, payload

    def commit(self, events: Sequence[Event]) -> None:
        for event in events:
            self.index += 1
            self.log.append((self.now, event.KIND, msgspec.msgpack.encode(event)))
            self.streams.apply(event, self.index, self.now)

    def do(self, what: str, stream: str, *args: Any, ns: str = "default", **options: Any) -> Any:
        decide = getattr(self.streams, f"decide_{what}")
        events, reply = decide(self.now, self.index + 1, ns, stream, *args, **options)
        self.commit(events)
        return reply

    def append(self, stream: str, *payloads: bytes, **options: Any) -> Appended:
        reply: Appended = self.do("append", stream, [NewRecord(payload) for payload in payloads], **options)
        return reply

    def fill(self, stream: str, count: int, **options: Any) -> list[StreamId]:
        """One record in each millisecond."""
        ids = []
        for number in range(count):
            ids.append(self.append(stream, b"%d" % number, **options).first)
            self.now += 1
        return ids

    def create(self, stream: str, partitions: int = 1, ns: str = "default", **bounds: int) -> bool:
        new: bool = self.do("create", stream, partitions, Retention(**bounds), ns=ns)
        return new

    def trim(self, stream: str, **options: Any) -> Trimmed:
        reply: Trimmed = self.do("trim", stream, **options)
        return reply

    def copy(self, stream: str, source: str, ordinal: int, *headers: tuple[bytes, bytes]) -> None:
        found = self.streams.find("default", source)
        assert found is not None
        self.commit(self.streams.decide_copy(self.now, self.index + 1, "default", stream, found, ordinal, headers))

    def read(self, stream: str, *, ns: str = "default", **options: Any) -> PlacedPage:
        return self.streams.read(self.now, ns, stream, **options)

    def ids(self, stream: str, **options: Any) -> list[StreamId]:
        return [(record.ms, record.seq) for record in self.read(stream, **options).records]

    def sweep(self) -> int:
        """Runs the timers that are due; returns how many streams were trimmed."""
        trimmed = 0
        while (due := self.streams.next_due()) is not None and due <= self.now:
            events = self.streams.due(self.now, self.index + 1)
            self.commit(events)
            trimmed += len(events)
        return trimmed

    def refused(self, what: str, *args: Any, **options: Any) -> Refused:
        """That the command is refused and changes nothing."""
        before = self.streams.dump()
        with pytest.raises(Refused) as refusal:
            getattr(self, what)(*args, **options)
        assert self.streams.dump() == before
        return refusal.value

    def replayed(self) -> Streams:
        """The machine that a replay of the log makes."""
        streams = Streams()
        decoders = {kind: msgspec.msgpack.Decoder(event) for (kind, _), event in Streams.events.items()}
        for index, (now, kind, payload) in enumerate(self.log, 1):
            streams.apply(decoders[kind].decode(payload), index, now)
        return streams

    def read_events(self, indexes: Sequence[int]) -> list[tuple[bytes, str]]:
        """What a log does: its payloads are all on disk. A payload that was made empty is damaged."""
        found = [self.log[index - 1][2] for index in indexes]
        for index, payload in zip(indexes, found, strict=True):
            if not payload:
                raise LogDamaged(f"event {index} does not match its checksum")
        return [(payload, "warm") for payload in found]


def loaded(streams: Streams) -> Streams:
    """The machine that its snapshot makes."""
    other = Streams()
    other.load(streams.dump())
    return other
