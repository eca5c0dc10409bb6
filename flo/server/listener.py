"""The client port: opened, served by one event loop, closed without losing what is being answered."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable
from typing import Final

from flo.api.errors import FloError
from flo.server.link import ClientLink, Connections

BACKLOG: Final = 1_024
STOP_SECONDS: Final = 5.0  # for running batches to become durable
LAST_WORDS_SECONDS: Final = 1.0  # for clients to read them and to close

_log = logging.getLogger(__name__)


class PortUnusable(FloError):
    """The server cannot listen where it was told to."""

    code = "port_unusable"


class Listener:
    """Accepts connections on a port.

    listener = Listener(connections)
    await listener.open("127.0.0.1", 9000)     # port 0: a free one; see `addresses`
    await listener.close()
    """

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.addresses: list[tuple[str, int]] = []
        self._servers: list[asyncio.Server] = []

    async def open(self, bind: str, port: int) -> int:
        """Listens on an address, beside those opened before; returns the port. Raises PortUnusable."""
        connections = self.connections
        try:
            server = await connections.loop.create_server(
                lambda: ClientLink(connections), bind, port, backlog=BACKLOG, reuse_address=True
            )
        except (OSError, OverflowError) as error:
            raise port_unusable(bind, port, error) from error
        self._servers.append(server)
        host, opened = server.sockets[0].getsockname()[:2]
        self.addresses.append((host, opened))
        return int(opened)

    async def close(self) -> None:
        """Accepts nothing more, answers what has arrived, cancels what waits, and closes all connections."""
        connections = self.connections
        connections.closing = True
        for server in self._servers:
            server.close()
        for link in list(connections.links):
            connections.turns.finish(link)
        await self._within(STOP_SECONDS, connections.turns.settle(), "what had arrived was not answered in time")
        if connections.links:
            await self._within(LAST_WORDS_SECONDS, connections.empty.wait(), "clients that did not close are closed")
        for link in list(connections.links):
            link.abort()
        if connections.links:
            await connections.empty.wait()
        await self._within(STOP_SECONDS, connections.turns.settle(), "what clients held was not let go in time")
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    async def _within(self, seconds: float, what: Awaitable[object], otherwise: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                await what
        except TimeoutError:
            _log.info("stopping: %s (%d connections)", otherwise, len(self.connections.links))


def port_unusable(bind: str, port: int, error: OSError | OverflowError) -> PortUnusable:
    where = f"{bind}:{port}"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return PortUnusable(f"port {where} is in use", hint="another server runs there; choose another port")
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return PortUnusable(f"no permission to listen on {where}", hint="ports below 1024 are for root")
    if isinstance(error, OSError) and (error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror)):
        return PortUnusable(f"this machine has no address {bind}", hint="127.0.0.1 is this machine, 0.0.0.0 all")
    return PortUnusable(f"cannot listen on {where}: {error}")
