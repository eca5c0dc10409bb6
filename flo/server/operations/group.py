"""Operations on consumer groups. A group that does not exist is empty, and what is acknowledged in it was acked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flo.primitives.machine import Refused
from flo.primitives.stream_pages import Delivered, GroupSettings
from flo.server.operations.records import reply_with_records
from flo.server.operations.session import Operation, WireSession, wait_ms
from flo.wire import opcodes
from flo.wire.frames import Request, encode_reply
from flo.wire.layouts import text, u32
from flo.wire.layouts_stream import (
    MODES,
    NO_CLAIM,
    NO_RECORDS,
    decode_claim,
    decode_group,
    decode_ids,
    decode_member,
    encode_claimed,
    encode_group_info,
    encode_pending,
    encode_records,
)
from flo.wire.statuses import OK
from flo.wire.tlv import (
    ACK_TIMEOUT_MS,
    COUNT,
    EXTEND_ACK_MS,
    MAX_DELIVER,
    MAX_STANDBYS,
    NO_ACK,
    REDELIVERY_DELAY_MS,
    SLOTS,
    STREAM_START,
    SUBSCRIPTION_MODE,
    flag,
    integer,
    optional_integer,
    stream_id,
)

if TYPE_CHECKING:
    from flo.grid.store import Store

READ_LIMIT_DEFAULT: Final = 10
READ_WAIT_MS: Final = 5_000  # workers ack on the connection that their read is parked on
PENDING_ENTRIES: Final = 1_000  # this reply has no cursor
DEFAULTS: Final = GroupSettings()


def create(session: WireSession, store: Store, request: Request) -> bytes:
    options = request.options
    group, _ = decode_group(request.value)
    mode = integer(options, SUBSCRIPTION_MODE, 0)
    if mode >= len(MODES):
        raise Refused("bad_argument", f"unknown group mode {mode}: 0 shared, 1 exclusive or 2 key_shared")
    settings = GroupSettings(
        MODES[mode],
        integer(options, ACK_TIMEOUT_MS, DEFAULTS.ack_timeout_ms),
        integer(options, MAX_DELIVER, DEFAULTS.max_deliver),
        integer(options, REDELIVERY_DELAY_MS, DEFAULTS.redeliver_delay_ms),
        integer(options, MAX_STANDBYS, DEFAULTS.max_standbys),
        integer(options, SLOTS, DEFAULTS.slots),
    )
    store.group_create(request.ns, text(request.key), group, settings, stream_id(options, STREAM_START))
    return encode_reply(OK, request.request_id)


def join(session: WireSession, store: Store, request: Request) -> bytes:
    group, consumer = decode_member(request.value)
    store.group_join(request.ns, text(request.key), group, consumer, owner=session.owner)
    return encode_reply(OK, request.request_id)


def leave(session: WireSession, store: Store, request: Request) -> bytes:
    group, consumer = decode_member(request.value)
    try:
        store.group_leave(request.ns, text(request.key), group, consumer)
    except Refused as refused:
        _must_be_missing(refused)
    return encode_reply(OK, request.request_id)


def read(session: WireSession, store: Store, request: Request) -> bytes | None:
    options = request.options
    group, consumer = decode_member(request.value)
    stream = text(request.key)
    limit = integer(options, COUNT, READ_LIMIT_DEFAULT)
    no_ack = flag(options, NO_ACK)
    timeout_ms = wait_ms(request, cap=READ_WAIT_MS)
    if timeout_ms is None:
        delivered = store.group_read(
            request.ns, stream, group, consumer, limit, no_ack=no_ack, owner=session.owner
        )  # fmt: skip
        return _delivered(session, store, request, delivered)
    wait = session.wait(store, request, _delivered, if_missing=NO_RECORDS)
    served = store.wait_group_read(
        request.ns,
        stream,
        group,
        consumer,
        limit,
        no_ack=no_ack,
        owner=session.owner,
        timeout_ms=timeout_ms,
        done=wait,
    )
    if isinstance(served, list):
        return _delivered(session, store, request, served)
    session.parked(store, wait)
    return None


def _delivered(session: WireSession, store: Store, request: Request, delivered: list[Delivered]) -> bytes | None:
    if not delivered:
        return encode_reply(OK, request.request_id, NO_RECORDS)
    stream = text(request.key)
    return reply_with_records(session, store, request, delivered, lambda records: encode_records(stream, records))


def ack(session: WireSession, store: Store, request: Request) -> bytes:
    group, consumer, ids = decode_ids(request.value)
    try:
        store.group_ack(request.ns, text(request.key), group, ids, consumer)
    except Refused as refused:
        _must_be_missing(refused)
    return encode_reply(OK, request.request_id)


def nack(session: WireSession, store: Store, request: Request) -> bytes:
    group, consumer, ids = decode_ids(request.value)
    delay_ms = optional_integer(request.options, REDELIVERY_DELAY_MS)
    try:
        store.group_nack(request.ns, text(request.key), group, ids, delay_ms=delay_ms, consumer=consumer)
    except Refused as refused:
        _must_be_missing(refused)
    return encode_reply(OK, request.request_id)


def touch(session: WireSession, store: Store, request: Request) -> bytes:
    group, consumer, ids = decode_ids(request.value)
    extend_ms = optional_integer(request.options, EXTEND_ACK_MS)
    count = store.group_touch(request.ns, text(request.key), group, ids, consumer, extend_ms=extend_ms)
    return encode_reply(OK, request.request_id, u32(count))


def pending(session: WireSession, store: Store, request: Request) -> bytes:
    group, consumer = decode_group(request.value)
    try:
        page = store.group_pending(request.ns, text(request.key), group, consumer, PENDING_ENTRIES)
    except Refused as refused:
        _must_be_missing(refused)
        return encode_reply(OK, request.request_id, NO_RECORDS)
    return encode_reply(OK, request.request_id, encode_pending(page.entries))


def claim(session: WireSession, store: Store, request: Request) -> bytes | None:
    group, consumer, min_idle_ms, start, count = decode_claim(request.value)
    stream = text(request.key)
    try:
        claimed = store.group_claim(
            request.ns, stream, group, consumer, min_idle_ms, start=start, limit=count
        )  # fmt: skip
    except Refused as refused:
        _must_be_missing(refused)
        return encode_reply(OK, request.request_id, NO_CLAIM)
    return reply_with_records(
        session, store, request, claimed.records, lambda records: encode_claimed(stream, records, claimed.next)
    )


def info(session: WireSession, store: Store, request: Request) -> bytes:
    group, _ = decode_group(request.value)
    found = store.group_info(request.ns, text(request.key), group)
    if found is None:
        raise Refused("not_found", f"no group {group!r} on stream {text(request.key)!r}")
    return encode_reply(OK, request.request_id, encode_group_info(found))


def delete(session: WireSession, store: Store, request: Request) -> bytes:
    group, _ = decode_group(request.value)
    store.group_delete(request.ns, text(request.key), group)
    return encode_reply(OK, request.request_id)


def _must_be_missing(refused: Refused) -> None:
    if refused.kind != "not_found":
        raise refused


OPERATIONS: Final[dict[int, Operation]] = {
    opcodes.GROUP_CREATE: create,
    opcodes.GROUP_JOIN: join,
    opcodes.GROUP_LEAVE: leave,
    opcodes.GROUP_READ: read,
    opcodes.GROUP_ACK: ack,
    opcodes.GROUP_NACK: nack,
    opcodes.GROUP_TOUCH: touch,
    opcodes.GROUP_PENDING: pending,
    opcodes.GROUP_CLAIM: claim,
    opcodes.GROUP_INFO: info,
    opcodes.GROUP_DELETE: delete,
}
