"""Refusals and errors of the store as replies (spec/redis.md §3)."""

from __future__ import annotations

import pytest

from flo.api.errors import Overloaded, Unavailable
from flo.log.errors import FloError, LogDamaged, LogFenced, OutcomeUnknown
from flo.primitives.machine import Refused
from flo.server.resp.replies import array, bulk, bulks, error, failure, integer, mapping, refusal, shown


@pytest.mark.parametrize(
    ("refused", "reply"),
    [
        (Refused("not_found", "key not found"), b"-ERR key not found\r\n"),
        (Refused("conflict", "Version mismatch: current version 7"), b"-ERR Version mismatch: current version 7\r\n"),
        (Refused("conflict", "not a counter"), b"-WRONGTYPE key holds a string, not a counter\r\n"),
        (Refused("bad_argument", "counter overflow"), b"-ERR increment or decrement would overflow\r\n"),
        (Refused("too_large", "value too large"), b"-ERR value too large\r\n"),
        (Refused("bad_argument", "denied", {"code": "unauthorized"}), b"-NOPERM denied\r\n"),
        (Refused("quota_exceeded", "namespace limit reached"), b"-BUSY namespace limit reached\r\n"),
        (Refused("bad_argument", "two\r\nlines"), b"-ERR two  lines\r\n"),
    ],
)
def test_refusals(refused: Refused, reply: bytes):
    assert refusal(refused) == reply


@pytest.mark.parametrize(
    ("fault", "reply"),
    [
        (Overloaded("full", hint="wait"), b"-BUSY full (wait)\r\n"),
        (Unavailable("stopping"), b"-CLUSTERDOWN stopping\r\n"),
        (LogFenced("another owner"), b"-CLUSTERDOWN another owner\r\n"),
        (OutcomeUnknown("lost"), b"-CLUSTERDOWN lost\r\n"),
        (LogDamaged("record 1-0 is damaged"), b"-ERR record 1-0 is damaged\r\n"),
        (FloError("internal error"), b"-ERR internal error\r\n"),
    ],
)
def test_failures(fault: FloError, reply: bytes):
    assert failure(fault) == reply


def test_shapes():
    assert bulk(b"") == b"$0\r\n\r\n" and bulk(bytes(2_000)) == b"$2000\r\n" + bytes(2_000) + b"\r\n"
    assert [integer(n) for n in (0, 1_023, 1_024, -1)] == [b":0\r\n", b":1023\r\n", b":1024\r\n", b":-1\r\n"]
    assert array([bulk(b"a"), integer(1)]) == b"*2\r\n$1\r\na\r\n:1\r\n" and bulks([]) == b"*0\r\n"
    assert (
        mapping([bulk(b"a"), bulk(b"b")], 2)[:4] == b"*2\r\n" and mapping([bulk(b"a"), bulk(b"b")], 3)[:4] == b"%1\r\n"
    )
    assert error("é\ud800") == b"-ERR \xc3\xa9?\r\n"
    assert shown(b"a\r\n\xff" + bytes(500)) == "a??" + "\ufffd" + "?" * 124 + "…"
