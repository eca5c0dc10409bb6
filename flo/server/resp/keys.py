"""Keys whatever they hold: existence, expiry, types, scans (spec/redis.md §2)."""

from __future__ import annotations

import threading
from typing import Final

from flo.grid.release import unknown_outcome
from flo.grid.store import Store
from flo.log.errors import LogError
from flo.primitives.kv_rules import SCAN_LIMIT, SCAN_LIMIT_DEFAULT
from flo.primitives.machine import Refused
from flo.server.resp.arguments import INTEGER_MAX, whole
from flo.server.resp.client import Client
from flo.server.resp.glob import PATTERN_BYTES, Glob
from flo.server.resp.replies import (
    EMPTY_ARRAY,
    ONE,
    SYNTAX,
    ZERO,
    Reject,
    bulk,
    bulks,
    error,
    integer,
    shown,
)

CURSOR_DIGITS: Final = 20
KEYS_AT_ONCE: Final = 4 * SCAN_LIMIT  # KEYS answers so many within its turn; a longer walk goes on in a thread

MISSING: Final = b":-2\r\n"
FOR_EVER: Final = b":-1\r\n"


def delete(client: Client, store: Store, args: list[bytes]) -> bytes:
    ns = client.ns
    found = [key for key in dict.fromkeys(args[1:]) if store.exists(ns, key)]
    for key in found:
        store.delete(ns, key)
    return integer(len(found))


def exists(client: Client, store: Store, args: list[bytes]) -> bytes:
    ns = client.ns
    return integer(sum([store.exists(ns, key) for key in args[1:]]))


def kind(client: Client, store: Store, args: list[bytes]) -> bytes:
    """TYPE. A key, a queue and a stream of one name are three things: the first that is there is told."""
    if store.exists(client.ns, args[1]):
        return b"+string\r\n"
    try:
        name = args[1].decode()
    except UnicodeDecodeError:
        return b"+none\r\n"
    if store.queue_stats(client.ns, name) is not None:
        return b"+list\r\n"
    if store.stream_info(client.ns, name) is not None:
        return b"+stream\r\n"
    return b"+none\r\n"


def dbsize(client: Client, store: Store, args: list[bytes]) -> bytes:
    return integer(store.key_count(client.ns))


# -- expiry


def expire(client: Client, store: Store, args: list[bytes]) -> bytes:
    return _expire(client, store, args, 1_000, store.now, "expire")


def pexpire(client: Client, store: Store, args: list[bytes]) -> bytes:
    return _expire(client, store, args, 1, store.now, "pexpire")


def expireat(client: Client, store: Store, args: list[bytes]) -> bytes:
    return _expire(client, store, args, 1_000, 0, "expireat")


def pexpireat(client: Client, store: Store, args: list[bytes]) -> bytes:
    return _expire(client, store, args, 1, 0, "pexpireat")


