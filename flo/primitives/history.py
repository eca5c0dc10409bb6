"""The record of one finished action, and how many of them are packed into one byte string.

A waiting run costs memory for as long as it waits, which may be months, so its history is kept as the
msgpack of its records, one after another, and is turned into objects only while somebody evaluates it.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from flo.primitives.limits import PARAMS_RECORDED_BYTES

_encode = msgspec.msgpack.Encoder().encode


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A finished action: its number in its task, what was asked, and what came back."""

    n: int
    kind: str
    params: str  # as recorded_params gives them
    outcome: str  # an outcome text, or the reference (flo.primitives.payload) of a blob that holds it
    index: int  # index in the log of the event that asked for it
    at: int  # epoch ms of that event
    where: str  # FILE:LINE of the call, or ""


def recorded_params(params: str) -> str:
    """Parameters as the history keeps and compares them: whole when short, else `sha256:HEX:LENGTH`."""
    if len(params) <= PARAMS_RECORDED_BYTES:
        return params
    data = params.encode()
    return f"sha256:{sha256(data).hexdigest()}:{len(data)}"


def pack(record: Record) -> bytes:
    return _encode(record)


_decode_all = msgspec.msgpack.Decoder(list[Record]).decode


def unpack(packed: bytes | bytearray, count: int) -> list[Record]:
    """The records of `count` packed ones, in the order in which they completed."""
    return _decode_all(b"\xdd" + count.to_bytes(4, "big") + packed) if count else []
