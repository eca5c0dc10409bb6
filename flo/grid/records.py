"""The payloads of stream records, read from where they lie: the hot tier's memory, or the log.

The stream machine says where (`Placed`); nothing here needs its state, so that reading goes on outside the
partition's lock. A copied record (`StreamCopied`) has the payload of another event, which may be a copy itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from flo.api.errors import Unavailable
from flo.log.errors import LogDamaged
from flo.primitives.machine import Refused
from flo.primitives.stream_events import StreamAppended, StreamCopied
from flo.primitives.stream_pages import Delivered, Headers, Placed, Record
from flo.primitives.stream_rules import format_id

HOT = "hot"

ReadEvents: TypeAlias = Callable[[Sequence[int]], list[tuple[bytes, str]]]
"""Payload and tier of durable events by index, as `LogBackend.read_events`: raises KeyError, LogDamaged."""

Load: TypeAlias = Callable[[Sequence[Placed] | Sequence[Delivered]], list[Record] | None]
"""Records with their payloads, or None when not all can be given without reading from disk."""

_Event: TypeAlias = StreamAppended | StreamCopied
_decoder: msgspec.msgpack.Decoder[_Event] = msgspec.msgpack.Decoder(_Event)


class Hot(Protocol):
    """What is used of flo.log.hot.HotBuffer."""

    def get(self, index: int) -> bytes | None: ...


class Records:
    def __init__(self, hot: Hot, read_events: ReadEvents) -> None:
        self._hot = hot
        self._read = read_events

    def load(self, records: Sequence[Placed] | Sequence[Delivered]) -> list[Record]:
        """The records with their payloads, in the same order. May read from disk; call it without the lock.

        Raises LogDamaged naming a record whose bytes are not what was written, and Unavailable naming one that the
        log let go after the caller learned of it.
        """
        whole = self._load(records, hot_only=False)
        assert whole is not None
        return whole

    def load_hot(self, records: Sequence[Placed] | Sequence[Delivered]) -> list[Record] | None:
        """As `load`, without any reading from disk: None when not all payloads are in memory."""
        return self._load(records, hot_only=True)

    def loaded(self, records: Sequence[Placed] | Sequence[Delivered], before: Load | None = None) -> Load:
        """Loads these, without the lock; what comes back gives them, and those of `before`, without reading. It raises
        Refused for what is damaged, so that who asked gets that as an answer."""
        found: dict[tuple[int, int], Record] = {}
        try:
            for number, record in enumerate(self.load(records)):
                found[_place(records[number])] = record
        except LogDamaged as damage:
            message = damage.message

            def refuse(wanted: Sequence[Placed] | Sequence[Delivered]) -> list[Record] | None:
                raise Refused("failed", message)

            return refuse

        def load(wanted: Sequence[Placed] | Sequence[Delivered]) -> list[Record] | None:
            if any(_place(r) not in found for r in wanted):
                return before(wanted) if before is not None else self.load_hot(wanted)
            return [
                msgspec.structs.replace(
                    found[_place(r)], delivery_count=r.delivery_count if isinstance(r, Delivered) else 0
                )
                for r in wanted
            ]

        return load

    def _load(self, records: Sequence[Placed] | Sequence[Delivered], *, hot_only: bool) -> list[Record] | None:
        events: dict[int, tuple[_Event, str]] = {}
        wanted: dict[int, Placed] = {}  # the events to fetch next, each with a record that needs it
        for record in records:
            placed = record.record if isinstance(record, Delivered) else record
            wanted[placed.index] = placed
        while wanted:
            missing: list[int] = []
            for index, placed in wanted.items():
                payload = self._hot.get(index)
                if payload is None:
                    if hot_only:
                        return None
                    missing.append(index)
                else:
                    events[index] = _event(payload, placed), HOT
            if missing:
                missing.sort()
                for index, (payload, tier) in zip(missing, self._read_log(missing, wanted), strict=True):
                    events[index] = _event(payload, wanted[index]), tier
            further: dict[int, Placed] = {}
            for index, placed in wanted.items():
                event = events[index][0]
                if isinstance(event, StreamCopied) and event.sources[0] not in events:
                    further[event.sources[0]] = placed
            wanted = further
        return [_record(record, events) for record in records]

    def _read_log(self, indexes: Sequence[int], asked: Mapping[int, Placed]) -> list[tuple[bytes, str]]:
        try:
            return self._read(indexes)
        except (KeyError, LogDamaged):
            # Singly, to tell which record it is. All of them may be there by now, no harm done.
            return [self._read_one(index, asked[index]) for index in indexes]

    def _read_one(self, index: int, placed: Placed) -> tuple[bytes, str]:
        try:
            return self._read([index])[0]
        except KeyError:
            raise Unavailable(
                f"record {format_id((placed.ms, placed.seq))} went while it was being read: event {index} is not in "
                "the log any more",
                hint="read again",
            ) from None
        except LogDamaged as damage:
            raise _damaged(placed, damage.message) from damage


def _event(payload: bytes, placed: Placed) -> _Event:
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError as fault:
        raise _damaged(placed, f"its event is no append: {fault}") from fault


def _record(record: Placed | Delivered, events: Mapping[int, tuple[_Event, str]]) -> Record:
    if isinstance(record, Delivered):
        placed, delivery_count = record.record, record.delivery_count
    else:
        placed, delivery_count = record, 0
    event, tier = events[placed.index]
    place = placed.place
    added: Headers = ()
    first_seq = event.seq if isinstance(event, StreamCopied) else event.first_seq
    if (event.ms, first_seq + place) != (placed.ms, placed.seq):
        raise _damaged(placed, f"event {placed.index} holds {format_id((event.ms, first_seq))}")
    while isinstance(event, StreamCopied):
        place = event.source_place
        added = event.headers + added
        event, tier = events[event.sources[0]]
    if place >= len(event.records):
        raise _damaged(placed, f"its event has no place {place}")
    found = event.records[place]
    return Record(
        placed.ms, placed.seq, placed.partition, event.key, found.payload, found.headers + added, tier, delivery_count
    )


def _damaged(placed: Placed, what: str) -> LogDamaged:
    return LogDamaged(
        f"record {format_id((placed.ms, placed.seq))} is damaged: {what}",
        hint="`flo log verify DIR` tells what else is",
    )


def _place(record: Placed | Delivered) -> tuple[int, int]:
    placed = record.record if isinstance(record, Delivered) else record
    return placed.index, placed.place
