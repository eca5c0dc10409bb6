"""The binary protocol on a connection: dialect D2, whose requests run as they come and whose replies leave as they
become ready.

Clients of the other dialects (24-byte headers; schema bodies) are told so in a frame that they can read.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from flo.api.errors import FloError
from flo.server.link import TOO_MUCH
from flo.server.operations.session import WireSession, refuse
from flo.wire.frames import MAGIC, Request, RequestScanner, encode_reply
from flo.wire.statuses import BAD_REQUEST, OVERLOADED

if TYPE_CHECKING:
    from flo.server.link import ClientLink

D1_HEADER_BYTES: Final = 24
D3_VERSION: Final = 2
D3_REASON: Final = 3  # the frame cannot be served
D3_TABLE: Final = bytes.fromhex("301894aed97dba2f")  # clients of D3 read no reply with another
VERSION_AT: Final = 22

_head = struct.Struct("<4sIQ")
_u32 = struct.Struct("<I")


class WireSpeaker:
    __slots__ = ("_first", "_known", "_link", "_scanner", "_session", "_turns")

    def __init__(self, link: ClientLink) -> None:
        self._link = link
        self._turns = link.turns
        self._scanner = RequestScanner()
        self._session = WireSession(link.reply, link, link.turns)
        self._first = b""
        self._known = False  # the dialect

    def feed(self, data: bytes) -> None:
        if not self._known:
            data = self._first + data
            if len(data) < D1_HEADER_BYTES:
                self._first = data
                return
            if data[VERSION_AT] in (0, D3_VERSION):
                self._link.finish(other_dialect(data))
                return
            self._known = True
            self._first = b""
        scanner = self._scanner
        size = scanner.unread + len(data)
        requests = scanner.feed(data)
        if requests:
            self._turns.submit_many(self._link, requests, size - scanner.unread)
        if scanner.error is not None:
            magic = scanner.error.kind == "magic"
            self._link.finish(b"" if magic else encode_reply(BAD_REQUEST, 0, scanner.error.message.encode()))
        elif not self._link.keeps(scanner.unread):
            self._link.finish(encode_reply(OVERLOADED, 0, TOO_MUCH.encode()))

    def execute(self, store: Any, request: Request) -> bytes | None:
        return self._session.execute(store, request)

    def refuse(self, request: Request, error: FloError) -> bytes:
        return refuse(request, error)

    def closed(self) -> None:
        self._session.close(self._link.store)


def other_dialect(first: bytes) -> bytes:
    """What a client that speaks another dialect is told, in that dialect. `first`: what it sent, 24 bytes at least."""
    if first[VERSION_AT] == D3_VERSION:
        body = struct.pack("<HB", D3_REASON, 0) + b"protocol version 2 is not supported: this server speaks version 1"
        tail = bytes((D3_VERSION, BAD_REQUEST, 0, 0)) + D3_TABLE
    else:
        body = b"the compact dialect (24-byte headers) is not supported: this server speaks the wide one, version 1"
        tail = bytes((1, BAD_REQUEST, 0, 0))
    head = _head.pack(MAGIC, len(body), 0)
    rest = tail + body
    return head + _u32.pack(crc32(rest, crc32(head))) + rest
