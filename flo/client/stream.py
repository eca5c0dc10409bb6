"""Streams: `client.stream` of a FloClient, `grid.stream` in process. Consumer groups: flo.client.stream_groups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from flo.client.options import (
    CallOptions,
    Headers,
    ListOptions,
    NewStreamRecord,
    StreamAlterOptions,
    StreamAppendOptions,
    StreamCreateOptions,
    StreamDeleteOptions,
    StreamInfoOptions,
    StreamReadOptions,
    StreamTrimOptions,
)
from flo.client.sdk_errors import ValidationError
from flo.client.stream_groups import StreamGroups
from flo.client.stream_records import id_of, id_text, read_result
from flo.client.transport import (
    BLOCK_MS,
    Tags,
    decoded,
    key_bytes,
    payload_bytes,
    refusal,
    short,
    u32,
    u64,
    unsigned,
    wait_of,
)
from flo.client.types import (
    PartitionInfo,
    Retention,
    StreamAppendManyResult,
    StreamAppendResult,
    StreamDescription,
    StreamID,
    StreamInfo,
    StreamListResult,
    StreamReadResult,
    StreamRecord,
    StreamTrimResult,
)
from flo.primitives.stream_pages import NewRecord
from flo.wire import calls, layouts_stream, opcodes, tlv

FOLLOW_BLOCK_MS: Final = 30_000
FOLLOW_COUNT: Final = 1_000
TAIL: Final = "$"
NO_ID: Final = (0, 0)


class Stream(StreamGroups):
    """Streams of a namespace: records in order, each with an id, read by position or by groups of consumers."""

    __slots__ = ()

    async def append(self, stream: str, payload: Any, options: StreamAppendOptions | None = None) -> StreamAppendResult:
        """Adds a record. A payload is bytes, text (UTF-8) or anything that JSON can say."""
        headers: Headers = () if options is None else options.headers
        first = await self._append(stream, [NewRecord(payload_bytes(payload), header_pairs(headers))], options)
        return StreamAppendResult(first)

    async def append_many(
        self, stream: str, records: Sequence[NewStreamRecord | Any], options: StreamAppendOptions | None = None
    ) -> StreamAppendManyResult:
        """Adds up to 1,000 records at once, all or none. Each is a NewStreamRecord, or only a payload; the headers of
        the options go to those that have none of their own."""
        common = () if options is None else header_pairs(options.headers)
        new = [
            NewRecord(payload_bytes(each.payload), header_pairs(each.headers) or common)
            if isinstance(each, NewStreamRecord)
            else NewRecord(payload_bytes(each), common)
            for each in records
        ]
        if not new:
            raise ValidationError("records is empty")
        first = await self._append(stream, new, options)
        last = StreamID(first.timestamp_ms, first.sequence + len(new) - 1)
        return StreamAppendManyResult(first, last, len(new))

    async def read(self, stream: str, options: StreamReadOptions | None = None) -> StreamReadResult:
        """Records from `start` on, all partitions merged. Without any it waits for `block_ms`; a stream that does not
        exist holds none."""
        options = options or StreamReadOptions()
        ns = self._ns(options)
        wait_ms = wait_of(options.block_ms)
        tags: Tags = {tlv.COUNT: u32(options.count, "count")}
        start = options.start
        tail = options.tail
        if options.after is not None:
            if start is not None:
                raise ValidationError("start and after exclude one another")
            start = id_of(options.after).next()
        elif start == TAIL:
            start, tail = None, True
        if tail:
            if start is not None:
                raise ValidationError("a start and tail exclude one another")
            tags[tlv.STREAM_TAIL] = b""
        elif start is not None:
            tags[tlv.STREAM_START] = id_of(start).to_bytes()
        if options.end is not None:
            tags[tlv.STREAM_END] = id_of(options.end, is_end=True).to_bytes()
        if options.partition is not None:
            tags[tlv.PARTITION] = u32(options.partition, "partition")
        if wait_ms:
            tags[tlv.BLOCK_MS] = u32(wait_ms, "block_ms")
        reply = await self._send(opcodes.STREAM_READ, ns, key_bytes(stream), b"", tags, wait_ms)
        if reply.status:
            raise refusal(reply)
        return read_result(stream, reply.body)

    async def follow(
        self, stream: str, start: StreamID | str | None = None, options: CallOptions | None = None
    ) -> AsyncIterator[StreamRecord]:
        """All records from `start` on, and those to come; without a start only those to come. Never ends by itself:

        async for record in client.stream.follow("events", start="0"):
            ...
        """
        ns = None if options is None else options.namespace
        if start is None or start == TAIL:
            info = await self.info(stream, StreamInfoOptions(ns))
            start = StreamID(*NO_ID) if info.last is None else info.last.next()
        following = id_of(start)
        wait_ms = min(FOLLOW_BLOCK_MS, BLOCK_MS)
        while True:
            page = await self.read(
                stream, StreamReadOptions(following, count=FOLLOW_COUNT, block_ms=wait_ms, namespace=ns)
            )
            for record in page.records:
                yield record
            following = page.next or following

    async def info(self, stream: str, options: StreamInfoOptions | None = None) -> StreamInfo:
        """The stream in numbers; zeros for one that does not exist (`describe` tells it apart)."""
        reply = await self._send(opcodes.STREAM_INFO, self._ns(options), key_bytes(stream))
        if reply.status:
            raise refusal(reply)
        told = decoded(layouts_stream.decode_info, reply.body)
        first = StreamID(*told.first) if told.count else None
        last = StreamID(*told.last) if tuple(told.last) != NO_ID else None
        return StreamInfo(first, last, told.count, told.bytes, told.partitions)

    async def trim(self, stream: str, options: StreamTrimOptions) -> StreamTrimResult:
        """Removes the oldest records down to the one bound that is given, or with `dry_run` only counts them. Raises
        NotFoundError."""
        bounds = (options.max_len, options.max_age_seconds, options.max_bytes, options.before)
        if sum(bound is not None for bound in bounds) != 1:
            raise ValidationError("a trim takes exactly one of max_len, max_age_seconds, max_bytes and before")
        ns = self._ns(options)
        if options.before is not None:
            trim = calls.StreamTrim(stream, before=id_text(options.before), dry_run=options.dry_run)
            return StreamTrimResult((await self._call(calls.STREAM_TRIM, ns, trim)).trimmed)
        tags: Tags = {}
        if options.max_len is not None:
            tags[tlv.MAX_COUNT] = u64(options.max_len, "max_len")
        if options.max_age_seconds is not None:
            tags[tlv.MAX_AGE_SECONDS] = u64(options.max_age_seconds, "max_age_seconds")
        if options.max_bytes is not None:
            tags[tlv.MAX_BYTES] = u64(options.max_bytes, "max_bytes")
        if options.dry_run:
            tags[tlv.DRY_RUN] = b""
        reply = await self._send(opcodes.STREAM_TRIM, ns, key_bytes(stream), b"", tags)
        if reply.status:
            raise refusal(reply)
        return StreamTrimResult(decoded(layouts_stream.decode_trimmed, reply.body) if reply.body else 0)

    async def create(self, stream: str, options: StreamCreateOptions | None = None) -> None:
        """Makes a stream with so many partitions and bounds. One that is there with the same is no error, with others
        a ConflictError."""
        options = options or StreamCreateOptions()
        creating = calls.StreamCreate(
            stream, options.partitions, options.max_age_ms, options.max_records, options.max_bytes
        )
        await self._call(calls.STREAM_CREATE, self._ns(options), creating)

    async def alter(self, stream: str, options: StreamAlterOptions) -> None:
        """Changes the bounds. Raises NotFoundError."""
        altering = calls.StreamAlter(stream, options.max_age_ms, options.max_records, options.max_bytes)
        await self._call(calls.STREAM_ALTER, self._ns(options), altering)

    async def delete(self, stream: str, options: StreamDeleteOptions | None = None) -> None:
        """Deletes the stream with its groups; one that does not exist is no error. Raises ConflictError when it is not
        empty, unless `force` is set."""
        deleting = calls.StreamDelete(stream, options is not None and options.force)
        await self._call(calls.STREAM_DELETE, self._ns(options), deleting)

    async def describe(self, stream: str, options: CallOptions | None = None) -> StreamDescription:
        """Everything about the stream: bounds, partitions, groups. Raises NotFoundError."""
        return _description(await self._call(calls.STREAM_INFO, self._ns(options), calls.StreamName(stream)))

    # last of the public ones, for below it `list` means this method in annotations
    async def list(self, options: ListOptions | None = None) -> StreamListResult:
        """A page of the namespace's streams."""
        options = options or ListOptions()
        asked = calls.ListPage(unsigned(options.limit, "limit"), options.cursor)
        page = await self._call(calls.STREAM_LIST, self._ns(options), asked)
        return StreamListResult([_description(each) for each in page.streams], page.has_more, page.cursor)

    async def _append(self, stream: str, records: Sequence[NewRecord], options: StreamAppendOptions | None) -> StreamID:
        tags: Tags | None = None
        if options is not None:
            if options.partition is not None and options.partition_key is not None:
                raise ValidationError("partition and partition_key exclude one another")
            if options.partition is not None:
                tags = {tlv.PARTITION: u32(options.partition, "partition")}
            elif options.partition_key is not None:
                tags = {tlv.PARTITION_KEY: short(key_bytes(options.partition_key), "partition_key")}
        # always as a batch: a payload alone could look like one
        value = payload_bytes(layouts_stream.encode_batch(records))
        reply = await self._send(opcodes.STREAM_APPEND, self._ns(options), key_bytes(stream), value, tags)
        if reply.status:
            raise refusal(reply)
        return StreamID(*decoded(layouts_stream.decode_appended, reply.body))


def header_pairs(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    """Names and values as they are sent. Raises ValidationError."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    try:
        return tuple((_short(name), _short(value)) for name, value in pairs)
    except (TypeError, AttributeError):
        raise ValidationError("headers are names and values, each a text or bytes") from None


def _short(part: str | bytes) -> bytes:
    data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else bytes(part)
    if len(data) > 65_535:
        raise ValidationError(f"a header of {len(data)} bytes is over the limit of 65535")
    return data


def _description(told: calls.StreamDescription) -> StreamDescription:
    kept = told.retention
    return StreamDescription(
        told.name,
        told.namespace,
        None if told.first_id is None else StreamID.parse(told.first_id),
        None if told.last_id is None else StreamID.parse(told.last_id),
        told.records,
        told.bytes,
        Retention(kept.max_age_ms, kept.max_records, kept.max_bytes),
        [PartitionInfo(each.records, each.bytes) for each in told.by_partition],
        [*told.groups],
    )
