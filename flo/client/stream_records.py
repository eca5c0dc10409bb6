"""Records and ids of streams as FloClient shows them, from what the protocol carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flo.client.sdk_errors import ValidationError
from flo.client.transport import decoded
from flo.client.types import StreamID, StreamReadResult, StreamRecord
from flo.primitives.stream_pages import Record
from flo.wire import calls, layouts_stream

LAST: Final = 2**64 - 1


def read_result(stream: str, body: bytes) -> StreamReadResult:
    """Of a reply's list of records."""
    return StreamReadResult(records_of(stream, decoded(layouts_stream.decode_records, body)))


def records_of(stream: str, records: Sequence[tuple[str, Record]]) -> list[StreamRecord]:
    return [
        StreamRecord(
            StreamID(record.ms, record.seq),
            name or stream,
            record.payload,
            _headers(record.headers) if record.headers else {},
            record.partition,
            record.tier,
            record.headers,
        )
        for name, record in records
    ]


def detailed_records(stream: str, records: Sequence[calls.StreamRecord]) -> list[StreamRecord]:
    return [
        StreamRecord(
            StreamID.parse(record.id),
            stream,
            record.payload,
            _headers(record.headers),
            record.partition,
            record.tier,
            tuple((name, value) for name, value in record.headers),
            record.delivery_count,
            record.partition_key,
        )
        for record in records
    ]


def id_of(id: StreamID | str | tuple[int, int], *, is_end: bool = False) -> StreamID:
    """An id from what a caller gives; a number alone is as an end the last id of that millisecond. Raises
    ValidationError."""
    if isinstance(id, StreamID):
        return id
    if isinstance(id, str):
        parsed = StreamID.parse(id)
        return StreamID(parsed.timestamp_ms, LAST) if is_end and "-" not in id else parsed
    try:
        return StreamID(*id)
    except TypeError:
        raise ValidationError(f"{id!r} is no stream id") from None


def id_text(id: StreamID | str | tuple[int, int]) -> str:
    """Raises ValidationError."""
    return str(id_of(id))


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape") for name, value in pairs}
