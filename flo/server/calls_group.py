"""Calls on consumer groups. Unlike in the official clients' operations, a group that is not there is not_found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from flo.primitives.machine import Refused
from flo.primitives.stream_pages import Claimed, GroupInfo, GroupSettings, StreamId
from flo.primitives.stream_rules import format_id, parse_id, parse_start
from flo.server.call import Performers, checked_wait, id_text, record_view, reply
from flo.server.operations.records import reply_with_records
from flo.server.operations.session import WireSession
from flo.wire import calls
from flo.wire.frames import Request

if TYPE_CHECKING:
    from flo.grid.store import Store


def _settings(asked: calls.GroupCreate | calls.GroupRead) -> GroupSettings:
    return GroupSettings(
        asked.mode, asked.ack_timeout_ms, asked.max_deliver, asked.redeliver_delay_ms, asked.max_standbys, asked.slots
    )


def create(session: WireSession, store: Store, request: Request, asked: calls.GroupCreate) -> bytes:
    start = parse_start(asked.start)
    if start is None:
        start = _behind(store.stream_tail(request.ns, asked.stream))
    store.group_create(request.ns, asked.stream, asked.group, _settings(asked), start)
    return reply(request, calls.Nothing())


def _behind(tail: StreamId) -> StreamId:
    return tail[0], tail[1] + 1


def join(session: WireSession, store: Store, request: Request, asked: calls.GroupMember) -> bytes:
    owner = session.owner if asked.bound else None
    store.group_join(request.ns, asked.stream, asked.group, asked.consumer, owner=owner)
    return reply(request, calls.Nothing())


def leave(session: WireSession, store: Store, request: Request, asked: calls.GroupMember) -> bytes:
    store.group_leave(request.ns, asked.stream, asked.group, asked.consumer)
    return reply(request, calls.Nothing())


def read(session: WireSession, store: Store, request: Request, asked: calls.GroupRead) -> bytes | None:
    timeout_ms = checked_wait("wait_ms", asked.wait_ms)
    settings = _settings(asked)
    owner = session.owner if asked.bound else None
    if not timeout_ms:
        delivered = store.group_read(
            request.ns,
            asked.stream,
            asked.group,
            asked.consumer,
            asked.limit,
            no_ack=asked.no_ack,
            settings=settings,
            owner=owner,
        )
        return _delivered(session, store, request, delivered)
    wait = session.wait(store, request, _delivered)
    served = store.wait_group_read(
        request.ns,
        asked.stream,
        asked.group,
        asked.consumer,
        asked.limit,
        no_ack=asked.no_ack,
        settings=settings,
        owner=owner,
        timeout_ms=timeout_ms,
        done=wait,
    )
    if isinstance(served, list):
        return _delivered(session, store, request, served)
    session.parked(store, wait)
    return None


def _delivered(session: WireSession, store: Store, request: Request, delivered: Any) -> bytes | None:
    return reply_with_records(
        session,
        store,
        request,
        delivered,
        lambda records: calls.encode(calls.Delivery(list(map(record_view, records)))),
    )


def ack(session: WireSession, store: Store, request: Request, asked: calls.GroupAck) -> bytes:
    count = store.group_ack(request.ns, asked.stream, asked.group, _ids(asked.ids), asked.consumer)
    return reply(request, calls.Count(count))


def nack(session: WireSession, store: Store, request: Request, asked: calls.GroupNack) -> bytes:
    count = store.group_nack(
        request.ns, asked.stream, asked.group, _ids(asked.ids), delay_ms=asked.delay_ms, consumer=asked.consumer
    )
    return reply(request, calls.Count(count))


def touch(session: WireSession, store: Store, request: Request, asked: calls.GroupTouch) -> bytes:
    count = store.group_touch(
        request.ns, asked.stream, asked.group, _ids(asked.ids), asked.consumer, extend_ms=asked.extend_ms
    )
    return reply(request, calls.Count(count))


def claim(session: WireSession, store: Store, request: Request, asked: calls.GroupClaim) -> bytes | None:
    claimed = store.group_claim(
        request.ns, asked.stream, asked.group, asked.consumer, asked.min_idle_ms, ids=_ids(asked.ids)
    )
    return _claimed(session, store, request, claimed)


def autoclaim(session: WireSession, store: Store, request: Request, asked: calls.GroupAutoclaim) -> bytes | None:
    claimed = store.group_claim(
        request.ns,
        asked.stream,
        asked.group,
        asked.consumer,
        asked.min_idle_ms,
        start=parse_id(asked.start),
        limit=asked.limit,
    )
    return _claimed(session, store, request, claimed)


def _claimed(session: WireSession, store: Store, request: Request, claimed: Claimed) -> bytes | None:
    following = id_text(claimed.next)
    return reply_with_records(
        session,
        store,
        request,
        claimed.records,
        lambda records: calls.encode(calls.ClaimedRecords(list(map(record_view, records)), following)),
    )


def _ids(texts: Sequence[str]) -> list[StreamId]:
    return list(map(parse_id, texts))


def pending(session: WireSession, store: Store, request: Request, asked: calls.GroupPending) -> bytes:
    page = store.group_pending(
        request.ns, asked.stream, asked.group, asked.consumer, asked.limit, asked.cursor
    )  # fmt: skip
    entries = [
        calls.PendingEntry(
            format_id((entry.ms, entry.seq)),
            entry.partition,
            entry.consumer,
            entry.delivered_at,
            entry.last_delivery,
            entry.delivery_count,
            entry.idle_ms,
            entry.deadline,
            entry.state,
        )
        for entry in page.entries
    ]
    return reply(request, calls.PendingEntries(entries, page.has_more, page.cursor))


def info(session: WireSession, store: Store, request: Request, asked: calls.GroupName) -> bytes:
    found = store.group_info(request.ns, asked.stream, asked.group)
    if found is None:
        raise Refused("not_found", f"no group {asked.group!r} on stream {asked.stream!r}")
    return reply(request, _description(found))


def list_groups(session: WireSession, store: Store, request: Request, asked: calls.StreamName) -> bytes:
    groups = store.group_list(request.ns, asked.stream)
    return reply(request, calls.GroupDescriptions(list(map(_description, groups))))


def _description(info: GroupInfo) -> calls.GroupDescription:
    settings = info.settings
    return calls.GroupDescription(
        info.group,
        info.stream,
        info.namespace,
        settings.mode,
        settings.ack_timeout_ms,
        settings.max_deliver,
        settings.redeliver_delay_ms,
        settings.max_standbys,
        settings.slots,
        len(info.members),
        info.pending,
        id_text(info.last_delivered),
        id_text(info.ack_floor),
        info.lag,
        info.members,
    )


def delete(session: WireSession, store: Store, request: Request, asked: calls.GroupName) -> bytes:
    store.group_delete(request.ns, asked.stream, asked.group)
    return reply(request, calls.Nothing())


PERFORMERS: Final[Performers] = {
    calls.GROUP_CREATE.name: create,
    calls.GROUP_JOIN.name: join,
    calls.GROUP_LEAVE.name: leave,
    calls.GROUP_READ.name: read,
    calls.GROUP_ACK.name: ack,
    calls.GROUP_NACK.name: nack,
    calls.GROUP_TOUCH.name: touch,
    calls.GROUP_CLAIM.name: claim,
    calls.GROUP_AUTOCLAIM.name: autoclaim,
    calls.GROUP_PENDING.name: pending,
    calls.GROUP_INFO.name: info,
    calls.GROUP_LIST.name: list_groups,
    calls.GROUP_DELETE.name: delete,
}
