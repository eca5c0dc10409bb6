"""The stream machine: append-only ordered records by namespace. Payloads stay in the log; here is where they lie.

Ids come from the frame's time and are final in the events. One id rules in a stream, the last ever given: a clock
that is behind it keeps its millisecond and counts on. What a deleted stream had given is not given again in its
namespace. Reads give places (`Placed`); flo.grid.records loads the payloads.

`decide_…` methods return the events, none when there is nothing to log, and the reply. They raise `Refused` with the
text of the specification.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import ClassVar, Final, TypeAlias

import msgspec

from flo.primitives.kv_rules import check_namespace
from flo.primitives.machine import Event, Refused
from flo.primitives.sorted_keys import SortedKeys
from flo.primitives.stream_events import (
    StreamAltered,
    StreamAppended,
    StreamCopied,
    StreamCreated,
    StreamDeleted,
    StreamTrimmed,
)
from flo.primitives.stream_pages import (
    Appended,
    Headers,
    NewRecord,
    PlacedPage,
    Retention,
    StreamId,
    StreamInfo,
    StreamList,
    Trimmed,
)
from flo.primitives.stream_rules import (
    BEGINNING,
    LIST_LIMIT,
    LIST_LIMIT_DEFAULT,
    PART_MAX,
    READ_LIMIT,
    READ_LIMIT_DEFAULT,
    check_partitions,
    check_records,
    check_retention,
    check_stream_name,
    is_internal,
    key_hash,
    page_limit,
    partition_for,
    record_size,
)
from flo.primitives.stream_state import LANE_BYTES, Columns, Stream

SWEEPS: Final = 256  # streams that one call of `due` looks at
DUMP_VERSION: Final = 1
UNBOUNDED: Final = Retention()

_Dumped: TypeAlias = tuple[str, str, int, Retention, StreamId, Columns]
_State: TypeAlias = tuple[StreamId, dict[str, StreamId], list[_Dumped]]
_Events: TypeAlias = list[Event]  # these two because of Streams.list
_Indexes: TypeAlias = list[int]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_State).decode


class Table:
    """The streams of one namespace."""

    __slots__ = ("streams", "names")

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.names = SortedKeys()  # in UTF-8


class Streams:
    name: ClassVar[str] = "streams"
    events: ClassVar[dict[tuple[int, int], type[Event]]] = {
        (event.KIND, event.VERSION): event
        for event in (StreamAppended, StreamCopied, StreamCreated, StreamAltered, StreamTrimmed, StreamDeleted)
    }

    def __init__(self) -> None:
        self._tables: dict[str, Table] = {}
        self._floors: dict[str, StreamId] = {}  # the highest id of deleted streams, by namespace
        self._floor: StreamId = BEGINNING  # and of dropped namespaces
        self._sweeps: list[tuple[int, str, str]] = []  # heap; one that differs from its stream's sweep_at is void
        self._sweeps_max = SWEEPS
        self.bytes = 0  # memory held, about

    # -- decisions

    def decide_append(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        records: Sequence[NewRecord],
        *,
        partition: int | None = None,
        key: bytes | None = None,
    ) -> tuple[_Events, Appended]:
        """All records in one event. An empty partition key is none."""
        found = self.find(ns, stream)
        if found is None:
            self._check_address(ns, stream)
            last, partitions = self._floor_of(ns), 1
        else:
            last, partitions = found.last_id, found.partitions
        check_records(records)
        to = partition_for(partitions, partition, key)
        ms, seq = (now, 0) if now > last[0] else (last[0], last[1] + 1)
        count = len(records)
        event = StreamAppended(ns, stream, ms, seq, to, key or None, tuple(records))
        return [event], Appended((ms, seq), (ms, seq + count - 1), count)

    def decide_copy(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        source: Stream,
        ordinal: int,
        headers: Headers,
        *,
        undone: int = 0,
    ) -> _Events:
        """Copies a record that is there to the end of `stream`, with `headers` behind its own; refuses nothing.
        `undone`: how many copies to this stream were decided before this one and are not applied yet."""
        found = self.find(ns, stream)
        last = self._floor_of(ns) if found is None else found.last_id
        ms, seq = (now, 0) if now > last[0] else (last[0], last[1] + 1)
        hashed = source.key_hash_of(ordinal)
        to = hashed % found.partitions if found is not None else 0
        placed = source.placed(ordinal)
        size = placed.size + record_size(NewRecord(b"", headers))
        sources = source.sources_of(ordinal)
        return [StreamCopied(ns, stream, ms, seq + undone, to, sources, placed.place, size, hashed, headers)]

    def decide_create(
        self, now: int, index: int, ns: str, stream: str, partitions: int = 1, retention: Retention = UNBOUNDED
    ) -> tuple[_Events, bool]:
        """Replies whether the stream is new; one with the same settings may be there."""
        found = self.find(ns, stream)
        if found is None:
            self._check_address(ns, stream)
        check_partitions(partitions)
        check_retention(retention)
        if found is None:
            return [StreamCreated(ns, stream, partitions, retention)], True
        if found.partitions != partitions or found.retention != retention:
            raise Refused("conflict", "stream already exists")
        return [], False

    def decide_alter(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        *,
        max_age_ms: int | None = None,
        max_records: int | None = None,
        max_bytes: int | None = None,
    ) -> tuple[_Events, Retention]:
        """None leaves a bound as it is, 0 clears it. Replies what holds from now on."""
        old = self._existing(ns, stream).retention
        new = Retention(
            old.max_age_ms if max_age_ms is None else max_age_ms,
            old.max_records if max_records is None else max_records,
            old.max_bytes if max_bytes is None else max_bytes,
        )
        check_retention(new)
        return [] if new == old else [StreamAltered(ns, stream, new)], new

    def decide_trim(
        self,
        now: int,
        index: int,
        ns: str,
        stream: str,
        *,
        max_records: int | None = None,
        before: StreamId | None = None,
        max_age_ms: int | None = None,
        max_bytes: int | None = None,
        dry_run: bool = False,
    ) -> tuple[_Events, Trimmed]:
        """Takes exactly one bound; `before` stays itself."""
        bounds = [bound for bound in (max_records, max_age_ms, max_bytes) if bound is not None]
        if len(bounds) + (before is not None) != 1:
            raise Refused("bad_argument", "a trim takes exactly one bound: max_records, before, max_age or max_bytes")
        if before <= BEGINNING if before is not None else bounds[0] <= 0:
            raise Refused("bad_argument", "the bound of a trim must be greater than 0")
        found = self._existing(ns, stream)
        if max_records is not None:
            first = found.kept_by_records(max_records)
        elif before is not None:
            first = found.ordinal_at_or_after(before[0], before[1])
        elif max_age_ms is not None:
            first = found.kept_by_age(now, max_age_ms)
        else:
            assert max_bytes is not None
            first = found.kept_by_bytes(max_bytes)
        count = first - found.first_ordinal
        reply = Trimmed(count, found.id_of(first) if first <= found.last_ordinal else None)
        return [] if dry_run or not count else [_trimmed(found, first)], reply

    def decide_delete(self, now: int, index: int, ns: str, stream: str, force: bool = False) -> tuple[_Events, bool]:
        """Replies whether it was there. Refuses a stream that holds records unless `force`."""
        found = self.find(ns, stream)
        if found is None:
            self._check_address(ns, stream)
            return [], False
        if found.records and not force:
            raise Refused("conflict", "stream is not empty")
        return [StreamDeleted(ns, stream)], True

    # -- reads

    def find(self, ns: str, name: str) -> Stream | None:
        table = self._tables.get(ns)
        return None if table is None else table.streams.get(name)

    def read(
        self,
        now: int,
        ns: str,
        stream: str,
        *,
        start: StreamId | None = None,
        end: StreamId | None = None,
        after: StreamId | None = None,
        limit: int = READ_LIMIT_DEFAULT,
        partition: int | None = None,
        key: bytes | None = None,
        skip: int = 0,
    ) -> PlacedPage:
        """The records from `start` on, or behind `after`, up to `end`, in the order of ids; of one partition if it or
        a partition key is given. `skip` leaves off the first ones. A missing stream reads as an empty one."""
        if start is not None and after is not None:
            raise Refused("bad_argument", "start and after cannot be combined")
        if skip < 0:
            raise Refused("bad_argument", "skip must not be negative")
        limit = page_limit(limit, READ_LIMIT)
        origin = after if after is not None else _before(start or BEGINNING)
        found = self.find(ns, stream)
        if found is None:
            self._check_address(ns, stream)
            return PlacedPage([], False, origin)
        of = partition_for(found.partitions, partition, key) if partition is not None or key else None
        first = found.ordinal_at_or_after(origin[0], origin[1] + 1)
        beyond = found.last_ordinal + 1 if end is None else found.ordinal_at_or_after(end[0], end[1] + 1)
        records, has_more = found.page(first, beyond, skip, limit, of)
        if not records:
            return PlacedPage(records, False, origin)
        return PlacedPage(records, has_more, (records[-1].ms, records[-1].seq))

    def tail_id(self, ns: str, stream: str) -> StreamId:
        """What `$` stands for now: reading after it gives what will be appended. 0-0 when the stream is missing."""
        found = self.find(ns, stream)
        if found is None:
            self._check_address(ns, stream)
            return BEGINNING
        return found.last_id

    def info(self, now: int, ns: str, stream: str) -> StreamInfo | None:
        found = self.find(ns, stream)
        if found is None:
            self._check_address(ns, stream)
            return None
        return _info(found)

    def list(self, now: int, ns: str, limit: int = LIST_LIMIT_DEFAULT, cursor: str = "") -> StreamList:
        """The streams in the order of their names' bytes, internal ones left off; `cursor` is that of the page before,
        or ""."""
        check_namespace(ns)
        limit = min(limit, LIST_LIMIT) if limit > 0 else LIST_LIMIT_DEFAULT
        last = _read_cursor(cursor) if cursor else b""
        infos: list[StreamInfo] = []
        table = self._tables.get(ns)
        if table is None:
            return StreamList(infos, False, "")
        for name in table.names.walk(last, beyond=last != b""):
            stream = table.streams[name.decode()]
            if is_internal(stream.name):
                continue
            if len(infos) == limit:
                return StreamList(infos, True, _cursor(infos[-1].name))
            infos.append(_info(stream))
        return StreamList(infos, False, "")

    def stream_count(self, ns: str) -> int:
        """Internal ones included."""
        table = self._tables.get(ns)
        return 0 if table is None else len(table.streams)

    def live_indexes(self, first: int, last: int) -> _Indexes:
        """The log indexes, within first … last, of all events that records of any stream still need; ascending.

        They are what the log must keep when it lets go of the others."""
        found: set[int] = set()
        for table in self._tables.values():
            for stream in table.streams.values():
                stream.add_indexes(first, last, found)
        return sorted(found)

    def live_bytes(self) -> int:
        """Of the payloads and headers of all records that are there."""
        return sum(stream.bytes for table in self._tables.values() for stream in table.streams.values())

    # -- events

    def apply(self, event: Event, index: int, now: int) -> None:
        kind = type(event)
        if kind is StreamAppended:
            assert isinstance(event, StreamAppended)
            stream = self._for_append(event.ns, event.stream)
            sizes = [len(r.payload) if not r.headers else record_size(r) for r in event.records]
            hashed = 0 if event.key is None else key_hash(event.key)
            lanes = len(stream.lanes)
            stream.append(event.ms, event.first_seq, index, event.partition, hashed, sizes)
            self.bytes += stream.record_bytes * len(sizes) + LANE_BYTES * (len(stream.lanes) - lanes)
            if stream.bounded:
                self._plan(stream, now)
        elif kind is StreamCopied:
            assert isinstance(event, StreamCopied)
            stream = self._for_append(event.ns, event.stream)
            self.bytes -= stream.memory
            stream.append(event.ms, event.seq, index, event.partition, event.key_hash, (event.size,))
            stream.sources[stream.last_ordinal] = event.sources
            self.bytes += stream.memory
            if stream.bounded:
                self._plan(stream, now)
        elif kind is StreamTrimmed:
            assert isinstance(event, StreamTrimmed)
            found = self.find(event.ns, event.stream)
            if found is not None:
                self.bytes -= found.memory
                found.trim(event.first_ordinal)
                self.bytes += found.memory
                found.swept_at = now
                self._plan_anew(found, now)
        elif kind is StreamCreated:
            assert isinstance(event, StreamCreated)
            if self.find(event.ns, event.stream) is None:
                self._add(event.ns, event.stream, event.partitions, event.retention)
        elif kind is StreamAltered:
            assert isinstance(event, StreamAltered)
            found = self.find(event.ns, event.stream)
            if found is not None:
                found.bind(event.retention)
                self._plan_anew(found, now)
        elif kind is StreamDeleted:
            assert isinstance(event, StreamDeleted)
            self._delete(event.ns, event.stream)
        else:
            raise AssertionError(f"not an event of streams: {event!r}")

    def drop_namespace(self, ns: str) -> None:
        """Removes its streams; new ones under the same name get greater ids all the same."""
        table = self._tables.pop(ns, None)
        highest = self._floors.pop(ns, BEGINNING)
        if table is not None:
            for stream in table.streams.values():
                self.bytes -= stream.memory
                highest = max(highest, stream.last_id)
        self._floor = max(self._floor, highest)

    # -- retention

    def next_due(self) -> int | None:
        """When a stream's retention has something to trim, a second after its last trim at the earliest."""
        sweeps = self._sweeps
        while sweeps:
            at, ns, name = sweeps[0]
            stream = self.find(ns, name)
            if stream is not None and stream.sweep_at == at:
                return at
            heappop(sweeps)
        return None

    def due(self, now: int, index: int) -> _Events:
        """Trims what is over its bounds."""
        events: list[Event] = []
        kept: list[tuple[int, str, str]] = []
        for _ in range(SWEEPS):
            at = self.next_due()
            if at is None or at > now:
                break
            sweep = heappop(self._sweeps)
            stream = self.find(sweep[1], sweep[2])
            assert stream is not None
            first = stream.kept_by_retention(now)
            if first > stream.first_ordinal:
                events.append(_trimmed(stream, first))
                kept.append(sweep)  # deciding changes nothing: it stands until the event is applied
            else:
                self._plan_anew(stream, now)
        for sweep in kept:
            heappush(self._sweeps, sweep)
        return events

    def _plan(self, stream: Stream, now: int) -> None:
        """After an append: a sweep that is planned already stays, unless one is wanted sooner."""
        at = stream.wanted_sweep(now)
        if at and (not stream.sweep_at or at < stream.sweep_at):
            stream.sweep_at = at
            heappush(self._sweeps, (at, stream.ns, stream.name))
            if len(self._sweeps) > self._sweeps_max:
                self._index_sweeps()

    def _plan_anew(self, stream: Stream, now: int) -> None:
        stream.sweep_at = 0
        self._plan(stream, now)

    def _index_sweeps(self) -> None:
        """Without the void ones, which a replay does not take off. The pushes since the last time pay for it."""
        sweeps: list[tuple[int, str, str]] = []
        for table in self._tables.values():
            for stream in table.streams.values():
                if stream.sweep_at:
                    sweeps.append((stream.sweep_at, stream.ns, stream.name))
        heapify(sweeps)
        self._sweeps = sweeps
        self._sweeps_max = 2 * len(sweeps) + SWEEPS

    # -- snapshots

    def dump(self) -> bytes:
        dumped: list[_Dumped] = []
        for ns in sorted(self._tables):
            table = self._tables[ns]
            for name in table.names.all():
                stream = table.streams[name.decode()]
                dumped.append((ns, stream.name, stream.partitions, stream.retention, stream.last_id, stream.columns()))
        floors = {ns: self._floors[ns] for ns in sorted(self._floors)}
        return bytes([DUMP_VERSION]) + _encode((self._floor, floors, dumped))

    def load(self, data: bytes) -> None:
        if data[:1] != bytes([DUMP_VERSION]):
            raise ValueError(f"streams snapshot of version {data[:1]!r}; this release reads {DUMP_VERSION}")
        self._floor, self._floors, dumped = _decode(memoryview(data)[1:])
        self._tables = {}
        self._sweeps = []
        self.bytes = 0
        for ns, name, partitions, retention, last_id, columns in dumped:
            stream = self._add(ns, name, partitions, retention)
            self.bytes -= stream.memory
            stream.last_id = last_id
            stream.restore(columns)
            self.bytes += stream.memory
            self._plan(stream, 0)

    # -- within

    def _check_address(self, ns: str, name: str) -> None:
        check_namespace(ns)
        check_stream_name(ns, name)

    def _existing(self, ns: str, name: str) -> Stream:
        found = self.find(ns, name)
        if found is None:
            self._check_address(ns, name)
            raise Refused("not_found", "stream not found")
        return found

    def _floor_of(self, ns: str) -> StreamId:
        return max(self._floor, self._floors.get(ns, BEGINNING))

    def _for_append(self, ns: str, name: str) -> Stream:
        found = self.find(ns, name)
        return self._add(ns, name, 1, UNBOUNDED) if found is None else found

    def _add(self, ns: str, name: str, partitions: int, retention: Retention) -> Stream:
        table = self._tables.get(ns)
        if table is None:
            table = self._tables[ns] = Table()
        stream = table.streams[name] = Stream(ns, name, partitions, retention, self._floor_of(ns))
        table.names.add(name.encode())
        self.bytes += stream.memory
        return stream

    def _delete(self, ns: str, name: str) -> None:
        table = self._tables.get(ns)
        stream = table.streams.pop(name, None) if table is not None else None
        if table is None or stream is None:
            return
        table.names.remove(name.encode())
        self.bytes -= stream.memory
        if stream.last_id > self._floor_of(ns):
            self._floors[ns] = stream.last_id
        if not table.streams:
            del self._tables[ns]


def _trimmed(stream: Stream, first_ordinal: int) -> StreamTrimmed:
    ms, seq = stream.id_of(first_ordinal) if first_ordinal <= stream.last_ordinal else BEGINNING
    return StreamTrimmed(stream.ns, stream.name, first_ordinal, ms, seq)


def _info(stream: Stream) -> StreamInfo:
    return StreamInfo(
        stream.name,
        stream.ns,
        stream.first_id(),
        stream.last_id if stream.last_ordinal else None,
        stream.records,
        stream.bytes,
        stream.retention,
        stream.partition_figures(),
    )


def _before(id: StreamId) -> StreamId:
    """The id that lies just before; 0-0, which no record has, stays."""
    ms, seq = id
    if seq:
        return ms, seq - 1
    return (ms - 1, PART_MAX) if ms else id


def _cursor(name: str) -> str:
    return urlsafe_b64encode(b"\x01" + name.encode()).decode()


def _read_cursor(cursor: str) -> bytes:
    try:
        name = urlsafe_b64decode(cursor.encode())[1:].decode()
    except (ValueError, Base64Error):
        name = ""
    if not name or _cursor(name) != cursor:
        raise Refused("bad_argument", "invalid cursor")
    return name.encode()
