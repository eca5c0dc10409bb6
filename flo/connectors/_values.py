"""What may leave a connector: JSON-like values, checked and turned into an outcome's text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from flo.api.limits import PAYLOAD_HARD_BYTES, VALUE_DEPTH
from flo.connectors.contract import ConnectorError


class Parsed:
    """A value that a JSON parser made, nested no deeper than allowed: it needs no second check."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def encode_value(value: Any) -> str:
    """The JSON text of a value. Raises ConnectorError: `connector` when it is not JSON-like, naming the place, and
    `too_large` over PAYLOAD_HARD_BYTES."""
    try:
        _check(value, VALUE_DEPTH)
        data = _encode(value)
    except _NotJson as bad:
        raise ConnectorError("connector", f"value{''.join(reversed(bad.path))} {bad.why}") from None
    except (TypeError, ValueError, RecursionError) as bad:  # lone surrogates, integers of thousands of digits
        raise ConnectorError("connector", f"value is not JSON-like: {_brief(bad)}") from None
    if len(data) > PAYLOAD_HARD_BYTES:
        raise too_large("the value", len(data))
    return data.decode()


def too_large(what: str, size: int | None = None) -> ConnectorError:
    """`size` in bytes, when it is known."""
    has = "is" if size is None else f"has {size:,} bytes,"
    return ConnectorError("too_large", f"{what} {has} over the limit of 16 MiB")


class _NotJson(Exception):
    def __init__(self, why: str) -> None:
        self.why = why
        self.path: list[str] = []


def _unwrap(value: Any) -> Any:
    if isinstance(value, Parsed):
        return value.value
    raise TypeError(f"a {type(value).__name__}")


_encode = msgspec.json.Encoder(enc_hook=_unwrap).encode
_SCALARS = frozenset({str, int, bool, type(None), Parsed})


def _check(value: Any, depth: int) -> None:
    kind = type(value)
    if kind in _SCALARS:
        return
    if kind is float:
        if not math.isfinite(value):
            raise _NotJson(f"is {value}, and only finite numbers can be recorded")
        return
    if not isinstance(value, (dict, list, tuple)):
        raise _NotJson(f"is a {kind.__name__}, which is not JSON-like")
    if depth == 0:
        raise _NotJson(f"is nested deeper than {VALUE_DEPTH} levels")
    if isinstance(value, dict):
        for key in value:
            if type(key) is not str:
                raise _NotJson(f"has a key that is no text: {key!r:.40}")
        items: Iterable[tuple[Any, Any]] = value.items()
    else:
        items = enumerate(value)
    for at, item in items:
        if type(item) in _SCALARS:
            continue
        try:
            _check(item, depth - 1)
        except _NotJson as bad:
            bad.path.append(f"[{at!r:.40}]")
            raise


def _brief(error: BaseException) -> str:
    return str(error)[:200]
