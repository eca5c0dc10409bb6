"""Operations on streams. What does not exist is empty here: clients parse the body of a not_found, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flo.primitives.machine import Refused
from flo.primitives.stream_pages import NewRecord, PlacedPage, Retention
from flo.server.operations.records import reply_with_records
from flo.server.operations.session import Operation, WireSession, wait_ms
from flo.wire import opcodes
from flo.wire.frames import Request, encode_reply
from flo.wire.layouts import decode_paging, text
from flo.wire.layouts_stream import (
    NO_RECORDS,
    decode_batch,
    encode_appended,
    encode_info,
    encode_records,
    encode_stream_list,
    encode_trimmed,
)
from flo.wire.statuses import OK
from flo.wire.tlv import (
    COUNT,
    DRY_RUN,
    FORCE,
    MAX_AGE_SECONDS,
    MAX_BYTES,
    MAX_COUNT,
    PARTITION,
    PARTITION_KEY,
    STREAM_END,
    STREAM_START,
    STREAM_TAIL,
    flag,
    integer,
    optional_integer,
    stream_id,
)

if TYPE_CHECKING:
    from flo.grid.store import Store

READ_LIMIT_DEFAULT: Final = 100


def append(session: WireSession, store: Store, request: Request) -> bytes:
    """A value that is exactly a batch is one; any other is the payload of one record."""
    options = request.options
    records = decode_batch(request.value)
    if records is None:
        records = [NewRecord(request.value)]
    appended = store.stream_append(
        request.ns,
        text(request.key),
        records,
        partition=optional_integer(options, PARTITION) if options else None,
        key=options.get(PARTITION_KEY),
    )
    return encode_reply(OK, request.request_id, encode_appended(appended.first))


def read(session: WireSession, store: Store, request: Request) -> bytes | None:
    options = request.options
    stream = text(request.key)
    tail = flag(options, STREAM_TAIL)
    start = stream_id(options, STREAM_START)
    end = stream_id(options, STREAM_END)
    limit = integer(options, COUNT, READ_LIMIT_DEFAULT)
    partition = optional_integer(options, PARTITION)
    key = options.get(PARTITION_KEY)
    timeout_ms = wait_ms(request)
    if timeout_ms is None:
        if tail:
            return encode_reply(OK, request.request_id, NO_RECORDS)
        page = store.stream_read(
            request.ns, stream, start=start, end=end, limit=limit, partition=partition, key=key
        )  # fmt: skip
        return _page(session, store, request, page)
    wait = session.wait(store, request, _page)
    served = store.wait_read(
        request.ns,
        stream,
        start=start,
        end=end,
        limit=limit,
        partition=partition,
        key=key,
        tail=tail,
        timeout_ms=timeout_ms,
        done=wait,
    )
    if isinstance(served, PlacedPage):
        return _page(session, store, request, served)
    session.parked(store, wait)
    return None


def _page(session: WireSession, store: Store, request: Request, page: PlacedPage) -> bytes | None:
    if not page.records:
        return encode_reply(OK, request.request_id, NO_RECORDS)
    stream = text(request.key)
    return reply_with_records(
        session, store, request, page.records, lambda records: encode_records(stream, records)
    )  # fmt: skip


def info(session: WireSession, store: Store, request: Request) -> bytes:
    return encode_reply(OK, request.request_id, encode_info(store.stream_info(request.ns, text(request.key))))


def trim(session: WireSession, store: Store, request: Request) -> bytes:
    options = request.options
    max_age_s = optional_integer(options, MAX_AGE_SECONDS)
    try:
        trimmed = store.stream_trim(
            request.ns,
            text(request.key),
            max_records=optional_integer(options, MAX_COUNT),
            max_age_ms=None if max_age_s is None else max_age_s * 1_000,
            max_bytes=optional_integer(options, MAX_BYTES),
            dry_run=flag(options, DRY_RUN),
        )
    except Refused as refused:
        if refused.kind != "not_found":
            raise
        return encode_reply(OK, request.request_id, encode_trimmed(0, None))
    return encode_reply(OK, request.request_id, encode_trimmed(trimmed.count, trimmed.first))


def list_streams(session: WireSession, store: Store, request: Request) -> bytes:
    page = store.stream_list(request.ns, *decode_paging(request.value))
    return encode_reply(OK, request.request_id, encode_stream_list(page))


def create(session: WireSession, store: Store, request: Request) -> bytes:
    options = request.options
    retention = Retention(
        integer(options, MAX_AGE_SECONDS, 0) * 1_000, integer(options, MAX_COUNT, 0), integer(options, MAX_BYTES, 0)
    )
    store.stream_create(request.ns, text(request.key), integer(options, PARTITION, 1), retention)
    return encode_reply(OK, request.request_id)


def alter(session: WireSession, store: Store, request: Request) -> bytes:
    options = request.options
    max_age_s = optional_integer(options, MAX_AGE_SECONDS)
    store.stream_alter(
        request.ns,
        text(request.key),
        max_age_ms=None if max_age_s is None else max_age_s * 1_000,
        max_records=optional_integer(options, MAX_COUNT),
        max_bytes=optional_integer(options, MAX_BYTES),
    )
    return encode_reply(OK, request.request_id)


def delete(session: WireSession, store: Store, request: Request) -> bytes:
    store.stream_delete(request.ns, text(request.key), flag(request.options, FORCE))
    return encode_reply(OK, request.request_id)


OPERATIONS: Final[dict[int, Operation]] = {
    opcodes.STREAM_APPEND: append,
    opcodes.STREAM_READ: read,
    opcodes.STREAM_INFO: info,
    opcodes.STREAM_TRIM: trim,
    opcodes.STREAM_LIST: list_streams,
    opcodes.STREAM_CREATE: create,
    opcodes.STREAM_ALTER: alter,
    opcodes.STREAM_DELETE: delete,
}
