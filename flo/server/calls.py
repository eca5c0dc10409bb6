"""Our own operation 0x0F0: a call by name, with its arguments and its result as msgpack maps (flo.wire.calls)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flo.primitives.machine import Refused
from flo.server import calls_group, calls_kv, calls_queue, calls_stream, calls_system
from flo.server.call import Performer
from flo.server.operations.session import Operation, WireSession
from flo.wire import opcodes
from flo.wire.calls import CALLS, CallError, decode_arguments
from flo.wire.frames import Request

if TYPE_CHECKING:
    from flo.grid.store import Store


def call(session: WireSession, store: Store, request: Request) -> bytes | None:
    name = request.key.decode("utf-8", "replace")
    performer = PERFORMERS.get(name)
    if performer is None:
        raise Refused("bad_argument", f"call {name[:100]!r} is not known to this server", {"code": "unknown_call"})
    try:
        arguments = decode_arguments(CALLS[name], request.value)
    except CallError as error:
        raise Refused("bad_argument", str(error)) from None
    return performer(session, store, request, arguments)


PERFORMERS: Final[dict[str, Performer[Any]]] = {
    **calls_kv.PERFORMERS,
    **calls_queue.PERFORMERS,
    **calls_stream.PERFORMERS,
    **calls_group.PERFORMERS,
    **calls_system.PERFORMERS,
}

OPERATIONS: Final[dict[int, Operation]] = {opcodes.CALL: call}
