"""A server on a real port over a store in memory, in the test's own loop; and a clock for it that moves when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flo.grid.node import Node
from flo.server.link import Connections
from flo.server.listener import Listener
from flo.server.turns import Turns


class RealServer:
    """May be stopped and started again on the same port, with the same store."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.port = 0
        self._listener: Listener | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener = Listener(Connections(Turns(loop, self.node.store), self.node.store, loop))
        self.port = await self._listener.open("127.0.0.1", self.port)

    async def stop(self) -> None:
        assert self._listener is not None
        await self._listener.close()
        self._listener = None

    def drop_connections(self) -> None:
        """Breaks all connections, as a failing network does."""
        assert self._listener is not None
        for link in list(self._listener.connections.links):
            link.abort()


@asynccontextmanager
async def real_server(url: str = "memory:") -> AsyncIterator[RealServer]:
    node = Node.open(url)
    server = RealServer(node)
    await server.start()
    try:
        yield server
    finally:
        if server._listener is not None:
            server.drop_connections()
            await server.stop()
        node.close()
