"""Values and durations as a program or a person gives them."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import msgspec

from flo.api import limits
from flo.api.errors import BadArgument

_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def json_text(value: Any, name: str) -> str:
    """The JSON text of a value that may cross to a flow. Raises BadArgument naming `name` and the path in it."""
    _check(value, name, limits.VALUE_DEPTH)
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        raise BadArgument(f"{name} holds a text that is no Unicode (a lone surrogate)") from None


def json_value(text: str, name: str) -> Any:
    """The value of a JSON text. Raises BadArgument."""
    try:
        return _decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise BadArgument(f"{name} is not JSON: {error}") from None


def duration_ms(value: Any, name: str = "timeout") -> int:
    """Seconds as a number, or a text such as "90s", "1h30m", "250ms", "1.5"; in milliseconds, over 0 when not 0."""
    if isinstance(value, str):
        text = value.strip()
        parts = _PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return _whole(sum(float(number) * _UNITS[unit] for number, unit in parts))
        try:
            value = float(text)
        except ValueError:
            raise BadArgument(f'{name}: {text!r} is no duration: seconds, or a text like "90s" or "1h30m"') from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise BadArgument(f"{name}: {value!r} is no duration: a number of seconds from 0 on")
    return _whole(value * 1_000)


def _whole(ms: float) -> int:
    return max(1, round(ms)) if ms > 0 else 0


def _check(value: Any, path: str, depth: int) -> None:
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadArgument(f"{path} is {value}, which cannot be passed to a flow")
        return
    if depth == 0:
        raise BadArgument(f"{path} is nested deeper than {limits.VALUE_DEPTH}")
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check(item, f"{path}[{i}]", depth - 1)
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise BadArgument(f"{path} has the key {key!r}, which is no string")
            _check(item, f"{path}.{key}", depth - 1)
        return
    raise BadArgument(f"{path} is a {type(value).__name__}, which cannot be passed to a flow")
