"""Frames, however their bytes arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flo.wire.frames import (
    HEADER_BYTES,
    KEY_BYTES,
    REQUEST_PAYLOAD_BYTES,
    VALUE_BYTES,
    FrameError,
    Reply,
    ReplyScanner,
    Request,
    RequestScanner,
    Scanner,
    encode_reply,
    encode_request,
)
from flo.wire.tlv import OptionError

namespaces = st.text(min_size=1, max_size=20).filter(lambda text: text.encode("utf-8", "ignore").decode() == text)
requests = st.builds(
    Request,
    opcode=st.integers(0, 0xFFFF),
    request_id=st.integers(0, 2**64 - 1),
    ns=namespaces,
    key=st.binary(max_size=40),
    value=st.binary(max_size=200),
    options=st.dictionaries(st.integers(0, 255), st.binary(max_size=20), max_size=4),
)
replies = st.builds(
    Reply, status=st.integers(0, 255), request_id=st.integers(0, 2**64 - 1), body=st.binary(max_size=200)
)


def frame(request: Request) -> bytes:
    return encode_request(
        request.opcode, request.request_id, request.ns, request.key, request.value, request.options
    )  # fmt: skip


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


@given(st.lists(requests, max_size=5), st.lists(st.integers(0, 5_000), max_size=8))
def test_requests_are_read_as_they_were_written_in_whatever_pieces_they_come(wanted: list[Request], cuts: list[int]):
    scanner = RequestScanner()

    found = [request for piece in in_pieces(b"".join(map(frame, wanted)), cuts) for request in scanner.feed(piece)]

    assert scanner.error is None
    assert found == wanted
    assert scanner.unread == 0


@given(st.lists(replies, max_size=5), st.lists(st.integers(0, 5_000), max_size=8))
def test_replies_are_read_as_they_were_written_in_whatever_pieces_they_come(wanted: list[Reply], cuts: list[int]):
    data = b"".join(encode_reply(reply.status, reply.request_id, reply.body) for reply in wanted)
    scanner = ReplyScanner()

    assert [reply for piece in in_pieces(data, cuts) for reply in scanner.feed(piece)] == wanted
    assert scanner.error is None


@given(
    st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4), st.sampled_from([RequestScanner, ReplyScanner])
)
def test_arbitrary_bytes_raise_nothing(data: bytes, cuts: list[int], kind: type[Scanner]):
    for prefix in (b"", b"FLO\0"):
        scanner = kind()
        for piece in in_pieces(prefix + data, cuts):
            scanner.feed(piece)


@given(requests, st.binary(max_size=60))
def test_a_frame_with_a_valid_checksum_and_arbitrary_sections_raises_nothing(request: Request, payload: bytes):
    whole = encode_reply(0, request.request_id, payload)
    header = bytearray(whole)
    header[20:24] = b"\0\1\1\0"
    data = sealed(header)

    scanner = RequestScanner()
    found = scanner.feed(data)

    assert len(found) == 1 or (scanner.error is not None and scanner.error.kind == "truncated")


def sealed(data: bytearray) -> bytes:
    from zlib import crc32

    data[16:20] = crc32(bytes(data[20:]), crc32(bytes(data[:16]))).to_bytes(4, "little")
    return bytes(data)


GOOD = encode_request(0x100, 9, key=b"k", value=b"v")


def changed(position: int, value: int, *, seal: bool = True) -> bytes:
    data = bytearray(GOOD)
    data[position] = value
    return sealed(data) if seal else bytes(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"FLO\1" + GOOD[4:], "magic"),
        (b"*1\r\n", "magic"),
        (changed(22, 9), "version"),
        (changed(22, 0), "version"),
        (changed(len(GOOD) - 1, 9, seal=False), "checksum"),
        (changed(16, GOOD[16] ^ 0x40, seal=False), "checksum"),
        (changed(31, 1), "reserved"),
        (changed(23, 1), "reserved"),
        (changed(HEADER_BYTES, 200), "truncated"),
        (changed(len(GOOD) - 4, 200), "truncated"),
        (changed(len(GOOD) - 2, 7), "truncated"),
        (GOOD[:4] + (REQUEST_PAYLOAD_BYTES + 1).to_bytes(4, "little") + GOOD[8:], "too_large"),
    ],
)
def test_a_bad_frame_is_told_after_the_good_ones_before_it(data: bytes, kind: str):
    scanner = RequestScanner()

    found = scanner.feed(GOOD + data)

    assert [request.key for request in found] == [b"k"]
    assert scanner.error is not None
    assert scanner.error.kind == kind
    assert scanner.feed(GOOD) == []


def test_what_is_wrong_with_a_header_is_told_before_the_frame_is_whole():
    for data, kind in ((b"FLX", "magic"), (GOOD[:22] + b"\0", "version"), (b"FLO\0\xff\xff\xff\xff", "too_large")):
        scanner = RequestScanner()
        scanner.feed(data)

        assert scanner.error is not None
        assert scanner.error.kind == kind


def test_a_payload_of_no_bytes_is_a_request_without_sections():
    empty = sealed(bytearray(GOOD[:4] + bytes(4) + GOOD[8:20] + b"\0\0\1\0" + bytes(8)))

    assert RequestScanner().feed(empty) == [Request(0, 9, "default", b"", b"", {})]


def test_a_request_may_lack_its_options():
    payload = GOOD[HEADER_BYTES:-2]
    data = sealed(bytearray(GOOD[:4] + len(payload).to_bytes(4, "little") + GOOD[8:HEADER_BYTES] + payload))

    assert RequestScanner().feed(data) == [Request(0x100, 9, "default", b"k", b"v", {})]


def test_an_empty_namespace_is_the_default_one():
    assert RequestScanner().feed(encode_request(0x100, 1, ns=""))[0].ns == "default"


def test_a_namespace_that_is_no_text_becomes_one_that_is_refused():
    data = bytearray(encode_request(0x100, 1, ns="ab"))
    data[HEADER_BYTES + 2 : HEADER_BYTES + 4] = b"\xff\xfe"

    (request,) = RequestScanner().feed(sealed(data))

    assert request.ns == "\N{REPLACEMENT CHARACTER}" * 2


def test_what_the_lengths_cannot_say_is_refused_before_it_is_sent():
    for arguments in ({"ns": "x" * 256}, {"key": bytes(KEY_BYTES + 1)}, {"value": bytes(VALUE_BYTES + 1)}):
        with pytest.raises(FrameError) as refused:
            encode_request(0x100, 1, **arguments)  # type: ignore[arg-type]
        assert refused.value.kind == "too_large"
    with pytest.raises(OptionError):
        encode_request(0x100, 1, options={1: bytes(256)})


def test_bytes_of_a_frame_that_has_not_arrived_are_counted():
    scanner = RequestScanner()
    scanner.feed(GOOD + GOOD[:-3])

    assert scanner.unread == len(GOOD) - 3
