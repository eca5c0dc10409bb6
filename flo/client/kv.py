"""Keys and values: `client.kv` of a FloClient, `grid.kv` in process."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from flo.client.options import (
    DeleteOptions,
    GetOptions,
    HistoryOptions,
    KVExistsOptions,
    KVIncrOptions,
    KVJsonOptions,
    KVPersistOptions,
    KVTouchOptions,
    MGetOptions,
    PutOptions,
    ScanOptions,
    TransactionOptions,
)
from flo.client.sdk_errors import IncompleteResponseError, NotFoundError, ValidationError
from flo.client.transactions import KVTransaction
from flo.client.transport import (
    Operations,
    Tags,
    decoded,
    json_bytes,
    key_bytes,
    key_text,
    payload_bytes,
    refusal,
    ttl_ms,
    u32,
    u64,
    unsigned,
    wait_of,
)
from flo.client.types import (
    GetResult,
    KeyInfo,
    MGetEntry,
    PutResult,
    ScanEntry,
    ScanResult,
    VersionEntry,
)
from flo.wire import calls, layouts_kv, opcodes, statuses, tlv
from flo.wire.tlv import OPTION_BYTES

MGET_KEYS: Final = 256
HISTORY_LIMIT: Final = 10
SIGNED: Final = range(-(2**63), 2**63)

_u64 = struct.Struct("<Q").unpack_from


class KV(Operations):
    """Keys and values of a namespace, each value with a version that grows with every write. Keys are text or
    bytes; values are bytes, text (UTF-8) or anything that JSON can say."""

    __slots__ = ()

    async def get(self, key: str | bytes, options: GetOptions | None = None) -> GetResult | None:
        """The value and its version; None when the key is missing, also after a wait."""
        ns = self._ns(options)
        data = key_bytes(key)
        tags: Tags | None = None
        wait_ms = 0
        if options is not None and (options.block_ms or options.watch_ms):
            if options.block_ms is not None and options.watch_ms is not None:
                raise ValidationError("block_ms and watch_ms exclude one another")
            if options.block_ms:
                wait_ms = wait_of(options.block_ms)
                tags = {tlv.BLOCK_MS: u32(wait_ms, "block_ms")}
            else:
                wait_ms = wait_of(options.watch_ms, "watch_ms")
                tags = {tlv.WAIT_MS: u32(wait_ms, "watch_ms")}
        reply = await self._send(opcodes.KV_GET, ns, data, b"", tags, wait_ms)
        if reply.status:
            if reply.status == statuses.NOT_FOUND:
                return None
            raise refusal(reply)
        body = reply.body
        if len(body) < 8:
            raise IncompleteResponseError("the reply is not understood: a value without its version")
        return GetResult(body[8:], _u64(body)[0])

    async def put(self, key: str | bytes, value: Any, options: PutOptions | None = None) -> PutResult:
        """Writes; without a time to live in the options the key is permanent. Raises ConflictError when a condition
        does not hold."""
        ns = self._ns(options)
        data, payload = key_bytes(key), payload_bytes(value)
        tags: Tags | None = None
        if options is not None:
            ms = ttl_ms(options.ttl_seconds, options.ttl_ms)
            if ms % 1_000:
                return await self._put_fine(ns, data, payload, ms, options)
            tags = put_tags(options, ms)
        reply = await self._send(opcodes.KV_PUT, ns, data, payload, tags)
        if reply.status:
            raise refusal(reply)
        body = reply.body
        return PutResult(_u64(body)[0] if len(body) == 8 else decoded(layouts_kv.decode_version, body))

    async def delete(self, key: str | bytes, options: DeleteOptions | None = None) -> None:
        """Deletes. A key that is missing is no error, unless `if_match` is given: then ConflictError."""
        tags = if_match_tags(None if options is None else options.if_match)
        reply = await self._send(opcodes.KV_DELETE, self._ns(options), key_bytes(key), b"", tags)
        if reply.status and (reply.status != statuses.NOT_FOUND or tags is not None):
            raise refusal(reply)

    async def mget(self, keys: Sequence[str | bytes], options: MGetOptions | None = None) -> list[MGetEntry]:
        """The values of up to 256 keys in the order asked for, the missing ones marked as not found."""
        ns = self._ns(options)
        left = [key_bytes(key) for key in keys]
        if not left:
            raise ValidationError("mget: zero keys")
        if len(left) > MGET_KEYS:
            raise ValidationError(f"mget: too many keys (max {MGET_KEYS})")
        entries: list[MGetEntry] = []
        while left:
            reply = await self._send(opcodes.KV_MGET, ns, b"", layouts_kv.encode_keys(left))
            if reply.status:
                raise refusal(reply)
            found = decoded(layouts_kv.decode_many, reply.body)[: len(left)]
            if not found:
                raise refusal(reply)
            entries += (MGetEntry(key_text(entry.key), entry.value, entry.version, entry.found) for entry in found)
            left = left[len(found) :]  # a long reply is cut: the rest is asked for again
        return entries

    async def scan(self, prefix: str | bytes = "", options: ScanOptions | None = None) -> ScanResult:
        """A page of keys that begin with the prefix, in the order of their bytes."""
        options = options or ScanOptions()
        cursor = options.cursor or b""
        limit = u32(options.limit or 0, "limit")
        value = limit + (cursor.encode() if isinstance(cursor, str) else cursor)
        tags: Tags | None = {tlv.KEYS_ONLY: b"\1"} if options.keys_only else None
        reply = await self._send(opcodes.KV_SCAN, self._ns(options), key_bytes(prefix), value, tags)
        if reply.status:
            raise refusal(reply)
        page = decoded(layouts_kv.decode_page, reply.body)
        entries = [ScanEntry(key_text(row.key), row.value) for row in page.rows]
        return ScanResult(entries, page.cursor.encode() or None, page.has_more)

    async def scan_all(self, prefix: str | bytes = "", options: ScanOptions | None = None) -> AsyncIterator[ScanEntry]:
        """All keys that begin with the prefix, page by page: `async for entry in kv.scan_all("user:")`."""
        options = options or ScanOptions(limit=1_000)
        cursor = options.cursor
        while True:
            page = await self.scan(prefix, ScanOptions(options.limit, cursor, options.keys_only, options.namespace))
            for entry in page.entries:
                yield entry
            if not page.has_more:
                return
            cursor = page.cursor

    async def history(self, key: str | bytes, options: HistoryOptions | None = None) -> list[VersionEntry]:
        """Versions, newest first; a deletion shows as an empty value (`versions` tells them apart). Raises
        NotFoundError for a key that was never written."""
        limit = None if options is None else options.limit
        tags: Tags | None = None if limit is None else {tlv.LIMIT: u32(limit, "limit")}
        reply = await self._send(opcodes.KV_HISTORY, self._ns(options), key_bytes(key), b"", tags)
        if reply.status:
            raise refusal(reply)
        return [
            VersionEntry(version.version, version.timestamp_ms, version.value or b"")
            for version in decoded(layouts_kv.decode_history, reply.body)
        ]

    async def incr(self, key: str | bytes, options: KVIncrOptions | None = None) -> int:
        """Adds to a counter and gives what it is then; a missing key begins at 0. Raises ConflictError for a key that
        holds no counter."""
        delta = delta_of(options)
        reply = await self._send(opcodes.KV_INCR, self._ns(options), key_bytes(key), layouts_kv.encode_delta(delta))
        if reply.status:
            raise refusal(reply)
        return decoded(lambda body: layouts_kv.decode_counted(body, False), reply.body)

    async def touch(
        self, key: str | bytes, ttl_seconds: float | None = None, options: KVTouchOptions | None = None
    ) -> None:
        """Gives the key that long to live from now; 0 makes it permanent. Raises NotFoundError."""
        ns = self._ns(options)
        data = key_bytes(key)
        ms = touch_ms(ttl_seconds, options)
        if_match = None if options is None else options.if_match
        if ms % 1_000:
            await self._call(calls.KV_TOUCH, ns, calls.KvTouch(data, ms, if_match))
            return
        reply = await self._send(opcodes.KV_TOUCH, ns, data, u64(ms // 1_000, "ttl_seconds"), if_match_tags(if_match))
        if reply.status:
            raise refusal(reply)

    async def persist(self, key: str | bytes, options: KVPersistOptions | None = None) -> None:
        """Makes the key permanent. Raises NotFoundError."""
        tags = if_match_tags(None if options is None else options.if_match)
        reply = await self._send(opcodes.KV_PERSIST, self._ns(options), key_bytes(key), b"", tags)
        if reply.status:
            raise refusal(reply)

    async def exists(self, key: str | bytes, options: KVExistsOptions | None = None) -> bool:
        """Whether there is such a key, without its value."""
        reply = await self._send(opcodes.KV_EXISTS, self._ns(options), key_bytes(key))
        if reply.status:
            raise refusal(reply)
        return decoded(layouts_kv.decode_exists, reply.body)

    async def json_set(
        self, key: str | bytes, path: str, value: Any, options: KVJsonOptions | None = None
    ) -> PutResult:
        """Writes a part of a JSON document; "$" is the whole. Bytes are JSON text and stored as they are, anything
        else (a text too) is encoded. Raises NotFoundError for a path whose parent is missing."""
        ns = self._ns(options)
        data = key_bytes(key)
        json = bytes(value) if isinstance(value, bytes | bytearray | memoryview) else json_bytes(value)
        payload_bytes(json)
        if options is not None and (options.cas_version is not None or options.ttl_seconds or options.ttl_ms):
            ms = ttl_ms(options.ttl_seconds, options.ttl_ms)
            jset = calls.KvJset(data, json, path, ms, options.cas_version)
            return PutResult((await self._call(calls.KV_JSET, ns, jset)).version)
        value = decoded(lambda json: layouts_kv.encode_json_set(path, json), json)
        reply = await self._send(opcodes.KV_JSON_SET, ns, data, value)
        if reply.status:
            raise refusal(reply)
        return PutResult(decoded(layouts_kv.decode_version, reply.body))

    async def json_get(
        self, key: str | bytes, path: str = "$", options: KVJsonOptions | None = None
    ) -> GetResult | None:
        """A part of a JSON document as JSON text (`result.json()` is its value) with the document's version; None when
        key or path is missing."""
        reply = await self._send(opcodes.KV_JSON_GET, self._ns(options), key_bytes(key), key_bytes(path))
        if reply.status:
            if reply.status == statuses.NOT_FOUND:
                return None
            raise refusal(reply)
        version, json = decoded(layouts_kv.decode_value, reply.body)
        return GetResult(json, version)

    async def json_del(self, key: str | bytes, path: str = "$", options: KVJsonOptions | None = None) -> PutResult:
        """Deletes a part of a JSON document, with "$" the key. Raises NotFoundError when it is missing."""
        ns = self._ns(options)
        data = key_bytes(key)
        if options is not None and options.cas_version is not None:
            written = await self._call(calls.KV_JDEL, ns, calls.KvJdel(data, path, options.cas_version))
            return PutResult(written.version)
        reply = await self._send(opcodes.KV_JSON_DEL, ns, data, key_bytes(path))
        if reply.status:
            raise refusal(reply)
        return PutResult(decoded(layouts_kv.decode_version, reply.body))

    async def begin(self, routing_key: str | bytes, options: TransactionOptions | None = None) -> KVTransaction:
        """A transaction on the partition of the routing key:

        async with await client.kv.begin("user:42") as txn:
            await txn.put("user:42:name", "Jane")
            await txn.commit()
        """
        ns = self._ns(options)
        data = key_bytes(routing_key)
        tags: Tags = {tlv.ROUTING_KEY: data} if 0 < len(data) <= OPTION_BYTES else {}
        reply = await self._send(opcodes.KV_BEGIN, ns, data, b"", tags)
        if reply.status:
            raise refusal(reply)
        txn, pinned_hash = decoded(layouts_kv.decode_begun, reply.body)
        return KVTransaction(self._transport, ns, data, txn, pinned_hash, tags)

    async def info(self, key: str | bytes, options: KVExistsOptions | None = None) -> KeyInfo | None:
        """Version, kind, size, expiry and time of the last write; None when the key is missing."""
        try:
            entry = await self._call(calls.KV_GET, self._ns(options), calls.KvGet(key_bytes(key)))
        except NotFoundError:
            return None
        return KeyInfo(entry.version, entry.kind, len(entry.value), entry.expires_at, entry.written_at)

    async def versions(self, key: str | bytes, options: HistoryOptions | None = None) -> list[VersionEntry]:
        """As `history`, with deletions told apart from empty values."""
        limit = HISTORY_LIMIT if options is None or options.limit is None else options.limit
        history = await self._call(calls.KV_HISTORY, self._ns(options), calls.KvHistory(key_bytes(key), limit))
        return [
            VersionEntry(each.version, each.timestamp_ms, each.value or b"", each.tombstone)
            for each in history.versions
        ]

    async def version(self, key: str | bytes, version: int, options: KVExistsOptions | None = None) -> GetResult | None:
        """A past version while it is kept (64 are); None when it is not."""
        try:
            past = calls.KvGet(key_bytes(key), version=unsigned(version, "version"))
            entry = await self._call(calls.KV_GET, self._ns(options), past)
        except NotFoundError:
            return None
        return GetResult(entry.value, entry.version)

    async def _put_fine(self, ns: str, key: bytes, value: bytes, ms: int, options: PutOptions) -> PutResult:
        """A time to live that is no whole number of seconds."""
        put_tags(options, 0)
        put = calls.KvPut(key, value, ms, options.if_not_exists, options.if_exists, options.cas_version)
        return PutResult((await self._call(calls.KV_PUT, ns, put)).version)


def put_tags(options: PutOptions, ttl_ms: int) -> Tags | None:
    """Raises ValidationError for conditions that exclude one another."""
    tags: Tags = {}
    if ttl_ms:
        tags[tlv.TTL_SECONDS] = u64(ttl_ms // 1_000, "ttl_seconds")
    if options.cas_version is not None:
        if options.if_not_exists:
            raise ValidationError("cas_version and if_not_exists exclude one another")
        tags[tlv.CAS_VERSION] = u64(options.cas_version, "cas_version")
    if options.if_not_exists:
        if options.if_exists:
            raise ValidationError("if_not_exists and if_exists exclude one another")
        tags[tlv.IF_NOT_EXISTS] = b""
    if options.if_exists:
        tags[tlv.IF_EXISTS] = b""
    return tags or None


def if_match_tags(if_match: int | None) -> Tags | None:
    return None if if_match is None else {tlv.CAS_VERSION: u64(if_match, "if_match")}


def touch_ms(ttl_seconds: float | None, options: KVTouchOptions | None) -> int:
    """The time to live that a touch gives. Raises ValidationError when there is none: 0 must be said."""
    given = None if options is None else options.ttl_ms
    if ttl_seconds is None and given is None:
        raise ValidationError("touch: ttl_seconds is missing", hint="0 makes the key permanent")
    return ttl_ms(ttl_seconds, given)


def delta_of(options: KVIncrOptions | None) -> int:
    """Raises ValidationError."""
    delta = 1 if options is None else options.delta
    if not (isinstance(delta, int) and delta in SIGNED):  # type: ignore[redundant-expr]
        raise ValidationError(f"delta must be a whole number of 64 bits, not {delta!r}")
    return delta
