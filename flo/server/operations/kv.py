"""Operations on keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flo.grid.store import PARKED
from flo.primitives.kv_pages import Entry
from flo.primitives.kv_rules import HISTORY_LIMIT_DEFAULT
from flo.primitives.machine import Refused
from flo.server.operations.session import Operation, WireSession, wait_ms
from flo.wire import opcodes
from flo.wire.frames import Request, encode_reply
from flo.wire.layouts import decode_paging, text
from flo.wire.layouts_kv import (
    decode_delta,
    decode_json_set,
    decode_keys,
    decode_ttl_seconds,
    encode_begun,
    encode_committed,
    encode_counted,
    encode_counter,
    encode_exists,
    encode_history,
    encode_many,
    encode_page,
    encode_value,
    encode_version,
)
from flo.wire.statuses import NOT_FOUND, OK
from flo.wire.tlv import (
    CAS_VERSION,
    IF_EXISTS,
    IF_NOT_EXISTS,
    KEYS_ONLY,
    LIMIT,
    ROUTING_KEY,
    TRANSACTION,
    TTL_SECONDS,
    WAIT_MS,
    flag,
    integer,
    optional_integer,
)

if TYPE_CHECKING:
    from flo.grid.store import Store


def put(session: WireSession, store: Store, request: Request) -> bytes:
    options = request.options
    if not options:
        version = store.put(request.ns, request.key, request.value)
    else:
        version = store.put(
            request.ns,
            request.key,
            request.value,
            ttl_ms=integer(options, TTL_SECONDS, 0) * 1_000,
            nx=flag(options, IF_NOT_EXISTS),
            xx=flag(options, IF_EXISTS),
            cas=optional_integer(options, CAS_VERSION),
            txn=integer(options, TRANSACTION, 0),
            routing_key=options.get(ROUTING_KEY, b""),
        )
    return encode_reply(OK, request.request_id, encode_version(version))


def get(session: WireSession, store: Store, request: Request) -> bytes | None:
    options = request.options
    if not options:
        return _entry(session, store, request, store.get(request.ns, request.key))
    txn = integer(options, TRANSACTION, 0)
    until_there = wait_ms(request)
    until_next = wait_ms(request, WAIT_MS)
    if until_there is None and until_next is None:
        return _entry(session, store, request, store.get(request.ns, request.key, txn=txn))
    if until_there is not None and until_next is not None:
        raise Refused("bad_argument", "wait and block exclude one another")
    if txn:
        raise _not_in_a_transaction("a waiting get")
    wait = session.wait(store, request, _entry)
    found = store.wait_kv(
        request.ns,
        request.key,
        next_version=until_there is None,
        timeout_ms=until_next if until_there is None else until_there,
        done=wait,
    )
    if found is PARKED:
        session.parked(store, wait)
        return None
    assert found is None or isinstance(found, Entry)
    return _entry(session, store, request, found)


def _entry(session: WireSession, store: Store, request: Request, entry: Entry | None) -> bytes:
    if entry is None:
        return encode_reply(NOT_FOUND, request.request_id)
    return encode_reply(OK, request.request_id, encode_value(entry.version, entry.value))


def delete(session: WireSession, store: Store, request: Request) -> bytes:
    options = request.options
    store.delete(
        request.ns,
        request.key,
        if_match=optional_integer(options, CAS_VERSION),
        txn=integer(options, TRANSACTION, 0),
    )
    return encode_reply(OK, request.request_id)


def mget(session: WireSession, store: Store, request: Request) -> bytes:
    _outside("mget", request)
    many = store.mget(request.ns, decode_keys(request.value))
    return encode_reply(OK, request.request_id, encode_many(many))


def scan(session: WireSession, store: Store, request: Request) -> bytes:
    _outside("scan", request)
    limit, cursor = decode_paging(request.value)
    page = store.scan(request.ns, request.key, limit, cursor, flag(request.options, KEYS_ONLY))
    return encode_reply(OK, request.request_id, encode_page(page))


def history(session: WireSession, store: Store, request: Request) -> bytes:
    _outside("history", request)
    limit = integer(request.options, LIMIT, HISTORY_LIMIT_DEFAULT)
    versions = store.history(request.ns, request.key, limit)
    if not versions:
        raise Refused("not_found", "key not found")
    return encode_reply(OK, request.request_id, encode_history(versions))


def incr(session: WireSession, store: Store, request: Request) -> bytes:
    txn = integer(request.options, TRANSACTION, 0)
    version, counter = store.incr(request.ns, request.key, decode_delta(request.value), txn=txn)
    body = encode_counter(counter) if txn else encode_counted(version, counter)
    return encode_reply(OK, request.request_id, body)


def touch(session: WireSession, store: Store, request: Request) -> bytes:
    options = request.options
    store.touch(
        request.ns,
        request.key,
        decode_ttl_seconds(request.value) * 1_000,
        if_match=optional_integer(options, CAS_VERSION),
        txn=integer(options, TRANSACTION, 0),
    )
    return encode_reply(OK, request.request_id)


def persist(session: WireSession, store: Store, request: Request) -> bytes:
    options = request.options
    store.persist(
        request.ns,
        request.key,
        if_match=optional_integer(options, CAS_VERSION),
        txn=integer(options, TRANSACTION, 0),
    )
    return encode_reply(OK, request.request_id)


def exists(session: WireSession, store: Store, request: Request) -> bytes:
    entry = store.get(request.ns, request.key, txn=integer(request.options, TRANSACTION, 0))
    body = encode_exists(0 if entry is None else entry.version, entry is not None)
    return encode_reply(OK, request.request_id, body)


def json_get(session: WireSession, store: Store, request: Request) -> bytes:
    _outside("jget", request)
    node = store.jget(request.ns, request.key, text(request.value) or "$")
    if node is None:
        return encode_reply(NOT_FOUND, request.request_id)
    return encode_reply(OK, request.request_id, encode_value(node.version, node.json))


def json_set(session: WireSession, store: Store, request: Request) -> bytes:
    _outside("jset", request)
    path, json = decode_json_set(request.value)
    version = store.jset(request.ns, request.key, path or "$", json)
    return encode_reply(OK, request.request_id, encode_version(version))


def json_del(session: WireSession, store: Store, request: Request) -> bytes:
    _outside("jdel", request)
    path = text(request.value) or "$"
    version = store.jdel(request.ns, request.key, path)
    return encode_reply(OK, request.request_id, b"" if path == "$" else encode_version(version))


def begin(session: WireSession, store: Store, request: Request) -> bytes:
    txn, pinned_hash = store.txn_begin(request.ns, request.key or request.options.get(ROUTING_KEY, b""))
    return encode_reply(OK, request.request_id, encode_begun(txn, pinned_hash))


def commit(session: WireSession, store: Store, request: Request) -> bytes:
    commit_index, op_count = store.txn_commit(request.ns, integer(request.options, TRANSACTION, 0))
    return encode_reply(OK, request.request_id, encode_committed(commit_index, op_count))


def rollback(session: WireSession, store: Store, request: Request) -> bytes:
    store.txn_rollback(request.ns, integer(request.options, TRANSACTION, 0))
    return encode_reply(OK, request.request_id)


def _outside(operation: str, request: Request) -> None:
    if TRANSACTION in request.options:
        raise _not_in_a_transaction(operation)


def _not_in_a_transaction(operation: str) -> Refused:
    message = f"{operation} is not possible in a transaction"
    return Refused("bad_argument", message, {"code": "kv_txn_unsupported_op"})


OPERATIONS: Final[dict[int, Operation]] = {
    opcodes.KV_PUT: put,
    opcodes.KV_GET: get,
    opcodes.KV_MGET: mget,
    opcodes.KV_DELETE: delete,
    opcodes.KV_SCAN: scan,
    opcodes.KV_HISTORY: history,
    opcodes.KV_INCR: incr,
    opcodes.KV_JSON_GET: json_get,
    opcodes.KV_JSON_SET: json_set,
    opcodes.KV_JSON_DEL: json_del,
    opcodes.KV_BEGIN: begin,
    opcodes.KV_COMMIT: commit,
    opcodes.KV_ROLLBACK: rollback,
    opcodes.KV_TOUCH: touch,
    opcodes.KV_PERSIST: persist,
    opcodes.KV_EXISTS: exists,
}
