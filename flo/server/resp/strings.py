"""Strings and counters: keys of the key–value store (spec/redis.md §2)."""

from __future__ import annotations

from typing import Final

from flo.grid.store import Store
from flo.primitives.kv_rules import MGET_KEYS
from flo.primitives.machine import Refused
from flo.server.resp.arguments import INTEGER_MAX, INTEGER_MIN, whole
from flo.server.resp.client import Client
from flo.server.resp.replies import (
    OK,
    ONE,
    OVERFLOW,
    SYNTAX,
    ZERO,
    Reject,
    array,
    bulk,
    error,
    integer,
    wrong_count,
)

MGET_BYTES: Final = 16 * 1024 * 1024  # of values in one reply
MS_OF: Final = {b"EX": 1_000, b"PX": 1, b"EXAT": 1_000, b"PXAT": 1}
ABSOLUTE: Final = frozenset({b"EXAT", b"PXAT"})


def get(client: Client, store: Store, args: list[bytes]) -> bytes:
    entry = store.get(client.ns, args[1])
    return client.nil if entry is None else bulk(entry.value)


def put(client: Client, store: Store, args: list[bytes]) -> bytes:
    if len(args) > 3:
        return _put_with_options(client, store, args)
    store.put(client.ns, args[1], args[2])
    return OK


def _put_with_options(client: Client, store: Store, args: list[bytes]) -> bytes:
    nx = xx = keep = wants_old = False
    expiry = b""
    amount = b""
    at = 3
    while at < len(args):
        option = args[at].upper()
        if option == b"NX" and not xx:
            nx = True
        elif option == b"XX" and not nx:
            xx = True
        elif option == b"GET":
            wants_old = True
        elif option == b"KEEPTTL" and not expiry:
            keep = True
        elif option in MS_OF and not keep and not expiry and at + 1 < len(args):
            expiry = option
            at += 1
            amount = args[at]
        else:
            return SYNTAX
        at += 1
    key = args[1]
    expires_at = expiry_instant(store.now, amount, MS_OF[expiry], expiry in ABSOLUTE, "set") if expiry else 0
    entry = store.get(client.ns, key) if wants_old else None
    old = client.nil if entry is None else bulk(entry.value)
    try:
        if 0 < expires_at <= store.now:
            _put_expired(store, client.ns, key, args[2], nx, xx)
        else:
            ttl_ms = expires_at - store.now if expires_at else 0
            store.put(client.ns, key, args[2], ttl_ms=ttl_ms, nx=nx, xx=xx, keep_ttl=keep)
    except Refused as refused:
        if refused.kind != "conflict":
            raise
        return old if wants_old else client.nil
    return old if wants_old else OK


def _put_expired(store: Store, ns: str, key: bytes, value: bytes, nx: bool, xx: bool) -> None:
    """EXAT names an instant that is over: the key is set and gone at once."""
    store.put(ns, key, value, nx=nx, xx=xx)
    store.delete(ns, key)


def expiry_instant(now: int, raw: bytes, unit_ms: int, absolute: bool, command: str) -> int:
    """Epoch ms at which a key shall expire, later than 0. Raises Reject."""
    amount = whole(raw)
    instant = amount * unit_ms + (0 if absolute else now)
    if amount <= 0 or instant > INTEGER_MAX:
        raise Reject(error(f"invalid expire time in '{command}' command"))
    return instant


def setnx(client: Client, store: Store, args: list[bytes]) -> bytes:
    if store.exists(client.ns, args[1]):
        return ZERO
    store.put(client.ns, args[1], args[2])
    return ONE


def setex(client: Client, store: Store, args: list[bytes]) -> bytes:
    return _put_for(client, store, args, 1_000, "setex")


def psetex(client: Client, store: Store, args: list[bytes]) -> bytes:
    return _put_for(client, store, args, 1, "psetex")


def _put_for(client: Client, store: Store, args: list[bytes], unit_ms: int, command: str) -> bytes:
    instant = expiry_instant(store.now, args[2], unit_ms, False, command)
    store.put(client.ns, args[1], args[3], ttl_ms=instant - store.now)
    return OK


def getset(client: Client, store: Store, args: list[bytes]) -> bytes:
    entry = store.get(client.ns, args[1])
    store.put(client.ns, args[1], args[2])
    return client.nil if entry is None else bulk(entry.value)


def getdel(client: Client, store: Store, args: list[bytes]) -> bytes:
    entry = store.getdel(client.ns, args[1])
    return client.nil if entry is None else bulk(entry.value)


def append(client: Client, store: Store, args: list[bytes]) -> bytes:
    return integer(store.append(client.ns, args[1], args[2])[1])


def strlen(client: Client, store: Store, args: list[bytes]) -> bytes:
    entry = store.get(client.ns, args[1])
    return ZERO if entry is None else integer(len(entry.value))


def mget(client: Client, store: Store, args: list[bytes]) -> bytes:
    nil = client.nil
    parts: list[bytes] = []
    at = 1
    size = 0
    while at < len(args):
        entries = store.mget(client.ns, args[at : at + MGET_KEYS]).entries
        parts += [bulk(entry.value) if entry.found else nil for entry in entries]
        at += len(entries)
        size += sum([len(entry.value) for entry in entries])
        if size > MGET_BYTES:
            return error(f"the values have over {MGET_BYTES} bytes: ask for fewer keys")
    return array(parts)


def mset(client: Client, store: Store, args: list[bytes]) -> bytes:
    """One put after another: when one is refused, those before it stay."""
    if len(args) % 2 == 0:
        return wrong_count("mset")
    for at in range(1, len(args), 2):
        store.put(client.ns, args[at], args[at + 1])
    return OK


def incr(client: Client, store: Store, args: list[bytes]) -> bytes:
    return integer(store.incr(client.ns, args[1])[1])


def decr(client: Client, store: Store, args: list[bytes]) -> bytes:
    return integer(store.incr(client.ns, args[1], -1)[1])


def incrby(client: Client, store: Store, args: list[bytes]) -> bytes:
    return integer(store.incr(client.ns, args[1], whole(args[2]))[1])


def decrby(client: Client, store: Store, args: list[bytes]) -> bytes:
    amount = whole(args[2])
    if amount == INTEGER_MIN:
        return OVERFLOW
    return integer(store.incr(client.ns, args[1], -amount)[1])
