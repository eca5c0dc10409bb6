"""Consumer groups: the part of `client.stream` whose calls begin with `group_`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, ParamSpec, TypeAlias

from flo.client.options import (
    CallOptions,
    StreamGroupAckOptions,
    StreamGroupClaimOptions,
    StreamGroupCreateOptions,
    StreamGroupJoinOptions,
    StreamGroupLeaveOptions,
    StreamGroupNackOptions,
    StreamGroupPendingOptions,
    StreamGroupReadOptions,
    StreamGroupTouchOptions,
)
from flo.client.sdk_errors import FloConnectionError, ValidationError
from flo.client.stream_records import detailed_records, id_of, id_text, read_result, records_of
from flo.client.transport import (
    Operations,
    Tags,
    decoded,
    keep,
    key_bytes,
    refusal,
    u32,
    unsigned,
    wait_of,
)
from flo.client.types import (
    GroupInfo,
    GroupMember,
    GroupSettings,
    PendingEntry,
    PendingResult,
    StreamClaimResult,
    StreamID,
    StreamReadResult,
)
from flo.wire import calls, layouts_stream, opcodes, statuses, tlv
from flo.wire.frames import Reply
from flo.wire.layouts import LayoutError

P = ParamSpec("P")

SERVED_MS: Final = 1_000  # a wait that a server ends earlier than asked, but not before, is gone on with

Ids: TypeAlias = "StreamID | str | Sequence[StreamID | str]"


class StreamGroups(Operations):
    """A group hands each record to one of its consumers, again if it is not acknowledged in time."""

    __slots__ = ()

    async def group_join(
        self, stream: str, group: str, consumer: str, options: StreamGroupJoinOptions | None = None
    ) -> None:
        """Makes the consumer a member; the group begins at the start of the stream if it is new."""
        value = _member(group, consumer)
        reply = await self._send(opcodes.GROUP_JOIN, self._ns(options), key_bytes(stream), value)
        if reply.status:
            raise refusal(reply)

    async def group_leave(
        self, stream: str, group: str, consumer: str, options: StreamGroupLeaveOptions | None = None
    ) -> None:
        """Ends a membership: what the consumer holds is handed to others at once. One that is none is no error."""
        value = _member(group, consumer)
        reply = await self._send(opcodes.GROUP_LEAVE, self._ns(options), key_bytes(stream), value)
        if reply.status and reply.status != statuses.NOT_FOUND:
            raise refusal(reply)

    async def group_read(
        self, stream: str, group: str, consumer: str, options: StreamGroupReadOptions | None = None
    ) -> StreamReadResult:
        """Records for this consumer: first what is due again, then new ones. Without any it waits for `block_ms`."""
        options = options or StreamGroupReadOptions()
        ns = self._ns(options)
        left_ms = wait_of(options.block_ms)
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            result = await self._group_read(stream, group, consumer, options, ns, left_ms)
            waited_ms = round((loop.time() - began) * 1_000)
            left_ms -= waited_ms
            # servers cap this wait, for clients that acknowledge on the same connection
            if result.records or left_ms <= 0 or waited_ms < SERVED_MS:
                return result

    async def group_ack(self, stream: str, group: str, ids: Ids, options: StreamGroupAckOptions | None = None) -> None:
        """Done with these records. Those that are not pending are no error."""
        consumer = "" if options is None else options.consumer
        value = _ids(group, consumer, ids)
        reply = await self._send(opcodes.GROUP_ACK, self._ns(options), key_bytes(stream), value)
        if reply.status:
            raise refusal(reply)

    async def group_nack(
        self, stream: str, group: str, ids: Ids, options: StreamGroupNackOptions | None = None
    ) -> None:
        """Gives records back: they are handed out again, to any consumer."""
        options = options or StreamGroupNackOptions()
        tags: Tags | None = None
        if options.redelivery_delay_ms is not None:
            tags = {tlv.REDELIVERY_DELAY_MS: u32(options.redelivery_delay_ms, "redelivery_delay_ms")}
        value = _ids(group, options.consumer, ids)
        reply = await self._send(opcodes.GROUP_NACK, self._ns(options), key_bytes(stream), value, tags)
        if reply.status:
            raise refusal(reply)

    async def group_touch(
        self, stream: str, group: str, consumer: str, ids: Ids, options: StreamGroupTouchOptions | None = None
    ) -> int:
        """Gives the consumer that much longer for these records; how many of them it still holds."""
        extend_ms = None if options is None else options.extend_ms
        touching = calls.GroupTouch(stream, group, _texts(ids), consumer, extend_ms)
        return (await self._call(calls.GROUP_TOUCH, self._ns(options), touching)).count

    async def group_claim(
        self, stream: str, group: str, consumer: str, options: StreamGroupClaimOptions | None = None
    ) -> StreamClaimResult:
        """Takes over pending records, a part of them at a time: go on from `result.next` until it is None."""
        options = options or StreamGroupClaimOptions()
        start = StreamID(0, 0) if options.start is None else id_of(options.start)
        unsigned(options.min_idle_ms, "min_idle_ms", 2**32 - 1)
        unsigned(options.count, "count", 2**32 - 1)
        value = _encoded(layouts_stream.encode_claim, group, consumer, options.min_idle_ms, start, options.count)
        reply = await self._send(opcodes.GROUP_CLAIM, self._ns(options), key_bytes(stream), value)
        if reply.status:
            raise refusal(reply)
        if not reply.body:
            return StreamClaimResult([], None)
        records, following = decoded(layouts_stream.decode_claimed, reply.body)
        return StreamClaimResult(records_of(stream, records), None if following is None else StreamID(*following))

    async def group_pending(
        self, stream: str, group: str, options: StreamGroupPendingOptions | None = None
    ) -> PendingResult:
        """What was handed out and is not acknowledged."""
        options = options or StreamGroupPendingOptions()
        ns = self._ns(options)
        if options.details or options.cursor:
            asked = calls.GroupPending(stream, group, options.consumer, options.limit, options.cursor)
            page = await self._call(calls.GROUP_PENDING, ns, asked)
            return PendingResult(
                [
                    PendingEntry(
                        StreamID.parse(e.id), e.delivery_count, e.consumer, e.partition, e.delivered_at,
                        e.last_delivery, e.idle_ms, e.deadline, e.state,
                    )
                    for e in page.entries
                ],
                page.has_more,
                page.cursor,
            )  # fmt: skip
        value = _encoded(layouts_stream.encode_group, group, options.consumer)
        reply = await self._send(opcodes.GROUP_PENDING, ns, key_bytes(stream), value)
        if reply.status:
            raise refusal(reply)
        held = decoded(layouts_stream.decode_pending, reply.body)
        return PendingResult([PendingEntry(StreamID(*each.id), each.delivery_count, each.consumer) for each in held])

    async def group_create(self, stream: str, group: str, options: StreamGroupCreateOptions | None = None) -> None:
        """Makes a group with these settings, and the stream if it does not exist. One that is there with the same is no
        error, with others a ConflictError."""
        options = options or StreamGroupCreateOptions()
        start = "0-0" if options.start is None else "$" if options.start == "$" else id_text(options.start)
        creating = calls.GroupCreate(
            stream, group, options.mode, options.ack_timeout_ms, options.max_deliver, options.redeliver_delay_ms,
            options.max_standbys, options.slots, start,
        )  # fmt: skip
        await self._call(calls.GROUP_CREATE, self._ns(options), creating)

    async def group_info(self, stream: str, group: str, options: CallOptions | None = None) -> GroupInfo:
        """The group with its settings, members and position. Raises NotFoundError."""
        told = await self._call(calls.GROUP_INFO, self._ns(options), calls.GroupName(stream, group))
        return _info(told)

    async def group_delete(self, stream: str, group: str, options: CallOptions | None = None) -> None:
        """Deletes the group with what is pending. Raises NotFoundError."""
        await self._call(calls.GROUP_DELETE, self._ns(options), calls.GroupName(stream, group))

    async def group_list(self, stream: str, options: CallOptions | None = None) -> list[GroupInfo]:
        """The groups of a stream."""
        told = await self._call(calls.GROUP_LIST, self._ns(options), calls.StreamName(stream))
        return [_info(each) for each in told.groups]

    async def _group_read(
        self, stream: str, group: str, consumer: str, options: StreamGroupReadOptions, ns: str, wait_ms: int
    ) -> StreamReadResult:
        if options.details or options.no_ack:
            asked = calls.GroupRead(
                stream, group, consumer, options.count, no_ack=options.no_ack, wait_ms=wait_ms, bound=True
            )
            delivery = await self._call(calls.GROUP_READ, ns, asked, wait_ms)
            return StreamReadResult(detailed_records(stream, delivery.records))
        tags: Tags = {tlv.COUNT: u32(options.count, "count")}
        value = _member(group, consumer)
        name = key_bytes(stream)
        if wait_ms:
            tags[tlv.BLOCK_MS] = u32(wait_ms, "block_ms")
            sent = self._send(opcodes.GROUP_READ, ns, name, value, tags, wait_ms)
            reply = await keep(self._transport, sent, lambda late: self._give_back_records(ns, name, group, late))
        else:
            reply = await self._send(opcodes.GROUP_READ, ns, name, value, tags)
        if reply.status:
            raise refusal(reply)
        return read_result(stream, reply.body)

    def _give_back_records(self, ns: str, name: bytes, group: str, late: Reply) -> None:
        """Records that came after the caller had given up are handed out again at once."""
        ids = [(record.ms, record.seq) for _, record in decoded(layouts_stream.decode_records, late.body)]
        if not ids:
            return

        async def give_back() -> None:
            try:
                await self._send(opcodes.GROUP_NACK, ns, name, layouts_stream.encode_ids(group, "", ids))
            except FloConnectionError:
                return  # their deadlines pass

        task = asyncio.get_running_loop().create_task(give_back())
        _background.add(task)
        task.add_done_callback(_background.discard)


_background: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly


def _member(group: str, consumer: str) -> bytes:
    return _encoded(layouts_stream.encode_member, group, consumer)


def _ids(group: str, consumer: str, ids: Ids) -> bytes:
    return _encoded(layouts_stream.encode_ids, group, consumer, _id_list(ids))


def _encoded(encode: Callable[P, bytes], *arguments: P.args, **named: P.kwargs) -> bytes:
    try:
        return encode(*arguments, **named)
    except LayoutError as error:
        raise ValidationError(str(error)) from None


def _id_list(ids: Ids) -> list[StreamID]:
    listed = [id_of(ids)] if isinstance(ids, StreamID | str) else [id_of(id) for id in ids]
    if not listed:
        raise ValidationError("ids is empty")
    return listed


def _texts(ids: Ids) -> list[str]:
    return [str(id) for id in _id_list(ids)]


def _info(told: calls.GroupDescription) -> GroupInfo:
    return GroupInfo(
        told.group,
        told.stream,
        GroupSettings(
            told.mode, told.ack_timeout_ms, told.max_deliver, told.redeliver_delay_ms, told.max_standbys, told.slots
        ),
        [GroupMember(each.consumer, each.state, each.joined_at, each.pending) for each in told.members],
        told.pending,
        None if told.last_delivered is None else StreamID.parse(told.last_delivered),
        None if told.ack_floor is None else StreamID.parse(told.ack_floor),
        told.lag,
    )
