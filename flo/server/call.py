"""What the calls of flo.server.calls have in common: results, waits, ids, records."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from flo.primitives.machine import Refused
from flo.primitives.stream_pages import Record, StreamId
from flo.primitives.stream_rules import format_id
from flo.server.operations.session import WireSession
from flo.wire.calls import WAIT_MS, StreamRecord, encode
from flo.wire.frames import Request, encode_reply
from flo.wire.statuses import OK

if TYPE_CHECKING:
    from flo.grid.store import Store

A = TypeVar("A")

Performer: TypeAlias = Callable[["WireSession", "Store", Request, A], bytes | None]
"""Performs a call; returns the reply, None if it comes later."""

Performers: TypeAlias = dict[str, Performer[Any]]


def reply(request: Request, result: msgspec.Struct) -> bytes:
    return encode_reply(OK, request.request_id, encode(result))


def checked_wait(name: str, milliseconds: int) -> int:
    """A wait as it was asked for; 0: none."""
    if not 0 <= milliseconds <= WAIT_MS:
        raise Refused("bad_argument", f"{name} must be 0 to {WAIT_MS}, not {milliseconds}")
    return milliseconds


def id_text(id: StreamId | None) -> str | None:
    return None if id is None else format_id(id)


def record_view(record: Record) -> StreamRecord:
    return StreamRecord(
        format_id((record.ms, record.seq)),
        record.ms,
        record.partition,
        record.tier,
        record.key,
        record.payload,
        record.headers,
        record.delivery_count,
    )
