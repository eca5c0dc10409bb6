"""What an action, a task or a run ended with, as one text.

An outcome is `+` and the JSON of the value, or `-` and the JSON of an error object
{kind, message, retryable, details, where}. One text crosses to Starlark, to the log and to disk
unchanged, and keeps integers of any size (design.md §6.1: crossing as text is the cheap way).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

Outcome: TypeAlias = str

NONE: Outcome = "+null"

ERROR_KINDS = frozenset({
    "failed", "interrupted", "cancelled", "timeout", "quota_exceeded", "bad_argument", "not_found", "conflict",
    "resource", "connector", "too_large",
})  # fmt: skip

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def ok(value: Any) -> Outcome:
    """The outcome of a Python value made of JSON types (finite floats only)."""
    return "+" + _encode(value).decode()


def error(
    kind: str,
    message: str,
    *,
    retryable: bool = False,
    details: Any = None,
    where: str | None = None,
) -> Outcome:
    """The outcome of a failure; `kind` is one of ERROR_KINDS."""
    assert kind in ERROR_KINDS, kind
    body = {"kind": kind, "message": message, "retryable": retryable, "details": details, "where": where}
    return "-" + _encode(body).decode()


def is_ok(outcome: Outcome) -> bool:
    return outcome[0] == "+"


def value(outcome: Outcome) -> Any:
    """The value, or the error object as a dict."""
    return _decode(outcome[1:].encode())


def error_kind(outcome: Outcome) -> str | None:
    return None if outcome[0] == "+" else str(value(outcome)["kind"])
