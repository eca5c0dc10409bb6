"""Patterns of SCAN and KEYS match as Redis's do, in time that grows with the pattern times the key and no faster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flo.server.resp.glob import Glob, compiled


def matches(pattern: bytes, key: bytes) -> bool:
    glob = Glob(pattern)
    if glob.literal:
        return key == glob.prefix
    return key.startswith(glob.prefix) and glob.matches(key)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (b"*", [b"", b"a", b"a\nb"], []),
        (b"user:*", [b"user:", b"user:1"], [b"user", b"xuser:"]),
        (b"user:1?", [b"user:10", b"user:1\n"], [b"user:1", b"user:100"]),
        (b"h[ae]llo", [b"hello", b"hallo"], [b"hillo", b"hllo"]),
        (b"h[^e]llo", [b"hallo", b"h\nllo"], [b"hello", b"hllo"]),
        (b"h[a-b]llo", [b"hallo", b"hbllo"], [b"hcllo"]),
        (b"h[b-a]llo", [b"hallo", b"hbllo"], [b"hcllo"]),
        (b"[\\]a]x", [b"]x", b"ax"], [b"bx", b"\\x"]),
        (b"[\\^]", [b"^"], [b"a"]),
        (b"a[]b", [], [b"ab", b"a]b"]),
        (b"a[bc", [b"ab", b"ac"], [b"a", b"a[bc"]),
        (b"a\\*b", [b"a*b"], [b"axb", b"a\\*b"]),
        (b"a\\?*", [b"a?", b"a?x"], [b"ab"]),
        (b"a*b*c", [b"abc", b"a.b.b.c", b"abcbc"], [b"ab", b"acb"]),
        (b"**a**", [b"a", b"xax"], [b"x"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"", [b""], [b"a"]),
        (b".+$", [b".+$"], [b"aaa"]),
        (b"\xff?\x00", [b"\xff\x80\x00"], [b"\xff\x00"]),
    ],
)
def test_what_a_pattern_matches(pattern: bytes, yes: list[bytes], no: list[bytes]):
    assert [key for key in yes if not matches(pattern, key)] == []
    assert [key for key in no if matches(pattern, key)] == []


@pytest.mark.parametrize(
    ("pattern", "prefix", "literal"),
    [
        (b"a\\*b*", b"a*b", False),
        (b"abc", b"abc", True),
        (b"a?c", b"a", False),
        (b"*", b"", False),
        (b"[a]", b"", False),
    ],
)
def test_the_literal_prefix_is_what_the_store_scans(pattern: bytes, prefix: bytes, literal: bool):
    glob = Glob(pattern)

    assert (glob.prefix, glob.literal) == (prefix, literal)


def naive(pattern: bytes, key: bytes) -> bool:
    """Of patterns made of letters, `*` and `?`."""
    if not pattern:
        return not key
    if pattern[:1] == b"*":
        return naive(pattern[1:], key) or (bool(key) and naive(pattern, key[1:]))
    return bool(key) and pattern[:1] in (b"?", key[:1]) and naive(pattern[1:], key[1:])


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_stars_find_what_trying_everything_finds(pattern: str, key: str):
    assert matches(pattern.encode(), key.encode()) == naive(pattern.encode(), key.encode())


def test_many_stars_cost_no_more_than_their_number():
    pattern = b"a*" * 400 + b"b"

    assert not compiled(pattern).fullmatch(b"a" * 4_000)
