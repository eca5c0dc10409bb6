"""Transactions: what their operations do to a key, and the one event that they become.

Ids, idle limits and buffers of open transactions belong to the grid and are not logged. `Transaction` is
such a buffer: it checks every operation on the committed state with the earlier ones over it. At commit the
operations run again, in order, on what is committed then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from flo.primitives.kv_entry import (
    COUNTER,
    EXPIRES,
    HEADER_BYTES,
    TOMBSTONE,
    Packed,
    as_entry,
    is_alive,
    pack_counter,
    pack_header,
    unpack_header,
    with_expiry,
)
from flo.primitives.kv_events import KvCommitted, KvWrite
from flo.primitives.kv_pages import Entry
from flo.primitives.kv_rules import check_match, check_value, expiry_instant, put_expiry, sum_and_expiry
from flo.primitives.machine import Refused

if TYPE_CHECKING:
    from flo.primitives.kv import KV

TXN_WRITES: Final = 256
TXN_BYTES: Final = 1_048_576  # of keys and values


class TxnPut(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    value: bytes
    ttl_ms: int = 0
    nx: bool = False
    xx: bool = False
    cas: int | None = None
    keep_ttl: bool = False


class TxnIncr(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    delta: int = 1


class TxnDelete(msgspec.Struct, frozen=True, gc=False):
    key: bytes
    if_match: int | None = None


class TxnTouch(msgspec.Struct, frozen=True, gc=False):
    """A `ttl_ms` of 0 is persist."""

    key: bytes
    ttl_ms: int
    if_match: int | None = None


TxnOp: TypeAlias = TxnPut | TxnIncr | TxnDelete | TxnTouch


def after(current: Packed | None, now: int, op: TxnOp) -> Packed:
    """What an operation makes of a key's live version. Its own version is 0 until the commit gives it one."""
    if isinstance(op, TxnPut):
        check_value(op.value)
        expires_at = put_expiry(current, now, op.ttl_ms, op.nx, op.xx, op.cas, op.keep_ttl)
        header: bytes = pack_header(EXPIRES if expires_at else 0, 0, now, expires_at)
        return header + op.value
    if isinstance(op, TxnIncr):
        total, expires_at = sum_and_expiry(current, op.delta)
        return pack_counter(COUNTER | EXPIRES if expires_at else COUNTER, 0, now, expires_at, total)
    if isinstance(op, TxnDelete):
        check_match(current, op.if_match)
        return pack_header(TOMBSTONE, 0, now, 0)
    expires_at = expiry_instant(now, op.ttl_ms)
    return with_expiry(check_match(current, op.if_match), expires_at)


def committed(current: Callable[[bytes], Packed | None], now: int, ns: str, ops: Sequence[TxnOp]) -> KvCommitted | None:
    """The event of a commit; `current` gives the committed live version of a key."""
    if not ops:
        return None
    view: dict[bytes, Packed] = {}
    changed: set[bytes] = set()
    for place, op in enumerate(ops):
        try:
            before = view[op.key] if op.key in view else current(op.key)
            view[op.key] = after(before if before is not None and is_alive(before, now) else None, now, op)
        except Refused as refused:
            text = f"transaction refused at operation {place + 1}: {refused.message}"
            raise Refused("conflict", text, refused.details) from None
        if not isinstance(op, TxnTouch):
            changed.add(op.key)
    return KvCommitted(ns, tuple(_write(key, packed, key not in changed) for key, packed in view.items()))


def check_size(ops: Sequence[TxnOp]) -> None:
    """Of a transaction that comes at once."""
    if len(ops) > TXN_WRITES or sum(map(_size, ops)) > TXN_BYTES:
        raise _too_large()


def _size(op: TxnOp) -> int:
    return len(op.key) + (len(op.value) if isinstance(op, TxnPut) else 0)


def _too_large() -> Refused:
    text = f"transaction too large (max {TXN_WRITES} writes, {TXN_BYTES} bytes)"
    return Refused("too_large", text, {"code": "kv_txn_too_large"})


def _write(key: bytes, packed: Packed, touched: bool) -> KvWrite:
    flags, _, _, expires_at = unpack_header(packed)
    return KvWrite(key, flags, b"" if touched else packed[HEADER_BYTES:], expires_at, touched)


class Transaction:
    """The buffer of one open transaction. A refused operation leaves it as it was."""

    __slots__ = ("_kv", "_view", "bytes", "ns", "ops")

    def __init__(self, kv: KV, ns: str) -> None:
        self._kv = kv
        self._view: dict[bytes, Packed] = {}
        self.bytes = 0  # of keys and values
        self.ns = ns
        self.ops: list[TxnOp] = []

    def write(self, now: int, op: TxnOp) -> Entry | None:
        """Buffers an operation; returns what the key holds after it as seen from within, version 0 if written."""
        packed = after(self._current(now, op.key), now, op)
        size = _size(op)
        if len(self.ops) >= TXN_WRITES or self.bytes + size > TXN_BYTES:
            raise _too_large()
        self.ops.append(op)
        self.bytes += size
        self._view[op.key] = packed
        return as_entry(packed) if is_alive(packed, now) else None

    def get(self, now: int, key: bytes) -> Entry | None:
        packed = self._current(now, key)
        return None if packed is None else as_entry(packed)

    def exists(self, now: int, key: bytes) -> bool:
        return self._current(now, key) is not None

    def _current(self, now: int, key: bytes) -> Packed | None:
        packed = self._view.get(key)
        if packed is None:
            return self._kv.current(now, self.ns, key)
        return packed if is_alive(packed, now) else None
