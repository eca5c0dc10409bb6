"""The events of the key–value machine (KIND 100–149). Instants are epoch ms; the version is the event's index."""

from __future__ import annotations

import msgspec

from flo.primitives.machine import Event


class KvPut(Event, frozen=True):
    KIND = 100
    ns: str
    key: bytes
    value: bytes
    expires_at: int  # 0: never


class KvIncremented(Event, frozen=True):
    KIND = 101
    ns: str
    key: bytes
    value: int  # after the addition
    expires_at: int


class KvDeleted(Event, frozen=True):
    KIND = 102
    ns: str
    key: bytes


class KvTouched(Event, frozen=True):
    """The expiry of the current version; the version itself stays."""

    KIND = 103
    ns: str
    key: bytes
    expires_at: int


class KvReaped(Event, frozen=True):
    """Keys that are gone with their whole history."""

    KIND = 104
    ns: str
    keys: tuple[bytes, ...]


class KvWrite(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a transaction leaves in one key: see flo.primitives.kv_entry for `flags` and `body`."""

    key: bytes
    flags: int
    body: bytes
    expires_at: int
    touched: bool  # only the expiry is new


class KvCommitted(Event, frozen=True):
    """A transaction: every key written by it has this event's index as its version."""

    KIND = 105
    ns: str
    writes: tuple[KvWrite, ...]


class KvForgotten(Event, frozen=True):
    """Memory pressure: these keys keep nothing but a live current version."""

    KIND = 106
    ns: str
    keys: tuple[bytes, ...]


class KvPlaced(Event, frozen=True):
    """Keys that were just written beside a routing key: `slot` is the hash's, modulo the number of partitions."""

    KIND = 107
    ns: str
    keys: tuple[bytes, ...]
    slot: int
