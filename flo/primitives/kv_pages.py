"""What readers of the key–value machine get. Structs, so apart from what is compiled."""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, frozen=True, gc=False):
    """The current value of a key. `kind` is "string" or "counter", whose value is its decimal text."""

    value: bytes
    version: int
    kind: str
    expires_at: int  # epoch ms, 0: never
    written_at: int


class Version(msgspec.Struct, frozen=True, gc=False):
    """One version of a key; a tombstone has no value."""

    version: int
    timestamp_ms: int
    size: int
    tombstone: bool
    value: bytes | None


class Row(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    value: bytes  # empty when only keys were asked for
    version: int
    size: int


class Page(msgspec.Struct, frozen=True):
    rows: list[Row]
    has_more: bool
    cursor: str  # opaque; "" when there is no more


class Found(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    found: bool
    version: int  # 0 when missing
    value: bytes


class Many(msgspec.Struct, frozen=True):
    entries: list[Found]
    truncated: bool  # entries at the end were left off; ask for them again


class JsonNode(msgspec.Struct, frozen=True, gc=False):
    json: bytes
    version: int  # of the document