def _expire(client: Client, store: Store, args: list[bytes], unit_ms: int, begin: int, command: str) -> bytes:
    instant = whole(args[2]) * unit_ms + begin
    if abs(instant) > INTEGER_MAX:
        return error(f"invalid expire time in '{command}' command")
    options = {option.upper() for option in args[3:]}
    unknown = options - {b"NX", b"XX", b"GT", b"LT"}
    if unknown:
        return error(f"Unsupported option {shown(min(unknown))}")
    if b"NX" in options and len(options) > 1:
        return error("NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in options and b"LT" in options:
        return error("GT and LT options at the same time are not compatible")
    entry = store.get(client.ns, args[1])
    if entry is None:
        return ZERO
    current = entry.expires_at
    if (
        (b"NX" in options and current)
        or (b"XX" in options and not current)
        or (b"GT" in options and (not current or instant <= current))
        or (b"LT" in options and current and instant >= current)
    ):
        return ZERO
    if instant <= store.now:
        store.delete(client.ns, args[1])
    else:
        store.touch(client.ns, args[1], instant - store.now)
    return ONE


def persist(client: Client, store: Store, args: list[bytes]) -> bytes:
    entry = store.get(client.ns, args[1])
    if entry is None or not entry.expires_at:
        return ZERO
    store.persist(client.ns, args[1])
    return ONE


def ttl(client: Client, store: Store, args: list[bytes]) -> bytes:
    return _left(client, store, args[1], 1_000, store.now)


def pttl(client: Client, store: Store, args: list[bytes]) -> bytes:
    return _left(client, store, args[1], 1, store.now)


def expiretime(client: Client, store: Store, args: list[bytes]) -> bytes:
    return _left(client, store, args[1], 1_000, 0)


def pexpiretime(client: Client, store: Store, args: list[bytes]) -> bytes:
    return _left(client, store, args[1], 1, 0)


def _left(client: Client, store: Store, key: bytes, unit_ms: int, begin: int) -> bytes:
    """From `begin` to the expiry, in units that are rounded up."""
    entry = store.get(client.ns, key)
    if entry is None:
        return MISSING
    if not entry.expires_at:
        return FOR_EVER
    return integer(-((begin - entry.expires_at) // unit_ms))


# -- scans


def scan(client: Client, store: Store, args: list[bytes]) -> bytes:
    number = args[1]
    if not number.isdigit() or len(number) > CURSOR_DIGITS:
        return error("invalid cursor")
    pattern: bytes | None = None
    count = SCAN_LIMIT_DEFAULT
    only_strings = True
    at = 2
    while at < len(args):
        option = args[at].upper()
        if at + 1 == len(args):
            return SYNTAX
        value = args[at + 1]
        if option == b"MATCH":
            pattern = value
        elif option == b"COUNT":
            count = whole(value)
            if count < 1:
                return SYNTAX
        elif option == b"TYPE":
            only_strings = value.lower() == b"string"
        else:
            return SYNTAX
        at += 2
    cursors = client.shared.cursors
    position = cursors.find(store.now, client.ns, int(number)) if int(number) else ""
    if position is None:
        return error("invalid cursor")
    glob = _glob(b"*" if pattern is None else pattern)
    if not only_strings:  # queues and streams are no keys
        return b"*2\r\n$1\r\n0\r\n*0\r\n"
    if glob.literal:
        return b"*2\r\n$1\r\n0\r\n" + _one_key(client, store, glob.prefix)
    page = store.scan(client.ns, glob.prefix, min(count, SCAN_LIMIT), position, keys_only=True)
    following = cursors.give(store.now, client.ns, page.cursor) if page.has_more else 0
    found = [row.key for row in page.rows if glob.matches(row.key)]
    return b"*2\r\n%b%b" % (bulk(b"%d" % following), bulks(found))


def keys(client: Client, store: Store, args: list[bytes]) -> bytes | None:
    glob = _glob(args[1])
    if glob.literal:
        return _one_key(client, store, glob.prefix)
    found: list[bytes] = []
    walked = 0
    cursor = ""
    while walked < KEYS_AT_ONCE:
        page = store.scan(client.ns, glob.prefix, SCAN_LIMIT, cursor, keys_only=True)
        found += [row.key for row in page.rows if glob.matches(row.key)]
        if not page.has_more:
            return bulks(found)
        walked += len(page.rows)
        cursor = page.cursor
    ns = client.ns
    client.load(0, lambda: _keys_from(store, ns, glob, found, cursor))
    return None


def _keys_from(store: Store, ns: str, glob: Glob, found: list[bytes], cursor: str) -> bytes:
    """The rest of a long walk, in a thread: page by page, so that others are served in between."""
    more = True
    while more:
        with store.lock:
            store.begin()
            try:
                page = store.scan(ns, glob.prefix, SCAN_LIMIT, cursor, keys_only=True)
            finally:
                index = store.end()
        found += [row.key for row in page.rows if glob.matches(row.key)]
        cursor = page.cursor
        more = page.has_more
    store.after()
    _until_durable(store, index)
    return bulks(found)


def _until_durable(store: Store, index: int) -> None:
    """What was read may rest on what the disk does not have yet. Raises Unavailable when it never will."""
    done = threading.Event()
    lost: list[LogError] = []

    def give_up(fault: LogError) -> None:
        lost.append(fault)
        done.set()

    with store.lock:
        store.releases.after(index, done.set, give_up)
    done.wait()
    if lost:
        raise unknown_outcome(lost[0])


def _glob(pattern: bytes) -> Glob:
    if len(pattern) > PATTERN_BYTES:
        raise Reject(error(f"pattern over {PATTERN_BYTES} bytes"))
    return Glob(pattern)


def _one_key(client: Client, store: Store, key: bytes) -> bytes:
    """The keys that a pattern without wildcards names: one or none."""
    try:
        there = store.exists(client.ns, key)
    except Refused:  # no name of a key, or a reserved one, which no scan shows
        return EMPTY_ARRAY
    return bulks([key]) if there else EMPTY_ARRAY
