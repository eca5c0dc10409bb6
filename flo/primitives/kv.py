"""The key–value machine: values with versions, expiry, counters and history, by namespace.

The version of a mutation is the log index of its event, so whoever decided it knows it: the `index` that
was passed in. Reads take the time, hide what has expired at it, and change nothing. A namespace begins with
the first write into it.

`decide_…` methods return the event, or raise `Refused` with the text of the specification; `details` holds
`current_version` where a condition failed, and `code` where a surface needs a finer code than the kind.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import msgspec

from flo.primitives import kv_json
from flo.primitives.kv_deadlines import Deadlines
from flo.primitives.kv_entry import (
    COUNTER,
    EXPIRES,
    TOMBSTONE,
    Packed,
    as_entry,
    as_row,
    as_version,
    expiry,
    is_alive,
    pack_counter,
    pack_header,
    reap_at,
    shown,
    shown_size,
    stamp,
    stamped,
    version_of,
    with_expiry,
)
from flo.primitives.kv_events import (
    KvCommitted,
    KvDeleted,
    KvForgotten,
    KvIncremented,
    KvPlaced,
    KvPut,
    KvReaped,
    KvTouched,
)
from flo.primitives.kv_pages import Entry, Found, JsonNode, Many, Page, Row, Version
from flo.primitives.kv_put import put_head, put_payload
from flo.primitives.kv_rules import (
    DEFAULT_NAMESPACE,
    HISTORY_LIMIT_DEFAULT,
    HISTORY_VERSIONS,
    MGET_KEYS,
    PAGE_BYTES,
    SCAN_LIMIT,
    SCAN_LIMIT_DEFAULT,
    UNDERSCORE,
    VALUE_BYTES,
    check_key,
    check_match,
    check_namespace,
    check_value,
    check_version,
    expiry_instant,
    is_reserved,
    put_expiry,
    reserved_key,
    sum_and_expiry,
)
from flo.primitives.kv_txn import TxnOp, committed
from flo.primitives.machine import Event, Refused
from flo.primitives.sorted_keys import SortedKeys

REAP_KEYS: Final = 1_000  # of one event, and of one call of `due`
REAP_BYTES: Final = 256 * 1024  # of keys in one event
LOOKS: Final = 4_096  # slots that one call of `due` looks at
DUMP_VERSION: Final = 2  # 1 had no placements
ENTRY_BYTES: Final = 180  # memory of a key besides its bytes, about
VERSION_BYTES: Final = 50  # of an earlier version besides its bytes

_encode = msgspec.msgpack.Encoder().encode
_Tables = list[tuple[str, list[bytes], list[Packed], dict[bytes, list[Packed]], dict[bytes, int]]]
_Tables1 = list[tuple[str, list[bytes], list[Packed], dict[bytes, list[Packed]]]]
_decode = msgspec.msgpack.Decoder(_Tables).decode
_decode1 = msgspec.msgpack.Decoder(_Tables1).decode


class Table:
    """One namespace. `older` holds, oldest first, the earlier versions of keys that have any, `placed` the slots of
    keys that do not lie where their own hash says."""

    __slots__ = ("entries", "head", "keys", "older", "placed", "tombstones")

    def __init__(self, ns: str) -> None:
        self.head = put_head(ns)
        self.entries: dict[bytes, Packed] = {}
        self.older: dict[bytes, list[Packed]] = {}
        self.placed: dict[bytes, int] = {}
        self.keys = SortedKeys()
        self.tombstones = 0


class KV:
    name: ClassVar[str] = "kv"
    events: ClassVar[dict[tuple[int, int], type[Event]]] = {
        (event.KIND, event.VERSION): event
        for event in (KvPut, KvIncremented, KvDeleted, KvTouched, KvReaped, KvCommitted, KvForgotten, KvPlaced)
    }

    def __init__(self, *, expose_internal_keys: bool = False) -> None:
        self._tables: dict[str, Table] = {DEFAULT_NAMESPACE: Table(DEFAULT_NAMESPACE)}
        self._deadlines = Deadlines()
        self._deadlines_max = LOOKS
        self._expose = expose_internal_keys
        self._recent_ns = DEFAULT_NAMESPACE
        self._recent: Table | None = None  # the table of that name, which is asked for again and again
        self._stamped_at = 0
        self._stamped_versions = 0
        self._stamp = stamp(0, 0)  # of what is put at that time with those versions
        self.bytes = 0  # memory held, about

    # -- decisions

    def decide_put(
        self,
        now: int,
        index: int,
        ns: str,
        key: bytes,
        value: bytes,
        *,
        ttl_ms: int = 0,
        nx: bool = False,
        xx: bool = False,
        cas: int | None = None,
        keep_ttl: bool = False,
    ) -> KvPut:
        """The put version is `index`. `cas` 0 means: the key must be absent."""
        current = self._for_write(now, ns, key)
        check_value(value)
        return KvPut(ns, key, value, put_expiry(current, now, ttl_ms, nx, xx, cas, keep_ttl))

    def decide_incr(self, now: int, index: int, ns: str, key: bytes, delta: int = 1) -> KvIncremented:
        """`value` of the event is the counter after the addition. Keeps the key's expiry."""
        total, expires_at = sum_and_expiry(self._for_write(now, ns, key), delta)
        return KvIncremented(ns, key, total, expires_at)

    def decide_delete(self, now: int, index: int, ns: str, key: bytes, *, if_match: int | None = None) -> KvDeleted:
        """The tombstone's version is `index`. An absent key is refused as not_found."""
        check_match(self._for_write(now, ns, key), if_match)
        return KvDeleted(ns, key)

    def decide_touch(
        self, now: int, index: int, ns: str, key: bytes, ttl_ms: int, *, if_match: int | None = None
    ) -> KvTouched:
        """The key expires `ttl_ms` from now; 0: never. The version stays."""
        current = self._for_write(now, ns, key)
        expires_at = expiry_instant(now, ttl_ms)
        check_match(current, if_match)
        return KvTouched(ns, key, expires_at)

    def decide_append(self, now: int, index: int, ns: str, key: bytes, value: bytes) -> KvPut:
        """Puts `value` behind what is there; the expiry stays. A counter becomes its text."""
        current = self._for_write(now, ns, key)
        if current is None:
            check_value(value)
            return KvPut(ns, key, value, 0)
        whole = shown(current) + value
        check_value(whole)
        return KvPut(ns, key, whole, expiry(current) if current[0] & EXPIRES else 0)

    def decide_place(self, ns: str, keys: Sequence[bytes], slot: int, own: Callable[[bytes], int]) -> KvPlaced | None:
        """Which of these keys, about to be written, lie elsewhere than before; `own` gives the slot of a key's hash."""
        table = self._tables.get(ns)
        placed = table.placed if table is not None else {}
        moved = tuple(key for key in keys if placed.get(key, own(key)) != slot)
        return KvPlaced(ns, moved, slot) if moved else None

    def decide_persist(self, now: int, index: int, ns: str, key: bytes, *, if_match: int | None = None) -> KvTouched:
        return self.decide_touch(now, index, ns, key, 0, if_match=if_match)

    def decide_jset(
        self,
        now: int,
        index: int,
        ns: str,
        key: bytes,
        path: str,
        json: bytes,
        *,
        ttl_ms: int = 0,
        cas: int | None = None,
    ) -> KvPut:
        """Sets one node of a JSON document; the rest of it keeps its text. Keeps the expiry unless a ttl is given."""
        steps = kv_json.parse_path(path)
        node = kv_json.parse_value(json)
        current = self._for_write(now, ns, key)
        expires_at = put_expiry(current, now, ttl_ms, False, False, cas, not ttl_ms)
        if not steps:
            document: bytes | None = node
        else:
            document = None if current is None else kv_json.replaced(shown(current), steps, node)
        if document is None:
            raise Refused("not_found", "key not found" if current is None else "json path not found")
        check_value(document)
        return KvPut(ns, key, document, expires_at)

    def decide_jdel(
        self, now: int, index: int, ns: str, key: bytes, path: str = "$", *, cas: int | None = None
    ) -> KvPut | KvDeleted:
        """Removes one node of a JSON document, or the key when the path is `$`."""
        steps = kv_json.parse_path(path)
        current = self._for_write(now, ns, key)
        if cas is not None:
            check_version(current, cas)
        if current is None:
            raise Refused("not_found", "key not found")
        if not steps:
            return KvDeleted(ns, key)
        document = kv_json.replaced(shown(current), steps, None)
        if document is None:
            raise Refused("not_found", "json path not found")
        return KvPut(ns, key, document, expiry(current) if current[0] & EXPIRES else 0)

    def decide_commit(self, now: int, index: int, ns: str, ops: Sequence[TxnOp]) -> KvCommitted | None:
        """Runs the ops of a transaction in order on what is committed; every key written gets `index` as its
        version. None when there is nothing to write. If one op fails all are refused, as a conflict."""
        return committed(lambda key: self._for_write(now, ns, key), now, ns, ops)

    def decide_forget(self, now: int, index: int, ns: str, limit: int = REAP_KEYS) -> KvForgotten | None:
        """Memory pressure: the next keys of a namespace that keep more than a live value. None when none do."""
        table = self._tables.get(ns)
        if table is None:
            return None
        keys = [key for key, _ in zip(table.older, range(limit), strict=False)]
        return KvForgotten(ns, tuple(keys)) if keys else None

    # -- reads

    def get(self, now: int, ns: str, key: bytes) -> Entry | None:
        table = self._table(ns)
        packed = table.entries.get(key) if table is not None else None
        if packed is None:
            self._check_absent(ns, key)
            return None
        if key[0] == UNDERSCORE and not self._expose and is_reserved(key):
            raise reserved_key()
        return as_entry(packed) if packed[0] < TOMBSTONE or is_alive(packed, now) else None

    def exists(self, now: int, ns: str, key: bytes) -> bool:
        packed = self._for_read(ns, key)
        return packed is not None and is_alive(packed, now)

    def mget(self, now: int, ns: str, keys: Sequence[bytes]) -> Many:
        """One entry per key, in order; those that would pass 1 MiB are left off from the end."""
        if not keys:
            raise Refused("bad_argument", "mget: zero keys")
        if len(keys) > MGET_KEYS:
            raise Refused("bad_argument", f"mget: too many keys (max {MGET_KEYS})")
        check_namespace(ns)
        if not self._expose and any(is_reserved(key) for key in keys):
            raise reserved_key()
        table = self._tables.get(ns)
        found: list[Found] = []
        room = PAGE_BYTES
        for key in keys:
            packed = table.entries.get(key) if table is not None else None
            if packed is None or not is_alive(packed, now):
                one = Found(key, False, 0, b"")
            else:
                one = Found(key, True, version_of(packed), shown(packed))
            room -= len(key) + len(one.value)
            if room < 0:
                return Many(found, True)
            found.append(one)
        return Many(found, False)

    def scan(
        self,
        now: int,
        ns: str,
        prefix: bytes = b"",
        limit: int = SCAN_LIMIT_DEFAULT,
        cursor: str = "",
        keys_only: bool = False,
    ) -> Page:
        """The next keys with the prefix in the order of their bytes; `cursor` is that of the page before, or ""."""
        check_namespace(ns)
        if not self._expose and is_reserved(prefix):
            raise reserved_key()
        last = _read_cursor(cursor) if cursor else b""
        if limit <= 0:
            limit = SCAN_LIMIT_DEFAULT
        limit = min(limit, SCAN_LIMIT)
        rows: list[Row] = []
        table = self._tables.get(ns)
        if table is None:
            return Page(rows, False, "")
        room = PAGE_BYTES
        entries = table.entries
        for keys in table.keys.lists(max(prefix, last), beyond=last >= prefix and last != b""):
            for key in keys:
                if not key.startswith(prefix):
                    return Page(rows, False, "")
                packed = entries[key]
                if packed[0] >= TOMBSTONE and not is_alive(packed, now):
                    continue
                if key[0] == UNDERSCORE and not self._expose and is_reserved(key):
                    continue
                room -= len(key) + (0 if keys_only else shown_size(packed))
                if len(rows) == limit or (room < 0 and rows):
                    return Page(rows, True, _cursor(rows[-1].key))
                rows.append(as_row(key, packed, keys_only))
        return Page(rows, False, "")

    def history(self, now: int, ns: str, key: bytes, limit: int = HISTORY_LIMIT_DEFAULT) -> list[Version]:
        """Newest first, tombstones and expired versions included; empty for a key never written, or reaped."""
        packed = self._for_read(ns, key)
        if packed is None:
            return []
        limit = min(limit if limit > 0 else HISTORY_LIMIT_DEFAULT, HISTORY_VERSIONS)
        older = self._tables[ns].older.get(key, [])
        return [as_version(packed), *(as_version(v) for v in reversed(older))][:limit]

    def version(self, now: int, ns: str, key: bytes, version: int) -> Version | None:
        """One version, while it is in the chain."""
        packed = self._for_read(ns, key)
        if packed is None:
            return None
        for candidate in (packed, *self._tables[ns].older.get(key, ())):
            if version_of(candidate) == version:
                return as_version(candidate)
        return None

    def version_count(self, ns: str, key: bytes) -> int:
        packed = self._for_read(ns, key)
        return 0 if packed is None else 1 + len(self._tables[ns].older.get(key, ()))

    def jget(self, now: int, ns: str, key: bytes, path: str = "$") -> JsonNode | None:
        """The text of one node and the document's version; None when the key or the node is missing."""
        steps = kv_json.parse_path(path)
        packed = self._for_read(ns, key)
        if packed is None or not is_alive(packed, now):
            return None
        node = kv_json.found(shown(packed), steps)
        return None if node is None else JsonNode(node, version_of(packed))

    def current(self, now: int, ns: str, key: bytes) -> Packed | None:
        """The live version as it is kept, for transactions that look before they commit."""
        packed = self._for_read(ns, key)
        return packed if packed is not None and is_alive(packed, now) else None

    def latest(self, ns: str, key: bytes) -> int:
        """The newest version, a tombstone's too; 0 when the key is not known."""
        packed = self._for_read(ns, key)
        return 0 if packed is None else version_of(packed)

    def slot(self, ns: str, key: bytes) -> int | None:
        """Where the key lies, None: where its own hash says."""
        table = self._tables.get(ns)
        return None if table is None else table.placed.get(key)

    def namespaces(self) -> list[str]:
        return sorted(self._tables)

    def key_count(self, ns: str) -> int:
        """Keys that are not deleted; those included that have expired within the last ten minutes."""
        table = self._tables.get(ns)
        return 0 if table is None else len(table.entries) - table.tombstones

    def drop_namespace(self, ns: str) -> None:
        table = self._tables.pop(ns, None)
        self._recent = None
        if table is not None:
            self.bytes -= table_bytes(table)

    # -- events

    def put(self, now: int, index: int, ns: str, key: bytes, value: bytes) -> bytes:
        """`decide_put` without conditions and `apply` of its event in one, for it is the commonest command of all;
        returns the event as the log holds it, or nothing when the namespace is new. Raises Refused. When it does, or
        returns nothing, nothing has changed."""
        table = self._table(ns)
        if table is None:
            return b""
        old = table.entries.get(key)
        if old is None:
            check_key(ns, key)
        if key[0] == UNDERSCORE and not self._expose and is_reserved(key):
            raise reserved_key()
        if len(value) > VALUE_BYTES:
            check_value(value)
        versions = index >> 8
        if now != self._stamped_at or versions != self._stamped_versions:
            self._stamp = stamp(now, index)
            self._stamped_at = now
            self._stamped_versions = versions
        payload = put_payload(table.head, key, value)
        self._keep(ns, table, key, old, stamped(index, self._stamp, value), now)
        return payload

    def apply(self, event: Event, index: int, now: int) -> None:
        kind = type(event)
        if kind is KvIncremented:
            assert isinstance(event, KvIncremented)
            at = event.expires_at
            flags = COUNTER | EXPIRES if at else COUNTER
            self._write(event.ns, event.key, pack_counter(flags, index, now, at, event.value), now)
        elif kind is KvPut:
            assert isinstance(event, KvPut)
            at = event.expires_at
            header: bytes = pack_header(EXPIRES if at else 0, index, now, at)
            self._write(event.ns, event.key, header + event.value, now)
        elif kind is KvDeleted:
            assert isinstance(event, KvDeleted)
            self._write(event.ns, event.key, pack_header(TOMBSTONE, index, now, 0), now)
        elif kind is KvTouched:
            assert isinstance(event, KvTouched)
            self._touch(event.ns, event.key, event.expires_at, now)
        elif kind is KvCommitted:
            assert isinstance(event, KvCommitted)
            for write in event.writes:
                if write.touched:
                    self._touch(event.ns, write.key, write.expires_at, now)
                else:
                    header = pack_header(write.flags, index, now, write.expires_at)
                    self._write(event.ns, write.key, header + write.body, now)
        elif kind is KvReaped:
            assert isinstance(event, KvReaped)
            self._remove(event.ns, event.keys)
        elif kind is KvForgotten:
            assert isinstance(event, KvForgotten)
            self._forget(event.ns, event.keys, now)
        elif kind is KvPlaced:
            assert isinstance(event, KvPlaced)
            self._place(event.ns, event.keys, event.slot)
        else:
            raise AssertionError(f"not an event of kv: {event!r}")

    def next_due(self) -> int | None:
        """May be too early (then `due` finds nothing), never too late by more than a second."""
        return self._deadlines.next()

    def due(self, now: int, index: int) -> list[Event]:
        """Keys deleted or expired for ten minutes go, with their history."""
        found: dict[str, dict[bytes, int]] = {}
        early: list[tuple[int, str, bytes]] = []
        count = 0
        room = REAP_BYTES
        for _ in range(LOOKS):
            slot = self._deadlines.take(now)
            if slot is None:
                break
            ns, key = slot
            packed = self._tables[ns].entries.get(key) if ns in self._tables else None
            instant = reap_at(packed) if packed is not None else 0
            if instant > now:
                early.append((instant, ns, key))
            elif instant:
                keys = found.setdefault(ns, {})
                if key not in keys:
                    keys[key] = instant
                    count += 1
                    room -= len(key)
                    if count == REAP_KEYS or room < 0:
                        break
        for instant, ns, key in early:
            self._deadlines.add(now, instant, ns, key)
        # Deciding changes nothing: these keep their slots until the event is applied.
        for ns, keys in found.items():
            for key, instant in keys.items():
                self._deadlines.add(now, instant, ns, key)
        return [KvReaped(ns, tuple(keys)) for ns, keys in found.items()]

    # -- snapshots

    def dump(self) -> bytes:
        tables: _Tables = []
        for ns in sorted(self._tables):
            table = self._tables[ns]
            keys = table.keys.all()
            entries = table.entries
            older = {key: table.older[key] for key in sorted(table.older)}
            placed = {key: table.placed[key] for key in sorted(table.placed)}
            tables.append((ns, keys, [entries[key] for key in keys], older, placed))
        return bytes([DUMP_VERSION]) + _encode(tables)

    def load(self, data: bytes) -> None:
        if data[:1] == b"\x01":
            sections: _Tables = [(*section, {}) for section in _decode1(memoryview(data)[1:])]
        elif data[:1] == bytes([DUMP_VERSION]):
            sections = _decode(memoryview(data)[1:])
        else:
            raise ValueError(f"kv snapshot of version {data[0] if data else None}; this release reads {DUMP_VERSION}")
        tables: dict[str, Table] = {}
        for ns, keys, entries, older, placed in sections:
            table = tables[ns] = Table(ns)
            table.entries = dict(zip(keys, entries, strict=True))
            table.older = older
            table.placed = placed
            table.keys = SortedKeys(keys)
        self._tables = tables
        self._recent = None
        self.bytes = sum(table_bytes(table) for table in tables.values())
        self._index_deadlines(0)

    # -- within

    def _table(self, ns: str) -> Table | None:
        if ns is self._recent_ns and self._recent is not None:
            return self._recent
        table = self._tables.get(ns)
        if table is not None:
            self._recent_ns = ns
            self._recent = table
        return table

    def _check_absent(self, ns: str, key: bytes) -> None:
        """A key that is not there may have a name that no key can have."""
        if self._table(ns) is None:
            check_namespace(ns)
        check_key(ns, key)
        if key[0] == UNDERSCORE and not self._expose and is_reserved(key):
            raise reserved_key()

    def _for_read(self, ns: str, key: bytes) -> Packed | None:
        table = self._table(ns)
        packed = table.entries.get(key) if table is not None else None
        if packed is None:
            self._check_absent(ns, key)
        elif key[0] == UNDERSCORE and not self._expose and is_reserved(key):
            raise reserved_key()
        return packed

    def _for_write(self, now: int, ns: str, key: bytes) -> Packed | None:
        """The key's live version, if any; refuses a name that no write may have."""
        table = self._table(ns)
        packed = table.entries.get(key) if table is not None else None
        if packed is None:
            self._check_absent(ns, key)
        elif key[0] == UNDERSCORE and not self._expose and is_reserved(key):
            raise reserved_key()
        if packed is not None and packed[0] >= TOMBSTONE and not is_alive(packed, now):
            return None
        return packed

    def _write(self, ns: str, key: bytes, packed: Packed, now: int) -> None:
        table = self._tables.get(ns)
        if table is None:
            table = self._tables[ns] = Table(ns)
        self._keep(ns, table, key, table.entries.get(key), packed, now)

    def _keep(self, ns: str, table: Table, key: bytes, old: Packed | None, packed: Packed, now: int) -> None:
        table.entries[key] = packed
        if old is None:
            table.keys.add(key)
            self.bytes += len(key) + len(packed) + ENTRY_BYTES
        else:
            self.bytes += len(packed) + VERSION_BYTES
            if old[0] & TOMBSTONE:
                table.tombstones -= 1
            older = table.older.get(key)
            if older is None:
                table.older[key] = [old]
            else:
                older.append(old)
                if len(older) >= HISTORY_VERSIONS:
                    self.bytes -= len(older[0]) + VERSION_BYTES
                    del older[0]
        if packed[0] >= TOMBSTONE:
            if packed[0] & TOMBSTONE:
                table.tombstones += 1
            self._schedule(ns, key, old, packed, now)

    def _place(self, ns: str, keys: Sequence[bytes], slot: int) -> None:
        table = self._tables.get(ns)
        if table is not None:
            for key in keys:
                if key in table.entries:
                    table.placed[key] = slot

    def _touch(self, ns: str, key: bytes, expires_at: int, now: int) -> None:
        table = self._tables.get(ns)
        old = table.entries.get(key) if table is not None else None
        if table is None or old is None:
            return
        packed = with_expiry(old, expires_at)
        table.entries[key] = packed
        self._schedule(ns, key, old, packed, now)

    def _schedule(self, ns: str, key: bytes, old: Packed | None, packed: Packed, now: int) -> None:
        instant = reap_at(packed)
        if not instant:
            return
        before = reap_at(old) if old is not None else 0
        if before and before <= instant:
            return  # the slot there is comes first, and will be moved on
        self._deadlines.add(now, instant, ns, key)
        if self._deadlines.size > self._deadlines_max:
            self._index_deadlines(now)

    def _index_deadlines(self, now: int) -> None:
        """One slot per key again. The pushes since the last time pay for it."""
        deadlines = self._deadlines = Deadlines()
        for ns, table in self._tables.items():
            table.tombstones = 0
            for key, packed in table.entries.items():
                if packed[0] >= TOMBSTONE:
                    deadlines.add(now, reap_at(packed), ns, key)
                    if packed[0] & TOMBSTONE:
                        table.tombstones += 1
        self._deadlines_max = 2 * deadlines.size + LOOKS

    def _remove(self, ns: str, keys: Sequence[bytes]) -> None:
        table = self._tables.get(ns)
        if table is None:
            return
        for key in keys:
            packed = table.entries.pop(key, None)
            if packed is not None:
                self.bytes -= len(key) + len(packed) + ENTRY_BYTES + versions_bytes(table.older.pop(key, None))
                if packed[0] & TOMBSTONE:
                    table.tombstones -= 1
                table.placed.pop(key, None)
                table.keys.remove(key)

    def _forget(self, ns: str, keys: Sequence[bytes], now: int) -> None:
        table = self._tables.get(ns)
        if table is None:
            return
        for key in keys:
            self.bytes -= versions_bytes(table.older.pop(key, None))
        self._remove(ns, [key for key in keys if key in table.entries and table.entries[key][0] & TOMBSTONE])


def versions_bytes(versions: list[Packed] | None) -> int:
    return 0 if versions is None else sum(len(packed) + VERSION_BYTES for packed in versions)


def table_bytes(table: Table) -> int:
    entries = sum(len(key) + len(packed) for key, packed in table.entries.items())
    return entries + ENTRY_BYTES * len(table.entries) + sum(map(versions_bytes, table.older.values()))


def _cursor(key: bytes) -> str:
    return urlsafe_b64encode(b"\x01" + key).decode()


def _read_cursor(cursor: str) -> bytes:
    try:
        data = urlsafe_b64decode(cursor.encode())
    except (ValueError, Base64Error):
        data = b""
    if len(data) < 2 or data[0] != 1 or _cursor(data[1:]) != cursor:
        raise Refused("bad_argument", "invalid cursor")
    return data[1:]
