"""Durations, and texts on their way between the host and Starlark."""

from __future__ import annotations

import re
from typing import Any

import msgspec

DECODED_DEPTH = 100  # brackets in one text; the interpreter's own decoder refuses nesting above 127
_INTEGER_DIGITS = 18  # the most that surely fit 64 bits

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_long_number = re.compile(rf"\d{{{_INTEGER_DIGITS + 1}}}", re.ASCII).search
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_MARKED = {"+": "*", "-": "!"}


def duration_ms(text: str) -> int:
    """Milliseconds of a duration such as "500ms" or "1h30m"; -1 when it is none."""
    if len(text) > 100 or not _DURATION.fullmatch(text):
        return -1
    return round(sum(float(number) * _UNIT_MS[unit] for number, unit in _DURATION_PART.findall(text)))


def decode(text: str) -> Any:
    """The value of a JSON text, integers of any size included. Raises ValueError or RecursionError."""
    return _decode(text.encode())


def encode(value: Any) -> str:
    return _encode(value).decode()


def is_simple(text: str) -> bool:
    """Whether the interpreter's own JSON decoder reads this text right: it makes floats of integers over 64 bits,
    and bounds nesting."""
    if len(text) <= _INTEGER_DIGITS:
        return True
    return _long_number(text) is None and text.count("[") + text.count("{") <= DECODED_DEPTH


def crossing(outcome: str) -> str:
    """An outcome as the prelude takes it: with another sign where only the host decodes it right."""
    if len(outcome) <= _INTEGER_DIGITS or is_simple(outcome):
        return outcome
    return _MARKED[outcome[0]] + outcome[1:]
