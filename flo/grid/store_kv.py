"""Operations on keys, and transactions of them (spec/kv.md)."""

from __future__ import annotations

from collections.abc import Sequence

from flo.grid.store_batch import Batches, Done, ParkedResult
from flo.primitives.kv_entry import EXPIRES
from flo.primitives.kv_pages import Entry, JsonNode, Many, Page, Version
from flo.primitives.kv_rules import HISTORY_LIMIT_DEFAULT, check_key, check_namespace
from flo.primitives.kv_txn import TxnDelete, TxnIncr, TxnOp, TxnPut, TxnTouch
from flo.primitives.machine import Refused


class KeyOperations(Batches):
    def put(
        self, ns: str, key: bytes, value: bytes, ttl_ms: int = 0, nx: bool = False, xx: bool = False,
        cas: int | None = None, keep_ttl: bool = False, txn: int = 0, routing_key: bytes = b"",
    ) -> int:  # fmt: skip
        """The version; 0 in a transaction."""
        if self._pressure.refuses:
            raise self._pressure.error()
        if txn:
            self._buffer(ns, txn, TxnPut(key, value, ttl_ms, nx, xx, cas, keep_ttl))
            return 0
        if not ttl_ms and not nx and not xx and cas is None and not keep_ttl and not routing_key:
            version = self._partition.put(ns, key, value)
            if version:
                return version
        self._check_namespace(ns)
        index = self._index_in(ns)
        event = self._kv.decide_put(
            self.now, index, ns, key, value, ttl_ms=ttl_ms, nx=nx, xx=xx, cas=cas, keep_ttl=keep_ttl
        )
        if routing_key:
            placed = self._kv.decide_place(
                ns, [key], self._transactions.slot_of(routing_key), self._transactions.slot_of
            )
            self._emit(ns, [event] if placed is None else [event, placed])
        else:
            self._emit(ns, (event,))
        return index

    def get(self, ns: str, key: bytes, txn: int = 0) -> Entry | None:
        if txn:
            found = self._transactions.find(self.now, ns, txn)
            self._transactions.check_place(self.now, self._kv, found, key)
            return found.buffer.get(self.now, key)
        return self._kv.get(self.now, ns, key)

    def delete(self, ns: str, key: bytes, *, if_match: int | None = None, txn: int = 0) -> int:
        """The tombstone's version; 0 in a transaction."""
        if txn:
            self._buffer(ns, txn, TxnDelete(key, if_match))
            return 0
        index = self._partition.next_index
        self._partition.emit([self._kv.decide_delete(self.now, index, ns, key, if_match=if_match)], self.now)
        return index

    def incr(self, ns: str, key: bytes, delta: int = 1, *, txn: int = 0) -> tuple[int, int]:
        """Version (0 in a transaction) and the counter after the addition."""
        self._admit()
        if txn:
            entry = self._buffer(ns, txn, TxnIncr(key, delta))
            assert entry is not None
            return 0, int(entry.value)
        self._check_namespace(ns)
        index = self._index_in(ns)
        event = self._kv.decide_incr(self.now, index, ns, key, delta)
        self._emit(ns, (event,))
        return index, event.value

    def touch(self, ns: str, key: bytes, ttl_ms: int, *, if_match: int | None = None, txn: int = 0) -> None:
        """The key expires `ttl_ms` from now; 0: never."""
        if txn:
            self._buffer(ns, txn, TxnTouch(key, ttl_ms, if_match))
            return
        index = self._partition.next_index
        self._partition.emit([self._kv.decide_touch(self.now, index, ns, key, ttl_ms, if_match=if_match)], self.now)

    def persist(self, ns: str, key: bytes, *, if_match: int | None = None, txn: int = 0) -> bool:
        """Removes the expiry; whether there was one."""
        had = False
        if not txn:
            current = self._kv.current(self.now, ns, key)
            had = current is not None and bool(current[0] & EXPIRES)
        self.touch(ns, key, 0, if_match=if_match, txn=txn)
        return had

    def exists(self, ns: str, key: bytes, *, txn: int = 0) -> bool:
        if txn:
            found = self._transactions.find(self.now, ns, txn)
            self._transactions.check_place(self.now, self._kv, found, key)
            return found.buffer.exists(self.now, key)
        return self._kv.exists(self.now, ns, key)

    def mget(self, ns: str, keys: Sequence[bytes]) -> Many:
        return self._kv.mget(self.now, ns, keys)

    def scan(self, ns: str, prefix: bytes = b"", limit: int = 0, cursor: str = "", keys_only: bool = False) -> Page:
        return self._kv.scan(self.now, ns, prefix, limit, cursor, keys_only)

    def history(self, ns: str, key: bytes, limit: int = HISTORY_LIMIT_DEFAULT) -> list[Version]:
        return self._kv.history(self.now, ns, key, limit)

    def version(self, ns: str, key: bytes, version: int) -> Version | None:
        return self._kv.version(self.now, ns, key, version)

    def latest(self, ns: str, key: bytes) -> int:
        """The newest version, a tombstone's too; 0 when there is none."""
        return self._kv.latest(ns, key)

    def jget(self, ns: str, key: bytes, path: str = "$") -> JsonNode | None:
        return self._kv.jget(self.now, ns, key, path)

    def jset(
        self, ns: str, key: bytes, path: str, json: bytes, *, ttl_ms: int = 0, cas: int | None = None
    ) -> int:  # fmt: skip
        """The version."""
        self._admit()
        self._check_namespace(ns)
        index = self._index_in(ns)
        self._emit(ns, [self._kv.decide_jset(self.now, index, ns, key, path, json, ttl_ms=ttl_ms, cas=cas)])
        return index

    def jdel(self, ns: str, key: bytes, path: str = "$", *, cas: int | None = None) -> int:
        """The version."""
        index = self._partition.next_index
        self._partition.emit([self._kv.decide_jdel(self.now, index, ns, key, path, cas=cas)], self.now)
        return index

    def append(self, ns: str, key: bytes, value: bytes) -> tuple[int, int]:
        """Puts `value` behind what is there; version and the length after it. The expiry stays."""
        self._admit()
        self._check_namespace(ns)
        index = self._index_in(ns)
        event = self._kv.decide_append(self.now, index, ns, key, value)
        self._emit(ns, [event])
        return index, len(event.value)

    def getdel(self, ns: str, key: bytes) -> Entry | None:
        """Deletes the key and returns what it held."""
        entry = self._kv.get(self.now, ns, key)
        if entry is not None:
            self.delete(ns, key)
        return entry

    def key_count(self, ns: str) -> int:
        return self._kv.key_count(ns)

    def wait_kv(
        self, ns: str, key: bytes, *, next_version: bool, timeout_ms: int | None, done: Done,
        after_version: int | None = None,
    ) -> Entry | ParkedResult | None:  # fmt: skip
        """Waits until the key exists, or with `next_version` for its next version, a delete included (None then).
        `after_version`: the newest version that the caller has seen, so that one in between is not missed."""
        entry = self._kv.get(self.now, ns, key)
        if not next_version:
            if entry is not None:
                return entry

            def appeared() -> tuple[Entry] | None:
                found = self._kv.get(self._partition.command_time, ns, key)
                return None if found is None else (found,)

            return self._park([("kv", ns, key)], appeared, done, None, timeout_ms)
        seen = self._kv.latest(ns, key)
        if after_version is not None and seen > after_version:
            return entry

        def changed() -> tuple[Entry | None] | None:
            if self._kv.latest(ns, key) <= seen:
                return None
            return (self._kv.get(self._partition.command_time, ns, key),)

        return self._park([("kv", ns, key)], changed, done, None, timeout_ms)

    # -- transactions

    def txn_begin(self, ns: str, routing_key: bytes) -> tuple[int, int]:
        """The id, and the hash of the routing key."""
        check_namespace(ns)
        if routing_key:
            check_key(ns, routing_key)
        return self._transactions.begin(self.now, self._kv, ns, routing_key)

    def txn_commit(self, ns: str, txn: int) -> tuple[int, int]:
        """The index of the commit, which is the version of all keys written, and the number of writes."""
        found = self._transactions.find(self.now, ns, txn)
        ops = found.buffer.ops
        if ops:
            self._admit()
        self._transactions.close(txn)
        if not ops:
            return self._partition.last_index, 0
        for op in ops:
            self._transactions.check_place(self.now, self._kv, found, op.key)
        self._check_namespace(ns)
        index = self._index_in(ns)
        event = self._kv.decide_commit(self.now, index, ns, ops)
        assert event is not None
        placed = self._kv.decide_place(ns, [w.key for w in event.writes], found.slot, self._transactions.slot_of)
        self._emit(ns, [event] if placed is None else [event, placed])
        return index, len(ops)

    def txn_rollback(self, ns: str, txn: int) -> None:
        """Of an unknown transaction too: it is as good as rolled back."""
        try:
            self._transactions.find(self.now, ns, txn)
        except Refused:
            return
        self._transactions.close(txn)

    def _buffer(self, ns: str, txn: int, op: TxnOp) -> Entry | None:
        found = self._transactions.find(self.now, ns, txn)
        self._transactions.check_place(self.now, self._kv, found, op.key)
        return found.buffer.write(self.now, op)
