"""Arguments of commands as numbers, names and instants, with the errors that Redis gives for bad ones."""

from __future__ import annotations

from math import ceil
from typing import Final

from flo.server.resp.replies import NOT_AN_INTEGER, Reject, error

INTEGER_MAX: Final = 2**63 - 1
INTEGER_MIN: Final = -(2**63)
DIGITS_MAX: Final = 20
TIMEOUT_DIGITS: Final = 32


def whole(raw: bytes) -> int:
    """A signed 64-bit integer, written without spaces, plus sign or leading zeros. Raises Reject."""
    plain = raw[1:] if raw.startswith(b"-") else raw
    if not plain.isdigit() or len(plain) > DIGITS_MAX or (plain.startswith(b"0") and len(raw) > 1):
        raise Reject(NOT_AN_INTEGER)
    number = int(raw)
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        raise Reject(NOT_AN_INTEGER)
    return number


def positive(raw: bytes) -> int:
    """0 or more."""
    number = whole(raw)
    if number < 0:
        raise Reject(error("value is out of range, must be positive"))
    return number


def name(raw: bytes, what: str) -> str:
    """The name of a queue or a stream: keys are bytes, these are text."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Reject(error(f"{what} name must be UTF-8")) from None


def timeout_ms(raw: bytes) -> int | None:
    """Seconds with a fraction, as BRPOP has them; None for 0: no limit."""
    try:
        seconds = float(raw) if len(raw) <= TIMEOUT_DIGITS and b"_" not in raw else float("nan")
    except ValueError:
        seconds = float("nan")
    if not abs(seconds) <= INTEGER_MAX // 1_000:
        raise Reject(error("timeout is not a float or out of range"))
    if seconds < 0:
        raise Reject(error("timeout is negative"))
    return ceil(seconds * 1_000) or None


def block_ms(raw: bytes) -> int | None:
    """Milliseconds, as XREAD has them; None for 0: no limit."""
    try:
        ms = whole(raw)
    except Reject:
        raise Reject(error("timeout is not an integer or out of range")) from None
    if ms < 0:
        raise Reject(error("timeout is negative"))
    return ms or None
