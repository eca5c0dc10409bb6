"""Calls on keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flo.primitives.kv_pages import Entry
from flo.primitives.machine import Refused
from flo.server.call import Performers, checked_wait, reply
from flo.server.operations.session import WireSession
from flo.wire import calls
from flo.wire.frames import Request

if TYPE_CHECKING:
    from flo.grid.store import Store


def get(session: WireSession, store: Store, request: Request, asked: calls.KvGet) -> bytes | None:
    until_there = checked_wait("wait_ms", asked.wait_ms)
    until_next = checked_wait("block_ms", asked.block_ms)
    if until_there and until_next:
        raise Refused("bad_argument", "wait_ms and block_ms exclude one another")
    if (until_there or until_next) and (asked.txn or asked.version is not None):
        raise Refused("bad_argument", "a get that waits can be neither in a transaction nor of a past version")
    if asked.version is not None:
        return _past(store, request, asked.key, asked.version)
    if not until_there and not until_next:
        return _entry(request, store.get(request.ns, asked.key, txn=asked.txn))
    seen = store.latest(request.ns, asked.key)

    def answer(session: WireSession, store: Store, request: Request, entry: Any) -> bytes:
        if entry is None and store.latest(request.ns, asked.key) == seen:
            raise Refused("not_found", "key not found", {"timed_out": True, "version": seen})
        return _entry(request, entry)

    wait = session.wait(store, request, answer)
    found = store.wait_kv(
        request.ns,
        asked.key,
        next_version=until_next > 0,
        timeout_ms=until_next or until_there,
        done=wait,
        after_version=asked.after_version,
    )
    if found is None or isinstance(found, Entry):
        return _entry(request, found)
    session.parked(store, wait)
    return None


def _past(store: Store, request: Request, key: bytes, version: int) -> bytes:
    found = store.version(request.ns, key, version)
    if found is None or found.value is None:
        raise Refused("not_found", f"version {version} is not kept")
    return reply(request, Entry(found.value, found.version, "string", 0, found.timestamp_ms))


def _entry(request: Request, entry: Entry | None) -> bytes:
    if entry is None:
        raise Refused("not_found", "key not found")
    return reply(request, entry)


def put(session: WireSession, store: Store, request: Request, asked: calls.KvPut) -> bytes:
    version = store.put(
        request.ns,
        asked.key,
        asked.value,
        ttl_ms=asked.ttl_ms,
        nx=asked.nx,
        xx=asked.xx,
        cas=asked.cas,
        keep_ttl=asked.keep_ttl,
        txn=asked.txn,
        routing_key=asked.routing_key,
    )
    return reply(request, calls.Written(version))


def delete(session: WireSession, store: Store, request: Request, asked: calls.KvDelete) -> bytes:
    return reply(
        request, calls.Written(store.delete(request.ns, asked.key, if_match=asked.if_match, txn=asked.txn))
    )  # fmt: skip


def mget(session: WireSession, store: Store, request: Request, asked: calls.KvMget) -> bytes:
    return reply(request, store.mget(request.ns, asked.keys))


def scan(session: WireSession, store: Store, request: Request, asked: calls.KvScan) -> bytes:
    return reply(request, store.scan(request.ns, asked.prefix, asked.limit, asked.cursor, asked.keys_only))


def history(session: WireSession, store: Store, request: Request, asked: calls.KvHistory) -> bytes:
    versions = store.history(request.ns, asked.key, asked.limit)
    if not versions:
        raise Refused("not_found", "key not found")
    return reply(request, calls.History(versions))


def incr(session: WireSession, store: Store, request: Request, asked: calls.KvIncr) -> bytes:
    return reply(request, calls.Counted(*store.incr(request.ns, asked.key, asked.delta, txn=asked.txn)))


def touch(session: WireSession, store: Store, request: Request, asked: calls.KvTouch) -> bytes:
    store.touch(request.ns, asked.key, asked.ttl_ms, if_match=asked.if_match, txn=asked.txn)
    return reply(request, calls.Nothing())


def persist(session: WireSession, store: Store, request: Request, asked: calls.KvPersist) -> bytes:
    had_ttl = store.persist(request.ns, asked.key, if_match=asked.if_match, txn=asked.txn)
    return reply(request, calls.Persisted(had_ttl))


def exists(session: WireSession, store: Store, request: Request, asked: calls.KvExists) -> bytes:
    return reply(request, calls.Exists(store.exists(request.ns, asked.key, txn=asked.txn)))


def jget(session: WireSession, store: Store, request: Request, asked: calls.KvJget) -> bytes:
    node = store.jget(request.ns, asked.key, asked.path)
    if node is None:
        raise Refused("not_found", "key or path not found")
    return reply(request, node)


def jset(session: WireSession, store: Store, request: Request, asked: calls.KvJset) -> bytes:
    version = store.jset(request.ns, asked.key, asked.path, asked.json, ttl_ms=asked.ttl_ms, cas=asked.cas)
    return reply(request, calls.Written(version))


def jdel(session: WireSession, store: Store, request: Request, asked: calls.KvJdel) -> bytes:
    return reply(request, calls.Written(store.jdel(request.ns, asked.key, asked.path, cas=asked.cas)))


def begin(session: WireSession, store: Store, request: Request, asked: calls.KvBegin) -> bytes:
    return reply(request, calls.Begun(*store.txn_begin(request.ns, asked.routing_key)))


def commit(session: WireSession, store: Store, request: Request, asked: calls.KvTransaction) -> bytes:
    return reply(request, calls.Committed(*store.txn_commit(request.ns, asked.txn_id)))


def rollback(session: WireSession, store: Store, request: Request, asked: calls.KvTransaction) -> bytes:
    store.txn_rollback(request.ns, asked.txn_id)
    return reply(request, calls.Nothing())


def count(session: WireSession, store: Store, request: Request, asked: calls.NoArguments) -> bytes:
    return reply(request, calls.Count(store.key_count(request.ns)))


PERFORMERS: Final[Performers] = {
    calls.KV_GET.name: get,
    calls.KV_PUT.name: put,
    calls.KV_DELETE.name: delete,
    calls.KV_MGET.name: mget,
    calls.KV_SCAN.name: scan,
    calls.KV_HISTORY.name: history,
    calls.KV_INCR.name: incr,
    calls.KV_TOUCH.name: touch,
    calls.KV_PERSIST.name: persist,
    calls.KV_EXISTS.name: exists,
    calls.KV_JGET.name: jget,
    calls.KV_JSET.name: jset,
    calls.KV_JDEL.name: jdel,
    calls.KV_BEGIN.name: begin,
    calls.KV_COMMIT.name: commit,
    calls.KV_ROLLBACK.name: rollback,
    calls.KV_COUNT.name: count,
}
