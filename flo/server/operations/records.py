"""Replies that hold records: their payloads are in memory, or are read from the log in a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flo.api.errors import FloError
from flo.primitives.machine import Refused
from flo.primitives.stream_pages import Delivered, Placed, Record
from flo.server.operations.session import WireSession, refuse
from flo.wire.frames import Request, encode_reply
from flo.wire.statuses import OK

if TYPE_CHECKING:
    from flo.grid.store import Store

RECORD_OVERHEAD_BYTES = 64  # of a record in a reply, besides payload and headers


def reply_with_records(
    session: WireSession,
    store: Store,
    request: Request,
    placed: Sequence[Placed] | Sequence[Delivered],
    encode: Callable[[list[Record]], bytes],
) -> bytes | None:
    """The reply whose body `encode` makes of the records; None if they must be read first: then it follows."""
    records = store.records.load_hot(placed)
    if records is not None:
        return encode_reply(OK, request.request_id, encode(records))

    def read() -> bytes:
        try:
            body = encode(store.records.load(placed))
        except (Refused, FloError) as error:
            return refuse(request, error)
        return encode_reply(OK, request.request_id, body)

    size = sum((each.record if isinstance(each, Delivered) else each).size for each in placed)
    session.turns.load(session.owner, size + RECORD_OVERHEAD_BYTES * len(placed), read)
    return None
