"""Field–value pairs of XADD as records of a stream, and back.

The payload is the JSON object of the pairs, so that every other surface can read it; pairs that are not UTF-8 lie
in it as a MessagePack array of binaries. The header `flo-fields` tells which, and that the pairs can be had back
exactly: repeats, order and bytes. A record without it was not written by XADD: it shows as one field, `data`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import msgspec

from flo.primitives.stream_pages import Headers, NewRecord

HEADER: Final = b"flo-fields"
JSON: Final[Headers] = ((HEADER, b"json"),)
REPEATED: Final[Headers] = ((HEADER, b"json-repeated"),)  # an object that has a name more than once
MSGPACK: Final[Headers] = ((HEADER, b"msgpack"),)
PLAIN_FIELD: Final = b"data"

_encode_json = msgspec.json.Encoder().encode
_encode_msgpack = msgspec.msgpack.Encoder().encode
_decode_json = msgspec.json.Decoder(dict[str, str]).decode
_decode_msgpack = msgspec.msgpack.Decoder(list[bytes]).decode


def record(pairs: Sequence[bytes]) -> NewRecord:
    """The record of fields and values in turn."""
    try:
        texts = [item.decode() for item in pairs]
    except UnicodeDecodeError:
        return NewRecord(_encode_msgpack(pairs), MSGPACK)
    names = texts[::2]
    fields = dict(zip(names, texts[1::2], strict=True))
    if len(fields) == len(names):
        return NewRecord(_encode_json(fields), JSON)
    parts = map(_encode_json, texts)
    members = [b"%b:%b" % (name, value) for name, value in zip(parts, parts, strict=True)]
    return NewRecord(b"{%b}" % b",".join(members), REPEATED)


def pairs(payload: bytes, headers: Headers) -> list[bytes]:
    """Fields and values in turn."""
    found: list[bytes] | None = None
    for header in headers:
        if header[0] == HEADER:
            found = _pairs(payload, header[1])
            break
    return [PLAIN_FIELD, payload] if found is None else found


def _pairs(payload: bytes, form: bytes) -> list[bytes] | None:
    """None for what XADD has not written, although it says so."""
    try:
        if form == b"json":
            return [text.encode() for member in _decode_json(payload).items() for text in member]
        if form == b"msgpack":
            items = _decode_msgpack(payload)
            return None if len(items) % 2 else items
        if form == b"json-repeated":
            members = json.loads(payload, object_pairs_hook=_Members)
            if isinstance(members, _Members):
                return [text.encode() for member in members for text in member]
    except (msgspec.DecodeError, ValueError, AttributeError, RecursionError):
        return None
    return None


class _Members(list[tuple[str, str]]):
    """The members of a JSON object in order, repeated ones too."""
