"""The event of a put that never expires, as the log holds it: written at once, without an object of KvPut in between.

It is the commonest event there is. `put_payload(…)` gives the bytes that msgspec gives for `KvPut(ns, key, value, 0)`:
an array of four, the first of which is a text.
"""

from __future__ import annotations

from typing import Final

_BIN8: Final = [b"\xc4" + bytes([size]) for size in range(256)]


def put_head(ns: str) -> bytes:
    """What the events of all puts into a namespace begin with. Its name has 1 to 63 letters of ASCII."""
    name = ns.encode()
    size = len(name)
    return b"\x94" + (bytes([0xA0 | size]) if size < 32 else bytes([0xD9, size])) + name


def put_payload(head: bytes, key: bytes, value: bytes) -> bytes:
    return b"%b%b%b%b%b\0" % (head, _bin(len(key)), key, _bin(len(value)), value)


def _bin(size: int) -> bytes:
    if size < 256:
        return _BIN8[size]
    if size < 65_536:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")
