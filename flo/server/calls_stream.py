"""Calls on streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flo.primitives.machine import Refused
from flo.primitives.stream_pages import NewRecord, PlacedPage, Retention, StreamInfo
from flo.primitives.stream_rules import format_id, parse_end, parse_id, parse_start
from flo.server.call import Performers, checked_wait, id_text, record_view, reply
from flo.server.operations.records import reply_with_records
from flo.server.operations.session import WireSession
from flo.wire import calls
from flo.wire.frames import Request

if TYPE_CHECKING:
    from flo.grid.store import Store


def append(session: WireSession, store: Store, request: Request, asked: calls.StreamAppend) -> bytes:
    records = [NewRecord(record.payload, record.headers) for record in asked.records]
    appended = store.stream_append(
        request.ns, asked.stream, records, partition=asked.partition, key=asked.partition_key
    )  # fmt: skip
    result = calls.AppendedRecords(format_id(appended.first), format_id(appended.last), appended.count)
    return reply(request, result)


def read(session: WireSession, store: Store, request: Request, asked: calls.StreamRead) -> bytes | None:
    timeout_ms = checked_wait("wait_ms", asked.wait_ms)
    if asked.start is not None and asked.after is not None:
        raise Refused("bad_argument", "start and after exclude one another")
    start = None if asked.start is None else parse_start(asked.start)
    after = None if asked.after is None else parse_id(asked.after)
    end = None if asked.end is None else parse_end(asked.end)
    tail = asked.start is not None and start is None
    if not timeout_ms:
        if tail:
            after = store.stream_tail(request.ns, asked.stream)
        page = store.stream_read(
            request.ns,
            asked.stream,
            start=start,
            end=end,
            after=after,
            limit=asked.limit,
            partition=asked.partition,
            key=asked.partition_key,
            skip=asked.skip,
        )
        return _page(session, store, request, page)
    wait = session.wait(store, request, _page)
    served = store.wait_read(
        request.ns,
        asked.stream,
        start=start,
        end=end,
        after=after,
        limit=asked.limit,
        partition=asked.partition,
        key=asked.partition_key,
        skip=asked.skip,
        tail=tail,
        timeout_ms=timeout_ms,
        done=wait,
    )
    if isinstance(served, PlacedPage):
        return _page(session, store, request, served)
    session.parked(store, wait)
    return None


def _page(session: WireSession, store: Store, request: Request, page: Any) -> bytes | None:
    has_more, following = page.has_more, format_id(page.next)
    return reply_with_records(
        session,
        store,
        request,
        page.records,
        lambda records: calls.encode(calls.StreamRecords(list(map(record_view, records)), has_more, following)),
    )


def info(session: WireSession, store: Store, request: Request, asked: calls.StreamName) -> bytes:
    found = store.stream_info(request.ns, asked.stream)
    if found is None:
        raise Refused("not_found", f"stream {asked.stream!r} not found")
    return reply(request, _description(store, request, found))


def list_streams(session: WireSession, store: Store, request: Request, asked: calls.ListPage) -> bytes:
    page = store.stream_list(request.ns, asked.limit, asked.cursor)
    streams = [_description(store, request, each) for each in page.streams]
    return reply(request, calls.StreamDescriptions(streams, page.has_more, page.cursor))


def _description(store: Store, request: Request, info: StreamInfo) -> calls.StreamDescription:
    retention = info.retention
    return calls.StreamDescription(
        info.name,
        info.namespace,
        len(info.partitions),
        id_text(info.first),
        id_text(info.last),
        info.records,
        info.bytes,
        calls.RetentionBounds(retention.max_age_ms, retention.max_records, retention.max_bytes),
        [group.group for group in store.group_list(request.ns, info.name)],
        info.partitions,
    )


def create(session: WireSession, store: Store, request: Request, asked: calls.StreamCreate) -> bytes:
    retention = Retention(asked.max_age_ms, asked.max_records, asked.max_bytes)
    store.stream_create(request.ns, asked.stream, asked.partitions, retention)
    return reply(request, calls.Nothing())


def alter(session: WireSession, store: Store, request: Request, asked: calls.StreamAlter) -> bytes:
    store.stream_alter(
        request.ns,
        asked.stream,
        max_age_ms=asked.max_age_ms,
        max_records=asked.max_records,
        max_bytes=asked.max_bytes,
    )
    return reply(request, calls.Nothing())


def trim(session: WireSession, store: Store, request: Request, asked: calls.StreamTrim) -> bytes:
    trimmed = store.stream_trim(
        request.ns,
        asked.stream,
        max_records=asked.max_records,
        before=None if asked.before is None else parse_id(asked.before),
        max_age_ms=asked.max_age_ms,
        max_bytes=asked.max_bytes,
        dry_run=asked.dry_run,
    )
    return reply(request, calls.TrimmedRecords(trimmed.count, id_text(trimmed.first)))


def delete(session: WireSession, store: Store, request: Request, asked: calls.StreamDelete) -> bytes:
    store.stream_delete(request.ns, asked.stream, asked.force)
    return reply(request, calls.Nothing())


PERFORMERS: Final[Performers] = {
    calls.STREAM_APPEND.name: append,
    calls.STREAM_READ.name: read,
    calls.STREAM_INFO.name: info,
    calls.STREAM_LIST.name: list_streams,
    calls.STREAM_CREATE.name: create,
    calls.STREAM_ALTER.name: alter,
    calls.STREAM_TRIM.name: trim,
    calls.STREAM_DELETE.name: delete,
}
