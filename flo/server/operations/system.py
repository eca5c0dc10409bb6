"""Operations on the server itself and on namespaces. The cluster is this one node."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from flo.server.operations.session import Operation, WireSession
from flo.wire import opcodes
from flo.wire.frames import Request, encode_reply
from flo.wire.layouts import text, text16, u32
from flo.wire.statuses import OK

if TYPE_CHECKING:
    from flo.grid.store import Store

NODE: Final = 1
TERM: Final = 1
LEADER: Final = 2  # state of a member: 0 follower, 1 candidate, 2 leader

_status = struct.Struct("<IIQBI")
_member = struct.Struct("<IIB")


def ping(session: WireSession, store: Store, request: Request) -> bytes:
    return encode_reply(OK, request.request_id)


def namespace_create(session: WireSession, store: Store, request: Request) -> bytes:
    store.namespace_create(text(request.key))
    return encode_reply(OK, request.request_id)


def namespace_delete(session: WireSession, store: Store, request: Request) -> bytes:
    store.namespace_delete(text(request.key), any(request.value))
    return encode_reply(OK, request.request_id)


def namespace_list(session: WireSession, store: Store, request: Request) -> bytes:
    names = store.namespace_list()
    return encode_reply(OK, request.request_id, u32(len(names)) + b"".join(map(text16, names)))


def namespace_info(session: WireSession, store: Store, request: Request) -> bytes:
    name = text(request.key)
    exists = b"\1" if store.namespace_exists(name) else b"\0"
    return encode_reply(OK, request.request_id, exists + text16(name))


def cluster_status(session: WireSession, store: Store, request: Request) -> bytes:
    return encode_reply(OK, request.request_id, _status.pack(NODE, NODE, TERM, LEADER, 1))


def cluster_members(session: WireSession, store: Store, request: Request) -> bytes:
    return encode_reply(OK, request.request_id, _member.pack(1, NODE, LEADER) + text16(""))


OPERATIONS: Final[dict[int, Operation]] = {
    opcodes.PING: ping,
    opcodes.NAMESPACE_CREATE: namespace_create,
    opcodes.NAMESPACE_DELETE: namespace_delete,
    opcodes.NAMESPACE_LIST: namespace_list,
    opcodes.NAMESPACE_INFO: namespace_info,
    opcodes.CLUSTER_STATUS: cluster_status,
    opcodes.CLUSTER_MEMBERS: cluster_members,
}
