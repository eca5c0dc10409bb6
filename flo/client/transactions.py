"""Transactions on keys: several writes of one partition that become visible together, or not at all."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NoReturn, Self

from flo.client.options import DeleteOptions, GetOptions, KVIncrOptions, KVPersistOptions, KVTouchOptions, PutOptions
from flo.client.sdk_errors import NO_ACTIVE_TRANSACTION, TxnUnsupportedOpError, ValidationError, server_error
from flo.client.transport import (
    Tags,
    Transport,
    decoded,
    key_bytes,
    payload_bytes,
    refusal,
    ttl_ms,
    u64,
)
from flo.client.types import CommitResult, GetResult, PutResult
from flo.wire import layouts_kv, opcodes, statuses, tlv
from flo.wire.frames import Reply


class KVTransaction:
    """Made by `kv.begin`. Reads see the transaction's own writes; nobody else does before `commit`. Leaving
    `async with` without a commit rolls back.

    The keys must lie in the routing key's partition, else GenericServerError with status 4. A transaction holds at
    most 256 writes and 1 MiB, and ends by itself after a minute without use.
    """

    def __init__(
        self, transport: Transport, ns: str, routing_key: bytes, id: int, pinned_hash: int, routing: Tags
    ) -> None:
        self.id = id
        self.pinned_hash = pinned_hash
        self._transport = transport
        self._ns = ns
        self._routing_key = routing_key
        self._tags: Tags = {**routing, tlv.TRANSACTION: u64(id, "id")}
        self._ended = False

    @property
    def active(self) -> bool:
        """Whether neither commit nor rollback was called."""
        return not self._ended

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.rollback()

    async def get(self, key: str | bytes, options: GetOptions | None = None) -> GetResult | None:
        """The value as the transaction sees it, None when the key is missing."""
        if options is not None and (options.block_ms or options.watch_ms):
            raise TxnUnsupportedOpError("a transaction cannot wait for a key")
        reply = await self._do(opcodes.KV_GET, key, b"", None, options)
        if reply.status == statuses.NOT_FOUND:
            return None
        version, value = decoded(layouts_kv.decode_value, _accepted(reply).body)
        return GetResult(value, version)

    async def put(self, key: str | bytes, value: Any, options: PutOptions | None = None) -> PutResult:
        """Buffers a write. Conditions are checked now and again at the commit."""
        from flo.client.kv import put_tags

        tags: Tags | None = None
        if options is not None:
            ms = ttl_ms(options.ttl_seconds, options.ttl_ms)
            if ms % 1_000:
                raise ValidationError("in a transaction a time to live has whole seconds")
            tags = put_tags(options, ms)
        _accepted(await self._do(opcodes.KV_PUT, key, payload_bytes(value), tags, options))
        return PutResult(0)

    async def delete(self, key: str | bytes, options: DeleteOptions | None = None) -> None:
        """Buffers a deletion. A key that is missing is no error, unless `if_match` is given."""
        from flo.client.kv import if_match_tags

        tags = if_match_tags(None if options is None else options.if_match)
        reply = await self._do(opcodes.KV_DELETE, key, b"", tags, options)
        if reply.status != statuses.NOT_FOUND or tags is not None:
            _accepted(reply)

    async def incr(self, key: str | bytes, options: KVIncrOptions | None = None) -> int:
        """Buffers an addition; gives the counter as the transaction sees it. The commit adds to what is there then."""
        from flo.client.kv import delta_of

        value = layouts_kv.encode_delta(delta_of(options))
        reply = _accepted(await self._do(opcodes.KV_INCR, key, value, None, options))
        return decoded(lambda body: layouts_kv.decode_counted(body, True), reply.body)

    async def touch(
        self, key: str | bytes, ttl_seconds: float | None = None, options: KVTouchOptions | None = None
    ) -> None:
        """Buffers a new time to live; 0 makes the key permanent."""
        from flo.client.kv import if_match_tags, touch_ms

        ms = touch_ms(ttl_seconds, options)
        if ms % 1_000:
            raise ValidationError("in a transaction a time to live has whole seconds")
        tags = if_match_tags(None if options is None else options.if_match)
        _accepted(await self._do(opcodes.KV_TOUCH, key, u64(ms // 1_000, "ttl_seconds"), tags, options))

    async def persist(self, key: str | bytes, options: KVPersistOptions | None = None) -> None:
        """Buffers that the key becomes permanent."""
        from flo.client.kv import if_match_tags

        tags = if_match_tags(None if options is None else options.if_match)
        _accepted(await self._do(opcodes.KV_PERSIST, key, b"", tags, options))

    async def exists(self, key: str | bytes) -> bool:
        """Whether there is such a key, as the transaction sees it."""
        reply = _accepted(await self._do(opcodes.KV_EXISTS, key, b"", None, None))
        return decoded(layouts_kv.decode_exists, reply.body)

    async def commit(self) -> CommitResult:
        """Makes all writes visible at once. Raises ConflictError when a condition no longer holds: nothing was
        written then, and the transaction is over."""
        self._check_active()
        self._ended = True
        reply = _accepted(await self._transport.send(opcodes.KV_COMMIT, self._ns, self._routing_key, b"", self._tags))
        commit_index, op_count = decoded(layouts_kv.decode_committed, reply.body)
        return CommitResult(op_count, commit_index)

    async def rollback(self) -> None:
        """Forgets all writes. After a commit or rollback it does nothing."""
        if self._ended:
            return
        self._ended = True
        _accepted(await self._transport.send(opcodes.KV_ROLLBACK, self._ns, self._routing_key, b"", self._tags))

    async def scan(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raises TxnUnsupportedOpError."""
        _unsupported("scan")

    async def mget(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raises TxnUnsupportedOpError."""
        _unsupported("mget")

    async def history(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raises TxnUnsupportedOpError."""
        _unsupported("history")

    async def json_get(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raises TxnUnsupportedOpError."""
        _unsupported("json_get")

    async def json_set(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raises TxnUnsupportedOpError."""
        _unsupported("json_set")

    async def json_del(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raises TxnUnsupportedOpError."""
        _unsupported("json_del")

    async def _do(self, opcode: int, key: str | bytes, value: bytes, tags: Tags | None, options: Any) -> Reply:
        self._check_active()
        ns = None if options is None else options.namespace
        if ns is not None and ns != self._ns:
            raise ValidationError(f"the transaction is in the namespace {self._ns!r}, not {ns!r}")
        all_tags = self._tags if tags is None else {**self._tags, **tags}
        return await self._transport.send(opcode, self._ns, key_bytes(key), value, all_tags)

    def _check_active(self) -> None:
        if self._ended:
            raise server_error(NO_ACTIVE_TRANSACTION, "no active transaction")


def _accepted(reply: Reply) -> Reply:
    if reply.status:
        raise refusal(reply)
    return reply


def _unsupported(operation: str) -> NoReturn:
    raise TxnUnsupportedOpError(f"{operation} is not possible in a transaction")
