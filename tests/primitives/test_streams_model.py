"""The stream machine against lists: any history of commands, at every index, replayed, and over a snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flo.primitives.machine import Event, Refused
from flo.primitives.stream_pages import Headers, NewRecord, Retention, StreamId, Trimmed
from flo.primitives.stream_rules import PAGE_BYTES, key_hash
from flo.primitives.stream_state import SWEEP_MS
from flo.primitives.streams import UNBOUNDED, Streams

NAMESPACES = st.sampled_from(["default", "other"])
NAMES = st.sampled_from(["s", "t", "_internal"])
RECORDS = st.lists(
    st.builds(
        NewRecord,
        st.sampled_from([0, 1, 3, 262_144]).map(lambda size: b"x" * size),
        st.sampled_from([(), ((b"n", b"v"), (b"n", b""))]),
    ),
    min_size=1,
    max_size=70,
)
KEYS = st.none() | st.sampled_from([b"", b"alice", b"bob", b"carol"])
RETENTIONS = st.builds(
    Retention, st.sampled_from([0, 0, 5, 3_000]), st.sampled_from([0, 0, 1, 40]), st.sampled_from([0, 0, 3, 300_000])
)


@dataclass
class Row:
    """A record of the model."""

    id: StreamId
    ordinal: int
    partition: int
    hashed: int
    size: int
    needs: tuple[int, ...]  # log indexes
    place: int


@dataclass
class Model:
    partitions: int = 1
    retention: Retention = UNBOUNDED
    rows: list[Row] = field(default_factory=list)
    last: StreamId = (0, 0)
    ever: int = 0


class StreamHistories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.streams, self.replica = Streams(), Streams()
        self.models: dict[tuple[str, str], Model] = {}
        self.floors: dict[str, StreamId] = {}
        self.now = 1_750_000_000_000
        self.index = 0

    # -- help

    def commit(self, events: list[Event]) -> None:
        for event in events:
            self.index += 1
            self.streams.apply(event, self.index, self.now)
            logged = msgspec.msgpack.decode(
                msgspec.msgpack.encode(event), type=Streams.events[event.KIND, event.VERSION]
            )
            self.replica.apply(logged, self.index, self.now)

    def decide(self, what: str, *args: Any, **options: Any) -> tuple[list[Event], Any, str]:
        """Events and reply, or the refusal's kind; neither has changed anything."""
        before = self.streams.dump()
        try:
            return *getattr(self.streams, f"decide_{what}")(self.now, self.index + 1, *args, **options), ""
        except Refused as refused:
            return [], None, refused.kind
        finally:
            assert self.streams.dump() == before

    def next_id(self, ns: str, name: str) -> StreamId:
        model = self.models.get((ns, name))
        last = self.floors.get(ns, (0, 0)) if model is None else model.last
        return (self.now, 0) if self.now > last[0] else (last[0], last[1] + 1)

    def model(self, ns: str, name: str) -> Model:
        return self.models.setdefault((ns, name), Model(last=self.floors.get(ns, (0, 0))))

    def some_id(self, data: st.DataObject, ns: str, name: str) -> StreamId:
        """Of a record, or near one."""
        model = self.models.get((ns, name))
        base = data.draw(st.sampled_from(model.rows)).id if model is not None and model.rows else (self.now, 0)
        return base[0] + data.draw(st.integers(-1, 1)), max(0, base[1] + data.draw(st.integers(-1, 1)))

    # -- commands

    @rule(ns=NAMESPACES, name=NAMES, records=RECORDS, key=KEYS, partition=st.none() | st.integers(-1, 3))
    def append(self, ns: str, name: str, records: list[NewRecord], key: bytes | None, partition: int | None) -> None:
        model = self.models.get((ns, name))
        partitions = 1 if model is None else model.partitions
        ms, seq = self.next_id(ns, name)
        events, reply, refused = self.decide("append", ns, name, records, partition=partition, key=key)
        if (partition is not None and (key or not 0 <= partition < partitions)) or (
            sum(map(size_of, records)) > 16 * 1024 * 1024
        ):
            assert refused in ("bad_argument", "too_large")
            return
        assert (reply.first, reply.last, reply.count) == ((ms, seq), (ms, seq + len(records) - 1), len(records))
        self.commit(events)
        model = self.model(ns, name)
        to = partition or (key_hash(key) % partitions if key else 0)
        for place, record in enumerate(records):
            self.put(model, (ms, seq + place), to, key_hash(key) if key else 0, size_of(record), (self.index,), place)

    def put(
        self, model: Model, id: StreamId, to: int, hashed: int, size: int, needs: tuple[int, ...], place: int
    ) -> None:
        model.ever += 1
        model.last = id
        model.rows.append(Row(id, model.ever, to, hashed, size, needs, place))

    @rule(data=st.data(), ns=NAMESPACES, name=NAMES, to=NAMES, headers=st.sampled_from([(), ((b"why", b"x"),)]))
    def copy(self, data: st.DataObject, ns: str, name: str, to: str, headers: Headers) -> None:
        model = self.models.get((ns, name))
        if model is None or not model.rows:
            return
        row = data.draw(st.sampled_from(model.rows))
        source = self.streams.find(ns, name)
        assert source is not None
        id = self.next_id(ns, to)
        self.commit(self.streams.decide_copy(self.now, self.index + 1, ns, to, source, row.ordinal, headers))
        target = self.model(ns, to)
        size = row.size + sum(len(name) + len(value) for name, value in headers)
        self.put(target, id, row.hashed % target.partitions, row.hashed, size, (self.index, *row.needs), 0)

    @rule(ns=NAMESPACES, name=NAMES, partitions=st.sampled_from([1, 3]), retention=RETENTIONS)
    def create(self, ns: str, name: str, partitions: int, retention: Retention) -> None:
        model = self.models.get((ns, name))
        events, new, refused = self.decide("create", ns, name, partitions, retention)
        if model is not None:
            same = (model.partitions, model.retention) == (partitions, retention)
            assert not events and refused == ("" if same else "conflict")
            return
        assert new is True
        self.commit(events)
        self.models[ns, name] = Model(partitions, retention, last=self.floors.get(ns, (0, 0)))

    @rule(ns=NAMESPACES, name=NAMES, bounds=st.lists(st.none() | st.sampled_from([0, 2, 50]), min_size=3, max_size=3))
    def alter(self, ns: str, name: str, bounds: list[int | None]) -> None:
        age, records, size = bounds
        events, reply, refused = self.decide("alter", ns, name, max_age_ms=age, max_records=records, max_bytes=size)
        model = self.models.get((ns, name))
        if model is None:
            assert refused == "not_found"
            return
        self.commit(events)
        old = (model.retention.max_age_ms, model.retention.max_records, model.retention.max_bytes)
        model.retention = Retention(*(was if new is None else new for was, new in zip(old, bounds, strict=True)))
        assert reply == model.retention

    @rule(
        data=st.data(),
        ns=NAMESPACES,
        name=NAMES,
        dry=st.booleans(),
        by=st.sampled_from(["records", "id", "age", "size"]),
    )
    def trim(self, data: st.DataObject, ns: str, name: str, dry: bool, by: str) -> None:
        if by == "id":
            before = self.some_id(data, ns, name)
            events, reply, refused = self.decide("trim", ns, name, before=before, dry_run=dry)
        else:
            bound = data.draw(st.sampled_from([1, 3, 60, 300_000]))
            option = {"records": "max_records", "age": "max_age_ms", "size": "max_bytes"}[by]
            events, reply, refused = self.decide("trim", ns, name, **{option: bound}, dry_run=dry)
        model = self.models.get((ns, name))
        if model is None:
            assert refused == "not_found"
            return
        if by == "id":
            rest = [row for row in model.rows if row.id >= before]
        else:
            rest = self.kept(model, **{by: bound})
        assert reply == Trimmed(len(model.rows) - len(rest), rest[0].id if rest else None)
        self.commit(events)
        if not dry:
            model.rows = rest

    def kept(self, model: Model, records: int = 0, age: int = 0, size: int = 0) -> list[Row]:
        rows = list(model.rows)
        while rows and (
            (records and len(rows) > records)
            or (age and rows[0].id[0] < self.now - age)
            or (size and sum(row.size for row in rows) > size)
        ):
            del rows[0]
        return rows

    @rule(ns=NAMESPACES, name=NAMES, force=st.booleans())
    def delete(self, ns: str, name: str, force: bool) -> None:
        model = self.models.get((ns, name))
        events, reply, refused = self.decide("delete", ns, name, force)
        if model is not None and model.rows and not force:
            assert refused == "conflict"
            return
        assert reply == (model is not None)
        self.commit(events)
        if model is not None:
            del self.models[ns, name]
            self.floors[ns] = max(self.floors.get(ns, (0, 0)), model.last)

    @rule(ns=NAMESPACES)
    def drop(self, ns: str) -> None:
        for streams in (self.streams, self.replica):
            streams.drop_namespace(ns)
        lasts = [model.last for (of, _), model in self.models.items() if of == ns]
        # Ids of any namespace stay greater than those of a dropped one, which has the name no longer.
        floor = max([self.floors.get(ns, (0, 0)), *lasts])
        self.models = {at: model for at, model in self.models.items() if at[0] != ns}
        for name in ("default", "other"):
            self.floors[name] = max(self.floors.get(name, (0, 0)), floor)

    @rule(ms=st.sampled_from([1, 1, 999, SWEEP_MS, 5_000]))
    def pass_time(self, ms: int) -> None:
        self.now += ms

    @rule()
    def sweep(self) -> None:
        """A second after the last trim nothing is over its bounds."""
        self.now += SWEEP_MS
        rounds = 0
        while (due := self.streams.next_due()) is not None and due <= self.now:
            events = self.streams.due(self.now, self.index + 1)
            self.commit(events)
            rounds += 1
            assert rounds < 10
        for model in self.models.values():
            bounds = model.retention
            model.rows = self.kept(model, bounds.max_records, bounds.max_age_ms, bounds.max_bytes)

    @rule()
    def restart(self) -> None:
        """Goes on with what the snapshot makes; the replica never restarts."""
        dump = self.streams.dump()
        self.streams = Streams()
        self.streams.load(dump)
        assert self.streams.dump() == dump

    # -- reads

    @rule(
        data=st.data(), ns=NAMESPACES, name=NAMES, bounds=st.sampled_from(["", "start", "after", "end", "both"]),
        limit=st.sampled_from([1, 7, 1_000]), skip=st.sampled_from([0, 0, 3]), partition=st.none() | st.integers(0, 2),
    )  # fmt: skip
    def read(
        self, data: st.DataObject, ns: str, name: str, bounds: str, limit: int, skip: int, partition: int | None
    ) -> None:
        start = self.some_id(data, ns, name) if bounds in ("start", "both") else None
        after = self.some_id(data, ns, name) if bounds == "after" else None
        end = self.some_id(data, ns, name) if bounds in ("end", "both") else None
        model = self.models.get((ns, name), Model(3))
        if partition is not None and partition >= model.partitions:
            partition = 0
        page = self.streams.read(
            self.now, ns, name, start=start, after=after, end=end, limit=limit, skip=skip, partition=partition
        )
        rows = [
            row
            for row in model.rows
            if (start is None or row.id >= start)
            and (after is None or row.id > after)
            and (end is None or row.id <= end)
            and (partition is None or row.partition == partition)
        ][skip:]
        fitting: list[Row] = []
        size = 0
        for row in rows[:limit]:
            size += row.size
            if fitting and size > PAGE_BYTES:
                break
            fitting.append(row)
        assert [(r.ms, r.seq, r.ordinal, r.partition, r.index, r.place, r.size) for r in page.records] == [
            (*row.id, row.ordinal, row.partition, row.needs[0], row.place, row.size) for row in fitting
        ]
        assert page.has_more == (len(fitting) < len(rows))
        if fitting:
            assert page.next == fitting[-1].id

    @rule(data=st.data(), ns=NAMESPACES, name=NAMES)
    def look_up(self, data: st.DataObject, ns: str, name: str) -> None:
        model, stream = self.models.get((ns, name)), self.streams.find(ns, name)
        assert (model is None) == (stream is None)
        if model is None or stream is None:
            return
        first = model.rows[0].ordinal if model.rows else model.ever + 1
        assert (stream.first_ordinal, stream.last_ordinal, stream.last_id) == (first, model.ever, model.last)
        id = self.some_id(data, ns, name)
        at = next((row.ordinal for row in model.rows if row.id >= id), model.ever + 1)
        assert stream.ordinal_at_or_after(*id) == at
        assert stream.ordinal_of(*id) == (at if any(row.id == id for row in model.rows) else None)
        for row in model.rows[:1] + model.rows[-1:]:
            assert stream.id_of(row.ordinal) == row.id
            assert stream.partition_of(row.ordinal) == row.partition
            assert stream.key_hash_of(row.ordinal) == row.hashed
            assert stream.sources_of(row.ordinal) == row.needs

    @rule(data=st.data())
    def ask_what_is_live(self, data: st.DataObject) -> None:
        first, last = sorted(data.draw(st.tuples(*[st.integers(1, self.index + 1)] * 2)))
        needed = {index for model in self.models.values() for row in model.rows for index in row.needs}
        assert self.streams.live_indexes(first, last) == sorted(i for i in needed if first <= i <= last)

    # -- always

    @invariant()
    def figures_are_those_of_the_model(self) -> None:
        for (ns, name), model in self.models.items():
            info = self.streams.info(self.now, ns, name)
            assert info is not None
            assert info.first == (model.rows[0].id if model.rows else None)
            assert info.last == (model.last if model.ever else None)
            assert info.records == len(model.rows) == sum(one.records for one in info.partitions)
            assert info.bytes == sum(row.size for row in model.rows) == sum(one.bytes for one in info.partitions)
            assert info.retention == model.retention
            for partition, one in enumerate(info.partitions):
                assert one.records == sum(row.partition == partition for row in model.rows)
        for ns in ("default", "other"):
            names = [info.name for info in self.streams.list(self.now, ns).streams]
            assert names == sorted(name for of, name in self.models if of == ns and name != "_internal")

    @invariant()
    def replay_and_snapshot_make_the_same_state(self) -> None:
        dump = self.streams.dump()
        assert self.replica.dump() == dump
        other = Streams()
        other.load(dump)
        assert other.dump() == dump
        assert other.bytes == self.streams.bytes == self.replica.bytes


def size_of(record: NewRecord) -> int:
    return len(record.payload) + sum(len(name) + len(value) for name, value in record.headers)


TestStreamHistories = StreamHistories.TestCase
TestStreamHistories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
