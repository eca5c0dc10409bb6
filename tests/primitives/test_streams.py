"""Records of streams by the rules of the specification (spec/streams.md §§1-7)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from flo.primitives.machine import Refused
from flo.primitives.stream_events import StreamAppended, StreamCopied, StreamTrimmed
from flo.primitives.stream_pages import Appended, NewRecord, PartitionInfo, Retention, Trimmed
from flo.primitives.stream_rules import (
    BATCH_BYTES,
    HEADERS_BYTES,
    KEY_BYTES,
    PAGE_BYTES,
    PART_MAX,
    format_id,
    key_hash,
    parse_end,
    parse_id,
    parse_start,
)
from flo.primitives.stream_state import GARBAGE_RECORDS, SWEEP_MS
from flo.primitives.streams import SWEEPS, Streams
from tests.support.stream_store import NOW, Store, loaded


@pytest.fixture
def store() -> Store:
    return Store()


# -- ids


def test_a_batch_shares_one_millisecond_and_counts_on_in_it(store: Store) -> None:
    assert store.append("s", b"a", b"b", b"c") == Appended((NOW, 0), (NOW, 2), 3)
    assert store.append("s", b"d") == Appended((NOW, 3), (NOW, 3), 1)
    store.now += 1
    assert store.append("s", b"e").first == (NOW + 1, 0)
    assert store.ids("s") == [(NOW, 0), (NOW, 1), (NOW, 2), (NOW, 3), (NOW + 1, 0)]
    assert len(store.log) == 3


def test_a_clock_behind_the_last_id_keeps_its_millisecond(store: Store) -> None:
    store.append("s", b"a")
    store.now -= 10_000
    assert store.append("s", b"b").first == (NOW, 1)
    assert store.append("s", b"c", b"d").first == (NOW, 2)


def test_a_new_stream_gets_greater_ids_than_any_deleted_one_of_its_namespace(store: Store) -> None:
    store.append("old", b"a", b"b")
    store.append("other", b"c", ns="other")
    store.do("delete", "old", force=True)
    assert store.append("new", b"d").first == (NOW, 2)
    assert store.append("new", b"d", ns="other").first == (NOW, 0)
    assert store.append("old", b"e").first == (NOW, 2)
    store.do("delete", "old", force=True)
    store.create("old")
    assert store.append("old", b"f").first == (NOW, 3)


def test_ids_are_not_given_again_after_a_namespace_was_dropped(store: Store) -> None:
    store.append("s", b"a", b"b", ns="gone")
    store.streams.drop_namespace("gone")
    assert store.streams.find("gone", "s") is None
    assert store.append("s", b"c", ns="gone").first == (NOW, 2)
    assert store.streams.bytes == loaded(store.streams).bytes


def test_texts_of_ids() -> None:
    assert format_id((123, 4)) == "123-4"
    assert parse_start("0") == parse_start("0-0") == (0, 0)
    assert parse_start("123") == parse_id("123") == (123, 0)
    assert parse_end("123") == (123, PART_MAX)
    assert parse_start("123-4") == parse_end("123-4") == parse_id("123-4") == (123, 4)
    assert parse_start("$") is None
    assert parse_id(f"{PART_MAX}-{PART_MAX}") == (PART_MAX, PART_MAX)


@pytest.mark.parametrize("text", ["", "-", "1-", "-1", "1-2-3", "a", "+1", " 1", "1 ", "1_0", "٣", str(2**64), "$"])
def test_an_id_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="invalid stream id"):
        parse_id(text)


# -- appends


@pytest.mark.parametrize(
    ("count", "text"),
    [(1001, "a batch of 1001 records is over the limit of 1000"), (0, "a batch needs at least one record")],
)
def test_a_batch_of_too_many_or_no_records_is_refused_and_makes_no_stream(store: Store, count: int, text: str) -> None:
    assert store.refused("append", "s", *[b"x"] * count).message == text
    assert store.streams.info(store.now, "default", "s") is None
    assert store.append("s", *[b"x"] * 1000).count == 1000


def test_limits_of_a_record(store: Store) -> None:
    def refused(payload: bytes, *headers: tuple[bytes, bytes]) -> str:
        return store.refused("do", "append", "s", [NewRecord(b"fine"), NewRecord(payload, headers)]).message

    assert refused(b"x" * 262_145) == "record too large"
    assert refused(b"", *[(b"a", b"b")] * 65) == "a record with 65 headers is over the limit of 64"
    assert refused(b"", (b"abc", b"x" * HEADERS_BYTES)) == "headers of 8195 bytes are over the limit of 8192"
    headers = tuple([(b"n", b"v" * 127)] * 64)
    store.do("append", "s", [NewRecord(b"x" * 262_144, headers), NewRecord(b"")])
    assert [record.size for record in store.read("s").records] == [262_144 + 8_192, 0]
    info = store.streams.info(store.now, "default", "s")
    assert info is not None and info.bytes == 262_144 + 8_192 and info.records == 2


def test_the_bytes_of_a_batch_are_bounded(store: Store) -> None:
    piece = b"x" * 262_144
    whole = [piece] * (BATCH_BYTES // len(piece))
    assert store.refused("append", "s", *whole, b"x").message == (
        f"a batch of {BATCH_BYTES + 1} bytes is over the limit of {BATCH_BYTES}"
    )
    assert store.append("s", *whole).count == 64


@pytest.mark.parametrize("name", ["", "a\0b", "a*", "é" * 2_045, "\udc80"])
def test_names_that_no_stream_may_have_are_refused_everywhere(store: Store, name: str) -> None:
    for what in ("append", "create", "trim", "read"):
        options: dict[str, Any] = {"max_records": 1} if what == "trim" else {}
        args = (b"x",) if what == "append" else ()
        assert store.refused(what, name, *args, **options).kind == "bad_argument"
    for what in ("delete", "alter"):
        assert store.refused("do", what, name).kind == "bad_argument"
    with pytest.raises(Refused):
        store.streams.info(NOW, "default", name)
    with pytest.raises(Refused):
        store.streams.tail_id("default", name)


def test_a_name_may_fill_its_address(store: Store) -> None:
    store.append("é" * 2_044, b"x")
    assert store.refused("append", "s", b"x", ns="-bad").message.startswith("namespace name")


def test_one_partition_takes_any_key(store: Store) -> None:
    store.append("s", b"a", key=b"alice")
    store.append("s", b"b", partition=0)
    store.append("s", b"c", key=b"")
    assert [record.partition for record in store.read("s").records] == [0, 0, 0]
    stream = store.streams.find("default", "s")
    assert stream is not None
    assert [stream.key_hash_of(ordinal) for ordinal in (1, 2, 3)] == [key_hash(b"alice"), 0, 0]
    message = "partition and partition key cannot be combined"
    assert store.refused("append", "s", b"x", partition=0, key=b"x").message == message
    assert store.refused("append", "s", b"x", partition=1).message == "partition out of range"
    assert store.refused("append", "s", b"x", partition=-1).message == "partition out of range"
    assert store.refused("append", "s", b"x", key=b"k" * (KEY_BYTES + 1)).message.startswith("partition key too large")


def test_keys_are_placed_by_a_hash_that_never_changes() -> None:
    # Part of the format: what is placed once must be found there by every release.
    assert [key_hash(key) for key in (b"alice", b"bob", b"\x00")] == [0x278EBC47, 0xF5CBB140, 0xD202EF8D]
    assert key_hash(b"\x9d\x0a\xd9\x6d") == 1  # whose CRC-32 is 0


def test_a_key_has_one_partition_and_reads_may_ask_for_one(store: Store) -> None:
    store.create("s", 4)
    for number in range(40):
        store.append("s", b"%d" % number, key=b"key %d" % (number % 5))
    store.append("s", b"x", b"y", partition=3)
    records = store.read("s").records
    assert [(r.ms, r.seq) for r in records] == sorted((r.ms, r.seq) for r in records)
    assert len(records) == 42
    for number in range(5):
        homes = {record.partition for record in records[:40][number::5]}
        assert homes == {key_hash(b"key %d" % number) % 4}
        by_key = store.read("s", key=b"key %d" % number).records
        assert by_key == store.read("s", partition=homes.pop()).records
    assert [r for r in records if r.partition == 3] == store.read("s", partition=3).records
    assert store.refused("append", "s", b"x", partition=4).message == "partition out of range"
    assert store.refused("read", "s", partition=4).message == "partition out of range"
    assert store.refused("read", "s", partition=0, key=b"x").kind == "bad_argument"


# -- reads


def test_ranges_are_inclusive_and_after_is_not(store: Store) -> None:
    i1, i2, i3, i4, i5 = store.fill("s", 5)
    assert store.ids("s", start=i2, end=i4) == [i2, i3, i4]
    assert store.ids("s", after=i2, limit=1) == [i3]
    assert store.ids("s", start=i4, end=i2) == []
    assert store.ids("s", start=(i2[0], 1)) == [i3, i4, i5]
    assert store.ids("s", end=(i2[0], PART_MAX)) == [i1, i2]
    assert store.ids("s", skip=3) == [i4, i5]
    assert store.ids("s", skip=9) == []
    assert store.ids("s", start=(PART_MAX, PART_MAX)) == []
    assert store.refused("read", "s", start=i1, after=i1).kind == "bad_argument"
    assert store.refused("read", "s", skip=-1).kind == "bad_argument"
    for limit in (0, -1):
        assert store.refused("read", "s", limit=limit).kind == "bad_argument"


def test_a_range_within_one_millisecond(store: Store) -> None:
    store.append("s", b"0", b"1", b"2", b"3")
    assert store.ids("s", start=(NOW, 1), end=(NOW, 2)) == [(NOW, 1), (NOW, 2)]
    assert store.ids("s", after=(NOW, 2)) == [(NOW, 3)]
    assert len(store.ids("s", start=parse_start(str(NOW)), end=parse_end(str(NOW)))) == 4


def test_a_limit_over_a_thousand_is_clamped(store: Store) -> None:
    store.append("s", *[b"x"] * 1000)
    store.append("s", *[b"x"] * 200)
    page = store.read("s", limit=5000)
    assert len(page.records) == 1000 and page.has_more
    rest = store.read("s", after=page.next, limit=5000)
    assert len(rest.records) == 200 and not rest.has_more
    assert rest.records[-1].ordinal == 1200
    assert len(store.read("s").records) == 100


@pytest.mark.parametrize("partition", [None, 1])
def test_a_page_is_cut_off_at_a_mebibyte_but_holds_one_record(store: Store, partition: int | None) -> None:
    store.create("s", 2)
    for size in (262_144, 262_144, 262_144, 262_144, 1, 262_144):
        store.append("s", b"x" * size, partition=1)
    page = store.read("s", partition=partition)
    assert len(page.records) == 4 and page.has_more
    assert sum(record.size for record in page.records) == PAGE_BYTES
    page = store.read("s", after=page.next, partition=partition)
    assert len(page.records) == 2 and not page.has_more


def test_a_cursor_goes_on_without_gaps_or_repeats_in_a_partition(store: Store) -> None:
    store.create("s", 3)
    for number in range(30):
        store.append("s", b"%d" % number, partition=number % 3)
    found, page = [], store.read("s", partition=1, limit=4)
    while page.records:
        found += page.records
        assert page.has_more == (len(found) < 10)
        page = store.read("s", partition=1, limit=4, after=page.next)
    assert [record.ordinal for record in found] == list(range(2, 31, 3))
    assert page.next == (NOW, 28)


def test_a_missing_stream_reads_as_an_empty_one(store: Store) -> None:
    page = store.read("none")
    assert (page.records, page.has_more, page.next) == ([], False, (0, 0))
    assert store.read("none", after=(5, 7)).next == (5, 7)
    assert store.read("none", start=(5, 7)).next == (5, 6)
    assert store.read("none", start=(5, 0)).next == (4, PART_MAX)
    assert store.streams.tail_id("default", "none") == (0, 0)
    assert store.streams.stream_count("default") == 0


def test_the_tail_never_shows_what_was_there(store: Store) -> None:
    store.append("s", b"old")
    tail = store.streams.tail_id("default", "s")
    assert store.ids("s", after=tail) == []
    new = store.append("s", b"new").first
    assert store.ids("s", after=tail) == [new]


# -- create, alter, info, list


def test_create_again_is_a_success_with_the_same_settings_only(store: Store) -> None:
    assert store.create("s", 4, max_records=5)
    assert not store.create("s", 4, max_records=5)
    assert store.refused("create", "s", 3, max_records=5).message == "stream already exists"
    assert store.refused("create", "s", 4).kind == "conflict"
    for partitions in (0, 1025, -1):
        assert store.refused("create", "t", partitions).message == "partitions must be 1 to 1024"
    assert store.refused("create", "t", max_age_ms=-1).kind == "bad_argument"
    assert store.create("t", 1024)


def test_alter_sets_and_clears_bounds(store: Store) -> None:
    store.create("s", max_records=5, max_bytes=6)
    assert store.do("alter", "s", max_age_ms=7, max_bytes=0) == Retention(7, 5, 0)
    entries = len(store.log)
    assert store.do("alter", "s", max_age_ms=7) == Retention(7, 5, 0)
    assert len(store.log) == entries
    info = store.streams.info(NOW, "default", "s")
    assert info is not None and info.retention == Retention(7, 5, 0)
    assert store.refused("do", "alter", "none", max_age_ms=7).kind == "not_found"
    assert store.refused("do", "alter", "s", max_records=-7).kind == "bad_argument"


def test_info_tells_ids_and_figures_of_each_partition(store: Store) -> None:
    store.create("s", 3)
    info = store.streams.info(NOW, "default", "s")
    assert info is not None and (info.first, info.last, info.records, info.bytes) == (None, None, 0, 0)
    store.append("s", b"abc", partition=2)
    store.append("s", b"d", partition=0)
    store.do("append", "s", [NewRecord(b"", ((b"name", b"value"),))], partition=2)
    info = store.streams.info(NOW, "default", "s")
    assert info is not None and (info.first, info.last) == ((NOW, 0), (NOW, 2))
    assert (info.records, info.bytes) == (3, 13)
    assert info.partitions == [PartitionInfo(1, 1), PartitionInfo(0, 0), PartitionInfo(2, 12)]
    store.trim("s", max_records=1)
    info = store.streams.info(NOW, "default", "s")
    assert info is not None and info.partitions == [PartitionInfo(0, 0), PartitionInfo(0, 0), PartitionInfo(1, 9)]
    store.trim("s", before=(PART_MAX, 0))
    info = store.streams.info(NOW, "default", "s")
    assert info is not None and (info.first, info.last, info.records, info.bytes) == (None, (NOW, 2), 0, 0)


def test_list_shows_each_name_once_in_the_order_of_bytes_without_internal_ones(store: Store) -> None:
    for name in ("b", "_hidden", "a", "é", "Z"):
        store.append(name, b"x")
    store.append("elsewhere", b"x", ns="other")
    page = store.streams.list(NOW, "default")
    assert [info.name for info in page.streams] == ["Z", "a", "b", "é"] and not page.has_more
    page = store.streams.list(NOW, "default", 3)
    assert [info.name for info in page.streams] == ["Z", "a", "b"] and page.has_more
    page = store.streams.list(NOW, "default", 3, page.cursor)
    assert [info.name for info in page.streams] == ["é"] and not page.has_more
    assert store.streams.list(NOW, "missing").streams == []
    assert store.streams.stream_count("default") == 5
    for cursor in ("x", "AQ==", "Af8=", "AQA"):
        with pytest.raises(Refused, match="invalid cursor"):
            store.streams.list(NOW, "default", 3, cursor)


# -- trim, delete


def test_trim_to_a_number_of_records(store: Store) -> None:
    ids = store.fill("s", 25)
    assert store.trim("s", max_records=10, dry_run=True) == Trimmed(15, ids[15])
    assert len(store.ids("s")) == 25
    assert store.trim("s", max_records=10) == Trimmed(15, ids[15])
    assert store.ids("s") == ids[15:]
    assert store.ids("s", start=(0, 0), limit=1) == [ids[15]]
    assert store.streams.tail_id("default", "s") == ids[24]
    entries = len(store.log)
    assert store.trim("s", max_records=10) == Trimmed(0, ids[15])
    assert len(store.log) == entries


def test_trim_before_an_id_leaves_it(store: Store) -> None:
    ids = store.fill("s", 5)
    assert store.trim("s", before=ids[2]) == Trimmed(2, ids[2])
    assert store.ids("s") == ids[2:]
    assert store.trim("s", before=(ids[4][0], 1)) == Trimmed(3, None)
    assert store.ids("s") == []
    assert store.append("s", b"x").first > ids[4]


def test_trim_by_age_and_by_bytes(store: Store) -> None:
    ids = store.fill("s", 10)  # one byte each
    store.now = ids[9][0]
    assert store.trim("s", max_age_ms=7) == Trimmed(2, ids[2])
    assert store.trim("s", max_bytes=5) == Trimmed(3, ids[5])
    assert store.trim("s", max_bytes=5).count == 0
    store.append("s", b"x" * 6)
    assert store.trim("s", max_bytes=5) == Trimmed(6, None)
    assert store.trim("s", max_age_ms=2**70) == Trimmed(0, None)


def test_records_without_bytes_stay_within_a_bound_of_bytes(store: Store) -> None:
    store.append("s", b"a", b"", b"b", b"", b"")
    assert store.trim("s", max_bytes=1) == Trimmed(1, (NOW, 1))
    assert len(store.ids("s")) == 4


@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"max_records": 1, "max_bytes": 1},
        {"before": (1, 0), "max_age_ms": 1},
        {"max_records": 0},
        {"max_bytes": -1},
        {"before": (0, 0)},
    ],
)
def test_trim_takes_exactly_one_bound_above_zero(store: Store, bounds: dict[str, Any]) -> None:
    store.append("s", b"x")
    assert store.refused("trim", "s", **bounds).kind == "bad_argument"


def test_trim_of_a_missing_stream_is_not_found(store: Store) -> None:
    assert store.refused("trim", "none", max_records=1).kind == "not_found"


def test_what_was_trimmed_leaves_memory_when_it_is_more_than_what_stays(store: Store) -> None:
    store.create("s", 2)
    count = 10 * GARBAGE_RECORDS
    ids = store.fill("s", count, partition=0)
    for left in range(count - 1, -1, -1):
        store.trim("s", before=ids[count - left] if left else (PART_MAX, 0))
        stream = store.streams.find("default", "s")
        assert stream is not None
        lanes = [*stream.lanes.values()]
        for column in (stream._ms, stream._ends, *(c for lane in lanes for c in (lane.ordinals, lane.ends))):
            assert len(column) <= max(2 * left, left + GARBAGE_RECORDS)
        assert stream.records == sum(lane.records() for lane in lanes) == left
        assert store.ids("s", limit=1, partition=0) == ids[count - left :][:1]
    assert store.streams.bytes == loaded(store.streams).bytes


def test_delete_of_a_stream_with_records_needs_force(store: Store) -> None:
    store.append("s", b"x")
    assert store.refused("do", "delete", "s").message == "stream is not empty"
    assert store.do("delete", "s", force=True) is True
    assert store.do("delete", "s") is False
    assert store.streams.find("default", "s") is None
    assert store.streams.bytes == 0
    store.create("s", 3)
    assert store.do("delete", "s") is True


# -- retention


def test_an_idle_node_is_not_woken_when_nothing_is_to_be_trimmed(store: Store) -> None:
    store.create("s", max_records=2, max_bytes=100)
    store.append("plain", b"x")
    store.append("s", b"x", b"y")
    assert store.streams.next_due() is None
    store.do("alter", "s", max_age_ms=60_000)
    assert store.streams.next_due() == NOW + 60_001


def test_records_over_a_bound_of_number_or_bytes_go_at_once_then_once_a_second(store: Store) -> None:
    store.create("s", max_records=2)
    ids = store.fill("s", 3)
    assert store.sweep() == 1
    assert store.ids("s") == ids[1:]
    trimmed_at = store.now
    ids += store.fill("s", 2)
    assert store.sweep() == 0
    assert store.streams.next_due() == trimmed_at + SWEEP_MS
    store.now = trimmed_at + SWEEP_MS
    assert store.sweep() == 1
    assert store.ids("s") == ids[3:]
    store.do("alter", "s", max_bytes=1)
    store.now += SWEEP_MS
    assert store.sweep() == 1
    assert store.ids("s") == ids[4:]
    assert store.streams.next_due() is None


def test_records_that_are_too_old_go_when_they_are(store: Store) -> None:
    store.create("s", max_age_ms=1_000)
    ids = store.fill("s", 3)
    assert store.streams.next_due() == NOW + 1_001
    store.now = NOW + 1_000
    assert store.sweep() == 0
    store.now = NOW + 1_001
    assert store.sweep() == 1
    assert store.ids("s") == ids[1:]
    assert store.streams.next_due() == store.now + SWEEP_MS
    store.now += SWEEP_MS
    assert store.sweep() == 1
    assert store.ids("s") == [] and store.streams.next_due() is None
    info = store.streams.info(store.now, "default", "s")
    assert info is not None and info.last == ids[2]


def test_a_sweep_is_decided_again_until_it_is_applied(store: Store) -> None:
    store.create("s", max_records=1)
    store.append("s", b"x", b"y")
    first = store.streams.due(store.now, store.index + 1)
    assert first == store.streams.due(store.now, store.index + 1)
    assert first == [StreamTrimmed("default", "s", 2, NOW, 1)]


def test_one_call_sweeps_a_bounded_number_of_streams(store: Store) -> None:
    for number in range(SWEEPS + 10):
        store.create(f"s{number}", max_records=1)
        store.append(f"s{number}", b"x", b"y")
    events = store.streams.due(store.now, store.index + 1)
    assert len(events) == SWEEPS
    store.commit(events)
    assert store.streams.next_due() == store.now
    assert store.sweep() == 10


def test_bounds_are_swept_after_a_restart_too(store: Store) -> None:
    store.create("s", max_age_ms=1_000)
    store.append("s", b"x")
    store.create("t", max_records=1)
    store.append("t", b"x", b"y")
    for streams in (store.replayed(), loaded(store.streams)):
        store.streams = streams
        due = streams.next_due()
        assert due is not None and due <= NOW + SWEEP_MS
        later = NOW + 2_000
        assert {event.stream for event in streams.due(later, 9) if isinstance(event, StreamTrimmed)} == {"s", "t"}


def test_a_replay_of_many_trims_keeps_no_plan_for_each(store: Store) -> None:
    store.create("s", max_records=1)
    for _ in range(5 * SWEEPS):
        store.append("s", b"x", b"y")
        store.now += SWEEP_MS
        store.sweep()
    assert len(store.replayed()._sweeps) <= 2 * SWEEPS


def test_the_sweep_of_a_deleted_stream_is_forgotten(store: Store) -> None:
    store.create("s", max_age_ms=1_000)
    store.append("s", b"x")
    store.do("delete", "s", force=True)
    assert store.streams.next_due() is None
    store.create("s", max_age_ms=5_000)
    store.append("s", b"x")
    assert store.streams.next_due() == NOW + 5_001


# -- copies, and what of the log is needed


def test_a_copy_is_a_record_of_its_own_that_needs_its_source(store: Store) -> None:
    store.append("s", b"a", b"bcd", key=b"k")  # 1
    store.copy("dead", "s", 2, (b"why", b"poison"))  # 2
    store.copy("deader", "dead", 1, (b"why", b"again"))  # 3
    stream = store.streams.find("default", "deader")
    assert stream is not None
    assert stream.sources_of(1) == (3, 2, 1)
    assert stream.placed(1).size == 3 + 9 + 8 and stream.placed(1).index == 3
    assert stream.key_hash_of(1) == key_hash(b"k")
    assert store.streams.live_indexes(1, 9) == [1, 2, 3]
    store.do("delete", "s", force=True)
    assert store.streams.live_indexes(1, 9) == [1, 2, 3]
    assert store.streams.live_indexes(2, 2) == [2]
    store.do("delete", "dead", force=True)
    assert store.streams.live_indexes(1, 9) == [1, 2, 3]
    assert loaded(store.streams).live_indexes(1, 9) == [1, 2, 3]
    store.trim("deader", before=(PART_MAX, 0))
    assert store.streams.live_indexes(1, 9) == []
    assert stream.sources == {} and store.streams.bytes == loaded(store.streams).bytes


def test_copies_that_are_decided_together_get_ids_in_order(store: Store) -> None:
    store.append("s", b"a", b"b")
    source = store.streams.find("default", "s")
    assert source is not None
    events = []
    for undone in range(2):
        events += store.streams.decide_copy(
            store.now, store.index + 1 + undone, "default", "dead", source, 1 + undone, (), undone=undone
        )
    store.commit(events)
    assert store.ids("dead") == [(NOW, 0), (NOW, 1)]


def test_a_copy_into_a_stream_of_partitions_lies_where_its_key_says(store: Store) -> None:
    store.create("dead", 4)
    store.append("s", b"a", key=b"alice")
    store.append("s", b"b")
    store.copy("dead", "s", 1)
    store.copy("dead", "s", 2)
    assert [record.partition for record in store.read("dead").records] == [key_hash(b"alice") % 4, 0]


def test_a_batch_is_needed_while_one_of_its_records_is_there(store: Store) -> None:
    store.append("s", b"a", b"b")  # 1
    store.append("t", b"c")  # 2
    store.append("s", b"d")  # 3
    store.trim("s", max_records=2)
    assert store.streams.live_indexes(1, 9) == [1, 2, 3]
    assert store.streams.live_bytes() == 3
    store.trim("s", max_records=1)
    assert store.streams.live_indexes(1, 9) == [2, 3]
    assert store.streams.live_indexes(3, 9) == [3]


# -- what groups use


def test_ordinals_count_for_the_whole_life_of_a_stream(store: Store) -> None:
    ids = store.fill("s", 5)
    stream = store.streams.find("default", "s")
    assert stream is not None
    assert (stream.first_ordinal, stream.last_ordinal, stream.last_id) == (1, 5, ids[4])
    assert [stream.id_of(ordinal) for ordinal in range(1, 6)] == ids
    assert [stream.ordinal_of(*id) for id in ids] == [1, 2, 3, 4, 5]
    assert stream.ordinal_of(ids[0][0], 1) is None and stream.ordinal_of(PART_MAX, 0) is None
    assert stream.ordinal_at_or_after(ids[1][0], 1) == 3 and stream.ordinal_at_or_after(PART_MAX, 0) == 6
    store.trim("s", before=ids[3])
    assert (stream.first_ordinal, stream.ordinal_of(*ids[0]), stream.ordinal_at_or_after(0, 0)) == (4, None, 4)
    store.trim("s", before=(PART_MAX, 0))
    assert (stream.first_ordinal, stream.last_ordinal) == (6, 5)
    assert store.append("s", b"x").count == 1 and stream.last_ordinal == 6
    assert [record.ordinal for record in store.read("s").records] == [6]


# -- the log and snapshots


def test_the_form_of_the_events_in_the_log_is_released() -> None:
    records = (NewRecord(b"p"), NewRecord(b"q", ((b"n", b"v"),)))
    appended = StreamAppended("ns", "s", 5, 6, 7, b"k", records)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(appended)) == [
        0, "ns", "s", 5, 6, 7, b"k", [[b"p", []], [b"q", [[b"n", b"v"]]]],
    ]  # fmt: skip
    copied = StreamCopied("ns", "s", 5, 6, 7, (9, 8), 1, 20, 3, ((b"n", b"v"),))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(copied)) == [
        1, "ns", "s", 5, 6, 7, [9, 8], 1, 20, 3, [[b"n", b"v"]],
    ]  # fmt: skip
    assert {kind: event.__name__ for (kind, _), event in Streams.events.items()} == {
        300: "StreamAppended",
        301: "StreamCopied",
        302: "StreamCreated",
        303: "StreamAltered",
        304: "StreamTrimmed",
        305: "StreamDeleted",
    }


def test_a_snapshot_of_another_version_is_refused() -> None:
    for data in (b"", b"\x00", b"\xff123"):
        with pytest.raises(ValueError, match="this release reads 1"):
            Streams().load(data)
