"""Requests of the Redis protocol are cut from what arrives, in whatever pieces; only what arrived is held."""

from __future__ import annotations

import os
import random
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flo.server.resp import parser as limits
from flo.server.resp.parser import RequestParser, split_line

FRAMES = int(os.environ.get("FLO_FUZZ_FRAMES", "3000"))


def encode(*args: bytes) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(arg), arg) for arg in args)


def parse(*pieces: bytes) -> tuple[list[list[bytes]], str]:
    parser = RequestParser()
    commands = [command for piece in pieces for command in parser.feed(piece)]
    return commands, parser.error


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted({place % (len(data) + 1) for place in at}), len(data)]
    return [data[first:last] for first, last in pairwise(places)]


arguments = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"", b"\r\n", b"$3\r\n", b"*1\r\n$4\r\nPING\r\n", bytes(99), bytes(100), bytes(1_000)]),
)
commands = st.lists(st.lists(arguments, min_size=1, max_size=12), max_size=6)


@given(commands, st.lists(st.integers(0, 1 << 20), max_size=20))
def test_any_split_of_valid_commands_parses_the_same(given_commands: list[list[bytes]], at: list[int]):
    data = b"".join(encode(*command) for command in given_commands)

    assert parse(*cut(data, at)) == (given_commands, "")


@given(commands)
def test_commands_parse_when_they_arrive_byte_by_byte(given_commands: list[list[bytes]]):
    data = b"".join(encode(*command) for command in given_commands)

    assert parse(*(data[at : at + 1] for at in range(len(data)))) == (given_commands, "")


def test_thousands_of_pipelined_commands_come_out_of_one_read():
    data = b"".join(encode(b"SET", b"k%d" % n, b"v" * (n % 2_000)) for n in range(5_000))

    found, error = parse(data)

    assert error == ""
    assert found[4_999] == [b"SET", b"k4999", b"v" * 999] and len(found) == 5_000


def test_inline_lines_and_arrays_take_turns():
    assert parse(b"PING\r\n", encode(b"GET", b"k"), b"  set k  v \n\r\nQUIT\r\n") == (
        [[b"PING"], [b"GET", b"k"], [b"set", b"k", b"v"], [b"QUIT"]],
        "",
    )


def test_empty_commands_are_none():
    assert parse(b"*0\r\n*-1\r\n\r\n" + encode(b"PING")) == ([[b"PING"]], "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"a b", [b"a", b"b"]),
        (b"a \"b c\" 'd e'", [b"a", b"b c", b"d e"]),
        (b'"\\x00\\xfF\\n\\"\\\\"', [b'\x00\xff\n"\\']),
        (b"'it\\'s \\n'", [b"it's \\n"]),
        (b'""', [b""]),
        (b'"open', None),
        (b"'open", None),
        (b'"a"b', None),
    ],
)
def test_quotes_of_inline_lines(line: bytes, words: list[bytes] | None):
    assert split_line(line) == words


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"*1025\r\n", "invalid multibulk length"),
        (b"*1000000000\r\n", "invalid multibulk length"),
        (b"*99999999999999999999999999\r\n", "invalid multibulk length"),
        (b"*-7x\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"* 1\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*1_0\r\n", "invalid multibulk length"),
        (b"*1\r\n$-5\r\n", "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$1048577\r\n", "invalid bulk length"),
        (b"*1\r\n$99999999999\r\n", "invalid bulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*3\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"*1\r\n\x00\r\n", "expected '$', got byte 0"),
        (b"*1\r\n$4\r\nPINGPONG\r\n", "expected CRLF after a bulk string"),
        (b"$4\r\nPING\r\n", "expected '*' or an inline command, got '$'"),
        (b'PING "x\r\n', "unbalanced quotes in request"),
        (b"a " * 1_025 + b"\r\n", "more than 1024 arguments"),
        (b"*" + b"1" * 65_537, "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * 65_537, "too big bulk count string"),
        (b"x" * 65_537, "too big inline request"),
    ],
)
def test_a_framing_error_is_told_as_soon_as_its_line_is_there(data: bytes, error: str):
    before = encode(b"SET", b"k", b"v")

    assert parse(before + data) == ([[b"SET", b"k", b"v"]], error)
    assert parse(before + data[:-1], data[-1:], before) == ([[b"SET", b"k", b"v"]], error)


def test_what_is_at_the_limits_is_accepted():
    widest = [b"x"] * limits.ARGUMENTS
    largest = [b"SET", b"k", bytes(limits.BULK_BYTES)]

    assert parse(encode(*widest) + encode(*largest)) == ([widest, largest], "")
    assert parse(b"x" * (limits.LINE_BYTES - 1) + b"\r\n")[1] == ""


def test_a_command_may_not_grow_without_end():
    parser = RequestParser()
    parser.feed(b"*1000\r\n")
    megabyte = b"$1048576\r\n%b\r\n" % bytes(limits.BULK_BYTES)
    for _ in range(limits.COMMAND_BYTES // limits.BULK_BYTES):
        assert parser.feed(megabyte) == [] and parser.error == ""

    parser.feed(b"$1\r\n")

    assert parser.error == "command over 67108864 bytes"


def test_nothing_is_reserved_for_what_was_only_announced():
    tracemalloc.start()
    parsers = [RequestParser() for _ in range(100)]
    for parser in parsers:
        parser.feed(b"*1024\r\n$1048576\r\nx")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < 200_000
    assert all(parser.unread == 1 for parser in parsers)


def junk(rng: random.Random) -> bytes:
    """A frame that is nearly one: bytes changed, lost, doubled."""
    frame = bytearray(encode(*(rng.randbytes(rng.choice((0, 1, 3, 12, 130))) for _ in range(rng.randint(1, 5)))))
    for _ in range(rng.choice((0, 0, 1, 2))):
        at = rng.randrange(len(frame))
        what = rng.randrange(4)
        if what == 0:
            frame[at] = rng.choice(b"*$+-:0123456789\r\n \"'\\x")
        elif what == 1:
            del frame[at]
        elif what == 2:
            frame[at:at] = frame[at : at + rng.randint(1, 9)]
        elif len(frame) > 1:
            del frame[at:]
        if not frame:
            frame += b"*"
    return bytes(frame)


def test_fuzzed_frames_read_the_same_in_pieces_and_hold_no_more_than_arrived():
    seed = int(os.environ.get("FLO_FUZZ_SEED", "4"))
    rng = random.Random(seed)
    for number in range(FRAMES // 10):
        data = b"".join(junk(rng) for _ in range(10))
        pieces = cut(data, [rng.randrange(1 << 20) for _ in range(rng.randint(0, 8))])
        parser = RequestParser()
        found = []
        arrived = 0
        for piece in pieces:
            found += parser.feed(piece)
            arrived += len(piece)
            assert parser.unread <= arrived

        assert (found, parser.error) == parse(data), f"seed {seed}, round {number}: {data!r}"


def test_what_is_held_of_a_command_counts_what_has_arrived_and_what_is_announced_next():
    parser = RequestParser()
    assert parser.held == 0
    parser.feed(b"*3\r\n$3\r\nSET\r\n$5\r\nab")
    assert parser.held == 8
    parser.feed(b"cde\r\n$10")
    assert parser.held == 8 + len(b"$10")
    assert parser.feed(b"\r\n0123456789\r\nPI") == [[b"SET", b"abcde", b"0123456789"]]
    assert parser.held == len(b"PI")
    parser.feed(b"NG\r\n")
    assert parser.held == 0
