"""Payloads of stream records from the hot tier and from the log, copies included (flo/grid/records.py)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from flo.api.errors import Unavailable
from flo.grid.records import Records
from flo.log.errors import LogDamaged
from flo.log.hot import HotBuffer
from flo.primitives.stream_events import StreamTrimmed
from flo.primitives.stream_pages import Delivered, NewRecord, Placed, Record
from tests.support.stream_store import NOW, Store


class Reads:
    """The log's side: counts what is asked for, and can let events go."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.asked: list[list[int]] = []
        self.gone: set[int] = set()

    def __call__(self, indexes: Sequence[int]) -> list[tuple[bytes, str]]:
        self.asked.append(list(indexes))
        for index in indexes:
            if index in self.gone:
                raise KeyError(index)
        return self.store.read_events(indexes)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def reads(store: Store) -> Reads:
    return Reads(store)


def keep(store: Store, *indexes: int) -> HotBuffer:
    hot = HotBuffer()
    for index in indexes:
        hot.put(index, store.log[index - 1][2])
    return hot


def placed(store: Store, stream: str) -> list[Placed]:
    return store.read(stream).records


def test_payloads_come_from_memory_or_from_the_log_and_tell_which(store: Store, reads: Reads) -> None:
    store.append("s", b"a", b"b")  # 1
    store.append("s", b"c", key=b"k")  # 2
    store.append("s", b"d")  # 3
    records = Records(keep(store, 2), reads)
    assert [(r.payload, r.tier, r.key) for r in records.load(placed(store, "s"))] == [
        (b"a", "warm", None),
        (b"b", "warm", None),
        (b"c", "hot", b"k"),
        (b"d", "warm", None),
    ]
    assert reads.asked == [[1, 3]]
    assert records.load([]) == []


def test_load_hot_reads_nothing_from_disk(store: Store, reads: Reads) -> None:
    store.append("s", b"a")
    store.append("s", b"b")
    assert Records(keep(store, 1), reads).load_hot(placed(store, "s")) is None
    whole = Records(keep(store, 1, 2), reads).load_hot(placed(store, "s"))
    assert whole is not None and [record.payload for record in whole] == [b"a", b"b"]
    assert reads.asked == []


def test_a_record_has_its_headers_ids_and_partition(store: Store, reads: Reads) -> None:
    store.create("s", 4)
    headers = ((b"n", b"1"), (b"n", b"2"), (b"", b"\xff"))
    store.do("append", "s", [NewRecord(b"", headers), NewRecord(b"x")], partition=2)
    assert Records(HotBuffer(), reads).load(placed(store, "s")) == [
        Record(NOW, 0, 2, None, b"", headers, "warm"),
        Record(NOW, 1, 2, None, b"x", (), "warm"),
    ]


def test_deliveries_keep_their_order_and_counts(store: Store, reads: Reads) -> None:
    store.append("s", b"a", b"b")
    first, second = placed(store, "s")
    loaded = Records(HotBuffer(), reads).load([Delivered(second, 3), Delivered(first, 1)])
    assert [(record.payload, record.delivery_count) for record in loaded] == [(b"b", 3), (b"a", 1)]


def test_a_copy_has_the_payload_and_key_of_its_source_and_the_headers_of_both(store: Store, reads: Reads) -> None:
    store.do("append", "s", [NewRecord(b"a"), NewRecord(b"b", ((b"own", b"1"),))], key=b"k")  # 1
    store.copy("dead", "s", 2, (b"why", b"first"))  # 2
    store.copy("deader", "dead", 1, (b"why", b"second"))  # 3
    store.do("delete", "s", force=True)
    (record,) = Records(keep(store, 3), reads).load(placed(store, "deader"))
    assert (record.payload, record.key, record.tier) == (b"b", b"k", "warm")
    assert record.headers == ((b"own", b"1"), (b"why", b"first"), (b"why", b"second"))
    assert reads.asked == [[2], [1]]
    assert Records(keep(store, 2, 3), reads).load_hot(placed(store, "deader")) is None
    whole = Records(keep(store, 1, 2, 3), reads).load_hot(placed(store, "deader"))
    assert whole is not None and whole[0].tier == "hot"


def test_a_damaged_event_is_told_with_the_id_of_its_record(store: Store, reads: Reads) -> None:
    ids = store.fill("s", 3)
    store.log[1] = (0, 0, b"")
    with pytest.raises(LogDamaged, match=f"record {ids[1][0]}-0 is damaged: event 2 does not match its checksum"):
        Records(keep(store, 1), reads).load(placed(store, "s"))
    assert [record.payload for record in Records(keep(store, 1), reads).load(placed(store, "s")[::2])] == [b"0", b"2"]


@pytest.mark.parametrize(
    "payload", [b"\xc1", b"\x90", msgspec.msgpack.encode(StreamTrimmed("default", "s", 1, 1, 1))], ids=repr
)
def test_what_is_no_append_is_damage(store: Store, reads: Reads, payload: bytes) -> None:
    store.append("s", b"a")
    store.log[0] = (0, 0, payload)
    with pytest.raises(LogDamaged, match=f"record {NOW}-0 is damaged: its event is no append"):
        Records(HotBuffer(), reads).load(placed(store, "s"))


def test_another_records_event_is_damage(store: Store, reads: Reads) -> None:
    store.fill("s", 2)
    store.append("s", b"a", b"b")
    store.copy("dead", "s", 4)
    store.log[0] = store.log[1]
    with pytest.raises(LogDamaged, match=f"record {NOW}-0 is damaged: event 1 holds {NOW + 1}-0"):
        Records(HotBuffer(), reads).load(placed(store, "s"))
    store.log[2] = store.log[1]
    with pytest.raises(LogDamaged, match="its event has no place 1"):
        Records(HotBuffer(), reads).load(placed(store, "dead"))


def test_a_record_that_went_meanwhile_asks_for_reading_again(store: Store, reads: Reads) -> None:
    ids = store.fill("s", 2)
    reads.gone.add(1)
    with pytest.raises(Unavailable, match=f"record {ids[0][0]}-0 went while it was being read") as error:
        Records(HotBuffer(), reads).load(placed(store, "s"))
    assert error.value.retryable
