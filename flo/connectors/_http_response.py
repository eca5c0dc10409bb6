"""Reading an answer within its bounds, and the value that a flow gets."""

from __future__ import annotations

import codecs
import zlib
from base64 import b64encode
from collections.abc import AsyncIterable, Iterable
from typing import Any

import msgspec

from flo.api.limits import PAYLOAD_HARD_BYTES, VALUE_DEPTH
from flo.connectors._values import Parsed, too_large
from flo.connectors.contract import ConnectorError

# Codecs that Python knows and no server means; some take time in the square of the text.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode-escape", "unicode_escape", "raw-unicode-escape", "undefined"})
_JSON_DEPTH_MAX = VALUE_DEPTH - 1  # the parsed value lies one level down in the action's value

_decode_json = msgspec.json.Decoder().decode


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names in lower case, repeated ones joined by `, `."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name = raw_name.decode("latin-1").lower()
        try:
            value = raw_value.decode()
        except UnicodeDecodeError:
            value = raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def read_body(stream: AsyncIterable[bytes], headers: dict[str, str], *, has_body: bool, place: str) -> bytes:
    """The body, decompressed (gzip, deflate). Stops reading and raises `too_large` as soon as it is known to be over
    PAYLOAD_HARD_BYTES, before or after decompression."""
    what = f"the body of the answer to {place}"
    length = headers.get("content-length", "")
    if has_body and length.isascii() and length.isdigit() and len(length) < 20 and int(length) > PAYLOAD_HARD_BYTES:
        raise too_large(what, int(length))
    decoder = _Decoder(headers.get("content-encoding", "").strip().lower(), what)
    received = size = 0
    parts: list[bytes] = []
    async for chunk in stream:
        received += len(chunk)
        if received > PAYLOAD_HARD_BYTES:
            raise too_large(what)
        part = decoder.feed(chunk, PAYLOAD_HARD_BYTES - size)
        size += len(part)
        if size > PAYLOAD_HARD_BYTES:
            raise too_large(what)
        parts.append(part)
    decoder.end()
    return b"".join(parts)


def value_of(status: int, headers: dict[str, str], body: bytes, mask_bytes: Any) -> dict[str, Any]:
    """The action's value. `mask_bytes` takes the secrets out of a body that has to travel as base64."""
    text = _text_of(body, headers.get("content-type", ""))
    if text is None:
        encoded = b64encode(mask_bytes(body)).decode()
        return {"status": status, "headers": headers, "body": encoded, "json": None, "encoding": "base64"}
    return {"status": status, "headers": headers, "body": text, "json": _json_of(text)}


class _Decoder:
    """Undoes one content encoding, never giving more than it was asked for. Unknown ones pass as they are."""

    def __init__(self, encoding: str, what: str) -> None:
        self._encoding = encoding
        self._what = what
        self._known = encoding in ("gzip", "x-gzip", "deflate")
        self._inflate: Any = None
        self._begun = False

    def feed(self, data: bytes, room: int) -> bytes:
        """At most room + 1 bytes: one too many shows that there is more."""
        if not self._known or not data:
            return data
        parts: list[bytes] = []
        while data and room >= 0:
            if self._inflate is None:
                self._inflate = zlib.decompressobj(self._window(data))
            self._begun = True
            try:
                part = self._inflate.decompress(data, room + 1)
            except zlib.error:
                raise ConnectorError(
                    "connector", f"{self._what} is not valid {self._encoding}", retryable=True
                ) from None
            parts.append(part)
            room -= len(part)
            if self._inflate.eof:  # gzip may go on with another member
                data, self._inflate = self._inflate.unused_data, None
                if data and self._encoding == "deflate":
                    break
            else:
                data = self._inflate.unconsumed_tail
        return b"".join(parts)

    def end(self) -> None:
        if self._begun and self._inflate is not None:
            cut = f"{self._what} ends in the middle of its {self._encoding}"
            raise ConnectorError("connector", cut, retryable=True)

    def _window(self, data: bytes) -> int:
        if self._encoding != "deflate":
            return 31
        # Servers send deflate with and without the header of zlib that the standard asks for.
        return 15 if data[0] & 0x0F == 8 and (len(data) < 2 or (data[0] << 8 | data[1]) % 31 == 0) else -15


def _text_of(body: bytes, content_type: str) -> str | None:
    charset = _charset(content_type)
    order = [charset, "utf-8"] if charset.startswith(("utf-16", "utf-32")) else ["utf-8", charset]
    for name in order:
        try:
            if name:
                return body.decode(name)
        except (ValueError, LookupError):  # not in this charset, or a codec that makes no text
            continue
    return None


def _charset(content_type: str) -> str:
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            try:
                found = codecs.lookup(value.strip().strip("\"'")).name
            except (LookupError, ValueError):
                return ""
            return "" if found in _NO_CHARSETS else found
    return ""


def _json_of(text: str) -> Parsed | None:
    """The parsed text, or None when it is not JSON, or nested deeper than a value may be."""
    if not text:
        return None
    try:
        value = _decode_json(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    if text.count("[") + text.count("{") > _JSON_DEPTH_MAX and not _within(value, _JSON_DEPTH_MAX):
        return None
    return Parsed(value)


def _within(value: Any, depth: int) -> bool:
    """Whether the nesting ends within `depth` levels; level by level, so that depth costs no stack."""
    level = [value]
    for _ in range(depth + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(v for v in item.values() if isinstance(v, (dict, list)))
            elif isinstance(item, list):
                below.extend(v for v in item if isinstance(v, (dict, list)))
        if not below:
            return True
        level = below
    return False
