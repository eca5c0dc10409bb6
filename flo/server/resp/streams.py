"""Streams (spec/redis.md §2). Ids are the store's; fields and values are kept as fields.py says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from flo.grid.store import PARKED, Store
from flo.grid.waiters import Parked
from flo.log.errors import FloError
from flo.primitives.machine import Refused
from flo.primitives.stream_pages import Placed, Record, StreamId
from flo.primitives.stream_rules import PART_MAX, READ_LIMIT, parse_end, parse_id
from flo.server.resp import fields
from flo.server.resp.arguments import block_ms, name, whole
from flo.server.resp.client import Client
from flo.server.resp.replies import (
    EMPTY_ARRAY,
    SYNTAX,
    ZERO,
    Reject,
    array,
    bulk,
    bulks,
    error,
    failure,
    integer,
    mapping,
    refusal,
    wrong_count,
)

RANGE_RECORDS: Final = 10_000  # of one XRANGE
RANGE_BYTES: Final = 16 * 1024 * 1024  # the same
LOADED_AT_ONCE: Final = READ_LIMIT  # records: more are loaded in a thread, even from memory
STREAM: Final = "stream"
BAD_ID: Final = error("Invalid stream ID specified as stream command argument")

Found = tuple[bytes, list[Placed]]  # name of a stream, its records


# -- writing


def add(client: Client, store: Store, args: list[bytes]) -> bytes:
    stream = name(args[1], STREAM)
    creates = True
    bound: tuple[bytes, bytes] | None = None
    at = 2
    while at < len(args) and args[at] != b"*":
        option = args[at].upper()
        if option == b"NOMKSTREAM":
            creates = False
            at += 1
        elif option == b"MAXLEN" or option == b"MINID":
            bound = (option, b"")
            at, bound = _bound(args, at)
        else:
            _id(args[at].replace(b"-*", b""))
            return error("explicit ids are not supported")
    given = args[at + 1 :]
    if not given or len(given) % 2:
        return wrong_count("xadd")
    ns = client.ns
    if not creates and store.stream_info(ns, stream) is None:
        return client.nil
    check = _checked(bound) if bound is not None else None
    appended = store.stream_append(ns, stream, [fields.record(given)])
    if check is not None:
        _trim(store, ns, stream, check)
    return bulk(b"%d-%d" % appended.first)


def trim(client: Client, store: Store, args: list[bytes]) -> bytes:
    stream = name(args[1], STREAM)
    if args[2].upper() not in (b"MAXLEN", b"MINID"):
        return SYNTAX
    at, bound = _bound(args, 2)
    if at < len(args):
        return SYNTAX
    return integer(_trim(store, client.ns, stream, _checked(bound)))


def _bound(args: list[bytes], at: int) -> tuple[int, tuple[bytes, bytes]]:
    """MAXLEN or MINID, [= or ~] threshold [LIMIT count]; where it ends. Trims are exact, `~` or not."""
    option = args[at].upper()
    at += 1
    about = at < len(args) and args[at] == b"~"
    if at < len(args) and args[at] in (b"~", b"="):
        at += 1
    if at >= len(args):
        raise Reject(SYNTAX)
    threshold = args[at]
    at += 1
    if at + 1 < len(args) and args[at].upper() == b"LIMIT":
        if not about:
            raise Reject(error("syntax error, LIMIT cannot be used without the special ~ option"))
        if whole(args[at + 1]) < 0:
            raise Reject(error("The LIMIT argument must be >= 0."))
        at += 2
    return at, (option, threshold)


def _checked(bound: tuple[bytes, bytes]) -> int | StreamId:
    option, threshold = bound
    if option == b"MINID":
        return _id(threshold)
    records = whole(threshold)
    if records < 0:
        raise Reject(error("The MAXLEN argument must be >= 0."))
    return records


def _trim(store: Store, ns: str, stream: str, bound: int | StreamId) -> int:
    """The number of records removed."""
    try:
        if isinstance(bound, tuple):
            return store.stream_trim(ns, stream, before=bound).count if bound != (0, 0) else 0
        if bound:
            return store.stream_trim(ns, stream, max_records=bound).count
        return store.stream_trim(ns, stream, before=_after(store.stream_tail(ns, stream))).count
    except Refused as refused:
        if refused.kind != "not_found":
            raise
        return 0


# -- reading


def length(client: Client, store: Store, args: list[bytes]) -> bytes:
    info = store.stream_info(client.ns, name(args[1], STREAM))
    return ZERO if info is None else integer(info.records)


def forward(client: Client, store: Store, args: list[bytes]) -> bytes | None:
    return _range(client, store, args, args[2], args[3], backward=False)


def backward(client: Client, store: Store, args: list[bytes]) -> bytes | None:
    return _range(client, store, args, args[3], args[2], backward=True)


def _range(
    client: Client, store: Store, args: list[bytes], first: bytes, last: bytes, *, backward: bool
) -> bytes | None:
    ns, stream = client.ns, name(args[1], STREAM)
    start, end = _start(first), _end(last)
    count: int | None = None
    at = 4
    while at < len(args):
        if args[at].upper() != b"COUNT" or at + 1 == len(args):
            return SYNTAX
        count = whole(args[at + 1])
        at += 2
    if end < start or store.stream_info(ns, stream) is None:
        return EMPTY_ARRAY
    if count is not None and count <= 0:
        return client.nil_array
    skip = 0
    if backward:
        there = _count(store, ns, stream, start, end)
        if count is not None:
            skip = max(0, there - count)
    records = _collect(store, ns, stream, start, end, count, skip)
    if backward:
        records.reverse()
    return _loaded(client, store, [(b"", records)], _entries_alone)


def _collect(
    store: Store, ns: str, stream: str, start: StreamId, end: StreamId, count: int | None, skip: int
) -> list[Placed]:
    """The records of a range, page by page. Raises Reject for more than one reply holds."""
    most = RANGE_RECORDS + 1 if count is None else min(count, RANGE_RECORDS + 1)
    page = store.stream_read(ns, stream, start=start, end=end, limit=min(most, READ_LIMIT), skip=skip)
    records = list(page.records)
    size = sum([record.size for record in records])
    while page.has_more and len(records) < most and size <= RANGE_BYTES:
        limit = min(most - len(records), READ_LIMIT)
        page = store.stream_read(ns, stream, after=page.next, end=end, limit=limit)
        records += page.records
        size += sum([record.size for record in page.records])
    if len(records) > RANGE_RECORDS or size > RANGE_BYTES:
        raise Reject(error(f"the range has over {RANGE_RECORDS} records or {RANGE_BYTES} bytes: use COUNT"))
    return records


def _count(store: Store, ns: str, stream: str, start: StreamId, end: StreamId) -> int:
    """Records of a range: ordinals are dense, and what is trimmed is always the oldest."""
    first = store.stream_read(ns, stream, start=start, limit=1).records
    if not first:
        return 0
    beyond = store.stream_read(ns, stream, after=end, limit=1).records
    if beyond:
        return beyond[0].ordinal - first[0].ordinal
    info = store.stream_info(ns, stream)
    oldest = store.stream_read(ns, stream, limit=1).records
    return 0 if info is None or not oldest else oldest[0].ordinal + info.records - first[0].ordinal


def read(client: Client, store: Store, args: list[bytes]) -> bytes | None:
    """XREAD. A page of each stream at most: who reads on from the last id gets the rest."""
    limit = READ_LIMIT
    waits = False
    timeout: int | None = None
    at = 1
    while at + 1 < len(args) and (option := args[at].upper()) != b"STREAMS":
        if option == b"COUNT":
            count = whole(args[at + 1])
            limit = min(count, READ_LIMIT) if count > 0 else READ_LIMIT
        elif option == b"BLOCK":
            waits = True
            timeout = block_ms(args[at + 1])
        else:
            return SYNTAX
        at += 2
    if at + 1 >= len(args) or args[at].upper() != b"STREAMS":
        return SYNTAX
    given = args[at + 1 :]
    if len(given) % 2:
        return error("Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.")
    half = len(given) // 2
    ns = client.ns
    wanted: list[tuple[bytes, str, StreamId]] = []
    for raw, id in zip(given[:half], given[half:], strict=True):
        stream = name(raw, STREAM)
        wanted.append((raw, stream, store.stream_tail(ns, stream) if id == b"$" else _id(id)))
    found: list[Found] = []
    for raw, stream, after in wanted:
        page = store.stream_read(ns, stream, after=after, limit=limit)
        if page.records:
            found.append((raw, page.records))
    if found:
        return _loaded(client, store, found, _entries_by_stream)
    if not waits:
        return client.nil_array
    parked: list[Parked] = []
    try:
        for raw, stream, after in wanted:
            parked.append(_wait(client, store, raw, stream, after, limit, timeout))
    except Refused:  # too many wait: then this command does not wait at all
        for one in parked:
            one.cancel()
        raise
    client.wait_for(parked, client.nil_array)
    return None


def _wait(
    client: Client, store: Store, raw: bytes, stream: str, after: StreamId, limit: int, timeout: int | None
) -> Parked:
    def done(result: Any) -> None:
        client.leave()
        reply: bytes | None
        if isinstance(result, Refused):
            reply = refusal(result)
        elif isinstance(result, FloError):
            reply = failure(result)
        elif not result.records:
            reply = client.nil_array
        else:
            reply = _loaded(client, store, [(raw, result.records)], _entries_by_stream)
        if reply is not None:
            client.answer(reply)

    result = store.wait_read(client.ns, stream, after=after, limit=limit, timeout_ms=timeout, done=done)
    assert result is PARKED, "nothing was there a moment ago, and the lock is still held"
    assert store.last_parked is not None
    return store.last_parked


# -- replies


def _loaded(client: Client, store: Store, found: list[Found], encode: Any) -> bytes | None:
    """The reply with these records, or None when it comes later since some have to be read from the disk."""
    placed = [record for _, records in found for record in records]
    protocol = client.protocol
    if len(placed) <= LOADED_AT_ONCE:
        loaded = store.records.load_hot(placed)
        if loaded is not None:
            reply: bytes = encode(found, loaded, protocol)
            return reply
    size = sum([record.size for record in placed])
    client.load(size, lambda: encode(found, store.records.load(placed), protocol))
    return None


def _entries_alone(found: list[Found], loaded: list[Record], protocol: int) -> bytes:
    return _entries(loaded)


def _entries_by_stream(found: list[Found], loaded: list[Record], protocol: int) -> bytes:
    parts: list[bytes] = []
    at = 0
    for raw, records in found:
        parts += [bulk(raw), _entries(loaded[at : at + len(records)])]
        at += len(records)
    if protocol == 3:
        return mapping(parts, protocol)
    return array([b"*2\r\n%b%b" % (parts[at], parts[at + 1]) for at in range(0, len(parts), 2)])


def _entries(records: Sequence[Record]) -> bytes:
    return array([
        b"*2\r\n%b%b" % (bulk(b"%d-%d" % (record.ms, record.seq)), bulks(fields.pairs(record.payload, record.headers)))
        for record in records
    ])  # fmt: skip


# -- ids


def _id(raw: bytes) -> StreamId:
    """`123` is `123-0`. Raises Reject."""
    try:
        return parse_id(raw.decode("ascii", "replace"))
    except Refused:
        raise Reject(BAD_ID) from None


def _start(raw: bytes) -> StreamId:
    """Where a range begins, inclusive."""
    if raw == b"-":
        return 0, 0
    if raw == b"+":
        return PART_MAX, PART_MAX
    if not raw.startswith(b"("):
        return _id(raw)
    id = _id(raw[1:])
    if id == (PART_MAX, PART_MAX):
        raise Reject(error("invalid start ID for the interval"))
    return _after(id)


def _end(raw: bytes) -> StreamId:
    """Where a range ends, inclusive. `123` means all of that millisecond."""
    if raw == b"+":
        return PART_MAX, PART_MAX
    if raw == b"-":
        return 0, 0
    exclusive = raw.startswith(b"(")
    try:
        ms, seq = parse_end(raw[exclusive:].decode("ascii", "replace"))
    except Refused:
        raise Reject(BAD_ID) from None
    if not exclusive:
        return ms, seq
    if seq:
        return ms, seq - 1
    if not ms:
        raise Reject(error("invalid end ID for the interval"))
    return ms - 1, PART_MAX


def _after(id: StreamId) -> StreamId:
    ms, seq = id
    return (ms, seq + 1) if seq < PART_MAX else (ms + 1, 0)
