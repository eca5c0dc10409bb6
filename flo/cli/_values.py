"""What a person types, made into values: JSON, durations, `--arg NAME=VALUE`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import typer

from flo.api.errors import BadArgument
from flo.api.limits import PAYLOAD_HARD_BYTES

DURATION_MAX_MS: Final = 100 * 365 * 24 * 3_600_000
SPAN_MAX_MS: Final = 2**53 - 1
VALUE_BYTES: Final = 16 * 1024 * 1024  # that one request can carry; the server's limits are lower

_NESTED: Final = "is nested too deep: the limit is 64 levels"


def duration_ms(option: str, text: str) -> int:
    """Milliseconds of `500ms`, `30s`, `1h30m` or a bare number of seconds; more than 0. Raises typer.BadParameter."""
    from flo.client.values import duration_ms

    try:
        ms = duration_ms(text, option)
    except BadArgument as error:
        raise typer.BadParameter(error.message.removeprefix(f"{option}: "), param_hint=option) from None
    if not 0 < ms <= DURATION_MAX_MS:
        raise typer.BadParameter(f"{text!r} is out of range: more than 0 and at most 100 years", param_hint=option)
    return ms


def span_ms(option: str, text: str, *, unit_ms: int, most_ms: int = SPAN_MAX_MS) -> int:
    """Milliseconds of `500ms`, `30s`, `1h30m`, or of a whole number of `unit_ms`; 0 is allowed.
    Raises typer.BadParameter naming the option."""
    from flo.client.values import duration_ms

    if text.isascii() and text.isdigit():
        ms = int(text.lstrip("0")[:20] or "0") * unit_ms
    elif not text[-1:].isalpha():
        raise typer.BadParameter(f"{text!r} is no duration: a whole number, or a text like 90s", param_hint=option)
    else:
        try:
            ms = duration_ms(text, option)
        except BadArgument as error:
            raise typer.BadParameter(error.message.removeprefix(f"{option}: "), param_hint=option) from None
    if ms > most_ms:
        raise typer.BadParameter(f"{text!r} is out of range: at most {most_ms} ms", param_hint=option)
    return ms


def data_bytes(text: str) -> bytes:
    """A word of the command line as bytes, those that are no UTF-8 as they were typed."""
    return text.encode("utf-8", "surrogateescape")


def payload(text: str, option: str) -> bytes:
    """What stands on standard input in place of a `-`, at most VALUE_BYTES; any other text as bytes."""
    if text != "-":
        return data_bytes(text)
    raw = sys.stdin.buffer.read(VALUE_BYTES + 1)
    if len(raw) > VALUE_BYTES:
        raise typer.BadParameter(f"standard input is over {VALUE_BYTES} bytes", param_hint=option)
    return raw


def arguments(pairs: Sequence[str], whole: str | None) -> dict[str, Any]:
    """The arguments of a run: those of `--args-json`, and over them each `--arg`, the last of a name.
    Raises typer.BadParameter naming the option."""
    given: dict[str, Any] = {}
    if whole is not None:
        given = _object("--args-json", from_stdin(whole, "--args-json"))
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--arg")
        try:
            given[name] = msgspec.json.decode(text)
        except RecursionError:
            raise typer.BadParameter(f"{name!r} {_NESTED}", param_hint="--arg") from None
        except msgspec.DecodeError:
            given[name] = text
    return given


def json_text(option: str, text: str) -> str:
    """The text, when it is JSON. Raises typer.BadParameter naming the option."""
    _parsed(option, text)
    return text


def from_stdin(text: str, option: str) -> str:
    """What stands on standard input in place of a `-`, at most PAYLOAD_HARD_BYTES; any other text as it is."""
    if text != "-":
        return text
    raw = sys.stdin.buffer.read(PAYLOAD_HARD_BYTES + 1)
    if len(raw) > PAYLOAD_HARD_BYTES:
        raise typer.BadParameter(f"standard input is over {PAYLOAD_HARD_BYTES} bytes", param_hint=option)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise typer.BadParameter("standard input is not UTF-8 text", param_hint=option) from None


def _object(option: str, text: str) -> dict[str, Any]:
    value = _parsed(option, text)
    if not isinstance(value, dict):
        raise typer.BadParameter('needs a JSON object, like \'{"name": "x"}\'', param_hint=option)
    return value


def _parsed(option: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise typer.BadParameter(f"the value {_NESTED}", param_hint=option) from None
    except msgspec.DecodeError as error:
        raise typer.BadParameter(
            f"is not JSON ({error}); a text needs its quotes: '\"text\"'", param_hint=option
        ) from None
