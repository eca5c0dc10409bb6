"""JSON documents in keys, by path (spec/kv.md §10)."""

from __future__ import annotations

from flo.grid.store import Store
from flo.primitives.machine import Refused
from flo.server.resp.client import Client
from flo.server.resp.replies import OK, ONE, SYNTAX, ZERO, bulk

ROOT = "$"


def jget(client: Client, store: Store, args: list[bytes]) -> bytes:
    node = store.jget(client.ns, args[1], _path(args[2]) if len(args) > 2 else ROOT)
    return client.nil if node is None else bulk(node.json)


def jset(client: Client, store: Store, args: list[bytes]) -> bytes:
    key, path = args[1], _path(args[2])
    if len(args) > 4:
        condition = args[4].upper()
        if condition not in (b"NX", b"XX"):
            return SYNTAX
        if path == ROOT:
            there = store.exists(client.ns, key)
        else:
            there = store.jget(client.ns, key, path) is not None
        if there == (condition == b"NX"):
            return client.nil
    store.jset(client.ns, key, path, args[3])
    return OK


def jdel(client: Client, store: Store, args: list[bytes]) -> bytes:
    try:
        store.jdel(client.ns, args[1], _path(args[2]) if len(args) > 2 else ROOT)
    except Refused as refused:
        if refused.kind != "not_found":
            raise
        return ZERO
    return ONE


def _path(raw: bytes) -> str:
    """What is no UTF-8 is no path either: it is refused like any other bad one."""
    return raw.decode("utf-8", "replace")
