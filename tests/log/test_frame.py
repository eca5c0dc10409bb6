"""The codec: what goes in comes out, and what was changed on the way is found."""

from __future__ import annotations

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from flo.log import frame as codec
from flo.log.contract import Frame
from flo.log.errors import TooLarge
from flo.log.frame import BATCH_BYTES, FRAME_BYTES, LAST, PART, FrameInvalid, NewerFormat
from tests.log.support import LOG_ID, events

LOGGED = st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.binary(max_size=300))
FRAMES = st.builds(
    Frame,
    st.integers(1, 2**63),
    st.integers(0, 2**63),
    st.integers(0, 2**63),
    st.lists(LOGGED, max_size=20),
    st.binary(max_size=200),
)


def encode(frame: Frame, **options: int) -> bytes:
    (encoded,) = codec.encode_batch(frame, log_id=LOG_ID, **{"previous": 5, "synced": 3, **options})
    return encoded


@given(FRAMES)
def test_a_frame_comes_back_as_it_was(frame: Frame):
    encoded = encode(frame)
    header = codec.parse_frame(encoded, log_id=LOG_ID)
    origin, body = codec.frame_content(encoded, 0, header)

    assert codec.decode_events(body, header.event_count) == frame.events
    assert (header.first_index, header.time_ms, header.epoch, origin) == (
        frame.first_index,
        frame.time_ms,
        frame.epoch,
        frame.origin,
    )
    assert (header.previous, header.synced, header.crc) == (5, 3, codec.frame_crc(encoded))
    assert header.length == len(encoded)
    assert header.last_index == frame.first_index + len(frame.events) - 1


@given(FRAMES)
def test_a_frame_is_aligned_and_never_ends_in_a_zero_byte(frame: Frame):
    encoded = encode(frame)

    assert len(encoded) % 8 == 0
    assert encoded[-1] != 0


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes):
    with pytest.raises(FrameInvalid):
        codec.parse_frame(data, log_id=LOG_ID)
    with pytest.raises(FrameInvalid):
        codec.parse_frame(codec.MAGIC + data, log_id=LOG_ID)


@given(st.binary(max_size=400), st.integers(0, 50))
def test_random_event_bytes_are_refused_or_mean_themselves(data: bytes, count: int):
    try:
        decoded = codec.decode_events(data, count)
    except FrameInvalid:
        return

    assert codec.encode_events(decoded) == data


@given(FRAMES, st.data())
def test_a_flipped_bit_is_found(frame: Frame, data: st.DataObject):
    encoded = bytearray(encode(frame))
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[bit // 8] ^= 1 << bit % 8

    with pytest.raises(FrameInvalid):
        codec.parse_frame(bytes(encoded), log_id=LOG_ID)


def test_every_single_bit_of_a_frame_is_covered():
    encoded = encode(Frame(9, 1_000, 2, events(b"one", b""), b"who"))

    for bit in range(len(encoded) * 8):
        broken = bytearray(encoded)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameInvalid):
            codec.parse_frame(bytes(broken), log_id=LOG_ID)


@given(FRAMES, st.data())
def test_a_cut_frame_is_found(frame: Frame, data: st.DataObject):
    encoded = encode(frame)
    cut = data.draw(st.integers(0, len(encoded) - 1))

    with pytest.raises(FrameInvalid):
        codec.parse_frame(encoded[:cut], log_id=LOG_ID)


def test_a_frame_of_another_log_is_refused():
    with pytest.raises(FrameInvalid, match="another log"):
        codec.parse_frame(encode(Frame(1, 0, 1, events(b"x"))), log_id=bytes(16))


def test_a_newer_format_is_named():
    frame = encode(Frame(1, 0, 1, events(b"x")))
    rest = bytes([2]) + frame[9:]
    newer = frame[:4] + crc32c(rest, crc32c(codec.MAGIC)).to_bytes(4, "little") + rest

    with pytest.raises(NewerFormat, match="format 2"):
        codec.parse_frame(newer, log_id=LOG_ID)


def test_a_large_batch_travels_in_parts_of_which_the_last_commits():
    frame = Frame(4, 1_000, 1, events(b"a" * FRAME_BYTES, b"b" * FRAME_BYTES, b"c"), b"who")
    parts = codec.encode_batch(frame, log_id=LOG_ID, previous=1, synced=3)
    headers = [codec.parse_frame(part, log_id=LOG_ID) for part in parts]
    contents = [codec.frame_content(part, 0, header) for part, header in zip(parts, headers, strict=True)]

    assert [header.flags for header in headers] == [PART, PART, LAST]
    assert [header.event_count for header in headers] == [0, 0, 3]
    assert [header.first_index for header in headers] == [4, 4, 4]
    assert [header.previous for header in headers[1:]] == [header.crc for header in headers[:-1]]
    assert all(len(body) <= FRAME_BYTES for _, body in contents)
    assert codec.decode_events(b"".join(body for _, body in contents), 3) == frame.events
    assert contents[-1][0] == b"who"


def test_a_batch_over_the_limit_is_too_large():
    fits = Frame(1, 0, 1, events(b"x" * (BATCH_BYTES - codec.EVENT_HEADER_BYTES)))
    over = Frame(1, 0, 1, events(b"x" * (BATCH_BYTES - codec.EVENT_HEADER_BYTES + 1)))

    assert len(codec.encode_batch(fits, log_id=LOG_ID, previous=0, synced=0)) == BATCH_BYTES // FRAME_BYTES
    with pytest.raises(TooLarge) as caught:
        codec.encode_batch(over, log_id=LOG_ID, previous=0, synced=0)
    assert caught.value.code == "too_large"


def test_an_origin_over_the_limit_is_too_large():
    with pytest.raises(TooLarge, match="origin"):
        encode(Frame(1, 0, 1, events(b"x"), b"o" * (codec.ORIGIN_BYTES + 1)))
