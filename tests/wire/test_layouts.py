"""Bodies of requests and replies: round trips, what is left over or cut off, and arbitrary bytes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flo.primitives.kv_pages import Found, Many, Page, Row, Version
from flo.primitives.queue_pages import Message, NewMessage
from flo.primitives.stream_pages import NewRecord, Record
from flo.wire import layouts_kv as kv
from flo.wire import layouts_queue as queue
from flo.wire import layouts_stream as stream
from flo.wire.layouts import LayoutError, Reader, decode_paging, str16

u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
short = st.binary(max_size=20)
text = st.text(max_size=10)
ids = st.tuples(u64, u64)
headers = st.lists(st.tuples(short, short), max_size=3).map(tuple)

DECODERS: list[Callable[[bytes], Any]] = [
    decode_paging,
    kv.decode_version,
    kv.decode_value,
    kv.decode_keys,
    kv.decode_many,
    kv.decode_page,
    kv.decode_history,
    kv.decode_delta,
    kv.decode_exists,
    kv.decode_ttl_seconds,
    kv.decode_json_set,
    kv.decode_begun,
    kv.decode_committed,
    queue.decode_seq,
    queue.decode_messages,
    queue.decode_seqs,
    queue.decode_new_messages,
    stream.decode_batch,
    stream.decode_appended,
    stream.decode_records,
    stream.decode_info,
    stream.decode_trimmed,
    stream.decode_member,
    stream.decode_ids,
    stream.decode_group,
    stream.decode_pending,
    stream.decode_claim,
    stream.decode_claimed,
]


@pytest.mark.parametrize("decode", DECODERS, ids=lambda decode: decode.__name__)
@given(data=st.one_of(st.binary(max_size=80), st.binary(max_size=60).map(lambda rest: b"\1\0\0\0" + rest)))
def test_arbitrary_bytes_raise_nothing_but_a_layout_error(decode: Callable[[bytes], Any], data: bytes):
    with suppress(LayoutError):
        decode(data)


@given(st.lists(short, max_size=5))
def test_keys(keys: list[bytes]):
    assert kv.decode_keys(kv.encode_keys(keys)) == keys


@given(st.lists(st.builds(Found, short, st.booleans(), u64, short), max_size=4), short)
def test_many_with_bytes_that_a_newer_server_adds(entries: list[Found], more: bytes):
    assert kv.decode_many(kv.encode_many(Many(entries, False)) + more) == entries


@given(st.lists(st.tuples(short, short), max_size=4), st.booleans(), text)
def test_a_page_of_a_scan(rows: list[tuple[bytes, bytes]], has_more: bool, cursor: str):
    page = Page([Row(key, value, 0, len(value)) for key, value in rows], has_more, cursor)

    assert kv.decode_page(kv.encode_page(page)) == page


def test_an_empty_page_is_nine_zero_bytes():
    assert kv.encode_page(Page([], False, "")) == bytes(9)


def test_a_tombstone_is_an_empty_value():
    body = kv.encode_history([Version(7, 123, 0, True, None), Version(5, 100, 1, False, b"x")])

    assert [(v.version, v.value) for v in kv.decode_history(body)] == [(7, b""), (5, b"x")]


@given(i64)
def test_a_delta(delta: int):
    assert kv.decode_delta(kv.encode_delta(delta)) == delta


@given(text, short)
def test_a_json_set(path: str, json: bytes):
    assert kv.decode_json_set(kv.encode_json_set(path, json)) == (path, json)


@given(st.lists(st.builds(Message, u64, short, st.just(0), st.just(0), st.just(0)), max_size=4))
def test_messages(messages: list[Message]):
    decoded = queue.decode_messages(queue.encode_messages(messages))

    assert decoded == [(message.seq, message.payload) for message in messages]


@given(st.lists(u64, max_size=5))
def test_seqs(seqs: list[int]):
    assert queue.decode_seqs(queue.encode_seqs(seqs)) == seqs


@given(st.lists(st.builds(NewMessage, short, st.integers(0, 255), u64, short), max_size=4))
def test_new_messages(messages: list[NewMessage]):
    assert queue.decode_new_messages(queue.encode_new_messages(messages)) == messages


@given(st.lists(st.builds(NewRecord, short, headers), min_size=1, max_size=4))
def test_a_batch(records: list[NewRecord]):
    assert stream.decode_batch(stream.encode_batch(records)) == records


@given(
    st.lists(st.builds(NewRecord, short, headers), min_size=1, max_size=3), st.integers(1, 200), st.binary(max_size=3)
)
def test_a_value_that_is_cut_or_longer_than_its_batch_is_no_batch(records: list[NewRecord], cut: int, more: bytes):
    whole = stream.encode_batch(records)

    assert stream.decode_batch(whole[: -min(cut, len(whole))]) is None
    assert not more or stream.decode_batch(whole + more) is None


def test_a_batch_over_the_limit_is_told_so():
    assert len(stream.decode_batch(stream.encode_batch([NewRecord(b"")] * 1_000)) or ()) == 1_000
    for record in (NewRecord(b""), NewRecord(bytes(300))):
        with pytest.raises(LayoutError, match="a batch of 1001 records is over the limit of 1000"):
            stream.decode_batch(stream.encode_batch([record] * 1_001))


def test_a_raw_record_that_looks_like_a_long_batch_is_no_batch():
    assert stream.decode_batch((2_000).to_bytes(4, "little") + bytes(200_000)) is None


records = st.builds(
    Record,
    ms=st.integers(0, 2**63 - 1),
    seq=u64,
    partition=st.integers(0, 1_023),
    key=st.none(),
    payload=short,
    headers=headers,
    tier=st.sampled_from(["hot", "warm"]),
)


@given(st.lists(records, max_size=3), text)
def test_records_carry_their_streams_name(wanted: list[Record], name: str):
    found = stream.decode_records(stream.encode_records(name, wanted))

    assert found == [(name, record) for record in wanted]


def test_an_empty_body_holds_no_records():
    assert stream.decode_records(b"") == stream.decode_records(stream.NO_RECORDS) == []


def test_a_cold_record_is_sent_as_what_all_clients_know():
    body = stream.encode_records("s", [Record(1, 0, 0, None, b"", (), "cold")])

    assert body[4 + 16] == stream.NOT_HOT


@given(st.lists(records, max_size=2), st.one_of(st.none(), st.tuples(u64, st.integers(0, 2**63))))
def test_a_claim_ends_with_its_cursor(wanted: list[Record], following: tuple[int, int] | None):
    found, after = stream.decode_claimed(stream.encode_claimed("s", wanted, following))

    assert ([record for _, record in found], after) == (wanted, following)
    assert stream.decode_claimed(stream.NO_CLAIM) == ([], None)


@given(text, text, st.lists(ids, max_size=4))
def test_ids(group: str, consumer: str, wanted: list[tuple[int, int]]):
    assert stream.decode_ids(stream.encode_ids(group, consumer, wanted)) == (group, consumer, wanted)


@given(text, text, st.integers(0, 2**32 - 1), ids, st.integers(0, 2**32 - 1))
def test_a_claim(group: str, consumer: str, min_idle_ms: int, start: tuple[int, int], count: int):
    value = stream.encode_claim(group, consumer, min_idle_ms, start, count)

    assert stream.decode_claim(value) == (group, consumer, min_idle_ms, start, count)


@pytest.mark.parametrize(
    ("decode", "whole"),
    [
        (kv.decode_keys, kv.encode_keys([b"a"])),
        (queue.decode_seqs, queue.encode_seqs([1])),
        (queue.decode_new_messages, queue.encode_new_messages([NewMessage(b"a")])),
        (stream.decode_member, stream.encode_member("g", "c")),
        (stream.decode_ids, stream.encode_ids("g", "c", [(1, 2)])),
        (stream.decode_claim, stream.encode_claim("g", "c", 1, (0, 0), 5)),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_request_is_read_strictly(decode: Callable[[bytes], Any], whole: bytes):
    for bad in (whole + b"x", whole[:-1], b""):
        with pytest.raises(LayoutError):
            decode(bad)


def test_a_count_that_cannot_be_true_is_not_believed():
    with pytest.raises(LayoutError, match="4294967295 entries"):
        queue.decode_messages(b"\xff\xff\xff\xff")


def test_a_text_that_is_no_utf_8_is_refused():
    with pytest.raises(LayoutError, match="UTF-8"):
        Reader(str16(b"\xff")).text16()


def test_what_is_too_long_for_its_length_is_refused():
    with pytest.raises(LayoutError, match="65535"):
        str16(bytes(65_536))
