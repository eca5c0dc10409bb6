"""What reads of several keys, or of a part of one, answer."""

from __future__ import annotations

import msgspec


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
