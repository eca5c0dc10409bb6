"""Replies of the Redis protocol as bytes, and how refusals and errors of the store are told (spec/redis.md §3).

Helpers take what is encoded already where they say `parts`, plain bytes elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flo.log.errors import FloError
from flo.primitives.machine import Refused

OK: Final = b"+OK\r\n"
PONG: Final = b"+PONG\r\n"
ZERO: Final = b":0\r\n"
ONE: Final = b":1\r\n"
EMPTY_ARRAY: Final = b"*0\r\n"
NIL_2: Final = b"$-1\r\n"
NIL_ARRAY_2: Final = b"*-1\r\n"
NIL_3: Final = b"_\r\n"

SYNTAX: Final = b"-ERR syntax error\r\n"
NOT_AN_INTEGER: Final = b"-ERR value is not an integer or out of range\r\n"
OVERFLOW: Final = b"-ERR increment or decrement would overflow\r\n"
WRONG_TYPE: Final = b"-WRONGTYPE key holds a string, not a counter\r\n"

SHOWN_BYTES: Final = 128  # of what a client sent, in an error
CACHED: Final = 1_024

_bulk_heads: Final = [b"$%d\r\n" % n for n in range(CACHED)]
_integers: Final = [b":%d\r\n" % n for n in range(CACHED)]
_line_ends: Final = str.maketrans("\r\n", "  ")


class Reject(Exception):
    """A command that is answered with this error reply; nothing has changed."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


def bulk(data: bytes) -> bytes:
    size = len(data)
    if size < CACHED:
        return _bulk_heads[size] + data + b"\r\n"
    return b"$%d\r\n%b\r\n" % (size, data)


def integer(number: int) -> bytes:
    if 0 <= number < CACHED:
        return _integers[number]
    return b":%d\r\n" % number


def array(parts: Sequence[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


def bulks(items: Sequence[bytes]) -> bytes:
    """An array of bulk strings."""
    return b"*%d\r\n%b" % (len(items), b"".join(map(bulk, items)))


def mapping(parts: Sequence[bytes], protocol: int) -> bytes:
    """Names and values in turn: a map in RESP3, a flat array in RESP2."""
    if protocol == 3:
        return b"%%%d\r\n%b" % (len(parts) // 2, b"".join(parts))
    return array(parts)


def error(text: str, code: str = "ERR") -> bytes:
    """An error reply; what would break its line is taken out of the text."""
    return f"-{code} {text}\r\n".translate(_line_ends)[:-2].encode("utf-8", "replace") + b"\r\n"


def shown(raw: bytes) -> str:
    """What a client sent, as an error may show it."""
    text = raw[:SHOWN_BYTES].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text) + ("…" if len(raw) > SHOWN_BYTES else "")


def wrong_count(name: str) -> bytes:
    return error(f"wrong number of arguments for '{name}' command")


_REWORDED: Final = {"not a counter": WRONG_TYPE, "counter overflow": OVERFLOW}


def refusal(refused: Refused) -> bytes:
    """The reply to a command that its machine refused."""
    reworded = _REWORDED.get(refused.message)
    if reworded is not None:
        return reworded
    details = refused.details
    if isinstance(details, dict) and details.get("code") == "unauthorized":
        return error(refused.message, "NOPERM")
    if refused.kind == "quota_exceeded":
        return error(refused.message, "BUSY")
    return error(refused.message)


def failure(fault: FloError) -> bytes:
    """The reply to a command that the store cannot serve. Who may try again is told by the error's code."""
    if fault.code in UNAVAILABLE:
        return error(str(fault), "CLUSTERDOWN")
    if fault.retryable:
        return error(str(fault), "BUSY")
    return error(str(fault))


UNAVAILABLE: Final = frozenset({"unavailable", "log_fenced", "outcome_unknown"})
