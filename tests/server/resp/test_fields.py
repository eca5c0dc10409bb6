"""Pairs of XADD come back exactly; their record can be read by every other surface."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flo.server.resp import fields


@given(st.lists(st.tuples(st.binary(max_size=9) | st.just(b"f"), st.binary(max_size=9)), min_size=1, max_size=9))
def test_any_pairs_come_back(given_pairs: list[tuple[bytes, bytes]]):
    flat = [item for pair in given_pairs for item in pair]
    record = fields.record(flat)

    assert fields.pairs(record.payload, record.headers) == flat


@given(st.lists(st.tuples(st.sampled_from("fgh"), st.text(max_size=9)), min_size=1, max_size=9))
def test_text_is_stored_as_the_json_object_of_the_pairs(given_pairs: list[tuple[str, str]]):
    flat = [item.encode() for pair in given_pairs for item in pair]
    record = fields.record(flat)

    assert json.loads(record.payload, object_pairs_hook=list) == [*given_pairs]
    assert fields.pairs(record.payload, record.headers) == flat


@pytest.mark.parametrize(
    ("payload", "headers"),
    [
        (b"plain", ()),
        (b'{"a":"b"}', ()),
        (b'{"a":1}', fields.JSON),
        (b"[]", fields.JSON),
        (b"{", fields.JSON),
        (b'{"a":"\xff"}', fields.REPEATED),
        (b'{"a":{"b":"c"}}', fields.REPEATED),
        (b'["a"]', fields.REPEATED),
        (b'{"a":"\\ud800"}', fields.REPEATED),
        (b"\xc1", fields.MSGPACK),
        (b"\x91\xc4\x01a", fields.MSGPACK),
        (b"x", ((fields.HEADER, b"other"),)),
    ],
)
def test_what_xadd_has_not_written_is_one_field(payload: bytes, headers: tuple[tuple[bytes, bytes], ...]):
    assert fields.pairs(payload, headers) == [b"data", payload]
