"""Calls on namespaces and on the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flo.api.version import VERSION
from flo.primitives.machine import Refused
from flo.server.call import Performers, reply
from flo.server.operations.session import WireSession
from flo.wire import calls
from flo.wire.frames import Request

if TYPE_CHECKING:
    from flo.grid.store import Store

COUNTED: Final = 1_000


def namespace_create(session: WireSession, store: Store, request: Request, asked: calls.NamespaceName) -> bytes:
    return reply(request, calls.NamespaceCreated(store.namespace_create(asked.name)))


def namespace_delete(session: WireSession, store: Store, request: Request, asked: calls.NamespaceDelete) -> bytes:
    store.namespace_delete(asked.name, asked.force)
    return reply(request, calls.Nothing())


def namespace_list(session: WireSession, store: Store, request: Request, asked: calls.NoArguments) -> bytes:
    return reply(request, calls.Namespaces(store.namespace_list()))


def namespace_info(session: WireSession, store: Store, request: Request, asked: calls.NamespaceName) -> bytes:
    name = asked.name
    if not store.namespace_exists(name):
        raise Refused("not_found", f"namespace {name!r} not found")
    queues = len(store.queue_list(name, COUNTED).queues)
    streams = len(store.stream_list(name, COUNTED).streams)
    return reply(request, calls.NamespaceDescription(name, store.key_count(name), queues, streams))


def namespace_exists(session: WireSession, store: Store, request: Request, asked: calls.NamespaceName) -> bytes:
    return reply(request, calls.Exists(store.namespace_exists(asked.name)))


def server_status(session: WireSession, store: Store, request: Request, asked: calls.NoArguments) -> bytes:
    status = calls.ServerStatus(
        VERSION, store.now, store.last_index, store.durable_index, len(store.namespace_list())
    )  # fmt: skip
    return reply(request, status)


PERFORMERS: Final[Performers] = {
    calls.NAMESPACE_CREATE.name: namespace_create,
    calls.NAMESPACE_DELETE.name: namespace_delete,
    calls.NAMESPACE_LIST.name: namespace_list,
    calls.NAMESPACE_INFO.name: namespace_info,
    calls.NAMESPACE_EXISTS.name: namespace_exists,
    calls.SERVER_STATUS.name: server_status,
}
