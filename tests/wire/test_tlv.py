"""Options of requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flo.wire import tlv
from flo.wire.tlv import OptionError


@given(st.dictionaries(st.integers(0, 255), st.binary(max_size=255), max_size=6))
def test_options_are_read_as_they_were_written(options: dict[int, bytes]):
    data = tlv.encode_options(options)

    assert tlv.decode_options(b"xx" + data + b"yy", 2, 2 + len(data)) == options


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_options_of_some_sort(data: bytes):
    options = tlv.decode_options(data, 0, len(data))

    assert sum(2 + len(each) for each in options.values()) <= len(data)


def test_a_truncated_last_entry_ends_the_list():
    assert tlv.decode_options(bytes([0x15, 1, 2, 0xEE, 9, 0]), 0, 6) == {0x15: b"\2"}
    assert tlv.decode_options(bytes([0x15, 1, 2, 0xEE]), 0, 4) == {0x15: b"\2"}


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_an_integer_may_have_any_width(width: int):
    assert tlv.integer({0x15: (7).to_bytes(width, "little")}, 0x15, 1) == 7


def test_an_integer_of_another_width_is_refused():
    for data in (b"", b"\1\2\3", bytes(9)):
        with pytest.raises(OptionError, match="0x15"):
            tlv.integer({0x15: data}, 0x15, 1)


def test_an_absent_integer_has_its_default():
    assert tlv.integer({}, 0x15, 1) == 1
    assert tlv.optional_integer({}, 0x02) is None
    assert tlv.optional_integer({0x02: bytes(8)}, 0x02) == 0


def test_a_flag_holds_by_being_there_but_not_as_zero():
    assert tlv.flag({0x03: b""}, 0x03)
    assert tlv.flag({0x16: b"\1"}, 0x16)
    assert not tlv.flag({0x16: b"\0"}, 0x16)
    assert not tlv.flag({}, 0x03)


def test_a_stream_id_is_big_endian():
    data = tlv.encode_stream_id((1_700_000_000_123, 1))

    assert data.hex() == "0000018bcfe5687b0000000000000001"
    assert tlv.stream_id({0x21: data}, 0x21) == (1_700_000_000_123, 1)
    with pytest.raises(OptionError):
        tlv.stream_id({0x21: b"short"}, 0x21)
